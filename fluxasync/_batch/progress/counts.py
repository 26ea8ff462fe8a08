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
    DownloadsFailing,
    JobEnded,
    JobReady,
    JobSubmitted,
    JobUnclaimed,
    LimitChanged,
    Paused,
    Resumed,
)
from ..._core.models import Failed, InDoubt, Job, Outcome, Saved
from ..._core.observers import Fallback
from ..._core.prices import NO_PRICES
from ..._core.text import duration
from ..._requests.estimate import Estimate
from ..._requests.pricing import price
from ..summary import counted

if TYPE_CHECKING:
    from ..._requests.sources.plan import Plan
    from ..._store.journal.totals import JournalCounts

#: outcomes over which the rate is measured: a long pause does not spoil the estimate after it
_WINDOW = 200
#: number of latest images that are named
_LATEST = 3
_TOO_MANY = 429


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
    limit: int | None = None  #: the limit found under "auto"
    rate: float | None = None  #: outcomes per second
    idle: float = 0.0  #: seconds since the last outcome
    cost: Decimal | None = None  #: US dollars for saved images; None = not shown
    projected: Decimal | None = None  #: US dollars of the whole run
    push_backs: int = 0  #: 429 answers
    pause: str | None = None  #: why nothing is submitted now
    failing: int = 0  #: images being downloaded whose latest try failed
    trouble: str | None = None  #: why they fail, and until when they are tried
    latest: tuple[tuple[str, str], ...] = ()  #: names and prompts of the latest images

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
        """Whether nothing is left but failing downloads, so that the rate means nothing."""
        return bool(self.failing) and not self.waiting and self.under_way <= self.failing

    @property
    def eta(self) -> str | None:
        """Return the time left at the present rate; None when nothing is left.

        Never less than the time since the last outcome: the last jobs of a run are its slowest, and
        the rate of the others does not apply to them. Failing downloads have no part in it: they
        wait for a host, and no rate says for how long.
        """
        left = 0 if self.total is None else self.total - self.ended - self.failing
        if not self.rate or left <= 0:
            return None
        return duration(max(left / self.rate, self.idle, 1.0))

    def line(self) -> str:
        """Return the run as one line."""
        parts = [self.counts()]
        if self.running:
            slots = "" if self.limit is None else f" ({self.limit} slots)"
            parts.append(f"{self.running} running{slots}")
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
        text = f"{self.saved}{of_total} saved, {already}{counted(self.failed, 'failed')}"
        return f"{text}, {self.in_doubt} in doubt" if self.in_doubt else text


class Progress:
    """Counts of an active run.

    `total` is the number of images, None while it is unknown (standard input). Without `priced` no
    cost is shown (a simulated run). It follows jobs as an observer of a session
    (`FluxSession(on_event=progress)`); the reader of outcomes passes them to `update`.
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
        self.limit: int | None = None  #: the limit found under "auto"
        self._ended = 0
        self._own: set[str] = set()  # jobs of this run, until their outcome
        self._fetching: set[str] = set()
        self._to_spend: Decimal | None = None
        self._prices = NO_PRICES
        self._push_backs = 0
        self._paused: Paused | None = None
        self._resumes_at: float | None = None
        self._failing: DownloadsFailing | None = None
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
            case LimitChanged(group="account", limit=limit):
                self.limit = self.slots = limit
            case Paused(status=status):
                self._push_backs += status == _TOO_MANY
                self._paused, self._resumes_at = event, None
            case Resumed():
                self._paused = None
            case DownloadsFailing():
                self._failing = event if event.count else None

    def update(self, outcome: Outcome, *, now: float) -> None:
        """Count an outcome at `now`, in seconds of any monotonic clock."""
        self._fallback(lambda: self._count(outcome, now), None)

    def _count(self, outcome: Outcome, now: float) -> None:
        self._landed.append(now)
        self._forget(outcome)
        match outcome:
            case Saved(cost=cost):
                self.saved += 1
                self.cost += cost or 0
                self._ended += 1
                self._latest.append(_named(outcome))
            case Failed(cause=cause, job=job):
                self.failed[cause] += 1
                self._ended += job is not None
            case InDoubt():
                self.in_doubt += 1

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
            downloading=min(len(self._fetching), self.under_way),
            slots=self.slots,
            limit=self.limit,
            rate=self._rate(now),
            idle=max(0.0, now - self._landed[-1]) if self._landed else 0.0,
            cost=self.cost if self.priced else None,
            projected=None
            if left is None or not self.priced
            else self.cost + max(left, Decimal(0)),
            push_backs=self._push_backs,
            pause=None if self._paused is None else self._format_pause(self._paused, now),
            failing=0 if self._failing is None else min(self._failing.count, self.under_way),
            trouble=None if self._failing is None else self._failing.text,
            latest=tuple(self._latest),
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


def _named(saved: Saved) -> tuple[str, str]:
    name = saved.job.job_id if saved.path is None else saved.path.name
    return name, "" if saved.request is None else saved.request.prompt
