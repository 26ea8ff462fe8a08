"""The commands `status` and `verify`; they need no network and no key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from .. import audit
from .._batch.progress.terminal import Terminal
from .._core.amounts import dollars, spending
from .._core.text import counted, display
from .._store.audit.folder_status import last_place
from ..audit import AccountCounts
from .advice import about_damage, about_quarantine
from .exit_codes import DONE, FAILED
from .options import AccountOptions, read_storage_options
from .rendering import active_line, as_json
from .undecided import KEY_DIGITS, doubt_rows, in_doubt_among, kept_lines, kept_rows

#: findings printed; --json has up to a thousand
_SHOWN = 50
#: images in doubt, and in quarantine, in the JSON of a status; resolve --json has them all
_LISTED = 1_000


# --- status -------------------------------------------------------------------------------------


async def status(
    terminal: Terminal,
    run: Path | str,
    *,
    json: bool,
    storage_options: tuple[str, ...] = (),
    account: AccountOptions | None = None,
) -> int:
    """Print a run in numbers, and with `account` what is left on the account."""
    found = await audit.status(run, options=read_storage_options(storage_options))
    asked: dict[str, dict[str, Any]] = {}
    if account is not None:
        from .account_session import account_line, account_rows  # heavy: needs aiohttp

        place = ("", "")
        if found.provider is not None:  # the record can be read
            place = await asyncio.to_thread(last_place, found.folder)
        asked = await account_rows(terminal, account, last_place=place)
    for line in [as_json(_status_row(found, run, asked))] if json else _status_lines(found):
        terminal.out(display(line))
    for name, row in () if json else asked.items():
        terminal.out(display(account_line(row, name)))
    for line in () if json or found.is_running else _ways_on(found, run):
        terminal.say(line)
    return DONE


def _ways_on(found: audit.Status, run: Path | str) -> Iterator[str]:
    """Yield the next step for images that no run is working on."""
    if found.counts.running:
        yield (
            f"{found.counts.running} accepted and not collected: run the same command again to "
            "collect them for free"
        )
    if found.counts.in_doubt:
        yield f"{in_doubt_among(found.doubts)}; to settle them: fluxasync resolve {run}"
    if found.quarantined:
        yield about_quarantine(len(found.quarantined), run)


def _status_row(found: audit.Status, run: Path | str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return a status as JSON values, with what was `asked` about each account."""
    counts = found.counts
    models = {
        name: {
            "images": share.images,
            "spent": float(share.spent),
            "perhaps": float(share.possible_cost),
            "in_doubt": float(share.in_doubt),
        }
        for name, share in found.by_model.items()
    }
    return {
        "folder": str(run),
        **({"output": found.output} if found.output else {}),
        "running": found.is_running,
        "holder": found.holder,
        "counted_at": found.counted_at,
        "simulated": found.simulated,
        "done": counts.done,
        "still_running": counts.running,
        "in_doubt": counts.in_doubt,
        "failed": counts.failed,
        "to_submit_again": counts.again,
        "exported": found.exported,
        "cost": {
            "spent": float(counts.spent),
            "perhaps": float(counts.possible_cost),
            "in_doubt": float(counts.in_doubt_price),
        },
        "models": models,
        **({"accounts": _account_rows(found.accounts)} if found.accounts else {}),
        "since": found.since and found.since.isoformat(),
        "until": found.until and found.until.isoformat(),
        "doubts": doubt_rows(found.doubts[:_LISTED]),
        "quarantined": kept_rows(found.quarantined[:_LISTED]),
        **({"account": asked[""]} if "" in asked else {"balances": asked} if asked else {}),
    }


def _status_lines(found: audit.Status) -> Iterator[str]:
    counts, simulated = found.counts, bool(found.simulated)
    again = f", to submit again {counts.again}" if counts.again else ""
    # a run that is active has submissions under way, which its record does not tell from doubts
    doubts = "being submitted or in doubt" if found.is_running else "in doubt"
    yield f"{counts.described(doubts=doubts)}{again}"
    if found.output:
        yield f"images at {found.output}"
    yield spending(
        counts.spent,
        perhaps=counts.possible_cost,
        in_doubt=counts.in_doubt_price,
        simulated=simulated,
        doubts=doubts,
    )
    yield from _by_model(found, simulated=simulated)
    yield from _by_account(found.accounts, simulated=simulated)
    if found.exported:
        yield f"{found.exported:,} only in exports: their files were deleted"
    if found.quarantined:
        cost = sum((entry.cost or Decimal(0) for entry in found.quarantined), Decimal(0))
        shown = "" if simulated else f" ({dollars(cost)})"
        yield f"{len(found.quarantined)} in quarantine{shown}"
        yield from kept_lines(found.quarantined[:_SHOWN])
    if found.since is not None:
        until = f", last image {_minute(found.until)}" if found.until else ""
        yield f"first submission {_minute(found.since)}{until}"
    if found.holder is not None:
        yield active_line(found.holder, found.counted_at)


def _account_rows(accounts: Mapping[str, AccountCounts]) -> dict[str, Any]:
    """Return what each of several accounts has, as JSON values."""
    return {
        name: {
            "done": each.done,
            "still_running": each.running,
            "failed": each.failed,
            "in_doubt": each.in_doubt,
            "cost": {"charged": float(each.charged), "in_doubt": float(each.in_doubt_price)},
        }
        for name, each in accounts.items()
    }


def _by_account(accounts: Mapping[str, AccountCounts], *, simulated: bool) -> Iterator[str]:
    """Yield a line for each of several accounts."""
    for name, each in accounts.items():
        parts = (
            f"{each.done} done",
            f"{each.running} running" if each.running else "",
            f"{each.failed} failed" if each.failed else "",
            f"{each.in_doubt} in doubt" if each.in_doubt else "",
            "" if simulated else dollars(each.charged + each.in_doubt_price),
        )
        yield f"  account {name}: {', '.join(filter(None, parts))}"


def _by_model(found: audit.Status, *, simulated: bool) -> Iterator[str]:
    """Yield the cost of each model, and the cost of earlier attempts, known only as a sum."""
    spent, perhaps = found.counts.spent, found.counts.possible_cost
    for name, share in found.by_model.items():
        amounts = spending(share.spent, perhaps=share.possible_cost, in_doubt=share.in_doubt)
        yield f"{name}: {share.images} done{'' if simulated else f', {amounts}'}"
        spent, perhaps = spent - share.spent, perhaps - share.possible_cost
    if found.by_model and (spent or perhaps) and not simulated:
        yield f"earlier attempts of images submitted again: {spending(spent, perhaps=perhaps)}"


def _minute(instant: datetime | None) -> str:
    return "" if instant is None else f"{instant:%Y-%m-%d %H:%M} UTC"


# --- verify -------------------------------------------------------------------------------------


async def verify(
    terminal: Terminal,
    run: Path | str,
    *,
    json: bool,
    deep: bool = False,
    storage_options: tuple[str, ...] = (),
) -> int:
    """Print the differences from the journal; return 3 if there are any."""

    def checking(images: int, total: int) -> None:
        terminal.status(f"{images:,} of {total:,} images checked")

    found = await audit.verify(
        run,
        deep=deep,
        options=read_storage_options(storage_options),
        progress=checking,
    )
    for line in [as_json(_verify_row(found, run))] if json else _verify_lines(found, run):
        terminal.out(display(line))
    if set(found.found) & {"line missing", "line wrong", "unknown file"}:
        terminal.say("the next run in this folder repairs its lists and removes partial files")
    for line in _remedies(found.found, found.output):
        terminal.say(line)
    if found.holder is not None and not json:
        terminal.say(f"{display(active_line(found.holder))}; verify again when it has ended")
    return DONE if found.is_clean else FAILED


def _remedies(found: Mapping[str, int], output: str = "") -> Iterator[str]:
    """Yield the next step for each kind of damaged image."""
    if output:
        yield from _remedies_in_bucket(found, output)
    elif count := found.get("missing", 0) + found.get("truncated", 0):
        yield about_damage(count)
    if count := found.get("export missing", 0):
        yield (
            f"{count} deleted after an export that is gone: restore its shards, or repeat the run "
            "command with --retry exported, which pays again where the job is gone"
        )
    if (count := found.get("changed", 0)) and not output:
        yield (
            f"{count} changed: if you did not change them, move the files away and repeat the run "
            "command with --retry damaged, which fetches them again or pays again where the job is "
            "gone"
        )
    if count := found.get("quarantine missing", 0):
        yield f"{count} missing in quarantine: restore them, or fluxasync resolve FOLDER --discard"
    if count := found.get("quarantine changed", 0):
        yield f"{count} changed in quarantine: look at them before fluxasync resolve --accept"
    if count := found.get("quarantine stray", 0):
        yield f"{count} in quarantine that no image refers to: look at them, then remove them"
    if count := found.get("unreadable", 0):
        yield f"{count} unreadable: check the permissions and the disk, then verify again"
    if count := found.get("outside", 0):
        yield f"{count} outside: the journal was changed; restore it from a backup"


def _remedies_in_bucket(found: Mapping[str, int], output: str) -> Iterator[str]:
    if count := sum(found.get(kind, 0) for kind in ("missing", "truncated", "changed")):
        yield (
            f"{count} not as recorded at {output}: restore them there, from the bucket's versions "
            "or a copy; no run makes them again"
        )


def _verify_row(found: audit.Verification, run: Path | str) -> dict[str, Any]:
    return {
        "folder": str(run),
        **({"output": found.output, "deep": found.is_deep} if found.output else {}),
        **({"holder": found.holder} if found.output else {}),
        "clean": found.is_clean,
        "images": found.images,
        "bytes": found.bytes,
        "exported": found.exported,
        "quarantined": found.quarantined,
        "found": found.found,
        "findings": [
            {"finding": one.kind, "where": one.where, "key": one.key, "details": one.details}
            for one in found.findings
        ],
        "strangers": found.unknown_images,
        "first_strangers": found.first_unknown_images,
    }


def _verify_lines(found: audit.Verification, run: Path | str) -> Iterator[str]:
    for one in found.findings[:_SHOWN]:
        details = f" ({one.details})" if one.details else ""
        yield f"{one.kind}: {one.where}{f' {one.key[:KEY_DIGITS]}' if one.key else ''}{details}"
    total = sum(found.found.values())
    if total > _SHOWN:
        yield f"and {total - _SHOWN:,} more: see --json"
    if found.unknown_images:
        names = ", ".join(found.first_unknown_images[:3])
        more = ", …" if found.unknown_images > 3 else ""
        files = counted(found.unknown_images, "image file")
        yield f"{files} without a record in the journal, left alone: {names}{more}"
    if found.exported:
        yield f"{found.exported:,} only in exports: their files were deleted"
    if found.quarantined:
        yield f"{found.quarantined} in quarantine: fluxasync resolve {run} lists them"
    words = ", ".join(f"{count} {word}" for word, count in found.found.items())
    how = f"{found.bytes:,} bytes" if found.is_deep else "sizes only (--deep reads them)"
    yield f"{found.images:,} images checked, {how}: {words or 'all as recorded'}"
