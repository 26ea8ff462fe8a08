"""The aiohttp transport against real sockets: what is sent, what is returned, and to which host."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import logging
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from attrs import evolve
from support.raw_servers import (
    Behaviour,
    Line,
    Peer,
    answer,
    hangs,
    peer,
    resets_unread,
    says,
    says_then_hangs_up,
    says_then_resets,
    streams,
)

from fluxasync import Timeouts, TransportError
from fluxasync._wire.image_download import check_url
from fluxasync._wire.transport import MAX_REPLY, AiohttpTransport
from fluxasync.extend import Call, Reply

CANARY = "sk-canary-4711"
SIGNATURE = "sig-canary-0815"
PATIENT = Timeouts(connect=5)  # a busy machine takes its time
ACCEPTED = answer(b'{"id": "a-1"}')


def open_transport(*, loopback: bool = True, timeouts: Timeouts = PATIENT) -> AiohttpTransport:
    return AiohttpTransport(timeouts=timeouts, allow_loopback=loopback)


def post(url: str, *, body: bytes = b"{}", timeout: float = 5.0) -> Call:
    headers = {"Authorization": f"Bearer {CANARY}", "x-key": CANARY}
    return Call(method="POST", url=url, headers=headers, body=body, timeout=timeout)


def get(url: str, *, timeout: float = 5.0) -> Call:
    return Call(method="GET", url=url, headers={"x-key": CANARY}, timeout=timeout)


async def sent_to(behaviour: Behaviour, **options: Any) -> tuple[Reply | TransportError, Peer]:
    """POST once to a server with this behaviour; return the reply or the error."""
    async with peer(behaviour) as server, open_transport() as transport:
        try:
            return await transport.send(post(f"{server.url}/submit", **options)), server
        except TransportError as error:
            return error, server


async def fetched(
    transport: AiohttpTransport, url: str, *, timeout: float = 5.0
) -> tuple[int, bytes]:
    async with transport.stream(url, timeout=timeout) as found:
        return found.status, b"".join([chunk async for chunk in found.chunks()])


async def fetch_from(behaviour: Behaviour, path: str = "/x", **options: Any) -> tuple[int, bytes]:
    async with peer(behaviour) as server, open_transport() as transport:
        return await fetched(transport, server.url + path, **options)


def everything_in(error: BaseException) -> str:
    """Return all text that a log, a debugger or a crash report could show of an error."""
    seen: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        current = left.pop()
        if current is not None and current not in seen:
            seen.append(current)
            left += [current.__cause__, current.__context__]
    shown = [f"{e!r} {e} {e.args!r} {vars(e)!r} {getattr(e, '__notes__', '')}" for e in seen]
    return "\n".join([*shown, *traceback.format_exception(error)])


# — what went out ——————————————————————————————————————————————————————————————————————————————

HALF_HEAD = b"HTTP/1.1 200 OK\r\nContent-Ty"
HALF_BODY = answer(b'{"id": ', length=13)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HUGE_HEADER = answer(b'{"id": "a-1"}', headers={"X-Trace": "t" * 70_000})
NO_HTTP = b"\x15\x03\x01\x00\x02\x02\x28 and more that is no HTTP\r\n\r\n"

#: a POST that may have been taken
IN_DOUBT = [
    pytest.param(resets_unread, id="F34 RST before reading"),
    pytest.param(says_then_resets(b""), id="F35 RST after reading"),
    pytest.param(says_then_hangs_up(b""), id="F36 FIN without an answer"),
    pytest.param(says_then_resets(HALF_HEAD), id="F37 RST inside the headers"),
    pytest.param(says_then_hangs_up(HALF_HEAD), id="F37 FIN inside the headers"),
    pytest.param(says(HUGE_HEADER), id="F24 70 KB header"),
    pytest.param(says_then_hangs_up(NO_HTTP), id="F18 no HTTP at all"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("behaviour", IN_DOUBT)
async def test_a_post_without_an_answers_head_was_sent(behaviour: Behaviour) -> None:
    """The server may have accepted the job, so the error has `sent` true."""
    error, server = await sent_to(behaviour)
    assert isinstance(error, TransportError)
    assert (error.sent, error.permanent) == (True, False)
    assert len(server.lines) == 1


ID = b'{"id": "a-1"'
LONGER = answer(ID + b"}", length=40)

#: a body that does not end where it should, and what of it arrives
PARTS = [
    pytest.param(says_then_resets(answer(b"", length=9)), b"", id="F37 RST before the body"),
    pytest.param(says_then_hangs_up(HALF_BODY), b'{"id": ', id="F37 FIN inside the body"),
    pytest.param(says_then_hangs_up(LONGER), ID + b"}", id="F37 a length that is too long"),
    pytest.param(says_then_hangs_up(CHUNKED + b"c\r\n" + ID), ID, id="F37 cut chunk"),
    pytest.param(says(LONGER), ID + b"}", id="F37 silence inside the body"),
    pytest.param(says(answer(b"x" * 2**21)), b"x" * MAX_REPLY, id="F22 over the cap"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("behaviour", "part"), PARTS)
async def test_a_partial_answer_of_a_post_is_a_reply(behaviour: Behaviour, part: bytes) -> None:
    """F37 F22 A body that breaks off, or is too long, gives a reply with the status and the
    part."""
    reply, server = await sent_to(behaviour, timeout=2.0)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.is_whole) == (200, False)
    assert part == reply.body
    assert reply.is_cut is not bool(reply.broken)
    assert len(server.lines) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [301, 308, 400, 401, 402, 403, 422, 429, 503])
async def test_a_status_counts_without_its_complete_body(status: int) -> None:
    """F12 F22 F37 A refusal with a body over 1 MB, or with half a body, still has its status."""
    for text, length in ((b"x" * 2**21, None), (b'{"deta', 99)):
        reply, _ = await sent_to(says_then_hangs_up(answer(text, status, length=length)))
        assert isinstance(reply, Reply)
        assert (status, False) == (reply.status, reply.is_whole)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_refusals_body_is_not_waited_for_long() -> None:
    """F12 F43 The status decides; the body only explains, so it has a short timeout."""
    async with asyncio.timeout(60):
        reply, _ = await sent_to(says(answer(b'{"detail', 422, length=99)), timeout=600.0)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.is_whole) == (422, False)


@pytest.mark.asyncio
async def test_a_poll_that_breaks_off_is_no_answer() -> None:
    """F50 A poll is free, so half an answer is an error like none."""
    async with peer(says_then_hangs_up(HALF_BODY)) as server, open_transport() as transport:
        with pytest.raises(TransportError, match="broke"):
            await transport.send(get(f"{server.url}/poll"))


@pytest.mark.asyncio
async def test_a_complete_answer_counts_although_the_connection_breaks() -> None:
    """F38 A complete answer, then RST: the job is known."""
    reply, _ = await sent_to(says_then_resets(ACCEPTED))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (200, b'{"id": "a-1"}')


@pytest.mark.asyncio
async def test_a_post_to_a_silent_server_was_sent() -> None:
    """F39 F43 Without an answer in time it is in doubt."""
    error, _ = await sent_to(hangs, timeout=0.1)
    assert isinstance(error, TransportError)
    assert error.sent
    assert "in time" in str(error)


@pytest.mark.asyncio
async def test_endless_informational_answers_end_at_the_timeout() -> None:
    """F26 A server that repeats "100 Continue" is given up in time."""
    endless = streams(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
    error, _ = await sent_to(endless, timeout=0.2)
    assert isinstance(error, TransportError)
    assert error.sent


@pytest.mark.asyncio
async def test_a_refused_connection_sent_nothing() -> None:
    """F31 Nothing listens at the port, so the POST was not sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with open_transport() as transport:
        with pytest.raises(TransportError, match="cannot connect: connection refused") as caught:
            await transport.send(post(f"http://127.0.0.1:{port}/submit"))
    assert (caught.value.sent, caught.value.permanent) == (False, False)


Names = dict[str, list[str] | OSError]


@pytest_asyncio.fixture
async def names() -> Names:
    """A resolver that maps names as the test says; literals are resolved as usual.

    No server can play this part: the loop's DNS.
    """
    table: Names = {}
    loop: Any = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        found = table.get(host, [host])
        if isinstance(found, OSError):
            raise found
        return [each for address in found for each in await real(address, port, **options)]

    loop.getaddrinfo = getaddrinfo
    return table


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "reason",
    [
        pytest.param(socket.gaierror(socket.EAI_NONAME, "Name not known"), id="F30 NXDOMAIN"),
        pytest.param(socket.gaierror(socket.EAI_AGAIN, "Try again"), id="F30 EAI_AGAIN"),
    ],
)
async def test_a_name_that_does_not_resolve_sent_nothing(names: Names, reason: OSError) -> None:
    """F30 Without an address nothing was sent, and a later try may help."""
    names["api.example"] = reason
    async with open_transport() as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send(post("https://api.example/submit"))
    assert (caught.value.sent, caught.value.permanent) == (False, False)


@pytest.mark.asyncio
async def test_an_invalid_host_name_sent_nothing() -> None:
    """F30 A label that is too long for DNS is a TransportError, not a UnicodeError."""
    async with open_transport() as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send(post(f"https://{'a' * 70}.example/submit"))
    assert not caught.value.sent


async def speaks_plainly(line: Line) -> None:
    await line.arrival()
    await line.say(answer(b"this is plain http"))
    await line.silence()


@pytest.mark.asyncio
async def test_a_server_without_tls_is_a_permanent_error() -> None:
    """F33 When TLS fails nothing was sent, and waiting does not help."""
    async with peer(speaks_plainly) as server, open_transport() as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send(post(f"https://{server.host}/submit"))
    assert (caught.value.sent, caught.value.permanent) == (False, True)
    assert CANARY.encode() not in b"".join(server.received)


@pytest.fixture
def unanswered_address() -> Iterator[str]:
    """An address whose connections are not answered: a listener with a full queue."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for each in waiting:
            each.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("connect", "whole"), [(0.1, 5.0), (5.0, 0.1)], ids=["F32 connect", "F32 the whole call"]
)
async def test_a_connection_that_hangs_sent_nothing(
    unanswered_address: str, connect: float, whole: float
) -> None:
    """F32 Packets are lost: whichever timeout fires first, the POST was not sent."""
    async with open_transport(timeouts=Timeouts(connect=connect)) as transport:
        with pytest.raises(TransportError, match="in time") as caught:
            await transport.send(post(f"{unanswered_address}/submit", timeout=whole))
    assert (caught.value.sent, caught.value.permanent) == (False, False)


@pytest.mark.asyncio
@pytest.mark.parametrize("pooled", [False, True], ids=["fresh connection", "pooled connection"])
async def test_before_send_stops_a_connected_post(pooled: bool) -> None:
    """P11 F1: an error of `before_send` is raised after connecting, and no byte of the POST is
    sent; the next POST is sent."""
    connected: list[int] = []

    async def answers(line: Line) -> None:
        while True:
            await line.request()
            await line.say(ACCEPTED)

    async with peer(answers) as server, open_transport() as transport:

        def hold() -> None:
            connected.append(len(server.lines))
            raise TransportError("held back", sent=False)

        if pooled:
            await transport.send(post(f"{server.url}/first"))
        with pytest.raises(TransportError, match="held back") as caught:
            await transport.send(evolve(post(f"{server.url}/held"), before_send=hold))
        assert len(connected) == 1
        assert not caught.value.sent
        await transport.send(post(f"{server.url}/next"))
        paths = [request.split()[1] for request in server.received]
    assert paths == ([b"/first", b"/next"] if pooled else [b"/next"])


@pytest.mark.asyncio
async def test_before_send_is_not_called_before_the_connection(unanswered_address: str) -> None:
    """P11 F32: it is called when the connection is there."""
    called: list[int] = []
    call = evolve(
        post(f"{unanswered_address}/submit", timeout=0.1), before_send=lambda: called.append(1)
    )
    async with open_transport() as transport:
        with pytest.raises(TransportError, match="in time"):
            await transport.send(call)
    assert called == []


@pytest.mark.asyncio
async def test_a_lost_post_is_not_repeated_on_a_pooled_connection() -> None:
    """F40 The server closes after its first answer: the second POST is in doubt, not sent again."""
    seen: list[bytes] = []

    async def once(line: Line) -> None:
        seen.append(await line.request())
        await line.say(ACCEPTED)
        seen.append(await line.request())
        line.finish()

    async with peer(once) as server, open_transport() as transport:
        await transport.send(post(f"{server.url}/first"))
        with pytest.raises(TransportError) as caught:
            await transport.send(post(f"{server.url}/second"))
    assert caught.value.sent
    assert [request.split()[1] for request in seen] == [b"/first", b"/second"]
    assert len(server.lines) == 1


@pytest.mark.asyncio
async def test_keepalive_zero_means_a_connection_for_each_post() -> None:
    """F41 With `keepalive=0` no answer can be left over from an earlier POST."""
    fresh = Timeouts(keepalive=0)
    async with peer(says(ACCEPTED)) as server, open_transport(timeouts=fresh) as transport:
        for _ in range(2):
            await transport.send(post(f"{server.url}/submit"))
    assert len(server.lines) == 2


@pytest.mark.asyncio
async def test_renew_closes_all_old_connections() -> None:
    """F154 After a suspension idle connections are closed, and busy ones when their calls end."""
    arrived, goes_on = asyncio.Event(), asyncio.Event()

    async def behave(line: Line) -> None:
        while request := await line.request():
            if request.startswith(b"POST"):
                arrived.set()
                await goes_on.wait()
            await line.say(ACCEPTED)

    async with peer(behave) as server, open_transport() as transport, asyncio.timeout(10):
        await transport.send(get(f"{server.url}/before"))
        under_way = asyncio.create_task(transport.send(post(f"{server.url}/under-way")))
        await arrived.wait()
        transport.renew()
        await transport.send(get(f"{server.url}/after"))
        await server.ended.acquire()  # the line that was idle
        goes_on.set()
        assert (await under_way).status == 200
        await transport.send(get(f"{server.url}/later"))
        await server.ended.acquire()  # the line that was in use
    assert [line.requests[0].split()[1] for line in server.lines] == [
        b"/before",
        b"/under-way",
        b"/after",
    ]


# — whose answer it is ——————————————————————————————————————————————————————————————————————————

STALE = b'{"id": "stale-1"}'


class OutOfStep:
    """Answers each request with its path, and once with a stale answer without a request."""

    def __init__(self, when: str) -> None:
        self._when = when  #: "at once", "idle" or "late"
        self._is_over = False
        self.stale_sent = asyncio.Event()  #: the stale answer is in the client's socket

    async def __call__(self, line: Line) -> None:
        for number in itertools.count(1):
            own = answer((await line.request()).split()[1])
            strikes = not self._is_over and number == (2 if self._when == "late" else 1)
            self._is_over = self._is_over or strikes
            stale = answer(STALE)
            if not strikes:
                await line.say(own)
            elif self._when == "idle":
                await line.say(own)
                await line.say(stale)
            else:
                await line.say(stale + own if self._when == "late" else own + stale)
            self.stale_sent.set()


async def ask(transport: AiohttpTransport, url: str, verb: str) -> bytes:
    if verb == "download":
        return (await fetched(transport, url))[1]
    return (await transport.send(post(url) if verb == "POST" else get(url))).body


@pytest.mark.asyncio
@pytest.mark.parametrize("verb", ["POST", "GET", "download"])
@pytest.mark.parametrize("when", ["at once", "idle"])
async def test_an_answer_without_a_request_is_given_to_no_call(
    when: str, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    """F41 After a second answer on a kept connection each call gets its own answer on a new
    connection, and the log says so once."""
    behaviour = OutOfStep(when)
    async with peer(behaviour) as server, open_transport() as transport:
        for path in (b"/1", b"/2", b"/3"):
            assert path == await ask(transport, server.url + path.decode(), verb)
            await behaviour.stale_sent.wait()
    assert len(server.lines) == 3
    assert caplog.text.count("answer without a request") == 1


@pytest.mark.asyncio
async def test_connections_are_reused() -> None:
    """A new connection for each call would cost a slot about 0.25 s."""
    async with peer(says(ACCEPTED)) as server, open_transport() as transport:
        for _ in range(3):
            assert not (await transport.send(post(f"{server.url}/submit"))).is_followed
            await transport.send(get(f"{server.url}/poll"))
    assert len(server.lines) == 2


@pytest.mark.asyncio
async def test_an_answer_followed_by_another_is_marked() -> None:
    """F41 If the stale answer comes after the next POST, a check of the connection cannot find it;
    the reply says that it may belong to another call."""
    async with peer(OutOfStep("late")) as server, open_transport() as transport:
        first = await transport.send(post(f"{server.url}/1"))
        second = await transport.send(post(f"{server.url}/2"))
        third = await transport.send(post(f"{server.url}/3"))
    assert (first.is_followed, second.is_followed, third.is_followed) == (False, True, False)
    assert (second.body, third.body) == (STALE, b"/3")


@pytest.mark.asyncio
async def test_an_image_followed_by_another_answer_is_downloaded_again() -> None:
    """F41 F88 The bytes may belong to another image, and a download is free."""
    async with peer(OutOfStep("late")) as server, open_transport() as transport:
        await fetched(transport, f"{server.url}/1")
        with pytest.raises(TransportError, match="earlier call"):
            await fetched(transport, f"{server.url}/2")
        assert await fetched(transport, f"{server.url}/2") == (200, b"/2")


@pytest.mark.asyncio
async def test_a_connection_that_is_just_ending_is_not_used_for_a_post() -> None:
    """F40 The server's FIN is in the socket, but the event loop has not read it: the POST uses a
    new connection instead of becoming in doubt."""
    ended = asyncio.Event()

    async def once(line: Line) -> None:
        await line.request()
        await line.say(ACCEPTED)
        line.finish()
        ended.set()
        await line.silence()

    async with peer(once) as server, open_transport() as transport:
        for _ in range(3):
            assert (await transport.send(post(f"{server.url}/submit"))).status == 200
            await ended.wait()
            ended.clear()
    assert len(server.lines) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("arrives", ["an end", "an answer"])
async def test_what_arrives_while_the_loop_stands_still_is_seen_before_a_post(arrives: str) -> None:
    """F40 F41 The socket has it, and the loop has not looked since: the POST uses a new connection,
    and gets its own answer."""
    async with peer(says(ACCEPTED)) as server, open_transport() as transport:
        await transport.send(post(f"{server.url}/submit"))
        line = server.lines[0]
        if arrives == "an end":
            line.finish()
        else:
            line.say_now(answer(STALE))
        reply = await transport.send(post(f"{server.url}/submit"))
    assert (reply.body, len(server.lines)) == (b'{"id": "a-1"}', 2)


# — what came back —————————————————————————————————————————————————————————————————————————————


@pytest.mark.asyncio
async def test_an_endless_body_is_cut_off() -> None:
    """F22 After a megabyte the answer and its connection are closed."""
    endless = streams(CHUNKED, b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
    reply, server = await sent_to(endless)
    assert isinstance(reply, Reply)
    assert (reply.is_cut, len(reply.body)) == (True, MAX_REPLY)
    assert server.lines[0].sent < 32 * 2**20


@pytest.mark.asyncio
async def test_a_gzip_bomb_is_not_inflated() -> None:
    """F23 The body is unchanged: compression is neither requested nor decoded."""
    bomb = gzip.compress(bytes(64 * 2**20))
    assert len(bomb) < MAX_REPLY
    reply, server = await sent_to(says(answer(bomb, headers={"Content-Encoding": "gzip"})))
    assert isinstance(reply, Reply)
    assert bomb == reply.body
    assert b"\r\naccept-encoding: identity\r\n" in server.received[0].lower()


@pytest.mark.asyncio
async def test_a_long_header_is_read() -> None:
    """F24 A header of 9 KB on a paid 200 gives no synthetic 400."""
    reply, _ = await sent_to(says(answer(b'{"id": "a-1"}', headers={"X-Trace": "t" * 9_000})))
    assert isinstance(reply, Reply)
    assert (reply.status, len(reply.headers["x-trace"])) == (200, 9_000)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [200, 204, 400, 401, 402, 429, 500, 503, 524])
async def test_every_status_is_an_answer(status: int) -> None:
    """No status raises an exception."""
    text = b"" if status == 204 else b"\xff not JSON"
    reply, _ = await sent_to(says(answer(text, status, {"Retry-After": "3"})))
    assert isinstance(reply, Reply)
    assert (status, text, "3") == (reply.status, reply.body, reply.headers["retry-after"])


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("make", [post, get], ids=["POST", "GET"])
async def test_api_calls_follow_no_redirect(status: int, make: Callable[[str], Call]) -> None:
    """F16 F17 T2 The redirect is the answer; no byte reaches the host that it names."""
    async with (
        peer(says(ACCEPTED)) as evil,
        peer(says(answer(b"", status, {"Location": f"{evil.url}/steal"}))) as server,
        open_transport() as transport,
    ):
        reply = await transport.send(make(f"{server.url}/submit"))
    assert status == reply.status
    assert evil.lines == []


# — downloads: where to ————————————————————————————————————————————————————————————————————————

REFUSED_URLS = [
    "https://127.0.0.1/x", "https://127.255.255.254/x", "https://localhost/x", "https://127.1/x",
    "https://0x7f.1/x", "https://0x7f000001/x", "https://2130706433/x", "https://017700000001/x",
    "https://0.0.0.0/x", "https://0/x", "https://10.0.0.1/x", "https://10.255.255.255/x",
    "https://172.16.0.1/x", "https://172.31.255.255/x", "https://192.168.1.1/x",
    "https://169.254.169.254/latest/meta-data/", "https://169.254.1.1/x", "https://100.64.0.1/x",
    "https://192.0.0.1/x", "https://192.0.2.1/x", "https://198.18.0.1/x", "https://224.0.0.1/x",
    "https://240.0.0.1/x", "https://255.255.255.255/x", "https://[::1]/x", "https://[::]/x",
    "https://[::ffff:127.0.0.1]/x", "https://[::ffff:10.0.0.1]/x",
    "https://[::ffff:169.254.169.254]/x", "https://[64:ff9b::7f00:1]/x", "https://[fe80::1]/x",
    "https://[fc00::1]/x", "https://[fd00:ec2::254]/x", "https://[ff02::1]/x",
    "https://[2002:7f00:1::]/x", "https://[2001:db8::1]/x", "https://me.example/x",
    "https://me6.example/x", "https://both.example/x", "https://inner.example/x",
    "https://mapped.example/x", "https://metadata.example/x",
]  # fmt: skip

NAMES: Mapping[str, list[str]] = {
    "me.example": ["127.0.0.1"],
    "me6.example": ["::1"],
    "both.example": ["127.0.0.1", "::1"],
    "inner.example": ["10.0.0.1", "127.0.0.1", "192.168.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "metadata.example": ["169.254.169.254"],
}


@pytest.mark.asyncio
@pytest.mark.parametrize("url", REFUSED_URLS, ids=lambda url: f"P23 T3 F82 {url[8:]}")
async def test_private_addresses_are_refused_at_the_connection(url: str, names: Names) -> None:
    """F82 In every spelling, and for every name that resolves to one."""
    names.update(NAMES)
    async with open_transport(loopback=False) as transport:
        with pytest.raises(TransportError, match=r"private address|not a URL") as caught:
            await fetched(transport, url)
    assert (caught.value.sent, caught.value.permanent) == (False, True)


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "me.example", "[::1]"])
async def test_not_a_byte_reaches_a_refused_address(host: str, names: Names) -> None:
    """F82 The listener on this machine sees no connection."""
    names.update(NAMES)
    async with peer(says(answer(b"secret"))) as server, open_transport(loopback=False) as transport:
        for scheme in ("http", "https"):
            with pytest.raises(TransportError):
                await fetched(transport, f"{scheme}://{host}:{server.port}/x")
    assert server.lines == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://10.0.0.1/x", id="F82 private network"),
        pytest.param("https://inner.example/x", id="F82 a name for one"),
        pytest.param("http://10.0.0.1/x", id="F82 plain http"),
        pytest.param("http://me.example/x", id="F82 plain http by name"),
        pytest.param("https://169.254.169.254/x", id="F82 metadata"),
    ],
)
async def test_a_local_origin_allows_this_machine_only(url: str, names: Names) -> None:
    """F82 T3 With the API on loopback, downloads from loopback are allowed; the network is not."""
    names.update({name: [a for a in found if a != "127.0.0.1"] for name, found in NAMES.items()})
    async with open_transport(loopback=True) as transport:
        with pytest.raises(TransportError, match=r"private address|is not https") as caught:
            await fetched(transport, url)
    assert caught.value.permanent


@pytest.mark.asyncio
async def test_a_local_origin_allows_http() -> None:
    """The simulator's images come over http from this machine."""
    assert await fetch_from(says(answer(b"picture"))) == (200, b"picture")


ODD_URLS = [
    "", "x", "//host.example/x", "/x", "file:///etc/passwd", "ftp://host.example/x", "https://",
    "ws://host.example/x", "wss://host.example/x", "data:image/png;base64,AA", "https:///x",
    "javascript:alert(1)", "https://user@host.example/x", "https://u:p@host.example/x",
    "https://:p@host.example/x", "https://host.example@evil.example/x", "https://@host.example/x",
    "https://host.example:99999/x", "https://host.example:x/x", "https://[::1/x", "https://[x]/x",
    "https://host.example/ x", "https://host.example/\r\nX: y", "https://host.example/\tx",
    "https://host.example/\x7f", "https://host.example/\x00", "https://host.example/\u00e9",
    "https://h\u00f6st.example/x", "https://host.example\u2100/x", "https://host.example/\ud800",
    "https://host.example/" + "x" * 4096, "http://host.example/x", "http://1.1.1.1/x", "HTTP://h/x",
    "ht\ntps://host.example/x", " https://host.example/x",
]  # fmt: skip


@pytest.mark.parametrize("url", ODD_URLS, ids=lambda url: f"T4 {url[:40]!a}")
@pytest.mark.parametrize("loopback", [False, True], ids=["remote", "local"])
def test_invalid_urls_are_refused_before_anything_opens(url: str, loopback: bool) -> None:
    """T4 Other schemes, users and malformed URLs raise a TransportError."""
    with pytest.raises(TransportError) as caught:
        check_url(url, allow_loopback=loopback)
    assert (caught.value.sent, caught.value.permanent) == (False, True)


@pytest.mark.parametrize(
    "url",
    [
        "https://d.example/x?sig=%2F%3D", "https://d.example:8443/x", "https://[2606:4700::1]/x",
        "HTTPS://D.EXAMPLE/x", "https://d.example/" + "x" * 4000,
    ],
)  # fmt: skip
def test_ordinary_urls_pass(url: str) -> None:
    """Delivery hosts are not documented, so every public one is allowed over https."""
    check_url(url, allow_loopback=False)


@pytest.mark.asyncio
async def test_a_download_follows_three_redirects() -> None:
    """F81 A delivery host may redirect up to three times, also to relative addresses."""

    async def moves(line: Line) -> None:
        while path := (await line.request()).split()[1].decode():
            hop = int(path.rsplit("/", 1)[1])
            moved = answer(b"", 302, {"Location": f"{hop + 1}"})
            await line.say(answer(b"picture") if hop == 4 else moved)

    assert await fetch_from(moves, "/hop/1") == (200, b"picture")
    with pytest.raises(TransportError, match="redirects"):
        await fetch_from(moves, "/hop/0")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "target",
    [
        pytest.param("http://10.0.0.1/x", id="F81 to plain http"),
        pytest.param("https://10.0.0.1/x", id="F81 F82 to a private address"),
        pytest.param("https://169.254.169.254/x", id="F81 F82 to metadata"),
        pytest.param("file:///etc/passwd", id="F81 T4 to a file"),
        pytest.param("https://u:p@host.example/x", id="F81 T4 to user info"),
        pytest.param("//10.0.0.1/x", id="F81 to another host"),
    ],
)
async def test_each_redirect_is_judged_like_the_first_url(target: str) -> None:
    """F81 P23 A target that would be refused as the first URL is refused."""
    with pytest.raises(TransportError, match=r"private address|the image's URL") as caught:
        await fetch_from(says(answer(b"", 302, {"Location": target})))
    assert caught.value.permanent


# — downloads —————————————————————————————————————————————————————

SIGNED = "/x/sample.jpeg?se=2026-01-01T00%3A00%3A00Z&rsct=image/jpeg&sig=a%2Fb%7Ec%27d+e%3d"


@pytest.mark.asyncio
async def test_a_signed_url_is_requested_byte_for_byte() -> None:
    """F83 The signature covers the query: nothing is quoted again, not even the case of %3d."""
    async with peer(says(answer(b"picture"))) as server, open_transport() as transport:
        await fetched(transport, server.url + SIGNED)
    assert SIGNED.encode() == server.received[0].split()[1]


@pytest.mark.asyncio
async def test_downloads_carry_no_credentials_and_no_cookies() -> None:
    """F84 T14 Neither the key of the API calls nor a cookie is sent."""
    cookie = {"Set-Cookie": "tracking=1; Path=/"}
    async with peer(says(answer(b"x", headers=cookie))) as server, open_transport() as transport:
        await transport.send(post(f"{server.url}/submit"))
        await transport.send(get(f"{server.url}/poll"))
        await fetched(transport, f"{server.url}/one")
        await fetched(transport, f"{server.url}/two")
        await transport.send(get(f"{server.url}/poll"))
    received = [request.lower() for request in server.received]
    downloads = [each for each in received if b"/one " in each or b"/two " in each]
    assert (len(received), len(downloads)) == (5, 2)
    private = (CANARY.encode(), b"authorization", b"x-key", b"referer")
    assert not [word for word in private for each in downloads if word in each]
    assert not [each for each in received if b"\r\ncookie" in each]


@pytest.mark.asyncio
async def test_proxies_and_netrc_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """T14 They neither redirect a call nor add credentials to it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login evil password evil\ndefault login e password e\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with peer(says(ACCEPTED)) as evil, peer(says(ACCEPTED)) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, evil.url)
            monkeypatch.setenv(name.lower(), evil.url)
        async with open_transport() as transport:
            call = Call(method="POST", url=server.url, headers={}, body=b"{}")
            assert (await transport.send(call)).status == 200
            assert (await fetched(transport, f"{server.url}/x"))[0] == 200
    assert evil.lines == []
    assert len(server.lines) == 2
    assert not any(b"authorization" in request.lower() for request in server.received)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(says_then_hangs_up(answer(b"pict", length=7)), id="F71 short, FIN"),
        pytest.param(says_then_resets(answer(b"pict", length=7)), id="F71 short, RST"),
        pytest.param(says_then_hangs_up(CHUNKED + b"4\r\npict\r\n"), id="F73 cut chunks"),
        pytest.param(says_then_hangs_up(CHUNKED + b"zz\r\npict\r\n"), id="F73 broken chunks"),
        pytest.param(says_then_hangs_up(HALF_HEAD), id="F71 cut headers"),
        pytest.param(says_then_resets(b""), id="F71 no answer"),
    ],
)
async def test_an_incomplete_body_is_an_error(behaviour: Behaviour) -> None:
    """F71 F73 Fewer bytes than announced are not taken for the image."""
    with pytest.raises(TransportError) as caught:
        await fetch_from(behaviour)
    assert not caught.value.permanent


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [403, 404, 410, 429, 500, 503])
async def test_a_downloads_status_raises_nothing(status: int) -> None:
    """F70 F87 The downloader decides what a status means for the image."""
    assert (await fetch_from(says(answer(b"<Error/>", status))))[0] == status


@pytest.mark.asyncio
async def test_a_submission_that_was_never_connected_is_forgotten() -> None:
    """The next call of the same task is not taken for it."""
    sent: list[None] = []
    async with peer(says(answer(b"{}"))) as server, open_transport() as transport:
        with pytest.raises(TransportError, match="cannot connect"):
            await transport.send(
                Call(
                    method="POST", url="http://127.0.0.1:9/x", headers={}, body=b"{}",
                    before_send=lambda: sent.append(None),
                )
            )  # fmt: skip
        await transport.send(Call(method="GET", url=f"{server.url}/x", headers={}))
    assert not sent


@pytest.mark.asyncio
async def test_a_body_is_read_whole_although_reading_was_paused() -> None:
    """aiohttp stops reading once it holds more than nobody asks for; asking for all goes on."""
    body = bytes(3 * 2**20)
    async with (
        asyncio.timeout(30),
        peer(says(answer(body))) as server,
        open_transport() as transport,
        transport.stream(f"{server.url}/x", timeout=5.0) as found,
    ):
        while found.arrived <= 2**19:  # noqa: ASYNC110 — more than aiohttp holds without a reader
            await asyncio.sleep(0)
        assert await found.whole(len(body)) == body


@pytest.mark.asyncio
async def test_a_download_must_begin_in_time() -> None:
    """F43 The timeout ends with the headers; a body that stops is the caller's to notice."""
    with pytest.raises(TransportError, match="in time"):
        await fetch_from(hangs, timeout=0.1)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left"), ValueError("a bug"), TimeoutError("the sink's")],
    ids=repr,
)
async def test_exceptions_of_the_caller_pass_unchanged(error: Exception) -> None:
    """F100 A full disk or a bug of the caller is not taken for a broken connection."""
    async with peer(says(answer(b"picture"))) as server, open_transport() as transport:
        with pytest.raises(type(error)) as caught:
            async with transport.stream(f"{server.url}/x", timeout=5.0):
                raise error
    assert caught.value is error


@pytest.mark.asyncio
async def test_a_cancelled_call_is_cancelled() -> None:
    """A cancellation passes unchanged, and the connection is closed."""
    arrived, left = asyncio.Event(), asyncio.Event()

    async def listens(line: Line) -> None:
        await line.request()
        arrived.set()
        await line.silence()
        left.set()

    async with peer(listens) as server, open_transport() as transport:
        call = asyncio.create_task(transport.send(post(f"{server.url}/submit")))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(left.wait(), 5)


# — nothing secret in any error ————————————————————————————————————————————————————————————————

BROKEN = [
    *IN_DOUBT,
    pytest.param(says_then_hangs_up(HALF_BODY), id="F37 FIN inside the body"),
    pytest.param(hangs, id="F39 silence"),
    pytest.param(says_then_hangs_up(CHUNKED + b"zz\r\n"), id="F73 broken chunks"),
    pytest.param(says(answer(b"", 302, {"Location": "https://[x?" + SIGNATURE})), id="F81 moved"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("behaviour", BROKEN)
async def test_no_error_or_log_holds_the_key_or_the_signed_query(
    behaviour: Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    """P22 T1 Text, repr, arguments, causes, contexts and tracebacks have no secrets."""
    caplog.set_level(logging.DEBUG)
    signed = f"/x?sig={SIGNATURE}"
    shown = ""
    async with peer(behaviour) as server, open_transport() as transport:
        for make in (post, get):
            try:
                shown += repr(await transport.send(make(server.url + signed, timeout=0.2)))
            except TransportError as error:
                shown += everything_in(error)
        try:
            await fetched(transport, server.url + signed, timeout=0.2)
        except TransportError as error:
            shown += everything_in(error)
    assert "TransportError" in shown
    assert CANARY not in shown + caplog.text
    assert SIGNATURE not in shown + caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "origin",
    [
        pytest.param("http://127.0.0.1:9", id="F31 refused"),
        pytest.param("https://10.0.0.1", id="F82 private"),
        pytest.param("https://host.example:99999", id="T4 port"),
        pytest.param(f"https://{'a' * 70}.example", id="F30 label"),
        pytest.param("https://gone.example", id="F30 NXDOMAIN"),
        pytest.param("https://[", id="T4 bracket"),
    ],
)
async def test_no_failed_connection_holds_the_key_or_the_signed_query(
    origin: str, names: Names
) -> None:
    """P22 T1 Also when nothing was sent."""
    names["gone.example"] = socket.gaierror(socket.EAI_NONAME, "Name not known")
    signed = f"{origin}/x?sig={SIGNATURE}"
    async with open_transport(loopback=False) as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, signed)
        shown = everything_in(caught.value)
        if origin != "https://10.0.0.1":
            with pytest.raises(TransportError) as caught:
                await transport.send(post(signed))
            shown += everything_in(caught.value)
    assert SIGNATURE not in shown
    assert CANARY not in shown
