"""A person's decisions about images in doubt: drop them, name their jobs, or submit them again.

Each decision is made under the folder's lock and is durable on return. Nothing is submitted here:
the next run does that, under its own checks.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from string import hexdigits

from ..._core.amounts import dollars
from ..._core.concurrency import run_to_completion
from ..._core.errors import BudgetExceeded, ConfigError, JournalError, SinkError
from ..disk_threads import ThreadRunner
from ..journal.integrity import check_content, check_current, check_file, check_home
from ..journal.journal import Journal, JournalView, read_only
from .folder_status import InDoubtEntry, read_doubts, reading_rows, require_idle, require_journal

#: minimum digits of a key: unique among a few hundred images
_SHORTEST = 4


async def in_doubt(folder: str | os.PathLike[str]) -> list[InDoubtEntry]:
    """Return the submissions that may have been charged, oldest first; changes nothing.

    Raises ConfigError for a folder without a journal and Locked while a run is active there.
    """
    async with ThreadRunner(count=1) as threads:
        return await threads.run(_checked_doubts, Path(folder))


async def drop(folder: str | os.PathLike[str], keys: Sequence[str] = ()) -> list[InDoubtEntry]:
    """Give up images in doubt (default: all of them); they become failures. Returns them.

    `keys` are whole keys or their starts, of at least four digits. Raises ConfigError, before any
    change, for a key that names no image in doubt or more than one; Locked while a run is active.
    """
    async with _opened(folder) as (journal, doubts):
        dropped = _matching(doubts, keys)
        for doubt in dropped:
            await journal.drop(doubt.key)
        return dropped


async def give_jobs(folder: str | os.PathLike[str], jobs: Mapping[str, str]) -> list[InDoubtEntry]:
    """Record which jobs images in doubt became; the next run collects them. Returns the images.

    `jobs` maps keys to job ids. Raises as `drop`, and ConfigError for the id of another image's
    job; the entries before that one are recorded.
    """
    async with _opened(folder) as (journal, doubts):
        named = [(_one(doubts, key), job_id) for key, job_id in jobs.items()]
        if len({doubt.key for doubt, _ in named}) < len(named):
            raise ConfigError("two job ids were given for one image: leave one out")
        if len(set(jobs.values())) < len(jobs):
            raise ConfigError("one job id was given for two images: leave one out")
        for doubt, job_id in named:
            await journal.give_job(doubt.key, job_id)
        return [doubt for doubt, _ in named]


async def resubmit(
    folder: str | os.PathLike[str], keys: Sequence[str] = (), *, max_cost: Decimal
) -> list[InDoubtEntry]:
    """Let the next run submit images in doubt again (default: all of them). Returns them.

    `max_cost` is in US dollars. Raises as `drop`; before any change, BudgetExceeded if the images
    cost more together, and ConfigError if a price is unknown.
    """
    async with _opened(folder) as (journal, doubts):
        again = _matching(doubts, keys)
        _check_cost(again, max_cost)
        await journal.forget([doubt.key for doubt in again])
        return again


class OfflineJournal(Journal):
    """A folder's journal opened without a run, to record decisions; it holds the folder's lock.

    Provider and origin come from the file. Raises ConfigError for a folder without a journal, and
    creates none.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(folder, provider="", origin="", simulated=False)

    def _open(self) -> None:
        require_journal(self.folder)
        super()._open()

    def _check(self) -> bool:
        check_file(self.path)
        facts = check_content(self.folder, self.path)
        check_home(self.path, facts, take_over=False)
        check_current(self.folder, self.path)
        self._provider, self._origin = _last_place(self.folder)
        return facts.is_clean


def _last_place(folder: Path) -> tuple[str, str]:
    """Return provider and origin of the last submission; empty texts if there is none."""
    query = (
        "SELECT provider, origin FROM image JOIN place ON place.id = image.place "
        "ORDER BY image.id DESC LIMIT 1"
    )
    with reading_rows(folder) as connection:
        return connection.execute(query).fetchone() or ("", "")


def _checked_doubts(folder: Path) -> list[InDoubtEntry]:
    with _checked_view(folder):
        return read_doubts(folder)


def _checked_view(folder: Path) -> JournalView:
    """Check that the journal exists, is free and can be trusted, without taking the lock."""
    require_journal(folder)
    require_idle(folder)
    return read_only(folder)


@asynccontextmanager
async def _opened(
    folder: str | os.PathLike[str],
) -> AsyncIterator[tuple[Journal, list[InDoubtEntry]]]:
    """Hold the folder; yield its journal and the images in doubt; rewrite the lists afterwards."""
    async with ThreadRunner(count=1) as threads, OfflineJournal(folder) as journal:
        yield journal, await threads.run(read_doubts, journal.folder)
        with suppress(JournalError, SinkError):  # the decision is recorded; the next run retries
            await run_to_completion(journal.project(keep_bad_rows=True, rewrite=True))


def _matching(doubts: Sequence[InDoubtEntry], keys: Sequence[str]) -> list[InDoubtEntry]:
    """Return the images that the keys name, each once; all of them without keys."""
    if not keys:
        return list(doubts)
    return list({found.key: found for found in (_one(doubts, key) for key in keys)}.values())


def _one(doubts: Iterable[InDoubtEntry], start: str) -> InDoubtEntry:
    start = start.lower()
    if len(start) < _SHORTEST or set(start) - set(hexdigits):
        raise ConfigError(f"{start!r} is not a key: give its first {_SHORTEST} digits or more")
    found = [doubt for doubt in doubts if doubt.key.startswith(start)]
    if not found:
        raise ConfigError(
            f"no image in doubt has a key that begins with {start}: fluxasync resolve lists them"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{len(found)} images in doubt have keys that begin with {start}: give more digits"
        )
    return found[0]


def _check_cost(again: Iterable[InDoubtEntry], max_cost: Decimal) -> None:
    cost = Decimal(0)
    for doubt in again:
        if doubt.price is None:
            raise ConfigError(
                f"the price of {doubt.model} is unknown, so no cap covers {doubt.key[:8]}: "
                "drop it, then use run --retry dropped without a cap"
            )
        cost += doubt.price
    if cost > max_cost:
        raise BudgetExceeded(
            f"submitting them again costs {dollars(cost)}, more than {dollars(max_cost)}: "
            "raise --max-cost or name fewer images"
        )
