"""The jobs that the simulator knows.

A job is active until its end time, whether it is polled or not. Finished jobs are dropped after the
retention time, or when more than 100,000 are kept, so memory stays bounded. A job that never
finishes is dropped, with its slot, after the same time.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from .charges import Charge
from .dialects import DialectName
from .images import PictureSpec
from .models import Model

if TYPE_CHECKING:
    from .scenario import SeededRandom

_MOST_KEPT = 100_000
#: HTTP status and error text of a failed job
_FAILURES = (
    (200, "internal error"),
    (422, "Invalid or corrupted image input"),
    (503, "generation failed"),
)


@frozen(kw_only=True)
class Webhook:
    """Where a job's callbacks go. Both values are secrets: a URL may contain a token."""

    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)


@define(kw_only=True, eq=False)
class Job:
    """One accepted job and what became of it."""

    number: int  #: from 1, in order of acceptance
    id: str
    dialect: DialectName
    region: str | None  #: the regional host that answers its polls; None: the origin (CometAPI)
    model: Model
    result_prompt: str  #: in the result; differs if the prompt was upsampled
    picture: PictureSpec
    charge: Charge
    started_at: float  #: seconds on the server's clock, as all times here
    ends_at: float
    final_status: str  #: terminal status; "Pending" for a job that never finishes
    path: str  #: of its image, on the delivery host
    polls: int = 0
    seen_at: float | None = None  #: when a poll first answered its terminal status
    fetches: int = 0
    urls: dict[str, float] = field(factory=dict)  #: path and query → expiry time
    webhook: Webhook | None = None  #: not kept in the job log: it is a secret


def failure_of(rng: SeededRandom, job: Job) -> tuple[int, str]:
    """Return the HTTP status and the error text of a job that failed."""
    return _FAILURES[rng.integer("failure", job.number, below=len(_FAILURES))]


class JobTable:
    """Jobs by id and by image path, and the number of active ones."""

    def __init__(self, *, retention: float) -> None:
        self._retention = retention
        self._by_id: dict[str, Job] = {}
        self._by_path: dict[str, Job] = {}
        self._ends: dict[str, list[float]] = {}  # "" or a model with its own limit → end times
        self._finished: list[tuple[float, int, Job]] = []  # drop time, number, job

    def __repr__(self) -> str:
        return f"<JobTable {len(self._by_id)} jobs>"

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, job: Job, *, now: float | None = None) -> None:
        """Add a job. With `now`, the job comes from an earlier simulator: its retention starts now,
        because no time passes for jobs while no simulator runs."""
        self._by_id[job.id] = job
        self._by_path[job.path] = job
        heappush(self._ends.setdefault("", []), job.ends_at)
        if job.model.active_limit is not None:
            heappush(self._ends.setdefault(job.model.name, []), job.ends_at)
        ended_at = job.ends_at if now is None else max(job.ends_at, now)
        drop_at = ended_at if job.final_status == "Pending" else ended_at + self._retention
        heappush(self._finished, (drop_at, job.number, job))

    def active(self, now: float, model: str = "") -> int:
        """Return the number of active jobs, of one model if it has its own limit."""
        ends = self._ends.get(model, [])
        while ends and ends[0] <= now:
            heappop(ends)
        return len(ends)

    def by_id(self, now: float, job_id: str) -> Job | None:
        self._drop_expired(now)
        return self._by_id.get(job_id)

    def by_path(self, now: float, path: str) -> Job | None:
        self._drop_expired(now)
        return self._by_path.get(path)

    def _drop_expired(self, now: float) -> None:
        due = self._finished
        while due and (due[0][0] <= now or len(due) > _MOST_KEPT):
            _, _, job = heappop(due)
            del self._by_id[job.id], self._by_path[job.path]
