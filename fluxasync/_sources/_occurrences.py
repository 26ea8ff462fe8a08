"""Counts how often each content came before, in constant memory.

A dict of a million keys costs 100 MB. A temporary SQLite table, which lives in a cache of 8 MB and
then in a file that vanishes with it, costs 8 s a million and stays exact; a bit table in front of
it would need a second count of its suspects to be exact, and would save only time that a run
spends waiting anyway. One transaction, no journal: nothing here outlives the process.
"""

from __future__ import annotations

import sqlite3

from .._errors import JournalError

_SETTINGS = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -8192")


class Occurrences:
    """Belongs to the thread that made it, which also closes it."""

    def __init__(self) -> None:
        self._table = sqlite3.connect("", isolation_level=None)  # "" = a temporary file
        for setting in _SETTINGS:
            self._table.execute(f"PRAGMA {setting}")
        self._table.execute(
            "CREATE TABLE seen (digest BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID"
        )
        self._table.execute("BEGIN")

    def count(self, content_key: str) -> int:
        """Return how many times this key was counted before, and count it.

        Raises JournalError when the temporary folder is full.
        """
        digest = (bytes.fromhex(content_key),)
        try:
            made = self._table.execute("INSERT OR IGNORE INTO seen VALUES (?, 1)", digest)
            return 0 if made.rowcount else self._again(digest)
        except sqlite3.Error as exc:
            raise JournalError(
                f"repeated prompts cannot be counted in the temporary folder: {exc};"
                " free space there or set TMPDIR to another folder"
            ) from exc

    def _again(self, digest: tuple[bytes]) -> int:
        row = self._table.execute("SELECT times FROM seen WHERE digest = ?", digest).fetchone()
        self._table.execute("UPDATE seen SET times = times + 1 WHERE digest = ?", digest)
        return int(row[0])

    def close(self) -> None:
        self._table.close()
