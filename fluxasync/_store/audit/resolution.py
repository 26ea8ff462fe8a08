"""A person's decisions about images in doubt (drop, name the job, submit again) and about images in
quarantine (accept, discard).

Each decision is made under the folder's lock and is durable on return. Nothing is submitted here:
the next run does that, under its own checks. Accepted bytes are copied to their final name, then
recorded, then removed from the quarantine; discarded ones are removed, then recorded. A command
that was killed can be given again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from string import hexdigits
from typing import Any, Protocol, TypeVar

from attrs import evolve

from ..._core.amounts import dollars
from ..._core.concurrency import run_to_completion
from ..._core.errors import BudgetExceeded, ConfigError, JournalError, SinkError
from ..disk_threads import ThreadRunner
from ..journal.checked_row import Row
from ..journal.doubts import LostSubmission, jobs_among, lost_submissions, mark, recorded_template
from ..journal.integrity import check_content, check_current, check_file, check_home
from ..journal.journal import Journal, JournalView, read_only
from ..journal.quarantined_row import is_made_again
from ..journal.writer import StepKind
from .folder_status import (
    InDoubtEntry,
    QuarantinedEntry,
    quarantined_rows,
    read_doubts,
    read_quarantined,
    reading_rows,
    require_idle,
    require_journal,
)
from .quarantine_files import is_whole, published, removed

#: minimum digits of a key: unique among a few hundred images
_SHORTEST = 4
#: characters of a wrong key that are shown
_SHOWN = 80


class _Entry(Protocol):
    @property
    def key(self) -> str: ...


_EntryT = TypeVar("_EntryT", bound=_Entry)


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
    folder: str | os.PathLike[str],
    keys: Sequence[str] = (),
    *,
    max_cost: Decimal,
    unlisted: bool = False,
) -> list[InDoubtEntry]:
    """Let the next run submit images in doubt again (default: all of them). Returns them.

    `unlisted` takes only those that the provider's list of tasks lacks, by the last `reconcile`.
    `max_cost` is in US dollars. Raises as `drop`; before any change, BudgetExceeded if the images
    cost more together, and ConfigError if a price is unknown.
    """
    async with _opened(folder) as (journal, doubts):
        chosen = [doubt for doubt in doubts if doubt.is_unlisted or not unlisted]
        again = _matching(chosen, keys)
        _check_cost(again, max_cost)
        await journal.forget([doubt.key for doubt in again])
        return again


async def quarantined(folder: str | os.PathLike[str]) -> list[QuarantinedEntry]:
    """Return the images whose bytes are in quarantine, oldest first; changes nothing.

    Raises ConfigError for a folder without a journal and Locked while a run is active there.
    """
    async with ThreadRunner(count=1) as threads:
        return await threads.run(_checked_entries, Path(folder))


async def accept(
    folder: str | os.PathLike[str], keys: Sequence[str] = ()
) -> list[QuarantinedEntry]:
    """Make quarantined bytes the images that they were paid as.

    Without keys, or with "all", these are the whole images whose file has its recorded sha256, but
    none of another request; the others stay in quarantine, and each is accepted by its key only.
    Each gets its final name, with the extension of what its bytes are ("bin" for no image), and a
    line in metadata.jsonl. Returns the entries with path, size and sha256 of the new files. `keys`
    are whole keys or their starts, of at least four digits. Raises ConfigError, before any change,
    for a key that names no quarantined image, more than one, or one that is being made again;
    Locked while a run is active; SinkError for an error of the disk, after which the same call
    continues.
    """
    async with _opened_journal(folder) as (journal, threads):
        found = await threads.run(quarantined_rows, journal.folder)
        chosen = _chosen(found, keys)
        if _is_all(keys):
            chosen = await threads.run(_acceptable, journal.folder, found)
        for key in chosen:
            _check_settled(found[key][1])
        accepted = []
        for key in chosen:
            entry, row = found[key]
            path, image = await threads.run(published, journal.folder, row)
            await journal.release(key, image)
            await threads.run(removed, journal.folder, entry.path)
            digest, size = image[4].hex(), image[5]
            accepted.append(evolve(entry, path=path, sha256=digest, size=size))
        return accepted


async def discard(
    folder: str | os.PathLike[str], keys: Sequence[str] = ()
) -> list[QuarantinedEntry]:
    """Delete quarantined bytes (default: all of them); a retry then pays for the images again.

    Returns the entries. Raises as `accept`.
    """
    async with _opened_journal(folder) as (journal, threads):
        found = await threads.run(quarantined_rows, journal.folder)
        discarded = [found[key][0] for key in _chosen(found, keys)]
        for entry in discarded:
            await threads.run(removed, journal.folder, entry.path)
            await journal.release(entry.key, None)
        return discarded


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

    # --- what a reconciliation needs -----------------------------------------------------------

    async def lost_submissions(self, provider: str, origin: str) -> list[LostSubmission]:
        """Return the submissions in doubt that were made at this provider, oldest first."""
        return await self._writer.run(lost_submissions, provider, origin, kind=StepKind.READ)

    async def template(self) -> str | None:
        """Return the template of file names of the last run; None = not recorded."""
        return await self._writer.run(recorded_template, kind=StepKind.READ)

    async def jobs_among(self, job_ids: Collection[str]) -> dict[str, tuple[str, datetime]]:
        """Return model and time of submission of those jobs that rows of the journal have."""
        return await self._writer.run(jobs_among, job_ids, kind=StepKind.READ)

    async def mark(self, key: str, *, is_unlisted: bool) -> None:
        """Record whether the provider's list lacks a submission in doubt."""
        await self._writer.run(mark, key, is_unlisted)


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


def _checked_entries(folder: Path) -> list[QuarantinedEntry]:
    with _checked_view(folder):
        return read_quarantined(folder)


def _chosen(found: dict[str, Any], keys: Sequence[str]) -> list[str]:
    entries = [entry for entry, _ in found.values()]
    chosen = _matching(entries, keys, what="in quarantine")
    return [entry.key for entry in chosen]


def _acceptable(folder: Path, found: dict[str, tuple[QuarantinedEntry, Row]]) -> list[str]:
    """Return the keys of the images that are accepted without being named."""
    return [
        key
        for key, (entry, row) in found.items()
        # any other cause is a check of the bytes; a failed job has the image of another request
        if entry.cause != "failed" and not is_made_again(row) and is_whole(folder, entry)
    ]


def _check_settled(row: Row) -> None:
    if is_made_again(row):
        raise ConfigError(
            f"image {row.key.hex()[:8]} was submitted again, and its outcome is not known yet: run "
            "the same command again to collect it, or settle it if it is in doubt"
        )


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
    async with _opened_journal(folder) as (journal, threads):
        yield journal, await threads.run(read_doubts, journal.folder)


@asynccontextmanager
async def _opened_journal(
    folder: str | os.PathLike[str],
) -> AsyncIterator[tuple[Journal, ThreadRunner]]:
    """Hold the folder; yield its journal and a thread; rewrite the lists afterwards."""
    async with ThreadRunner(count=1) as threads, OfflineJournal(folder) as journal:
        yield journal, threads
        with suppress(JournalError, SinkError):  # the decision is recorded; the next run retries
            await run_to_completion(journal.project(keep_bad_rows=True, rewrite=True))


def _matching(
    images: Sequence[_EntryT], keys: Sequence[str], *, what: str = "in doubt"
) -> list[_EntryT]:
    """Return the images that the keys name, each once; all of them without keys, or for "all"."""
    if _is_all(keys):
        return list(images)
    chosen = (_one(images, key, what) for key in keys)
    return list({found.key: found for found in chosen}.values())


def _is_all(keys: Sequence[str]) -> bool:
    return not keys or tuple(keys) == ("all",)


def _one(images: Iterable[_EntryT], start: str, what: str = "in doubt") -> _EntryT:
    start = start.lower()
    if len(start) < _SHORTEST or set(start) - set(hexdigits):
        shown = f"{start[:_SHOWN]!r}"
        raise ConfigError(f"{shown} is not a key: give its first {_SHORTEST} digits or more")
    found = [image for image in images if image.key.startswith(start)]
    if not found:
        raise ConfigError(
            f"no image {what} has a key that begins with {start}: fluxasync resolve lists them"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{len(found)} images {what} have keys that begin with {start}: give more digits"
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
