"""Where a session's calls go, and what of its key, its secrets and its URLs is ever seen."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from attrs import evolve
from support.simulator_sessions import PROVIDERS, audit, fast_session, outcomes_of, small_requests

from fluxasync import (
    AuthenticationError,
    Batch,
    ConfigError,
    FluxError,
    FluxSession,
    ImageRequest,
    Redirected,
    Saved,
)
from fluxasync._engine.session import engine_of
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
both_dialects = pytest.mark.parametrize("dialect", PROVIDERS)


def small_request(**parameters: Any) -> ImageRequest:
    return small_requests(1, **parameters)[0]


@both_dialects
@pytest.mark.asyncio
async def test_a_missing_key_names_its_variable(dialect: str):
    """The message says which variable to set, and that a simulator needs none."""
    provider = PROVIDERS[dialect]
    with pytest.raises(ConfigError, match=rf"{provider.key_variable}.*simulat"):
        async with FluxSession(provider):
            pass


@asynccontextmanager
async def gateway(origin: str, prefix: str) -> AsyncIterator[str]:
    """A user's gateway, which passes requests below a path prefix on to another origin."""

    async def pass_on(request: web.BaseRequest) -> web.Response:
        path = request.raw_path.removeprefix(prefix)
        if path == request.raw_path:
            return web.Response(status=301, headers={"Location": "/"})
        kept = {k: v for k, v in request.headers.items() if k.lower() != "host"}
        body = await request.read()
        async with session.request(
            request.method, origin + path, data=body, headers=kept
        ) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), headers=answer.headers
            )

    runner = web.ServerRunner(web.Server(pass_on, access_log=None))
    await runner.setup()
    async with aiohttp.ClientSession() as session:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}"
        finally:
            await runner.cleanup()


@both_dialects
@pytest.mark.asyncio
async def test_a_base_url_may_carry_a_path_prefix(dialect: str):
    """Submits and polls by id go below the prefix, with or without a slash at its end."""
    async with Simulator(SCENARIO) as sim, gateway(sim.url, "/team/flux") as url:
        for ending in ("", "/"):
            async with fast_session(url + ending, dialect) as flux:
                assert isinstance(await flux.generate(small_request()), Saved)
        assert len(sim.charges) == 2


@pytest.mark.asyncio
async def test_a_wrong_address_is_one_error_that_names_base_url():
    """F16: a redirect is never followed; the message says what to check."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url + "/wrong") as flux:
        with pytest.raises(Redirected, match="base_url"):
            await flux.generate(small_request())
        with pytest.raises(Redirected):
            await flux.generate(small_request())


@pytest.mark.asyncio
async def test_a_key_refused_for_polls_leaves_the_job_to_be_collected():
    """F63: the job is paid and listed; with the right key it is collected."""
    async with Simulator(evolve(SCENARIO, key="right")) as sim:
        async with fast_session(sim.url, api_key="right") as flux:
            job = await flux.submit(small_request())
        async with fast_session(sim.url, api_key="wrong") as flux:
            with pytest.raises(AuthenticationError):
                await flux.collect(job)
            assert (job,) == flux.unclaimed
        async with fast_session(sim.url, api_key="right") as flux:
            audit(sim.world, [await flux.collect(job)])


KEY = "canary-key-5b1e"
WEBHOOK_SECRET = "canary-hook-77ac"
CANARIES = (KEY, WEBHOOK_SECRET, "sig=")
NOISY = ["lost-reply:0.2", "500:0.2", "moderated-content:0.2", "expired:0.3", "wrong-bytes:0.3"]


@both_dialects
@pytest.mark.asyncio
async def test_no_secret_is_seen_anywhere(
    dialect: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """P22, T1, T2: not the key, not the webhook's secret, no signed URL: in no log, repr,
    exception or file, and no key at the delivery or at a foreign host."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    shown: list[Any] = []
    requests = small_requests(
        12, webhook_url="https://hooks.example.com", webhook_secret=WEBHOOK_SECRET
    )
    scenario = evolve(SCENARIO, key=KEY, faults=NOISY)
    async with (
        Simulator(scenario) as sim,
        fast_session(_polled(sim, dialect), dialect, api_key=KEY, on_event=shown.append) as flux,
    ):
        async with Batch(flux, requests, out=tmp_path, name="{index}.{ext}") as batch:
            shown += await outcomes_of(batch)
        shown += [flux, batch, batch.summary, engine_of(flux).provider, *requests, *_inside(flux)]
    async with Simulator(evolve(scenario, key="other")) as sim:
        shown += await _errors_of(sim.url, dialect)
        assert not sim.world.leaks
    for text in (caplog.text, *map(_everything, shown), *_contents(tmp_path)):
        for canary in CANARIES:
            assert canary not in text


def _polled(sim: Simulator, dialect: str) -> str:
    """The address at which jobs with a webhook can be polled."""
    return sim.regional_url if dialect == "bfl" else sim.url


async def _errors_of(url: str, dialect: str) -> list[FluxError]:
    """A wrong key, a dead address and a refused parameter."""
    errors = []
    for base_url in (url, "http://127.0.0.1:9", url + "/wrong"):
        async with fast_session(base_url, dialect, api_key=KEY) as flux:
            with pytest.raises(FluxError) as caught:
                await flux.generate(small_request(webhook_secret=WEBHOOK_SECRET))
            errors.append(caught.value)
    return errors


def _inside(flux: FluxSession) -> Iterator[object]:
    """Yield every object that the session holds, for its repr."""
    for value in vars(flux).values():
        yield value
        if type(value).__module__.startswith("fluxasync"):
            yield from gc.get_referents(value)


def _everything(value: object) -> str:
    """The repr and text of a value, with the tracebacks of an exception and its causes."""
    error = getattr(value, "error", value)
    text = f"{value!r} {value}"
    if isinstance(error, BaseException):
        text += "".join(traceback.format_exception(error)) + repr(error.args)
    return text


def _contents(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        yield path.name
        if path.is_file():
            yield path.read_bytes().decode("latin-1")
