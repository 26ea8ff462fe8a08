"""URLs and auth of the providers, and where the key may be sent (T2, T4, F61)."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fluxasync import BFL, COMETAPI, ConfigError, Provider
from fluxasync._wire.credentials import auth_header, may_send_key, resolve_provider
from fluxasync.extend import Secret

LOCAL = COMETAPI.at("http://127.0.0.1:8123/prefix")


def test_cometapi_has_its_documented_urls() -> None:
    """The paths of CometAPI's page, with a Bearer key."""
    assert COMETAPI.submit_url("flux-dev") == "https://api.cometapi.com/flux/v1/flux-dev"
    expected = "https://api.cometapi.com/flux/v1/get_result?id=a-1"
    assert COMETAPI.poll_url("a-1") == expected
    assert auth_header(COMETAPI, Secret("sk-1")) == {"Authorization": "Bearer sk-1"}
    assert COMETAPI.credits_url() is None


def test_bfl_has_its_documented_urls() -> None:
    """The paths, the x-key header and the credits endpoint of BFL's OpenAPI file."""
    assert BFL.submit_url("flux-2-pro") == "https://api.bfl.ai/v1/flux-2-pro"
    assert BFL.poll_url("a-1") == "https://api.bfl.ai/v1/get_result?id=a-1"
    assert auth_header(BFL, Secret("bfl_1")) == {"x-key": "bfl_1"}
    assert BFL.credits_url() == "https://api.bfl.ai/v1/credits"
    assert BFL.credit == Decimal("0.01")


def test_another_gateway_takes_five_lines() -> None:
    """A gateway with the same API is data: name, address, paths, key variable."""
    gateway = Provider(
        name="gateway",
        base_url="https://api.example.com/bfl/",
        key_variable="GATEWAY_KEY",
    )
    assert gateway.submit_url("flux-dev") == "https://api.example.com/bfl/v1/flux-dev"


def test_a_slash_in_a_name_stays_in_the_path() -> None:
    """BFL's tools have names such as flux-tools/erase-v1, which are paths on the wire."""
    assert BFL.submit_url("flux-tools/vto-v2") == "https://api.bfl.ai/v1/flux-tools/vto-v2"
    for name in ("a//b", "/a", "a/", "a/./b", "a/../b", "//e.com"):
        assert "/" not in BFL.submit_url(name).removeprefix("https://api.bfl.ai/v1/")


def test_names_and_ids_cannot_change_the_path() -> None:
    """A model's name and a server's id are quoted."""
    assert BFL.submit_url("../x?y") == "https://api.bfl.ai/v1/..%2Fx%3Fy"
    assert (
        BFL.poll_url("a&b=c/ d#é")
        == "https://api.bfl.ai/v1/get_result?id=a%26b%3Dc%2F%20d%23%C3%A9"
    )


def test_without_a_key_there_is_no_header() -> None:
    """No placeholder is sent."""
    assert auth_header(LOCAL, None) == {}


@pytest.mark.parametrize(
    ("provider", "url", "trusted"),
    [
        pytest.param(BFL, "https://api.bfl.ai/v1/get_result?id=1", True, id="own origin"),
        pytest.param(BFL, "https://api.bfl.ai:443/x", True, id="own origin with its port"),
        pytest.param(BFL, "https://API.BFL.AI/x", True, id="own origin in capitals"),
        pytest.param(BFL, "https://api.eu4.bfl.ai/v1/get_result?id=1", True, id="regional"),
        pytest.param(BFL, "https://api.isr.bfl.ai:443/x", True, id="regional with its port"),
        pytest.param(BFL, "https://bfl.ai/x", False, id="T2 apex"),
        pytest.param(BFL, "http://api.eu4.bfl.ai/x", False, id="T2 F61 scheme"),
        pytest.param(BFL, "http://api.bfl.ai/x", False, id="T2 own host, scheme"),
        pytest.param(BFL, "https://api.eu4.bfl.ai:8443/x", False, id="T2 port"),
        pytest.param(BFL, "https://api.bfl.ai:444/x", False, id="T2 own host, port"),
        pytest.param(BFL, "https://u@api.bfl.ai/x", False, id="T2 F61 userinfo"),
        pytest.param(BFL, "https://api.bfl.ai@evil.com/x", False, id="T2 userinfo as host"),
        pytest.param(BFL, "https://u:p@api.eu.bfl.ai/x", False, id="T2 user and password"),
        pytest.param(BFL, "https://api.bfl.ai.evil.com/x", False, id="T2 suffix"),
        pytest.param(BFL, "https://evilbfl.ai/x", False, id="T2 no dot"),
        pytest.param(BFL, "https://evil.com/.bfl.ai", False, id="T2 in the path"),
        pytest.param(BFL, "https://evil.com#.bfl.ai", False, id="T2 in the fragment"),
        pytest.param(BFL, "https://evil.com?.bfl.ai", False, id="T2 in the query"),
        pytest.param(BFL, "https://evil.com\\.bfl.ai/x", False, id="T2 backslash"),
        pytest.param(BFL, "https://evil.com%2f.bfl.ai/x", False, id="T2 percent"),
        pytest.param(BFL, "https://evil.com;.bfl.ai/x", False, id="T2 semicolon"),
        pytest.param(BFL, "https://api.bfl.ai./x", False, id="T2 trailing dot"),
        pytest.param(BFL, "https://.bfl.ai/x", False, id="T2 empty label"),
        pytest.param(BFL, "https://a..bfl.ai/x", False, id="T2 double dot"),
        pytest.param(BFL, "https://еvil.bfl.ai/x", False, id="T2 other script"),
        pytest.param(BFL, "https://127.0.0.1/x", False, id="T2 loopback"),
        pytest.param(BFL, "//evil.com/x", False, id="F61 no scheme"),
        pytest.param(BFL, "/v1/get_result?id=1", False, id="F61 relative"),
        pytest.param(BFL, "file:///etc/passwd", False, id="T4 F61 file"),
        pytest.param(BFL, "ftp://api.bfl.ai/x", False, id="T4 ftp"),
        pytest.param(BFL, "ws://api.bfl.ai/x", False, id="T4 ws"),
        pytest.param(BFL, "https:///x", False, id="T4 no host"),
        pytest.param(BFL, "https://[api.bfl.ai/x", False, id="T4 bracket"),
        pytest.param(BFL, "https://api.bfl.ai:x/x", False, id="T4 port is no number"),
        pytest.param(BFL, "https://api.bfl.ai:99999/x", False, id="T4 port too large"),
        pytest.param(BFL, "https://api.bfl.ai/\nHost:evil", False, id="T4 newline"),
        pytest.param(BFL, "ht\ttps://api.bfl.ai/x", False, id="T4 tab"),
        pytest.param(BFL, " https://api.bfl.ai/x", False, id="T4 space"),
        pytest.param(BFL, "https://api.bfl.ai/\x7f", False, id="T4 delete"),
        pytest.param(BFL, "https://api.bfl.ai/" + "x" * 4100, False, id="T4 over 4 KB"),
        pytest.param(BFL, "", False, id="T4 empty"),
        pytest.param(COMETAPI, "https://api.cometapi.com/flux/v1/x", True, id="CometAPI's own"),
        pytest.param(COMETAPI, "https://api.eu4.bfl.ai/v1/x", False, id="T2 CometAPI's key to BFL"),
        pytest.param(COMETAPI, "https://api.cometapi.com.evil/x", False, id="T2 CometAPI suffix"),
        pytest.param(LOCAL, "http://127.0.0.1:9/x", True, id="loopback, other port"),
        pytest.param(LOCAL, "http://localhost:8123/x", True, id="loopback by name"),
        pytest.param(LOCAL, "http://[::1]:8123/x", True, id="loopback IPv6"),
        pytest.param(LOCAL, "http://127.0.0.1.evil.com/x", False, id="T2 loopback suffix"),
        pytest.param(LOCAL, "http://0x7f.1/x", False, id="F82 loopback misspelt"),
        pytest.param(LOCAL, "http://10.0.0.1/x", False, id="F82 private network"),
    ],
)
def test_the_key_is_sent_only_to_trusted_urls(provider: Provider, url: str, trusted: bool) -> None:
    """A URL that a server named gets the key only by the rules of the provider's entry."""
    assert may_send_key(provider, url) is trusted


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://api.example.com", "https://api.example.com"),
        ("https://api.example.com/", "https://api.example.com"),
        ("https://api.example.com:8443/a/b/", "https://api.example.com:8443/a/b"),
        ("http://localhost:8123", "http://localhost:8123"),
        ("http://[::1]:8123", "http://[::1]:8123"),
    ],
)
def test_a_base_url_keeps_its_prefix(given: str, kept: str) -> None:
    """A path prefix is kept; a trailing slash is removed."""
    assert BFL.at(given).base_url == kept


@pytest.mark.parametrize(
    ("provider", "given"),
    [
        (COMETAPI, "https://api.cometapi.com/flux/v1"),
        (COMETAPI, "https://api.cometapi.com/flux/v1/"),
        (COMETAPI, "https://api.cometapi.com/v1"),
        (COMETAPI, "https://api.cometapi.com/flux"),
        (COMETAPI, "https://api.cometapi.com/flux/v1/flux-dev"),
        (COMETAPI, "https://gateway.example.com/a/flux/v1"),
        (BFL, "https://api.bfl.ai/v1"),
        (BFL, "https://api.eu.bfl.ai/v1"),
        (BFL, "http://127.0.0.1:8123/v1"),
    ],
)
def test_a_base_url_with_the_path_of_the_calls_is_refused(provider: Provider, given: str) -> None:
    """Every call would be a 404; the error names the right address, before anything is sent.

    The /v1, or a whole address of a call, is often copied: teabranch/open-responses-server#16,
    rohitg00/agentmemory#628, harry0703/MoneyPrinterTurbo#57.
    """
    with pytest.raises(ConfigError, match=r"^base_url: ends in /.* adds again; give https?://"):
        provider.at(given)


@pytest.mark.parametrize("given", ["https://e.com/v1", "https://e.com/flux", "https://e.com/v1/a"])
def test_a_gateway_may_have_a_path_of_its_own(given: str) -> None:
    """A part of the path that only resembles that of the calls may be right elsewhere."""
    assert COMETAPI.at(given).base_url == given


@pytest.mark.parametrize(
    ("base_url", "trusted"),
    [
        pytest.param("https://api.eu.bfl.ai", True, id="another region"),
        pytest.param("http://127.0.0.1:8123", True, id="this machine"),
        pytest.param("https://gateway.example.com/bfl", False, id="T2 a stranger's gateway"),
    ],
)
def test_a_gateways_key_is_not_sent_to_bfls_polling_urls(base_url: str, trusted: bool) -> None:
    """A gateway with BFL's API passes BFL's polling URLs on; the gateway's key is not sent
    there."""
    gateway = BFL.at(base_url)
    assert may_send_key(gateway, "https://api.us3.bfl.ai/v1/get_result?id=1") is trusted
    assert may_send_key(gateway, gateway.poll_url("1"))


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://api.example.com", id="T2 plain http"),
        pytest.param("http://192.168.1.2:8000", id="T2 plain http in the network"),
        pytest.param("https://user:canary@api.example.com", id="user and password"),
        pytest.param("https://api.example.com/?canary=1", id="query"),
        pytest.param("https://api.example.com/#canary", id="fragment"),
        pytest.param("api.example.com", id="no scheme"),
        pytest.param("file:///tmp", id="T4 file"),
        pytest.param("https://", id="no host"),
        pytest.param("https://a b", id="space"),
        pytest.param("", id="empty"),
        pytest.param(7, id="no text"),
    ],
)
def test_a_base_url_that_could_leak_the_key_is_refused(url: str) -> None:
    """Only https, or http to this machine, without user, query and fragment. The message quotes
    none."""
    with pytest.raises(ConfigError, match=r"^base_url: ") as caught:
        BFL.at(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("path", ["v1/{model}", "/v1/model"])
def test_a_submit_path_must_name_the_model(path: str) -> None:
    """A submit path without {model} is refused."""
    with pytest.raises(ConfigError, match="submit_path"):
        Provider(name="x", base_url="https://e.com", submit_path=path)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        pytest.param({"COMETAPI_KEY": "c"}, "cometapi", id="CometAPI's is set"),
        pytest.param({"BFL_API_KEY": "b"}, "bfl", id="BFL's is set"),
        pytest.param({"BFL_API_KEY": "b", "COMETAPI_KEY": ""}, "bfl", id="empty is unset"),
        pytest.param({"BFL_API_KEY": "b", "COMETAPI_KEY": "c"}, "cometapi", id="both are set"),
    ],
)
def test_the_provider_follows_the_key(environ: dict[str, str], name: str) -> None:
    """Without a name it is the provider whose key is set; if both are, CometAPI."""
    provider, key = resolve_provider(None, environ=environ)
    assert provider.name == name
    assert key == Secret(name[0])


def test_a_named_provider_takes_its_own_key() -> None:
    """With both keys set, the name decides which one is used."""
    environ = {"BFL_API_KEY": "b", "COMETAPI_KEY": "c"}
    assert resolve_provider("BFL", environ=environ) == (BFL, Secret("b"))


def test_a_given_key_wins() -> None:
    """A key in code is used instead of the environment's."""
    assert resolve_provider(BFL, api_key=" k \n", environ={"BFL_API_KEY": "b"}) == (
        BFL,
        Secret("k"),
    )


def test_this_machine_needs_no_key() -> None:
    """A simulator is used without a key."""
    provider, key = resolve_provider(None, base_url="http://127.0.0.1:8123", environ={})
    assert (provider.base_url, key) == ("http://127.0.0.1:8123", None)


@pytest.mark.parametrize(
    ("provider", "variable"),
    [
        (None, "COMETAPI_KEY or BFL_API_KEY"),
        ("cometapi", "COMETAPI_KEY"),
        ("bfl", "BFL_API_KEY"),
        (BFL, "BFL_API_KEY"),
    ],
)
def test_a_missing_key_is_named(provider: Provider | str | None, variable: str) -> None:
    """The message names the variable to set, and says that a simulator needs none."""
    with pytest.raises(ConfigError, match=rf"set {variable} \(none .*--simulate"):
        resolve_provider(provider, environ={})


def test_a_provider_without_a_variable_asks_for_api_key() -> None:
    """For a gateway without a key variable the message names api_key."""
    gateway = Provider(name="gateway", base_url="https://e.com")
    with pytest.raises(ConfigError, match="no key for gateway: give api_key"):
        resolve_provider(gateway, environ={"COMETAPI_KEY": "c"})


@pytest.mark.parametrize(
    "key", ["Bearer canary", "can\nary", "can\x00ary", "“canary”", "canary\x7f", "can ary"]
)
def test_an_invalid_key_is_not_shown(key: str) -> None:
    """A key with spaces, control characters or curly quotes is refused; the message does not show
    it."""
    with pytest.raises(ConfigError, match=r"^COMETAPI_KEY: ") as caught:
        resolve_provider(None, environ={"COMETAPI_KEY": key})
    assert "ary" not in str(caught.value)


def test_an_unknown_provider_lists_the_known_ones() -> None:
    """The message has the names of all providers."""
    with pytest.raises(ConfigError, match="provider='commet': must be cometapi or bfl"):
        resolve_provider("commet", environ={})
