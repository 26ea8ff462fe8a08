"""The files of exports, and the images that were deleted because one of these files has them."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict, frozen

from ..._core.errors import JournalError
from .checked_row import LAST_SEQ, Row, damaged
from .decisions import EXPORTED
from .schema import State
from .steps import DeleteStep, ExportStep

if TYPE_CHECKING:
    from .writer import Writer

#: the formats with shards, which hold the images: their names end in this
SHARDS = {"webdataset": "tar", "parquet": "parquet"}

_NUMBERS = ("number", "first", "last", "images", "size")
_COLUMNS = "format, place, number, first, last, images, size, sha256, closed"
_INSERT = f"""
INSERT INTO export (at, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (format, place, number) DO UPDATE SET at = excluded.at, first = excluded.first,
last = excluded.last, images = excluded.images, size = excluded.size, sha256 = excluded.sha256,
closed = excluded.closed"""  # noqa: S608 — our own names
_SELECT = f"SELECT id, {_COLUMNS} FROM export WHERE format = ? AND place = ? ORDER BY number"  # noqa: S608 — as above


@frozen(kw_only=True)
class ExportedFile:
    """One file of an export: a shard or a table."""

    #: "webdataset", "parquet", "csv", "xlsx" or "hf-folder"; of an export of picks "picked-csv", …
    format: str
    place: str  #: of the export, relative to the run's folder
    number: int  #: from 0
    first: int  #: the sequence numbers of its images are from `first`
    last: int  #: to `last`; images left out may be among them
    images: int
    size: int  #: bytes
    sha256: str  #: hexadecimal
    is_closed: bool  #: no image is added to it any more
    id: int = 0  #: in the journal; 0 = not recorded yet


class ExportRecord:
    """Records exports in an open journal; each method is durable when it returns."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def add(self, file: ExportedFile) -> None:
        """Record a file; it replaces an earlier one of its format, place and number."""
        values = asdict(file) | {"sha256": bytes.fromhex(file.sha256)}
        del values["id"]
        await self._writer.apply(ExportStep(at=time.time(), **values))

    async def delete(self, keys: Sequence[str], shard: ExportedFile) -> None:
        """Record that a recorded shard has these images, before their files are deleted."""
        step = DeleteStep(
            at=time.time(),
            keys=map(bytes.fromhex, keys),
            format=shard.format,
            place=shard.place,
            number=shard.number,
        )
        await self._writer.apply(step)


def record(connection: sqlite3.Connection, step: ExportStep) -> None:
    """Keep a file of an export."""
    values = (
        step.at, step.format, step.place, step.number, step.first, step.last, step.images,
        step.size, step.sha256, int(step.is_closed),
    )  # fmt: skip
    connection.execute(_INSERT, values)


def export_id(connection: sqlite3.Connection, step: DeleteStep) -> int:
    """Return the id of the shard that a step names. Raises JournalError if it is not recorded."""
    query = "SELECT id FROM export WHERE format = ? AND place = ? AND number = ?"
    found = connection.execute(query, (step.format, step.place, step.number)).fetchone()
    if found is None:
        raise JournalError(f"shard {step.number} in {step.place} is not recorded")
    return int(found[0])


def exported_files(
    connection: sqlite3.Connection, file_format: str, place: str
) -> list[ExportedFile]:
    """Return the files of an export by number. Raises JournalError for invalid values."""
    rows = connection.execute(_SELECT, (file_format, place)).fetchall()
    return [_file(*row) for row in rows]


def _file(row: object, file_format: object, place: object, *values: object) -> ExportedFile:
    *numbers, digest, closed = values
    if not isinstance(row, int):
        raise damaged("id", row, row)
    if not (isinstance(file_format, str) and isinstance(place, str)):
        raise damaged("place", place, row)
    found = {}
    for name, value in zip(_NUMBERS, numbers, strict=True):
        if not (isinstance(value, int) and 0 <= value < LAST_SEQ):
            raise damaged(name, value, row)
        found[name] = value
    if not (isinstance(digest, bytes) and len(digest) == 32):
        raise damaged("sha256", digest, row)
    return ExportedFile(
        format=file_format,
        place=place,
        sha256=digest.hex(),
        is_closed=bool(closed),
        id=row,
        **found,
    )


def intact_exports(connection: sqlite3.Connection, folder: Path) -> frozenset[int]:
    """Return the ids of the shards that are there, by their sizes; none of a journal of version 1.
    Raises JournalError for invalid values."""
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'export'"
    if not connection.execute(query).fetchone()[0]:
        return frozenset()
    rows = connection.execute(f"SELECT id, {_COLUMNS} FROM export").fetchall()  # noqa: S608 — as above
    files = [_file(*row) for row in rows]
    return frozenset(file.id for file in files if is_there(file, folder))


def export_of(row: Row) -> int | None:
    """Return the id of the shard that has a saved image whose file was deleted, else None. Raises
    JournalError for an invalid one."""
    if row.state != State.DONE or row.cause != EXPORTED:
        return None
    text = row.message or ""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise damaged("message", text, row.id)
    return int(text)


def shard_path(file: ExportedFile, folder: Path) -> Path | None:
    """Return the path of a recorded shard; None for a format without shards."""
    suffix = SHARDS.get(file.format)
    return None if suffix is None else folder / file.place / shard_name(file.number, suffix)


def shard_name(number: int, suffix: str) -> str:
    return f"run-{number:05}.{suffix}"


def is_there(file: ExportedFile, folder: Path) -> bool:
    """Whether a recorded shard is there, by its size."""
    path = shard_path(file, folder)
    try:
        found = None if path is None else os.stat(path)
    except (OSError, ValueError):  # a text with a NUL is no path
        return False
    return found is not None and stat.S_ISREG(found.st_mode) and found.st_size == file.size


def count_exported(connection: sqlite3.Connection) -> int:
    """Count the images whose files were deleted after an export, from an index."""
    query = "SELECT count(*) FROM image WHERE state = 2 AND cause = ?"
    return int(connection.execute(query, (EXPORTED,)).fetchone()[0])


def count_saved(connection: sqlite3.Connection, first: int, last: int) -> int:
    """Count the saved images from one sequence number to another."""
    query = "SELECT count(*) FROM image WHERE seq BETWEEN ? AND ? AND +state = 2"
    return int(connection.execute(query, (first, last)).fetchone()[0])
