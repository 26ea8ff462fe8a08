"""What the actors of a run are told, in plain values, from a session and a destination."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import evolve

from .._store.object_sink import objects_of
from .messages import LedgerOrder, RunOutput, WorkerOrder

if TYPE_CHECKING:
    from .._batch.output import Destination
    from .._engine.engine import Engine


def output_of(destination: Destination) -> RunOutput:
    """Return where a run writes."""
    folder = None if destination.folder is None else destination.folder.absolute()
    template = None if destination.template is None else destination.template.text
    if destination.objects is None:
        return RunOutput(folder=folder, template=template)
    return RunOutput(
        folder=None,
        url=destination.url,
        options=objects_of(destination.objects).options,
        state=None if destination.is_copy else folder,
        template=template,
        take_over=destination.objects.take_over,
    )


def run_name(output: RunOutput) -> str:
    """Return the name of a run's ledger in its cluster: two runs do not share an output."""
    place = output.url or str(output.folder)
    return f"ledger of {hashlib.sha256(place.encode()).hexdigest()[:16]}"


def ledger_order(engine: Engine, output: RunOutput, *, workers: int) -> LedgerOrder:
    """Return what the ledger is told."""
    return LedgerOrder(
        output=output,
        provider=engine.provider,
        slots=engine.slots,
        workers=workers,
        max_cost=engine.max_cost,
        max_image_bytes=engine.max_image_bytes,
    )


def worker_order(
    engine: Engine, output: RunOutput, *, key: Callable[[], str] | None, workers: int
) -> WorkerOrder:
    """Return what each of the workers is told: its part of what the session may do each second."""
    policies = engine.policies
    limits, polling = policies.limits, policies.polling
    if limits.rate is not None:
        limits = evolve(limits, rate=limits.rate / workers)
    if polling.max_rate is not None:
        polling = evolve(polling, max_rate=polling.max_rate / workers)
    return WorkerOrder(
        output=output,
        provider=engine.provider,
        key=key,
        limits=limits,
        retry=policies.retry,
        polling=polling,
        timeouts=policies.timeouts,
        prices=engine.prices,
        allow_unknown_models=engine.allows_unknown_models,
    )
