"""`reconcile()`: submissions in doubt are matched with the account's tasks, and collected.

Everything is free: nothing is submitted. A match is durable before its image is collected, so a
call that was killed can be made again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from attrs import asdict, field, frozen

from .._core.account import TaskList
from .._core.arguments import check_type, local_path
from .._core.concurrency import run_to_completion
from .._core.errors import JournalError, SinkError
from .._core.models import Job, Outcome
from .._engine.engine import Engine
from .._engine.reconciliation import (
    EARLIER,
    LATER,
    Adopt,
    Decision,
    Doubt,
    KnownJob,
    NotListed,
    StillInDoubt,
    decide,
    to_poll,
)
from .._engine.session import FluxSession, engine_of
from .._engine.task_proof import is_open
from .._store.audit.folder_status import require_journal
from .._store.audit.resolution import OfflineJournal
from .._store.journal.reader import expected
from .._wire import PollResult
from .batch import Batch
from .output import place_of

#: seconds for candidates that still run; a Flux job takes up to about 100 s
PATIENCE = 120.0
#: candidates that one call polls; submissions near the others stay in doubt
MOST_POLLED = 20_000
#: polls at the same time
_AT_ONCE = 8
#: seconds between two polls of a job that still runs, unless the session has an interval
_INTERVAL = 3.0


@frozen(kw_only=True)
class Reconciliation:
    """What became of the submissions in doubt of a folder; they are named by their keys."""

    adopted: Mapping[str, str] = field(factory=dict)  #: key → its job's id
    #: not charged, by the provider's list; they stay in doubt until a person decides
    not_listed: tuple[str, ...] = ()
    #: key → the ids of the jobs that it may be, the likeliest first
    in_doubt: Mapping[str, tuple[str, ...]] = field(factory=dict)
    #: of the jobs that were collected: those adopted now, and those of earlier runs
    outcomes: tuple[Outcome, ...] = ()


async def reconcile(
    session: FluxSession, folder: str | os.PathLike[str], *, patience: float = PATIENCE
) -> Reconciliation:
    """Find the jobs of a folder's submissions in doubt in the account, and collect their images.

    The account's tasks of that time are polled. A task is adopted if its poll proves that it is one
    submission's: by the prompt as it was sent, and the seed if one was sent; a model that rewrites
    prompts, by the seed. Equal requests are interchangeable. The rest stays in doubt. Candidates
    that still run are waited for, up to `patience` seconds. Nothing is submitted, all of it is
    free.

    Raises ConfigError for a folder without a journal, for a provider without a list of tasks and
    for a missing access token, Locked while a run is active there, and what `account.tasks` and
    `Batch` raise. What was adopted stays recorded.
    """
    check_type("session", session, FluxSession, expected="an open FluxSession")
    home, engine = local_path("folder", folder), engine_of(session)
    engine.check_open()
    await asyncio.to_thread(_check, home, engine)
    async with OfflineJournal(home) as journal:
        decisions = await _decided(session, journal, patience)
        await run_to_completion(_record(journal, decisions))
        has_jobs, template = journal.counts.running > 0, await journal.template()
    outcomes = await _collected(session, home, template) if has_jobs else ()
    return Reconciliation(
        adopted={each.key: each.job_id for each in decisions if isinstance(each, Adopt)},
        not_listed=tuple(each.key for each in decisions if isinstance(each, NotListed)),
        in_doubt={
            each.key: each.candidates for each in decisions if isinstance(each, StillInDoubt)
        },
        outcomes=outcomes,
    )


def _check(folder: Path, engine: Engine) -> None:
    """Refuse a folder in which a run of this provider would be refused, before it is locked."""
    require_journal(folder)
    expected(folder, **place_of(engine.provider), retry=())


async def _decided(
    session: FluxSession, journal: OfflineJournal, patience: float
) -> list[Decision]:
    """List the account's tasks, poll the candidates and decide; polls again what still runs."""
    engine = engine_of(session)
    place = place_of(engine.provider)
    lost = await journal.lost_submissions(place["provider"], place["origin"])
    if not lost:
        return []
    doubts = [Doubt(**asdict(each, recurse=False)) for each in lost]
    listed = await _listed(session, doubts)
    known = await _known(journal, doubts, listed)
    # matching thousands takes seconds, in which the loop goes on
    wanted = (await asyncio.to_thread(to_poll, doubts, listed, known))[:MOST_POLLED]
    answers: dict[str, PollResult] = {}
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        running = [job_id for job_id in wanted if is_open(answers.get(job_id))]
        answers |= await _polled(engine, running)
        decisions = await asyncio.to_thread(
            decide, doubts, listed, answers, known, datetime.now(UTC)
        )
        is_waiting = any(map(is_open, answers.values())) and any(map(_is_waiting, decisions))
        if not is_waiting or asyncio.get_running_loop().time() >= deadline:
            return decisions
        interval = session.polling.interval
        await asyncio.sleep(_INTERVAL if interval is None else interval)


async def _listed(session: FluxSession, doubts: Sequence[Doubt]) -> TaskList:
    """Return the account's tasks of the time of these submissions."""
    has_list = engine_of(session).provider.tasks_path is not None
    if not has_list and any(doubt.candidate is not None for doubt in doubts):
        return TaskList(tasks=(), is_complete=False)  # an id in a broken answer can be proved
    return await session.account.tasks(
        since=min(each.begun_at for each in doubts) - EARLIER,
        until=max(each.begun_at for each in doubts) + LATER,
    )


def _is_waiting(decision: Decision) -> bool:
    return isinstance(decision, StillInDoubt) and decision.is_waiting


async def _known(
    journal: OfflineJournal, doubts: Sequence[Doubt], listed: TaskList
) -> dict[str, KnownJob]:
    job_ids = {task.job_id for task in listed.tasks}
    job_ids |= {doubt.candidate for doubt in doubts if doubt.candidate is not None}
    found = await journal.jobs_among(job_ids)
    return {
        job_id: KnownJob(model=model, submitted_at=submitted_at)
        for job_id, (model, submitted_at) in found.items()
    }


async def _polled(engine: Engine, job_ids: Iterable[str]) -> dict[str, PollResult]:
    """Poll each job once, at the session's pace."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def poll(job_id: str) -> tuple[str, PollResult]:
        async with places:
            return job_id, await engine.poller.poll_in_turn(Job(job_id=job_id))

    tasks = [asyncio.create_task(poll(job_id)) for job_id in job_ids]
    try:
        return dict(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _record(journal: OfflineJournal, decisions: Iterable[Decision]) -> None:
    """Make the decisions durable; the lists are repaired by the next run if that fails."""
    for decision in decisions:
        match decision:
            case Adopt(key=key, job_id=job_id):
                await journal.give_job(key, job_id)
            case NotListed(key=key):
                await journal.mark(key, is_unlisted=True)
            case StillInDoubt(key=key, candidates=candidates) if candidates:
                await journal.mark(key, is_unlisted=False)
    with suppress(JournalError, SinkError):
        await journal.project(keep_bad_rows=True, rewrite=True)


async def _collected(
    session: FluxSession, folder: Path, template: str | None
) -> tuple[Outcome, ...]:
    """Collect the jobs of the folder, as a run without prompts."""
    async with Batch(session, [], out=folder, name=template) as batch:
        return tuple([outcome async for outcome in batch])
