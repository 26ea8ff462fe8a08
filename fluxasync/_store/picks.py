"""Which images of a run a person picked: `picks.jsonl` in the run's folder.

One JSON object a line: `{"key": "<64 digits>", "picked": true, "at": "2026-11-30T10:00:00Z"}`.
`picked` is true, false (rejected) or null (undecided again). The last line of an image decides, so
a change of mind is one more line. `at` may be absent, and other names are ignored. An incomplete
last line, as after a kill, is ignored, and the next append removes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen

from .._core.errors import ConfigError
from .._core.strict_json import read_object
from .files import HOME, disk_error, open_own, open_to_read, sync, sync_folder, write_all
from .metadata import METADATA

PICKS = "picks.jsonl"

_KEY = re.compile(r"[0-9a-f]{64}")
#: bytes at the end of the file that contain its last line
_TAIL = 2**16


@frozen(kw_only=True)
class Pick:
    """What a person decided about an image."""

    picked: bool | None  #: False = rejected, None = undecided again
    at: str = ""  #: when, as the file says


def read_picks(folder: Path) -> dict[str, bool]:
    """Return which images are picked (True) and rejected (False), by their keys; empty without a
    file. Raises as `read_decisions`."""
    return {
        key: decision.picked
        for key, decision in read_decisions(folder).items()
        if decision.picked is not None
    }


def picked_keys(folder: Path) -> list[str]:
    """Return the keys of the picked images, one at least.

    Raises ConfigError for a folder without picks or without a run, and else as `read_decisions`.
    """
    if folder.name == PICKS and not folder.is_dir():
        raise ConfigError(f"{folder} is a file of a run: name its folder, {folder.parent}")
    picks = read_picks(folder) if folder.is_dir() else {}
    keys = [key for key, is_picked in picks.items() if is_picked]
    if not keys and not any((folder / name).exists() for name in (HOME, METADATA)):
        raise ConfigError(f"{folder} is not the folder of a run: name one with picked images")
    if not keys:
        raise ConfigError(
            f"{folder / PICKS} picks no image: pick some in the gallery, "
            f"fluxasync gallery {folder} --watch; a page from a disk has Download picks"
        )
    return keys


def read_decisions(folder: Path) -> dict[str, Pick]:
    """Return the last decision about each image, by its key; empty without a file.

    Raises ConfigError that names the first line which is no pick, and SinkError for an error of
    the disk.
    """
    found: dict[str, Pick] = {}
    path = folder / PICKS
    try:
        with open_to_read(path) as file:
            for number, line in enumerate(file, start=1):
                pick = _pick(line)
                if pick is not None:
                    found.update([pick])
                elif line.endswith(b"\n") and line.strip():
                    raise ConfigError(
                        f"{path}: line {number} is no pick: correct it or remove it; a pick is "
                        '{"key": "<64 hexadecimal digits>", "picked": true}'
                    )
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise disk_error(path, exc) from exc
    return found


def append_picks(
    folder: Path, picks: Mapping[str, bool | None], *, at: datetime | None = None
) -> None:
    """Record decisions about images, by their keys; durable on return.

    `at` is when that was decided (default: now). Several processes may append to one file. Raises
    SinkError for an error of the disk; the file then has none of these picks.
    """
    now = (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    instant = now.replace("+00:00", "Z")
    rows = ({"key": key, "picked": picked, "at": instant} for key, picked in picks.items())
    path = folder / PICKS
    try:
        handle = open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            _append(handle, "".join(json.dumps(row) + "\n" for row in rows).encode())
        finally:
            os.close(handle)
        sync_folder(folder)
    except OSError as exc:
        raise disk_error(path, exc) from exc


def _append(handle: int, lines: bytes) -> None:
    size = os.fstat(handle).st_size
    tail = os.pread(handle, _TAIL, max(size - _TAIL, 0)).rpartition(b"\n")[2]
    if len(tail) == _TAIL:
        raise ConfigError(f"{PICKS} has a line of {_TAIL:,} bytes, which is no pick: remove it")
    is_whole = _pick(tail) is not None  # as an editor leaves it, without the end of the line
    end = size if is_whole else size - len(tail)
    try:
        os.ftruncate(handle, end)
        os.lseek(handle, end, os.SEEK_SET)
        write_all(handle, (b"\n" if is_whole else b"") + lines)
        sync(handle)
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, end)
        raise


def _pick(line: bytes) -> tuple[str, Pick] | None:
    """Return the key of a line and its decision; None for a line that is no pick."""
    found = read_object(line)
    if found is None or "picked" not in found:
        return None
    key, picked, at = found.get("key"), found["picked"], found.get("at")
    if not (isinstance(key, str) and is_key(key) and isinstance(picked, bool | None)):
        return None
    return key, Pick(picked=picked, at=at if isinstance(at, str) else "")


def is_key(text: str) -> bool:
    """Whether a text can be the key of an image."""
    return _KEY.fullmatch(text) is not None
