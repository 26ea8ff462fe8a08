"""With BFL a webhook needs a regional host: its answers have no polling URL then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.simulator_sessions import tally
from support.virtual_time import run
from support.world_transport import ORIGIN, REGION, WorldTransport

from fluxasync import (
    BFL,
    Batch,
    ConfigError,
    FluxSession,
    ImageRequest,
    MemorySink,
    Polling,
    TransportError,
)
from fluxasync.extend import Call, Reply
from fluxasync.simulator import Scenario, World
from fluxasync.webhooks import Webhook

POLLING = Polling(webhook=Webhook(url="https://app.invalid/hook"))
OWN = ImageRequest(prompt="a fox", webhook_url="https://mine.invalid/hook")


class Refusing(WorldTransport):
    """Fails the test where anything is sent."""

    async def send(self, call: Call) -> Reply:
        raise AssertionError(call)


@pytest.mark.parametrize(
    "base_url",
    [None, "https://api.bfl.ai", "https://api.bfl.ai.", "https://gateway.bfl.ai"],
)
def test_the_global_host_is_refused_before_anything_is_sent(base_url: str | None) -> None:
    """On entry of the session, and already when a batch is made, as by --dry-run."""

    async def story() -> None:
        flux = FluxSession(
            "bfl", api_key="k", base_url=base_url, polling=POLLING, transport=Refusing(World())
        )
        with pytest.raises(ConfigError, match="give a regional base URL, https://api"):
            Batch(flux, ["a fox"])
        with pytest.raises(ConfigError, match="give a regional base URL, https://api"):
            async with flux:
                pass

    run(story())


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.eu.bfl.ai",
        "https://api.us.bfl.ai",
        "https://api.us.bfl.ai.",
        "https://gateway.example",
        ORIGIN,
    ],
)
def test_regional_hosts_and_gateways_are_not_refused(base_url: str) -> None:
    """A gateway has one origin, where its jobs are polled."""

    async def story() -> None:
        flux = FluxSession(
            "bfl", api_key="k", base_url=base_url, polling=POLLING, transport=Refusing(World())
        )
        async with flux:
            pass

    run(story())


def test_a_rows_own_webhook_is_refused_at_the_global_host() -> None:
    """Its job would be paid and then not found: nothing is sent, the row is invalid."""

    async def story() -> dict[str, int]:
        flux = FluxSession("bfl", api_key="k", transport=Refusing(World()))
        async with flux:
            with pytest.raises(ConfigError, match="regional base URL"):
                await flux.submit(OWN)
            async with Batch(flux, [OWN], out=MemorySink()) as batch:
                return tally([outcome async for outcome in batch])

    assert run(story()) == {"invalid": 1}


def test_the_answer_without_a_polling_url_is_a_job() -> None:
    """BFL's AsyncWebhookResponse: polled by its id at the base URL."""

    async def story() -> int:
        world = World(Scenario(latency=(1, 1), image_bytes=1))
        flux = FluxSession(BFL, base_url=REGION, polling=POLLING, transport=WorldTransport(world))
        async with flux:
            saved = await flux.generate("a fox")
        assert saved.job.polling_url is None
        return world.downloads

    assert run(story()) == 1


def session(world: World, origin: str = ORIGIN, **options: Any) -> FluxSession:
    options = {"polling": POLLING, "transport": WorldTransport(world)} | options
    return FluxSession(BFL, base_url=origin, **options)


def test_a_host_that_does_not_know_its_jobs_costs_one_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other submissions wait for the first job; the errors name the regions, where it is
    collected for free."""

    async def story() -> tuple[int, list[str], str, dict[str, int]]:
        world = World(Scenario(latency=(1, 1), image_bytes=1))
        prompts = [f"fox {number}" for number in range(40)]
        async with session(world) as flux:
            batch, errors = Batch(flux, prompts, out=tmp_path), list[str]()
            async with batch:
                with pytest.raises(TransportError) as ended:  # noqa: PT012
                    async for outcome in batch:
                        errors.append(str(getattr(outcome, "error", "saved")))
        charged = world.posts
        async with session(world, REGION) as flux:
            batch = Batch(flux, prompts, out=tmp_path, retry="lost")
            async with batch:
                later = tally([outcome async for outcome in batch])
        assert world.posts == len(world.charges) == len(prompts)
        return charged, errors, str(ended.value), later

    charged, errors, ended, later = run(story())
    assert charged == 1
    assert later == {"saved": 40}
    [lost] = errors
    [warned] = [record.getMessage() for record in caplog.records]
    for message in (lost, ended, warned):
        assert "regional base URL, https://api.eu.bfl.ai or https://api.us.bfl.ai" in message
        assert "retry 'lost' collects the paid job for free" in message


def test_a_host_that_knows_its_jobs_holds_up_the_others_for_one_poll() -> None:
    """The first submission goes alone; then all slots are used."""

    async def story() -> tuple[int, float]:
        world = World(Scenario(latency=(1, 1), image_bytes=1))
        began = asyncio.get_running_loop().time()
        async with session(world, REGION) as flux:
            summary = await Batch(flux, ["a fox", "a pond"], out=MemorySink()).run()
        return summary.saved, asyncio.get_running_loop().time() - began

    saved, seconds = run(story())
    assert saved == 2
    assert seconds < 2


def test_a_lost_or_cancelled_first_submission_lets_the_next_one_go() -> None:
    """None of them waits for a job that never comes."""

    async def story() -> int:
        world = World(Scenario(latency=(1, 1), image_bytes=1, faults=["lost-reply"]))
        async with session(world, REGION) as flux:
            first, second, third = (
                asyncio.create_task(flux.generate(f"fox {number}")) for number in range(3)
            )
            await asyncio.sleep(0)
            second.cancel()
            ended = await asyncio.gather(first, second, third, return_exceptions=True)
        assert [type(error) for error in ended] == [
            TransportError,
            asyncio.CancelledError,
            TransportError,
        ]
        return world.posts

    assert run(story()) == 2


def test_a_stopped_batch_does_not_wait_for_the_first_job() -> None:
    """The rows that wait end at once, without a submission."""

    async def story() -> tuple[int, float]:
        world = World(Scenario(latency=(1, 1), image_bytes=1))
        async with session(world) as flux:
            async with Batch(flux, ["a fox", "a pond"], out=MemorySink(), grace=1) as batch:
                await asyncio.sleep(5)
                began = asyncio.get_running_loop().time()
                batch.stop()
                async for _ in batch:
                    pass
            return world.posts, asyncio.get_running_loop().time() - began

    posts, seconds = run(story())
    assert posts == 1
    assert seconds <= 2


def test_the_end_of_the_session_ends_the_wait() -> None:
    """A submission that waits fails; nothing is sent for it."""

    async def story() -> tuple[int, str]:
        world = World(Scenario(latency=(1, 1), image_bytes=1))
        async with session(world) as flux:
            await flux.submit(ImageRequest(prompt="a fox"))
            waiting = asyncio.create_task(flux.submit(ImageRequest(prompt="a pond")))
            await asyncio.sleep(1)
        with pytest.raises(ConfigError) as ended:
            await waiting
        return world.posts, str(ended.value)

    assert run(story()) == (1, "the session was closed before this submission")
