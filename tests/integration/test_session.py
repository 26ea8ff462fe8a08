"""One session against the simulator: the verbs, the slots, the money, the observers. Cancellation
is in `test_cancellation.py`, addresses and keys are in `test_key.py`."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.sample_images import jpeg
from support.simulator_sessions import (
    FAST,
    PROVIDERS,
    SIDE,
    audit,
    audit_image,
    end_jobs,
    fast_session,
    names,
    small_requests,
    until,
)

from fluxasync import (
    BudgetExceeded,
    ConfigError,
    DeadlineExceeded,
    FluxSession,
    ImageRequest,
    InvalidRequest,
    Job,
    Limits,
    MemorySink,
    Pending,
    Ready,
    SinkError,
)
from fluxasync._engine.session import engine_of
from fluxasync.events import Event, JobReady, JobSubmitted
from fluxasync.extend import Stored
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
both_dialects = pytest.mark.parametrize("dialect", PROVIDERS)


def small_request(number: int = 0, **parameters: Any) -> ImageRequest:
    return small_requests(1, start=number, **parameters)[0]


# --- the verbs ------------------------------------------------------------------------------------


@both_dialects
@pytest.mark.asyncio
async def test_an_image_goes_from_verb_to_verb(dialect: str, tmp_path: Path):
    """submit, poll, watch and download in a row end in the requested file."""
    scenario = evolve(SCENARIO, latency=600)
    async with Simulator(scenario) as sim, fast_session(sim.url, dialect) as flux:
        job = await flux.submit(small_request())
        assert isinstance(await flux.poll(job), Pending)
        end_jobs(sim)
        ready = await flux.watch(job)
        assert isinstance(await flux.poll(job), Ready)
        saved = await flux.download(ready, to=tmp_path / "fox.jpg")
        assert tmp_path / "fox.jpg" == saved.path
        assert {"submit", "watch", "generate", "download", "polls"} == set(saved.timings)
        audit(sim.world, [saved])


@both_dialects
@pytest.mark.asyncio
async def test_generate_stores_the_image_at_its_target(dialect: str, tmp_path: Path):
    """`to` is None, a file or a sink: the bytes are in memory, on disk, in the sink."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, dialect) as flux:
        in_memory = await flux.generate(small_request(0))
        on_disk = await flux.generate(small_request(1), to=tmp_path / "image.png")
        in_sink = await flux.generate(small_request(2), to=MemorySink())
        assert in_memory.data is not None
        assert (in_memory.path, on_disk.data) == (None, None)
        assert on_disk.stored.format == "png", "the file's suffix asks for its format"
        assert {"image.png"} == names(tmp_path)
        audit(sim.world, [in_memory, on_disk, in_sink])


@pytest.mark.asyncio
async def test_a_size_that_cannot_be_does_not_keep_a_paid_job_from_being_collected():
    """F161: the size only chooses the poll schedule; a job of a damaged record is fetched."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        job = await flux.submit(small_request())
        assert job.request is not None
        odd = evolve(job, request=evolve(job.request, width=-5))
        assert (await flux.collect(odd)).data is not None


@pytest.mark.asyncio
async def test_generate_takes_the_vendors_parameters_by_name():
    """A prompt and keywords make the request; the outcome has the seed that was used."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        saved = await flux.generate(
            "a red fox", model="flux-pro-1.1", width=320, height=256, seed=7, output_format="png"
        )
        assert (
            saved.stored.width,
            saved.stored.height,
            saved.stored.format,
            saved.seed,
        ) == (320, 256, "png", 7)
        audit(sim.world, [saved])


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"width": 1023}, id="F137 a size between steps"),
        pytest.param({"widht": 512}, id="F137 a misspelt parameter"),
        pytest.param({"aspect_ratio": "16:9"}, id="another model's parameter"),
        pytest.param({"image_prompt": "no-such-file.jpg"}, id="an image that is not there"),
        pytest.param({"n": 2}, id="more than one image"),
    ],
)
@pytest.mark.asyncio
async def test_bad_parameters_cost_nothing(parameters: dict[str, Any]):
    """P19: parameters that the model does not take are refused before anything is sent."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError):
            await flux.generate("a red fox", **parameters)
        assert sim.world.posts == 0


@pytest.mark.asyncio
async def test_an_existing_file_is_refused_before_spending(tmp_path: Path):
    """F108: nothing is sent, and the file stays unchanged."""
    (tmp_path / "fox.jpg").write_bytes(b"mine")
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(SinkError, match="exists already"):
            await flux.generate("a red fox", to=tmp_path / "fox.jpg")
        assert sim.world.posts == 0
    assert (tmp_path / "fox.jpg").read_bytes() == b"mine"


@both_dialects
@pytest.mark.asyncio
async def test_a_kept_job_is_collected_by_another_session(dialect: str):
    """A job's id, and its polling URL where jobs are regional, are all that must be kept."""
    async with Simulator(SCENARIO) as sim:
        async with fast_session(sim.url, dialect) as flux:
            job = await flux.submit(small_request())
        kept = Job(job_id=job.job_id, polling_url=job.polling_url)
        async with fast_session(sim.url, dialect) as later:
            saved = await later.collect(kept)
        assert sim.world.posts == 1
        assert job.job_id == saved.job.job_id
        audit_image(sim.world, evolve(saved, request=job.request))


@pytest.mark.asyncio
async def test_a_job_is_collected_by_its_id():
    """The id alone is enough in another process; the session itself still knows the request."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        first, second = [await flux.submit(each) for each in small_requests(2)]
        async with fast_session(sim.url) as other:
            saved = await other.collect(first.job_id)
        assert (saved.job.job_id, saved.request) == (first.job_id, None)
        engine_of(flux).mark_unclaimed(second)
        saved = await flux.collect(second.job_id)
        assert (saved.request, flux.unclaimed) == (second.request, ())


@pytest.mark.asyncio
async def test_a_closed_session_waits_for_its_posts_and_is_closed_twice_without_harm():
    """P26 `aclose` is what leaving the block does; afterwards nothing can be sent."""
    async with Simulator(evolve(SCENARIO, latency=600)) as sim:
        flux = await fast_session(sim.url).__aenter__()
        task = asyncio.create_task(flux.submit(small_request()))
        await until(lambda: flux.in_flight == 1)
        await flux.aclose()
        await flux.aclose()
        assert [charge.job_id for charge in sim.world.charges] == [(await task).job_id]
        assert repr(flux).startswith("<FluxSession closed")
        with pytest.raises(ConfigError, match="not open"):
            await flux.submit(small_request())


@pytest.mark.asyncio
async def test_a_job_with_a_webhook_is_polled_at_the_regional_origin():
    """With a webhook BFL gives no polling URL, so the job is polled at its submission's origin."""
    request = small_request(webhook_url="https://hooks.example.com/x", webhook_secret="s")
    async with Simulator(SCENARIO) as sim, fast_session(sim.regional_url, "bfl") as flux:
        saved = await flux.generate(request)
        assert saved.job.polling_url is None
        audit(sim.world, [saved])


@pytest.mark.asyncio
async def test_an_image_input_goes_out_as_the_wire_wants_it(tmp_path: Path):
    """A path is read and sent; the job knows its digest, not its bytes."""
    (tmp_path / "start.jpg").write_bytes(jpeg(64, 64))
    request = small_request(image_prompt=tmp_path / "start.jpg")
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        saved = await flux.generate(request)
        sent = saved.job.request
        assert sent is not None
        assert sent.image_prompt is not None
        assert sent.image_prompt.sha256
        assert len(sim.charges) == 1


@pytest.mark.asyncio
async def test_a_job_past_its_deadline_can_be_collected_later():
    """F54: the deadline ends the wait, not the image."""
    slow = evolve(SCENARIO, latency=0.5)
    hasty = evolve(FAST["timeouts"], job=0.05)
    async with Simulator(slow) as sim:
        async with fast_session(sim.url, timeouts=hasty) as flux:
            with pytest.raises(DeadlineExceeded) as caught:
                await flux.generate(small_request())
            assert flux.in_flight == 0, "its slot is free"
        async with fast_session(sim.url) as flux:
            saved = await flux.collect(caught.value.job)
        audit(sim.world, [saved])


@pytest.mark.asyncio
async def test_a_session_that_is_not_open_says_so():
    """Using a session outside its block is a ConfigError, not an AttributeError."""
    flux = FluxSession(base_url="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="not open"):
        await flux.generate("a red fox")
    async with flux:
        assert repr(flux) == "<FluxSession 0 in flight>"
    with pytest.raises(ConfigError, match="not open"):
        await flux.submit(small_request())


class Swapping(MemorySink):
    """Stores another image than the received one, as if the provider had drawn it."""

    async def store(self, *given: Any) -> Stored:
        return evolve(await super().store(*given), width=SIDE // 2, format="webp")


@pytest.mark.asyncio
async def test_an_image_of_another_size_or_format_is_logged_once(caplog: pytest.LogCaptureFixture):
    """F76, F80: it is whole and paid, so it is kept; a different size or format is logged once."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        for number in range(2):
            await flux.generate(small_request(number, output_format="png"), to=Swapping())
        await flux.generate(small_request(2, output_format="png"))
    assert [record.getMessage() for record in caplog.records] == [
        f"flux-dev: images come with width {SIDE // 2} and not {SIDE} as asked",
        "flux-dev: images come with format webp and not png as asked",
    ]


# --- slots ----------------------------------------------------------------------------------------


@both_dialects
@pytest.mark.asyncio
async def test_no_more_jobs_are_active_than_the_limit(dialect: str):
    """P12: thirty callers share four slots, and the server never has to push back."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, dialect, limits=4) as flux:
        saved = await asyncio.gather(*map(flux.generate, small_requests(30)))
        assert sim.world.max_active <= 4
        assert sim.world.refused[429] == 0
        assert flux.in_flight == 0
        audit(sim.world, saved)


@pytest.mark.asyncio
async def test_a_models_own_limit_leaves_slots_to_other_models():
    """P12: of flux-kontext-max at most six are active, while flux-dev uses the other slots."""
    narrow = [ImageRequest(prompt=f"k{n}", model="flux-kontext-max") for n in range(12)]
    async with (
        Simulator(evolve(SCENARIO, latency=1.0)) as sim,
        fast_session(sim.url, limits=10) as flux,
    ):

        async def through(request: ImageRequest) -> None:
            await flux.watch(await flux.submit(request))

        async with asyncio.TaskGroup() as tasks:
            for request in (*narrow, *small_requests(12)):
                tasks.create_task(through(request))
        assert sim.world.refused[429] == 0
        assert sim.world.max_active == 10
        assert len(sim.charges) == 24


@pytest.mark.asyncio
async def test_a_slot_is_free_while_its_image_downloads():
    """P12: at one job in flight, the next is submitted before the last one's slow download ends."""
    scenario = evolve(SCENARIO, latency=0, faults=["slow"], slow_bytes_per_second=50_000)
    async with Simulator(scenario) as sim, fast_session(sim.url, limits=1) as flux:
        saved = [asyncio.create_task(flux.generate(request)) for request in small_requests(3)]
        await until(lambda: len(sim.charges) == 3)
        assert not any(task.done() for task in saved)
        audit(sim.world, await asyncio.gather(*saved))


@pytest.mark.asyncio
async def test_higher_priority_goes_first():
    """The waiter with the highest priority goes first, then the earliest."""
    async with (
        Simulator(evolve(SCENARIO, latency=0.05)) as sim,
        fast_session(sim.url, limits=1) as flux,
    ):
        first = asyncio.create_task(flux.generate(small_request(0)))
        await until(lambda: sim.charges)
        rest = [
            asyncio.create_task(flux.generate(small_request(number), priority=priority))
            for number, priority in ((1, 0), (2, 0), (3, 5))
        ]
        await asyncio.gather(first, *rest)
        assert [charge.seed for charge in sim.charges] == [0, 3, 1, 2]


@pytest.mark.asyncio
async def test_limits_change_while_running():
    """A raised limit lets waiting requests go at once; a lowered one holds the next ones back."""
    counts: list[int] = []

    def lowered(event: Event) -> None:  # in the moment of the fourth: a fifth has no time to go
        if isinstance(event, JobSubmitted):
            counts.append(event.in_flight)
            if len(counts) == 4:
                flux.limits = 1

    async with (
        Simulator(evolve(SCENARIO, latency=0.4)) as sim,
        fast_session(sim.url, limits=1, on_event=lowered) as flux,
    ):
        tasks = [asyncio.create_task(flux.generate(request)) for request in small_requests(6)]
        await until(lambda: sim.charges)
        flux.limits = evolve(flux.limits, in_flight=4)
        await asyncio.gather(*tasks)
        assert sim.world.max_active == 4
        assert counts[4:] == [1, 1]


@pytest.mark.asyncio
async def test_download_places_change_while_running():
    """More download places serve the images that wait for one; fewer hold the next ones back."""
    ready: list[Event] = []
    scenario = evolve(SCENARIO, latency=0, faults=["slow"], slow_bytes_per_second=10_000)
    narrow = Limits(downloads=1)
    async with (
        Simulator(scenario) as sim,
        fast_session(sim.url, limits=narrow, on_event=ready.append) as flux,
    ):
        tasks = [asyncio.create_task(flux.generate(request)) for request in small_requests(3)]
        await until(lambda: sum(isinstance(event, JobReady) for event in ready) == 3)
        await until(lambda: sim.world.downloads)
        assert sim.world.downloads == 1
        flux.limits = evolve(narrow, downloads=3)
        await until(lambda: sim.world.downloads == 3)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- money ----------------------------------------------------------------------------------------


@both_dialects
@pytest.mark.parametrize(
    ("faults", "charged"),
    [
        pytest.param([], 4, id="P7 nothing goes wrong"),
        pytest.param(["429:0.5"], 4, id="P7 refused ones give their share back"),
        pytest.param(["moderated-content:0.5"], 4, id="P7 moderated ones may have been charged"),
        pytest.param(["lost-reply:0.5"], 4, id="P7 doubtful ones keep their share"),
    ],
)
@pytest.mark.asyncio
async def test_a_budget_is_exact_under_concurrency(dialect: str, faults: list[str], charged: int):
    """P7: ten callers at once, and the server charges for as many as the cap pays: no more."""
    scenario = evolve(SCENARIO, faults=faults)
    async with (
        Simulator(scenario) as sim,
        fast_session(sim.url, dialect, limits=10, budget="$0.11") as flux,
    ):
        ends = await asyncio.gather(*map(flux.generate, small_requests(10)), return_exceptions=True)
        assert charged == len(sim.charges)
        assert 10 - charged == sum(isinstance(end, BudgetExceeded) for end in ends)


@pytest.mark.asyncio
async def test_an_unknown_price_cannot_be_kept_under_a_budget():
    """F160: a model of unknown price is refused under a cap, unsent."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, budget=5) as flux:
        with pytest.raises(ConfigError, match="unknown price"):
            await flux.generate("a red fox", model="flux-99")
        assert sim.world.posts == 0
        assert flux.in_flight == 0


@both_dialects
@pytest.mark.asyncio
async def test_an_unknown_model_goes_through_with_one_warning(
    dialect: str, caplog: pytest.LogCaptureFixture
):
    """The server decides which models exist, not the catalogue; the warning comes once."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, dialect) as flux:
        for _ in range(2):
            with pytest.raises(InvalidRequest):
                await flux.generate("a red fox", model="flux-99", extra_body={"new": 1})
        assert sim.world.posts == 2
    warned = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warned) == 1
    assert "flux-99" in warned[0].getMessage()


# --- observers ------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_observer_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture):
    """P26, F165: every image is saved, and the observer's error is logged once."""
    seen: list[Event] = []

    def broken(event: Event) -> None:
        seen.append(event)
        raise RuntimeError("a bug in the user's own display")

    async with Simulator(SCENARIO) as sim, fast_session(sim.url, on_event=broken) as flux:
        audit(sim.world, await asyncio.gather(*map(flux.generate, small_requests(3))))
    kinds = [type(event) for event in seen]
    assert (kinds.count(JobSubmitted), kinds.count(JobReady)) == (3, 3)
    assert sum("observer" in record.getMessage() for record in caplog.records) == 1
