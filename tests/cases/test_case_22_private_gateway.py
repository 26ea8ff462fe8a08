"""Case 22: gateways in a private network, over http, with an explicit yes.

Members: Agenta-AI/agenta#6984, elie222/rakazo#577, abundantbeing/hermes-browser-extension#83 (plain
http to a LAN address or a service name is refused without a way to allow it);
openclaw/openclaw#79850 (`host.docker.internal` is blocked although private networks are allowed),
baptisteArno/typebot.io#2474 and langgenius/dify#38443 (private addresses are blocked for a
self-hosted service; the allowance must not open the metadata service of a cloud).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp.resolver
import pytest
from attrs import evolve
from support.command_forks import forks
from support.raw_servers import answer, peer, says

from fluxasync import (
    BFL,
    COMETAPI,
    Batch,
    ConfigError,
    FluxSession,
    Provider,
    Retry,
    Timeouts,
    TransportError,
)
from fluxasync._wire.address_guard import AddressGuard
from fluxasync._wire.credentials import may_send_key, resolve_provider
from fluxasync._wire.transport import AiohttpTransport
from fluxasync.simulator import Scenario, Simulator

MODEL = "flux-2-klein-4b"
QUICK = Scenario(latency=(0.01, 0.02))
HOPELESS = Retry(initial=0.01, maximum=0.02, patience=0.1)


def gateway(base_url: str, *, of: Provider = COMETAPI, allowed: bool = True) -> Provider:
    return evolve(of, base_url=base_url, allow_private_network=allowed)


def lan_address() -> str:
    """Return an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Host names and their addresses, as a container's DNS would give them."""
    found: dict[str, str] = {}
    resolve = aiohttp.resolver.ThreadedResolver.resolve

    async def answered(self: Any, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        return await resolve(self, found.get(host, host), port, family)

    monkeypatch.setattr(aiohttp.resolver.ThreadedResolver, "resolve", answered)
    monkeypatch.setattr(aiohttp.resolver.DefaultResolver, "resolve", answered)
    return found


@asynccontextmanager
async def simulator() -> AsyncIterator[tuple[Simulator, int]]:
    """A simulator for other machines, and its port."""
    async with Simulator(QUICK, host="0.0.0.0") as found:  # noqa: S104 — a test
        yield found, urlsplit(found.url).port or 0


async def fluxasync(*arguments: str, cwd: Path, **environ: str) -> tuple[int, str]:
    ended = await forks().run_beside(*arguments, cwd=cwd, environ={**os.environ, **environ})
    return ended.code, ended.err


PRIVATE = [
    "192.168.1.20", "10.1.2.3", "172.18.0.2", "100.101.102.103", "[fd00::5]", "flux-gateway",
    "flux_gateway_1", "host.docker.internal", "host.containers.internal", "nas.local", "box.lan",
    "flux.default.svc.cluster.local", "flux.default.svc", "gateway.corp", "gw.home.arpa",
    "0xc0a80114",
]  # fmt: skip
PUBLIC = ["example.com", "api.bfl.ai", "8.8.8.8", "192.168.1.20.nip.io", "[2606:4700::1]", "a.b"]


@pytest.mark.parametrize("host", PRIVATE)
def test_http_to_a_private_host_needs_an_explicit_yes(host: str) -> None:
    """It is refused with the option to type, and allowed with it; no key is needed then."""
    url = f"http://{host}:3000"
    with pytest.raises(ConfigError, match=r"Provider\(allow_private_network=True\)"):
        Provider(name="g", base_url=url)
    with pytest.raises(ConfigError, match=r"http would send the key unencrypted"):
        COMETAPI.at(url)
    provider, key = resolve_provider(gateway(url), environ={})
    assert (provider.base_url, key) == (url, None)


@pytest.mark.parametrize("host", PUBLIC)
@pytest.mark.parametrize("allowed", [False, True])
def test_http_to_a_public_host_is_always_refused(host: str, allowed: bool) -> None:
    """The yes does not cover the internet, and the message does not suggest it."""
    with pytest.raises(ConfigError, match="use https://") as caught:
        Provider(name="g", base_url=f"http://{host}", allow_private_network=allowed)
    assert "allow_private" not in str(caught.value)


@pytest.mark.asyncio
@pytest.mark.parametrize("url", ["http://192.168.1.20:3000", "http://flux-gateway:8787"])
async def test_the_command_line_names_the_option(url: str, tmp_path: Path) -> None:
    """Refused with exit code 2 before anything is sent."""
    code, errors = await fluxasync(
        "generate", "x", "-o", "x.jpg", "--base-url", url, cwd=tmp_path, COMETAPI_KEY="sk-1"
    )
    assert code == 2
    assert "in a private network that you trust: --allow-private-network\n" in errors


@pytest.mark.asyncio
async def test_a_run_of_the_command_line_in_a_lan(tmp_path: Path) -> None:
    """With the option, images of a gateway in the LAN are made without a key."""
    (tmp_path / "list.txt").write_text("a lighthouse\na bridge\n")
    async with simulator() as (server, port):
        code, errors = await fluxasync(
            "run", "list.txt", "-o", "out", "--model", MODEL, "--allow-private-network",
            "--base-url", f"http://{lan_address()}:{port}", cwd=tmp_path,
        )  # fmt: skip
    assert code == 0, errors
    assert len(list((tmp_path / "out").glob("*.jp*g"))) == 2
    assert len(server.charges) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("of", [COMETAPI, BFL], ids=lambda provider: provider.name)
@pytest.mark.parametrize("host", ["", "flux-gateway", "host.docker.internal"])
async def test_polling_and_image_urls_of_the_gateway_are_covered(
    host: str, of: Provider, names: dict[str, str]
) -> None:
    """Their hosts and ports may be others in the private network."""
    names[host] = lan_address()
    async with simulator() as (server, port):
        provider = gateway(f"http://{host or lan_address()}:{port}", of=of)
        async with FluxSession(provider, api_key="any") as flux:
            saved = await flux.generate("a lighthouse", model=MODEL)
    assert saved.data
    assert len(server.charges) == 1
    if of is BFL:
        assert saved.job.polling_url is not None
        assert f"//{host or lan_address()}:" in saved.job.polling_url


@pytest.mark.asyncio
async def test_a_public_provider_cannot_name_private_addresses() -> None:
    """Without the yes, and with it as long as the gateway itself is not at a private address, an
    image is not fetched from the private network."""
    lan = lan_address()
    async with peer(says(answer(b"image"))) as server:
        for allowed in (False, True):
            async with AiohttpTransport(timeouts=Timeouts(), allow_private=allowed) as transport:
                for url in (f"https://{lan}/x", "https://127.0.0.1/x"):
                    with pytest.raises(TransportError, match=r"private|refused"):
                        async with transport.stream(url, timeout=5):
                            pass
                with pytest.raises(TransportError, match="is not https"):
                    async with transport.stream(f"http://{lan}:{server.port}/x", timeout=5):
                        pass
    assert server.lines == []


@pytest.mark.asyncio
async def test_a_private_name_at_a_public_address_gets_no_key(names: dict[str, str]) -> None:
    """A name without a dot that DNS sends to the internet is refused at the connection."""
    names["flux-gateway"] = "8.8.8.8"
    provider = gateway("http://flux-gateway:9")
    with pytest.raises(TransportError, match="allowed to private addresses only") as caught:
        async with FluxSession(provider, api_key="sk-1", retry=HOPELESS) as flux:
            await flux.generate("x", model=MODEL)
    assert (caught.value.sent, caught.value.permanent) == (False, True)


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("http://192.168.1.20:3000/v1/get_result?id=1", True),
        ("http://192.168.1.20:3001/v1/get_result?id=1", True),
        ("http://poller:80/v1/get_result?id=1", True),
        ("https://poller.internal/v1/get_result?id=1", True),
        ("http://169.254.169.254/latest/meta-data", False),
        ("http://[fe80::1]/x", False),
        ("http://example.com/v1/get_result?id=1", False),
        ("https://example.com/v1/get_result?id=1", False),
        ("http://u:p@192.168.1.20:3000/x", False),
    ],
)
def test_the_key_stays_in_the_private_network(url: str, trusted: bool) -> None:
    """A polling URL gets the key on private hosts only; never without the yes."""
    assert may_send_key(gateway("http://192.168.1.20:3000"), url) is trusted
    encrypted = gateway("https://192.168.1.20:3000")
    assert may_send_key(encrypted, url) is (trusted and url.startswith("https"))
    public = evolve(COMETAPI, allow_private_network=True)
    assert may_send_key(public, url) is False


@pytest.mark.asyncio
async def test_image_inputs_may_name_the_gateways_network(tmp_path: Path) -> None:
    """A list may give a URL in the private network to a gateway there, not to a public provider."""
    row = {"prompt": "x", "model": "flux-kontext-pro", "input_image": "https://nas.local/a.png"}
    (tmp_path / "list.jsonl").write_text(json.dumps(row))
    inside = FluxSession(gateway("http://flux-gateway:8787"))
    plan = await Batch(inside, tmp_path / "list.jsonl", out=tmp_path / "a").check()
    assert plan.images == 1
    with pytest.raises(ConfigError, match=r"nas\.local"):
        await Batch(FluxSession(BFL), tmp_path / "list.jsonl", out=tmp_path / "b").check()


def test_the_metadata_service_of_a_cloud_stays_refused() -> None:
    """Link-local addresses are no part of what is allowed, also through a proxy."""
    guard = AddressGuard(allow_private=True)
    guard._is_gateway_private = True
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))
    with pytest.raises(OSError, match="private addresses are refused"):
        guard.download_socket(address)
    with pytest.raises(TransportError, match="private addresses are refused"):
        guard.check_proxied("169.254.169.254")
    guard.check_proxied("10.0.0.5")


@pytest.mark.asyncio
async def test_a_simulator_for_other_machines_names_itself_as_it_was_called() -> None:
    """Two clients that use different names get URLs with their own; a bad one is not repeated."""
    async with simulator() as (_, port), aiohttp.ClientSession() as client:
        latest = ""
        for host in ("sim", "host.docker.internal", "[fd00::5]", "evil\\x", "a b"):
            reply = await client.post(
                f"http://127.0.0.1:{port}/v1/{MODEL}", json={"prompt": "x"},
                headers={"Host": f"{host}:{port}", "x-key": "k"},
            )  # fmt: skip
            url = (await reply.json())["polling_url"]
            latest = latest if {*host} & {"\\", " "} else host
            assert url.startswith(f"http://{latest}:")


def three_free_ports() -> int:
    """Return the first of three free ports in a row, below those that the system hands out."""
    for first in range(10_000 + os.getpid() % 15_000, 30_000, 3):
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + 3):
                stack.enter_context(socket.socket()).bind(("0.0.0.0", port))  # noqa: S104
            return first
    raise OSError("no three free ports in a row")


@pytest.mark.asyncio
async def test_a_simulator_for_other_machines_has_three_ports_in_a_row() -> None:
    """So a container can publish them: the API's, images, polls."""
    port = three_free_ports()
    shared = Simulator(QUICK, host="0.0.0.0", port=port)  # noqa: S104 — a test
    async with shared as server, aiohttp.ClientSession() as client:
        reply = await client.post(
            f"http://127.0.0.1:{port}/v1/{MODEL}", json={"prompt": "x"}, headers={"x-key": "k"}
        )
        assert urlsplit((await reply.json())["polling_url"]).port == port + 2
    assert urlsplit(server.url).port == port
