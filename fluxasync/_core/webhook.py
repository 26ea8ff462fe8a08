"""Webhook: where a provider calls when a job has ended, and what proves a callback.

A webhook is off by default, because the provider must reach this machine from the internet.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen

from .addresses import is_loopback_address
from .arguments import described
from .attempts import TOKEN_BYTES
from .errors import ConfigError
from .models import Secret

#: what a signed callback has: see `Webhook.signature`
Signature = Literal["auto", "header", "hmac", "payload"]

#: characters of `webhook_url` (BFL's OpenAPI document)
LONGEST_URL = 2083
_TOKEN_LENGTH = 2 * TOKEN_BYTES

#: printable ASCII without quotes, backslashes and brackets that parsers read differently
_PLAIN = re.compile(r"[!#-;=?-\[\]_a-z~]+")
_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def _error(argument: str, reason: str) -> ConfigError:
    return ConfigError.about(argument, reason, owner="Webhook")


def _checked_url(given: Any) -> str:
    """Return a public address without a slash at its end. Messages show no user or password."""
    parts = _split(given)
    if parts is None:
        raise _error("url", "not an http(s) URL; give https://host.example/flux")
    if "@" in parts.netloc:
        reason = "contains a user or a password; the webhook's secret proves callbacks instead"
        raise _error("url", reason)
    if "?" in given or "#" in given:
        raise _error("url", "contains ? or #; end it with the path, to which a token is added")
    if parts.scheme == "http" and not is_loopback_address(parts.hostname or ""):
        reason = "http would show the tokens to the network; use https (TLS may end at a proxy)"
        raise _error("url", reason)
    url = given.rstrip("/")
    if len(url) + 1 + _TOKEN_LENGTH > LONGEST_URL:
        longest = LONGEST_URL - 1 - _TOKEN_LENGTH
        raise _error("url", f"has {len(url)} characters; at most {longest} leave room for a token")
    return str(url)


def _split(url: Any) -> SplitResult | None:
    if not isinstance(url, str) or not _PLAIN.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for an invalid one
    except ValueError:
        return None
    return parts if parts.scheme in ("https", "http") and parts.hostname else None


def _is_bindable(instance: Webhook, attribute: Any, value: Any) -> None:
    found = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if value is not None and (found is None or not 1 <= int(found[2]) <= 65535):
        raise _error("listen", f"not HOST:PORT but {described(value)}; give 127.0.0.1:8090")


def _secret(given: Any) -> Any:
    return Secret(given) if isinstance(given, str) else given


def _is_sendable(instance: Webhook, attribute: Any, value: Any) -> None:
    """Check that a secret can be sent in a header; messages do not show it."""
    if value is None:
        return
    if not isinstance(value, Secret):
        raise _error("secret", f"text or a Secret, not {type(value).__name__}")
    if not value.reveal():
        raise _error("secret", "is empty; leave it out, or give one that nobody guesses")
    if not all("!" <= character <= "~" for character in value.reveal()):
        raise _error("secret", "has spaces or characters outside ASCII; a header cannot have them")


def _is_signature(instance: Webhook, attribute: Any, value: Any) -> None:
    if value not in get_args(Signature):
        names = ", ".join(get_args(Signature))
        raise _error("signature", f"one of {names}, not {described(value)}")
    if value != "auto" and instance.secret is None:
        raise _error("signature", "needs a secret; give `secret`, or leave signature out")


@frozen(kw_only=True)
class Webhook:
    """Where the provider calls back when a job has ended: `Polling(webhook=Webhook(url=…))`.

    A callback only wakes the poller of its job. Its status, result and URLs are not used.

    Raises ConfigError for a URL that is not https (http only on this machine), has a query or is
    longer than 2,083 characters with its token, for an invalid `listen`, an empty secret, and a
    `signature` without a secret.
    """

    #: the public address. Each submission adds a token of its own as the last part of the path.
    url: str = field(converter=_checked_url)
    #: "HOST:PORT" at which the session itself listens, for example 127.0.0.1:8090 behind a proxy or
    #: tunnel that ends TLS; None = a `Receiver` is mounted in your app
    listen: str | None = field(default=None, validator=_is_bindable)
    #: sent as `webhook_secret` with each submission; callbacks that do not prove it are refused.
    #: None = the token in the URL, 128 random bits, is the only proof.
    secret: Secret | None = field(default=None, converter=_secret, validator=_is_sendable)
    #: the proof that a callback needs if there is a secret. "header": `X-Webhook-Secret` is the
    #: secret (BFL's docs). "hmac": `X-BFL-Signature` is `sha256=` and the HMAC of the body in
    #: hexadecimal digits (BFL's skills repository). "payload": a field of the JSON object is the
    #: secret (CometAPI's page). The sources disagree, so "auto" accepts each of the three, and no
    #: callback without any.
    signature: Signature = field(default="auto", validator=_is_signature)

    def address(self, token: str) -> str:
        """Return the URL of the submission that has this token."""
        return f"{self.url}/{token}"

    @property
    def bind(self) -> tuple[str, int] | None:
        """Host and port of `listen`."""
        if self.listen is None:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)
