"""Opens where a run writes: the record in the ledger, the images in each worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .._batch.output import Destination, Output
from .._core.protocols import Sink
from .._store.filenames import DEFAULT, FilenameTemplate
from .._store.object_sink import ObjectSink
from .._store.sinks import FolderSink
from .messages import LedgerOrder, RunOutput


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
    with TemporaryDirectory(prefix="fluxasync-") as state:
        objects = ObjectSink(output.url, options=output.options).within(
            Path(state), template=template, max_bytes=max_bytes, is_copy=output.state is None
        )
        async with objects:
            yield objects
