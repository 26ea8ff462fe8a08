"""The marker of a run under its URL: where the record of the run is, so that no second one begins.

With two records each run would pay for the images of the other. The marker is created after the
record and before the first image, and it stays.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from attrs import asdict, frozen

from .._core.errors import JournalError
from .._core.text import display
from .files import HOME
from .journal.reader import recorded_id
from .metadata import METADATA
from .object_log import ObjectLog
from .objects import Objects

NAME = f"{HOME}/run.json"

_RESTORE = f"restore {HOME}/log there from a copy of the bucket, or choose another URL"


@frozen
class RunMarker:
    """What a bucket says of the run that it has."""

    run: str  #: id of its journal
    folder: str = ""  #: where its record is; "" = in the bucket
    host: str = ""  #: of the folder


def check_marker(objects: Objects, state: Path | None) -> None:
    """Refuse a run that would begin a second record; `state` is the folder of its own one (None =
    in the bucket). Blocks. Raises JournalError, and SinkError for an error of the store."""
    url, marker = objects.url, _read(objects)
    if state is not None:
        _check_folder(url, marker, state)
        return
    if marker is not None and marker.folder:
        raise JournalError(
            f"{url} has images of a run whose record is in {_place(marker)}: add --state with that "
            "folder there, or choose another URL"
        )
    if ObjectLog(objects).group(1) is None:
        if marker is not None:
            raise JournalError(f"{url} lacks the record of its run, which was there: {_RESTORE}")
        if objects.exists(METADATA):
            raise JournalError(f"{url} has the list of an earlier run, but no record: {_RESTORE}")


def leave_marker(objects: Objects, state: Path, *, is_logged: bool) -> None:
    """Create the marker of the run whose journal is in `state`, unless it is there. Blocks and
    raises as `check_marker`."""
    marker = RunMarker(recorded_id(state) or "")
    if not is_logged:
        marker = RunMarker(marker.run, os.path.abspath(state), socket.gethostname())
    text = json.dumps(asdict(marker)).encode()
    if not objects.create_blocking(NAME, text):
        check_marker(objects, None if is_logged else state)


def _check_folder(url: str, marker: RunMarker | None, state: Path) -> None:
    if marker is None or marker.run == recorded_id(state):
        return
    if not marker.folder:
        raise JournalError(f"{url} keeps the record of its run in the bucket: leave out --state")
    raise JournalError(
        f"{url} has images of a run whose record is in {_place(marker)}: give that folder as "
        "--state there, or choose another URL"
    )


def _place(marker: RunMarker) -> str:
    return display(f"{marker.folder} on {marker.host}", 300)


def _read(objects: Objects) -> RunMarker | None:
    content = objects.read(NAME)
    if content is None:
        return None
    try:
        return RunMarker(**{name: str(value) for name, value in json.loads(content).items()})
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise JournalError(
            f"{objects.url}/{NAME} is damaged: restore it from a copy of the bucket, or choose "
            "another URL"
        ) from None
