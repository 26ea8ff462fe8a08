"""What only a person can decide: what becomes of doubts.

Each decision is durable when its function returns and is made under the folder's lock, so no run
is in the middle of the same image. Nothing is submitted here: the next run does it, under its own
checks.
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
from ..files import ThreadRunner
from ..journal.journal import Journal, JournalView, read_only
from .offline_journal import InDoubtEntry, OfflineJournal, doubts, require, require_idle

#: characters of a key that name an image among a few hundred
_SHORTEST = 4


async def in_doubt(folder: str | os.PathLike[str]) -> list[InDoubtEntry]:
    """Return the submissions that may have been charged, oldest first; changes nothing.

    Raises ConfigError for a folder without a journal and Locked while a run goes on there.
    """
    async with ThreadRunner(count=1) as threads:
        return await threads.run(_looked_up, Path(folder))


async def drop(folder: str | os.PathLike[str], keys: Sequence[str] = ()) -> list[InDoubtEntry]:
    """Give up images in doubt, all of them without `keys`; return them. They become failures.

    `keys` are whole or the start of one, four digits at least. Raises ConfigError, having changed
    nothing, for a key that no image in doubt or more than one has; Locked while a run goes on.
    """
    async with _standing(folder) as (journal, open_doubts):
        given_up = _named(open_doubts, keys)
        for doubt in given_up:
            await journal.drop(doubt.key)
        return given_up


async def give_jobs(folder: str | os.PathLike[str], jobs: Mapping[str, str]) -> list[InDoubtEntry]:
    """Say which jobs images in doubt became: `jobs` maps keys to job ids. The next run collects
    them. Returns the images.

    Raises as `drop`. An id of another image's job is a ConfigError too; those before it are given.
    """
    async with _standing(folder) as (journal, open_doubts):
        named = [(_one(open_doubts, key), job_id) for key, job_id in jobs.items()]
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
    """Let the next run submit images in doubt once more, all of them without `keys`; return them.

    `max_cost` is in US dollars. Raises as `drop`; BudgetExceeded, having changed nothing, when
    they cost more together, and ConfigError when the price of one is not known.
    """
    async with _standing(folder) as (journal, open_doubts):
        again = _named(open_doubts, keys)
        _check_cost(again, max_cost)
        await journal.forget([doubt.key for doubt in again])
        return again


# --- doubts -------------------------------------------------------------------------------------


def _looked_up(folder: Path) -> list[InDoubtEntry]:
    with _idle(folder):
        return doubts(folder)


def _idle(folder: Path) -> JournalView:
    """Prove that the journal is there, free and to be trusted, without holding it."""
    require(folder)
    require_idle(folder)
    return read_only(folder)


@asynccontextmanager
async def _standing(
    folder: str | os.PathLike[str],
) -> AsyncIterator[tuple[Journal, list[InDoubtEntry]]]:
    """Hold the folder; yield its journal and what is in doubt, and leave its lists as they are
    told by the journal then."""
    async with ThreadRunner(count=1) as threads, OfflineJournal(folder) as journal:
        yield journal, await threads.run(doubts, journal.folder)
        with suppress(JournalError, SinkError):  # the decision is made; the next run sees to lists
            await run_to_completion(journal.project(keep_bad_rows=True, rewrite=True))


def _named(open_doubts: Sequence[InDoubtEntry], keys: Sequence[str]) -> list[InDoubtEntry]:
    """Return the doubts that the keys name, each once; all of them without keys."""
    if not keys:
        return list(open_doubts)
    return list({found.key: found for found in (_one(open_doubts, key) for key in keys)}.values())


def _one(open_doubts: Iterable[InDoubtEntry], start: str) -> InDoubtEntry:
    start = start.lower()
    if len(start) < _SHORTEST or set(start) - set(hexdigits):
        raise ConfigError(f"{start!r} is no key: give its first {_SHORTEST} digits or more")
    found = [doubt for doubt in open_doubts if doubt.key.startswith(start)]
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
                f"the price of {doubt.model} is not known, so no cap covers {doubt.key[:8]}: "
                "drop it, then use run --retry dropped without a cap"
            )
        cost += doubt.price
    if cost > max_cost:
        raise BudgetExceeded(
            f"submitting them again costs {dollars(cost)}, more than {dollars(max_cost)}: "
            "raise --max-cost or name fewer"
        )
