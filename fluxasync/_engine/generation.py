"""One image the whole way, in one account or in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from attrs import evolve

from .._core.errors import ConfigError
from .._core.models import ImageRequest, Job, Saved
from .._requests.catalog import find
from .._requests.parsing import parse_request
from .._store.sinks import FileSink

if TYPE_CHECKING:
    from .._core.protocols import Ledger, Sink
    from .circuit_breaker import CircuitBreaker


class Generator(Protocol):
    """What submits and collects."""

    def check_open(self) -> None: ...
    def leave_job(self, job: Job, *, ledger: Ledger) -> None: ...
    async def submit(
        self,
        request: ImageRequest,
        *,
        ledger: Ledger,
        priority: int,
        breaker: CircuitBreaker | None,
    ) -> Job: ...
    async def collect(self, job: Job, *, to: Sink, ledger: Ledger) -> Saved: ...


async def made(
    engine: Generator,
    request: ImageRequest,
    *,
    to: Sink,
    ledger: Ledger,
    priority: int,
    breaker: CircuitBreaker | None,
    on_job: Callable[[Job], None] | None,
) -> Saved:
    """Submit, watch and download one image; see `FluxSession.generate`."""
    engine.check_open()
    if isinstance(to, FileSink):
        request = _with_format(request, to.output_format)
        await to.preflight()
    job = await engine.submit(request, ledger=ledger, priority=priority, breaker=breaker)
    if on_job is not None:
        try:
            on_job(job)
        except BaseException:
            engine.leave_job(job, ledger=ledger)
            raise
    return await engine.collect(job, to=to, ledger=ledger)


def request_of(
    prompt: str | ImageRequest, model: str | None, parameters: Mapping[str, Any]
) -> ImageRequest:
    """Return what `generate` was asked for. Raises ConfigError."""
    if "out" in parameters:
        raise ConfigError("out: a session's generate names the file `to`: generate(…, to=…)")
    if not isinstance(prompt, ImageRequest):
        return parse_request({"prompt": prompt, "model": model, **parameters}, allow_extras=False)
    if parameters or model is not None:
        raise ConfigError("give parameters inside the ImageRequest, not beside it")
    return prompt


def _with_format(request: ImageRequest, format: str | None) -> ImageRequest:
    """Return the request for images of this format, where it states none and its model takes one;
    a model that the catalogue lacks may refuse what was not asked for."""
    model = find(request.model)
    if request.output_format is None and model is not None and "output_format" in model.parameters:
        return evolve(request, output_format=format)
    return request
