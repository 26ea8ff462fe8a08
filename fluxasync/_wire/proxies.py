"""Decides which proxy a URL is reached through: `proxy=`, the environment's variables, NO_PROXY.

aiohttp's own reading of the environment (`trust_env`) is not used: it ignores ALL_PROXY, https
proxies, and ports and networks in NO_PROXY (aio-libs/aiohttp#3075, #8549). A proxy's password goes
to the proxy only; nothing here shows it.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from .._core.addresses import is_loopback_address
from .._core.errors import ConfigError
from .._core.models import Secret
from .._core.version import __version__
from .providers import PORTS, START

#: the variables for each scheme of a URL, first one first; lower case first, as curl reads them
_VARIABLES = {
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
}
_EXEMPTIONS = ("no_proxy", "NO_PROXY")
#: hosts whose proxy is remembered; images come from a few
_REMEMBERED = 256
#: the argument of FluxSession, as the source of a proxy
ARGUMENT = "proxy"
#: "[::1]:8080", "[::1]", "host:8080" and "host"
_ENTRY = re.compile(r"\[([0-9a-f:.]+)\](?::(\d{1,5}))?|([^:]+):(\d{1,5})")
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)


@frozen
class Proxy:
    """An HTTP proxy. `url` has no user and no password, so that it can be shown."""

    url: str
    source: str  #: the variable that names it, or `proxy`
    authorization: Secret | None = None  #: the value of Proxy-Authorization

    def __str__(self) -> str:
        return f"the proxy {self.url}" + ("" if self.source == ARGUMENT else f" ({self.source})")

    def headers(self) -> dict[str, str]:
        """Return the headers for the proxy alone, with the password in plain text."""
        found = {"User-Agent": f"fluxasync/{__version__}"}
        if self.authorization is not None:
            found["Proxy-Authorization"] = self.authorization.reveal()
        return found


@frozen
class ProxySettings:
    """The proxy settings of a session: `proxy=` and the environment when it was opened.

    `named` is used for every URL; "" means no proxy. None leaves it to the environment. NO_PROXY
    exempts hosts from both. This machine's own addresses are never reached through a proxy.
    """

    named: str | None = field(default=None, repr=False)
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    _found: dict[str, Proxy | None] = field(factory=dict, init=False, repr=False, eq=False)
    _is_set: bool = field(init=False, repr=False, eq=False)

    @_is_set.default
    def _names_a_proxy(self) -> bool:
        return any(self._setting(scheme)[1] for scheme in _VARIABLES)

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy for a URL; None = it is reached directly.

        Raises ConfigError for a proxy that cannot be used.
        """
        if not self._is_set:
            return None
        start = START.match(url)
        key = url if start is None else start[0]
        if key not in self._found:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[key] = self._proxy_for(key)
        return self._found[key]

    def _proxy_for(self, url: str) -> Proxy | None:
        parts = urlsplit(url)
        source, text = self._setting(parts.scheme)
        if not text or _is_local(parts.hostname or "") or self._exempting(url) is not None:
            return None
        return read_proxy(text, source)

    def explain(self, url: str) -> str:
        """Return why a URL is reached directly, for an error message; "" for this machine's."""
        parts = urlsplit(url)
        if parts.scheme not in PORTS or _is_local(parts.hostname or ""):
            return ""
        source, text = self._setting(parts.scheme)
        if text and (variable := self._exempting(url)) is not None:
            return f"without a proxy, because of {variable}"
        if source == ARGUMENT:
            return 'without a proxy, because of proxy=""'
        if parts.scheme == "http":  # a proxy would see the key
            return "without a proxy"
        for name in _VARIABLES["http"][:2]:
            if not text and self._value(name):
                return f"without a proxy: {name} is for http:// only; set HTTPS_PROXY"
        return "without a proxy: HTTPS_PROXY is not set"

    def _setting(self, scheme: str) -> tuple[str, str]:
        """Return the source and the text of the setting for a scheme; the first variable that
        exists decides, and an empty one means no proxy."""
        if self.named is not None:
            return ARGUMENT, self.named.strip()
        for name in _VARIABLES.get(scheme, ()):
            if (value := self._value(name)) is not None:
                return name, value.strip()
        return "", ""

    def _value(self, name: str) -> str | None:
        # a CGI server sets HTTP_PROXY from the header `Proxy` of a request (CVE-2016-5385)
        if name == "HTTP_PROXY" and "REQUEST_METHOD" in self.environ:
            return None
        return self.environ.get(name)

    def _exempting(self, url: str) -> str | None:
        """Return the variable that exempts the URL's host; None = no variable does."""
        parts = urlsplit(url)
        for name in _EXEMPTIONS:
            if (value := self._value(name)) is not None:
                port = PORTS.get(parts.scheme) if parts.port is None else parts.port
                return name if is_exempt(parts.hostname or "", port, value) else None
        return None


#: no proxies, whatever the environment says
NO_PROXIES = ProxySettings()


def shows_key(proxy: Proxy, host: str) -> str:
    """Return what is wrong with a call over http through a proxy, and what to do."""
    host = host[:100]
    return (
        f"{proxy} would see the key, because {host} is called over http: add {host} to NO_PROXY, "
        "or use https"
    )


def is_exempt(host: str, port: int | None, no_proxy: str) -> bool:
    """Return whether NO_PROXY exempts a host, as curl and Go read it.

    Entries are separated by commas or spaces: `*`, a name (which covers its subdomains, with or
    without a leading dot), `*.name` (subdomains only), an address, a network (`10.0.0.0/8`); names
    and addresses may have a port. Entries that cannot be read exempt nothing.
    """
    host = host.lower().strip("[]").rstrip(".")
    return any(_matches(host, port, entry) for entry in re.split(r"[\s,]+", no_proxy.lower()))


def _matches(host: str, port: int | None, entry: str) -> bool:
    entry = entry.partition("://")[2] or entry
    if found := _ENTRY.fullmatch(entry):
        entry, wanted = found[1] or found[3], found[2] or found[4]
        if wanted is not None and int(wanted) != port:
            return False
    entry = entry.rstrip(".")
    if entry == "*":
        return True
    if (address := _address(host)) is not None:
        return _covers(entry, address)
    name = entry.removeprefix("*").removeprefix(".")
    if not name:
        return False
    return host.endswith(f".{name}") or (host == name and not entry.startswith("*"))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _covers(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _is_local(host: str) -> bool:
    return is_loopback_address(host) or host.rstrip(".").endswith(".localhost")


def read_proxy(text: str, source: str) -> Proxy:
    """Return the proxy of a setting. Raises ConfigError, which does not show it, because it may
    hold a password."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    scheme = scheme.lower()
    if scheme.startswith("socks"):
        raise _unusable(
            source,
            "socks proxies are not supported: name an http:// proxy (many socks proxies serve "
            "http on the same or on another port), or exempt the provider with NO_PROXY",
        )
    if scheme not in PORTS:
        raise _unusable(source, "not an http:// or https:// proxy; write http://proxy.example:3128")
    if rest and not _PRINTABLE.fullmatch(rest):
        raise _unusable(source, "contains spaces or other characters; percent-encode them")
    user, host, port = _authority(scheme, rest, source)
    shown = f"[{host}]" if ":" in host else host
    return Proxy(f"{scheme}://{shown}:{port}", source, user)


def _authority(scheme: str, rest: str, source: str) -> tuple[Secret | None, str, int]:
    """Return the Proxy-Authorization, the host and the port."""
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = None, None, None
    # an @ outside of the authority: the password holds a / ? or #
    if parts is None or not host or rest.count("@") > parts.netloc.count("@"):
        advice = "; in a user or a password, percent-encode @ : / ? # as %40 %3A %2F %3F %23"
        raise _unusable(source, f"not an address such as http://proxy.example:3128{advice}")
    authorization = None
    if parts.username is not None:
        user, word = unquote(parts.username), unquote(parts.password or "")
        encoded = base64.b64encode(f"{user}:{word}".encode()).decode()
        authorization = Secret(f"Basic {encoded}")
    return authorization, host, PORTS[scheme] if port is None else port


def _unusable(source: str, reason: str) -> ConfigError:
    return (
        ConfigError.about(source, reason)
        if source == ARGUMENT
        else ConfigError(f"{source}: {reason}")
    )
