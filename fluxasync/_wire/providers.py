"""Providers as data: origin, paths, auth header, trusted polling hosts; and the choice of one.

`urlsplit` silently drops tabs and newlines, so the raw URL is checked before it is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, Final, Literal
from urllib.parse import SplitResult, quote, urlsplit

from attrs import evolve, field, frozen

from .._core.addresses import is_loopback_address, private_host
from .._core.amounts import CREDIT
from .._core.errors import ConfigError, cut

PORTS = {"http": 80, "https": 443}
#: printable ASCII without space and backslash; parsers disagree about other characters
_PLAIN_URL = re.compile(r"[!-\[\]-~]{1,4096}", re.ASCII)
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII)

#: scheme, user, host and port of a URL, at its beginning; many URLs have the same
START = re.compile(r"[^/?#]*(?://[^/?#]*)?")

#: an id that is quoted as it is
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.~-]*", re.ASCII)

Origin = tuple[str, str, int]


def split_url(url: str) -> SplitResult | None:
    """Parse a URL; None for one that two parsers could read differently."""
    if not isinstance(url, str) or not _PLAIN_URL.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for an invalid port
    except ValueError:
        return None
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts


def origin_of(url: str) -> Origin | None:
    """Return scheme, host and port of a URL; None for one that two parsers could read
    differently."""
    if not isinstance(url, str) or not _PLAIN_URL.fullmatch(url):
        return None
    start = START.match(url)
    return None if start is None else _origin_of(start[0])


@lru_cache(maxsize=256)
def _quoted(model: str) -> str:
    is_path = all(part.strip(".") for part in model.split("/"))
    return quote(model, safe="/" if is_path else "")


@lru_cache(maxsize=256)
def _origin_of(start: str) -> Origin | None:
    parts = split_url(start)
    if parts is None:
        return None
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    return parts.scheme, parts.hostname or "", port


def _base_url(given: Any) -> str:
    """Check a base URL; a message does not quote one that could hold a password."""
    parts = split_url(given)
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
    return str(given).rstrip("/")


def _is_safe(instance: Provider, attribute: Any, value: str) -> None:
    """Refuse http, except on this machine and, where it is allowed, to a private host."""
    parts = urlsplit(value)
    if parts.scheme != "http" or instance.is_loopback or instance.is_in_private_network:
        return
    reason = f"http would send the key unencrypted; use https://{parts.netloc[:100]}"
    if private_host(parts.hostname or ""):
        reason += ", or in a private network that you trust: Provider(allow_private_network=True)"
    raise ConfigError.about("base_url", reason)


def _adds_no_path_twice(instance: Provider, attribute: Any, value: str) -> None:
    prefix = instance.submit_path.partition("/{model}")[0]
    if prefix and value.endswith(prefix):
        raise _path_twice(prefix, value.removesuffix(prefix))


def _path_twice(path: str, right: str) -> ConfigError:
    return ConfigError.about(
        "base_url", f"ends in {path[:60]}, which every call adds again; give {right[:100]}"
    )


def _starts_with_slash(instance: object, attribute: Any, value: str | None) -> None:
    if value is not None and not value.startswith("/"):
        raise ConfigError(f"{attribute.name}={cut(repr(value))}: must start with /")


def _names_the_model(instance: object, attribute: Any, value: str) -> None:
    if "{model}" not in value:
        raise ConfigError(f"{attribute.name}={cut(repr(value))}: must contain {{model}}")


@frozen(kw_only=True)
class Provider:
    """A service with the submit-and-poll API of Flux. A gateway needs five lines of it.

    Raises ConfigError for a `base_url` that is not https, or that has a user, a query or a
    fragment. A path prefix is kept. http is allowed on loopback, and with `allow_private_network`
    to private addresses, names without a dot and local names (`.local`, `.internal`, …).
    """

    name: str
    base_url: str = field(converter=_base_url, validator=[_is_safe, _adds_no_path_twice])
    submit_path: str = field(
        default="/v1/{model}", validator=[_starts_with_slash, _names_the_model]
    )
    poll_path: str = field(default="/v1/get_result", validator=_starts_with_slash)
    #: balance in credits, asked with the key (BFL)
    credits_path: str | None = field(default=None, validator=_starts_with_slash)
    #: limit and use of the key, at /subscription and /usage below it, asked with the key
    billing_path: str | None = field(default=None, validator=_starts_with_slash)
    #: balance of the account, asked with the access token, as the two lists are
    user_path: str | None = field(default=None, validator=_starts_with_slash)
    tasks_path: str | None = field(default=None, validator=_starts_with_slash)  #: list of tasks
    usage_path: str | None = field(default=None, validator=_starts_with_slash)  #: usage log
    #: of the OpenAPI document of its models, which is public
    openapi_path: str | None = field(default=None, validator=_starts_with_slash)
    auth_header: str = "Authorization"
    auth_scheme: str = "Bearer"  #: "" = the bare key
    key_variable: str | None = None  #: environment variable with the key
    #: environment variable with the access token of the account; not read for another `base_url`
    access_token_variable: str | None = None
    #: "polling_url": jobs are regional, so the URL in the answer is polled
    poll_by: Literal["id", "polling_url"] = "id"
    #: other hosts to which the key may be sent, such as ``*.example.com``
    polling_hosts: tuple[str, ...] = ()
    #: hosts among them that know each of their own jobs by its id. A job of another one is polled
    #: at its polling URL only, and the answer to a submission with a webhook has none.
    regional_hosts: tuple[str, ...] = ()
    credit: Decimal | None = None  #: US dollars for one unit of the cost in answers
    quota_unit: Decimal | None = None  #: US dollars for one unit of quota in the account's lists
    #: you trust the network of this gateway: http to it is allowed, no key is needed, and so are
    #: image and polling URLs at private addresses that it gives. No effect for a public address.
    allow_private_network: bool = False

    @cached_property
    def origin(self) -> Origin:
        """Scheme, host and port of `base_url`."""
        origin = origin_of(self.base_url)
        assert origin is not None  # noqa: S101 — `base_url` was checked
        return origin

    @property
    def place(self) -> tuple[str, str]:
        """Its name and its origin, as a record of jobs has them. A simulator may have another port
        in each run, so loopback origins are all one."""
        scheme, host, port = self.origin
        return self.name, "loopback" if self.is_loopback else f"{scheme}://{host}:{port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it runs on this machine: a simulator or a local gateway."""
        return is_loopback_address(self.origin[1])

    @property
    def is_in_private_network(self) -> bool:
        """Whether it is at a private host and `allow_private_network` is set."""
        return self.allow_private_network and private_host(self.origin[1])

    @property
    def needs_polling_url(self) -> bool:
        """Whether a job without a polling URL could not be polled, as one with a webhook."""
        is_global = self._is_at_home and not self.is_regional
        return self.poll_by == "polling_url" and is_global

    @property
    def is_regional(self) -> bool:
        """Whether its host is one of `regional_hosts`."""
        return self._host in self.regional_hosts

    @property
    def repeated_part(self) -> str | None:
        """The last part of the path of `base_url` that `submit_path` adds again: `v1`, `flux`."""
        added = self.submit_path.split("/")
        parts = urlsplit(self.base_url).path.split("/")
        return next((part for part in reversed(parts) if part and part in added), None)

    def submit_url(self, model: str) -> str:
        """Return the URL for submissions to a model. The name is quoted; its slashes stay, as in
        flux-tools/erase-v1, unless a part between them could change the path."""
        return self.base_url + self.submit_path.replace("{model}", _quoted(model))

    def poll_url(self, job_id: str) -> str:
        """Return the URL that polls a job by its id; the id is quoted."""
        id = job_id if _PLAIN_ID.fullmatch(job_id) else quote(job_id, safe="")
        return f"{self.base_url}{self.poll_path}?id={id}"

    def openapi_url(self) -> str | None:
        """Return the URL of the provider's OpenAPI document; None if it publishes none."""
        return None if self.openapi_path is None else self.base_url + self.openapi_path

    def credits_url(self) -> str | None:
        """Return the URL of the account's balance; None if the provider has none."""
        return None if self.credits_path is None else self.base_url + self.credits_path

    def at(self, base_url: str | None) -> Provider:
        """Return this provider with another `base_url`; None = the same.

        The key of a third party's gateway is not sent to the provider's own polling hosts: jobs are
        polled at the gateway. Nor is the access token in the environment sent to a gateway.
        """
        if base_url is None:
            return self
        moved = evolve(self, base_url=base_url)
        path = moved.base_url.removeprefix(self.base_url)
        if path != moved.base_url and moved.origin == self.origin and moved.repeated_part:
            raise _path_twice(path, self.base_url)
        if moved.origin != self.origin and not moved.is_loopback:
            moved = evolve(moved, access_token_variable=None)
        if self._is_at_home and not (moved._is_at_home or moved.is_loopback):
            return evolve(moved, polling_hosts=())
        return moved

    @property
    def _is_at_home(self) -> bool:
        return self.may_poll(self._host)

    @property
    def _host(self) -> str:
        """The host of `base_url` without the dot of the root, with which it is the same host."""
        return self.origin[1].removesuffix(".")

    def may_poll(self, host: str) -> bool:
        """Return whether a host is one of `polling_hosts`."""
        is_name = _HOST_NAME.fullmatch(host) is not None
        return is_name and any(_matches(host, pattern) for pattern in self.polling_hosts)


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
    # cometapi-cli 0.3.10 (PyPI), read on 2026-11-29: paths, variable, 500,000 units = US$1
    billing_path="/v1/dashboard/billing",
    user_path="/api/user/self",
    tasks_path="/api/task/self",
    usage_path="/api/log/self",
    access_token_variable="COMETAPI_ACCESS_TOKEN",  # noqa: S106 — its name
    quota_unit=Decimal("0.000002"),
)

#: Black Forest Labs. Its docs say "must use the polling_url", because a job is known in one region
#: only. A credit is US$0.01.
BFL: Final = Provider(
    name="bfl",
    base_url="https://api.bfl.ai",
    credits_path="/v1/credits",
    openapi_path="/openapi.json",
    auth_header="x-key",
    auth_scheme="",
    key_variable="BFL_API_KEY",
    poll_by="polling_url",
    polling_hosts=("*.bfl.ai",),
    # BFL docs, "regional endpoints"; the last two are older and single clusters
    regional_hosts=("api.eu.bfl.ai", "api.us.bfl.ai", "api.eu1.bfl.ai", "api.us1.bfl.ai"),
    credit=CREDIT,
)

PROVIDERS: Final = {provider.name: provider for provider in (COMETAPI, BFL)}


def provider_of(
    provider: Provider | str | None, *, base_url: str | None, environ: Mapping[str, str]
) -> Provider:
    """Return the provider; without a name, the one whose key variable is set, else CometAPI."""
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
