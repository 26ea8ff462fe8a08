"""Providers as data: origin, paths, auth header, trusted polling hosts; and the choice of one.

The key is sent to the provider's own origin and, where jobs are regional, to its polling hosts:
never to an address only because a server named it. `urlsplit` silently drops tabs and newlines, so
the raw URL is checked before it is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Literal
from urllib.parse import SplitResult, quote, urlsplit

from attrs import evolve, field, frozen

from .._core.addresses import is_loopback_address
from .._core.amounts import CREDIT
from .._core.errors import ConfigError
from .._core.models import Secret

_PORTS = {"http": 80, "https": 443}
#: printable ASCII without space and backslash; parsers disagree about other characters
_PLAIN_URL = re.compile(r"[!-\[\]-~]{1,4096}", re.ASCII)
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII)

Origin = tuple[str, str, int]


def _split(url: str) -> SplitResult | None:
    """Parse a URL; None for one that two parsers could read differently."""
    if not isinstance(url, str) or not _PLAIN_URL.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for an invalid port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts


def _origin(parts: SplitResult) -> Origin:
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    return parts.scheme, parts.hostname or "", port


def _base_url(given: Any) -> str:
    """Check a base URL; a message does not quote one that could hold a password."""
    parts = _split(given)
    if parts is None:
        if isinstance(given, str) and "@" in given:
            raise ConfigError.about(
                "base_url", "contains a user or a password; give the key as api_key"
            )
        raise ConfigError.about(
            "base_url", "not an http(s) URL; give https://api.example.com/prefix"
        )
    if parts.query or parts.fragment or "?" in given or "#" in given:
        raise ConfigError.about("base_url", "contains ? or #; end it with the path")
    if parts.scheme == "http" and not is_loopback_address(parts.hostname or ""):
        raise ConfigError.about(
            "base_url", f"http would send the key unencrypted; use https://{parts.netloc}"
        )
    return str(given).rstrip("/")


def _starts_with_slash(instance: object, attribute: Any, value: str | None) -> None:
    if value is not None and not value.startswith("/"):
        raise ConfigError(f"{attribute.name}={value!r}: must start with /")


def _names_the_model(instance: object, attribute: Any, value: str) -> None:
    if "{model}" not in value:
        raise ConfigError(f"{attribute.name}={value!r}: must contain {{model}}")


@frozen(kw_only=True)
class Provider:
    """A service with the submit-and-poll API of Flux. A gateway needs five lines of it.

    Raises ConfigError for a `base_url` that is not https (http is allowed on loopback), or that has
    a user, a query or a fragment. A path prefix is kept.
    """

    name: str
    base_url: str = field(converter=_base_url)
    submit_path: str = field(
        default="/v1/{model}", validator=[_starts_with_slash, _names_the_model]
    )
    poll_path: str = field(default="/v1/get_result", validator=_starts_with_slash)
    credits_path: str | None = field(default=None, validator=_starts_with_slash)
    auth_header: str = "Authorization"
    auth_scheme: str = "Bearer"  #: "" = the bare key
    key_variable: str | None = None  #: environment variable with the key
    #: "polling_url": jobs are regional, so the URL in the answer is polled
    poll_by: Literal["id", "polling_url"] = "id"
    #: other hosts to which the key may be sent, such as ``*.example.com``
    polling_hosts: tuple[str, ...] = ()
    credit: Decimal | None = None  #: US dollars for one unit of the cost in answers

    @property
    def origin(self) -> Origin:
        """Scheme, host and port of `base_url`."""
        return _origin(urlsplit(self.base_url))

    @property
    def is_loopback(self) -> bool:
        """Whether it runs on this machine: a simulator or a local gateway."""
        return is_loopback_address(self.origin[1])

    def submit_url(self, model: str) -> str:
        """Return the URL for submissions to a model; the name is quoted."""
        return self.base_url + self.submit_path.replace("{model}", quote(model, safe=""))

    def poll_url(self, job_id: str) -> str:
        """Return the URL that polls a job by its id; the id is quoted."""
        return f"{self.base_url}{self.poll_path}?id={quote(job_id, safe='')}"

    def credits_url(self) -> str | None:
        """Return the URL of the account's balance; None if the provider has none."""
        return None if self.credits_path is None else self.base_url + self.credits_path

    def auth(self, key: Secret | None) -> dict[str, str]:
        """Return the header with the key, in plain text; empty without a key."""
        if not key:
            return {}
        return {self.auth_header: f"{self.auth_scheme} {key.reveal()}".lstrip()}

    def at(self, base_url: str | None) -> Provider:
        """Return this provider with another `base_url`; None = the same.

        The key of a third party's gateway is not sent to the provider's own polling hosts: jobs are
        polled at the gateway.
        """
        if base_url is None:
            return self
        moved = evolve(self, base_url=base_url)
        if self._is_at_home and not (moved._is_at_home or moved.is_loopback):
            return evolve(moved, polling_hosts=())
        return moved

    @property
    def _is_at_home(self) -> bool:
        return self._may_poll(self.origin[1])

    def _may_poll(self, host: str) -> bool:
        is_name = _HOST_NAME.fullmatch(host) is not None
        return is_name and any(_matches(host, pattern) for pattern in self.polling_hosts)

    def trusts(self, url: str) -> bool:
        """Return whether the key may be sent to a URL that a server named.

        Allowed are the provider's origin, `polling_hosts` over https on the default port, and for a
        loopback provider any port of this machine.
        """
        parts = _split(url)
        if parts is None:
            return False
        scheme, host, port = found = _origin(parts)
        if found == self.origin:
            return True
        if self.is_loopback and is_loopback_address(host):
            return True
        return (scheme, port) == ("https", _PORTS["https"]) and self._may_poll(host)


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and ".." not in host
    return host == pattern


#: CometAPI (its docs). Jobs are polled by id at its own origin: the host in its `polling_url` is
#: not documented, so the key is not sent there. Its answers have no cost.
COMETAPI: Final = Provider(
    name="cometapi",
    base_url="https://api.cometapi.com",
    submit_path="/flux/v1/{model}",
    poll_path="/flux/v1/get_result",
    key_variable="COMETAPI_KEY",
)

#: Black Forest Labs. Its docs say "must use the polling_url", because a job is known in one region
#: only. A credit is US$0.01.
BFL: Final = Provider(
    name="bfl",
    base_url="https://api.bfl.ai",
    credits_path="/v1/credits",
    auth_header="x-key",
    auth_scheme="",
    key_variable="BFL_API_KEY",
    poll_by="polling_url",
    polling_hosts=("*.bfl.ai",),
    credit=CREDIT,
)

PROVIDERS: Final = {provider.name: provider for provider in (COMETAPI, BFL)}


def resolve_provider(
    provider: Provider | str | None = None,
    *,
    api_key: str | Secret | None = None,
    base_url: str | None = None,
    environ: Mapping[str, str],
) -> tuple[Provider, Secret | None]:
    """Return the provider, with `base_url` if given, and its key.

    Without a name it is the provider whose key variable is set; if both or none are, CometAPI. The
    key is `api_key`, else the variable's value; a provider on this machine needs none. Raises
    ConfigError for an unknown name, an invalid base URL, and an invalid or missing key.
    """
    chosen = provider_of(provider, base_url=base_url, environ=environ)
    key = _key(api_key, source="api_key")
    if key is None and chosen.key_variable is not None:
        key = _key(environ.get(chosen.key_variable), source=chosen.key_variable)
    if key is None and not chosen.is_loopback:
        raise ConfigError(_missing_key(chosen, is_named=provider is not None))
    return chosen, key


def provider_of(
    provider: Provider | str | None, *, base_url: str | None, environ: Mapping[str, str]
) -> Provider:
    """Return the provider as `resolve_provider` does, without its key."""
    return _named(provider, environ).at(base_url)


def _named(provider: Provider | str | None, environ: Mapping[str, str]) -> Provider:
    if isinstance(provider, Provider):
        return provider
    if provider is None:
        keyed = (each for each in PROVIDERS.values() if environ.get(each.key_variable or "", ""))
        return next(keyed, COMETAPI)
    return provider_by_name(provider)


def provider_by_name(name: str, *, as_written: str | None = None) -> Provider:
    """Return the provider of this name. Raises ConfigError, which shows it `as_written`."""
    if (found := PROVIDERS.get(str(name).lower())) is None:
        lead = f"provider={str(name)[:40]!r}" if as_written is None else as_written
        raise ConfigError(f"{lead}: must be {' or '.join(PROVIDERS)}")
    return found


def _key(given: str | Secret | None, *, source: str) -> Secret | None:
    """Strip and check a key; messages do not show it."""
    text = (given.reveal() if isinstance(given, Secret) else given or "").strip()
    if not text:
        return None
    if any(character.isspace() for character in text):
        raise ConfigError(f"{source}: the key contains spaces (leave out “Bearer”)")
    if not all(" " < character < "\x7f" or "\xa1" <= character <= "\xff" for character in text):
        raise ConfigError(f"{source}: the key contains invalid characters; copy it again")
    return Secret(text)


def _missing_key(provider: Provider, *, is_named: bool) -> str:
    possible = [provider] if is_named else [*PROVIDERS.values()]
    names = " or ".join(each.name for each in possible)
    variables = " or ".join(each.key_variable for each in possible if each.key_variable)
    return (
        f"no key for {names}: {f'set {variables}' if variables else 'give api_key'} "
        "(none is needed with --simulate or a simulator's base_url)"
    )
