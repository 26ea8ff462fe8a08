"""The simulator's callbacks over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fluxasync.simulator import Scenario, Simulator

SECRET = "the-webhook-secret"
SCENARIO = Scenario(latency=(0, 0), image_bytes=2_000)


class Receiver:
    """A web server that keeps what it gets and answers with the given statuses, then 200."""

    def __init__(self, statuses: Sequence[int] = ()) -> None:
        self.url = ""
        self.calls: asyncio.Queue[tuple[str, dict[str, str], bytes]] = asyncio.Queue()
        self._statuses = list(statuses)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        self.calls.put_nowait((request.path, dict(request.headers), body))
        return web.Response(status=self._statuses.pop(0) if self._statuses else 200)


@asynccontextmanager
async def receiving(statuses: Sequence[int] = ()) -> AsyncIterator[Receiver]:
    """Run a receiver; a callback that never comes ends the block with a TimeoutError."""
    receiver = Receiver(statuses)
    runner = web.ServerRunner(web.Server(receiver.answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with asyncio.timeout(60):
            yield receiver
    finally:
        await runner.cleanup()


async def submitted(base_url: str, webhook_url: str) -> Any:
    body = {"prompt": "a fox", "webhook_url": webhook_url, "webhook_secret": SECRET}
    async with (
        aiohttp.ClientSession(headers={"x-key": "k"}) as client,
        client.post(f"{base_url}/v1/flux-dev", json=body) as answer,
    ):
        return await answer.json()


@pytest.mark.asyncio
async def test_a_callback_arrives_signed_and_its_job_is_polled_at_the_regional_host() -> None:
    """The story of one webhook at BFL: no polling URL, a signed call, one poll where it ran."""
    async with receiving() as receiver, Simulator(SCENARIO) as sim:
        job = await submitted(sim.regional_url, f"{receiver.url}/hook/the-token")
        assert "polling_url" not in job
        path, headers, body = await receiver.calls.get()
        expected = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        assert (path, headers["X-BFL-Signature"]) == ("/hook/the-token", f"sha256={expected}")
        assert json.loads(body)["id"] == job["id"]
        async with aiohttp.ClientSession() as client:
            for origin, status in ((sim.regional_url, 200), (sim.url, 404)):
                async with client.get(f"{origin}/v1/get_result?id={job['id']}") as answer:
                    assert answer.status == status


@pytest.mark.asyncio
async def test_a_refused_callback_comes_again() -> None:
    """The same bytes come again one second after a 500."""
    async with receiving([500]) as receiver, Simulator(SCENARIO) as sim:
        await submitted(sim.url, receiver.url)
        first, second = await receiver.calls.get(), await receiver.calls.get()
        assert first[2] == second[2]
        assert sim.world.callback_counts["retried"] == 1


@pytest.mark.asyncio
async def test_a_receiver_that_does_not_answer_holds_up_nothing() -> None:
    """Submissions are answered while a receiver hangs; the simulator ends without waiting."""
    hanging = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        hanging.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, asyncio.timeout(20), Simulator(SCENARIO) as sim:  # a callback waits 30
        await submitted(sim.url, url)
        await hanging.wait()
        assert (await submitted(sim.url, url))["id"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "url", ["https://hooks.example.com/x", "http://192.0.2.1.example/", "http://8.8.8.8/", "x"]
)
async def test_a_simulator_calls_nobody_outside_this_network(url: str) -> None:
    """A real application must not hear of simulated jobs, signed with its own secret."""
    async with Simulator(SCENARIO) as sim:
        await submitted(sim.url, url)
        assert dict(sim.world.callback_counts) == {"external": 1}
        assert sim.world.next_callback_at is None
