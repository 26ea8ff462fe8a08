"""Spans and metrics of a run, as OpenTelemetry's own SDK receives them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import Any

import pytest
from attrs import evolve, frozen
from support.simulator_sessions import fast_session, run_out, small_requests, until

from fluxasync import Batch, ImageRequest, Job, Moderated, Saved
from fluxasync._core.extras import install_command
from fluxasync.events import JobSubmitted
from fluxasync.otel import MOST_OPEN, Tracing
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("opentelemetry.sdk", reason="the SDK is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

SCENARIO = Scenario(latency=(0, 0.02))
STEPS = ("submit", "generate", "download")


@frozen
class Backend:
    """An application's backend for traces and metrics, in memory."""

    spans: InMemorySpanExporter
    reader: InMemoryMetricReader
    providers: dict[str, Any]

    def named(self, name: str) -> list[ReadableSpan]:
        return [s for s in self.spans.get_finished_spans() if s.name == f"fluxasync.{name}"]

    def image(self) -> ReadableSpan:
        (image,) = self.named("image")
        return image

    def counts(self, name: str, by: str | None = None) -> dict[Any, float]:
        """The values of a metric, by one of their attributes."""
        read = self.reader.get_metrics_data()
        metrics = [] if read is None else read.resource_metrics[0].scope_metrics[0].metrics
        (found,) = (metric for metric in metrics if metric.name == f"fluxasync.{name}")
        return {dict(p.attributes).get(by): p.value for p in found.data.data_points}


@pytest.fixture
def backend() -> Backend:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    metering = MeterProvider([reader], shutdown_on_exit=False)
    return Backend(spans, reader, {"tracer_provider": tracing, "meter_provider": metering})


def _all_text(backend: Backend) -> str:
    return "".join(span.to_json() for span in backend.spans.get_finished_spans())


@pytest.mark.asyncio
async def test_an_image_is_a_span_with_its_steps(backend: Backend):
    """Submit, generate and download are in the image's span, one after the other, below the
    caller's span."""
    tracer = backend.providers["tracer_provider"].get_tracer("the app")
    async with (
        Simulator(SCENARIO) as sim,
        fast_session(sim.url, on_event=Tracing(**backend.providers)) as flux,
    ):
        with tracer.start_as_current_span("a request of the app") as request:
            saved = await flux.generate(small_requests(1)[0])
    image = backend.image()
    assert image.parent == request.get_span_context()
    steps = [backend.named(step)[0] for step in STEPS]
    assert [image.context] * 3 == [step.parent for step in steps]
    times = [at for step in steps for at in (step.start_time, step.end_time)]
    assert times == sorted(times)
    assert (image.start_time, image.end_time) == (times[0], times[-1])
    expected = {
        "fluxasync.model": "flux-dev",
        "fluxasync.job_id": saved.job.job_id,
        "fluxasync.provider": "cometapi",
        "fluxasync.width": 256,
        "fluxasync.seed": 0,
        "fluxasync.cost": 0.025,
    }
    assert expected.items() <= dict(image.attributes or {}).items()


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_run_is_counted_by_outcome(backend: Backend):
    """Images, failures by cause, cost and jobs in flight agree with the summary."""
    faults = ["moderated-content:0.3", "lost-reply:0.2"]
    # long enough to be in each other's way on any machine
    full = evolve(SCENARIO, latency=0.2, faults=faults, active_limit=3, retry_after=None)
    async with (
        Simulator(full) as sim,
        fast_session(sim.url, limits=6, on_event=Tracing(**backend.providers)) as flux,
    ):
        batch = Batch(flux, small_requests(20))
        await run_out(batch)
    summary = batch.summary
    counted = {"saved": summary.saved, "in doubt": summary.in_doubt, **summary.failed}
    assert counted == backend.counts("images", "outcome")
    assert {"flux-dev": float(summary.cost)} == pytest.approx(backend.counts("cost", "model"))
    assert backend.counts("jobs.in_flight") == {None: 0}
    assert backend.counts("push_backs", "status")[429] > 0
    assert len(backend.named("image")) == 20


@pytest.mark.asyncio
async def test_a_failure_is_an_error_with_its_cause(backend: Backend):
    """The span of a moderated image has the cause."""
    async with (
        Simulator(evolve(SCENARIO, faults=["moderated-content"])) as sim,
        fast_session(sim.url, on_event=Tracing(**backend.providers)) as flux,
    ):
        with pytest.raises(Moderated):
            await flux.generate(small_requests(1)[0])
    image = backend.image()
    assert image.status.status_code is StatusCode.ERROR
    assert dict(image.attributes or {})["error.type"] == "moderated"
    assert backend.named("download") == []


@pytest.mark.asyncio
async def test_an_unclaimed_job_ends_its_span(backend: Backend):
    """The job of a cancelled caller is no longer in flight, and its span is marked as unclaimed."""
    async with (
        Simulator(evolve(SCENARIO, latency=(30, 30))) as sim,
        fast_session(sim.url, on_event=Tracing(**backend.providers)) as flux,
    ):
        task = asyncio.create_task(flux.generate(small_requests(1)[0]))
        await until(lambda: backend.named("submit"))
        assert backend.counts("jobs.in_flight") == {None: 1}
        task.cancel()
        await asyncio.wait({task})
    assert dict(backend.image().attributes or {})["error.type"] == "unclaimed"
    assert backend.counts("jobs.in_flight") == {None: 0}


@pytest.mark.asyncio
async def test_a_job_of_an_earlier_process_is_traced_from_its_download(backend: Backend):
    """`collect` of a job from another process has a span too, without a submission."""
    async with Simulator(SCENARIO) as sim:
        async with fast_session(sim.url) as flux:
            job = await flux.submit(small_requests(1)[0])
        async with fast_session(sim.url, on_event=Tracing(**backend.providers)) as flux:
            await flux.collect(job)
    assert [len(backend.named(step)) for step in STEPS] == [0, 0, 1]
    assert backend.counts("images") == {None: 1}


@pytest.mark.parametrize(
    "prompts", [pytest.param(False, id="by default"), pytest.param(True, id="asked for")]
)
@pytest.mark.parametrize("fault", ["moderated-request", "402", "expired"])
@pytest.mark.asyncio
async def test_no_key_and_no_prompt_by_default(backend: Backend, fault: str, prompts: bool):
    """Spans and metrics never have the key, and have the prompt only with `prompts=True`."""
    secret, prompt = "sk-made-up-and-secret", "a private prompt"
    tracing = Tracing(prompts=prompts, **backend.providers)
    async with (
        Simulator(evolve(SCENARIO, faults=[fault])) as sim,
        fast_session(sim.url, api_key=secret, on_event=tracing) as flux,
    ):
        request = ImageRequest(prompt=prompt, width=256, height=256)
        await run_out(Batch(flux, [request]))
    text = _all_text(backend)
    assert secret not in text
    assert "sig=" not in text  # a signed URL is a key to the image
    assert prompts == (prompt in text)


@pytest.mark.asyncio
async def test_p26_a_broken_backend_stops_nothing(
    backend: Backend, caplog: pytest.LogCaptureFixture
):
    """P26: an exporter that raises at every span costs no image, and is logged once."""

    class Broken(TracerProvider):
        def get_tracer(self, *args: Any, **options: Any) -> Any:
            return None  # every use of it fails

    tracing = Tracing(tracer_provider=Broken(shutdown_on_exit=False))
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, on_event=tracing) as flux:
        with caplog.at_level(logging.WARNING, logger="fluxasync"):
            outcomes, error = await run_out(Batch(flux, small_requests(5)))
    assert (error, [Saved] * 5) == (None, list(map(type, outcomes)))
    assert sum("observer failed" in record.message for record in caplog.records) == 1


def test_open_spans_are_limited():
    """Of jobs that another process collects only the latest keep an open span."""
    tracing = Tracing()
    for number in range(MOST_OPEN + 5):
        tracing(JobSubmitted(job=Job(job_id=str(number)), in_flight=1))
    assert repr(tracing) == f"<Tracing {MOST_OPEN} images under way>"


def test_without_opentelemetry_the_extra_is_named():
    """The error has the command that installs it."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from fluxasync.otel import Tracing\n"
        "try:\n    Tracing()\nexcept ValueError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == f"tracing needs OpenTelemetry: {install_command('otel')}\n"
