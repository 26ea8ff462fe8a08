"""What a run does with submissions in doubt: their jobs are found, recorded, and collected.

A job that is found for a submission goes one way, whoever finds it: the journal records it, its
money moves from "in doubt" to "spent", and its image is collected as a job of an earlier run is.
The account is looked into beside the run, and once more at its end; of several accounts each is
looked into for its own submissions. That one cannot be asked never fails a run: there is one
warning, and the submissions stay in doubt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from .._core.arguments import described
from .._core.concurrency import run_to_completion
from .._core.errors import AuthenticationError, ConfigError, JournalError
from .._core.events import DoubtsSought, JobAdopted
from .._core.models import ImageRequest, Job
from .._engine.reconciliation import Decision, Doubt, StillInDoubt
from .account_search import LISTED_LATE, AccountSearch, adopted

if TYPE_CHECKING:
    from .._engine.batch_engine import BatchEngine
    from .._engine.engine import Engine
    from .._store.journal.journal import Journal
    from .outcome_queue import OutcomeQueue
    from .output import Destination
    from .resumed_jobs import ResumedJobs
    from .summary import Count

logger = logging.getLogger("fluxasync")

Reconcile = Literal["never", "auto", "always"]

#: seconds between two looks beside a run
_BETWEEN = 180.0
#: seconds after which a task is usually listed and its job ended, and after which neither is
#: expected any more; a task that is not listed is then known to be missing
_LISTED, _OVER = 90.0, 900.0
#: seconds that the end of a run waits for candidates that still run: a Flux job takes up to 100 s
PATIENCE = 120.0
#: seconds that the end of a stopped or failed run has for one look
_HURRIED = 10.0


def check_mode(mode: str, *, destination: Destination) -> Reconcile:
    """Return the mode; "never" without a journal. Raises ConfigError for another word, and for
    "always" without a journal."""
    if mode not in ("never", "auto", "always"):
        raise ConfigError(f"reconcile: 'never', 'auto' or 'always', not {described(mode)}")
    if destination.journal_folder is not None:
        return cast("Reconcile", mode)
    if mode == "always":
        raise ConfigError("reconcile='always' needs the journal of a folder: give `out`")
    return "never"


def accounts_to_ask(engines: Sequence[Engine], mode: Reconcile) -> list[Engine]:
    """Return the accounts that a run looks into. Raises ConfigError where it must and cannot."""
    if mode == "never":
        return []
    if mode == "always":
        for engine in engines:
            check_tasks(engine)
    # without a list, the id in a broken answer can be proved
    return [each for each in engines if each.account.has_tasks or not each.account.has_list]


def check_tasks(engine: Engine) -> None:
    """Raise ConfigError, with its name, for an account whose list of tasks cannot be asked for."""
    try:
        engine.account.check_tasks()
    except ConfigError as error:
        if engine.name:
            raise ConfigError(f"account {engine.name}: {error}") from error
        raise


class DoubtSettler:
    """Settles the submissions in doubt of one batch; owns its tasks until `cut`."""

    def __init__(
        self,
        engine: BatchEngine,
        journal: Journal,
        *,
        asked: Sequence[Engine],
        jobs: ResumedJobs,
        count: Count,
        outcomes: OutcomeQueue,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._jobs = jobs
        self._count = count
        self._outcomes = outcomes
        self._searches = [
            AccountSearch(each, journal, place=each.provider.place, adopt=self.adopt)
            for each in asked
        ]  # of the accounts that are asked
        self._warned: set[str] = set()  # names of accounts
        self._is_hurried = self._is_cut = False
        self._resubmits = self._has_looked_first = False
        self._began = asyncio.get_running_loop().time()
        self._began_at = datetime.now(UTC)  # the same instant
        self._lost: dict[str, float] = {}  # key → loop time when its answer was lost, of this run
        self._looking: asyncio.Task[None] | None = None
        self._passing_on: set[asyncio.Task[None]] = set()

    # --- a job that is found --------------------------------------------------------------------

    async def adopt(self, key: str, job_id: str, *, by_callback: bool = False) -> bool:
        """Record that the submission in doubt of this key became this job, and collect its image.

        Durable on return. Returns false, and changes nothing, for an image that is not in doubt,
        and for the job of another image. Raises JournalError where nothing can be recorded.
        """
        return await run_to_completion(self._adopt(key, job_id, by_callback))

    async def _adopt(self, key: str, job_id: str, by_callback: bool) -> bool:
        was_written_off = await self._journal.decisions.is_again(key)
        if was_written_off and self._has_looked_first:
            return False  # it is being submitted again
        if self._resubmits and await self._journal.decisions.is_unlisted(key):
            return False  # as above
        job = await adopted(self._journal, key, job_id)
        if job is None:
            return False
        assert job.request is not None  # noqa: S101 — read from the journal
        if not was_written_off:  # else it counts as spent already
            self._engine.adopt_job(job)
        has_row = self._count.adopt(key, by_callback=by_callback)
        self._engine.observers.show(JobAdopted(job=job))
        if has_row and not self._is_cut:  # else the row passes it on, or the end of the run
            self._jobs.ask(job)
            task = asyncio.create_task(self._pass_on(job.request, job))
            self._passing_on.add(task)
            task.add_done_callback(self._passing_on.discard)
        else:
            self._jobs.start([(job.request, job)])
        return True

    async def _pass_on(self, request: ImageRequest, job: Job) -> None:
        """Give the reader of outcomes the image, for which it got an InDoubt before."""
        outcome = await self._jobs.outcome(request, job)
        if outcome is not None:
            await self._outcomes.put(await self._outcomes.next_index(), outcome)

    async def passed_on(self) -> None:
        """Wait until the reader has what was found, or `cut` was called."""
        while self._passing_on:
            await asyncio.wait(self._passing_on)

    # --- looking into the account ---------------------------------------------------------------

    async def settle_first(self, *, resubmits: bool) -> None:
        """Look for what earlier runs left, before a run that submits images again after a doubt; if
        it `resubmits`, also what is not listed. Candidates that still run are waited for."""
        await self._looked(self._until_decided)
        self._has_looked_first, self._resubmits = True, resubmits
        await self._journal.recount()

    def start(self) -> None:
        """Look for what earlier runs left, beside the run."""
        if self._journal.recovered.in_doubt:
            self._look_beside(at_once=True)

    def lost(self, key: str) -> None:
        """Note a submission of this run that is in doubt now."""
        self._lost[key] = asyncio.get_running_loop().time()
        self._look_beside(at_once=False)

    def hurry(self) -> None:
        """The run is stopped: end the looks that are under way, and wait for nothing."""
        self._is_hurried = True
        if self._looking is not None:
            self._looking.cancel()

    def cut(self) -> None:
        """Look no more, and stop waiting; the next run collects the jobs."""
        self._is_cut = True
        self.hurry()
        for task in self._passing_on:
            task.cancel()

    async def last_look(self) -> None:
        """Look once more at the end of a run; after a stop without waiting for anything."""
        await self.end_looking()
        if not self._searches or self._is_cut or not self._journal.counts.in_doubt:
            return
        look = self._once if self._is_hurried else self._until_settled
        self._looking = asyncio.create_task(self._looked(look))
        await self.end_looking(cancel=False)

    async def end_looking(self, *, cancel: bool = True) -> None:
        """Wait for the end of the looks."""
        if self._looking is not None:
            if cancel:
                self._looking.cancel()
            await asyncio.wait({self._looking})

    def _look_beside(self, *, at_once: bool) -> None:
        if self._searches and self._looking is None and not self._is_hurried:
            self._looking = asyncio.create_task(self._looks(at_once=at_once))

    async def _looks(self, *, at_once: bool) -> None:
        if at_once:
            await self._looked(self._at_all, is_last=False)
        while True:
            await asyncio.sleep(_BETWEEN)
            await self._looked(self._at_due, is_last=False)

    async def _looked(
        self, look: Callable[[AccountSearch], Awaitable[None]], *, is_last: bool = True
    ) -> None:
        """Look into all accounts at the same time."""
        looks = (self._looked_into(each, look, is_last=is_last) for each in self._searches)
        await asyncio.gather(*looks)

    async def _looked_into(
        self,
        search: AccountSearch,
        look: Callable[[AccountSearch], Awaitable[None]],
        *,
        is_last: bool,
    ) -> None:
        """Look, and count what was looked for. That the account cannot be asked is a warning, if
        no other look follows."""
        try:
            await look(search)
        except TimeoutError:
            if not search.has_listed:
                self._warn(search, TimeoutError("no answer in time"))
        except JournalError:  # the run raises its own
            logger.debug("images in doubt were not looked for", exc_info=True)
        except Exception as error:  # a run must not end because of this
            is_refused = isinstance(error, AuthenticationError)  # it would be each time
            if is_refused:
                self._searches.remove(search)
            if is_last or is_refused:
                self._warn(search, error)
            else:
                logger.info("the account could not be asked, and is asked again: %s", error)
        finally:
            self._count.sought |= search.left.keys()

    def _warn(self, search: AccountSearch, error: Exception) -> None:
        if search.name not in self._warned:
            self._warned.add(search.name)
            logger.warning(
                "%s could not be asked about images in doubt, which stay so: %s",
                f"account {search.name}" if search.name else "the account",
                str(error) or type(error).__name__,
            )

    async def _at_all(self, search: AccountSearch) -> None:
        await search.look(partial(self._can_be_found, search))

    async def _at_due(self, search: AccountSearch) -> None:
        await search.look(partial(self._is_due, search))

    async def _once(self, search: AccountSearch) -> None:
        async with asyncio.timeout(_HURRIED):
            await self._at_all(search)

    async def _until_decided(self, search: AccountSearch) -> None:
        await self._look_until(search, _is_waiting)

    async def _until_settled(self, search: AccountSearch) -> None:
        await self._look_until(search, partial(self._is_worth_waiting, search))

    async def _look_until(
        self, search: AccountSearch, worth_waiting: Callable[[Doubt, Decision], bool]
    ) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        until = datetime.now(UTC) + timedelta(seconds=PATIENCE)

        def show(count: int) -> None:
            self._engine.observers.show(DoubtsSought(count=count, until=until))

        async with asyncio.timeout_at(deadline):
            chosen = partial(self._can_be_found, search)
            await search.look_until(deadline, chosen, worth_waiting=worth_waiting, on_wait=show)

    def _can_be_found(self, search: AccountSearch, doubt: Doubt) -> bool:
        if doubt.is_again and self._has_looked_first:
            return False
        return search.has_list or doubt.candidate is not None

    def _is_due(self, search: AccountSearch, doubt: Doubt) -> bool:
        since = self._lost.get(doubt.key, self._began)
        age = asyncio.get_running_loop().time() - since
        return _LISTED <= age <= _OVER and self._can_be_found(search, doubt)

    def _is_worth_waiting(self, search: AccountSearch, doubt: Doubt, decision: Decision) -> bool:
        """Whether a look soon may decide more: a candidate runs, or the list is late."""
        if _is_waiting(doubt, decision):
            return True
        is_missing = isinstance(decision, StillInDoubt) and not decision.candidates
        return is_missing and search.has_list and self._may_be_listed_late(doubt)

    def _may_be_listed_late(self, doubt: Doubt) -> bool:
        """Whether its task may still appear in the list: it was sent within the last minute by an
        earlier run, or an answer of this run was lost then."""
        if doubt.key in self._lost:
            since = max(self._lost.values())
        else:
            since = self._began - (self._began_at - doubt.begun_at).total_seconds()
        return asyncio.get_running_loop().time() < since + LISTED_LATE


def _is_waiting(doubt: Doubt, decision: Decision) -> bool:
    return isinstance(decision, StillInDoubt) and decision.is_waiting
