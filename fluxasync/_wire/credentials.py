"""The API key and the access token: where they come from, their headers, their addresses.

The key is sent to the provider's own origin and, where jobs are regional, to its polling hosts:
never to an address only because a server named it. The access token reads the account's lists, and
may do more than the key: it is sent to the provider's own origin only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from .._core.addresses import is_link_local, is_loopback_address, private_host
from .._core.errors import ConfigError
from .._core.models import Secret
from .providers import PORTS, PROVIDERS, Provider, origin_of, provider_of

#: what messages call it
TOKEN = "the access token"  # noqa: S105 — its name


def _optional_secret(given: Any) -> Secret | None:
    return Secret(given) if isinstance(given, str) else given


def _is_secret(instance: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, Secret | None):
        raise ConfigError(f"{attribute.name}: text, not {type(value).__name__}")


@frozen(kw_only=True)
class Credentials:
    """An API key together with the access token of its account: `FluxSession(api_key=…)` takes it.

    What is None is read from the provider's variables (COMETAPI_KEY, COMETAPI_ACCESS_TOKEN). The
    access token is made on the console's personal page. It reads the lists of the account and is
    sent to the provider's own origin only.
    """

    api_key: Secret | None = field(default=None, converter=_optional_secret, validator=_is_secret)
    access_token: Secret | None = field(
        default=None, converter=_optional_secret, validator=_is_secret
    )


def credentials_of(given: str | Secret | Credentials | None) -> Credentials:
    """Return Credentials from the key alone. Raises ConfigError for other types."""
    return given if isinstance(given, Credentials) else Credentials(api_key=given or None)


def auth_header(provider: Provider, key: Secret | None) -> dict[str, str]:
    """Return the header with the key, in plain text; empty without a key."""
    if not key:
        return {}
    return {provider.auth_header: f"{provider.auth_scheme} {key.reveal()}".lstrip()}


def token_header(provider: Provider, token: Secret, url: str) -> dict[str, str]:
    """Return the header with the access token, in plain text, for a URL of the provider's own
    origin. Raises ConfigError for any other URL."""
    if origin_of(url) != provider.origin:
        raise ConfigError(f"{TOKEN} is sent to {provider.base_url[:100]} only")
    return {"Authorization": f"Bearer {token.reveal()}"}


def may_send_key(provider: Provider, url: str) -> bool:
    """Return whether the key may be sent to a URL that a server named.

    Allowed are the provider's origin, `polling_hosts` over https on the default port, for a
    loopback provider any port of this machine, and for a gateway in a trusted private network the
    private hosts there (over http only if the gateway is).
    """
    found = origin_of(url)
    if found is None or found == provider.origin:
        return found is not None
    scheme, host, port = found
    if provider.is_loopback and is_loopback_address(host):
        return True
    if provider.is_in_private_network and private_host(host) and not is_link_local(host):
        return scheme in ("https", provider.origin[0])
    return (scheme, port) == ("https", PORTS["https"]) and provider.may_poll(host)


def resolve_provider(
    provider: Provider | str | None = None,
    *,
    api_key: str | Secret | None = None,
    base_url: str | None = None,
    environ: Mapping[str, str],
) -> tuple[Provider, Secret | None]:
    """Return the provider, with `base_url` if given, and its key.

    Without a name it is the provider whose key variable is set; if both or none are, CometAPI. The
    key is `api_key`, else the variable's value; a provider on this machine or in a trusted private
    network needs none. Raises ConfigError for an unknown name, an invalid base URL, and an invalid
    or missing key.
    """
    chosen = provider_of(provider, base_url=base_url, environ=environ)
    key = _key(api_key, source="api_key")
    if key is None and chosen.key_variable is not None:
        key = _key(environ.get(chosen.key_variable), source=chosen.key_variable)
    if key is None and not (chosen.is_loopback or chosen.is_in_private_network):
        raise ConfigError(_missing_key(chosen, is_named=provider is not None))
    return chosen, key


def access_token(
    provider: Provider, given: Secret | None, *, environ: Mapping[str, str]
) -> Secret | None:
    """Return the access token: the given one, else the value of the provider's variable; None =
    there is none. Raises ConfigError for an invalid one."""
    if given is not None:
        return _key(given, source="access_token", word="access token")
    variable = provider.access_token_variable
    if variable is None:
        return None
    return _key(environ.get(variable), source=variable, word="access token")


#: how to give the token of one of several accounts at a provider, whose variable is not read
_OF_ACCOUNT = (
    "give each account its own, as Account(api_key=Credentials(…, access_token=…)), or as "
    "access_token_variable or access_token_file in the accounts file"
)


def needed_token(
    provider: Provider, given: Secret | None, what: str, *, environ: Mapping[str, str]
) -> Secret:
    """Return the access token. Raises ConfigError, which says how to give it, without one."""
    token = access_token(provider, given, environ=environ)
    if token is None:
        raise ConfigError(
            f"the {what} of {provider.name} needs the account's access token: "
            f"{_how(provider) if environ else _OF_ACCOUNT}"
        )
    return token


def _how(provider: Provider) -> str:
    argument = "give Credentials(access_token=…)"
    if provider.access_token_variable is not None:
        return f"set {provider.access_token_variable}, or {argument}"
    home = PROVIDERS.get(provider.name)
    if home is None or home.access_token_variable is None:
        return argument
    return f"{argument}; {home.access_token_variable} is not read for another base URL"


def unread_token_variable(provider: Provider, *, environ: Mapping[str, str]) -> str | None:
    """Return the variable with an access token that is set, and is not read because the provider
    has another base URL; None if there is none."""
    home = PROVIDERS.get(provider.name)
    if home is None or provider.access_token_variable is not None:
        return None
    variable = home.access_token_variable
    return variable if variable is not None and environ.get(variable, "").strip() else None


def _key(given: str | Secret | None, *, source: str, word: str = "key") -> Secret | None:
    """Strip and check a key; messages do not show it."""
    text = (given.reveal() if isinstance(given, Secret) else given or "").strip()
    if not text:
        return None
    if any(character.isspace() for character in text):
        raise ConfigError(f"{source}: the {word} contains spaces (leave out “Bearer”)")
    if not all(" " < character < "\x7f" or "\xa1" <= character <= "\xff" for character in text):
        raise ConfigError(f"{source}: the {word} contains invalid characters; copy it again")
    return Secret(text)


def _missing_key(provider: Provider, *, is_named: bool) -> str:
    possible = [provider] if is_named else [*PROVIDERS.values()]
    names = " or ".join(each.name for each in possible)
    variables = " or ".join(each.key_variable for each in possible if each.key_variable)
    return (
        f"no key for {names}: {f'set {variables}' if variables else 'give api_key'} "
        "(none is needed with --simulate, or simulate=True in Python)"
    )
