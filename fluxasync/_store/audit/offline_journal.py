"""A journal between two runs: what people ask of it, and opening it to decide what they decide.

`Standing` is the same journal and the same lock; it only takes provider and origin from the file
instead of from a run. The questions read the rows by connections of their own, which change
nothing, so they may be asked while a Standing holds the folder.
"""

from __future__ import annotations

import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from attrs import define, field, frozen

from ..._core.amounts import amount_of
from ..._core.errors import ConfigError, candidate_in
from ..journal.checked_row import SELECT, Row, check_tallied, damaged_in, is_instant, row_of
from ..journal.integrity import check_content, check_current, check_file, check_home
from ..journal.journal import Journal
from ..journal.lock import Locked, holder
from ..journal.schema import FILE, HOME, RESTORE, State, connect_read_only, journal_errors
from ..journal.serialization import request_of

#: characters of each doubt's evidence that are read
_EVIDENCE = 4_096


@frozen(kw_only=True)
class InDoubtEntry:
    """A submission whose answer never came: it may have been charged."""

    key: str
    prompt: str
    model: str
    begun_at: datetime  #: UTC; when it was about to be sent
    price: Decimal | None  #: US dollars by the catalogue; None = unknown
    message: str  #: what came instead of the answer
    evidence: str  #: its beginning, without secrets; the journal keeps more of it

    @property
    def candidate(self) -> str | None:
        """The job id in that answer: perhaps the submission's own."""
        return candidate_in(self.evidence)


@define(kw_only=True)
class ModelTotals:
    """What one model made and cost; earlier attempts of images submitted once more not included."""

    images: int = 0  #: done
    spent: Decimal = field(default=Decimal(0))  #: US dollars, of the images that are here
    perhaps: Decimal = field(default=Decimal(0))  #: US dollars; see Recovery
    in_doubt: Decimal = field(default=Decimal(0))  #: US dollars


class OfflineJournal(Journal):
    """A folder's journal as it stands, for those who settle doubts: see Journal.

    Raises ConfigError for a folder without a journal, which stays as it is.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(folder, provider="", origin="", simulated=False)

    def _open(self) -> None:
        require(self.folder)
        super()._open()

    def _check(self) -> bool:
        check_file(self.path)
        facts = check_content(self.folder, self.path)
        check_home(self.path, facts, take_over=False)
        check_current(self.folder, self.path)
        self._provider, self._origin = _last_place(self.folder)
        return facts.is_clean


def require(folder: Path) -> None:
    """Raise ConfigError unless the folder has a journal, whatever its state."""
    if not os.path.lexists(folder / HOME / FILE):
        raise ConfigError(f"{folder} has no journal: no run began there; name the folder of a run")


def require_idle(folder: Path) -> None:
    """Raise Locked while a process is at work in the folder."""
    found = holder(folder / HOME)
    if found is not None:
        raise Locked(
            f"{folder} is in use by process {found.get('pid')} on {found.get('host')} since "
            f"{found.get('since')}: ask again when it is done"
        )


def doubts(folder: Path) -> list[InDoubtEntry]:
    """Return what is in doubt, oldest first."""
    query = SELECT + "WHERE state IN (0, 4) ORDER BY begun_at, image.id"
    with _reading(folder) as connection:
        return [_doubt(row_of(found)) for found in connection.execute(query)]


def shares(folder: Path) -> dict[str, ModelTotals]:
    """Return the money by model, the most expensive first. Reads every row."""
    found: defaultdict[str, ModelTotals] = defaultdict(ModelTotals)
    query = "SELECT model, state, money, count(*) FROM image GROUP BY model, state, money"
    with _reading(folder) as connection:
        for model, state, money, count in connection.execute(query):
            check_tallied(connection, state, None, money)
            if not isinstance(model, str):
                raise damaged_in(connection, "model", model)
            amount = amount_of(money or "0") * count
            share = found[model]
            share.images += count if state == State.DONE else 0
            if state == State.DONE:
                share.spent += amount
            elif state in (State.SUBMITTED, State.FAILED):
                share.perhaps += amount
            else:
                share.in_doubt += amount
    return dict(sorted(found.items(), key=lambda item: (-item[1].spent, item[0])))


def span(folder: Path) -> tuple[datetime | None, datetime | None]:
    """Return when the first submission began and when the last image was settled, UTC."""
    query = "SELECT min(begun_at), max(finished_at) FROM image"
    with _reading(folder) as connection:
        first, last = connection.execute(query).fetchone()
        for column, value in (("begun_at", first), ("finished_at", last)):
            if value is not None and not is_instant(value):
                raise damaged_in(connection, column, value)
    return _instant(first), _instant(last)


@contextmanager
def _reading(folder: Path) -> Iterator[sqlite3.Connection]:
    path = folder / HOME / FILE
    with (
        journal_errors(path, RESTORE),
        closing(connect_read_only(path)) as connection,
    ):
        yield connection


def _last_place(folder: Path) -> tuple[str, str]:
    """Return who served the image begun last; nobody where nothing was begun."""
    query = (
        "SELECT provider, origin FROM image JOIN place ON place.id = image.place "
        "ORDER BY image.id DESC LIMIT 1"
    )
    with _reading(folder) as connection:
        return connection.execute(query).fetchone() or ("", "")


def _doubt(row: Row) -> InDoubtEntry:
    return InDoubtEntry(
        key=row.key.hex(),
        prompt=request_of(row).prompt,
        model=row.model,
        begun_at=datetime.fromtimestamp(row.begun_at, UTC),
        price=None if row.price is None else amount_of(row.price),
        message=row.message or "the run ended before the answer came",
        evidence=(row.evidence or "")[:_EVIDENCE],
    )


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
