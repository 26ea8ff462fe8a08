"""The saved images of a run by their names in the output, where they are: files of its folder, or
objects under a URL.

Blocking, for threads. What an image should be is in the journal; what is wrong with it is for the
caller to say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from .files import open_to_read


class StoredImages(Protocol):
    """Finds, reads and removes the images of a run.

    Files raise OSError: FileNotFoundError or NotADirectoryError for a missing one. Of a bucket a
    missing object raises FileNotFoundError, any other error SinkError.
    """

    is_remote: bool  #: a read takes long and may cost money

    def prepare(self) -> Iterator[None]:
        """Do what `size` needs, in steps; once is enough. Raises SinkError."""

    def size(self, name: str) -> int | None:
        """Return the bytes of an image; None if it is missing, or no regular file. After
        `prepare`."""

    def read(self, name: str, size: int) -> bytes:
        """Return an image's bytes; of one that is larger than `size`, at least one more."""

    def path(self, name: str) -> Path | None:
        """Return the file of an image; None for an object."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove images; of those in a bucket some may be gone already."""


class FolderImages:
    """Images that are files. Links are followed, as everywhere where a user may have moved them."""

    is_remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> Iterator[None]:
        yield from ()

    def size(self, name: str) -> int | None:
        try:
            found = os.stat(self._folder / name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        # a pipe, a folder or a device has its name
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, name: str, size: int) -> bytes:
        with open_to_read(self._folder / name, follow=True) as file:
            return file.read(size + 1)

    def path(self, name: str) -> Path | None:
        return self._folder / name

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            os.unlink(self._folder / name)
