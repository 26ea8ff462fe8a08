"""What the three desks of the practice server share: clock, dice, jobs, books, and what was seen.

`submit`, `poll` and `download` each answer one kind of request over this state; `world` puts
them together. Every fault that happens is counted here, under the name the scenario uses.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple

from attrs import evolve

from .answers import Answer
from .charges import ChargeLog
from .dialects import DialectName
from .images import Gallery
from .job_log import JobLog
from .jobs import JobTable
from .scenario import Scenario
from .seeded_random import SeededRandom

_REQUESTS_KEPT = 2000


class Seen(NamedTuple):
    """One request as it came in; no values of headers, so no key."""

    at: float
    method: str
    path: str  #: without its query
    header_names: frozenset[str]  #: lower case
    has_key: bool


class State:
    """The server's memory. `salt` makes the ids of two servers with one seed differ, as they must
    when a journal outlives a server."""

    def __init__(self, scenario: Scenario, gallery: Gallery, *, epoch: float, salt: str) -> None:
        self.scenario = scenario
        self.gallery = gallery
        self.epoch = epoch + scenario.clock_skew  #: wall clock at now = 0
        self.delivery = "http://delivery.simulator.invalid"
        self.region = "eu4"
        self.region_origin = "http://eu4.simulator.invalid"
        self.region_port = 0  #: of that origin, where it is on a socket
        self.dice = SeededRandom(scenario.seed)
        self.names = SeededRandom(f"{scenario.seed}{salt}")  #: ids, paths, signatures
        self.jobs = JobTable(retention=scenario.retention)
        self.books = ChargeLog(scenario.charge_log)
        self.log = JobLog(scenario.job_log)
        self.struck: Counter[str] = Counter()
        self.requests: deque[Seen] = deque(maxlen=_REQUESTS_KEPT)
        self.out_of_credit = False
        self._moments = 0
        self._date = (0, "")  # second, as the Date header tells it

    # ------------------------------------------------------------------------------------- faults

    def strikes(self, fault: str, number: int) -> bool:
        """Whether this job, or this submit, has that bad luck."""
        rate = self.scenario.faults.get(fault, 0.0)
        return rate > 0 and self.dice.roll(fault, number) < rate

    def happens(self, fault: str, number: int) -> bool:
        """As `strikes`, and counted."""
        struck = self.strikes(fault, number)
        if struck:
            self.struck[fault] += 1
        return struck

    def first_of(self, faults: Sequence[str], number: int, *, nth: int) -> str | None:
        """The fault that spoils a job's nth poll or download, if one does; counted."""
        if nth > self.scenario.repeats:
            return None
        return next((fault for fault in faults if self.happens(fault, number)), None)

    @property
    def retry_after(self) -> str | None:
        """The header's value, if the scenario sends one."""
        wait = self.scenario.retry_after
        return f"{wait:g}" if isinstance(wait, int | float) else wait

    # -------------------------------------------------------------------------- requests, answers

    def seen(
        self, now: float, method: str, path: str, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """Note the request and return its headers by lower-case name."""
        lower = {name.lower(): value for name, value in headers.items()}
        self.requests.append(Seen(now, method, path, frozenset(lower), has_key(lower)))
        return lower

    def dated(self, now: float, answer: Answer) -> Answer:
        """The answer with the server's own Date."""
        second = int(self.epoch + now)
        if self._date[0] != second:
            date = datetime.fromtimestamp(second, UTC)
            self._date = (second, format_datetime(date, usegmt=True))
        return evolve(answer, headers={**answer.headers, "Date": self._date[1]})

    def moment(self, now: float) -> str:
        """A new request id: the wall clock and some digits."""
        self._moments += 1
        wall = datetime.fromtimestamp(self.epoch + now, UTC)
        return f"{wall:%Y%m%d%H%M%S}{self.names.hex('request', self._moments, digits=10)}"


def has_key(headers: Mapping[str, str]) -> bool:
    """Whether a request carries a key, by lower-case header names."""
    return "authorization" in headers or "x-key" in headers


def key_of(dialect: DialectName, headers: Mapping[str, str]) -> str | None:
    """The key a request carries. CometAPI takes it without 'Bearer' too."""
    if dialect == "bfl":
        return headers.get("x-key")
    given = headers.get("authorization")
    return None if given is None else given.removeprefix("Bearer ")
