"""The simulator without sockets: jobs, faults and charges on any clock.

Synchronous: every method takes `now`, in seconds on a clock that never runs backwards, and returns
an `Answer`. So the same world serves sockets and virtual time, and the same seed and calls give the
same answers.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .account import AccountEndpoint
from .charges import Charge
from .dialects import Answer, DialectName
from .download import DownloadEndpoint
from .images import Gallery, PictureSpec, painter_of
from .jobs import Job
from .poll import PollEndpoint
from .scenario import Scenario
from .state import SeenRequest, State, has_key
from .submit import SubmitEndpoint
from .webhooks import Callback, WebhookQueue


class World:
    """One simulated provider.

    `epoch` is the wall-clock time at `now` = 0, for dates in answers. `salt` makes the ids of two
    servers with the same seed differ. `only_local_callbacks` calls no webhook outside this machine
    and its network.

    Callbacks to the `webhook_url` of submissions are data, which the owner of the world sends::

        for callback in world.callbacks(now):  # POST callback.body to callback.url
            world.called_back(now, callback, status)

    `CallbackSender` does so on the clock of an event loop, also a virtual one.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        epoch: float = 1_766_072_345.0,
        salt: str = "",
        gallery: Gallery | None = None,
        only_local_callbacks: bool = False,
    ) -> None:
        self.scenario = scenario or Scenario()
        self.gallery = gallery or Gallery(
            image_bytes=self.scenario.image_bytes, painter=painter_of(os.environ)
        )
        self._state = State(self.scenario, self.gallery, epoch=epoch, salt=salt)
        self._account = AccountEndpoint(self._state)
        self._webhooks = WebhookQueue(self._state, only_local=only_local_callbacks)
        self._submits = SubmitEndpoint(self._state, self._account, self._webhooks)
        self._polls = PollEndpoint(self._state)
        self._downloads = DownloadEndpoint(self._state)
        self.leaks: Counter[str] = Counter()  #: keys sent to "delivery" or a wrong "region"; the
        #: access token sent with other calls than the account's ("token")

    def __repr__(self) -> str:
        return f"<World {self.posts} posts, {self.polls} polls, {self._state.charge_log!r}>"

    def set_origins(
        self, *, epoch: float, delivery: str, region_origin: str, region_port: int = 0
    ) -> None:
        """Set the wall clock and the origins of polling and image URLs."""
        self._state.epoch = epoch + self.scenario.clock_skew
        self._state.delivery = delivery
        self._state.region_origin = region_origin
        self._state.region_port = region_port

    def rename(self, host: str) -> None:
        """Give polling and image URLs another host; their ports stay."""
        state = self._state
        state.delivery = _renamed(state.delivery, host)
        state.region_origin = _renamed(state.region_origin, host)

    def resume(self, now: float, jobs: Iterable[Job]) -> None:
        """Continue the jobs of an earlier simulator; their times are seconds of the epoch."""
        state = self._state
        for job in jobs:
            job.started_at -= state.epoch
            job.ends_at -= state.epoch
            job.charge.at -= state.epoch
            state.jobs.add(job, now=now)
            state.charge_log.recall(job.charge)
            self._account.add(job)
            self._submits.accepted = max(self._submits.accepted, job.number)

    def earlier_jobs(self) -> tuple[list[Job], int]:
        """Return the jobs of the scenario's job_log, see JobLog.earlier_jobs."""
        return self._state.log.earlier_jobs()

    def change(self, scenario: Scenario) -> None:
        """Use another scenario from now on. Accepted jobs keep their end time and status."""
        self.scenario = self._state.scenario = scenario

    def close(self) -> None:
        """Close the log files of charges and jobs."""
        self._state.charge_log.close()
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
        """Answer POST …/{model}. A charge is recorded before this returns."""
        lower = self._recorded(now, "POST", f"{dialect}/{model}", headers)
        answer = self._submits.answer(now, dialect, model, lower, body)
        return self._state.with_date(now, answer)

    def poll(
        self,
        now: float,
        *,
        dialect: DialectName,
        job_id: str,
        headers: Mapping[str, str],
        host_region: str | None = None,
    ) -> Answer:
        """Answer GET …/get_result; `host_region` is the regional host that received it."""
        lower = self._recorded(now, "GET", f"{host_region or dialect}/get_result", headers)
        if host_region is not None and "authorization" in lower:
            self.leaks["region"] += 1
        answer = self._polls.answer(now, dialect, job_id, lower, host_region)
        return self._state.with_date(now, answer)

    def picture_spec(self, now: float, path_query: str) -> PictureSpec | None:
        """Return the image that `deliver` will need, so it can be drawn in a thread first."""
        job = self._state.jobs.by_path(now, path_query.partition("?")[0])
        return None if job is None else job.picture

    def deliver(self, now: float, *, path_query: str, headers: Mapping[str, str]) -> Answer:
        """Answer GET of a signed URL; `path_query` is exactly as in the request line."""
        lower = self._recorded(now, "GET", path_query.partition("?")[0], headers)
        if has_key(lower):
            self.leaks["delivery"] += 1
        return self._state.with_date(now, self._downloads.answer(now, path_query, lower))

    def credits(self, now: float, headers: Mapping[str, str]) -> Answer:
        """Answer GET /v1/credits."""
        lower = self._recorded(now, "GET", "bfl/credits", headers)
        return self._state.with_date(now, self._account.credits(now, lower))

    def account(self, now: float, *, path_query: str, headers: Mapping[str, str]) -> Answer | None:
        """Answer a GET of CometAPI's account; None for another path."""
        path, _, query = path_query.partition("?")
        if not self._account.has(path):
            return None
        lower = self._state.record_request(now, "GET", path, headers)
        return self._state.with_date(now, self._account.answer(now, path, query, lower))

    def _recorded(
        self, now: float, method: str, path: str, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """Record a call that must not have the access token; return its headers."""
        lower = self._state.record_request(now, method, path, headers)
        token = self.scenario.access_token
        if token is not None and any(token in value for value in lower.values()):
            self.leaks["token"] += 1
        return lower

    # ----------------------------------------------------------------------------------- webhooks

    def callbacks(self, now: float) -> list[Callback]:
        """Return the callbacks that are due, each once; the earliest first."""
        return self._webhooks.take(now)

    def called_back(self, now: float, callback: Callback, status: int | None) -> None:
        """Report the HTTP status of a callback's answer; None: no answer within 30 seconds. After
        anything but 2xx the callback is due again 1, 5 and 30 seconds later, then never."""
        self._webhooks.answered(now, callback, status)

    @property
    def next_callback_at(self) -> float | None:
        """When the next callback is due, in seconds on the world's clock; None: there is none."""
        return self._webhooks.next_at

    def notify(self, added: Callable[[], None] | None) -> None:
        """Call a function whenever a callback is added; None: no function."""
        self._webhooks.added = added

    # --------------------------------------------------------------------------- figures for tests

    @property
    def region(self) -> str:
        """The name of the regional host."""
        return self._state.region

    @property
    def charges(self) -> list[Charge]:
        """Every charge in order; empty if the scenario has a charge_log."""
        return self._state.charge_log.charges

    @property
    def requests(self) -> deque[SeenRequest]:
        """The last 2,000 requests, without the values of their headers."""
        return self._state.requests

    @property
    def faults(self) -> Counter[str]:
        """Number of injected faults by name."""
        return self._state.fault_counts

    @property
    def refused(self) -> Counter[int]:
        """Number of refused submissions by HTTP status."""
        return self._submits.refused

    @property
    def posts(self) -> int:
        """Number of submissions."""
        return self._submits.posts

    @property
    def polls(self) -> int:
        """Number of polls."""
        return self._polls.polls

    @property
    def downloads(self) -> int:
        """Number of downloads."""
        return self._downloads.downloads

    @property
    def callback_counts(self) -> Counter[str]:
        """Number of callbacks "sent", "delivered" (answered 2xx), "retried" and "abandoned" (after
        four tries), of forged and replayed ones that were "refused" (not answered 2xx), and of jobs
        with an "external" webhook, which was not called."""
        return self._webhooks.counts

    @property
    def max_active(self) -> int:
        """Maximum number of active jobs."""
        return self._submits.max_active

    def active(self, now: float, model: str = "") -> int:
        """Return the number of active jobs, of one model if it has its own limit."""
        return self._state.jobs.active(now, model)

    def _makespan(self) -> float | None:
        """Seconds from the first acceptance to the last answer with a terminal status."""
        start, end = self._submits.first_accepted_at, self._polls.last_seen
        return None if start is None or end is None else end - start

    def summary(self, now: float) -> dict[str, Any]:
        """Return the totals as JSON values."""
        charge_log = self._state.charge_log
        return {
            "charges": charge_log.charged,
            "delivered": charge_log.delivered,
            "spent_usd": str(charge_log.spent_usd),
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
            "callbacks": dict(self.callback_counts),
            "faults": dict(self.faults),
            "leaks": dict(self.leaks),
        }


def _renamed(origin: str, host: str) -> str:
    scheme, _, rest = origin.partition("://")
    return f"{scheme}://{host}:{rest.rpartition(':')[2]}"
