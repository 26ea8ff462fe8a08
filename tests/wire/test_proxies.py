"""Which proxy a URL is reached through (issue: networks of real users)."""

from __future__ import annotations

import base64
import ipaddress
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxasync import ConfigError
from fluxasync._wire.proxies import ProxySettings, is_exempt, read_proxy

API = "https://api.example.com/v1/flux-dev"
PLAIN = "http://gateway.internal:8787/v1/flux-dev"
P, Q = "http://p.example:3128", "http://q.example:8080"


def proxy_url(url: str, environ: dict[str, str], named: str | None = None) -> str | None:
    found = ProxySettings(named, environ).proxy_for(url)
    return None if found is None else found.url


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        pytest.param(API, {}, None, id="nothing set"),
        pytest.param(API, {"HTTPS_PROXY": P}, P, id="upper case"),
        pytest.param(API, {"https_proxy": P}, P, id="lower case"),
        pytest.param(API, {"https_proxy": P, "HTTPS_PROXY": Q}, P, id="lower case first"),
        pytest.param(API, {"https_proxy": "", "HTTPS_PROXY": Q}, None, id="empty disables"),
        pytest.param(API, {"HTTPS_PROXY": " ", "ALL_PROXY": Q}, None, id="blank disables"),
        pytest.param(API, {"ALL_PROXY": P}, P, id="ALL_PROXY"),
        pytest.param(API, {"all_proxy": P, "HTTPS_PROXY": Q}, Q, id="ALL_PROXY comes last"),
        pytest.param(API, {"HTTP_PROXY": P}, None, id="HTTP_PROXY is for http"),
        # HKUDS/nanobot#5425: GNOME sets ALL_PROXY to socks:// beside a usable HTTPS_PROXY
        pytest.param(API, {"ALL_PROXY": "socks://p:1", "HTTPS_PROXY": Q}, Q, id="unused socks"),
        pytest.param(PLAIN, {"HTTP_PROXY": P}, P, id="http"),
        pytest.param(PLAIN, {"HTTPS_PROXY": P}, None, id="HTTPS_PROXY is for https"),
        pytest.param(PLAIN, {"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, None, id="httpoxy"),
        pytest.param(PLAIN, {"http_proxy": P, "REQUEST_METHOD": "GET"}, P, id="CGI, lower case"),
        # pydantic/httpx2#415: curl and others take a proxy without a scheme
        pytest.param(API, {"HTTPS_PROXY": "p.example:3128"}, P, id="no scheme"),
        pytest.param(API, {"HTTPS_PROXY": "10.252.250.10:3192"}, "http://10.252.250.10:3192",
                     id="an address without a scheme"),
        pytest.param(API, {"HTTPS_PROXY": "http://p.example/"}, "http://p.example:80", id="port"),
        pytest.param(API, {"HTTPS_PROXY": "HTTPS://p.example"}, "https://p.example:443", id="TLS"),
        pytest.param(API, {"HTTPS_PROXY": "http://[::1]:3128"}, "http://[::1]:3128", id="IPv6"),
        pytest.param(API, {"HTTPS_PROXY": P, "NO_PROXY": "example.com"}, None, id="exempt"),
        pytest.param(API, {"HTTPS_PROXY": P, "no_proxy": "", "NO_PROXY": "*"}, P, id="no_proxy"),
    ],
)  # fmt: skip
def test_the_environment_names_the_proxy(
    url: str, environ: dict[str, str], expected: str | None
) -> None:
    """The variables are read as curl reads them."""
    assert proxy_url(url, environ) == expected


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "127.8.8.8", "flux.localhost"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_this_machine_is_reached_directly(scheme: str, host: str) -> None:
    """No proxy is used for loopback, also if the proxy is named or cannot be used."""
    url = f"{scheme}://{host}:8787/v1"
    environ = {"HTTP_PROXY": "socks5://p:1", "HTTPS_PROXY": "nonsense://", "ALL_PROXY": P}
    assert proxy_url(url, environ) is None
    assert proxy_url(url, environ, named=P) is None


def test_a_named_proxy_wins_over_the_environment() -> None:
    """`proxy=` is used for every URL; "" means none; NO_PROXY exempts from it, as with curl -x."""
    environ = {"HTTPS_PROXY": Q, "NO_PROXY": "other.example"}
    assert proxy_url(API, environ, named=P) == P
    assert proxy_url(API, environ, named="") is None
    assert proxy_url("https://other.example/", environ, named=P) is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "expected"),
    [
        ("example.com", "example.com", True),
        ("example.com", "api.example.com", True),
        ("example.com", "notexample.com", False),
        ("example.com", "example.com.evil.org", False),
        (".example.com", "api.example.com", True),
        (".example.com", "example.com", True),  # as curl and Python; Go differs
        ("*.example.com", "api.example.com", True),
        ("*.example.com", "example.com", False),
        ("EXAMPLE.com", "api.Example.COM", True),
        ("example.com.", "example.com", True),
        ("example.com", "example.com.", True),
        ("*", "api.example.com", True),
        ("a.org, *", "api.example.com", True),
        ("a.org,example.com", "example.com", True),
        ("a.org example.com", "example.com", True),
        (" a.org ,\texample.com ,", "example.com", True),
        ("", "example.com", False),
        (",", "example.com", False),
        (".", "example.com", False),
        ("example.com:443", "example.com", True),
        ("example.com:8443", "example.com", False),
        ("https://example.com", "example.com", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.50", False),
        ("10.0.0.5:443", "10.0.0.5", True),
        ("10.0.0.5:80", "10.0.0.5", False),
        ("10.152.183.0/24", "10.152.183.9", True),  # aio-libs/aiohttp#8549
        ("10.152.183.0/24", "10.152.184.9", False),
        ("10.152.183.7/24", "10.152.183.9", True),
        ("10.0.0.0/8", "api.example.com", False),
        ("10.0.0.0/99", "10.0.0.1", False),
        ("0.5", "10.0.0.5", False),
        ("::1", "::1", True),
        ("[fd00::1]", "fd00::1", True),
        ("[fd00::1]:443", "[fd00::1]", True),
        ("[fd00::1]:80", "fd00::1", False),
        ("fd00::/8", "fd12::9", True),
        ("fd00::/8", "10.0.0.1", False),
        ("10.0.0.5", "::ffff:10.0.0.5", True),
        ("localhost", "localhost", True),
        ("gateway", "gateway", True),
        ("gateway", "my-gateway", False),
    ],
)  # fmt: skip
def test_no_proxy_exempts_hosts(no_proxy: str, host: str, expected: bool) -> None:
    """NO_PROXY takes names, suffixes, addresses, networks and ports."""
    assert is_exempt(host, 443, no_proxy) is expected


_LABEL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
_NAME = st.lists(_LABEL, min_size=2, max_size=4).map(".".join)


@given(_NAME, _NAME, st.sampled_from(["", "."]))
def test_a_name_exempts_itself_and_its_subdomains_only(name: str, other: str, dot: str) -> None:
    """A host is exempt if and only if its last labels are the entry's."""
    is_below = f".{other}".endswith(f".{name}")
    is_number = other.replace(".", "").isdigit()
    assert is_exempt(other, 443, dot + name) is is_below or is_number
    assert is_exempt(f"x-{name}", 443, dot + name) is False


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 32))
def test_a_network_exempts_its_addresses_only(
    one: ipaddress.IPv4Address, other: ipaddress.IPv4Address, bits: int
) -> None:
    """A network is compared bit by bit."""
    is_same = int(one) >> (32 - bits) == int(other) >> (32 - bits)
    assert is_exempt(str(other), None, f"{one}/{bits}") is is_same


@given(st.text(max_size=60), st.text(max_size=30))
def test_any_text_of_no_proxy_can_be_read(no_proxy: str, host: str) -> None:
    """What cannot be read exempts nothing, and raises nothing."""
    assert is_exempt(host, 443, no_proxy) in (True, False)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0:"), min_size=1, max_size=20),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
)
def test_an_encoded_user_and_password_arrive_and_are_not_shown(user: str, word: str) -> None:
    """Any user and password, percent-encoded, become the header (encode/httpx#858); neither is in
    a text of the proxy (carsonyl/pypac#49: a password of `@@` or `%40`)."""

    text = f"http://{quote(user, safe='')}:{quote(word, safe='')}@p.example:3128"
    proxy = read_proxy(text, "HTTPS_PROXY")
    assert proxy.authorization is not None
    encoded = proxy.headers()["Proxy-Authorization"].removeprefix("Basic ")
    assert base64.b64decode(encoded).decode() == f"{user}:{word}"
    assert proxy.url == P
    assert encoded not in f"{proxy} {proxy!r}"
    assert str(proxy) == f"the proxy {P} (HTTPS_PROXY)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("socks5://u:canary@p:1080", "socks proxies are not supported"),
        ("socks5h://p:1080", "socks proxies are not supported"),
        ("socks://127.0.0.1:20170/", "socks proxies are not supported"),
        ("ftp://u:canary@p:21", "not an http:// or https:// proxy"),
        ("http://", "not an address"),
        ("http://u:canary@", "not an address"),
        ("http://p:port", "not an address"),
        ("http://p:99999", "not an address"),
        ("http://u:can/ary@p:3128", "%2F"),  # psf/requests#2703, pypa/pip#7722
        ("http://u:can#ary@p:3128", "%23"),
        ("http://u:can?ary@p:3128", "%3F"),
        ("http://u:can[ary@p:3128", "percent-encode"),
        ("http://u:c@n/ary@p:3128", "%40"),
        ("http://u:can ary@p:3128", "percent-encode"),
        ("http://p:3128\r\nHost: evil", "percent-encode"),
    ],
)
def test_an_unusable_proxy_is_refused_without_its_password(text: str, reason: str) -> None:
    """The error names the variable and the way out, and shows nothing of the value."""
    with pytest.raises(ConfigError, match=r"^HTTPS_PROXY: ") as caught:
        ProxySettings(None, {"HTTPS_PROXY": text}).proxy_for(API)
    assert reason in str(caught.value)
    assert not any(part in str(caught.value) for part in ("canary", "ary@", "u:c", "evil"))


_RAW = st.text(st.characters(codec="ascii"), max_size=12)


@given(_RAW, _RAW, st.sampled_from(["http://", "https://", "", "socks5://", "x://"]))
def test_no_text_of_a_proxy_shows_its_password(before: str, after: str, scheme: str) -> None:
    """However a password is written, neither the proxy nor the error has any of it."""
    text = f"{scheme}user:{before}canary{after}@p.example:3128"
    try:
        shown = f"{(proxy := read_proxy(text, 'HTTPS_PROXY'))} {proxy!r} {proxy.url}"
    except ConfigError as error:
        shown = f"{error} {error!r} {error.value!r}"
    assert "canary" not in shown


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "HTTPS_PROXY is not set"),
        ({"http_proxy": P}, "http_proxy is for http:// only; set HTTPS_PROXY"),
        ({"HTTPS_PROXY": P, "NO_PROXY": "example.com"}, "because of NO_PROXY"),
    ],
)
def test_a_direct_connection_is_explained(environ: dict[str, str], expected: str) -> None:
    """The explanation names the variable that is missing or that exempts the host."""
    assert expected in ProxySettings(None, environ).explain(API)
    assert ProxySettings(None, environ).explain("http://127.0.0.1:8787/x") == ""
