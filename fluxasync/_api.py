"""The two helpers for those who want an image, or a folder of them, in one line.

They open a session, call the same verbs everybody else calls, and return: no second code path.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from ._batch import Batch
from ._config import Budget, Limits, Polling
from ._models import Observer, Saved
from ._providers import Provider
from ._session import FluxSession
from ._summary import Summary


async def generate(
    prompt: str,
    *,
    out: str | os.PathLike[str] | None = None,
    model: str = "flux-dev",
    provider: Provider | str | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
    **parameters: Any,
) -> Saved:
    """Make one image and return it: in the file `out`, or with its bytes in `saved.data`.

    `out` must not exist yet. Parameters are the model's own. For more than one image keep a
    FluxSession: it keeps the connections and the count of active jobs. Raises ConfigError and
    SinkError before anything is sent; then what `FluxSession.generate` raises, of which
    TransportError(sent=True) means that the image may have been charged.
    """
    async with FluxSession(provider, api_key=api_key, base_url=base_url) as flux:
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
    name: str | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    provider: Provider | str | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
    limits: Limits | int | Literal["auto"] | None = None,
    polling: Polling | float | None = None,
    budget: Budget | Decimal | float | str | None = None,
    on_event: Observer | None = None,
) -> Summary:
    """Make every image of a source into a folder and return the run in numbers.

    The same call again carries on, whatever ended it: what is there is skipped, what was paid is
    collected. Images that fail or stay in doubt are counted in the Summary and raise nothing.
    See Batch for the source and FluxSession for the rest. Raises ConfigError, SinkError and
    JournalError before anything is sent, and the error that ended the run once paid jobs landed.
    """
    async with FluxSession(
        provider,
        api_key=api_key,
        base_url=base_url,
        limits=limits,
        polling=polling,
        budget=budget,
        on_event=on_event,
    ) as flux:
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
            name=name,
            limit=limit,
            skip_bad=skip_bad,
        )
        async with batch:
            async for _ in batch:
                pass
        return batch.summary
