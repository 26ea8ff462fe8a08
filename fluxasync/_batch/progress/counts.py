"""Counts of a run, from its outcomes and events, and the counts as one line.

Does no I/O and takes the time as a number. A ProgressSnapshot is a value, so another thread may
draw it.
"""

from __future__ import annotations

from collections import Counter, deque
from decimal import Decimal
from math import inf
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ..._core.amounts import dollars
from ..._core.events import (
    DoubtsSought,
    DownloadsFailing,
    JobAdopted,
    JobEnded,
    JobReady,
    JobSubmitted,
    JobUnclaimed,
    LimitChanged,
    Paused,
    Resumed,
    Settled,
    StoreOutage,
    WorkersReported,
)
from ..._core.models import Failed, InDoubt, Job, Outcome, Saved
from ..._core.observers import Fallback
from ..._core.prices import NO_PRICES
from ..._core.text import duration, with_causes
from ..._requests.estimate import Estimate
from ..._requests.pricing import price
from ..summary import key_of
from .accounts import AccountProgress, AccountTally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..._engine.account_choice import AccountState
    from ..._requests.sources.plan import Plan
    from ..._store.journal.totals import JournalCounts

#: outcomes over which the rate is measured: a long pause does not spoil the estimate after it
_WINDOW = 200
#: number of latest images that are named
_LATEST = 3
_TOO_MANY = 429
_STOP = "; Ctrl-C stops"


@frozen(kw_only=True)
class ProgressSnapshot:
    """A run at one moment."""

    total: int | None = None  #: images of this run; None = unknown
    already: int = 0  #: images that earlier runs saved, not part of the total
    saved: int = 0
    failed: Counter[str] = field(factory=Counter)  #: by cause
    in_doubt: int = 0
    under_way: int = 0  #: jobs that are paid and have no outcome yet
    downloading: int = 0  #: of those
    slots: int | None = None  #: jobs that may be active at once
    workers: int | None = None  #: workers of a cluster that are at work
    limit: int | None = None  #: the limit found under "auto"
    rate: float | None = None  #: outcomes per second
    idle: float = 0.0  #: seconds since the last outcome
    cost: Decimal | None = None  #: US dollars for saved images; None = not shown
    projected: Decimal | None = None  #: US dollars of the whole run
    push_backs: int = 0  #: 429 answers
    pause: str | None = None  #: why nothing is submitted now
    is_held: bool = False  #: the user has paused the run, and nobody knows for how long
    failing: int = 0  #: images being downloaded whose latest try failed
    trouble: str | None = None  #: why they fail, or that the bucket does not answer
    latest: tuple[tuple[str, str], ...] = ()  #: names and prompts of the latest images
    accounts: tuple[AccountProgress, ...] = ()  #: of a run with several accounts

    @property
    def ended(self) -> int:
        """Images that have their outcome."""
        return self.saved + self.failed.total() + self.in_doubt

    @property
    def running(self) -> int:
        """Jobs that the server works on."""
        return self.under_way - self.downloading

    @property
    def waiting(self) -> int | None:
        """Images not submitted yet; None while their number is unknown."""
        return None if self.total is None else max(0, self.total - self.ended - self.under_way)

    @property
    def only_waits(self) -> bool:
        """Whether nothing is left but failing downloads, or a wait such as that for images in
        doubt, so that the rate means nothing."""
        waits = bool(self.failing) or self.pause is not None
        return waits and not self.waiting and self.under_way <= self.failing

    @property
    def eta(self) -> str | None:
        """Return the time left at the present rate; None when nothing is left, and while the user
        has paused the run.

        Never less than the time since the last outcome: the last jobs of a run are its slowest, and
        the rate of the others does not apply to them. Failing downloads have no part in it: they
        wait for a host, and no rate says for how long.
        """
        left = 0 if self.total is None else self.total - self.ended - self.failing
        if not self.rate or left <= 0 or self.is_held:
            return None
        return duration(max(left / self.rate, self.idle, 1.0))

    def line(self) -> str:
        """Return the run as one line."""
        parts = [self.counts()]
        if self.running:
            slots = "" if self.limit is None else f" ({self.limit} slots)"
            parts.append(f"{self.running} running{slots}")
        if self.accounts:
            parts.append(" ".join(account.short() for account in self.accounts))
        if self.downloading:
            parts.append(f"{self.downloading} downloading")
        if self.rate and not self.only_waits:
            parts.append(f"{60 * self.rate:.1f} images/min")
        if self.cost:
            parts.append(dollars(self.cost))
        if self.eta is not None:
            parts.append(f"ETA {self.eta}")
        parts += filter(None, (self.trouble, self.pause))
        return ", ".join(parts)

    def counts(self) -> str:
        """Return the outcomes alone: "3/10 saved, 1 failed (1 moderated)"."""
        of_total = "" if self.total is None else f"/{self.total}"
        already = f"{self.already} already there, " if self.already else ""
        text = f"{self.saved}{of_total} saved, {already}{with_causes(self.failed, 'failed')}"
        return f"{text}, {self.in_doubt} in doubt" if self.in_doubt else text


class Progress:
    """Counts of an active run.

    `total` is the number of images, None while it is unknown (standard input). Without `priced` no
    cost is shown (a simulated run). It follows jobs as an observer of a session
    (`FluxSession(on_event=progress)`), and a batch's outcomes as they are recorded; the reader of
    outcomes passes them to `update`, which counts each once.
    """

    def __init__(self, *, total: int | None = None, priced: bool = True) -> None:
        self.total = total
        self.priced = priced
        self.already = 0  #: images that earlier runs saved
        self.saved = 0
        self.failed: Counter[str] = Counter()  #: by cause
        self.in_doubt = 0
        self.submitted = 0  #: jobs accepted so far
        self.cost = Decimal(0)  #: US dollars for saved images
        self.slots: int | None = None  #: maximum number of active jobs, if known
        self._workers: int | None = None  # of a cluster
        self.limit: int | None = None  #: the limit found under "auto"
        self.by_account = AccountTally()
        #: gives the states of several accounts, as `FluxPool.states` does
        self.states: Callable[[], Mapping[str, AccountState]] = dict
        self.held: str | None = None  #: why a user's own pause submits nothing
        self._ended = 0
        self._own: set[str] = set()  # jobs of this run, until their outcome
        self._fetching: set[str] = set()
        self._landing = 0  # images that the workers of a cluster download
        self._doubts: set[str] = set()  # keys of images that are counted as in doubt
        self._found: set[str] = set()  # keys of images in doubt whose jobs were found
        self._unread: set[str] = set()  # what was counted at its record, until its outcome is read
        self._to_spend: Decimal | None = None
        self._prices = NO_PRICES
        self._push_backs = 0
        self._paused: Paused | None = None
        self._resumes_at: float | None = None
        self._failing: DownloadsFailing | None = None
        self._outage: StoreOutage | None = None
        self._sought: DoubtsSought | None = None
        self._is_expected = False
        self._landed: deque[float] = deque(maxlen=_WINDOW)
        self._latest: deque[tuple[str, str]] = deque(maxlen=_LATEST)
        self._fallback = Fallback()

    def __repr__(self) -> str:
        return f"<Progress {self.view(0).counts()}>"

    def expect(
        self,
        plan: Plan,
        *,
        recovered: JournalCounts | None = None,
        estimate: Estimate | None = None,
        slots: int | None = None,
    ) -> None:
        """Set the totals from the plan and from what earlier runs left. `estimate` is for what will
        be submitted, which a budget may end before the last prompt."""
        running = 0 if recovered is None else recovered.running
        self.already = plan.known.get("done", 0)
        to_do = plan.to_do
        if to_do is not None and estimate is not None:
            to_do = min(to_do, estimate.images)
        self.total = None if to_do is None else to_do + running
        self.submitted += running  # paid and not saved yet
        self.slots = slots
        self._is_expected = True
        self._prices = plan.estimator.prices
        if estimate is not None and not estimate.unpriced:
            self._to_spend = estimate.cost

    def __call__(self, event: Any) -> None:
        """Count an event of the session."""
        match event:
            case JobSubmitted(job=job):
                self.submitted += 1
                self._own.add(job.job_id)
            case JobReady(job=job):
                self._fetching.add(job.job_id)
            case JobEnded(job=job, saved=None) | JobUnclaimed(job=job):
                self._fetching.discard(job.job_id)
            case JobAdopted(job=job):
                self._adopt(key_of(job.request))
            case Settled(outcome=outcome):
                self._record(outcome)
            case DoubtsSought():
                self._sought, self._paused = event, None  # nothing is left to submit
            case LimitChanged(group="account", limit=limit):
                self.limit = self.slots = limit
            case Paused(status=status):
                self._push_backs += status == _TOO_MANY
                self._paused, self._resumes_at, self._sought = event, None, None
            case Resumed():
                self._paused = None
            case WorkersReported(workers=workers, paid=paid, in_flight=in_flight):
                self._workers = workers
                self.submitted = self._ended + paid
                self._landing = max(0, paid - in_flight)
            case DownloadsFailing():
                self._failing = event if event.count else None
            case StoreOutage():
                self._outage = event if event.since else None

    def update(self, outcome: Outcome, *, now: float) -> None:
        """Count an outcome at `now`, in seconds of any monotonic clock."""
        self._fallback(lambda: self._count(outcome, now), None)

    def _count(self, outcome: Outcome, now: float) -> None:
        self._landed.append(now)
        name = _identity(outcome)
        if name in self._unread:
            self._unread.remove(name)
        else:
            self._add(outcome)

    def _record(self, outcome: Outcome) -> None:
        """Count an outcome that is recorded; it is read later, perhaps behind others."""
        if name := _identity(outcome):
            self._unread.add(name)
            self._add(outcome)

    def _add(self, outcome: Outcome) -> None:
        self._forget(outcome)
        match outcome:
            case Saved(cost=cost):
                self.saved += 1
                self.cost += cost or 0
                self.by_account.add(outcome.job, cost)
                self._ended += 1
                self._latest.append(_named(outcome))
            case Failed(cause=cause, job=job):
                self.failed[cause] += 1
                self._ended += job is not None
            case InDoubt(request=request):
                self._doubt(key_of(request))

    def _doubt(self, key: str) -> None:
        if key not in self._found:
            self.in_doubt += 1
            self._doubts.add(key)
        elif self.total is not None:  # found before its outcome was read
            self.total -= 1

    def _adopt(self, key: str) -> None:
        """Count a job that was found for an image in doubt: it has its outcome to come."""
        self._found.add(key)
        if not self._is_expected and key not in self._doubts:
            return  # the plan counts it as a job of an earlier run
        self.submitted += 1
        if key in self._doubts:
            self._doubts.remove(key)
            self.in_doubt -= 1
        elif self.total is not None:  # of an earlier run, which the plan does not count
            self.total += 1

    @property
    def under_way(self) -> int:
        """Jobs that are paid and have no outcome yet: running, or being downloaded."""
        return max(0, self.submitted - self._ended)

    def line(self, now: float) -> str:
        """Return the run at `now` as one line."""
        return self.view(now).line()

    def view(self, now: float) -> ProgressSnapshot:
        """Return the run at `now`."""
        return self._fallback(
            lambda: self._view(now), ProgressSnapshot(total=self.total, saved=self.saved)
        )

    def _view(self, now: float) -> ProgressSnapshot:
        left = self._to_spend
        return ProgressSnapshot(
            total=self.total,
            already=self.already,
            saved=self.saved,
            failed=self.failed.copy(),
            in_doubt=self.in_doubt,
            under_way=self.under_way,
            downloading=min(len(self._fetching) + self._landing, self.under_way),
            slots=self.slots,
            workers=self._workers,
            limit=self.limit,
            rate=self._rate(now),
            idle=max(0.0, now - self._landed[-1]) if self._landed else 0.0,
            cost=self.cost if self.priced else None,
            projected=None
            if left is None or not self.priced
            else self.cost + max(left, Decimal(0)),
            push_backs=self._push_backs,
            pause=self._format_wait(now),
            is_held=self.held is not None,
            failing=0 if self._failing is None else min(self._failing.count, self.under_way),
            trouble="; ".join(each.text for each in (self._outage, self._failing) if each) or None,
            latest=tuple(self._latest),
            accounts=self.by_account.view(self.states(), priced=self.priced),
        )

    def _forget(self, outcome: Outcome) -> None:
        """Remove an image from the active jobs, and from the cost to come unless it was paid for
        by an earlier run."""
        job: Job | None = getattr(outcome, "job", None)
        is_own = job is None or job.job_id in self._own
        if job is not None:
            self._own.discard(job.job_id)
            self._fetching.discard(job.job_id)
        if is_own and self._to_spend is not None and outcome.request is not None:
            self._to_spend -= price(outcome.request, self._prices) or 0

    def _format_wait(self, now: float) -> str | None:
        """Return why nothing is submitted now, or what the end of the run waits for."""
        if self.held is not None:
            return self.held
        if self._paused is not None:
            return self._format_pause(self._paused, now)
        if self._sought is None or not self.in_doubt:
            return None
        return wait_for_doubts(self._sought)

    def _format_pause(self, paused: Paused, now: float) -> str:
        """Return the pause as text, counting down from its first view.

        While the provider does not answer, the text names the time until which it is tried.
        """
        if paused.status is None:
            until = "" if paused.until is None else f" until {paused.until.astimezone():%H:%M}"
            return f"{paused.reason}; still trying{until}, Ctrl-C to stop"
        if self._resumes_at is None:
            self._resumes_at = now + paused.seconds
        left = self._resumes_at - now
        countdown = f" for {duration(left)}" if left >= 1 else ""
        return f"paused{countdown}: {paused.reason}"

    def _rate(self, now: float) -> float | None:
        """Return outcomes per second; None for fewer than two outcomes."""
        if len(self._landed) < 2:
            return None
        seconds = now - self._landed[0]
        return (len(self._landed) - 1) / seconds if 0 < seconds < inf else None


def wait_for_doubts(sought: DoubtsSought) -> str:
    """Return what a wait for images in doubt is for, and its end."""
    what = "looking in the account for"
    if sought.by == "callbacks":
        what = "waiting for callbacks about"
    return f"{what} images in doubt, at most until {sought.until.astimezone():%H:%M:%S}{_STOP}"


def _named(saved: Saved) -> tuple[str, str]:
    name = saved.place.rpartition("/")[2] or saved.job.job_id
    return name, "" if saved.request is None else saved.request.prompt


def _identity(outcome: Outcome) -> str:
    """Return what tells an outcome from the others of a run; "" for a row that is no request."""
    if isinstance(outcome, InDoubt):
        return f"in doubt {key_of(outcome.request)}"
    return key_of(outcome.request) if outcome.job is None else outcome.job.job_id
