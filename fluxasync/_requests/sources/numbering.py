"""Counts how often each content came before, exactly and in constant memory.

A dict of a million keys costs 100 MB, and a temporary SQLite table 7 s and more. Of most prompt
files every row is different, so what is kept in memory is only that a content came at all: 16 bytes
of its digest, in one of 4,096 buckets that are searched as bytes, 1.5 s and 19 MB for a million.
The table counts what came again, and all that is new after the buckets are full; it lives in a
cache of 8 MB and then in a file that vanishes with it. The file ends with the process.
"""

from __future__ import annotations

import mmap
import sqlite3
from array import array

from ..._core.errors import JournalError

_SETTINGS = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -8192")

ROOM = 2**20  #: contents held in memory, 16 MB of them

_BUCKET = slice(32, 35)  #: hex digits that choose a bucket
_BUCKETS = 16**3
_TAIL = slice(34, 64)  #: hex digits kept in it; with the bucket, 128 bits
_WIDTH = 15  #: bytes of those


class Seen:
    """A set of contents, as far as there is room."""

    def __init__(self, room: int) -> None:
        self._left = room
        most = room // _BUCKETS * 9 // 8 + 16  # digests spread evenly; what is over is not kept
        self._size = most * _WIDTH
        # laid out at once, so that it does not grow with every row; unused pages take no memory
        self._kept = mmap.mmap(-1, _BUCKETS * self._size)
        self._used = array("I", bytes(_BUCKETS * array("I").itemsize))

    def add(self, content_key: str) -> bool | None:
        """Return whether it came before, and keep that it did; None = it is not kept here."""
        number = int(content_key[_BUCKET], 16)
        begin, used = number * self._size, self._used[number]
        bucket = self._kept[begin : begin + used]
        tail = bytes.fromhex(content_key[_TAIL])
        place = bucket.find(tail)
        while place % _WIDTH and place >= 0:  # made of the end of one and the start of another
            place = bucket.find(tail, place + 1)
        if place >= 0:
            return True
        if not self._left or used == self._size:
            return None
        self._kept[begin + used : begin + used + _WIDTH] = tail
        self._used[number] += _WIDTH
        self._left -= 1
        return False

    def close(self) -> None:
        self._kept.close()


class Occurrences:
    """Belongs to the thread that counts, which also closes it."""

    def __init__(self, *, room: int = ROOM) -> None:
        self._seen = Seen(room)
        self._table: sqlite3.Connection | None = None

    def count(self, content_key: str) -> int:
        """Return how many times this key was counted before, and count it.

        Raises JournalError when the temporary folder is full.
        """
        seen = self._seen.add(content_key)
        if seen is False:
            return 0
        try:
            return self._counted(bytes.fromhex(content_key)) + bool(seen)
        except sqlite3.Error as exc:
            raise no_room(exc) from exc

    def _counted(self, digest: bytes) -> int:
        """Count in the table, which does not know the first time of those that are in memory."""
        if self._table is None:
            self._table = _opened()
        made = self._table.execute("INSERT OR IGNORE INTO seen VALUES (?, 1)", (digest,))
        if made.rowcount:
            return 0
        row = self._table.execute("SELECT times FROM seen WHERE digest = ?", (digest,)).fetchone()
        self._table.execute("UPDATE seen SET times = times + 1 WHERE digest = ?", (digest,))
        return int(row[0])

    def close(self) -> None:
        self._seen.close()
        if self._table is not None:
            self._table.close()


def _opened() -> sqlite3.Connection:
    table = sqlite3.connect("", isolation_level=None)  # "" = a temporary file
    for setting in _SETTINGS:
        table.execute(f"PRAGMA {setting}")
    table.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID")
    table.execute("BEGIN")  # one transaction without a journal
    return table


def no_room(error: Exception) -> JournalError:
    """Return the error of a temporary folder that fails."""
    return JournalError(
        f"the temporary folder cannot be used to check the prompts: {error};"
        " free space there, or set TMPDIR to another folder"
    )
