"""The session of a command that asks about an account, or about several, and makes no image."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from shlex import quote
from typing import Any

from .._batch.progress.terminal import Terminal
from .._core.account import Balance
from .._core.amounts import dollars
from .._core.errors import ConfigError, FluxError
from .._core.protocols import Observer
from .._engine.engine import Engine
from .._engine.pool import FluxPool, batch_engine_of
from .._engine.session import FluxSession
from .._wire.credentials import Credentials
from .._wire.providers import PROVIDERS
from .accounts_file import AccountsFile
from .advice import with_advice
from .key_files import TOKEN_FILE, key_from
from .options import AccountOptions


def account_session(
    terminal: Terminal,
    options: AccountOptions,
    *,
    default: str | None = None,
    on_event: Observer | None = None,
) -> FluxSession | FluxPool:
    """Return the session that the options describe, or the pool of an accounts file; `default` is
    the provider without --provider, if it is a known one. Raises ConfigError, also for a missing
    key."""
    if options.accounts is not None:
        return _pool(terminal, options, on_event)
    provider = options.provider_named
    if provider is None and default in PROVIDERS:
        provider = default
    return FluxSession(
        provider,
        api_key=Credentials(
            api_key=key_from(options.key_file, terminal.say),
            access_token=key_from(options.access_token_file, terminal.say, option=TOKEN_FILE),
        ),
        base_url=options.base_url,
        proxy=options.proxy,
        on_event=on_event,
    )


def _given(options: AccountOptions) -> dict[str, object]:
    return {
        "--provider": options.provider,
        "--base-url": options.base_url,
        "--key-file": options.key_file,
        "--access-token-file": options.access_token_file,
    }


def written(options: AccountOptions) -> str:
    """Return the options for another command about the account, with a space before each; not the
    proxy, which may have a password."""
    given = _given(options) | {"--accounts": options.accounts}
    text = "".join(f" {name} {quote(str(value))}" for name, value in given.items() if value)
    return text + " --allow-private-network" * options.allow_private_network


def _pool(terminal: Terminal, options: AccountOptions, on_event: Observer | None) -> FluxPool:
    assert options.accounts is not None  # noqa: S101 — the caller has asked
    for name, value in _given(options).items():
        if value is not None:
            raise ConfigError(f"--accounts and {name}: say it in the file, for each account")
    file = AccountsFile.read(options.accounts)
    accounts = file.accounts(terminal.say, allow_private_network=options.allow_private_network)
    return FluxPool(accounts, proxy=options.proxy, on_event=on_event)


async def account_rows(
    terminal: Terminal, options: AccountOptions, *, last_place: tuple[str, str]
) -> dict[str, dict[str, Any]]:
    """Return what the provider says about each account, by its name ("" = the only one), as JSON
    values: US dollars, null if it does not say it; or `error`, why it was not asked. `last_place`
    is the provider and the origin of the folder's last submission; `submitted_to` is that origin
    if the only account is at another one."""
    name, origin = last_place
    try:
        async with account_session(terminal, options, default=name or None) as flux:
            engines = batch_engine_of(flux).engines
            rows = await asyncio.gather(*(_row(each, origin) for each in engines))
            return {engine.name: row for engine, row in zip(engines, rows, strict=True)}
    except FluxError as error:
        return {"": {"error": with_advice(error)}}


async def _row(engine: Engine, origin: str) -> dict[str, Any]:
    try:
        balance = await engine.account.balance()
    except FluxError as error:
        return {"error": with_advice(error)}
    return balance_row(engine, balance, origin=origin)


def balance_row(engine: Engine, balance: Balance, *, origin: str = "") -> dict[str, Any]:
    """Return one of `account_rows`."""
    is_own = bool(engine.name) or origin in ("", engine.provider.place[1])
    return {
        "provider": engine.provider.name,
        "submitted_to": None if is_own else origin,
        "left": None if balance.left is None else float(balance.left),
        "used": None if balance.used is None else float(balance.used),
        "unlimited": balance.is_unlimited,
    }


def account_line(row: Mapping[str, Any], name: str = "") -> str:
    """Return the line of one of `account_rows`; `name` is that of one of several accounts."""
    which = f"account {name}" if name else "account"
    if "error" in row:
        return f"{which}: not known: {row['error']}"
    parts = []
    if row["left"] is not None:
        parts.append(f"{_dollars(row['left'])} left")
    elif row["unlimited"]:
        parts.append("no limit")
    if row["used"] is not None:
        parts.append(f"{_dollars(row['used'])} used by everybody")
    line = f"{which} at {row['provider']}: {', '.join(parts) or 'no figures'}"
    if (place := row["submitted_to"]) is None:
        return line
    where = "a simulator" if place == "loopback" else place
    return f"{line}; the folder's last submission went to {where}: --base-url asks there"


def _dollars(amount: float) -> str:
    sign = "-" if amount < 0 else ""
    return f"{sign}{dollars(abs(Decimal(str(amount))))}"
