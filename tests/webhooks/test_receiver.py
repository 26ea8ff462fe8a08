"""Receiver: what becomes of one call, in each way of serving it."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.asgi_server import serving
from support.virtual_time import run
from support.webhook_calls import BODY, SECRET, SIGNED, Bells, receiver_of

from fluxasync import ConfigError, FluxSession, Polling
from fluxasync._core.attempts import new_token
from fluxasync.webhooks import CallbackCounts, Receiver, Webhook

TOKEN = "0" * 32


def test_a_call_rings_with_its_token_and_its_job_only() -> None:
    """F97, T11: the status, the result and the URL in a payload go nowhere."""
    bells = Bells()
    receiver = receiver_of(bells)
    assert receiver.receive(bells.token, SIGNED, BODY) == 200
    assert bells.rings == [(bells.token, "job-1")]


def test_repeated_replayed_and_unordered_calls_are_passed_on() -> None:
    """F90, F92, F93: each is answered 200; what it means is the session's matter."""
    bells = Bells()
    receiver = receiver_of(bells)
    bodies = [BODY, BODY, b'{"task_id": "job-1", "status": "processing"}', b'{"id": "job-2"}', b""]
    assert {receiver.receive(bells.token, SIGNED, body) for body in bodies} == {200}
    assert [job_id for _, job_id in bells.rings] == ["job-1", "job-1", "job-1", "job-2", None]
    assert receiver.counts == CallbackCounts(known=5)


@pytest.mark.parametrize("headers", [SIGNED, {}], ids=["signed", "unsigned"])
@pytest.mark.parametrize("body", [BODY, b"", b"no JSON"], ids=["a payload", "no body", "no JSON"])
def test_the_answer_does_not_tell_whether_a_token_is_known(
    headers: dict[str, str], body: bytes
) -> None:
    """F95: the same status for a known token, an unknown one and no token at all."""
    bells = Bells()
    receiver = receiver_of(bells)
    tokens = [bells.token, new_token(), "", "x" * 1000, "../..", "\ud800", "a\nb"]
    assert len({receiver.receive(token, headers, body) for token in tokens}) == 1
    assert receiver.counts.known + receiver.counts.unknown == (7 if headers else 0)


def test_a_call_without_its_proof_does_nothing() -> None:
    """F91: 401, a counter, and no ring, whether the token is known or not."""
    bells = Bells()
    receiver = receiver_of(bells)
    assert receiver.receive(bells.token, {"X-Webhook-Secret": "x"}, BODY) == 401
    assert receiver.receive(new_token(), {}, BODY) == 401
    assert (bells.rings, receiver.counts) == ([], CallbackCounts(refused=2))


def test_before_and_after_its_session_a_receiver_knows_no_token() -> None:
    """A mounted receiver answers calls while the app starts and ends."""
    receiver = Receiver(Webhook(url="https://host.example"))
    assert receiver.receive(new_token(), {}, BODY) == 200
    assert receiver.counts == CallbackCounts(unknown=1)


def test_a_defect_of_the_session_is_said_and_lets_the_provider_call_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An exception of the session becomes 500 and one line that has no token."""
    receiver = receiver_of(Bells())

    def broken(token: str, job_id: str | None) -> bool:
        raise KeyError(token)

    receiver.on_call = broken
    token = new_token()
    assert receiver.receive(token, SIGNED, BODY) == 500
    assert "KeyError" in caplog.text
    assert token not in caplog.text
    assert receiver.counts == CallbackCounts(failed=1)


def test_a_callback_outside_the_sessions_loop_is_refused_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A thread of another server cannot wake the session's watchers: 500, one line, no token."""

    async def story() -> tuple[list[int], CallbackCounts]:
        flux = FluxSession(
            base_url="http://127.0.0.1:9",
            polling=Polling(webhook=Webhook(url="https://host.example")),
        )
        async with flux:
            receiver = flux.receiver
            assert receiver is not None
            answers = [await asyncio.to_thread(receiver.receive, TOKEN, {}, BODY) for _ in range(3)]
            return [*answers, receiver.receive(TOKEN, {}, BODY)], receiver.counts

    assert asyncio.run(story()) == ([500, 500, 500, 200], CallbackCounts(failed=3, unknown=1))
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "a callback was not taken: the session belongs to an event loop, and this "
    )
    assert TOKEN not in line


def test_a_receiver_takes_a_webhook_only() -> None:
    """A URL in its place is an error at once, not at the first call."""
    with pytest.raises(ConfigError, match="a Webhook"):
        Receiver("https://host.example")  # type: ignore[arg-type]


def test_a_session_has_a_receiver_if_it_has_a_webhook() -> None:
    """It can be mounted before the session is open; the error says how to get one."""
    webhook = Webhook(url="https://host.example/flux")
    assert FluxSession(polling=Polling(webhook=webhook)).receiver.webhook is webhook
    with pytest.raises(ConfigError, match=r"Polling\(webhook=Webhook"):
        _ = FluxSession().receiver


def test_counts_are_a_copy() -> None:
    """Counts that were read earlier stay as they were."""
    receiver = receiver_of(Bells())
    before = receiver.counts
    receiver.receive(new_token(), SIGNED, BODY)
    assert (before.unknown, receiver.counts.unknown) == (0, 1)


# ------------------------------------------------------------------------------------- served by

Serve = Callable[[Receiver], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def _by_aiohttp(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def as_handler(receiver: Receiver) -> AbstractAsyncContextManager[str]:
    app = web.Application()
    app.router.add_post("/flux/{token}", receiver.aiohttp)
    return _by_aiohttp(app)


def as_subapp(receiver: Receiver) -> AbstractAsyncContextManager[str]:
    app = web.Application()
    app.add_subapp("/flux", receiver.application())
    return _by_aiohttp(app)


def as_asgi(receiver: Receiver) -> AbstractAsyncContextManager[str]:
    return serving(receiver, lifespan="on")


def in_fastapi(receiver: Receiver) -> AbstractAsyncContextManager[str]:
    app = pytest.importorskip("fastapi").FastAPI()
    app.mount("/flux", receiver)
    return serving(app)


def in_a_route(receiver: Receiver) -> AbstractAsyncContextManager[str]:
    """The function alone, in a route of Starlette."""
    starlette = pytest.importorskip("starlette.applications")
    routing, responses = (
        pytest.importorskip("starlette.routing"),
        pytest.importorskip("starlette.responses"),
    )

    async def flux(request: Any) -> Any:
        token = request.path_params["token"]
        status = receiver.receive(token, request.headers, await request.body())
        return responses.Response(status_code=status)

    route = routing.Route("/flux/{token}", flux, methods=["POST"])
    return serving(starlette.Starlette(routes=[route]))


WAYS = [as_handler, as_subapp, as_asgi, in_fastapi, in_a_route]


@pytest.mark.asyncio
@pytest.mark.parametrize("serve", WAYS)
async def test_each_way_of_serving_gives_the_same_answers(serve: Serve) -> None:
    """aiohttp's handler and app, ASGI alone and mounted, and the bare function."""
    bells = Bells()
    async with serve(receiver_of(bells)) as url, aiohttp.ClientSession(url) as client:

        async def status(method: str = "POST", token: str = bells.token, **options: Any) -> int:
            path = f"/flux/{token}"
            async with client.request(method, path, **{"data": BODY} | options) as answer:
                assert await answer.read() == b"" or answer.status in (404, 405)
                assert answer.status != 405 or "POST" in answer.headers["Allow"]
                return answer.status

        assert await status(headers=SIGNED) == 200
        assert bells.rings == [(bells.token, "job-1")]
        assert await status(token=new_token(), headers=SIGNED) == 200
        assert await status() == 401
        assert await status(headers=SIGNED, data=None) == 200
        assert await status("GET", headers=SIGNED, data=None) == 405
        assert await status(headers=SIGNED, data=b"x" * 65_537) == 413
        assert await status(headers=SIGNED, data=b"x" * 65_536) == 200
        assert [job_id for _, job_id in bells.rings] == ["job-1", "job-1", None, None]


@pytest.mark.asyncio
@pytest.mark.parametrize("serve", [as_handler, as_subapp, as_asgi, in_fastapi])
async def test_a_body_without_a_length_and_a_compressed_one_are_limited(serve: Serve) -> None:
    """F94: a body of unknown length is cut off, and none is unpacked."""
    bells = Bells()

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 1024

    receiver = receiver_of(bells)
    async with serve(receiver) as url, aiohttp.ClientSession(url) as client:
        path, packed = f"/flux/{bells.token}", {"Content-Encoding": "gzip"}
        async with client.post(path, data=chunks(64), headers=SIGNED) as answer:
            assert answer.status == 200
        async with client.post(path, data=chunks(65), headers=SIGNED) as answer:
            assert answer.status == 413
        async with client.post(path, data=gzip.compress(BODY), headers=SIGNED | packed) as answer:
            assert answer.status == 415
    assert bells.rings == [(bells.token, None)]
    assert receiver.counts == CallbackCounts(known=1, invalid=2)


# ------------------------------------------------------------------------------------ ASGI alone


def scope(token: str, **changes: Any) -> dict[str, Any]:
    headers = [(k.lower().encode(), v.encode()) for k, v in SIGNED.items()]
    path = f"/flux/{token}"
    return {"type": "http", "method": "POST", "path": path, "headers": headers} | changes


async def asgi(receiver: Receiver, what: dict[str, Any], *messages: dict[str, Any]) -> list[Any]:
    """Call the app with messages, after which nothing comes; return what it sends."""
    left, sent = list(messages), []

    async def receive() -> Any:
        if not left:
            await asyncio.get_running_loop().create_future()
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await receiver(what, receive, send)
    return sent


def test_a_body_that_does_not_end_is_given_up() -> None:
    """F94: 408 after the timeout, and no ring."""

    async def call() -> None:
        bells, loop = Bells(), asyncio.get_running_loop()
        receiver, began = receiver_of(bells, timeout=5), loop.time()
        part = {"type": "http.request", "body": BODY, "more_body": True}
        sent = await asgi(receiver, scope(bells.token), part)
        assert (sent[0]["status"], loop.time() - began, bells.rings) == (408, 5, [])

    run(call())


@pytest.mark.asyncio
async def test_a_sender_that_goes_away_rings_nothing() -> None:
    """Half a body is no call, even with the right header."""
    bells = Bells()
    part = {"type": "http.request", "body": BODY, "more_body": True}
    sent = await asgi(receiver_of(bells), scope(bells.token), part, {"type": "http.disconnect"})
    assert (sent[0]["status"], bells.rings) == (400, [])


@pytest.mark.asyncio
async def test_a_secret_that_is_sent_twice_proves_nothing() -> None:
    """ASGI gives each header as it came; a proxy and the app could read different ones."""
    bells = Bells()
    secret = (b"x-webhook-secret", SECRET.encode())
    whole = {"type": "http.request", "body": BODY}
    for headers, status in (([secret], 200), ([secret, secret], 401)):
        sent = await asgi(receiver_of(bells), scope(bells.token, headers=headers), whole)
        assert sent[0]["status"] == status


@pytest.mark.asyncio
async def test_the_lifespan_is_confirmed_and_a_websocket_refused() -> None:
    """A server that starts the receiver alone waits for both messages of its lifespan."""
    receiver = receiver_of(Bells())
    start, stop = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    sent = await asgi(receiver, {"type": "lifespan"}, start, stop)
    assert [each["type"] for each in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    sent = await asgi(receiver, {"type": "websocket"}, {"type": "websocket.connect"})
    assert [each["type"] for each in sent] == ["websocket.close"]


@pytest.mark.asyncio
@pytest.mark.parametrize("serve", [as_handler, as_asgi])
async def test_no_log_or_repr_has_the_secret_or_a_token(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """P22: at DEBUG, with calls of each kind."""
    caplog.set_level(logging.DEBUG)
    bells = Bells()
    receiver = receiver_of(bells)
    async with serve(receiver) as url, aiohttp.ClientSession(url) as client:
        for headers in (SIGNED, {}, {"X-BFL-Signature": SECRET}):
            for data in (BODY, b"", b"x" * 70_000, SECRET.encode()):
                path = f"/flux/{bells.token}"
                async with client.post(path, data=data, headers=headers):
                    pass
    shown = f"{caplog.text} {caplog.records} {receiver!r} {receiver.webhook!r} {receiver.counts!r}"
    assert SECRET not in shown
    assert bells.token not in shown
