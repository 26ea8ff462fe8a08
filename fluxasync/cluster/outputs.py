"""Opens where a run writes: the record in the ledger, the images in each worker."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp

from attrs import evolve

from .._batch.output import Destination, Output
from .._core.errors import SinkError
from .._core.models import Failed, Outcome
from .._core.protocols import Sink
from .._store.filenames import DEFAULT, FilenameTemplate
from .._store.object_quarantine import bring
from .._store.object_sink import ObjectSink, is_behind, objects_of
from .._store.sinks import FolderSink
from .messages import LedgerOrder, RunOutput

logger = logging.getLogger("fluxasync")


def destination_of(output: RunOutput, *, takes_over: bool = False) -> Destination:
    """Return the destination of the run's record. `takes_over` continues it although the lease of
    the process before may last."""
    out: Path | ObjectSink | None = output.folder
    if out is None:
        takes_over = takes_over or output.take_over
        out = ObjectSink(output.url, options=output.options, take_over=takes_over)
    return Destination.of(out=out, state=output.state, ledger=None, name=output.template, retry=())


async def open_output(stack: AsyncExitStack, order: LedgerOrder, *, keeps_intents: bool) -> Output:
    """Open the record of a run; `stack` closes it."""
    destination = destination_of(order.output, takes_over=keeps_intents)
    await destination.refresh()
    return await destination.open(
        stack,
        {"": order.provider},
        max_bytes=order.max_image_bytes,
        max_cost=order.max_cost,
        living=None if keeps_intents else (),
    )


@asynccontextmanager
async def open_sink(output: RunOutput, *, max_bytes: int) -> AsyncIterator[Sink]:
    """Open the sink of one worker."""
    template = FilenameTemplate.parse(output.template or DEFAULT, columns=True)
    if output.folder is not None:
        async with FolderSink(output.folder, template=template, max_bytes=max_bytes) as folder:
            yield folder
        return
    state = Path(mkdtemp(prefix="fluxasync-"))
    # the quarantine is in the bucket too, from where the ledger brings it into its own folder
    objects = ObjectSink(output.url, options=output.options).within(
        state, template=template, max_bytes=max_bytes, is_copy=True
    )
    try:
        async with objects:
            yield objects
    finally:
        if not is_behind(objects):
            shutil.rmtree(state, ignore_errors=True)


async def with_own_bytes(outcome: Outcome, output: Output) -> Outcome:
    """Return an outcome of a worker with its quarantined bytes in the folder of the record. Where
    they cannot be brought, the outcome has none."""
    kept = outcome.quarantined if isinstance(outcome, Failed) else None
    if kept is None or kept.path is None or not isinstance(output.sink, ObjectSink):
        return outcome
    assert isinstance(outcome, Failed)  # noqa: S101 — another has no quarantine
    assert output.journal is not None  # noqa: S101 — no other ledger is given
    objects, folder, name = objects_of(output.sink), output.journal.folder, kept.path.name
    try:
        path = await asyncio.to_thread(bring, objects, folder, name)
    except SinkError as error:
        logger.warning("quarantined bytes %s are not in %s: %s", name, folder, error)
        path = None
    if path is not None:
        outcome.error.quarantined = evolve(kept, path=path)  # type: ignore[attr-defined]
    return outcome
