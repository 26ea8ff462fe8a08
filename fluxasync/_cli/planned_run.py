"""The prompts and the batch of a run, as its options describe them.

`run`, `run --dry-run` and `doctor` make them alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from .._core.errors import ConfigError
from .._core.protocols import Observer
from .._engine.pool import FluxPool
from .._engine.session import FluxSession
from .._requests.sources.plan import Plan
from .._requests.sources.prompts import Prompts
from .options import DEFAULT_MODEL, RunOptions, source_of

if TYPE_CHECKING:
    from .._batch.batch import Batch


def batch_of(
    make: Callable[..., Batch],
    session: FluxSession | FluxPool,
    sources: Sequence[str],
    options: RunOptions,
    *,
    on_event: Observer | None = None,
    on_plan: Callable[[Plan], Awaitable[None]] | None = None,
) -> Batch:
    """Return the batch that the options describe, in an open session or in a planned one; `make` is
    Batch, or makes the batch of a cluster."""
    return make(
        session,
        prompts_of(sources, options),
        **options.output(),
        finished="skip",
        retry=options.retried,
        reconcile="never" if options.out is None else options.reconcile,
        on_event=on_event,
        on_plan=on_plan,
        name=options.name,
        grace=options.grace,
    )


def prompts_of(sources: Sequence[str], options: RunOptions) -> Prompts:
    """Return the prompts that the options describe. Raises ConfigError."""
    rows, common = options.rows, options.common
    if rows.models is not None and common.model != DEFAULT_MODEL:
        raise ConfigError("--model and --models: put them all into --models A,B")
    return Prompts(
        source_of(sources),
        model=None if rows.models is not None else common.model,
        parameters=common.parameters,
        **rows.keywords(),
    )
