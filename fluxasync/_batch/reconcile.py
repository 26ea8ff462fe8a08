"""`reconcile()`: submissions in doubt are matched with the account's tasks, and collected.

Everything is free: nothing is submitted. A match is durable before its image is collected, so a
call that was killed can be made again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import field, frozen

from .._core.account import Candidate
from .._core.arguments import check_type
from .._core.concurrency import run_to_completion
from .._core.errors import APIError, ConfigError, JournalError, SinkError, TransportError
from .._core.events import DoubtsSought
from .._core.models import Outcome
from .._engine.engine import Engine
from .._engine.pool import FluxPool, batch_engine_of
from .._engine.reconciliation import Decision, Doubt, NotListed, StillInDoubt
from .._engine.session import FluxSession
from .._store.audit.folder_status import require_journal
from .._store.audit.resolution import OfflineJournal
from .._store.bucket_state import RunLocation, located
from .._store.filenames import DEFAULT, FilenameTemplate
from .._store.journal.account_counts import AccountCounts
from .._store.journal.reader import expected
from .._store.object_sink import ObjectSink
from .._store.output_root import OutputRoot
from .account_search import AccountSearch, adopted, every
from .batch import Batch
from .output import Providers, places_of
from .settlement import check_tasks

logger = logging.getLogger("fluxasync")

#: seconds for candidates that still run; a Flux job takes up to about 100 s
PATIENCE = 120.0


@frozen(kw_only=True, repr=False)
class Reconciliation:
    """What became of the submissions in doubt of a folder; they are named by their keys."""

    adopted: Mapping[str, str] = field(factory=dict)  #: key → its job's id
    #: no task in the provider's list and no charge in its usage log, where it has one; they stay in
    #: doubt until a person decides
    not_listed: tuple[str, ...] = ()
    #: key → the jobs that it may be, the likeliest first
    in_doubt: Mapping[str, tuple[Candidate, ...]] = field(factory=dict)
    #: key → why it may be charged although no task is listed
    reasons: Mapping[str, str] = field(factory=dict)
    #: of the jobs that were collected: those adopted now, and those of earlier runs
    outcomes: tuple[Outcome, ...] = ()
    #: whether the account's list shows other jobs of the folder; False = it shows none of those
    #: submitted at that time, so it proves nothing; None = there were none, or nothing is in doubt;
    #: of several accounts: False if it is so of one of them
    lists_own: bool | None = None

    def __repr__(self) -> str:
        return (
            f"<Reconciliation {len(self.adopted)} adopted, {len(self.outcomes)} collected or "
            f"failed, {len(self.not_listed)} not listed, {len(self.in_doubt)} undecided>"
        )


async def reconcile(
    session: FluxSession | FluxPool,
    folder: str | os.PathLike[str],
    *,
    patience: float = PATIENCE,
    options: Mapping[str, str] | None = None,
) -> Reconciliation:
    """Find the jobs of a folder's submissions in doubt in the account, and collect their images.

    The account's tasks of that time are polled. A task is adopted if its poll proves that it is one
    submission's: by the prompt as it was sent, and the seed if one was sent; a model that rewrites
    prompts, by the seed. Equal requests are interchangeable. The rest stays in doubt. A submission
    without a task is not listed only if the usage log, where the provider has one, was read whole
    and has no charge that may be its own. Candidates that still run are waited for, and a look that
    failed is repeated, up to `patience` seconds. Nothing is submitted, all of it is free.

    `folder` is the run's, or the URL of one whose record is in its bucket; `options` are the
    bucket's: see ObjectSink.

    Of a FluxPool each account is looked into for its own submissions; one that cannot be asked
    while another can is left out, with a warning.

    Raises ConfigError for a folder without a journal, for a provider without a list of tasks and
    for a missing access token, Locked while a run is active there, and what `account.tasks` and
    `Batch` raise. What was adopted stays recorded.
    """
    check_type("session", session, FluxSession, FluxPool, expected="an open FluxSession")
    engine = batch_engine_of(session)
    engine.check_open()
    run = await located(folder, options)
    home = run.folder
    await asyncio.to_thread(_check, home, engine.providers)
    asked = _asked(engine.engines)
    deadline = asyncio.get_running_loop().time() + patience
    until = datetime.now(UTC) + timedelta(seconds=patience)

    def show(count: int) -> None:
        engine.observers.show(DoubtsSought(count=count, until=until))

    async with OfflineJournal(home, log=run.log) as journal:
        _warn_of_others(await journal.decisions.by_account(), asked)
        template = await journal.decisions.template()
        journal.decisions.stem_of = FilenameTemplate.parse(template or DEFAULT, columns=True).stem

        async def adopt(key: str, job_id: str) -> bool:
            return await adopted(journal, key, job_id) is not None

        searches = [
            AccountSearch(each, journal, place=each.provider.place, adopt=adopt) for each in asked
        ]
        try:
            await _look(searches, deadline, on_wait=show)
        finally:  # the lists are repaired by the next run if that fails
            with suppress(JournalError, SinkError):
                await run_to_completion(journal.project(keep_bad_rows=True, rewrite=True))
            await run_to_completion(run.publish())
        root = journal.root
        has_jobs = journal.counts.running > 0
    outcomes = await _collected(session, run, root, template, options) if has_jobs else ()
    return _result(searches, outcomes)


def _asked(engines: Sequence[Engine]) -> list[Engine]:
    """Return the accounts that can be asked. Of one that cannot while others can, its name and the
    reason are a warning. One session is always asked: its error says what is missing."""
    if len(engines) == 1:
        return list(engines)
    found, errors = [], []
    for engine in engines:
        try:
            check_tasks(engine)
            found.append(engine)
        except ConfigError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    for reason in errors:
        logger.warning("not looked into: %s", reason)
    return found


def _warn_of_others(accounts: Mapping[str, AccountCounts], asked: Sequence[Engine]) -> None:
    """Name the accounts with submissions in doubt that are not looked into."""
    known = {engine.name for engine in asked}
    if names := [name for name, each in accounts.items() if each.in_doubt and name not in known]:
        logger.warning(
            "images in doubt of the accounts %s are not looked for: give all accounts "
            "(--accounts FILE, in Python a FluxPool)", ", ".join(names),
        )  # fmt: skip


async def _look(
    searches: Sequence[AccountSearch], deadline: float, *, on_wait: Callable[[int], None]
) -> None:
    """Look into all accounts at the same time. Raises the first error if all fail; else the error
    of an account is a warning."""
    looks = (
        each.look_until(
            deadline, every, worth_waiting=_is_waiting, on_wait=on_wait, on_failure=_once(_warn)
        )
        for each in searches
    )
    ends = await asyncio.gather(*looks, return_exceptions=True)
    for search, end in zip(searches, ends, strict=True):
        if isinstance(end, APIError | TransportError) and None in ends:
            logger.warning("account %s could not be looked into: %s", search.name, end)
        elif end is not None:
            raise end


def _result(searches: Sequence[AccountSearch], outcomes: tuple[Outcome, ...]) -> Reconciliation:
    left = {key: found for search in searches for key, found in search.left.items()}
    doubts = {key: found for key, found in left.items() if isinstance(found, StillInDoubt)}
    candidates = {key: each for search in searches for key, each in search.candidates.items()}
    lists_own = {search.lists_own for search in searches}
    return Reconciliation(
        adopted={key: job_id for search in searches for key, job_id in search.adopted.items()},
        not_listed=tuple(key for key, found in left.items() if isinstance(found, NotListed)),
        in_doubt={key: candidates.get(key, ()) for key in doubts},
        reasons={key: found.reason for key, found in doubts.items() if found.reason is not None},
        outcomes=outcomes,
        lists_own=next((each for each in (False, True) if each in lists_own), None),
    )


def _check(folder: Path, providers: Providers) -> None:
    """Refuse a folder in which a run of these accounts would be refused, before it is locked."""
    require_journal(folder)
    expected(folder, **places_of(providers), retry=())


def _warn(error: Exception) -> None:
    logger.warning("the account gave no answer, and is asked again for a while: %s", error)


def _once(call: Callable[[Exception], None]) -> Callable[[Exception], None]:
    calls = iter((call,))
    return lambda error: next(calls, lambda _: None)(error)


def _is_waiting(doubt: Doubt, decision: Decision) -> bool:
    return isinstance(decision, StillInDoubt) and decision.is_waiting


async def _collected(
    session: FluxSession | FluxPool,
    run: RunLocation,
    root: OutputRoot,
    template: str | None,
    options: Mapping[str, str] | None,
) -> tuple[Outcome, ...]:
    """Collect the jobs of the folder, as a run without prompts."""
    output: dict[str, Any] = {"out": root.folder}
    if root.url:
        state = None if run.log else run.folder
        output = {"out": ObjectSink(root.url, options=options), "state": state}
    batch = Batch(session, [], **output, name=template, reconcile="never")
    async with batch:
        return tuple([outcome async for outcome in batch])
