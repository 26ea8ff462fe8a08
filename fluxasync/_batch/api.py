"""The two helpers for those who want an image, or a folder of them, in one line.

They open a session, call the same verbs everybody else calls, and return: no second code path.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from decimal import Decimal
from typing import Any, Literal

from .._core.arguments import local_path
from .._core.config import Budget, Limits, Polling
from .._core.errors import ConfigError
from .._core.events import Event, Settled
from .._core.models import Saved
from .._core.protocols import Observer
from .._engine.session import FluxSession
from .._requests.image_inputs import Folders
from .._requests.sources import Plan
from .._wire.providers import Provider
from .batch import Batch
from .summary import Summary


async def generate(
    prompt: str,
    *,
    out: str | os.PathLike[str] | None = None,
    model: str = "flux-dev",
    provider: Provider | str | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
    allow_unknown_models: bool = False,
    **parameters: Any,
) -> Saved:
    """Make one image and return it: in the file `out`, or with its bytes in `saved.data`.

    `out` must not exist yet. Parameters are the model's own. For more than one image keep a
    FluxSession: it keeps the connections and the count of active jobs. Raises ConfigError and
    SinkError before anything is sent; then what `FluxSession.generate` raises, of which
    TransportError(sent=True) means that the image may have been charged.
    """
    if "to" in parameters:
        raise ConfigError("to: fluxasync.generate names the file `out`: generate(…, out=…)")
    if out is not None:
        local_path("out", out)
    async with FluxSession(
        provider, api_key=api_key, base_url=base_url, allow_unknown_models=allow_unknown_models
    ) as flux:
        return await flux.generate(prompt, to=out, model=model, **parameters)


async def run(
    source: Any,
    *,
    out: str | os.PathLike[str],
    model: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    n: int = 1,
    seeds: Iterable[int] | None = None,
    models: Sequence[str] | None = None,
    grid: Mapping[str, Iterable[Any]] | None = None,
    wildcards: bool | str | os.PathLike[str] = False,
    sample: int | None = None,
    sample_seed: int = 0,
    prompt_column: str | None = None,
    map: Mapping[str, str] | None = None,
    allow_files: Folders = (),
    name: str | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    retry: str | Iterable[str] = (),
    provider: Provider | str | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
    limits: Limits | int | Literal["auto"] | None = None,
    polling: Polling | float | None = None,
    budget: Budget | Decimal | float | str | None = None,
    allow_unknown_models: bool = False,
    on_event: Observer | None = None,
    progress: bool = False,
) -> Summary:
    """Make every image of a source into a folder and return the run in numbers.

    The same call again carries on, whatever ended it: what is there is skipped, what was paid is
    collected. Images that fail or stay in doubt are counted in the Summary and raise nothing.
    `progress` shows the run while it lasts: in a notebook, at a terminal, else as a line every ten
    seconds on stderr. See Batch for the source and FluxSession for the rest. Raises ConfigError,
    SinkError and JournalError before anything is sent, and the error that ended the run once paid
    jobs landed.
    """
    local_path("out", out)
    watched = _Watched() if progress else None
    async with AsyncExitStack() as stack:
        if watched is not None:
            await stack.enter_async_context(watched.shown())
        flux = await stack.enter_async_context(
            FluxSession(
                provider,
                api_key=api_key,
                base_url=base_url,
                limits=limits,
                polling=polling,
                budget=budget,
                allow_unknown_models=allow_unknown_models,
                on_event=on_event,
            )
        )
        batch = Batch(
            flux,
            source,
            out=out,
            model=model,
            parameters=parameters,
            n=n,
            seeds=seeds,
            models=models,
            grid=grid,
            wildcards=wildcards,
            sample=sample,
            sample_seed=sample_seed,
            prompt_column=prompt_column,
            map=map,
            allow_files=allow_files,
            name=name,
            limit=limit,
            skip_bad=skip_bad,
            retry=retry,
            on_event=watched,
            on_plan=None if watched is None else lambda plan: watched.expect(plan, batch, flux),
        )
        async with batch:
            async for _ in batch:
                pass
        return batch.summary


class _Watched:
    """The progress of a run of ours, counted from its events."""

    def __init__(self) -> None:
        from .progress import Progress

        self._progress = Progress()

    def shown(self) -> AbstractAsyncContextManager[None]:
        from .progress import auto_screen

        return auto_screen(self._progress)

    def expect(self, plan: Plan, batch: Batch, flux: FluxSession) -> None:
        self._progress.expect(
            plan, recovered=batch.recovered, estimate=batch.affordable, slots=flux.slots
        )

    def __call__(self, event: Event) -> None:
        self._progress(event)
        if isinstance(event, Settled):
            self._progress.update(event.outcome, now=asyncio.get_running_loop().time())
