"""`generate()` and `run()`: one image, or a folder of images, in one call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from decimal import Decimal
from pathlib import Path
from ssl import SSLContext
from typing import Any, Literal, Protocol, Unpack

from .._core.arguments import is_url, usable_path
from .._core.config import Budget, Limits, Polling
from .._core.errors import ConfigError
from .._core.events import Event, Settled
from .._core.models import DEFAULT_MODEL, Saved
from .._core.protocols import Observer, Sink
from .._core.simulator_process import PRACTICE, simulator_process
from .._engine.session import FluxSession
from .._requests.model_parameters import ModelName, ModelParameters, completed
from .._requests.sources.plan import Plan
from .._requests.sources.prompts import Prompts
from .._store.memory_sink import MemorySink
from .._store.output_root import state_folder
from .._store.sinks import FileSink
from .._wire.credentials import Credentials
from .._wire.providers import Provider
from .batch import Batch
from .hooks.saved_hook import OnSaved, SavedHook
from .output import embedding
from .run_result import RunResult
from .settlement import Reconcile
from .simulated_run import job_log


@completed
async def generate(
    prompt: str,
    *,
    out: str | os.PathLike[str] | None = None,
    model: ModelName = DEFAULT_MODEL,
    provider: Provider | str | None = None,
    api_key: str | Credentials | None = None,
    base_url: str | None = None,
    proxy: str | None = None,
    ssl: SSLContext | None = None,
    allow_unknown_models: bool = False,
    embed: bool = False,
    simulate: bool = False,
    **parameters: Unpack[ModelParameters],
) -> Saved:
    """Make one image and return it, stored as the file `out` or with its bytes in `saved.data`.

    `out` must not exist yet. Other parameters are the model's own. `embed` puts prompt, seed and
    model into the image. `simulate` uses the built-in
    simulator: nothing is charged, and no key is needed. For more than one image keep a
    FluxSession, which reuses connections and counts active jobs. Raises ConfigError and SinkError
    before anything is sent, then what `FluxSession.generate` raises. TransportError(sent=True)
    means that the image may have been charged.
    """
    if "to" in parameters:
        raise ConfigError("to: fluxasync.generate names the file `out`: generate(…, out=…)")
    if out is not None:
        usable_path("out", out)
    async with AsyncExitStack() as stack:
        to: str | os.PathLike[str] | Sink | None = out
        if embed:
            sink = MemorySink(embed=True) if out is None else FileSink(out, embed=True)
            to = await stack.enter_async_context(sink)
        flux = await stack.enter_async_context(
            FluxSession(
                provider,
                api_key=api_key,
                base_url=base_url,
                proxy=proxy,
                ssl=ssl,
                allow_unknown_models=allow_unknown_models,
                simulate=simulate,
            )
        )
        return await flux.generate(prompt, to=to, model=model, **parameters)


async def run(
    prompts: Prompts | Any,
    *,
    out: str | os.PathLike[str],
    state: str | os.PathLike[str] | None = None,
    name: str | None = None,
    retry: str | Iterable[str] = (),
    reconcile: Reconcile = "auto",
    provider: Provider | str | None = None,
    api_key: str | Credentials | None = None,
    base_url: str | None = None,
    limits: Limits | int | Literal["auto"] | None = None,
    polling: Polling | float | None = None,
    budget: Budget | Decimal | float | str | None = None,
    proxy: str | None = None,
    ssl: SSLContext | None = None,
    allow_unknown_models: bool = False,
    on_event: Observer | None = None,
    on_saved: OnSaved | None = None,
    progress: bool = False,
    cluster: Cluster | None = None,
    embed: bool = False,
    simulate: bool = False,
) -> RunResult:
    """Make every image of a prompt list into a folder, or into a bucket, and return the result.

    `prompts` is Prompts, or a bare path or iterable. The same call continues an interrupted run:
    saved images are skipped and paid jobs are collected. Failed images and images in doubt are in
    the result and raise nothing. `on_saved` is called with each new image: a plain function one at
    a time in a thread, a coroutine function up to eight at a time. The run waits for it; its errors
    are logged once. `progress` shows the run in a notebook or a terminal, else as a line on stderr
    every ten seconds. `embed` puts prompt, seed, model and the run's id into each image.

    `simulate` uses the built-in simulator: nothing is charged, and no key is needed; a folder of
    simulated images is never continued with real ones. `cluster` has several machines make the
    images: `fluxasync.ray.Ray("auto")`. Batch and FluxSession describe the other options.

    Raises ConfigError, SinkError and JournalError before anything is sent. The error that ended the
    run is raised once paid jobs have landed.
    """
    folder, hook = _folder(out, state), SavedHook.of(on_saved)
    watched = _Watched(priced=not simulate) if progress else None
    async with AsyncExitStack() as stack:
        if watched is not None:
            await stack.enter_async_context(watched.shown())
        if simulate:
            if base_url is not None or proxy or cluster is not None:
                raise ConfigError(
                    "simulate starts a simulator for this process: leave out base_url, proxy and "
                    "cluster"
                )
            simulator = simulator_process(job_log=job_log(folder))
            base_url = await stack.enter_async_context(simulator)
            api_key = Credentials(api_key=PRACTICE, access_token=PRACTICE)
        flux = await stack.enter_async_context(
            FluxSession(
                provider,
                api_key=api_key,
                base_url=base_url,
                limits=limits,
                polling=polling,
                budget=budget,
                proxy=proxy,
                ssl=ssl,
                allow_unknown_models=allow_unknown_models,
                on_event=on_event,
            )
        )
        make: Callable[..., Batch] = Batch if cluster is None else cluster.batch
        batch: Batch = make(
            flux,
            prompts,
            out=embedding(out) if embed else out,
            state=state,
            name=name,
            retry=retry,
            reconcile=reconcile,
            on_event=_both(watched, hook),
            on_plan=None if watched is None else lambda plan: watched.expect(plan, batch, flux),
        )
        if hook is None:
            summary = await batch.run()
        else:
            async with hook, batch:
                async for _ in batch:
                    await hook.keep_up()
            summary = batch.summary
    return RunResult(summary, folder)


def _folder(out: str | os.PathLike[str], state: str | os.PathLike[str] | None) -> Path:
    """Return the folder of a run's record on this machine. Raises ConfigError."""
    if state is not None:
        return usable_path("state", state)
    return state_folder(out) if isinstance(out, str) and is_url(out) else usable_path("out", out)


def _both(first: Observer | None, second: Observer | None) -> Observer | None:
    """Return an observer for two."""
    if first is None or second is None:
        return second if first is None else first

    def see(event: Event) -> None:
        first(event)
        second(event)

    return see


class Cluster(Protocol):
    """Has batches made by other processes; `fluxasync.ray.Ray` is one."""

    def batch(self, session: FluxSession, prompts: Any, **options: Any) -> Batch: ...


class _Watched:
    """Counts the progress of a run from its events."""

    def __init__(self, *, priced: bool) -> None:
        from .progress.counts import Progress

        self._progress = Progress(priced=priced)

    def shown(self) -> AbstractAsyncContextManager[None]:
        from .progress.screens import auto_screen

        return auto_screen(self._progress)

    def expect(self, plan: Plan, batch: Batch, flux: FluxSession) -> None:
        self._progress.expect(
            plan, recovered=batch.recovered, estimate=batch.affordable, slots=flux.slots
        )

    def __call__(self, event: Event) -> None:
        self._progress(event)
        if isinstance(event, Settled):
            self._progress.update(event.outcome, now=asyncio.get_running_loop().time())
