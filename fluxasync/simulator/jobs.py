"""The jobs a practice server knows: who runs, who is remembered, and who is long forgotten.

Pure book-keeping on whatever clock is passed in; faults and wording are not its business. A job
is active until its end comes, whether or not anyone asks; finished ones are forgotten after the
retention time, or the oldest first when too many pile up, so memory stays bounded. Odd fact: a
job that never ends is given up, with its slot, after the same retention.
"""

from __future__ import annotations

from heapq import heappop, heappush

from attrs import define, field

from .charges import Charge
from .dialects import DialectName
from .images import PictureSpec
from .models import Model

_MOST_KEPT = 100_000


@define(kw_only=True, eq=False)
class Job:
    """One accepted job and what became of it."""

    number: int  #: from 1, in order of acceptance
    id: str
    dialect: DialectName
    region: str | None  #: whose host answers its polls; None = the origin's
    model: Model
    told_prompt: str  #: what the result repeats: changed if the prompt was upsampled
    picture: PictureSpec
    charge: Charge
    started_at: float  #: server's clock, as all times here
    ends_at: float
    fate: str  #: the terminal status; "Pending" when there is none
    path: str  #: of its image on the delivery host
    polls: int = 0
    seen_at: float | None = None  #: a poll has told its end
    fetches: int = 0
    urls: dict[str, float] = field(factory=dict)  #: path and query → when that URL dies


class JobTable:
    """Jobs by id and by delivery path, and the count of active ones."""

    def __init__(self, *, retention: float) -> None:
        self._retention = retention
        self._by_id: dict[str, Job] = {}
        self._by_path: dict[str, Job] = {}
        self._ends: dict[str, list[float]] = {}  # model with a limit of its own, or "" → end times
        self._finished: list[tuple[float, int, Job]] = []  # by the time it is to be forgotten

    def __repr__(self) -> str:
        return f"<JobBook {len(self._by_id)} jobs>"

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, job: Job, *, now: float | None = None) -> None:
        """Take a job. One of an earlier simulator is remembered as long as if it ended `now`:
        time in which no simulator runs makes nothing forgotten."""
        self._by_id[job.id] = job
        self._by_path[job.path] = job
        heappush(self._ends.setdefault("", []), job.ends_at)
        if job.model.active_limit is not None:
            heappush(self._ends.setdefault(job.model.name, []), job.ends_at)
        ended_at = job.ends_at if now is None else max(job.ends_at, now)
        forget_at = ended_at if job.fate == "Pending" else ended_at + self._retention
        heappush(self._finished, (forget_at, job.number, job))

    def active(self, now: float, model: str = "") -> int:
        """Jobs that have not reached their end; with a model's name, only that model's."""
        ends = self._ends.get(model, [])
        while ends and ends[0] <= now:
            heappop(ends)
        return len(ends)

    def by_id(self, now: float, job_id: str) -> Job | None:
        self._forget(now)
        return self._by_id.get(job_id)

    def by_path(self, now: float, path: str) -> Job | None:
        self._forget(now)
        return self._by_path.get(path)

    def _forget(self, now: float) -> None:
        due = self._finished
        while due and (due[0][0] <= now or len(due) > _MOST_KEPT):
            _, _, job = heappop(due)
            del self._by_id[job.id], self._by_path[job.path]
