"""A prompt list as a temporary SQLite table: checked and numbered once, then read back by the run.

The table is a file without a name in the temporary folder (TMPDIR), so the system removes it when
the process ends, however it ends. Short lists stay in SQLite's cache and are never written.
"""

from __future__ import annotations

import hashlib
import pickle
import sqlite3
from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

from attrs import frozen

from ..._core.errors import ConfigError
from .numbering import no_room

#: KB of pages in memory; of a longer list the rest is in the file
_CACHE = 8_192
_SETTINGS = ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE}")

_TABLES = (
    "CREATE TABLE row (number INTEGER PRIMARY KEY, content BLOB, raw BLOB)",
    # a bad row has one entry, without an index
    "CREATE TABLE image (id INTEGER PRIMARY KEY, row INTEGER, place INTEGER, idx INTEGER,"
    " occurrence INTEGER, state TEXT)",
    "CREATE TABLE sample (number INTEGER PRIMARY KEY, rank INTEGER, raw BLOB)",
)

_TO_DO = "SELECT row, place, idx, occurrence FROM image WHERE state IS NULL"

#: rows beyond twice the sample that are kept before the sample is chosen again
_SPARE = 1_000


@frozen
class Sample:
    """Sample size and seed."""

    rows: int
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        for name, value in (("sample", self.rows), ("sample_seed", self.seed)):
            if type(value) is not int:
                raise ConfigError(f"{name}: a whole number, not {type(value).__name__}")
        if self.rows < 1:
            raise ConfigError.about("sample", "must be 1 or more rows", value=self.rows)


#: number in the list, from 1, blank rows included; digest of the requests, where image inputs may
#: change; packed, the row as its format cuts it, or the complaint of a bad row
RowValues = tuple[int, bytes | None, bytes]

#: number of the row; place among its images; index in the run, None for a bad row; occurrence;
#: what earlier runs left of it
ImageValues = tuple[int, int, int | None, int, str | None]


@frozen
class SpooledImage:
    """One image of a row, as the check numbered it."""

    place: int  #: among the images of its row
    index: int  #: in the run
    occurrence: int


@frozen
class SpooledRow:
    """A row and its images that are to do."""

    number: int
    content: bytes | None
    size: int  #: bytes of the packed row
    raw: Any
    images: Sequence[SpooledImage]  #: none of a bad row

    @property
    def is_bad(self) -> bool:
        return not self.images


class Spool:
    """The table of one check. Used by one thread at a time.

    Raises JournalError when the temporary folder cannot be used or is full.
    """

    def __init__(self) -> None:
        self._states: set[str] = set()
        with _room():
            # "" = a temporary file; used in one thread of the source's, closed in it
            self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            for setting in _SETTINGS:
                self._table.execute(f"PRAGMA {setting}")
            for table in _TABLES:
                self._table.execute(table)
            self._table.execute("BEGIN")  # one transaction without a journal

    def add(self, rows: Sequence[RowValues], images: Sequence[ImageValues]) -> None:
        """Append rows and their images."""
        self._states.update(state for *_, state in images if state is not None)
        with _room():
            self._table.executemany("INSERT INTO row VALUES (?, ?, ?)", rows)
            self._table.executemany("INSERT INTO image VALUES (NULL, ?, ?, ?, ?, ?)", images)

    def to_do(self, skip: Container[str]) -> Iterator[SpooledRow]:
        """Yield the rows that have images of a state that is not in `skip`, with those images."""
        skipped = [state for state in self._states if state in skip]
        marks = ",".join("?" * len(skipped))
        query = f"{_TO_DO} OR state NOT IN ({marks}) ORDER BY id"
        with _room():
            found = self._table.execute(query, skipped)
            for number, images in groupby(found, key=itemgetter(0)):
                content, raw = self._table.execute(
                    "SELECT content, raw FROM row WHERE number = ?", (number,)
                ).fetchone()
                yield SpooledRow(
                    number,
                    content,
                    len(raw),
                    _unpacked(raw),
                    [SpooledImage(*image[1:]) for image in images if image[2] is not None],
                )

    def sampled(
        self, rows: Iterable[tuple[int, Any, bytes]], sample: Sample
    ) -> Generator[tuple[int, Any] | None, None, None]:
        """Yield None for each of the rows, then the number and the raw row of each in the sample.

        A row is its number, its raw form, and its content, which is empty where it is blank. Rows
        are ranked by a digest of content and seed, and the lowest ranks are taken. So a list that
        was shuffled, or grew at its end, keeps nearly all of its sample.
        """
        key = hashlib.blake2b(str(sample.seed).encode(), digest_size=16).digest()
        highest, held = 2**63, 0
        with _room():
            for number, raw, content in rows:
                yield None
                digest = hashlib.blake2b(content, digest_size=8, key=key).digest()
                rank = int.from_bytes(digest) - 2**63  # SQLite's integers have a sign
                if not content or rank >= highest:
                    continue
                new = (number, rank, pack(raw))
                self._table.execute("INSERT INTO sample VALUES (?, ?, ?)", new)
                held += 1
                if held > 2 * sample.rows + _SPARE:
                    highest, held = self._choose(sample.rows), sample.rows
            self._choose(sample.rows)
            for number, raw in self._table.execute(
                "SELECT number, raw FROM sample ORDER BY number"
            ):
                yield number, _unpacked(raw)
            self._table.execute("DELETE FROM sample")

    def _choose(self, rows: int) -> int:
        """Keep the rows of the lowest ranks; return the highest of those."""
        self._table.execute(
            "DELETE FROM sample WHERE number NOT IN"
            " (SELECT number FROM sample ORDER BY rank, number LIMIT ?)",
            (rows,),
        )
        [highest] = self._table.execute("SELECT max(rank) FROM sample").fetchone()
        return 2**63 if highest is None else int(highest)

    def close(self) -> None:
        self._table.close()

    def __del__(self) -> None:
        """Close the table of a batch that was checked and never entered or closed."""
        if (table := getattr(self, "_table", None)) is not None:
            table.close()


def pack(raw: Any) -> bytes:
    return pickle.dumps(raw, pickle.HIGHEST_PROTOCOL)


def _unpacked(packed: bytes) -> Any:
    return pickle.loads(packed)  # noqa: S301 — our own, from a file that has no name


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise no_room(exc) from exc
