"""The command `bill`: what the journal of a folder says was charged, beside the provider."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .._batch.progress.terminal import Terminal
from .._core.errors import ConfigError, cut
from .._core.text import display
from .advice import in_options
from .event_loop import run_async
from .exit_codes import DONE, FAILED
from .key_files import RunPlace
from .options import AccountOptions, read_storage_options

if TYPE_CHECKING:
    from .. import Bill, FluxPool, FluxSession, PoolBill

_AGO = re.compile(r"([0-9]{1,5})(min|h|d)")
_UNITS = {"min": "minutes", "h": "hours", "d": "days"}


def bill(
    folder: RunPlace,
    /,
    *,
    since: str | None = None,
    settle: bool = False,
    storage_option: tuple[str, ...] = (),
    json: bool = False,
    csv: bool = False,
    account: AccountOptions | None = None,
) -> int:
    """Compare what a folder's journal says was charged with what the provider says.

    The usage log of CometAPI needs the key and the account's access token (COMETAPI_ACCESS_TOKEN).
    Without a log, the balance at the start and the end of each run gives a sum. Asking is free.
    Without key or network the journal's side is printed.

    Exit code 0: no difference, or each has a cause. 3: a part is unexplained, or --settle could not
    read the log.

    Parameters
    ----------
    folder
        Folder of a run that is not active, or the URL of a run into a bucket.
    since
        Leave out submissions before this time: 7d, 24h, 90min, or 2026-11-29 or 2026-11-29T14:30
        (UTC, unless it has a zone).
    settle
        Record refunds: failed and moderated images whose job the log gives back then count as not
        charged. Without it nothing is changed.
    storage_option
        Option of the bucket, as K=V. May be given more than once.
    json
        Print one JSON object; amounts are US dollars as text. With --accounts it has a bill for
        each account.
    csv
        Print one row per model, and for what is in doubt, given up or of earlier attempts; with
        --accounts, for each account.
    """
    terminal = Terminal()

    def start() -> Coroutine[None, None, int]:
        return _print_bill(
            terminal, folder, account or AccountOptions(), since=since, settle=settle,
            storage_options=storage_option, json=json, csv=csv,
        )  # fmt: skip

    return run_async(start, terminal)


async def _print_bill(
    terminal: Terminal,
    run: Path | str,
    options: AccountOptions,
    *,
    since: str | None,
    settle: bool,
    storage_options: tuple[str, ...],
    json: bool,
    csv: bool,
) -> int:
    from attrs import evolve

    from .. import PoolBill
    from .._store.bucket_state import holder_of
    from . import bill_rendering as rendering
    from .account_session import written
    from .rendering import active_line, as_json

    if json and csv:
        raise ConfigError("--json and --csv: give one of them")
    start = None if since is None else since_of(since, datetime.now(UTC))
    bucket = read_storage_options(storage_options)
    found = await _bill(terminal, run, options, start, settle=settle, bucket=bucket)
    bills = found.accounts if isinstance(found, PoolBill) else {"": found}
    bills = {
        name: evolve(each, missing=each.missing and in_options(each.missing))
        for name, each in bills.items()
    }
    found = evolve(found, accounts=bills) if isinstance(found, PoolBill) else bills[""]
    holder = await holder_of(run, bucket)
    if json:
        active = {} if holder is None else {"holder": holder}
        terminal.out(as_json(found.as_json() | active))
    elif csv:
        for line in rendering.csv_lines(bills):
            terminal.out(line)
    remark = terminal.say if json or csv else terminal.out
    for name, each in bills.items():
        if name and not each.rows:  # it made nothing, and was not asked
            remark(display(f"account {name}: {each.missing}"))
            continue
        if name:
            remark(display(f"account {name}:"))
        for line in () if json or csv else rendering.table(each, terminal.columns):
            terminal.out(line)
        for line in rendering.remarks(each, run, written(options)):
            remark(line)
    if isinstance(found, PoolBill):
        for line in rendering.total_lines(found):
            remark(line)
    if holder is not None and not json:
        remark(display(active_line(holder)))
    is_unread = settle and not any(each.source == "usage log" for each in bills.values())
    if is_unread:
        terminal.say("no refund was recorded: the usage log was not read")
    elif settle and not any(each.recorded for each in bills.values()):
        terminal.say("no refund to record")
    return FAILED if found.unexplained or is_unread else DONE


async def _bill(
    terminal: Terminal,
    run: Path | str,
    options: AccountOptions,
    since: datetime | None,
    *,
    settle: bool,
    bucket: dict[str, str],
) -> Bill | PoolBill:
    """Return the bill; only the journal's side, with the reason, if no session can be opened."""
    from attrs import evolve

    from .. import bill as compare
    from .account_session import account_session

    recorded = await compare(None, run, since, options=bucket)
    default = recorded.providers[-1] if recorded.providers else None
    flux: FluxSession | FluxPool
    async with AsyncExitStack() as stack:
        try:
            flux = account_session(terminal, options, default=default)
            await stack.enter_async_context(flux)
        except ConfigError as error:
            if options != AccountOptions():  # what was written is wrong, not what is missing
                raise
            reason = "the jobs were a simulator's, which is asked with --base-url"
            return evolve(recorded, missing=reason if recorded.simulated else str(error))
        if terminal.rewrites:
            terminal.status("asking the provider")  # a long log has many pages
        return await compare(flux, run, since, settle=settle, options=bucket)


def since_of(text: str, now: datetime) -> datetime:
    """Return the time that `--since` names. Raises ConfigError."""
    given = text.strip()
    if (ago := _AGO.fullmatch(given)) is not None:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        raise ConfigError(
            f"--since {cut(text)}: write 7d, 24h, 90min, 2026-11-29 or 2026-11-29T14:30"
        ) from None
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    if found > now:
        raise ConfigError(f"--since {cut(text)}: this time has not come yet")
    return found
