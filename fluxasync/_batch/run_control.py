"""What another program may ask a run while it lasts: pause, resume, slots, cap, and its state.

A pause holds submissions; paid jobs land. Nothing here outlives the run: the next one begins
running, with the limits and the cap of its own command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from .._core.amounts import dollars
from .._core.config import Budget, Limits
from .._core.errors import ConfigError, cut
from .._core.events import JobEnded, JobReady, JobSubmitted, JobUnclaimed
from .._core.text import counted
from .._engine.pool import FluxPool, batch_engine_of

if TYPE_CHECKING:
    from .._core.models import Job
    from .._engine.engine import Engine
    from .._engine.session import FluxSession
    from .batch import Batch
    from .progress.counts import Progress, ProgressSnapshot

#: holds submissions
_BY = "user"
_HELD = "paused by fluxasync ctl; to go on: fluxasync ctl DIR resume"
#: jobs in a state, the oldest first
_SHOWN = 200
#: characters of a prompt in a state
_LONGEST_PROMPT = 200


@frozen
class _ShownJob:
    job: Job
    since: float  #: loop time
    is_ready: bool = False


class RunControl:
    """Answers requests about one open batch. `refusal` is why nothing can be changed, "" = it can:
    a run on a cluster is only looked at."""

    def __init__(
        self,
        session: FluxSession | FluxPool,
        batch: Batch,
        progress: Progress,
        *,
        refusal: str = "",
    ) -> None:
        self._engine = batch_engine_of(session)
        self._is_pool = isinstance(session, FluxPool)
        self._batch, self._progress, self._refusal = batch, progress, refusal
        self._jobs: dict[str, _ShownJob] = {}
        self._actions = {
            "pause": self._pause,
            "resume": self._resume,
            "limit": self._limit,
            "budget": self._budget,
        }

    def __call__(self, event: object) -> None:
        """Follow the jobs in flight, as an observer of the session."""
        match event:
            case JobSubmitted(job=job):
                self._jobs[job.job_id] = _ShownJob(job, _now())
            case JobReady(job=job):
                known = self._jobs.get(job.job_id)
                self._jobs[job.job_id] = _ShownJob(job, known.since if known else _now(), True)
            case JobEnded(job=job) | JobUnclaimed(job=job):
                self._jobs.pop(job.job_id, None)

    def watch(self) -> Any:
        """Follow the session's events; return what ends that."""
        return self._engine.observers.add(self)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is asked; return an answer for JSON: `ok`, and `said` or `error` or `top`."""
        action = request.get("do")
        if action == "top":
            return {"ok": True, "top": self.state()}
        if action not in self._actions:
            known = ", ".join((*self._actions, "top"))
            return _refused(f"this run knows {known}, and not {cut(repr(action))}")
        if self._refusal:
            return _refused(self._refusal)
        try:
            return {"ok": True, "said": self._actions[action](request)}
        except ConfigError as error:
            return _refused(str(error))

    # --- what changes a run ---------------------------------------------------------------------

    def _pause(self, request: Mapping[str, Any]) -> str:
        for engine in self._engine.engines:
            engine.limiter.hold(_BY)
        self._progress.held = _HELD
        jobs = counted(self._progress.under_way, "paid job")
        return f"paused: nothing more is submitted; {jobs} may land"

    def _resume(self, request: Mapping[str, Any]) -> str:
        self._progress.held = None
        for engine in self._engine.engines:
            engine.limiter.resume(_BY)
        return "running"

    def _limit(self, request: Mapping[str, Any]) -> str:
        engine = self._account(request, needed=True)
        given = request.get("in_flight")
        if isinstance(given, bool) or not isinstance(given, int | str):
            raise ConfigError("limit: a number of jobs, or auto")
        engine.set_limits(evolve(engine.policies.limits, in_flight=Limits.of(given).in_flight))  # type: ignore[arg-type]  # checked by Limits
        self._progress.slots = self._engine.slots
        self._progress.limit = None
        which = f" of account {engine.name}" if engine.name else ""
        jobs = counted(self._progress.under_way, "job")
        return f"{counted(engine.slots, 'slot')}{which}; {jobs} under way"

    def _budget(self, request: Mapping[str, Any]) -> str:
        given = request.get("max_cost")
        cap = Budget.of(given if given is None else str(given)).max_cost
        account = self._account(request) if request.get("account") is not None else None
        spending = self._engine.spending if account is None else account.spending
        estimate = self._batch.estimate
        if cap is not None and estimate is not None and estimate.unpriced:
            raise ConfigError("a model of unknown price cannot run under a cap")
        spending.set_cap(cap)
        self._expect(estimate)
        taken = spending.spent + spending.reserved + spending.in_doubt
        if cap is None:
            return f"no cap; {dollars(taken)} spent"
        if taken >= cap:
            return (
                f"a cap of {dollars(cap)}, and {dollars(taken)} are spent or reserved: the run "
                "ends when its paid jobs have landed"
            )
        return f"a cap of {dollars(cap)}, of which {dollars(cap - taken)} are left"

    def _expect(self, estimate: Any) -> None:
        """Show the total that the cap now pays for."""
        progress, plan = self._progress, self._batch.plan
        if estimate is None or plan is None or plan.to_do is None:
            return
        whole = progress.view(_now())
        begun = whole.ended + whole.under_way
        affordable = estimate.within(self._engine.budget_left).images
        earlier = 0 if self._batch.recovered is None else self._batch.recovered.running
        progress.total = min(plan.to_do + earlier, begun + affordable)

    def _account(self, request: Mapping[str, Any], *, needed: bool = False) -> Engine:
        named = request.get("account")
        engines = {engine.name: engine for engine in self._engine.engines}
        if not self._is_pool:
            if named is not None:
                raise ConfigError("this run has one account: leave --account out")
            return engines[""]
        if named not in engines:
            known = " or ".join(map(cut, engines))
            raise ConfigError(f"which account? --account {known}")
        return engines[named]

    # --- what it shows --------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the run at this moment as JSON values; money in US dollars, times in seconds."""
        now = _now()
        view = self._progress.view(now)
        limiters = [engine.limiter for engine in self._engine.engines]
        return {
            "state": "paused" if self._progress.held is not None else "running",
            "waits_for": view.pause if self._progress.held is None else None,
            "trouble": view.trouble,
            "images": _images(view),
            "slots": {
                "used": view.running if self._refusal else sum(each.in_flight for each in limiters),
                "limit": view.slots if self._refusal else self._engine.slots,
                "waiting": sum(each.waiting for each in limiters),
                "workers": view.workers,
            },
            "pace": {
                "images_per_minute": None if view.rate is None else round(60 * view.rate, 2),
                "eta": view.eta,
                "idle_seconds": round(view.idle, 1),
                "push_backs": view.push_backs,
            },
            "spend": self._spend(view),
            "accounts": [
                self._of_account(engine) for engine in self._engine.engines if engine.name
            ],
            "jobs": [_job(each, now) for each in list(self._jobs.values())[:_SHOWN]],
            "more_jobs": max(0, len(self._jobs) - _SHOWN),
        }

    def _spend(self, view: ProgressSnapshot) -> dict[str, Any]:
        spending, left = self._engine.spending, self._engine.budget_left
        parts = {"spent": spending.spent, "reserved": spending.reserved}
        parts |= {"in_doubt": spending.in_doubt}
        return {
            "images": None if view.cost is None else float(view.cost),
            **{name: float(amount) for name, amount in parts.items()},
            "cap": _float(self._engine.max_cost),
            "left": _float(left),
        }

    @staticmethod
    def _of_account(engine: Engine) -> dict[str, Any]:
        return {
            "name": engine.name,
            "used": engine.limiter.in_flight,
            "limit": engine.slots,
            "waits": engine.limiter.is_waiting,
            "spent": float(engine.spending.spent),
            "cap": _float(engine.spending.max_cost),
        }


def _images(view: ProgressSnapshot) -> dict[str, Any]:
    return {
        "total": view.total,
        "already_there": view.already,
        "saved": view.saved,
        "failed": dict(view.failed),
        "in_doubt": view.in_doubt,
        "running": view.running,
        "downloading": view.downloading,
        "waiting": view.waiting,
    }


def _job(shown: _ShownJob, now: float) -> dict[str, Any]:
    job = shown.job
    request = job.request
    return {
        "job_id": job.job_id,
        "model": job.model,
        "account": job.account,
        "seconds": round(now - shown.since, 1),
        "state": "downloading" if shown.is_ready else "running",
        "prompt": "" if request is None else request.prompt[:_LONGEST_PROMPT],
    }


def _float(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)


def _refused(reason: str) -> dict[str, Any]:
    return {"ok": False, "error": reason}


def _now() -> float:
    return asyncio.get_running_loop().time()
