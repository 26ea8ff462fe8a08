"""What a batch leaves behind: the sink for its images, the ledger of its money, the lists beside.

They are opened and closed in one order, here and nowhere else: the journal first, because it may
refuse the folder before anything in it is touched; the lists last, because they are projections of
the journal and are compared with it when nobody writes them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from .._core.errors import JournalError
from .._core.models import Outcome
from .._core.protocols import Ledger, Sink
from .._store.filenames import FilenameTemplate
from .._store.files import disk_error, make_folder, prove_writable
from .._store.journal.journal import Journal, JournalCounts, expected, has_journal
from .._store.metadata import MetadataWriter
from .._store.sinks import FolderSink, MemorySink
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
        """Whether there was nothing before this run, which asks for each image once."""
        return self.journal is not None and self.journal.recovered == JournalCounts()

    async def list(self, outcome: Outcome) -> None:
        """Add a line to the lists, for an outcome that the ledger has."""
        if self.manifest is not None:
            await self.manifest.add(outcome)


@asynccontextmanager
async def open_folder(
    folder: Path,
    *,
    provider: Provider,
    template: FilenameTemplate,
    max_bytes: int,
    ledger: Ledger | None,
    retry: Collection[str] = (),
) -> AsyncIterator[Output]:
    """Open a folder as an output, with a journal in it unless the user brings a ledger.

    `retry` are the classes of failures that the journal lets be done again.
    """
    async with AsyncExitStack() as stack:
        journal = None
        if ledger is None:
            if not has_journal(folder):
                await asyncio.to_thread(_prove, folder)
            journal = await stack.enter_async_context(_journal(folder, provider, template, retry))
            stack.push_async_callback(_projected, journal)
            ledger = journal
        sink = FolderSink(folder, template=template, max_bytes=max_bytes)
        await stack.enter_async_context(sink)
        if journal is not None:
            await journal.project()
        manifest = MetadataWriter(folder, resumes=journal is not None)
        await stack.enter_async_context(manifest)
        yield Output(sink, ledger, journal, manifest)


@asynccontextmanager
async def open_sink(sink: Sink | None, *, max_bytes: int, ledger: Ledger) -> AsyncIterator[Output]:
    """Take the user's own sink, or keep images in memory."""
    if sink is not None:
        yield Output(sink, ledger)
        return
    async with MemorySink(max_bytes=max_bytes) as memory:
        yield Output(memory, ledger)


def _prove(folder: Path) -> None:
    """A fresh folder that cannot be written is a slip of the caller's, not a broken journal."""
    try:
        make_folder(folder)
        prove_writable(folder)
    except OSError as error:
        raise disk_error(folder, error) from error


def expected_in(folder: Path, provider: Provider, retry: Collection[str]) -> JournalCounts | None:
    """Return what a run of this provider would find in a folder; None without a journal. Raises
    JournalError where it would be refused."""
    return expected(folder, **_place(provider), retry=retry)


def _place(provider: Provider) -> dict[str, Any]:
    # simulators come and go on other ports; whatever is on loopback is one of them
    scheme, host, port = provider.origin
    origin = "loopback" if provider.is_loopback else f"{scheme}://{host}:{port}"
    return {"provider": provider.name, "origin": origin, "simulated": provider.is_loopback}


def _journal(
    folder: Path, provider: Provider, template: FilenameTemplate, retry: Collection[str]
) -> Journal:
    return Journal(
        folder,
        **_place(provider),
        stem_of=template.stem,
        retry=retry,
    )


async def _projected(journal: Journal) -> None:
    """Leave the lists as the journal has them; a journal that broke says so itself."""
    try:
        await journal.project(keep_bad_rows=True)
    except JournalError as error:
        logger.warning("the lists were not compared with the journal: %s", error)
