"""Where a batch writes: its sink, its ledger, and the lists beside the images.

The journal opens first, because it may refuse the folder before anything in it is touched. The
lists close last: they are projections of the journal and are compared with it once it is idle.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from .._core.arguments import usable_path
from .._core.errors import ConfigError, JournalError
from .._store.filenames import DEFAULT, FilenameTemplate
from .._store.files import disk_error, make_folder, prove_writable
from .._store.journal.journal import Journal, has_journal
from .._store.journal.reader import expected, open_lookup
from .._store.journal.retry_selection import classes_of
from .._store.journal.totals import JournalCounts
from .._store.ledgers import NullLedger, check_ledger
from .._store.metadata import MetadataWriter
from .._store.sinks import FolderSink, MemorySink, check_sink

if TYPE_CHECKING:
    from .._core.models import Outcome
    from .._core.protocols import Ledger, Sink
    from .._requests.sources.plan import Lookup
    from .._wire.providers import Provider

logger = logging.getLogger("fluxasync")


@frozen
class Output:
    """An open output."""

    sink: Sink
    ledger: Ledger
    journal: Journal | None = None
    manifest: MetadataWriter | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether no earlier run recorded anything here, so no image need be looked up."""
        return self.journal is not None and self.journal.recovered == JournalCounts()

    async def list(self, outcome: Outcome) -> None:
        """Add a settled outcome to metadata.jsonl or failures.jsonl."""
        if self.manifest is not None:
            await self.manifest.add(outcome)


@frozen(kw_only=True)
class Destination:
    """Where a batch is to write, before anything is opened."""

    folder: Path | None
    sink: Sink | None
    ledger: Ledger | None
    template: FilenameTemplate
    retry: frozenset[str]  #: outcomes of earlier runs that are made again

    @classmethod
    def of(
        cls,
        *,
        out: str | os.PathLike[str] | None,
        sink: Sink | None,
        ledger: Ledger | None,
        name: str | None,
        retry: str | Iterable[str],
    ) -> Self:
        """Return the destination that these arguments describe. Raises ConfigError."""
        if out is not None and sink is not None:
            raise ConfigError("give `out` or `sink`, not both")
        if ledger is not None:
            check_ledger(ledger)
        outcomes = classes_of(retry)
        if outcomes and (out is None or ledger is not None):
            raise ConfigError("`retry` asks the journal of a folder: give `out`, and no `ledger`")
        return cls(
            folder=None if out is None else usable_path("out", out),
            sink=sink,
            ledger=ledger,
            template=FilenameTemplate.parse(name or DEFAULT),
            retry=outcomes,
        )

    @property
    def journal_folder(self) -> Path | None:
        """The folder whose journal is the ledger; None without one."""
        return self.folder if self.ledger is None else None

    @property
    def has_record(self) -> bool:
        """Whether an earlier run left a journal here."""
        return self.folder is not None and has_journal(self.folder)

    def check_sink(self) -> None:
        """Raise ConfigError unless `sink` is a Sink or None."""
        if self.sink is not None:
            check_sink("sink", self.sink, expected="a Sink (a folder is given as `out`)")

    async def recovered(self, provider: Provider) -> JournalCounts | None:
        """Return what a run of this provider would find; None without a journal.

        Raises JournalError where the run would be refused.
        """
        if self.journal_folder is None:
            return None
        return await asyncio.to_thread(
            expected, self.journal_folder, **place_of(provider), retry=self.retry
        )

    @contextmanager
    def lookup(self) -> Iterator[Lookup | None]:
        """Look up keys in the journal, which this batch has not opened."""
        if self.journal_folder is None:
            yield None
            return
        with open_lookup(self.journal_folder, retry=self.retry) as lookup:
            yield lookup

    async def open(self, stack: AsyncExitStack, provider: Provider, *, max_bytes: int) -> Output:
        """Open everything for a run at this provider, with images up to `max_bytes`; `stack`
        closes it."""
        if self.folder is not None:
            return await open_folder(
                stack,
                self.folder,
                provider=provider,
                template=self.template,
                max_bytes=max_bytes,
                ledger=self.ledger,
                retry=self.retry,
            )
        sink = self.sink
        if sink is None:
            sink = await stack.enter_async_context(MemorySink(max_bytes=max_bytes))
        return Output(sink, self.ledger or NullLedger())


async def open_folder(
    stack: AsyncExitStack,
    folder: Path,
    *,
    provider: Provider,
    template: FilenameTemplate,
    max_bytes: int,
    ledger: Ledger | None,
    retry: Collection[str] = (),
) -> Output:
    """Open a folder, with a journal in it unless the user passes a ledger; `stack` closes it.

    `retry` names the outcomes of earlier runs that the journal hands out again.
    """
    journal = None
    if ledger is None:
        if not has_journal(folder):
            await asyncio.to_thread(_prove, folder)
        journal = await stack.enter_async_context(_journal(folder, provider, template, retry))
        stack.push_async_callback(_projected, journal)
        ledger = journal
    sink = FolderSink(folder, template=template, max_bytes=max_bytes)
    await stack.enter_async_context(sink)
    changed = [] if journal is None else await journal.project()
    manifest = MetadataWriter(folder, resumes=journal is not None, unchecked=changed)
    await stack.enter_async_context(manifest)
    return Output(sink, ledger, journal, manifest)


def _prove(folder: Path) -> None:
    """Raise SinkError for a new folder that cannot be written: its journal is not at fault."""
    try:
        make_folder(folder)
        prove_writable(folder)
    except OSError as error:
        raise disk_error(folder, error) from error


def place_of(provider: Provider) -> dict[str, Any]:
    """Return how a journal records where its jobs are, and whether they are simulated."""
    # a simulator may have another port in each run, so loopback origins are all one
    scheme, host, port = provider.origin
    origin = "loopback" if provider.is_loopback else f"{scheme}://{host}:{port}"
    return {"provider": provider.name, "origin": origin, "simulated": provider.is_loopback}


def _journal(
    folder: Path, provider: Provider, template: FilenameTemplate, retry: Collection[str]
) -> Journal:
    return Journal(
        folder,
        **place_of(provider),
        stem_of=template.stem,
        template=template.text,
        retry=retry,
    )


async def _projected(journal: Journal) -> None:
    """Compare the lists with the journal. A broken journal has raised its own error before."""
    try:
        await journal.project(keep_bad_rows=True)
    except JournalError as error:
        logger.warning("the lists were not compared with the journal: %s", error)
