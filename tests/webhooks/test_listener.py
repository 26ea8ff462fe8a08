"""Listener: the limits over real sockets, unusable addresses, and what no log has."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress

import aiohttp
import pytest
from support.patience import patient
from support.simulator_sessions import until
from support.webhook_calls import (
    BODY,
    SECRET,
    SIGNED,
    Bells,
    answer_to,
    connection,
    receiver_of,
    request_bytes,
)

from fluxasync import ConfigError
from fluxasync.webhooks import CallbackCounts, Listener, Receiver, Webhook
from fluxasync.webhooks.listener import listening

PROOF = f"X-Webhook-Secret: {SECRET}"
LARGE = 100 * 2**20
#: bytes that 100 MB, 300 connections or 3,000 calls may add; one connection has about 20 KB
FLAT = 6 * 2**20


@contextmanager
def traced() -> Iterator[list[int]]:
    """Measure the peak of Python's memory in a block, in bytes."""
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


def is_closed(line: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    return line[0].at_eof() or line[0].exception() is not None


def at(port: int, bells: Bells, *, timeout: float | None = None) -> Receiver:
    """Return a receiver for a listener at this port."""
    url, listen = f"http://127.0.0.1:{port}/flux", f"127.0.0.1:{port}"
    return receiver_of(bells, url=url, listen=listen, timeout=timeout)


@pytest.mark.asyncio
async def test_a_listener_takes_calls_at_any_path_that_ends_with_the_token(
    unused_tcp_port: int,
) -> None:
    """A proxy may keep or remove the path in front of the token."""
    bells = Bells()
    receiver = at(unused_tcp_port, bells)
    async with Listener(receiver), aiohttp.ClientSession() as client:
        for path in ("flux", "", "a/b/c", "flux/"):
            url = f"http://127.0.0.1:{unused_tcp_port}/{path}/{bells.token}"
            async with client.post(url, data=BODY, headers=SIGNED) as answer:
                assert (answer.status, await answer.read()) == (200, b"")
        async with client.get(receiver.webhook.address(bells.token)) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        async with client.post(f"http://127.0.0.1:{unused_tcp_port}/", headers=SIGNED) as answer:
            assert answer.status == 200
    assert bells.rings == [(bells.token, "job-1")] * 4
    assert receiver.counts == CallbackCounts(known=4, unknown=1, invalid=1)
    with pytest.raises(ConnectionRefusedError):
        await answer_to(unused_tcp_port, b"")


@pytest.mark.asyncio
async def test_a_connection_carries_one_call(unused_tcp_port: int) -> None:
    """The second call on a connection is not read, so nobody holds one for long."""
    bells = Bells()
    call = request_bytes(bells.token, BODY, PROOF)
    async with Listener(at(unused_tcp_port, bells)):
        answer = await answer_to(unused_tcp_port, call * 3)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (answer.count(b"HTTP/1.1"), len(bells.rings)) == (1, 1)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"POST /flux/x HTTP/1.1\r\nHost: h\r\nX-", b"", id="half of the headers"),
        pytest.param(request_bytes("x", b'{"id"', PROOF, length=20), b" 408 ", id="half a body"),
    ],
)
async def test_a_slow_request_is_ended(sent: bytes, status: bytes, unused_tcp_port: int) -> None:
    """F94: headers and a body have a timeout each; the connection is closed after it."""
    bells = Bells()
    async with Listener(at(unused_tcp_port, bells, timeout=0.05)):
        assert status in (await answer_to(unused_tcp_port, sent))[:20]
    assert bells.rings == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(request_bytes("x", b"", PROOF, length=LARGE), id="announced"),
        pytest.param(
            request_bytes("x", b"", PROOF, "Transfer-Encoding: chunked").replace(
                b"Content-Length: 0\r\n", b""
            ),
            id="chunked",
        ),
    ],
)
async def test_a_body_of_100_megabytes_is_refused_and_not_kept(
    head: bytes, unused_tcp_port: int
) -> None:
    """F94: 413, then the connection is closed; memory does not grow."""
    bells, loop = Bells(), asyncio.get_running_loop()
    block = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    async with Listener(at(unused_tcp_port, bells)):
        with socket.create_connection(("127.0.0.1", unused_tcp_port)) as line:
            line.setblocking(False)
            answer = asyncio.create_task(loop.sock_recv(line, 4096))
            with traced() as peak, suppress(ConnectionError):
                await loop.sock_sendall(line, head)
                for _ in range(LARGE // len(block)):
                    await loop.sock_sendall(line, block)
            assert (await answer).startswith(b"HTTP/1.1 413 ")
    assert peak[0] < FLAT
    assert bells.rings == []


@pytest.mark.asyncio
async def test_64_connections_are_open_and_more_wait_for_one(
    unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """F94: idle connections do not pile up, in memory or in the log. A callback waits until one of
    them ends."""
    bells = Bells()
    call = request_bytes(bells.token, BODY, PROOF)
    async with Listener(at(unused_tcp_port, bells)), AsyncExitStack() as stack:
        with traced() as peak:
            lines = [
                await stack.enter_async_context(connection(unused_tcp_port)) for _ in range(300)
            ]
            answer = asyncio.create_task(answer_to(unused_tcp_port, call))
            await asyncio.wait({answer}, timeout=0.1)
        assert (answer.done(), any(map(is_closed, lines))) == (False, False)
        assert peak[0] < FLAT
        await stack.aclose()
        assert (await answer).startswith(b"HTTP/1.1 200 ")
    gc.collect()
    assert caplog.text == ""
    assert bells.rings == [(bells.token, "job-1")]


@pytest.mark.asyncio
async def test_a_burst_of_callbacks_is_answered_whole(unused_tcp_port: int) -> None:
    """Thousands of slots may end at once: all are answered, and idle strangers only delay them."""
    bells = Bells()
    call = request_bytes(bells.token, BODY, PROOF)
    receiver = at(unused_tcp_port, bells, timeout=1.0)  # less cuts callers off on a busy machine
    async with Listener(receiver), AsyncExitStack() as stack:
        for _ in range(100):
            await stack.enter_async_context(connection(unused_tcp_port))
        answers = await asyncio.gather(*(answer_to(unused_tcp_port, call) for _ in range(300)))
    assert {answer[:13] for answer in answers} == {b"HTTP/1.1 200 "}
    assert receiver.counts == CallbackCounts(known=300)


@pytest.mark.asyncio
async def test_connections_that_fail_free_their_place(unused_tcp_port: int) -> None:
    """Broken connections do not use up the listener, and half a callback rings nothing."""
    bells = Bells()
    call = request_bytes(bells.token, BODY, PROOF)
    async with Listener(at(unused_tcp_port, bells)):
        for sent in (b"", call[:20], call[:-5], b"no HTTP\r\n\r\n") * 40:
            async with connection(unused_tcp_port) as (_, writer):
                writer.write(sent)
                await writer.drain()
        assert (await answer_to(unused_tcp_port, call)).startswith(b"HTTP/1.1 200 ")
    assert bells.rings == [(bells.token, "job-1")]


@pytest.mark.asyncio
async def test_closing_does_not_wait_for_callers(unused_tcp_port: int) -> None:
    """A session that ends is not held by an open connection, nor by half a call."""
    bells = Bells()
    receiver = at(unused_tcp_port, bells)
    half = request_bytes(bells.token, b"{", PROOF, length=20)
    async with connection_to_closed(receiver, unused_tcp_port, half) as (listener, reader):
        async with asyncio.timeout(patient(10)):
            await listener.__aexit__()
            with suppress(ConnectionResetError):
                await reader.read()
        assert repr(listener) == f"<Listener 127.0.0.1:{unused_tcp_port} closed>"
    assert bells.rings == []


@asynccontextmanager
async def connection_to_closed(
    receiver: Receiver, port: int, sent: bytes
) -> AsyncIterator[tuple[Listener, asyncio.StreamReader]]:
    """Open a listener, and a connection that has sent something and waits."""
    listener = await Listener(receiver).__aenter__()
    async with connection(port) as (reader, writer):
        writer.write(sent)
        await writer.drain()
        async with connection(port) as (_, other):
            other.write(request_bytes("x"))
            await until(lambda: receiver.counts.refused)  # so the server has read the first as well
        yield listener, reader


# ------------------------------------------------------------------------------------- addresses


@pytest.mark.asyncio
async def test_a_port_in_use_is_named_before_anything_is_spent(unused_tcp_port: int) -> None:
    """Two runs with the same --webhook-listen: the second one ends at once."""
    receiver = at(unused_tcp_port, Bells())
    async with Listener(receiver):
        text = (
            rf"127\.0\.0\.1:{unused_tcp_port}'\): cannot be used \(Address already in use\); give"
        )
        with pytest.raises(ConfigError, match=text):
            await Listener(receiver).__aenter__()
    async with Listener(receiver):
        pass  # free again


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "[2001:db8::1]"])
async def test_an_address_of_another_machine_is_refused(host: str, unused_tcp_port: int) -> None:
    """The error names the address and the next step."""
    webhook = Webhook(url="https://host.example", listen=f"{host}:{unused_tcp_port}")
    with pytest.raises(ConfigError, match=r"cannot be used .* address of this machine"):
        await Listener(Receiver(webhook)).__aenter__()


def test_an_address_that_this_machine_lacks_is_left_out_beside_one_that_it_has(
    unused_tcp_port: int,
) -> None:
    """`localhost` may be ::1 as well where IPv6 is off; a port in use counts in any case."""
    here, elsewhere = [
        (socket.AF_INET, (host, unused_tcp_port)) for host in ("127.0.0.1", "192.0.2.1")
    ]
    (only,) = listening([elsewhere, here])
    with only, pytest.raises(OSError, match="in use"):
        listening([here, elsewhere])
    with pytest.raises(OSError, match="assign requested"):
        listening([elsewhere])


@pytest.mark.asyncio
async def test_a_listener_needs_an_address() -> None:
    """A Webhook for a mounted receiver has none."""
    with pytest.raises(ConfigError, match="is missing"):
        await Listener(Receiver(Webhook(url="https://host.example"))).__aenter__()


@pytest.mark.asyncio
async def test_an_address_that_other_machines_reach_is_said(
    unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Loopback is the usual case and says nothing; all interfaces are allowed, and logged."""
    caplog.set_level(logging.INFO, "fluxasync")
    async with Listener(at(unused_tcp_port, Bells())) as listener:
        assert (listener.is_public, caplog.text) == (False, "")
    listen = f"0.0.0.0:{unused_tcp_port}"
    async with Listener(Receiver(Webhook(url="https://host.example", listen=listen))) as listener:
        assert listener.is_public
        assert f"{listen}, which other machines can reach" in caplog.text


# ------------------------------------------------------------------------------------------- logs


@pytest.mark.asyncio
async def test_no_log_has_a_token_or_the_secret_whatever_is_sent(
    unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """P22: aiohttp quotes bad requests in its messages; ours is silent, at DEBUG and in asyncio's
    debug mode."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    bells = Bells()
    good = request_bytes(bells.token, BODY, PROOF)
    bad = [
        good.replace(b"HTTP/1.1", b"HTTP/x.y"),
        good.replace(b"HTTP/1.1", b"HTTP/1.1 " + SECRET.encode()),
        good.replace(b"Host:", b"Ho st:"),
        good.replace(b"Host:", b"X-Long: " + b"x" * 10_000 + b"\r\nHost:"),
        good.replace(b"Content-Length: ", b"Content-Length: x"),
        good.replace(b"/flux/", b"//" + b"x" * 9_000),
        good.replace(b"POST", b"\x16\x03\x01"),
        good[:-10],
        b"\r\n" * 1000,
        bells.token.encode(),
    ]
    receiver = at(unused_tcp_port, bells, timeout=0.05)
    async with Listener(receiver) as listener:
        for request in (good, *bad):
            await answer_to(unused_tcp_port, request)
        shown = f"{caplog.text} {caplog.records} {listener!r} {receiver!r}"
    assert bells.rings == [(bells.token, "job-1")]
    assert SECRET not in shown
    assert bells.token not in shown
