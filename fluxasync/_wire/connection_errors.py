"""Turns errors of aiohttp into TransportError: what failed, where, and whether a proxy was used.

The errors have no context, because aiohttp's may hold the request's headers with the key.
`exc.status` is used for a proxy's answer to CONNECT only: of other answers aiohttp raises a
synthetic 400 for a header that is too long, also when the answer was a paid 200.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp
from attrs import define, field

from .._core.errors import ConfigError, FluxError, TransportError
from . import tls
from .proxies import NO_PROXIES, Proxy, ProxySettings, shows_key

#: this machine has no files or memory left for a connection
_LOCAL_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
#: answers of a proxy that may be others later: it is busy, or does not reach the server now
_PASSING = frozenset({408, 425, 429})
#: asyncio's text, which has an address instead of the system's reason
_ASYNCIO_WORDS = "Connect call failed"


#: ValueError and AssertionError: raised by aiohttp for some malformed URLs and headers
_MAPPED = (aiohttp.ClientError, OSError, ValueError, AssertionError)


@define(eq=False)
class Exchange:
    """One request under way: where it goes, through which proxy, and whether it was sent."""

    sent: bool = False  #: whether its headers may have been sent to the server
    before_send: Callable[[], None] | None = None
    settings: ProxySettings = NO_PROXIES
    url: str = ""
    proxy: Proxy | None = field(default=None, init=False)

    def connected(self) -> None:
        """Note that the headers are sent now. Raises what `before_send` does; nothing is sent
        then."""
        if self.before_send is not None:
            self.before_send()
        self.sent = True

    def route(self, url: str, *, has_key: bool = False) -> None:
        """Set the URL and its proxy. Raises TransportError for a proxy that cannot be used, or
        that would see the key."""
        try:
            self.url, self.proxy = url, self.settings.proxy_for(url)
        except ConfigError as error:
            raise TransportError(str(error), sent=False, permanent=True) from None
        if has_key and self.proxy is not None and url.startswith("http:"):
            reason = shows_key(self.proxy, self.host)
            raise TransportError(reason, sent=False, permanent=True)

    @property
    def host(self) -> str:
        return (urlsplit(self.url).hostname or "")[:100]

    @property
    def directly(self) -> str:
        """Why no proxy was used; "" where none is expected."""
        return self.settings.explain(self.url) if self.url else ""


class MappedErrors:
    """Turn errors of aiohttp into TransportError, without a context that may hold the key:
    `with MappedErrors(exchange)`. A class, because each image needs several."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, FluxError) or not isinstance(error, _MAPPED):
            return
        mapped = mapped_error(error, self._exchange)
        try:
            raise mapped
        finally:
            mapped.__context__ = None  # `from None` would only hide it


def mapped_error(error: BaseException, exchange: Exchange) -> TransportError:
    """Return the TransportError for an error of aiohttp."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            via = "" if exchange.proxy is None else f" to {exchange.host} through {exchange.proxy}"
            reason = f"cannot connect safely{via}: {_plain(error)}"
            reason += tls.advice(error, exchange.settings.environ)
            return TransportError(reason, sent=False, permanent=True)
        case aiohttp.ClientHttpProxyError() if exchange.proxy is not None:
            return _refused_by_proxy(error.status, exchange.proxy, exchange.host)
        case aiohttp.ClientConnectorError():
            refused = error.os_error.errno == errno.EACCES
            local = error.os_error.errno in _LOCAL_ERRORS
            reason = _unconnected(error, exchange)
            return TransportError(reason, sent=False, permanent=refused, local=local)
        case aiohttp.InvalidURL():
            return TransportError("not a URL that can be requested", sent=False, permanent=True)
        case TimeoutError():
            return TransportError(f"no answer in time{_way(exchange)}", sent=exchange.sent)
        case aiohttp.ClientPayloadError():
            return TransportError("the connection broke inside the body", sent=exchange.sent)
        case ValueError() if not isinstance(error, aiohttp.ClientError):
            return TransportError("malformed URL or answer", sent=exchange.sent)
    if exchange.proxy is not None and not exchange.sent:
        reason = f"{exchange.proxy} made no connection to {exchange.host}: {_plain(error)}"
        return TransportError(reason, sent=False)
    through = "" if exchange.proxy is None else f" through {exchange.proxy}"
    return TransportError(f"the connection{through} broke: {_plain(error)}", sent=exchange.sent)


def _unconnected(error: aiohttp.ClientConnectorError, exchange: Exchange) -> str:
    is_name = isinstance(error, aiohttp.ClientConnectorDNSError)
    if exchange.proxy is not None:
        # a name that is looked up for a proxied URL is the proxy's own
        if is_name:
            return f"cannot connect to {exchange.proxy}: its name is not found: {_plain(error)}"
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            return f"cannot connect to {exchange.proxy}: {_plain(error)}"
        return (
            f"{exchange.proxy} gave no secure connection to {exchange.host}: {_plain(error)}; is "
            "there a login page?"
        )
    text = f"cannot connect: {_plain(error)}"
    return (
        f"{text} ({exchange.host}, {exchange.directly})" if is_name and exchange.directly else text
    )


def _way(exchange: Exchange) -> str:
    if exchange.proxy is not None:
        return f" through {exchange.proxy}"
    return f" ({exchange.directly})" if exchange.directly and not exchange.sent else ""


def _refused_by_proxy(status: int, proxy: Proxy, host: str) -> TransportError:
    """Return the error of a CONNECT that the proxy did not accept: nothing was sent."""
    if status == 407 and proxy.authorization is None:
        step = "write them as http://user:password@host:port"
        reason = f"{proxy} asks for a user and a password (HTTP 407): {step}"
    elif status == 407:
        step = "check them, and percent-encode special characters"
        reason = f"{proxy} refuses the user and the password in its address (HTTP 407): {step}"
    elif status < 400:
        reason = f"{proxy} does not connect to {host} (HTTP {status}): is there a login page?"
    elif status >= 500 or status in _PASSING:
        reason = f"{proxy} cannot reach {host} (HTTP {status})"
    else:
        reason = f"{proxy} refuses to connect to {host} (HTTP {status}): it must allow this host"
    is_lasting = 400 <= status < 500 and status not in _PASSING
    return TransportError(reason, sent=False, permanent=is_lasting)


def _plain(error: BaseException) -> str:
    """Return the operating system's text, or the error's class; its own text may hold URLs."""
    failed = getattr(error, "certificate_error", None)
    if (reason := getattr(failed, "verify_message", None)) is not None:
        return f"the certificate is not valid: {reason}"
    os_error = getattr(error, "os_error", error)
    text, number = getattr(os_error, "strerror", None), getattr(os_error, "errno", None)
    if isinstance(text, str) and text.startswith(_ASYNCIO_WORDS) and number:
        return os.strerror(number).lower()
    return text if isinstance(text, str) and text else type(os_error).__name__
