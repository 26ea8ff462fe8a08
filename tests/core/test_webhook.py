"""Webhook: what is refused before anything is spent, and what a message never shows."""

from __future__ import annotations

import copy
import pickle

import pytest

from fluxasync import ConfigError
from fluxasync._core.attempts import new_token
from fluxasync.extend import Secret
from fluxasync.webhooks import Webhook

SECRET = "canary-of-the-webhook-secret"
ROOM = 2083 - 33  #: characters of the longest URL before a slash and a token


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://host.example/flux", id="a path"),
        pytest.param("https://host.example", id="no path"),
        pytest.param("https://host.example:8443/a/b", id="a port"),
        pytest.param("https://[2001:db8::1]/flux", id="an IPv6 address"),
        pytest.param("https://xn--bcher-kva.example/%7Eme", id="punycode and quoting"),
        pytest.param("http://127.0.0.1:8090/flux", id="http on this machine"),
        pytest.param("http://localhost:8090", id="http on localhost"),
        pytest.param("http://[::1]:8090", id="http on ::1"),
        pytest.param("https://h.example/" + "x" * (ROOM - 18), id="2,083 characters"),
    ],
)
def test_the_token_is_the_last_part_of_the_path(url: str) -> None:
    """Each submission's URL is the public address, a slash and the token, within BFL's length."""
    token = new_token()
    assert Webhook(url=url).address(token) == f"{url}/{token}"
    assert Webhook(url=f"{url}/").address(token) == f"{url}/{token}"
    assert len(Webhook(url=url).address(token)) <= 2083


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        pytest.param("http://host.example/flux", "https", id="http"),
        pytest.param("http://192.168.0.2/flux", "https", id="http in a network"),
        pytest.param("http://127.0.0.1.host.example/", "https", id="a name like loopback's"),
        pytest.param("https://host.example/flux?key=1", r"\?", id="a query"),
        pytest.param("https://host.example/flux?", r"\?", id="an empty query"),
        pytest.param("https://host.example/#part", "#", id="a fragment"),
        pytest.param("https://h.example/" + "x" * (ROOM - 17), "2050", id="too long"),
        pytest.param("https://me:pw-canary@host.example/", "password", id="a password"),
        pytest.param("host.example/flux", "http", id="no scheme"),
        pytest.param("ftp://host.example/flux", "http", id="another scheme"),
        pytest.param("https:///flux", "http", id="no host"),
        pytest.param("https://host.example:x/", "http", id="no port number"),
        pytest.param("https://host.example:99999/", "http", id="a port too high"),
        pytest.param("https://host.example/a b", "http", id="a space"),
        pytest.param("https://host.example/\n", "http", id="a line end"),
        pytest.param("https://host.example\\@evil.example/", "http", id="a backslash"),
        pytest.param("https://höst.example/", "http", id="no ASCII"),
        pytest.param("", "http", id="empty"),
        pytest.param(None, "http", id="none"),
        pytest.param(b"https://host.example", "http", id="bytes"),
    ],
)
def test_an_address_that_cannot_be_called_is_refused(url: object, reason: str) -> None:
    """The error says what to give, before anything is spent, and shows no password."""
    with pytest.raises(ConfigError, match=reason) as caught:
        Webhook(url=url)  # type: ignore[arg-type]
    assert "pw-canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("listen", "bind"),
    [
        ("127.0.0.1:8090", ("127.0.0.1", 8090)),
        ("localhost:1", ("localhost", 1)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),  # noqa: S104 — only parsed
        ("[::1]:8090", ("::1", 8090)),
        (None, None),
    ],
)
def test_listen_is_a_host_and_a_port(listen: str | None, bind: object) -> None:
    """`bind` is what a listener binds; an IPv6 address has brackets."""
    assert Webhook(url="https://host.example", listen=listen).bind == bind


@pytest.mark.parametrize(
    "listen", ["8090", ":8090", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "h:65536", "::1:80", 80]
)
def test_a_listen_that_is_no_address_is_refused(listen: object) -> None:
    """Port 0 as well: a proxy must know the port."""
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:8090"):
        Webhook(url="https://host.example", listen=listen)  # type: ignore[arg-type]


@pytest.mark.parametrize("secret", ["", f"{SECRET} {SECRET}", f"{SECRET}\n", f"{SECRET}é", 5])
def test_a_secret_that_no_header_can_carry_is_refused(secret: object) -> None:
    """An empty one would be proved by an empty header (F98); the message does not show it."""
    with pytest.raises(ConfigError, match="secret") as caught:
        Webhook(url="https://host.example", secret=secret)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


def test_a_signature_without_a_secret_is_refused() -> None:
    """Nobody believes that calls are signed while they are not; unknown words are refused too."""
    with pytest.raises(ConfigError, match="needs a secret"):
        Webhook(url="https://host.example", signature="hmac")
    for word in ("none", "HMAC", "", None):
        with pytest.raises(ConfigError, match="auto, header, hmac, payload"):
            Webhook(url="https://host.example", secret=SECRET, signature=word)  # type: ignore[arg-type]


def test_no_repr_or_pickle_shows_the_secret() -> None:
    """P22: text becomes a Secret, which no repr and no pickle has; a copy is the same value."""
    webhook = Webhook(url="https://host.example", secret=SECRET)
    assert webhook.secret == Secret(SECRET)
    assert copy.deepcopy(webhook) == webhook
    shown = repr(webhook).encode() + pickle.dumps(webhook)
    assert SECRET.encode() not in shown
