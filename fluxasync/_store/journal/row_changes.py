"""What every transition needs: the rows of an open journal, its totals, its sequence numbers."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ..._core.errors import JournalError
from ..quarantine import check, is_quarantine_path
from .checked_row import LAST_SEQ, SELECT, Row, damaged, row_of
from .quarantined_row import QUARANTINED, is_quarantined
from .schema import State
from .totals import JournalTotals, counted

Found = tuple[int, int, str | None, str | None]  #: id, state, cause, money

_FOUND = "SELECT id, state, cause, money FROM image WHERE "
#: "paid" of a saved image is the mark that its job was found after a doubt
DONE = """
UPDATE image SET state = 2, seq = ?, cost = ?, money = ?, finished_at = ?, path = ?, sha256 = ?,
size = ?, format = ?, width = ?, height = ?, result = ?, polling_url = NULL, cause = NULL,
message = NULL, paid = CASE WHEN state = 1 AND cause IS NULL THEN paid END, evidence = NULL """
_DONE_ROW = DONE + ", job_id = ? WHERE id = ?"
_DOUBT = """
UPDATE image SET state = 4, seq = ?, finished_at = ?, cause = 'in-doubt', message = ?,
paid = 'unknown', evidence = coalesce(?, evidence) WHERE id = ?"""
#: a path that is not of a saved image is of quarantined bytes, and stays until one is saved. After
#: a doubt the row keeps what its job is found by until the next intent: its token and evidence, the
#: cause "in-doubt", and as `cost` what was written off
_AGAIN = """
UPDATE image SET state = 5, job_id = NULL, polling_url = NULL, submitted_at = NULL,
cost = CASE WHEN state = 4 THEN money END, money = NULL, stem = NULL, seq = NULL,
finished_at = NULL, path = CASE WHEN state <> 2 THEN path END,
sha256 = CASE WHEN state <> 2 THEN sha256 END,
size = CASE WHEN state <> 2 THEN size END, format = NULL, width = NULL, height = NULL,
result = CASE WHEN state <> 2 AND path IS NOT NULL THEN result END,
cause = CASE WHEN state = 4 THEN 'in-doubt' END, message = NULL, paid = NULL,
evidence = CASE WHEN state = 4 THEN evidence END, token = CASE WHEN state = 4 THEN token END,
owner = CASE WHEN state = 4 THEN owner END, account = CASE WHEN state = 4 THEN account END
WHERE id = ?"""
_RECALLED = "UPDATE image SET state = 4, money = cost, cost = NULL WHERE id = ?"
#: an intent that was taken for lost, whose sender is still there
_REOPEN = """
UPDATE image SET state = 0, seq = NULL, finished_at = NULL, cause = NULL, message = NULL,
paid = NULL, evidence = NULL WHERE id = ?"""


class RowSelection(Protocol):
    """What a run makes again."""

    def of(self, row: Row, /) -> int:
        """Return the effective state of a row: AGAIN, TO_COLLECT or its own."""


class RowChanges:
    """The rows of one open journal, as its transitions change them; `folder` is the journal's."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        home: tuple[str, str],
        again: RowSelection,
        folder: Path,
    ) -> None:
        self.totals: JournalTotals = counted(connection)
        self.again = again
        self._folder = folder
        #: effective state of the row of the present step, where it differs from the recorded one
        self.selected: int | None = None
        self._places: dict[tuple[str, str], int] = {}
        self.begin(connection, home)

    def begin(
        self, connection: sqlite3.Connection, home: tuple[str, str], *, seq: int | None = None
    ) -> None:
        """Begin a run; `home` is its provider and origin. `seq` is the last sequence number of a
        run that goes on."""
        self.home = home
        self._seq = _last_seq(connection) if seq is None else seq
        self._before = self._seq  #: last sequence number of earlier runs
        #: key → quarantined bytes of an image that is collected or paid again
        self._superseded: dict[bytes, str] = _left_aside(connection)

    # --- reading ---------------------------------------------------------------------------------

    def effective(self, connection: sqlite3.Connection, key: bytes) -> Row | None:
        """Return the row with its effective state; a row that this run settled keeps its own."""
        found = connection.execute(SELECT + "WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        row = row_of(found)
        if row.seq is not None and row.seq > self._before:
            return row
        state = self.again.of(row)
        if state != row.state:
            self.selected = state
        return row._replace(state=state)

    def is_again(self, connection: sqlite3.Connection, key: bytes) -> bool:
        row = self.effective(connection, key)
        return row is not None and row.state == State.AGAIN

    def place(self, connection: sqlite3.Connection, provider: str, origin: str) -> int:
        """Return the id of a provider and its origin, which are recorded if they are new."""
        place = (provider, origin)
        if (known := self._places.get(place)) is not None:
            return known
        connection.execute("INSERT OR IGNORE INTO place (provider, origin) VALUES (?, ?)", place)
        query = "SELECT id FROM place WHERE provider = ? AND origin = ?"
        self._places[place] = int(connection.execute(query, place).fetchone()[0])
        return self._places[place]

    # --- changes that several transitions share --------------------------------------------------

    def next(self) -> int:
        self._seq += 1
        return self._seq

    @property
    def last(self) -> int:
        """The number that `next` returned last."""
        return self._seq

    @property
    def following(self) -> int:
        """The number that `next` will return."""
        return self._seq + 1

    def settle_done(
        self, connection: sqlite3.Connection, found: Found, job_id: str, columns: tuple[Any, ...]
    ) -> None:
        row, state, cause, money = found
        connection.execute(_DONE_ROW, (self.next(), *columns, job_id, row))
        self.totals.add(state, cause, money, -1)
        self.totals.add(State.DONE, None, columns[1])

    def doubt(
        self, connection: sqlite3.Connection, found: Found, at: float, text: str,
        evidence: str | None,
    ) -> None:  # fmt: skip
        row, state, cause, money = found
        connection.execute(_DOUBT, (self.next(), at, text, evidence, row))
        self.totals.add(state, cause, money, -1)
        self.totals.add(State.IN_DOUBT, None, money)

    def reopen(self, connection: sqlite3.Connection, found: Found) -> None:
        """Turn a doubt back into an open intent: its answer came after all."""
        row, state, cause, money = found
        if state == State.INTENT:
            return
        connection.execute(_REOPEN, (row,))
        self.totals.add(state, cause, money, -1)
        self.totals.add(State.INTENT, None, money)

    def forget(self, connection: sqlite3.Connection, found: Found) -> None:
        """Let an image be submitted again; its money stays counted."""
        row, state, cause, money = found
        connection.execute(_AGAIN, (row,))
        self.totals.add(state, cause, money, -1)
        self.totals.sink(state, money)
        self.totals.add(State.AGAIN, None, None)

    def recalled(self, connection: sqlite3.Connection, found: Found) -> Found:
        """Turn an image that was to be submitted again back into one in doubt, with its money;
        leave others as they are."""
        row, state, _, _ = found
        if state != State.AGAIN:
            return found
        connection.execute(_RECALLED, (row,))
        query = _FOUND + "id = ?"
        doubtful: Found = connection.execute(query, (row,)).fetchone()
        self.totals.add(State.AGAIN, None, None, -1)
        self.totals.unwrite(doubtful[3])
        self.totals.add(State.IN_DOUBT, None, doubtful[3])
        self.write_sunk(connection)
        return doubtful

    def take_back(self, connection: sqlite3.Connection, found: Found) -> None:
        """Remove an intent that cost nothing, or leave its row as it was before."""
        row, state, _, money = found
        self.totals.add(state, None, money, -1)
        if not connection.execute(
            "DELETE FROM image WHERE id = ? AND attempt = 1", (row,)
        ).rowcount:
            connection.execute(_AGAIN, (row,))
            connection.execute("UPDATE image SET attempt = attempt - 1 WHERE id = ?", (row,))
            self.totals.add(State.AGAIN, None, None)

    def write_sunk(self, connection: sqlite3.Connection) -> None:
        names = ("sunk", "remade", "written_off")
        amounts = [(name, str(getattr(self.totals, name))) for name in names]
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", amounts)

    # --- quarantined bytes of an image that is made again ----------------------------------------

    def note_superseded(self, connection: sqlite3.Connection, key: bytes) -> None:
        row = self.effective(connection, key)
        if row is not None and row.path is not None and is_quarantined(row):
            self._superseded[key] = row.path

    def remove_superseded(self, key: bytes) -> None:
        """Remove the quarantined bytes of an image that was paid again and is saved now."""
        path = self._superseded.pop(key, None) if self._superseded else None
        if path is not None and is_quarantine_path(path):
            with suppress(OSError):  # verify reports the file
                check(self._folder)
                os.unlink(self._folder / path)


def row_at(connection: sqlite3.Connection, row: int) -> Row:
    return row_of(connection.execute(SELECT + "WHERE image.id = ?", (row,)).fetchone())


def by_job(connection: sqlite3.Connection, job_id: str) -> Found | None:
    found: Found | None = connection.execute(_FOUND + "job_id = ?", (job_id,)).fetchone()
    return found


def by_key(connection: sqlite3.Connection, key: bytes) -> Any:
    return connection.execute(_FOUND + "key = ?", (key,)).fetchone()


def by_token(connection: sqlite3.Connection, key: bytes, token: bytes | None) -> Found | None:
    """Return the row of a key if this token is its last attempt's."""
    found: Found | None = connection.execute(
        _FOUND + "key = ? AND token = ?", (key, token)
    ).fetchone()
    return found


def must_be(connection: sqlite3.Connection, key: bytes, *states: State) -> Any:
    """Return the row of a key. Raises JournalError where it is missing or in another state."""
    found = by_key(connection, key)
    if found is None:
        raise JournalError(f"no image of this journal has the key {key.hex()[:8]}…")
    if found[1] not in states:
        allowed = " or ".join(state.word for state in states)
        raise JournalError(f"image {key.hex()[:8]} is {State(found[1]).word}, not {allowed}")
    return found


def _left_aside(connection: sqlite3.Connection) -> dict[bytes, str]:
    """Return the quarantined bytes of the images that an earlier run began to make again."""
    query = f"SELECT key, path FROM image WHERE {QUARANTINED} AND state <> 3"  # noqa: S608 — a constant
    return dict(connection.execute(query).fetchall())


def _last_seq(connection: sqlite3.Connection) -> int:
    last = "SELECT coalesce(max(seq), 0) FROM image WHERE seq IS NOT NULL"
    found = connection.execute(last).fetchone()[0]
    if not (isinstance(found, int) and 0 <= found < LAST_SEQ):
        raise damaged("seq", found)
    return found
