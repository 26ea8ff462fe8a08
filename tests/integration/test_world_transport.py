"""One contract for two transports: aiohttp with the simulator on sockets, and the world alone.

So the results of simulations in virtual time hold for the real transport.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from support.world_transport import ORIGIN, WorldTransport

from fluxasync import Timeouts, TransportError
from fluxasync._wire.transport import AiohttpTransport
from fluxasync.extend import Call, Reply, Transport
from fluxasync.simulator import Scenario, Simulator, World
from fluxasync.simulator.scenario import SeededRandom

Place = tuple[Transport, str, World]
Opened = Callable[[Scenario], AbstractAsyncContextManager[Place]]

BODY = json.dumps({"prompt": "a red fox", "width": 256, "height": 256}).encode()
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer k"}


@asynccontextmanager
async def on_sockets(scenario: Scenario) -> AsyncIterator[Place]:
    transport = AiohttpTransport(timeouts=Timeouts(), allow_loopback=True)
    async with Simulator(scenario) as sim, transport:
        yield transport, sim.url, sim.world


@asynccontextmanager
async def without_sockets(scenario: Scenario) -> AsyncIterator[Place]:
    world = World(scenario)
    yield WorldTransport(world), ORIGIN, world


opened = pytest.mark.parametrize(
    "opened",
    [pytest.param(on_sockets, id="sockets"), pytest.param(without_sockets, id="no sockets")],
)


async def submitted(place: Place, *, path: str = "/flux/v1/flux-dev", timeout: float = 5) -> Reply:
    transport, origin, _ = place
    url = origin + path
    return await transport.send(
        Call(method="POST", url=url, headers=HEADERS, body=BODY, timeout=timeout)
    )


async def sample_url(place: Place) -> str:
    """Submit, poll and return the signed URL."""
    transport, origin, _ = place
    job_id = json.loads((await submitted(place)).body)["id"]
    url = f"{origin}/flux/v1/get_result?id={job_id}"
    reply = await transport.send(Call(method="GET", url=url, headers=HEADERS))
    sample: str = json.loads(reply.body)["result"]["sample"]
    return sample


async def fetched(place: Place, url: str) -> tuple[int, bytes]:
    async with place[0].stream(url, timeout=5) as answer:
        return answer.status, b"".join([chunk async for chunk in answer.chunks()])


@opened
@pytest.mark.asyncio
async def test_a_job_goes_from_its_submit_to_its_image(opened: Opened):
    """Submit, poll and download reach the same world; its image arrives unchanged."""
    async with opened(Scenario(latency=0)) as place:
        url = await sample_url(place)
        status, image = await fetched(place, url)
        spec = place[2].picture_spec(0, url[url.index("/results") :])
        assert spec is not None
        assert (200, place[2].gallery.picture(spec).body) == (status, image)
        assert place[2].charges[0].delivered


@opened
@pytest.mark.asyncio
async def test_a_call_that_is_held_back_reaches_no_server(opened: Opened):
    """P11: an error of `before_send` ends the call, and nothing is sent or charged."""

    def hold() -> None:
        raise TransportError("held back", sent=False)

    async with opened(Scenario(latency=0)) as (transport, origin, world):
        call = Call(
            method="POST", url=f"{origin}/flux/v1/flux-dev", headers=HEADERS, before_send=hold
        )
        with pytest.raises(TransportError, match="held back"):
            await transport.send(call)
        assert len(world.requests) == 0


@opened
@pytest.mark.asyncio
async def test_header_names_are_lower_case(opened: Opened):
    """Replies and downloads have their headers by lower-case name, with the length."""
    async with opened(Scenario(latency=0)) as place:
        reply = await submitted(place)
        assert all(name in reply.headers for name in ("content-type", "date", "content-length"))
        async with place[0].stream(await sample_url(place), timeout=5) as answer:
            assert all(name in answer.headers for name in ("content-md5", "content-length"))
            assert answer.headers["content-type"] == "image/jpeg"


@opened
@pytest.mark.asyncio
async def test_a_regional_job_is_known_only_at_its_region(opened: Opened):
    """BFL: the polling URL answers, the submission host does not know the job."""
    async with opened(Scenario(latency=0)) as place:
        answer = json.loads((await submitted(place, path="/v1/flux-dev")).body)
        here = f"{place[1]}/v1/get_result?id={answer['id']}"
        statuses = [
            (await place[0].send(Call(method="GET", url=url, headers={"x-key": "k"}))).status
            for url in (answer["polling_url"], here)
        ]
        assert statuses == [200, 404]


@opened
@pytest.mark.asyncio
async def test_a_wrong_path_is_answered_as_the_gateway_does(opened: Opened):
    """A redirect is returned as an answer and is not followed."""
    async with opened(Scenario()) as place:
        assert (await submitted(place, path="/flux/flux-dev")).status == 301


@opened
@pytest.mark.parametrize(
    ("fault", "timeout"),
    [
        pytest.param("lost-reply", 5, id="F36 lost reply"),
        pytest.param(None, 0.05, id="F39 no answer in time"),
    ],
)
@pytest.mark.asyncio
async def test_a_submit_without_an_answer_counts_as_sent(
    opened: Opened, fault: str | None, timeout: float
):
    """The error of a submission that may have been charged has `sent=True`."""
    scenario = Scenario(faults=[fault] if fault else [], submit_delay=0 if fault else 0.5)
    async with opened(scenario) as place:
        with pytest.raises(TransportError) as caught:
            await submitted(place, timeout=timeout)
        assert caught.value.sent
        assert len(place[2].charges) == 1


@opened
@pytest.mark.asyncio
async def test_a_broken_download_raises_and_a_second_one_is_whole(opened: Opened):
    """F71: a connection that is reset half-way raises an error, never a short image."""
    async with opened(Scenario(latency=0, faults=["download-reset"])) as place:
        url = await sample_url(place)
        with pytest.raises(TransportError):
            await fetched(place, url)
        assert (await fetched(place, url))[0] == 200


@opened
@pytest.mark.asyncio
async def test_half_an_image_may_come_without_an_error(opened: Opened):
    """F72: without a Content-Length a truncated body ends without an error."""
    seed = next(n for n in range(100) if _ends_cleanly(Scenario(seed=n, faults=["truncated"])))
    scenario = Scenario(latency=0, seed=seed, faults=["truncated"])
    async with opened(scenario) as place:
        url = await sample_url(place)
        half, complete = (await fetched(place, url))[1], (await fetched(place, url))[1]
        assert complete[: len(half)] == half
        assert 0 < len(half) < len(complete)


def _ends_cleanly(scenario: Scenario) -> bool:
    """Whether the first job's body is truncated without a Content-Length."""
    return SeededRandom(scenario.seed).uniform("truncated with length", 1) >= 0.5


@opened
@pytest.mark.asyncio
async def test_a_signed_url_is_asked_for_byte_by_byte_and_without_the_key(opened: Opened):
    """F83, F84: a re-encoded signature is refused, the exact one is served, no key is sent."""
    async with opened(Scenario(latency=0)) as place:
        url = await sample_url(place)
        assert (await fetched(place, url.replace("%2F", "/")))[0] == 403
        assert (await fetched(place, url))[0] == 200
        assert not place[2].leaks


@opened
@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://10.0.0.1/x", "ftp://127.0.0.1/x"])
@pytest.mark.asyncio
async def test_an_invalid_url_is_refused_before_anything_is_sent(opened: Opened, url: str):
    """T4: only https is allowed, and http on loopback."""
    async with opened(Scenario()) as place:
        with pytest.raises(TransportError) as caught:
            await fetched(place, url)
        assert caught.value.permanent
        assert place[2].downloads == 0
