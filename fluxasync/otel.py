"""Traces and metrics for OpenTelemetry, made from a session's events.

    async with FluxSession(on_event=Tracing()) as flux: …

It needs the extra `otel`; the application configures the exporters with OpenTelemetry's SDK. An
image is one span with a child for each step (submit, generate, download), below the span that is
current when the image is requested. The key is not recorded. Prompts and error messages (which may
repeat a prompt) are recorded only with `prompts=True`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from attrs import define

from ._core.errors import ConfigError, FluxError, TransportError
from ._core.events import (
    Event,
    JobEnded,
    JobReady,
    JobSubmitted,
    JobUnclaimed,
    Paused,
    SubmitFailed,
)
from ._core.extras import install_command
from ._core.models import ImageRequest, Job, Saved
from ._core.version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

#: open spans; more would only be jobs that another process collects
MOST_OPEN = 10_000


@define
class _Open:
    """The open spans of an image."""

    image: Span
    step: Span
    is_running: bool  #: counted in `fluxasync.jobs.in_flight`


class Tracing:
    """An observer for `on_event` of a session. Do not add it to a batch too: it would count twice.

    Args:
        prompts: record prompts and error messages in the spans (default: False).
        tracer_provider, meter_provider: of OpenTelemetry (default: the application's global ones).

    Spans: `fluxasync.image`, and in it `fluxasync.submit`, `fluxasync.generate` (from the accepted
    submission to the poll that saw its end) and `fluxasync.download`. Metrics: `fluxasync.images`
    by outcome ("saved", "in doubt", or the failure's cause), `fluxasync.cost` in US dollars,
    `fluxasync.push_backs` by status, `fluxasync.jobs.in_flight`. Raises ConfigError without the
    package opentelemetry-api.
    """

    def __init__(
        self,
        *,
        prompts: bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError:
            raise ConfigError(f"tracing needs OpenTelemetry: {install_command('otel')}") from None
        self._trace = trace
        self._tracer = trace.get_tracer("fluxasync", __version__, tracer_provider)
        meter = metrics.get_meter("fluxasync", __version__, meter_provider)
        self._images = meter.create_counter(
            "fluxasync.images", unit="{image}", description="Images that have ended, by outcome"
        )
        self._cost = meter.create_counter(
            "fluxasync.cost", unit="{USD}", description="Price of the images saved"
        )
        self._push_backs = meter.create_counter(
            "fluxasync.push_backs", unit="{answer}", description="Pauses of submissions"
        )
        self._in_flight = meter.create_up_down_counter(
            "fluxasync.jobs.in_flight", unit="{job}", description="Jobs that are queued or running"
        )
        self._prompts = prompts
        self._open: dict[str, _Open] = {}

    def __repr__(self) -> str:
        return f"<Tracing {len(self._open)} images under way>"

    def __call__(self, event: Event) -> None:
        """Record an event of a session."""
        match event:
            case JobSubmitted(job=job):
                self._submitted(job)
            case SubmitFailed(request=request, error=error):
                self._refused(request, error)
            case JobReady(job=job, polls=polls):
                self._ready(job, polls)
            case JobEnded(job=job, saved=saved, error=error):
                self._ended(job, saved, error)
            case JobUnclaimed(job=job):
                self._left(job, "unclaimed")
            case Paused(status=status):
                self._push_backs.add(1, {} if status is None else {"status": status})

    def _submitted(self, job: Job) -> None:
        now = time.time_ns()
        began = now - round(1e9 * (job.submit_seconds or 0))
        image = self._begin_image(job.request, began)
        self._identify(image, job)
        self._child(image, "submit", began).end(now)
        self._keep(job, _Open(image, self._child(image, "generate", now), is_running=True))
        self._in_flight.add(1)

    def _refused(self, request: ImageRequest, error: FluxError) -> None:
        image = self._begin_image(request, time.time_ns())
        outcome = _outcome(error)
        self._fail(image, outcome, error)
        image.end()
        self._count(request, outcome)

    def _ready(self, job: Job, polls: int) -> None:
        now = time.time_ns()
        held = self._open.get(job.job_id)
        if held is None:  # submitted by another process
            image = self._begin_image(job.request, now)
            self._identify(image, job)
            self._keep(job, _Open(image, self._child(image, "download", now), is_running=False))
            return
        held.image.set_attribute("fluxasync.polls", polls)
        self._stopped(held)
        held.step.end(now)
        held.step = self._child(held.image, "download", now)

    def _ended(self, job: Job, saved: Saved | None, error: FluxError | None) -> None:
        outcome = "saved" if error is None else error.cause
        self._count(job.request, outcome)
        if saved is not None and saved.cost:
            self._cost.add(float(saved.cost), self._model(job.request))
        held = self._open.pop(job.job_id, None)
        if held is None:
            return
        self._stopped(held)
        if saved is not None:
            held.image.set_attributes(_kept(saved))
        else:
            self._fail(held.step, outcome, error)
            self._fail(held.image, outcome, error)
        self._close(held)

    def _left(self, job: Job, why: str) -> None:
        held = self._open.pop(job.job_id, None)
        if held is not None:
            self._stopped(held)
            self._fail(held.image, why, None)
            self._close(held)

    def _keep(self, job: Job, held: _Open) -> None:
        self._open[job.job_id] = held
        if len(self._open) > MOST_OPEN:
            oldest = next(iter(self._open))
            self._left(Job(job_id=oldest), "not followed any longer")

    def _stopped(self, held: _Open) -> None:
        if held.is_running:
            held.is_running = False
            self._in_flight.add(-1)

    @staticmethod
    def _close(held: _Open) -> None:
        now = time.time_ns()
        held.step.end(now)
        held.image.end(now)

    def _begin_image(self, request: ImageRequest | None, began: int) -> Span:
        image = self._tracer.start_span("fluxasync.image", start_time=began)
        if request is not None:
            image.set_attribute("fluxasync.model", request.model)
            if self._prompts:
                image.set_attribute("fluxasync.prompt", request.prompt)
        return image

    def _child(self, image: Span, step: str, began: int) -> Span:
        above: Context = self._trace.set_span_in_context(image)
        return self._tracer.start_span(f"fluxasync.{step}", context=above, start_time=began)

    def _fail(self, span: Span, cause: str, error: FluxError | None) -> None:
        words = str(error) if self._prompts and error is not None else None
        span.set_attribute("error.type", cause)
        span.set_status(self._trace.StatusCode.ERROR, words)

    def _count(self, request: ImageRequest | None, outcome: str) -> None:
        self._images.add(1, self._model(request) | {"outcome": outcome})

    @staticmethod
    def _identify(image: Span, job: Job) -> None:
        image.set_attribute("fluxasync.job_id", job.job_id)
        if job.provider is not None:
            image.set_attribute("fluxasync.provider", job.provider)

    @staticmethod
    def _model(request: ImageRequest | None) -> dict[str, Any]:
        return {} if request is None else {"model": request.model}


def _outcome(error: FluxError) -> str:
    """Return the outcome of a submission; without an answer it is in doubt, not failed."""
    return "in doubt" if isinstance(error, TransportError) and error.sent else error.cause


def _int64(number: int | None) -> int | str | None:
    """Return a number as OTLP has it: its integers have 64 bits with a sign, so larger ones are
    text."""
    return number if number is None or number < 2**63 else str(number)


def _kept(saved: Saved) -> dict[str, Any]:
    stored = saved.stored
    facts: dict[str, Any] = {
        "fluxasync.width": stored.width,
        "fluxasync.height": stored.height,
        "fluxasync.format": stored.format,
        "fluxasync.bytes": stored.size,
        "fluxasync.seed": _int64(saved.seed),
        "fluxasync.cost": None if saved.cost is None else float(saved.cost),
    }
    return {name: value for name, value in facts.items() if value is not None}
