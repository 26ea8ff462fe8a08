"""The command `credits`: what is left on an account, or on each of several."""

from __future__ import annotations

import asyncio
from typing import Any

from .._batch.progress.terminal import Terminal
from .._core.errors import ConfigError
from .._core.text import display
from .._engine.engine import Engine
from .._engine.pool import batch_engine_of
from .._engine.session import FluxSession
from .account_session import account_line, account_session, balance_row
from .exit_codes import DONE, PRECEDENCE
from .findings import CheckResult, bounded
from .options import AccountOptions
from .rendering import as_json


async def show_credits(
    terminal: Terminal, options: AccountOptions, *, simulate: bool = False, json: bool
) -> int:
    """Print the balance of each account; return 0, or the code of the most urgent error."""
    if simulate and options != AccountOptions():
        raise ConfigError("--simulate has an account of its own: leave out the other options")
    session = FluxSession(simulate=True) if simulate else account_session(terminal, options)
    async with session as flux:
        engines = batch_engine_of(flux).engines
        asking = (bounded("balance", _row(each), account=each.name) for each in engines)
        answers = await asyncio.gather(*asking)
    rows = {each.name: answer for each, answer in zip(engines, answers, strict=True)}
    if json:
        shown = {name: _values(row) for name, row in rows.items()}
        terminal.out(as_json(shown.get("", {"accounts": shown})))
    else:
        for name, row in rows.items():
            if isinstance(row, CheckResult):
                which = f"account {name}" if name else "account"
                terminal.say(display(f"fluxasync: {which}: {row.text}; {row.next}"))
            else:
                terminal.out(display(account_line(row, name)))
    codes = [row.code for row in rows.values() if isinstance(row, CheckResult)]
    return min([DONE, *codes], key=PRECEDENCE.index)


async def _row(engine: Engine) -> dict[str, Any]:
    return balance_row(engine, await engine.account.balance())


def _values(row: dict[str, Any] | CheckResult) -> dict[str, Any]:
    """Return the JSON values of an account: those of `status --account`, or the error."""
    if isinstance(row, CheckResult):
        return {"error": row.text, "next": row.next}
    return {name: value for name, value in row.items() if name != "submitted_to"}
