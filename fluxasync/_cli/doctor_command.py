"""The command `doctor`: whether a run can begin, without beginning it. It spends nothing.

It takes the line of the run, so that what it tries is what the run will use. Its checks run at the
same time, each within a limit of time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from attrs import evolve

from .._batch.progress.terminal import Terminal
from .._core.account import Balance
from .._core.config import Polling, Timeouts
from .._core.errors import ConfigError
from .._core.text import counted, display
from .._engine.engine import Engine
from .._engine.pool import FluxPool, batch_engine_of
from .._engine.session import FluxSession
from .._wire.credentials import Credentials, resolve_provider
from .._wire.providers import provider_of
from .account_checks import NO_KEY_NEEDED, account_findings, balance_finding
from .exit_codes import DONE, PRECEDENCE
from .findings import PATIENCE, CheckResult, bounded, of_error
from .key_files import TOKEN_FILE, key_from
from .list_checks import list_finding
from .machine_checks import limit_finding, output_findings, version_finding
from .options import RunOptions
from .rendering import as_json

#: stands for a key that is missing; no call of `doctor` has it
_NO_KEY = "none"


async def doctor(
    terminal: Terminal, sources: Sequence[str], options: RunOptions, *, patience: float = PATIENCE
) -> tuple[int, bool]:
    """Print what each check found and the next step. Return the exit code that the run would have,
    and whether a check did not end: a thread of it may be held by a disk or a name server."""
    if terminal.rewrites:
        terminal.status("checking…")
    asking = asyncio.create_task(_account_findings(terminal, options, patience))
    listed, facts = await list_finding(sources, options, terminal.say, patience=patience)
    output = await output_findings(options, facts.images, facts.image_bytes, patience=patience)
    asked, balances = await asking
    found = [version_finding(), *asked, listed]
    if balances:
        found.append(balance_finding(balances, None if options.common.simulate else facts.cost))
    found += [*output, limit_finding(facts.slots, facts.places)]
    code = min((each.code for each in found), key=PRECEDENCE.index)
    _show(terminal, found, code, json=options.common.json)
    return code, any("timed_out" in each.values for each in found)


async def _account_findings(
    terminal: Terminal, options: RunOptions, patience: float
) -> tuple[list[CheckResult], dict[str, Balance | None]]:
    """Return what the accounts say, and the balance of each whose key is accepted."""
    found: list[CheckResult] = []
    async with AsyncExitStack() as stack:
        opening = stack.enter_async_context(_accounts(terminal, options, found, patience))
        accounts = await bounded("address", opening, seconds=patience)
        if isinstance(accounts, CheckResult):
            return [*found, accounts], {}
        asking = [
            account_findings(engine, key_from=source, patience=patience)
            for engine, source in accounts
        ]
        balances: dict[str, Balance | None] = {}
        for (engine, _), (findings, balance) in zip(
            accounts, await asyncio.gather(*asking), strict=True
        ):
            found += findings
            if not any(each.status == "failed" for each in findings):
                balances[engine.name] = balance
    # without every key there is no sum to compare with a price
    is_whole = len(balances) == len(accounts) and not any(each.code for each in found)
    return found, balances if is_whole else {}


@asynccontextmanager
async def _accounts(
    terminal: Terminal, options: RunOptions, found: list[CheckResult], patience: float
) -> AsyncIterator[list[tuple[Engine, str | None]]]:
    """Open the accounts of a run; yield each with where its key is from, None = it has none. Adds
    what is wrong with a key to `found`."""
    async with AsyncExitStack() as stack:
        if options.common.simulate:
            flux = await stack.enter_async_context(FluxSession(simulate=True))
            yield [(each, "the simulator's key") for each in batch_engine_of(flux).engines]
            return
        if options.accounts is not None:
            pool = await stack.enter_async_context(_pool(terminal, options, patience))
            yield [(each, "the key") for each in batch_engine_of(pool).engines]
            return
        source, session = _session(terminal, options, found, patience)
        flux = await stack.enter_async_context(session)
        yield [(each, source) for each in batch_engine_of(flux).engines]


def _pool(terminal: Terminal, options: RunOptions, patience: float) -> FluxPool:
    from .accounts_file import AccountsFile

    assert options.accounts is not None  # noqa: S101 — the caller has asked
    accounts = AccountsFile.read(options.accounts).accounts(
        terminal.say, allow_private_network=options.common.allow_private_network
    )
    accounts = [evolve(account, polling=Polling(remember=False)) for account in accounts]
    return FluxPool(accounts, timeouts=_timeouts(patience), proxy=options.common.proxy)


def _session(
    terminal: Terminal, options: RunOptions, found: list[CheckResult], patience: float
) -> tuple[str | None, FluxSession]:
    """Return where the key is from, and a session with it; without a key, one that asks only for
    the address. Raises ConfigError for an address that cannot be used."""
    common = options.common
    provider = provider_of(common.provider_named, base_url=common.base_url, environ=os.environ)
    source: str | None
    try:
        key = key_from(common.key_file, terminal.say)
        token = key_from(options.access_token_file, terminal.say, option=TOKEN_FILE)
        _, secret = resolve_provider(
            common.provider_named, api_key=key, base_url=common.base_url, environ=os.environ
        )
        source = NO_KEY_NEEDED
        if secret is not None:
            source = f"the key in {common.key_file}" if key is not None else provider.key_variable
    except ConfigError as error:
        found.append(of_error("key", error))
        key, token, source = _NO_KEY, None, None
    session = FluxSession(
        common.provider_named,
        api_key=Credentials(api_key=key, access_token=token),
        base_url=common.base_url,
        proxy=common.proxy,
        timeouts=_timeouts(patience),
        polling=Polling(remember=False),
    )
    return source, session


def _timeouts(patience: float) -> Timeouts:
    """Return timeouts of calls, which end before their check does, so that the reason is named."""
    return Timeouts(connect=patience / 3, poll=patience / 2)


def _show(terminal: Terminal, found: Iterable[CheckResult], code: int, *, json: bool) -> None:
    rows = list(found)
    problems = [each for each in rows if each.status == "failed"]
    if json:
        checks = [each.row() for each in rows]
        terminal.out(as_json({"ok": not problems, "exit_code": code, "checks": checks}))
        return
    width = max(len(_name(each)) for each in rows)
    for each in rows:
        terminal.out(f"{each.status:8} {_name(each):{width}}  {display(each.text)}")
        if each.next:
            terminal.out(f"{'':8} {'':{width}}  → {display(each.next)}")
    if problems:
        terminal.say(f"{counted(len(problems), 'problem')}: the run would not begin well")
    else:
        assert code == DONE  # noqa: S101 — only a failed check has another code
        terminal.say("nothing stands in the way of the run")


def _name(finding: CheckResult) -> str:
    return f"{finding.check} {finding.account}" if finding.account else finding.check
