"""The prompts and the batch of a run, as its options describe them.

`run`, `run --dry-run` and `doctor` make them alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._batch.picked_requests import Variation, picked_requests
from .._core.errors import ConfigError
from .._core.protocols import Observer
from .._engine.pool import FluxPool
from .._engine.session import FluxSession
from .._requests.sources.plan import Plan
from .._requests.sources.prompts import Prompts
from .._store.bucket_state import folder_of
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
    if rows.models is not None and common.model is not None:
        raise ConfigError("--model and --models: put them all into --models A,B")
    keywords = rows.keywords()
    if rows.from_picks is not None:
        return _prompts_of_picks(sources, options, keywords)
    if not sources:
        raise ConfigError("no prompt list: name a file, or - for standard input")
    return Prompts(
        source_of(sources),
        model=None if rows.models is not None else common.model or DEFAULT_MODEL,
        parameters=common.parameters,
        **keywords,
    )


def _prompts_of_picks(
    sources: Sequence[str], options: RunOptions, keywords: dict[str, Any]
) -> Prompts:
    """Return the prompts of `--from-picks`. Raises ConfigError if the picked images would only be
    made, and paid, once more."""
    rows, common = options.rows, options.common
    if sources:
        raise ConfigError("--from-picks is the list: leave the file out")
    for option, given in (
        ("--prompt", rows.prompt), ("--prompt-column", rows.prompt_column), ("--map", rows.map),
        ("--sheet", rows.sheet), ("--rows", rows.rows), ("--no-header", rows.no_header),
    ):  # fmt: skip
        if given:
            raise ConfigError(
                f"--from-picks has the prompts and columns of its images: leave {option} out"
            )
    models = keywords.pop("models") or ([] if common.model is None else [common.model])
    varied = {*keywords["grid"], *(["seed"] if rows.seeds is not None else [])}
    if not models and not varied and not common.param and rows.n == 1:
        raise ConfigError(
            "--from-picks alone would pay for the same images once more: add --seeds 1..8 for more "
            "of them, or --model NAME for the same from another model"
        )
    variation = Variation(
        models=models, parameters=common.parameters, varied=varied, keeps_seed=rows.n == 1
    )
    assert rows.from_picks is not None  # noqa: S101 — for the type checker
    return Prompts(picked_requests(folder_of(rows.from_picks), variation), **keywords)
