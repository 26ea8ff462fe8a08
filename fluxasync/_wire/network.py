"""How a session reaches its provider: the proxy, the certificates, the private network.

All of it is checked when the session is opened, before anything is sent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from ssl import SSLContext
from typing import Any

from attrs import field, frozen

from .._core.arguments import check_type
from .._core.config import Timeouts
from .._core.errors import ConfigError
from . import tls
from .providers import Provider
from .proxies import ARGUMENT, Proxy, ProxySettings, read_proxy, shows_key
from .transport import AiohttpTransport


def _is_proxy(instance: object, attribute: Any, value: Any) -> None:
    if value is not None:
        check_type("proxy", value, str, expected="the URL of a proxy as text")
    if value and value.strip():
        read_proxy(value.strip(), ARGUMENT)


def _is_context(instance: object, attribute: Any, value: Any) -> None:
    if value is not None:
        expected = "an ssl.SSLContext, as ssl.create_default_context(cafile=…) returns it"
        check_type("ssl", value, SSLContext, expected=expected)


@frozen(kw_only=True)
class Network:
    """The network settings of a session, as the user gave them. Raises ConfigError."""

    proxy: str | None = field(default=None, validator=_is_proxy, repr=False)
    ssl: SSLContext | None = field(default=None, validator=_is_context)

    @property
    def is_given(self) -> bool:
        return self.proxy is not None or self.ssl is not None

    def proxy_of(self, provider: Provider, environ: Mapping[str, str] = os.environ) -> Proxy | None:
        """Return the proxy for the provider's own address; None = it is reached directly.

        Raises ConfigError for a proxy that cannot be used, or that would see the key.
        """
        found = ProxySettings(self.proxy, environ).proxy_for(provider.base_url)
        scheme, host, _ = provider.origin
        if found is not None and scheme == "http":
            raise ConfigError(shows_key(found, host))
        return found

    def transport(
        self, provider: Provider, timeouts: Timeouts, environ: Mapping[str, str]
    ) -> AiohttpTransport:
        """Return a transport for a provider; `environ` is read now. Raises ConfigError."""
        self.proxy_of(provider, environ)
        is_plain = provider.origin[0] == "http"
        ssl = self.ssl
        if ssl is None and not (is_plain and provider.is_loopback):
            ssl = tls.trusted(environ)
        return AiohttpTransport(
            timeouts=timeouts,
            allow_loopback=provider.is_loopback,
            allow_private=provider.allow_private_network,
            is_plain=is_plain and not provider.is_loopback,
            proxies=ProxySettings(self.proxy, dict(environ)),
            ssl=ssl,
        )
