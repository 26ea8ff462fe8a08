"""What the endpoints share: scenario, clock, jobs, charges and counts of faults.

`submit`, `poll` and `download` each answer one kind of request from this state; `world` joins them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple

from attrs import evolve

from .charges import ChargeLog
from .dialects import Answer, DialectName
from .images import Gallery
from .job_log import JobLog
from .jobs import JobTable
from .scenario import Scenario, SeededRandom

_REQUESTS_KEPT = 2000


class SeenRequest(NamedTuple):
    """One received request, without the values of its headers (a key is among them)."""

    at: float
    method: str
    path: str  #: without the query
    header_names: frozenset[str]  #: lower case
    has_key: bool


class State:
    """The server's memory. `salt` makes the ids of two servers with the same seed differ: a journal
    may outlive a server."""

    def __init__(self, scenario: Scenario, gallery: Gallery, *, epoch: float, salt: str) -> None:
        self.scenario = scenario
        self.gallery = gallery
        self.epoch = epoch + scenario.clock_skew  #: wall clock at now = 0
        self.delivery = "http://delivery.simulator.invalid"
        self.region = "eu4"
        self.region_origin = "http://eu4.simulator.invalid"
        self.region_port = 0  #: of that origin; 0 without sockets
        self.rng = SeededRandom(scenario.seed)
        self.id_rng = SeededRandom(f"{scenario.seed}{salt}")  #: ids, paths, signatures
        self.jobs = JobTable(retention=scenario.retention)
        self.charge_log = ChargeLog(scenario.charge_log)
        self.log = JobLog(scenario.job_log)
        self.fault_counts: Counter[str] = Counter()
        self.requests: deque[SeenRequest] = deque(maxlen=_REQUESTS_KEPT)
        self.out_of_credit = False
        self._request_ids = 0
        self._date = (0, "")  # second, Date header

    # ------------------------------------------------------------------------------------- faults

    def has_fault(self, fault: str, number: int) -> bool:
        """Whether the scenario gives a fault to this job or submission."""
        rate = self.scenario.faults.get(fault, 0.0)
        return rate > 0 and self.rng.uniform(fault, number) < rate

    def takes_fault(self, fault: str, number: int) -> bool:
        """Like `has_fault`; also counts the fault."""
        has_fault = self.has_fault(fault, number)
        if has_fault:
            self.fault_counts[fault] += 1
        return has_fault

    def first_fault(self, faults: Sequence[str], number: int, *, nth: int) -> str | None:
        """Return and count the fault of a job's nth poll or download, if it has one."""
        if nth > self.scenario.repeats:
            return None
        return next((fault for fault in faults if self.takes_fault(fault, number)), None)

    @property
    def retry_after(self) -> str | None:
        """The header's value; None if the scenario sends no header."""
        wait = self.scenario.retry_after
        return f"{wait:g}" if isinstance(wait, int | float) else wait

    # -------------------------------------------------------------------------- requests, answers

    def record_request(
        self, now: float, method: str, path: str, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """Record a request and return its headers by lower-case name."""
        lower = {name.lower(): value for name, value in headers.items()}
        self.requests.append(SeenRequest(now, method, path, frozenset(lower), has_key(lower)))
        return lower

    def with_date(self, now: float, answer: Answer) -> Answer:
        """Add the server's Date header to an answer."""
        second = int(self.epoch + now)
        if self._date[0] != second:
            date = datetime.fromtimestamp(second, UTC)
            self._date = (second, format_datetime(date, usegmt=True))
        return evolve(answer, headers={**answer.headers, "Date": self._date[1]})

    def request_id(self, now: float) -> str:
        """Return a new request id: the wall clock and ten digits."""
        self._request_ids += 1
        wall = datetime.fromtimestamp(self.epoch + now, UTC)
        return f"{wall:%Y%m%d%H%M%S}{self.id_rng.hex('request', self._request_ids, digits=10)}"


def has_key(headers: Mapping[str, str]) -> bool:
    """Whether a request has a key, by lower-case header names."""
    return "authorization" in headers or "x-key" in headers


def key_of(dialect: DialectName, headers: Mapping[str, str]) -> str | None:
    """Return the key of a request. CometAPI accepts it without "Bearer" too."""
    if dialect == "bfl":
        return headers.get("x-key")
    header = headers.get("authorization")
    return None if header is None else header.removeprefix("Bearer ")
