"""The two lists of a run beside its images in a bucket.

Objects cannot be appended to, so a list is one object that is replaced: when a run ends, and at the
start of the next one if it was killed. One object, because `datasets` knows a list by its name.
"""

from __future__ import annotations

from pathlib import Path

from .files import check_regular
from .metadata import FAILURES, METADATA
from .objects import Objects


def upload_lists(objects: Objects, folder: Path) -> None:
    """Replace the objects of both lists by the files of a folder, in constant memory. Blocks.
    Raises SinkError, and OSError for a list that cannot be read."""
    for name in (METADATA, FAILURES):
        path = folder / name
        check_regular(path)
        if path.exists():
            objects.write(name, path)
