"""Case 5: networks with a proxy or a CA of their own.

Members: aio-libs/aiohttp#10682 (aiohttp reads no variables by itself), opensanctions/yente#85,
OpenCTI-Platform/connectors#4044 (no way to name a proxy); aio-libs/aiohttp#3075 (an https:// proxy
is ignored), HKUDS/nanobot#5425 and MoonshotAI/kimi-cli#404 (GNOME's ALL_PROXY=socks://),
encode/httpx#858 (an encoded password), simonw/llm#979 (a company's own CA), python/cpython#138193
and urllib3/urllib3#3665 (Python 3.13 refuses the certificates of company proxies).
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from attrs import define
from support.command_forks import forks
from support.echo_server import EchoServer, echo_server
from support.forward_proxy import ForwardProxy, _copy, forward_proxy
from support.raw_servers import Behaviour, Line, answer, hangs, peer, says, says_then_hangs_up
from support.tcp_proxy import Fault, Proxy, posts
from support.tls import HOST, ca_file, sloppy_certificate, tls_front, trusting

from fluxasync import (
    Batch,
    ConfigError,
    Credentials,
    Failed,
    FluxError,
    FluxSession,
    InDoubt,
    Provider,
    Retry,
    Saved,
    Timeouts,
    TransportError,
    bench,
)
from fluxasync._wire import tls
from fluxasync._wire.proxies import ProxySettings
from fluxasync._wire.transport import AiohttpTransport
from fluxasync.extend import Call

KEY = "sk-canary-4711"
IMAGES = "images.example.invalid"
BASE = f"https://{HOST}"
QUICK = Retry(initial=0.01, maximum=0.02, patience=0.2)
MODEL = "flux-2-klein-4b"


@define
class Place:
    """A gateway that only a proxy reaches: its server, and the proxy."""

    server: EchoServer
    proxy: ForwardProxy

    @property
    def connects(self) -> list[str]:
        return [head.split("\r\n")[0] for head in self.proxy.heads]


@asynccontextmanager
async def place(*, fault: Fault | None = None) -> AsyncIterator[Place]:
    """Serve https://flux.example.invalid behind a proxy; `fault` breaks exchanges inside TLS."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(echo_server())
        port = urlsplit(server.url).port or 0
        server.url = BASE  # the image URLs it gives
        if fault is not None:
            broken = Proxy(("127.0.0.1", port), fault)
            await broken.listen()
            stack.push_async_callback(broken.close)
            port = urlsplit(broken.url).port or 0
        front = await stack.enter_async_context(tls_front(port, HOST, IMAGES))
        proxy = await stack.enter_async_context(forward_proxy(front))
        yield Place(server, proxy)


@define
class PickyProxy(ForwardProxy):
    """Answers the first CONNECTs with 502, and those to one host with 403."""

    refusals: int = 0
    refused: str = "-"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        status = 403 if head.startswith(f"CONNECT {self.refused}:") else 0
        if self.refusals:
            self.refusals, status = self.refusals - 1, 502
        if status:
            writer.write(answer(b"<html>no", status))
            await writer.drain()
            writer.close()
            return
        there, here = await asyncio.open_connection("127.0.0.1", self.target_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, here), _copy(there, writer), return_exceptions=True)


@asynccontextmanager
async def picky_proxy(there: Place, **options: object) -> AsyncIterator[PickyProxy]:
    """Serve a second proxy of a place, which refuses some tunnels."""
    proxy = PickyProxy(there.proxy.target_port, **options)  # type: ignore[arg-type]
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()


def session(proxy: str | None = None, **options: object) -> FluxSession:
    given: dict[str, object] = {"ssl": trusting(), "retry": QUICK, "api_key": KEY} | options
    return FluxSession(base_url=BASE, proxy=proxy, **given)  # type: ignore[arg-type]


async def fluxasync(*arguments: str, cwd: Path, **environ: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it wrote to standard error."""
    ended = await forks().run_beside(*arguments, cwd=cwd, environ={**os.environ, **environ})
    return ended.code, ended.err


# --- what is sent through the proxy ---------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", None])
async def test_submits_polls_and_downloads_go_through_the_proxy(
    variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F42 The proxy is asked for tunnels only, and sees neither the key nor a path."""
    async with place() as there:
        if variable is not None:
            monkeypatch.setenv(variable, there.proxy.url)
        async with session(None if variable else there.proxy.url) as flux:
            saved = await flux.generate("a lighthouse", model=MODEL)
    assert saved.data
    assert len(there.server.submitted) == 1
    assert len(there.connects) >= 3  # each pool has connections of its own
    assert set(there.connects) == {f"CONNECT {HOST}:443 HTTP/1.1"}
    assert not [head for head in there.proxy.heads if KEY in head or "uthorization" in head]


@pytest.mark.asyncio
async def test_the_command_line_obeys_the_environment_and_the_ca_file(tmp_path: Path) -> None:
    """HTTPS_PROXY and SSL_CERT_FILE are enough; the proxy is named, its password is not."""
    async with place() as there:
        code, errors = await fluxasync(
            "generate", "a lighthouse", "-o", "x.jpg", "--base-url", BASE, cwd=tmp_path,
            COMETAPI_KEY=KEY,
            HTTPS_PROXY=there.proxy.url.replace("//", "//user:canary-word@"),
            SSL_CERT_FILE=str(ca_file(tmp_path)),
        )  # fmt: skip
    assert code == 0, errors
    assert (tmp_path / "x.jpg").stat().st_size
    assert f"connecting through the proxy {there.proxy.url} (HTTPS_PROXY)" in errors
    assert "canary-word" not in errors


@pytest.mark.asyncio
async def test_an_option_names_the_proxy_of_a_run(tmp_path: Path) -> None:
    """`run --proxy` makes its images through it, whatever HTTPS_PROXY says."""
    (tmp_path / "list.txt").write_text("a lighthouse\na bridge\n")
    async with place() as there:
        code, errors = await fluxasync(
            "run", "list.txt", "-o", "out", "--base-url", BASE, "--proxy", there.proxy.url,
            "--model", MODEL, cwd=tmp_path, COMETAPI_KEY=KEY, HTTPS_PROXY="http://127.0.0.1:9",
            SSL_CERT_FILE=str(ca_file(tmp_path)),
        )  # fmt: skip
    assert code == 0, errors
    assert len(there.server.submitted) == 2


@pytest.mark.asyncio
async def test_a_proxys_password_goes_to_the_proxy_only() -> None:
    """The decoded user and password are in the CONNECT; the server gets neither them nor the
    header; the key stays inside the tunnel."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(peer(says(answer(b"{}"))))
        front = await stack.enter_async_context(tls_front(server.port))
        proxy = await stack.enter_async_context(forward_proxy(front))
        named = proxy.url.replace("//", "//us%40er:can%3Aary@")
        async with proxied(named) as transport:
            for _ in range(2):
                await transport.send(post())
            async with transport.stream(f"{BASE}/image", timeout=5) as image:
                assert image.status == 200
    assert len(proxy.heads) == 2  # the second submission used the tunnel of the first
    assert all("Proxy-Authorization: Basic dXNAZXI6Y2FuOmFyeQ==" in head for head in proxy.heads)
    assert not [request for request in server.received if b"roxy" in request]


def proxied(url: str, *, connect: float = 10.0) -> AiohttpTransport:
    timeouts = Timeouts(connect=connect)
    return AiohttpTransport(timeouts=timeouts, proxies=ProxySettings(url), ssl=trusting())


def post() -> Call:
    return Call(method="POST", url=f"{BASE}/v1/m", headers={"x-key": KEY}, body=b"{}")


@pytest.mark.asyncio
async def test_a_proxy_with_tls_is_used() -> None:
    """An https:// proxy works: TLS inside TLS (aio-libs/aiohttp#3075 ignores it)."""
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(place())
        front = await stack.enter_async_context(tls_front(there.proxy.port, "localhost"))
        async with session(f"https://localhost:{front}") as flux:
            assert (await flux.generate("a lighthouse", model=MODEL)).data
    assert set(there.connects) == {f"CONNECT {HOST}:443 HTTP/1.1"}


@pytest.mark.asyncio
async def test_a_benchmark_records_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report's environment has the proxy without its password."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file(tmp_path)))
    async with place() as there:
        config = bench.BenchConfig(
            out=tmp_path / "bench", models=MODEL, load=bench.Workload(in_flight=1, images=1),
            base_url=BASE, api_key=KEY, max_cost="1.00",
            proxy=there.proxy.url.replace("//", "//user:canary-word@"),
        )  # fmt: skip
        report = await bench.run(config)
    assert report.environment["proxy"] == there.proxy.url
    for path in (tmp_path / "bench").glob("*.*"):
        assert b"canary-word" not in path.read_bytes()


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_simulator_works_whatever_the_proxy_variables_say(tmp_path: Path) -> None:
    """`--simulate` and a loopback address need no proxy, and no usable variable."""
    odd = {"HTTPS_PROXY": "socks5://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    code, errors = await fluxasync(
        "generate", "x", "-o", "x.jpg", "--simulate", cwd=tmp_path,
        ALL_PROXY="nonsense://", SSL_CERT_FILE="/nowhere.pem", **odd,
    )  # fmt: skip
    assert code == 0, errors
    assert "proxy" not in errors


@pytest.mark.asyncio
@pytest.mark.parametrize("command", ["generate", "bench"])
async def test_a_proxy_for_the_simulator_is_refused(command: str, tmp_path: Path) -> None:
    """`--proxy` would be dropped in silence, so it is an error."""
    given = ("generate", "x") if command == "generate" else ("bench",)
    code, errors = await fluxasync(
        *given, "-o", "out", "--simulate", "--proxy", "http://127.0.0.1:9", cwd=tmp_path
    )
    assert (code, "leave out --proxy" in errors) == (2, True)


@pytest.mark.asyncio
async def test_an_unexpected_answer_inside_a_tunnel_reaches_no_call() -> None:
    """A second answer on a kept tunnel ends that connection: the next call gets its own."""

    async def twice(line: Line) -> None:
        await line.request()
        await line.say(answer(b'{"id": "own"}') + answer(b'{"id": "stale"}'))
        await line.silence()

    async with (
        peer(twice) as server,
        tls_front(server.port) as front,
        forward_proxy(front) as proxy,
    ):
        transport = AiohttpTransport(
            timeouts=Timeouts(), proxies=ProxySettings(proxy.url), ssl=trusting()
        )
        async with transport:
            bodies = [(await transport.send(post())).body for _ in range(3)]
    assert bodies == [b'{"id": "own"}'] * 3
    assert len(proxy.heads) == 3


@pytest.mark.asyncio
async def test_a_proxied_image_url_of_a_private_host_is_refused() -> None:
    """The proxy looks names up, so a private host in an image's URL is refused before."""
    async with forward_proxy(9) as proxy, proxied(proxy.url) as transport:
        for host in ("10.0.0.5", "metadata.google.internal", "0x0a000005", "intranet"):
            with pytest.raises(TransportError, match="private addresses are refused"):
                async with transport.stream(f"https://{host}/x", timeout=5):
                    pass
    assert proxy.heads == []


@pytest.mark.asyncio
async def test_an_image_that_the_proxy_does_not_allow_is_collected_later(tmp_path: Path) -> None:
    """A proxy that allows the API and not the images' host is named, and the same command collects
    the image once the host is allowed, without another charge."""
    row = [{"prompt": "a lighthouse", "model": MODEL}]
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(place())
        there.server.url = f"https://{IMAGES}"
        picky = await stack.enter_async_context(picky_proxy(there, refused=IMAGES))
        async with session(picky.url) as flux, Batch(flux, row, out=tmp_path / "out") as batch:
            outcome = await anext(batch)
        assert isinstance(outcome, Failed)
        assert f"refuses to connect to {IMAGES} (HTTP 403)" in str(outcome.error)
        picky.refused = "-"
        async with session(picky.url) as flux:
            summary = await Batch(flux, row, out=tmp_path / "out", retry="download").run()
    assert summary.saved == 1
    assert len(there.server.submitted) == 1


# --- what is said, and what is charged, when it fails ---------------------------------------------


async def failed_connect(behaviour: Behaviour) -> TransportError:
    """Submit once through a proxy with this behaviour; return the error."""
    async with peer(behaviour) as proxy, proxied(proxy.url, connect=0.2) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send(post())
    return caught.value


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("behaviour", "words", "lasting"),
    [
        pytest.param(says(answer(status=407)), "asks for a user and a password", True, id="407"),
        pytest.param(says(answer(status=403)), f"refuses to connect to {HOST}", True, id="403"),
        pytest.param(says(answer(status=405)), f"refuses to connect to {HOST}", True, id="405"),
        pytest.param(says(answer(status=429)), f"cannot reach {HOST}", False, id="429"),
        pytest.param(says(answer(status=502)), f"cannot reach {HOST}", False, id="502"),
        pytest.param(says(answer(status=503)), f"cannot reach {HOST}", False, id="503"),
        pytest.param(says(answer(status=504)), f"cannot reach {HOST}", False, id="504"),
        pytest.param(says(answer(b"<html>log in", 302)), "is there a login page", False, id="302"),
        pytest.param(says(answer(b"<html>log in", 511)), f"cannot reach {HOST}", False, id="511"),
        pytest.param(says_then_hangs_up(b""), "made no connection", False, id="closes"),
        pytest.param(says_then_hangs_up(b"HTTP/1."), "made no connection", False, id="cut"),
        pytest.param(says_then_hangs_up(b"SSH-2.0-x\r\n\r\n"), "made no", False, id="not HTTP"),
        pytest.param(hangs, "no answer in time through", False, id="no answer"),
        pytest.param(says(answer(b"<html>")), "no answer in time through", False, id="200, a page"),
        pytest.param(says_then_hangs_up(answer(b"<html>")), "no secure connection", False,
                     id="200, then closes"),
    ],
)  # fmt: skip
async def test_a_connect_that_fails_was_not_sent(
    behaviour: Behaviour, words: str, lasting: bool
) -> None:
    """The error says that the proxy answered, and that nothing was sent: it may be tried again."""
    error = await failed_connect(behaviour)
    assert error.sent is False
    assert "the proxy http://127.0.0.1:" in str(error)
    assert words in str(error)
    assert error.permanent is lasting
    assert KEY not in str(error)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://user:canary@127.0.0.1:9", "cannot connect to the proxy http://127.0.0.1:9: conn"),
        ("http://user:canary@nowhere.invalid:3128", "its name is not found"),
    ],
)
async def test_a_proxy_that_is_down_is_named(proxy: str, words: str) -> None:
    """The message names the proxy without its password; nothing was sent."""
    with pytest.raises(TransportError) as caught:
        async with session(proxy) as flux:
            await flux.generate("x", model=MODEL)
    assert caught.value.sent is False
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.asyncio
async def test_a_proxy_that_is_down_is_logged_long_before_patience_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A session without an observer warns once, after three calls without an answer."""
    with pytest.raises(TransportError):
        async with session("http://user:canary@127.0.0.1:9") as flux:
            await flux.generate("x", model=MODEL)
    assert caplog.text.count("cannot connect to the proxy http://127.0.0.1:9: conn") == 1
    assert "canary" not in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize("options", [(), ("--quiet",)], ids=["", "quiet"])
@pytest.mark.slow
async def test_a_proxy_that_is_down_is_named_at_once_at_the_command_line(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """A run says within seconds which proxy cannot be reached, and goes on trying."""
    (tmp_path / "list.txt").write_text("a lighthouse\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fluxasync", "run", "list.txt", "-o", "out", "--base-url", BASE,
        *options, cwd=tmp_path,
        env={**os.environ, "COMETAPI_KEY": KEY, "HTTPS_PROXY": "127.0.0.1:9"},
        stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr is not None
    seen = ""
    async with asyncio.timeout(30):
        while "cannot connect to the proxy http://127.0.0.1:9 (HTTPS_PROXY)" not in seen:
            seen += (await process.stderr.readline()).decode()
    process.terminate()
    await process.wait()


@pytest.mark.asyncio
async def test_submissions_that_the_proxy_refused_are_sent_again_and_charged_once(
    tmp_path: Path,
) -> None:
    """F42 CONNECTs that fail leave no image in doubt: every image is submitted once and saved."""
    rows = [{"prompt": f"picture {n}", "model": MODEL} for n in range(4)]
    retry = Retry(initial=0.01, maximum=0.05, patience=30)
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(place())
        hesitant = await stack.enter_async_context(picky_proxy(there, refusals=3))
        async with session(hesitant.url, retry=retry, limits=2) as flux:
            summary = await Batch(flux, rows, out=tmp_path / "out").run()
    assert (summary.saved, summary.in_doubt, summary.failed.total()) == (4, 0, 0)
    assert len(there.server.submitted) == 4
    assert len(hesitant.heads) > 3


@pytest.mark.asyncio
async def test_a_submission_that_breaks_inside_the_tunnel_is_in_doubt(tmp_path: Path) -> None:
    """After the tunnel is open the POST may have arrived: it is in doubt and not sent again."""
    rows = [{"prompt": f"picture {n}", "model": MODEL} for n in range(2)]
    fault = Fault(kind="swallow", affects=posts(1))
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(place(fault=fault))
        flux = await stack.enter_async_context(session(there.proxy.url, limits=1))
        batch = await stack.enter_async_context(Batch(flux, rows, out=tmp_path / "out"))
        outcomes = [outcome async for outcome in batch]
    assert [type(outcome) for outcome in outcomes] == [InDoubt, Saved]
    assert len(there.server.submitted) == 2


# --- what is refused before anything is sent ------------------------------------------------------


@pytest.mark.asyncio
async def test_a_key_is_never_sent_to_a_proxy_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    """http and a proxy together are refused on entry, with the exemption to set."""
    gateway = Provider(name="g", base_url="http://10.1.2.3:3000", allow_private_network=True)
    async with forward_proxy(9) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(ConfigError, match=r"would see the key.* add 10\.1\.2\.3 to NO_PROXY"):
            async with FluxSession(gateway, api_key=KEY):
                pass
        monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
        async with FluxSession(gateway, api_key=KEY):
            pass
    assert proxy.heads == []


@pytest.mark.asyncio
async def test_the_access_token_is_inside_the_tunnel_only() -> None:
    """The account is asked through the proxy, which sees neither secret."""
    given = Credentials(api_key=KEY, access_token="canary-token-31f0aa")
    async with place() as there, session(there.proxy.url, api_key=given) as flux:
        with pytest.raises(FluxError):  # the gateway has no account
            await flux.account.tasks()
        with pytest.raises(FluxError):
            await flux.account.balance()
        assert set(there.connects) == {f"CONNECT {HOST}:443 HTTP/1.1"}
        for head in there.proxy.heads:
            assert "canary" not in head
            assert KEY not in head


@pytest.mark.asyncio
async def test_a_polling_url_without_tls_is_not_polled_through_a_proxy() -> None:
    """A gateway that is exempt may name a polling host that is not: the key does not go there."""
    async with forward_proxy(9) as proxy, proxied(proxy.url) as transport:
        call = Call(method="GET", url="http://poller:80/x", headers={"x-key": KEY})
        with pytest.raises(TransportError, match="would see the key") as caught:
            await transport.send(call)
    assert caught.value.sent is False
    assert proxy.heads == []


@pytest.mark.asyncio
async def test_a_socks_proxy_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable and what to set instead are in the message; other hosts are not concerned."""
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:20170/")
    with pytest.raises(ConfigError, match=r"ALL_PROXY: socks .*http:// proxy.*NO_PROXY"):
        async with session():
            pass
    with pytest.raises(ConfigError, match=r"^proxy: socks"):
        session("socks5://127.0.0.1:1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proxy": 3128}, "proxy: the URL of a proxy"),
        ({"proxy": "ftp://x"}, "proxy: not an http"),
        ({"ssl": False}, "ssl: an ssl.SSLContext"),
        ({"ssl": "/etc/ca.pem"}, "ssl: an ssl.SSLContext"),
    ],
)
def test_wrong_arguments_are_refused_at_once(options: dict[str, object], words: str) -> None:
    """A session with a wrong proxy or context is not made."""
    with pytest.raises(ConfigError, match=words):
        FluxSession(api_key=KEY, **options)  # type: ignore[arg-type]


# --- names that are not found ---------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "without a proxy: HTTPS_PROXY is not set"),
        ({"HTTP_PROXY": "http://127.0.0.1:9"}, "HTTP_PROXY is for http:// only; set HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": ".invalid"}, "because of NO_PROXY"),
    ],
)
@pytest.mark.slow
async def test_a_name_that_is_not_found_says_whether_a_proxy_was_used(
    environ: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the name, and the variable that is missing or that exempts it."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TransportError, match=words) as caught:
        async with session() as flux:
            await flux.generate("x", model=MODEL)
    assert HOST in str(caught.value)
    assert caught.value.sent is False


# --- certificates ---------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_unknown_ca_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of a company's CA is refused at once, with the variable to set."""
    async with place() as there:
        with pytest.raises(TransportError, match="set SSL_CERT_FILE to its PEM file") as caught:
            async with session(there.proxy.url, ssl=None) as flux:
                await flux.generate("x", model=MODEL)
        assert (caught.value.sent, caught.value.permanent) == (False, True)
        assert f"to {HOST} through the proxy" in str(caught.value)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/corp.pem")
        with pytest.raises(TransportError, match=r'SSL_CERT_FILE="\$REQUESTS_CA_BUNDLE"'):
            async with session(there.proxy.url, ssl=None) as flux:
                await flux.generate("x", model=MODEL)
    assert there.server.submitted == []


@pytest.mark.asyncio
async def test_a_sloppy_certificate_of_a_companys_proxy_is_accepted_with_its_ca(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strict checks, Python 3.13's default, refuse it with the way out; SSL_CERT_FILE helps."""
    ca, leaf = sloppy_certificate(tmp_path)
    strict = ssl.create_default_context(cafile=ca)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(echo_server())
        port, server.url = urlsplit(server.url).port or 0, BASE
        front = await stack.enter_async_context(tls_front(port, certificate=leaf))
        proxy = await stack.enter_async_context(forward_proxy(front))
        with pytest.raises(TransportError, match=r"Key Identifier; .* set SSL_CERT_FILE"):
            async with session(proxy.url, ssl=strict) as flux:
                await flux.generate("x", model=MODEL)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        async with session(proxy.url, ssl=None) as flux:
            assert (await flux.generate("a lighthouse", model=MODEL)).data
    found = tls.trusted(os.environ)
    assert found is not None
    assert not found.verify_flags & ssl.VERIFY_X509_STRICT


@pytest.mark.asyncio
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_a_ca_of_the_environment_is_trusted(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, or a folder with hashed names, is read when the session is opened."""
    path = ca_file(tmp_path)
    if variable == "SSL_CERT_DIR":
        path = hashed(path)
    monkeypatch.setenv(variable, str(path))
    async with place() as there, session(there.proxy.url, ssl=None) as flux:
        assert (await flux.generate("a lighthouse", model=MODEL)).data


def hashed(path: Path) -> Path:
    """Give a certificate the name under which OpenSSL looks it up; return its folder."""
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(path)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    folder = path.parent / "certificates"
    folder.mkdir()
    path.rename(folder / f"{name}.0")
    return folder


@pytest.mark.asyncio
async def test_a_certificate_of_another_name_is_no_matter_of_a_ca() -> None:
    """The advice to trust a CA is not given where it would not help."""
    async with echo_server() as server:
        port = urlsplit(server.url).port or 0
        async with tls_front(port, "other.example.invalid") as front, forward_proxy(front) as proxy:
            with pytest.raises(TransportError, match="mismatch") as caught:
                async with session(proxy.url) as flux:
                    await flux.generate("x", model=MODEL)
    assert "SSL_CERT_FILE" not in str(caught.value)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "No such file"), ("not a certificate", "PEM"), ("", "PEM"), ("folder", "")],
)
async def test_a_bad_certificate_file_is_refused_before_anything(
    text: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that OpenSSL would ignore in silence is an error on entry."""
    path = tmp_path / "ca.pem"
    if text == "folder":
        path.mkdir()
    elif text is not None:
        path.write_text(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(ConfigError, match=re.escape(f"SSL_CERT_FILE: {path}")) as caught:
        async with session(ssl=None):
            pass
    assert words in str(caught.value)


@pytest.mark.asyncio
async def test_a_context_of_the_caller_is_used_as_it_is() -> None:
    """`ssl=` decides alone: one that trusts nothing refuses even a good certificate."""
    nothing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with place() as there:
        with pytest.raises(TransportError, match="cannot connect safely"):
            async with session(there.proxy.url, ssl=nothing) as flux:
                await flux.generate("x", model=MODEL)
