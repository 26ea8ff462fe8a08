"""The practice server without a socket: jobs, faults and charges on whatever clock is passed in.

Pure and synchronous: every method takes `now`, in seconds on any clock that does not run
backwards, and returns an `Answer`; so the same world serves real sockets and virtual time. The
same seed and the same calls give the same answers. Knows the wire by heart and nothing of the
client. The work is done by the three desks, `submit`, `poll` and `download`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from .answers import Answer, json_answer
from .charges import Charge
from .dialects import DIALECTS, DialectName
from .download import Deliveries
from .images import Gallery, PictureSpec
from .jobs import Job
from .poll import Polls
from .scenario import Scenario
from .state import Seen, State, has_key, key_of
from .submit import Submits

_ENDLESS = Decimal(1_000_000)  # credits told when the scenario sets none


class World:
    """One practice server.

    `epoch` is the wall-clock time at `now` = 0, for dates on the wire. `salt` makes the ids of
    two servers with one seed differ.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        epoch: float = 1_766_072_345.0,
        salt: str = "",
        gallery: Gallery | None = None,
    ) -> None:
        self.scenario = scenario or Scenario()
        self.gallery = gallery or Gallery(image_bytes=self.scenario.image_bytes)
        self._state = State(self.scenario, self.gallery, epoch=epoch, salt=salt)
        self._submits = Submits(self._state)
        self._polls = Polls(self._state)
        self._deliveries = Deliveries(self._state)
        self.leaks: Counter[str] = Counter()  #: keys that reached "delivery" or a foreign "region"

    def __repr__(self) -> str:
        return f"<World {self.posts} posts, {self.polls} polls, {self._state.books!r}>"

    def place(
        self, *, epoch: float, delivery: str, region_origin: str, region_port: int = 0
    ) -> None:
        """Tell the world where it stands: its wall clock, and the origins its URLs point to."""
        self._state.epoch = epoch + self.scenario.clock_skew
        self._state.delivery = delivery
        self._state.region_origin = region_origin
        self._state.region_port = region_port

    def resume(self, now: float, jobs: Iterable[Job]) -> None:
        """Go on with the jobs of an earlier simulator, their times in seconds of the epoch."""
        state = self._state
        for job in jobs:
            job.started_at -= state.epoch
            job.ends_at -= state.epoch
            job.charge.at -= state.epoch
            state.jobs.add(job, now=now)
            state.books.recall(job.charge)
            self._submits.accepted = max(self._submits.accepted, job.number)

    def earlier(self) -> tuple[list[Job], int]:
        """Return what the scenario's job_log has: see JobLog.earlier."""
        return self._state.log.earlier()

    def change(self, scenario: Scenario) -> None:
        """Play another script from now on; the jobs that run keep the fate they have."""
        self.scenario = self._state.scenario = scenario

    def close(self) -> None:
        """Close the logs of charges and jobs, if there are any."""
        self._state.books.close()
        self._state.log.close()

    # ------------------------------------------------------------------------------------ answers

    def submit(
        self,
        now: float,
        *,
        dialect: DialectName,
        model: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        """Answer POST …/{model}. A charge is booked before this returns."""
        lower = self._state.seen(now, "POST", f"{dialect}/{model}", headers)
        answer = self._submits.answer(now, dialect, model, lower, body)
        return self._state.dated(now, answer)

    def poll(
        self,
        now: float,
        *,
        dialect: DialectName,
        job_id: str,
        headers: Mapping[str, str],
        host_region: str | None = None,
    ) -> Answer:
        """Answer GET …/get_result; `host_region` names the regional host that was asked."""
        lower = self._state.seen(now, "GET", f"{host_region or dialect}/get_result", headers)
        if host_region is not None and "authorization" in lower:
            self.leaks["region"] += 1
        answer = self._polls.answer(now, dialect, job_id, lower, host_region)
        return self._state.dated(now, answer)

    def wanted(self, now: float, path_query: str) -> PictureSpec | None:
        """The picture that `deliver` will need, so that it can be drawn elsewhere first."""
        job = self._state.jobs.by_path(now, path_query.partition("?")[0])
        return None if job is None else job.picture

    def deliver(self, now: float, *, path_query: str, headers: Mapping[str, str]) -> Answer:
        """Answer GET of a signed URL, given exactly as it stood in the request line."""
        lower = self._state.seen(now, "GET", path_query.partition("?")[0], headers)
        if has_key(lower):
            self.leaks["delivery"] += 1
        return self._state.dated(now, self._deliveries.answer(now, path_query, lower))

    def credits(self, now: float, headers: Mapping[str, str]) -> Answer:
        """Answer GET /v1/credits."""
        lower = self._state.seen(now, "GET", "bfl/credits", headers)
        key = key_of("bfl", lower)
        if self.scenario.key not in (None, key):
            refusal = DIALECTS["bfl"].bad_key(key is not None, self._state.moment(now))
            return self._state.dated(now, refusal)
        balance = _ENDLESS if self.scenario.credits is None else self.scenario.credits
        left = 0 if self._state.out_of_credit else balance - self._state.books.spent_usd * 100
        return self._state.dated(now, json_answer({"credits": float(left)}))

    # --------------------------------------------------------------------- what a test looks at

    @property
    def region(self) -> str:
        """The name of the regional host that jobs run at."""
        return self._state.region

    @property
    def charges(self) -> list[Charge]:
        """Every charge in order; empty when the scenario writes a charge_log."""
        return self._state.books.charges

    @property
    def requests(self) -> deque[Seen]:
        """The latest requests, without the values of their headers."""
        return self._state.requests

    @property
    def faults(self) -> Counter[str]:
        """Faults that happened, by name."""
        return self._state.struck

    @property
    def refused(self) -> Counter[int]:
        """Submits that were not answered 200, by status."""
        return self._submits.refused

    @property
    def posts(self) -> int:
        """Submits, whatever was answered."""
        return self._submits.posts

    @property
    def polls(self) -> int:
        """Polls, whatever was answered."""
        return self._polls.polls

    @property
    def downloads(self) -> int:
        """Downloads begun, whatever was answered."""
        return self._deliveries.downloads

    @property
    def max_active(self) -> int:
        """Most jobs that were ever active at once."""
        return self._submits.max_active

    def active(self, now: float, model: str = "") -> int:
        """Jobs not yet at their end by the server's clock; a name asks for a model that has a
        limit of its own."""
        return self._state.jobs.active(now, model)

    def _makespan(self) -> float | None:
        """Seconds from the first acceptance until the last end was seen by a poll."""
        began, last_seen = self._submits.began, self._polls.last_seen
        return None if began is None or last_seen is None else last_seen - began

    def summary(self, now: float) -> dict[str, Any]:
        """The totals, as plain JSON values."""
        books = self._state.books
        return {
            "charges": books.charged,
            "delivered": books.delivered,
            "spent_usd": str(books.spent_usd),
            "posts": self.posts,
            "polls": self.polls,
            "downloads": self.downloads,
            "active": self.active(now),
            "seconds": self._submits.seconds,
            "seen": self._polls.seen,
            "lag": self._polls.lag,
            "makespan": self._makespan(),
            "max_active": self.max_active,
            "refused": {str(status): count for status, count in self.refused.items()},
            "faults": dict(self.faults),
            "leaks": dict(self.leaks),
        }
