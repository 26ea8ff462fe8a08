"""A person's decisions about images in doubt (drop, name the job, submit again) and about images in
quarantine (accept, discard).

Each decision is made under the folder's lock and is durable on return. Nothing is submitted here:
the next run does that, under its own checks. Accepted bytes are copied to their final name, then
recorded, then removed from the quarantine; discarded ones are removed, then recorded. A command
that was killed can be given again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from string import hexdigits
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from attrs import evolve

from ..._core.amounts import dollars
from ..._core.concurrency import run_to_completion
from ..._core.errors import BudgetExceeded, ConfigError, JournalError, SinkError
from ..bucket_state import located
from ..disk_threads import ThreadRunner
from ..journal.checked_row import Row
from ..journal.integrity import (
    JournalHeader,
    check_content,
    check_current,
    check_file,
    check_home,
    check_output,
    header_of,
)
from ..journal.journal import Journal, JournalView, read_only
from ..journal.opening import RunFacts
from ..journal.quarantined_row import is_made_again
from ..object_sink import landed
from ..objects import Objects
from ..output_root import OutputRoot
from .folder_status import (
    InDoubtEntry,
    QuarantinedEntry,
    last_place,
    quarantined_rows,
    read_doubts,
    read_quarantined,
    require_idle,
    require_journal,
)
from .quarantine_files import accepted_columns, is_whole, kept_image, published, removed

if TYPE_CHECKING:
    from ..journal.log_copy import LogCopy
    from ..object_log import ObjectLog

#: minimum digits of a key: unique among a few hundred images
_SHORTEST = 4
#: characters of a wrong key that are shown
_SHOWN = 80


class _Entry(Protocol):
    @property
    def key(self) -> str: ...


_EntryT = TypeVar("_EntryT", bound=_Entry)


async def in_doubt(
    folder: str | os.PathLike[str], *, options: Mapping[str, str] | None = None
) -> list[InDoubtEntry]:
    """Return the submissions that may have been charged, oldest first; changes nothing.

    `folder` is the run's, or the URL of one whose record is in its bucket, as in all functions
    here; `options` are the bucket's: see ObjectSink. Raises ConfigError for a folder or URL without
    a journal, Locked while a run is active there, SinkError for a bucket that cannot be read.
    """
    run = await located(folder, options)
    async with ThreadRunner(count=1) as threads:
        return await threads.run(_checked_doubts, run.folder)


async def drop(
    folder: str | os.PathLike[str],
    keys: Sequence[str] = (),
    *,
    options: Mapping[str, str] | None = None,
) -> list[InDoubtEntry]:
    """Give up images in doubt (default: all of them); they become failures. Returns them.

    `keys` are whole keys or their starts, of at least four digits. Raises ConfigError, before any
    change, for a key that names no image in doubt or more than one; Locked while a run is active.
    """
    async with _opened(folder, options) as (journal, doubts):
        dropped = _matching(doubts, keys)
        for doubt in dropped:
            await journal.decisions.drop(doubt.key)
        return dropped


async def give_jobs(
    folder: str | os.PathLike[str],
    jobs: Mapping[str, str],
    *,
    options: Mapping[str, str] | None = None,
) -> list[InDoubtEntry]:
    """Record which jobs images in doubt became; the next run collects them. Returns the images.

    `jobs` maps keys to job ids. Raises as `drop`, and ConfigError for the id of another image's
    job; the entries before that one are recorded.
    """
    async with _opened(folder, options) as (journal, doubts):
        named = [(_one(doubts, key), job_id) for key, job_id in jobs.items()]
        if len({doubt.key for doubt, _ in named}) < len(named):
            raise ConfigError("two job ids were given for one image: leave one out")
        if len(set(jobs.values())) < len(jobs):
            raise ConfigError("one job id was given for two images: leave one out")
        for doubt, job_id in named:
            await journal.decisions.give_job(doubt.key, job_id)
        return [doubt for doubt, _ in named]


async def resubmit(
    folder: str | os.PathLike[str],
    keys: Sequence[str] = (),
    *,
    max_cost: Decimal,
    unlisted: bool = False,
    options: Mapping[str, str] | None = None,
) -> list[InDoubtEntry]:
    """Let the next run submit images in doubt again (default: all of them). Returns them.

    `unlisted` takes only those of which the last `reconcile` found no task and no charge.
    `max_cost` is in US dollars. Raises as `drop`; before any change, BudgetExceeded if the images
    cost more together, and ConfigError if a price is unknown.
    """
    async with _opened(folder, options) as (journal, doubts):
        chosen = [doubt for doubt in doubts if doubt.is_unlisted or not unlisted]
        again = _matching(chosen, keys)
        _check_cost(again, max_cost)
        await journal.decisions.forget([doubt.key for doubt in again])
        return again


async def quarantined(
    folder: str | os.PathLike[str], *, options: Mapping[str, str] | None = None
) -> list[QuarantinedEntry]:
    """Return the images whose bytes are in quarantine, oldest first; changes nothing.

    Raises as `in_doubt`.
    """
    run = await located(folder, options)
    async with ThreadRunner(count=1) as threads:
        return await threads.run(_checked_entries, run.folder)


async def accept(
    folder: str | os.PathLike[str],
    keys: Sequence[str] = (),
    *,
    options: Mapping[str, str] | None = None,
) -> list[QuarantinedEntry]:
    """Make quarantined bytes the images that they were paid as.

    Without keys, or with "all", these are the whole images whose file has its recorded sha256, but
    none of another request; the others stay in quarantine, and each is accepted by its key only.
    Each gets its final name, with the extension of what its bytes are ("bin" for no image), and a
    line in metadata.jsonl. Returns the entries with path or place, size and sha256 of the new files
    or objects; `options` are those of a bucket: see ObjectSink. `keys`
    are whole keys or their starts, of at least four digits. Raises ConfigError, before any change,
    for a key that names no quarantined image, more than one, or one that is being made again;
    Locked while a run is active; SinkError for an error of the disk, after which the same call
    continues.
    """
    async with _opened_journal(folder, options) as (journal, threads):
        found = await threads.run(quarantined_rows, journal.folder)
        chosen = _chosen(found, keys)
        if _is_all(keys):
            chosen = await threads.run(_acceptable, journal.folder, found)
        for key in chosen:
            _check_settled(found[key][1])
        objects = Objects(journal.root.url, options) if journal.root.url and chosen else None
        accepted = []
        for key in chosen:
            entry, row = found[key]
            name, image = await threads.run(kept_image, journal.folder, row)
            if objects is None:
                path = await threads.run(published, journal.folder, name, image)
                name, place = str(path.relative_to(journal.folder)), str(path)
            else:
                path, name = entry.path, await landed(objects, name, image)
                place = f"{objects.url}/{name}"
            await journal.decisions.release(key, accepted_columns(row, name, image))
            await threads.run(removed, journal.folder, entry.path)
            accepted.append(
                evolve(entry, path=path, place=place, sha256=image.sha256, size=image.size)
            )
        return accepted


async def discard(
    folder: str | os.PathLike[str],
    keys: Sequence[str] = (),
    *,
    options: Mapping[str, str] | None = None,
) -> list[QuarantinedEntry]:
    """Delete quarantined bytes (default: all of them); a retry then pays for the images again.

    Returns the entries. Raises as `accept`.
    """
    async with _opened_journal(folder, options) as (journal, threads):
        found = await threads.run(quarantined_rows, journal.folder)
        discarded = [found[key][0] for key in _chosen(found, keys)]
        for entry in discarded:
            await threads.run(removed, journal.folder, entry.path)
            await journal.decisions.release(entry.key, None)
        return discarded


class OfflineJournal(Journal):
    """A folder's journal opened without a run, to record decisions; it holds the folder's lock.

    `log` is given where the folder has a copy of the record. Provider and origin come from the
    file. Raises ConfigError for a folder without a journal, and creates none.
    """

    def __init__(self, folder: str | os.PathLike[str], *, log: ObjectLog | None = None) -> None:
        super().__init__(folder, provider="", origin="", simulated=False, log=log)

    def _open(self) -> None:
        require_journal(self.folder)
        super()._open()

    def _check(self) -> bool:
        check_file(self.path)
        facts = check_content(self.folder, self.path)
        check_output(self.folder, facts, facts.output)
        check_home(self.path, facts, take_over=False)
        check_current(self.folder, self.path)
        return self._continue(facts)

    def _check_copy(self, copy: LogCopy) -> bool:
        copy.refresh()
        return self._continue(header_of(self.path, self._again))

    def _continue(self, facts: JournalHeader) -> bool:
        """Take place and kind of the run from the file."""
        self.root = OutputRoot(self.folder, facts.output, is_copy=self.root.is_copy)
        provider, origin = last_place(self.folder)
        self._facts = RunFacts(
            provider=provider, origin=origin, simulated=facts.simulated, url=facts.output
        )
        return facts.is_clean


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
    folder: str | os.PathLike[str], options: Mapping[str, str] | None
) -> AsyncIterator[tuple[Journal, list[InDoubtEntry]]]:
    """Hold the folder; yield its journal and the images in doubt; rewrite the lists afterwards."""
    async with _opened_journal(folder, options) as (journal, threads):
        yield journal, await threads.run(read_doubts, journal.folder)


@asynccontextmanager
async def _opened_journal(
    folder: str | os.PathLike[str], options: Mapping[str, str] | None
) -> AsyncIterator[tuple[Journal, ThreadRunner]]:
    """Hold the folder; yield its journal and a thread; rewrite the lists afterwards."""
    run = await located(folder, options)
    async with ThreadRunner(count=1) as threads, OfflineJournal(run.folder, log=run.log) as journal:
        yield journal, threads
        with suppress(JournalError, SinkError):  # the decision is recorded; the next run retries
            await run_to_completion(journal.project(keep_bad_rows=True, rewrite=True))
        await run_to_completion(run.publish())


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
