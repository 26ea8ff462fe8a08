"""Where a batch writes: its sink, its ledger, and the lists beside the images.

The journal opens first, because it may refuse the folder before anything in it is touched. The
lists close last: they are projections of the journal and are compared with it once it is idle.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from .._core.arguments import is_url, usable_path
from .._core.errors import ConfigError, JournalError, SinkError
from .._core.models import NOT_LISTED
from .._store.bucket_state import refresh, state_folder
from .._store.filenames import DEFAULT, FilenameTemplate
from .._store.files import disk_error, make_folder, prove_writable
from .._store.journal.journal import Journal, has_journal
from .._store.journal.reader import expected, open_lookup, recorded_id
from .._store.journal.retry_selection import Retry, RetrySelection, classes_of
from .._store.journal.totals import JournalCounts
from .._store.ledgers import NullLedger, check_ledger
from .._store.memory_sink import MemorySink
from .._store.metadata import MetadataWriter
from .._store.object_images import ObjectImages
from .._store.object_lists import upload_lists
from .._store.object_log import ObjectLog
from .._store.object_quarantine import settle
from .._store.object_sink import ObjectSink, embeds_objects, objects_of
from .._store.objects import Objects
from .._store.run_marker import check_marker, leave_marker
from .._store.sinks import FolderSink, check_sink, embeds
from .._store.stored_images import FolderImages, StoredImages

if TYPE_CHECKING:
    from .._core.models import ImageRequest, Outcome
    from .._core.protocols import Ledger, Sink
    from .._requests.sources.plan import Lookup
    from .._wire.providers import Provider

logger = logging.getLogger("fluxasync")

#: the provider of each account, by its name; "" = the session's only one
Providers = Mapping[str, "Provider"]


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

    folder: Path | None  #: of the journal and the lists, and of the images unless `objects`
    objects: ObjectSink | None  #: where the images go instead; not open yet
    is_copy: bool  #: the folder has a copy of the journal, whose record is in the bucket
    sink: Sink | None
    ledger: Ledger | None
    template: FilenameTemplate | None  #: None = the default of the sink
    retry: frozenset[str]  #: outcomes of earlier runs that are made again
    images: StoredImages | None  #: of `objects`, as earlier runs left them
    embed: bool  #: facts are put into each image

    @classmethod
    def of(
        cls,
        *,
        out: str | os.PathLike[str] | Sink | None,
        state: str | os.PathLike[str] | None,
        ledger: Ledger | None,
        name: str | None,
        retry: str | Iterable[str],
    ) -> Self:
        """Return the destination that these arguments describe. Raises ConfigError."""
        objects, sink, folder, is_copy, embed = None, None, state, False, False
        template = None if name is None else FilenameTemplate.parse(name, columns=True)
        if is_url(out) or (isinstance(out, ObjectSink) and (state is not None or not out.is_open)):
            objects, is_copy = _objects(out), state is None
            folder = state_folder(objects.url) if is_copy else state
            embed = embeds_objects(objects)
        elif state is not None:
            raise ConfigError("state: only with images in a bucket: give `out` the bucket's URL")
        elif out is None or isinstance(out, str | os.PathLike):
            folder = out
        elif isinstance(out, FolderSink) and not out.is_open and embeds(out):
            folder, embed, template = out.folder, True, template or out.template
        else:
            sink = out
        if ledger is not None:
            check_ledger(ledger)
            if objects is not None:
                raise ConfigError(
                    "ledger: a bucket's URL keeps its own record: leave it out, or give `out` an "
                    "open ObjectSink"
                )
        outcomes = classes_of(retry)
        if outcomes and (folder is None or ledger is not None):
            raise ConfigError("`retry` asks the journal of a folder: give `out`, and no `ledger`")
        return cls(
            folder=None if folder is None else usable_path("state" if objects else "out", folder),
            objects=objects,
            is_copy=is_copy,
            sink=sink,
            ledger=ledger,
            template=template,
            retry=outcomes,
            images=None if objects is None else ObjectImages(objects_of(objects)),
            embed=embed,
        )

    @property
    def resubmits(self) -> bool:
        """Whether images in doubt that the provider's list lacks are submitted again."""
        return NOT_LISTED in self.retry

    def check_cap(self, max_cost: Decimal | None) -> None:
        """Raise ConfigError if images in doubt are submitted again without a cap."""
        if self.resubmits and max_cost is None:
            raise ConfigError(
                "images in doubt that are submitted again may be paid twice: say up to how much "
                "the run may spend, max_cost=5.00 or more"
            )

    @property
    def journal_folder(self) -> Path | None:
        """The folder whose journal is the ledger; None without one."""
        return self.folder if self.ledger is None else None

    @property
    def exported_folder(self) -> Path:
        """The folder whose journal names the images to export. Raises ConfigError without one."""
        if self.journal_folder is None:
            raise ConfigError(
                "an export beside a run needs its journal: give `out` a folder or a URL, and no "
                "`ledger`"
            )
        if self.url.startswith("memory:"):
            raise ConfigError(
                f"{self.url} is in this process only: an export reads file:// or s3://"
            )
        return self.journal_folder

    @property
    def bucket(self) -> Objects | None:
        """Where the exported images are, if not in the folder."""
        return None if self.objects is None else objects_of(self.objects)

    @property
    def url(self) -> str:
        """The URL of the images; "" = they go to a folder, or to a sink of the user's."""
        return "" if self.objects is None else self.objects.url

    @property
    def name_columns(self) -> tuple[str, ...]:
        """The columns of the list that the file names are made of."""
        return () if self._names is None else self._names.columns

    @property
    def shared_name_of(self) -> Callable[[ImageRequest], str] | None:
        """What names a request's images, if other images can have the same name."""
        return None if self._names is None or self._names.is_unique else self._names.stem

    @property
    def _names(self) -> FilenameTemplate | None:
        template = self.template or getattr(self.objects or self.sink, "template", None)
        return template if isinstance(template, FilenameTemplate) else None

    @property
    def has_record(self) -> bool:
        """Whether an earlier run left a journal here."""
        return self.folder is not None and has_journal(self.folder)

    def check_sink(self) -> None:
        """Raise ConfigError unless `sink` is a Sink or None."""
        if self.sink is not None:
            check_sink("out", self.sink, expected="a path, a URL or a Sink")

    def _selection(self, folder: Path) -> RetrySelection:
        """Return what earlier runs left to make again; blocks. Raises SinkError."""
        images = self.images or FolderImages(folder)
        selection = RetrySelection(folder, self.retry, images)
        selection.prepare()
        return selection

    async def refresh(self) -> None:
        """Bring the folder up to date with a record that is in the bucket. Raises JournalError,
        and SinkError for an error of the store."""
        if self.is_copy and self.objects is not None and self.folder is not None:
            await asyncio.to_thread(refresh, objects_of(self.objects), self.folder)

    async def recovered(self, providers: Providers) -> JournalCounts | None:
        """Return what a run at these providers would find; None without a journal.

        Raises JournalError where the run would be refused.
        """
        if self.journal_folder is None:
            return None
        retry = await asyncio.to_thread(self._selection, self.journal_folder)
        return await asyncio.to_thread(
            expected,
            self.journal_folder,
            **places_of(providers),
            retry=retry,
            output=self.url,
            is_copy=self.is_copy,
        )

    @contextmanager
    def lookup(self) -> Iterator[Lookup | None]:
        """Look up keys in the journal, which this batch has not opened."""
        if self.journal_folder is None:
            yield None
            return
        retry = self._selection(self.journal_folder)  # listed by `recovered`
        with open_lookup(self.journal_folder, retry=retry) as lookup:
            yield lookup

    async def open(
        self,
        stack: AsyncExitStack,
        providers: Providers,
        *,
        max_bytes: int,
        max_cost: Decimal | None = None,
        living: Collection[str] | None = (),
    ) -> Output:
        """Open everything for a run at these providers, with images up to `max_bytes`; `stack`
        closes it. `max_cost` and `living` are the Journal's."""
        if self.folder is not None:
            return await open_folder(
                stack,
                self.folder,
                providers=providers,
                template=self.template,
                max_bytes=max_bytes,
                ledger=self.ledger,
                retry=await asyncio.to_thread(self._selection, self.folder),
                objects=self.objects,
                is_copy=self.is_copy,
                embed=self.embed,
                max_cost=max_cost,
                living=living,
            )
        sink = self.sink
        if sink is None:
            sink = await stack.enter_async_context(MemorySink(max_bytes=max_bytes))
        return Output(sink, self.ledger or NullLedger())


def embedding(out: str | os.PathLike[str]) -> FolderSink | ObjectSink:
    """Return the folder or the bucket as a batch takes it that embeds. Raises ConfigError."""
    if isinstance(out, str) and is_url(out):
        return ObjectSink(out, embed=True)
    return FolderSink(out, embed=True)


async def open_folder(
    stack: AsyncExitStack,
    folder: Path,
    *,
    providers: Providers,
    template: FilenameTemplate | None,
    max_bytes: int,
    ledger: Ledger | None,
    retry: Retry = (),
    objects: ObjectSink | None = None,
    is_copy: bool = False,
    embed: bool = False,
    max_cost: Decimal | None = None,
    living: Collection[str] | None = (),
) -> Output:
    """Open a folder, with a journal in it unless the user passes a ledger; `stack` closes it.

    `retry` names the outcomes of earlier runs that the journal hands out again; `objects` gets the
    images instead of the folder, and has the record if the folder only has a copy of it.
    """
    sink: FolderSink | ObjectSink
    if objects is None:
        template = template or FilenameTemplate.parse(DEFAULT)
        sink = FolderSink(folder, template=template, max_bytes=max_bytes, embed=embed)
        url = ""
    else:
        sink = objects.within(folder, template=template, max_bytes=max_bytes, is_copy=is_copy)
        url = objects.url
    journal = None
    if ledger is None:
        if not has_journal(folder):
            await asyncio.to_thread(_prove, folder)
        log, bucket = None, None if objects is None else objects_of(objects)
        if bucket is not None:
            await asyncio.to_thread(check_marker, bucket, None if is_copy else folder)
            log = ObjectLog(bucket) if is_copy else None
        journal = await stack.enter_async_context(
            Journal(
                folder,
                **places_of(providers),
                stem_of=sink.template.stem,
                template=sink.template.text,
                url=url,
                retry=retry,
                log=log,
                take_over=objects is not None and objects.take_over,
                max_cost=max_cost,
                living=living,
            )
        )
        if bucket is not None:
            await asyncio.to_thread(leave_marker, bucket, folder, is_logged=is_copy)
        if bucket is not None and is_copy:
            await asyncio.to_thread(settle, bucket, folder)
            stack.push_async_callback(_listed, bucket, folder)
        stack.push_async_callback(_projected, journal)
        ledger = journal
    if embed:
        run = await asyncio.to_thread(recorded_id, folder) if journal is not None else None
        embeds(sink, run) if isinstance(sink, FolderSink) else embeds_objects(sink, run)
    await stack.enter_async_context(sink)
    changed = [] if journal is None else await journal.project()
    manifest = MetadataWriter(folder, url=url, resumes=journal is not None, unchecked=changed)
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
    name, origin = provider.place
    return {"provider": name, "origin": origin, "simulated": provider.is_loopback}


def places_of(providers: Providers) -> dict[str, Any]:
    """Return the same for a run; its own place is the first account's."""
    places = {name: place_of(provider) for name, provider in providers.items()}
    accounts = {
        name: (place["provider"], place["origin"]) for name, place in places.items() if name
    }
    return next(iter(places.values())) | {"accounts": accounts}


def _objects(out: object) -> ObjectSink:
    objects = out if isinstance(out, ObjectSink) else ObjectSink(str(out))
    if objects.is_open:
        raise ConfigError("out: the batch opens the ObjectSink itself: leave out `async with`")
    return objects


async def _listed(objects: Objects, folder: Path) -> None:
    """Put the lists beside the images. The record has what they show, so an error is none of the
    run's."""
    try:
        await asyncio.to_thread(upload_lists, objects, folder)
    except (SinkError, OSError) as error:
        logger.warning("the lists in the bucket are not renewed: %s", error)


async def _projected(journal: Journal) -> None:
    """Compare the lists with the journal. A broken journal has raised the same error before."""
    try:
        await journal.project(keep_bad_rows=True)
    except JournalError as error:
        level = logging.WARNING if journal.is_kept else logging.DEBUG
        logger.log(level, "the lists were not compared with the journal: %s", error)
