"""The figures of a run for its report, read from its journal in one transaction.

The database does the counting, so memory does not grow with the run. The journal is only read, also
beside an active run, whose images of the meantime are not counted.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from ..._core.amounts import amount_of
from ..._core.models import Saved
from ..journal.checked_row import SELECT, Row, check_totals, damaged, damaged_in, row_of
from ..journal.lock import holder
from ..journal.quarantined_row import QUARANTINED
from ..journal.reader import read_only
from ..journal.schema import (
    FILE,
    HOME,
    RESTORE,
    State,
    connect_read_only,
    journal_errors,
    limit_work,
)
from ..journal.serialization import known_of, request_of
from ..journal.totals import JournalCounts, counted
from ..output_root import OutputRoot
from .folder_status import InDoubtEntry, doubts_in, require_journal
from .run_timeline import TimeColumn, time_columns

#: images of a list
SLOWEST, LISTED = 10, 50
_EPOCH, _LAST_DAY = date(1970, 1, 1), 2_932_532  # the end of the year 9998

#: seconds of the steps of an image's last attempt; the time between two runs does not count
_TOOK = " + ".join(
    f"coalesce(json_extract(result, '$.timings.{step}'), 0)"
    for step in ("submit", "watch", "download")
)
#: three digits are kept, so a histogram has a few thousand values at most; with the LIMIT, SQLite
#: reads the JSON of a row once
_TIMES = (
    "SELECT model, CASE WHEN took < 0.1 THEN round(took, 4) WHEN took < 1 THEN round(took, 3) WHEN "  # noqa: S608
    "took < 10 THEN round(took, 2) WHEN took < 100 THEN round(took, 1) ELSE round(took) END, "
    f"count(*) FROM (SELECT model, {_TOOK} AS took FROM image WHERE state = 2 LIMIT -1) "
    "WHERE took > 0 GROUP BY 1, 2 ORDER BY 1, 2"
)
#: the mark of a job that was found for a submission in doubt
_FOUND = "state IN (1, 2) AND paid = 'unknown' AND cause IS NULL"


@define(kw_only=True)
class DayTotals:
    """The images of one model that were submitted on one day (UTC), without earlier attempts of
    images submitted again."""

    day: date
    model: str
    images: int = 0  #: saved
    failed: int = 0
    spent: Decimal = field(default=Decimal(0))  #: US dollars, for saved images
    possible_cost: Decimal = field(default=Decimal(0))  #: US dollars; see JournalCounts
    in_doubt: Decimal = field(default=Decimal(0))  #: US dollars


@define(kw_only=True)
class CauseTotals:
    """The failures with one cause."""

    cause: str
    images: int = 0
    possible_cost: Decimal = field(default=Decimal(0))  #: US dollars that may have been charged
    message: str = ""  #: of the latest one


@frozen(kw_only=True)
class SlowImage:
    """One of the slowest saved images, with the seconds of its steps; None = unknown."""

    key: str
    index: int
    prompt: str
    model: str
    job_id: str
    name: str | None  #: of its file in the output
    sha256: str
    took: float  #: from its submission until it was stored
    submit: float | None
    watch: float | None  #: from the accepted submission until a poll saw the image
    download: float | None
    polls: int | None


@frozen(kw_only=True)
class FoundImage:
    """An image whose submission was in doubt, and whose job was found."""

    key: str
    prompt: str
    model: str
    begun_at: datetime  #: UTC, just before it was sent
    job_id: str
    cost: Decimal | None  #: US dollars
    is_saved: bool


@frozen(kw_only=True)
class RunFigures:
    """The figures of a run. Lists have at most `LISTED` entries."""

    folder: Path
    root: OutputRoot
    counts: JournalCounts
    is_running: bool = False
    simulated: bool = False
    providers: Sequence[str] = ()
    since: datetime | None = None  #: first submission, UTC
    until: datetime | None = None  #: last submission or outcome, UTC
    days: Sequence[DayTotals] = ()  #: by day and model
    causes: Sequence[CauseTotals] = ()  #: the most frequent first
    columns: Sequence[TimeColumn] = ()  #: pace and slots over time
    #: model → seconds of an image → number of images; seconds are rounded to three digits
    times: Mapping[str, Mapping[float, int]] = field(factory=dict)
    slowest: Sequence[SlowImage] = ()
    doubts: Sequence[InDoubtEntry] = ()  #: oldest first
    submitting: int = 0  #: of an active run, among those in doubt: their answer is awaited
    found: Sequence[FoundImage] = ()  #: the latest first
    found_count: int = 0
    found_cost: Decimal = Decimal(0)  #: US dollars
    quarantined: int = 0

    @property
    def active_seconds(self) -> float:
        """The time that the run took, without pauses between its starts."""
        return sum(column.seconds for column in self.columns)

    @property
    def earlier_cost(self) -> Decimal:
        """US dollars of earlier attempts of images submitted again, which have no day."""
        every = self.counts.spent + self.counts.possible_cost + self.counts.in_doubt_price
        return every - sum(
            (day.spent + day.possible_cost + day.in_doubt for day in self.days), Decimal(0)
        )


def read_figures(folder: Path) -> RunFigures:
    """Return the figures of a run, also of an active one.

    Raises ConfigError for a folder without a journal, JournalError for one that cannot be trusted.
    """
    require_journal(folder)
    path = folder / HOME / FILE
    is_running = holder(folder / HOME) is not None
    if not is_running:  # an active run has checked its journal
        read_only(folder).close()
    with journal_errors(path, RESTORE), closing(connect_read_only(path)) as connection:
        connection.execute("BEGIN")
        return _FiguresReader(connection, path).figures(folder, is_running=is_running)


class _FiguresReader:
    """One journal in one read transaction."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    def figures(self, folder: Path, *, is_running: bool) -> RunFigures:
        meta = dict(self._all("SELECT name, value FROM meta WHERE name IN ('simulated', 'output')"))
        self._limit()
        counts = counted(self._connection).as_counts()
        doubtful = "state = 4" if is_running else "state IN (0, 4)"
        self._limit()
        doubts = list(doubts_in(self._connection, doubtful, LISTED))
        columns = time_columns(self._all, is_running=is_running)
        found_count, found_cost = self._found_totals()
        return RunFigures(
            folder=folder,
            root=OutputRoot(folder, str(meta.get("output", ""))),
            counts=counts,
            is_running=is_running,
            simulated=meta.get("simulated") == "1",
            providers=[str(name) for (name,) in self._all("SELECT DISTINCT provider FROM place")],
            since=_instant(columns[0].at) if columns else None,
            until=_instant(columns[-1].at + columns[-1].seconds) if columns else None,
            days=self._days(),
            causes=self._causes(),
            columns=columns,
            times=self._times(),
            slowest=list(self._slowest()),
            doubts=doubts,
            submitting=self._count("state = 0") if is_running else 0,
            found=list(self._found()) if found_count else (),
            found_count=found_count,
            found_cost=found_cost,
            quarantined=self._count(QUARANTINED),
        )

    def _all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        self._limit()
        return self._connection.execute(query, values).fetchall()

    def _limit(self) -> None:
        """Allow each query the work that a journal of this size can need."""
        limit_work(self._connection, self._path)

    def _count(self, which: str) -> int:
        ((count,),) = self._all(f"SELECT count(*) FROM image WHERE {which}")  # noqa: S608
        return int(count)

    def _rows(self, condition: str, *values: Any) -> list[Row]:
        return [row_of(found) for found in self._all(SELECT + condition, *values)]

    def _days(self) -> list[DayTotals]:
        found: dict[tuple[int, str], DayTotals] = {}
        query = (
            "SELECT CAST(begun_at / 86400 AS INTEGER), model, state, money, count(*) FROM image "
            "GROUP BY 1, 2, 3, 4 ORDER BY 1, 2"
        )
        for number, model, state, money, count in self._all(query):
            check_totals(self._connection, state, None, money)
            if not isinstance(model, str):
                raise damaged_in(self._connection, "model", model)
            if (number, model) not in found:
                day = _EPOCH + timedelta(days=self._checked_day(number))
                found[number, model] = DayTotals(day=day, model=model)
            totals, amount = found[number, model], amount_of(money or "0") * count
            match state:
                case State.DONE:
                    totals.images += count
                    totals.spent += amount
                case State.FAILED:
                    totals.failed += count
                    totals.possible_cost += amount
                case State.SUBMITTED:
                    totals.possible_cost += amount
                case State.INTENT | State.IN_DOUBT:
                    totals.in_doubt += amount
        return list(found.values())

    @staticmethod
    def _checked_day(number: object) -> int:
        if isinstance(number, int) and 0 <= number < _LAST_DAY:
            return number
        raise damaged("begun_at", number)

    def _causes(self) -> list[CauseTotals]:
        found: dict[str, CauseTotals] = {}
        # with max(), SQLite takes the message of the row that has it
        query = (
            "SELECT cause, money, count(*), max(seq), substr(message, 1, 400) FROM image "
            "WHERE state = 3 GROUP BY cause, money ORDER BY 4"
        )
        for cause, money, count, _, message in self._all(query):
            check_totals(self._connection, int(State.FAILED), cause, money)
            totals = found.setdefault(cause or "error", CauseTotals(cause=cause or "error"))
            totals.images += count
            totals.possible_cost += amount_of(money or "0") * count
            totals.message = str(message or "")
        return sorted(found.values(), key=lambda each: (-each.images, each.cause))

    def _times(self) -> dict[str, dict[float, int]]:
        found: defaultdict[str, dict[float, int]] = defaultdict(dict)
        for model, took, count in self._all(_TIMES):
            found[str(model)][float(took)] = int(count)
        return dict(found)

    def _slowest(self) -> Iterator[SlowImage]:
        ids = self._all(
            f"SELECT id, {_TOOK} AS took FROM image WHERE state = 2 "  # noqa: S608 — our own texts
            f"ORDER BY took DESC, id LIMIT {SLOWEST}"
        )
        for row_id, took in ids:
            (row,) = self._rows("WHERE image.id = ?", row_id)
            saved = known_of(row, OutputRoot(self._path.parent.parent))
            timings = saved.timings if isinstance(saved, Saved) else {}
            polls = timings.get("polls")
            yield SlowImage(
                key=row.key.hex(),
                index=row.idx,
                prompt=request_of(row).prompt,
                model=row.model,
                job_id=row.job_id or "",
                name=row.path,
                sha256=(row.sha256 or b"").hex(),
                took=float(took),
                submit=timings.get("submit"),
                watch=timings.get("watch"),
                download=timings.get("download"),
                polls=None if polls is None else int(polls),
            )

    def _found(self) -> Iterator[FoundImage]:
        for row in self._rows(f"WHERE {_FOUND} ORDER BY image.id DESC LIMIT {LISTED}"):
            cost = row.price if row.cost is None else row.cost
            yield FoundImage(
                key=row.key.hex(),
                prompt=request_of(row).prompt,
                model=row.model,
                begun_at=_instant(row.begun_at),
                job_id=row.job_id or "",
                cost=None if cost is None else amount_of(cost),
                is_saved=row.state == State.DONE,
            )

    def _found_totals(self) -> tuple[int, Decimal]:
        rows = self._all(f"SELECT money, count(*) FROM image WHERE {_FOUND} GROUP BY money")  # noqa: S608
        images, cost = 0, Decimal(0)
        for money, count in rows:
            check_totals(self._connection, int(State.DONE), None, money)
            images += count
            cost += amount_of(money or "0") * count
        return images, cost


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
