"""The pool of a run with `--accounts FILE`: of the file's accounts, or of simulated ones; and the
session, or the pool, of a run that is only counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from .._batch.simulated_run import job_log
from .._core.errors import ConfigError
from .._core.models import Secret
from .._core.simulator_process import NOWHERE, simulator_process
from .._engine.account_reader import check_list_of_tasks
from .._engine.pool import FluxPool
from .._engine.pool_account import Account
from .._engine.session import FluxSession, engine_of
from .accounts_file import AccountsFile
from .key_files import TOKEN_FILE, key_from
from .options import RunOptions


def planned_session(options: RunOptions, warn: Callable[[str], None]) -> FluxSession | FluxPool:
    """Return the session of a run that is only counted: it needs no key and is not opened. Raises
    ConfigError for options that the run would refuse."""
    common = options.common
    if options.accounts is not None:
        return planned_pool(options, warn)
    flux = FluxSession(
        common.provider_named,
        base_url=NOWHERE if common.simulate else common.base_url,
        proxy=common.proxy,
        allow_unknown_models=common.allow_unknown_models,
        **options.policies(warn),
    )
    if options.out is not None and options.reconcile == "always" and not common.simulate:
        token = key_from(options.access_token_file, warn, option=TOKEN_FILE)
        check_list_of_tasks(engine_of(flux).provider, None if token is None else Secret(token))
    return flux


def planned_pool(options: RunOptions, warn: Callable[[str], None]) -> FluxPool:
    """Return the pool of a dry run, which needs no key and is not opened. Raises ConfigError."""
    file = _file(options)
    accounts = _accounts(file, options, warn, with_keys=False)
    if options.common.simulate:
        accounts = [account.simulated(NOWHERE) for account in accounts]
    return _pool(file, accounts, options)


@asynccontextmanager
async def open_pool(
    options: RunOptions, warn: Callable[[str], None], **session: Any
) -> AsyncIterator[FluxPool]:
    """Open the pool that the options describe. With `--simulate` each account has a simulator of
    its own, whose limit is the account's slots. Raises ConfigError."""
    file = _file(options)
    if not options.common.simulate:
        accounts = _accounts(file, options, warn, with_keys=True)
        async with _pool(file, accounts, options, **session) as flux:
            yield flux
        return
    names = list(planned_pool(options, warn).accounts)  # refuses what cannot be together
    accounts = _accounts(file, options, warn, with_keys=False)
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(
                simulator_process(job_log=job_log(options.folder, name), limit=account.slots)
            )
            for name, account in zip(names, accounts, strict=True)
        ]
        made = [account.simulated(url) for account, url in zip(accounts, urls, strict=True)]
        pool = _pool(file, made, options, **session)
        yield await stack.enter_async_context(pool)


def _file(options: RunOptions) -> AccountsFile:
    assert options.accounts is not None  # noqa: S101 — the caller has asked
    _check_options(options)
    return AccountsFile.read(options.accounts)


def _accounts(
    file: AccountsFile, options: RunOptions, warn: Callable[[str], None], *, with_keys: bool
) -> list[Account]:
    return file.accounts(
        warn,
        polling_lag=options.polling_lag,
        allow_private_network=options.common.allow_private_network,
        with_keys=with_keys,
    )


def _pool(
    file: AccountsFile, accounts: list[Account], options: RunOptions, **session: Any
) -> FluxPool:
    return FluxPool(
        accounts,
        route=file.route,
        budget=options.max_cost,
        proxy=options.common.proxy,
        allow_unknown_models=options.common.allow_unknown_models,
        **session,
    )


def _check_options(options: RunOptions) -> None:
    """Raise ConfigError for options that say what the file says."""
    common = options.common
    given = {
        "--provider": common.provider,
        "--base-url": common.base_url,
        "--key-file": common.key_file,
        "--access-token-file": options.access_token_file,
        "--in-flight": options.in_flight,
        "--price": options.price or None,
        "--webhook-url": options.webhook.webhook_url,
        "--webhook-listen": options.webhook.webhook_listen,
    }
    for name, value in given.items():
        if value is not None:
            where = "is one account's: leave it out"
            if name in ("--webhook-url", "--webhook-listen"):
                where = "is one account's: in Python, Account(polling=Polling(webhook=…))"
            raise ConfigError(f"--accounts and {name}: {name} {where}, or say it in the file")
    if common.simulate and common.proxy:
        raise ConfigError("--simulate reaches no other machine: leave out --proxy")
