"""Looks in the account for the jobs of submissions in doubt, and records what is certain.

One look: list the account's tasks of that time, poll those that may be the jobs, decide. Everything
is free. `reconcile` looks into a folder at rest, `settlement` during a run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from attrs import asdict, field, frozen

from .._core.account import Candidate, TaskList
from .._core.concurrency import run_to_completion
from .._core.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    FluxError,
    JournalError,
    TransportError,
)
from .._core.models import Job
from .._engine.charge_evidence import EARLIER, LATER, ChargeEvidence
from .._engine.reconciliation import (
    Adopt,
    Decision,
    Doubt,
    KnownJob,
    NotListed,
    StillInDoubt,
    decide,
    to_poll,
)
from .._engine.task_proof import candidate, is_open
from .._wire import JobNotFound, PollResult
from .bill.doubtful_charges import accepted, charge_evidence, time_of_charges

if TYPE_CHECKING:
    from .._engine.engine import Engine
    from .._store.journal.journal import Journal

logger = logging.getLogger("fluxasync")

#: candidates that one look polls; submissions near the others stay in doubt
MOST_POLLED = 20_000
#: polls at the same time
_AT_ONCE = 8
#: seconds before the second look, unless the session polls at another interval; and by how much the
#: time between looks grows, up to how many times the first
_INTERVAL, _GROWTH, _MOST = 2.0, 1.5, 5.0

#: seconds in which a job is polled again that a provider without a list does not know
_REGIONAL = 5.0

#: failed looks in a row after which a search ends before its deadline
_TRIES = 20
#: seconds after a submission in which its task may be missing in the list
LISTED_LATE = 60.0

#: adopts a job for the submission of this key; false where that cannot be
AdoptJob = Callable[[str, str], Awaitable[bool]]
Chosen = Callable[[Doubt], bool]


@frozen(kw_only=True)
class Left:
    """The submissions that a look left in doubt."""

    doubts: dict[str, Doubt] = field(factory=dict)  #: all that it was about, by key
    decisions: dict[str, StillInDoubt | NotListed] = field(factory=dict)


async def adopted(journal: Journal, key: str, job_id: str) -> Job | None:
    """Record which job a submission in doubt became; return the job. None = the image is not in
    doubt any more, or the job is another image's. Raises JournalError if nothing can be recorded.
    """
    try:
        return await journal.decisions.adopt(key, job_id)
    except (ConfigError, JournalError) as error:
        if not journal.is_kept:
            raise
        logger.info("job %s is not adopted: %s", job_id, error)
        return None


class AccountSearch:
    """The looks into one account for one journal; remembers answers that are final. `place` is the
    provider and the origin of the submissions; of several accounts, only the own submissions are
    looked for."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        *,
        place: tuple[str, str],
        adopt: AdoptJob,
    ) -> None:
        self._engine, self._account = engine, engine.account
        self.name = engine.name  #: of the account, where there are several
        self._journal, self._place = journal, place
        self._adopt = adopt
        self._answers: dict[str, PollResult] = {}
        self._unknown_since: dict[str, float] = {}  # job id → loop time
        #: the candidates that are recorded; None = to be read
        self._marked: dict[str, tuple[Candidate, ...]] | None = None
        self.has_listed = False  #: the account has answered
        self.adopted: dict[str, str] = {}  #: key → job id
        #: the latest decision about each submission that is in doubt still, by key
        self.left: dict[str, StillInDoubt | NotListed] = {}
        #: the jobs that each of those may be
        self.candidates: dict[str, tuple[Candidate, ...]] = {}
        #: whether the latest list shows jobs of the journal; None = it has none of that time
        self.lists_own: bool | None = None

    @property
    def has_list(self) -> bool:
        """Whether the provider lists the account's tasks; else only an id can be proved."""
        return self._account.has_list

    @property
    def sought(self) -> int:
        """The number of submissions that were looked for."""
        return len(self.left.keys() | self.adopted.keys())

    async def look_until(
        self,
        deadline: float,
        chosen: Chosen,
        *,
        worth_waiting: Callable[[Doubt, Decision], bool],
        on_wait: Callable[[int], None] | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        """Look for the chosen submissions in doubt; look again for those that are worth it, until
        the deadline (loop time). A look that fails is repeated within that time. `on_wait` is
        called before each wait, with their number, `on_failure` before a repetition. Raises what
        `look` raises."""
        interval = self._engine.policies.polling.interval
        pause = first = _INTERVAL if interval is None else interval
        failed, keys = 0, set[str]()
        while True:
            time_left = deadline - asyncio.get_running_loop().time()
            try:
                left = await self.look(chosen)
            except (APIError, TransportError) as error:
                failed += 1
                is_final = isinstance(error, AuthenticationError) or failed == _TRIES
                if is_final or time_left <= 0:
                    raise
                if on_failure is not None:
                    on_failure(error)
            else:
                failed = 0
                keys = {
                    key
                    for key, found in left.decisions.items()
                    if worth_waiting(left.doubts[key], found)
                }
                if not keys or time_left <= 0:
                    return
                chosen = _among(keys)
                if on_wait is not None:
                    on_wait(len(keys))
            await asyncio.sleep(max(0.0, min(pause, time_left)))
            pause = min(pause * _GROWTH, first * _MOST)

    async def look(self, chosen: Chosen) -> Left:
        """Look once for the chosen submissions in doubt, and for those of the same times; record
        what was decided. Raises what `account.tasks` raises, and JournalError."""
        doubts = await self.doubts()
        spans = [span for span in _spans(doubts) if any(map(chosen, span))]
        about = {doubt.key: doubt for span in spans for doubt in span}
        if not about:
            return Left()
        listed = await self._listed(spans)
        self.has_listed = True
        # a task may be of a POST that is not answered yet: its answer is recorded first
        await self._engine.drain()
        decisions = await self._decided(listed, about=about.values())
        own = [found for found in decisions if found.key in about]
        await run_to_completion(self._record(own, about))
        left = {found.key: found for found in own if not isinstance(found, Adopt)}
        return Left(doubts=about, decisions=left)

    async def doubts(self) -> list[Doubt]:
        lost = await self._journal.decisions.lost_submissions(*self._place, self.name)
        return [Doubt(**asdict(each, recurse=False)) for each in lost]

    async def _listed(self, spans: Sequence[Sequence[Doubt]]) -> TaskList:
        """Return the account's tasks of the times of these submissions."""
        if not self._account.has_list:
            if any(doubt.candidate is not None for span in spans for doubt in span):
                return TaskList(tasks=(), is_complete=False)  # its id can be proved
            raise ConfigError(
                f"{self._place[0]} has no list of tasks, and no broken answer has a job id: look "
                "at its dashboard, then decide with a job id, a resubmission, or a drop"
            )
        lists = [
            await self._account.tasks(
                since=span[0].begun_at - EARLIER, until=span[-1].begun_at + LATER
            )
            for span in spans
        ]
        tasks = {task.job_id: task for listed in lists for task in listed.tasks}
        is_complete = all(listed.is_complete for listed in lists)
        return TaskList(tasks=tuple(tasks.values()), is_complete=is_complete)

    async def _decided(self, listed: TaskList, *, about: Collection[Doubt]) -> list[Decision]:
        """Decide about all submissions in doubt. What the list lacks is not listed only if the
        usage log, where there is one, has no charge for it either."""
        doubts = await self.doubts()
        known = await self._known(doubts, listed)
        self.lists_own = await self._lists_own(about, listed, known)
        answers = await self._answered(doubts, listed, known)
        now = datetime.now(UTC)
        # matching thousands takes seconds, in which the loop goes on
        decisions = await asyncio.to_thread(decide, doubts, listed, answers, known, now)
        keys = {doubt.key for doubt in about}
        self._describe((each for each in decisions if each.key in keys), doubts, listed, answers)
        undecided = {doubt.key for doubt in doubts if not doubt.is_again}
        unlisted = {
            found.key
            for found in decisions
            if isinstance(found, NotListed) and found.key in undecided
        }
        if not (unlisted and self._account.has_log):
            return decisions
        adopts = {found.key: found for found in decisions if isinstance(found, Adopt)}
        found_now = [doubt for doubt in doubts if doubt.key in adopts]
        charges = await self._charges([each for each in doubts if each.key in unlisted], found_now)
        known |= {
            adopts[doubt.key].job_id: KnownJob(
                model=doubt.request.model, submitted_at=doubt.begun_at
            )
            for doubt in found_now
        }
        left = [doubt for doubt in doubts if doubt.key not in adopts]
        again = await asyncio.to_thread(decide, left, listed, answers, known, now, charges)
        return [*adopts.values(), *again]

    async def _answered(
        self, doubts: Sequence[Doubt], listed: TaskList, known: Mapping[str, KnownJob]
    ) -> dict[str, PollResult]:
        """Poll what may prove something, and keep the answers that are final."""
        wanted = (await asyncio.to_thread(to_poll, doubts, listed, known))[:MOST_POLLED]
        final = {job_id: self._answers[job_id] for job_id in wanted if job_id in self._answers}
        polled = await self._polled(job_id for job_id in wanted if job_id not in final)
        answers = final | {
            job_id: each for job_id, each in polled.items() if not self._is_early(job_id, each)
        }
        self._answers = {job_id: each for job_id, each in answers.items() if not is_open(each)}
        return answers

    async def _charges(
        self, unlisted: Sequence[Doubt], found_now: Sequence[Doubt]
    ) -> ChargeEvidence:
        """Return what the usage log shows about submissions that the list lacks; `found_now` have
        a job that the journal does not have yet."""
        here = [
            group
            for group in await self._journal.decisions.submissions()
            if (group.place, group.account) == (self._place, self.name)
        ]
        jobs = accepted(here, [(each.request.model, each.begun_at) for each in found_now])
        time = time_of_charges(jobs, [doubt.begun_at for doubt in unlisted])
        try:
            log = await self._account.usage(since=time[0], until=time[1])
        except FluxError as error:
            return ChargeEvidence(missing=f"the usage log could not be read: {error}")
        names = {name for entry in log.entries for name in entry.names}
        named = await self._journal.decisions.jobs_named(names)
        return await asyncio.to_thread(charge_evidence, jobs, log, named, time=time)

    def _describe(
        self,
        decisions: Iterable[Decision],
        doubts: Iterable[Doubt],
        listed: TaskList,
        answers: Mapping[str, PollResult],
    ) -> None:
        """Note what is known of the candidates of what stays in doubt."""
        requests = {doubt.key: doubt.request for doubt in doubts}
        tasks = {task.job_id: task for task in listed.tasks}
        self.candidates |= {
            found.key: tuple(
                candidate(requests[found.key], job_id, tasks.get(job_id), answers.get(job_id))
                for job_id in found.candidates
            )
            for found in decisions
            if isinstance(found, StillInDoubt)
        }

    async def _lists_own(
        self, about: Collection[Doubt], listed: TaskList, known: Mapping[str, KnownJob]
    ) -> bool | None:
        """Return whether the list shows a job of the journal; None = there is none of this time, or
        it may be too new."""
        if not self._account.has_list:
            return None
        if any(task.job_id in known and known[task.job_id].is_own for task in listed.tasks):
            return True
        late = datetime.now(UTC) - timedelta(seconds=LISTED_LATE)
        for span in _spans(about):
            since, until = span[0].begun_at - EARLIER, min(span[-1].begun_at + LATER, late)
            if await self._journal.decisions.has_jobs(self._place, self.name, since, until):
                return False
        return None

    def _is_early(self, job_id: str, answer: PollResult) -> bool:
        """Whether an unknown job may be known soon. Without a list it is often another region's,
        which is never known here."""
        if not isinstance(answer, JobNotFound):
            return False
        now = asyncio.get_running_loop().time()
        since = self._unknown_since.setdefault(job_id, now)
        grace = self._engine.policies.retry.not_found_grace
        return now - since < (grace if self._account.has_list else min(grace, _REGIONAL))

    async def _known(self, doubts: Sequence[Doubt], listed: TaskList) -> dict[str, KnownJob]:
        job_ids = {task.job_id for task in listed.tasks}
        job_ids |= {doubt.candidate for doubt in doubts if doubt.candidate is not None}
        found = await self._journal.decisions.jobs_among(job_ids)
        return {
            job_id: KnownJob(model=model, submitted_at=at, is_own=account == self.name)
            for job_id, (model, at, account) in found.items()
        }

    async def _polled(self, job_ids: Iterable[str]) -> dict[str, PollResult]:
        """Poll each job once, at the session's pace."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def poll(job_id: str) -> tuple[str, PollResult]:
            async with places:
                return job_id, await self._engine.poller.poll_in_turn(Job(job_id=job_id))

        tasks = [asyncio.create_task(poll(job_id)) for job_id in job_ids]
        try:
            return dict(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _record(self, decisions: Iterable[Decision], about: Mapping[str, Doubt]) -> None:
        """Make the decisions durable. Of an image that is to be submitted again only its job is
        recorded: the user has decided about the rest."""
        for decision in decisions:
            is_again = about[decision.key].is_again
            if is_again and not isinstance(decision, Adopt):
                continue
            match decision:
                case Adopt(key=key, job_id=job_id):
                    if await self._adopt(key, job_id):
                        self.adopted[key] = job_id
                        self.left.pop(key, None)
                    elif not is_again:  # settled meanwhile, or the job is another image's
                        self.left[key] = StillInDoubt(key=key)
                case NotListed(key=key):
                    await self._journal.decisions.mark(key, is_unlisted=True)
                    if self._marked is not None:
                        self._marked.pop(key, None)
                    self.left[key] = decision
                case StillInDoubt(key=key, reason=reason):
                    await self._mark(key, may_be_charged=reason is not None)
                    self.left[key] = decision

    async def _mark(self, key: str, *, may_be_charged: bool) -> None:
        """Keep the candidates of a submission, where they are others than at the last look."""
        if self._marked is None:
            self._marked = await self._journal.decisions.candidates()
        found = self.candidates.get(key, ())
        if may_be_charged or found != self._marked.get(key, ()):
            listed = False if found or may_be_charged else None
            await self._journal.decisions.mark(key, is_unlisted=listed, candidates=found)
            self._marked[key] = found


def every(doubt: Doubt) -> bool:
    return True


def _among(keys: Collection[str]) -> Chosen:
    return lambda doubt: doubt.key in keys


def _spans(doubts: Iterable[Doubt]) -> list[list[Doubt]]:
    """Return the submissions by time: those of two spans have no listed task in common."""
    spans: list[list[Doubt]] = []
    for doubt in sorted(doubts, key=lambda each: each.begun_at):
        if spans and doubt.begun_at - EARLIER <= spans[-1][-1].begun_at + LATER:
            spans[-1].append(doubt)
        else:
            spans.append([doubt])
    return spans
