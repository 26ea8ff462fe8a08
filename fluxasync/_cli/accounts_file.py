"""An accounts file (`--accounts FILE`): TOML with a table for each account, without any key."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, Self, cast

from attrs import frozen

from .._core.errors import ConfigError, cut
from .._engine.account_choice import Route
from .._engine.pool_account import Account
from .._wire.credentials import Credentials
from .key_files import key_from
from .options import read_provider
from .toml_file import read_toml

#: the words of an account's table, with the types of their values
_WORDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "provider": (str,),
    "base_url": (str,),
    "key_variable": (str,),
    "key_file": (str,),
    "access_token_variable": (str,),
    "access_token_file": (str,),
    "in_flight": (int, str),
    "max_cost": (int, str, Decimal),
    "weight": (int, Decimal),
    "price": (int, str, Decimal, dict),
    "factor": (int, str, Decimal),
}
#: words under which users write a secret
_INLINE = ("key", "api_key", "token", "access_token", "secret")
#: words whose values an Account takes as they are
_AS_GIVEN = ("name", "base_url", "price", "factor")
_EXAMPLE = '[[account]] with provider = "cometapi"'


@frozen
class AccountsFile:
    """What an accounts file says; its keys and other files are not read yet."""

    path: Path
    route: Route
    tables: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises ConfigError for what it must not or cannot say."""
        content = read_toml(path, shown=f"--accounts {cut(str(path))}")
        tables = content.pop("account", None)
        route = content.pop("route", "least-busy")
        if content:
            _refuse(path, f"unknown word {cut(next(iter(content)))}; known: account, route")
        if not (isinstance(tables, list) and tables and all(isinstance(t, dict) for t in tables)):
            _refuse(path, f"it has no accounts: write {_EXAMPLE}, a table for each")
        for number, table in enumerate(tables, 1):
            _check_words(path, number, table)
        return cls(path, cast("Route", route), tuple(tables))

    def accounts(
        self,
        warn: Callable[[str], None],
        *,
        polling_lag: float | None = None,
        allow_private_network: bool = False,
        with_keys: bool = True,
    ) -> list[Account]:
        """Return the accounts; `with_keys` reads their keys. Raises ConfigError."""
        return [
            self._account(
                f"account {number}",
                table,
                credentials=self._credentials(number, table, warn) if with_keys else None,
                polling_lag=polling_lag,
                allow_private_network=allow_private_network,
            )
            for number, table in enumerate(self.tables, 1)
        ]

    def _account(
        self,
        where: str,
        table: Mapping[str, Any],
        *,
        credentials: Credentials | None,
        polling_lag: float | None,
        allow_private_network: bool,
    ) -> Account:
        given = {word: table[word] for word in _AS_GIVEN if word in table}
        try:
            return Account(
                read_provider(table.get("provider"), allow_private_network=allow_private_network),
                api_key=credentials,
                limits=table.get("in_flight"),
                budget=table.get("max_cost"),
                weight=float(table.get("weight", 1)),
                polling=polling_lag,
                **given,
            )
        except ConfigError as error:
            raise ConfigError(f"--accounts {cut(str(self.path))}: {where}: {error}") from error

    def _credentials(
        self, number: int, table: Mapping[str, Any], warn: Callable[[str], None]
    ) -> Credentials:
        try:
            return Credentials(
                api_key=_secret("key", self.path, table, warn),
                access_token=_secret("access_token", self.path, table, warn),
            )
        except ConfigError as error:
            raise ConfigError(
                f"--accounts {cut(str(self.path))}: account {number}: {error}"
            ) from error


def _check_words(path: Path, number: int, table: Mapping[str, Any]) -> None:
    """Refuse a secret, an unknown word, and a value of a wrong type."""
    where = f"account {number}"
    for word, value in table.items():
        if word in _INLINE:
            _refuse(
                path,
                f"{where}: {word} is a secret, and this file is copied, shared and committed: put "
                "it into a variable or a file and write key_variable or key_file "
                "(access_token_variable, access_token_file)",
            )
        if word not in _WORDS:
            _refuse(path, f"{where}: unknown word {cut(word)}; known: {', '.join(_WORDS)}")
        if not isinstance(value, _WORDS[word]) or isinstance(value, bool):
            _refuse(path, f"{where}: {word} cannot be a {type(value).__name__}")


def _secret(
    word: str, path: Path, table: Mapping[str, Any], warn: Callable[[str], None]
) -> str | None:
    """Return the secret that a variable or a file holds; files are beside the TOML file."""
    variable, file = table.get(f"{word}_variable"), table.get(f"{word}_file")
    if variable is not None and file is not None:
        raise ConfigError(f"{word}_variable and {word}_file: give one of both")
    if variable is not None:
        found = os.environ.get(variable, "").strip()
        if not found:
            raise ConfigError(f"{word}_variable: the variable {cut(variable)} is not set")
        return found
    return None if file is None else key_from(path.parent / file, warn, option=f"{word}_file")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ConfigError(f"--accounts {cut(str(path))}: {reason}")
