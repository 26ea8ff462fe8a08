"""The commands `status`, `verify` and `resolve`; they need no network and no key.

`resolve` submits nothing: the next run does, within its own checks and caps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import frozen

from .. import audit
from .._batch.progress.terminal import Terminal
from .._core.amounts import dollars, spending
from .._core.config import Budget
from .._core.errors import ConfigError
from .._core.text import counted, display
from .advice import about_damage
from .exit_codes import DONE, FAILED, IN_DOUBT
from .rendering import as_json

#: findings printed; --json has up to a thousand
_SHOWN = 50
#: images in doubt in the JSON of a status; resolve --json has them all
_LISTED = 1_000
#: columns of a prompt in a line
_PROMPT = 60
#: digits of a key that are shown: enough to name one among ten thousand
_KEY = 12


# --- status -------------------------------------------------------------------------------------


async def status(terminal: Terminal, folder: Path, *, json: bool) -> int:
    """Print a folder in numbers."""
    found = await audit.status(folder)
    for line in [as_json(_status_row(found))] if json else _status_lines(found):
        terminal.out(display(line))
    for line in () if json or found.is_running else _ways_on(found):
        terminal.say(line)
    return DONE


def _ways_on(found: audit.Status) -> Iterator[str]:
    """Yield the next step for images that no run is working on."""
    if found.counts.running:
        yield (
            f"{found.counts.running} accepted and not collected: run the same command again to "
            "collect them for free"
        )
    if found.counts.in_doubt:
        yield f"{found.counts.in_doubt} in doubt; to settle them: fluxasync resolve {found.folder}"


def _status_row(found: audit.Status) -> dict[str, Any]:
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
        "folder": str(found.folder),
        "running": found.is_running,
        "holder": found.holder,
        "counted_at": found.counted_at,
        "simulated": found.simulated,
        "done": counts.done,
        "still_running": counts.running,
        "in_doubt": counts.in_doubt,
        "failed": counts.failed,
        "to_submit_again": counts.again,
        "cost": {
            "spent": float(counts.spent),
            "perhaps": float(counts.possible_cost),
            "in_doubt": float(counts.in_doubt_price),
        },
        "models": models,
        "since": found.since and found.since.isoformat(),
        "until": found.until and found.until.isoformat(),
        "doubts": _doubt_rows(found.doubts[:_LISTED]),
    }


def _status_lines(found: audit.Status) -> Iterator[str]:
    counts, simulated = found.counts, bool(found.simulated)
    again = f", to submit again {counts.again}" if counts.again else ""
    yield f"{counts}{again}"
    yield spending(
        counts.spent,
        perhaps=counts.possible_cost,
        in_doubt=counts.in_doubt_price,
        simulated=simulated,
    )
    yield from _by_model(found, simulated=simulated)
    if found.since is not None:
        until = f", last image {_minute(found.until)}" if found.until else ""
        yield f"first submission {_minute(found.since)}{until}"
    if found.holder is not None:
        holder = found.holder
        counted = f"counted at {found.counted_at}" if found.counted_at else "not counted yet"
        yield (
            f"a run is going on: process {holder.get('pid')} on {holder.get('host')} since "
            f"{holder.get('since')}; {counted}"
        )


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


async def verify(terminal: Terminal, folder: Path, *, json: bool) -> int:
    """Print the differences from the journal; return 3 if there are any."""

    def checking(images: int, total: int) -> None:
        terminal.status(f"{images:,} of {total:,} images checked")

    found = await audit.verify(folder, progress=checking)
    for line in [as_json(_verify_row(found))] if json else _verify_lines(found):
        terminal.out(display(line))
    if set(found.found) & {"line missing", "line wrong", "unknown file"}:
        terminal.say("the next run in this folder repairs its lists and removes partial files")
    for line in _remedies(found.found):
        terminal.say(line)
    return DONE if found.is_clean else FAILED


def _remedies(found: Mapping[str, int]) -> Iterator[str]:
    """Yield the next step for each kind of damaged image."""
    if count := found.get("missing", 0) + found.get("truncated", 0):
        yield about_damage(count)
    if count := found.get("changed", 0):
        yield (
            f"{count} changed: if you did not change them, move the files away and repeat the run "
            "command with --retry damaged, which fetches them again or pays again where the job is "
            "gone"
        )
    if count := found.get("unreadable", 0):
        yield f"{count} unreadable: check the permissions and the disk, then verify again"
    if count := found.get("outside", 0):
        yield f"{count} outside: the journal was changed; restore it from a backup"


def _verify_row(found: audit.Verification) -> dict[str, Any]:
    return {
        "folder": str(found.folder),
        "clean": found.is_clean,
        "images": found.images,
        "bytes": found.bytes,
        "found": found.found,
        "findings": [
            {"finding": one.kind, "where": one.where, "key": one.key, "details": one.details}
            for one in found.findings
        ],
        "strangers": found.unknown_images,
        "first_strangers": found.first_unknown_images,
    }


def _verify_lines(found: audit.Verification) -> Iterator[str]:
    for one in found.findings[:_SHOWN]:
        details = f" ({one.details})" if one.details else ""
        yield f"{one.kind}: {one.where}{f' {one.key[:_KEY]}' if one.key else ''}{details}"
    total = sum(found.found.values())
    if total > _SHOWN:
        yield f"and {total - _SHOWN:,} more: see --json"
    if found.unknown_images:
        names = ", ".join(found.first_unknown_images[:3])
        more = ", …" if found.unknown_images > 3 else ""
        files = counted(found.unknown_images, "image file")
        yield f"{files} without a record in the journal, left alone: {names}{more}"
    words = ", ".join(f"{count} {word}" for word, count in found.found.items())
    yield f"{found.images:,} images checked, {found.bytes:,} bytes: {words or 'all as recorded'}"


# --- resolve ------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Decision:
    """The decision given to `resolve`; without one, it lists the images in doubt."""

    folder: Path
    keys: tuple[str, ...] = ()
    drop: bool = False
    resubmit: bool = False
    max_cost: str | None = None
    job_ids: tuple[str, ...] = ()  #: as KEY=ID

    def checked(self) -> Decision:
        """Return the decision. Raises ConfigError for options that exclude each other."""
        if sum((self.drop, self.resubmit, bool(self.job_ids))) > 1:
            raise ConfigError("decide one thing at a time: --drop, --resubmit or --job-id")
        if self.keys and not (self.drop or self.resubmit):
            raise ConfigError("say what becomes of these: --drop or --resubmit --max-cost X")
        if self.resubmit and self.max_cost is None:
            raise ConfigError("--resubmit pays once more: say up to how much with --max-cost X")
        if self.max_cost is not None and not self.resubmit:
            raise ConfigError("--max-cost belongs to --resubmit")
        return self


async def resolve(terminal: Terminal, decision: Decision, *, json: bool) -> int:
    """Apply the decision, then print the images still in doubt; return 4 if there are any."""
    settled, line = await _settled(decision.checked())
    if line:
        terminal.say(line)
    left = await audit.in_doubt(decision.folder)
    if json:
        row = {"settled": [doubt.key for doubt in settled], "in_doubt": _doubt_rows(left)}
        terminal.out(as_json(row))
    else:
        for line in _doubt_lines(left):
            terminal.out(display(line))
    if left:
        terminal.say(_advice(left))
    elif not settled:
        terminal.say("nothing is in doubt")
    return IN_DOUBT if left else DONE


async def _settled(decision: Decision) -> tuple[list[audit.InDoubtEntry], str]:
    """Apply the decision; return the images, and a line about them."""
    folder, keys = decision.folder, decision.keys
    if decision.drop:
        settled = await audit.drop(folder, keys)
        return settled, f"{_sum(settled)} given up: they may have been charged"
    if decision.resubmit:
        cap = Budget.of(decision.max_cost).max_cost or Decimal(0)
        settled = await audit.resubmit(folder, keys, max_cost=cap)
        return settled, f"{_sum(settled)} to do again: run the same command again to submit them"
    if decision.job_ids:
        settled = await audit.give_jobs(folder, dict(map(_pair, decision.job_ids)))
        return settled, f"{_sum(settled)} given a job: run the same command again to collect them"
    return [], ""


def _pair(text: str) -> tuple[str, str]:
    key, _, job_id = (part.strip() for part in text.partition("="))
    if not (key and job_id):
        raise ConfigError(f"--job-id {text}: write KEY=ID")
    return key, job_id


def _doubt_rows(left: Iterable[audit.InDoubtEntry]) -> list[dict[str, Any]]:
    return [
        {
            "key": doubt.key,
            "at": doubt.begun_at.isoformat(),
            "price": None if doubt.price is None else float(doubt.price),
            "model": doubt.model,
            "prompt": doubt.prompt,
            "message": doubt.message,
            "candidate_job_id": doubt.candidate,
            "evidence": doubt.evidence,
        }
        for doubt in left
    ]


def _doubt_lines(left: Iterable[audit.InDoubtEntry]) -> Iterator[str]:
    for doubt in left:
        price = "price unknown" if doubt.price is None else dollars(doubt.price)
        at, prompt = f"{doubt.begun_at:%Y-%m-%d %H:%M:%S} UTC", display(doubt.prompt, _PROMPT)
        yield f"{doubt.key[:_KEY]}  {at}  {price}  {doubt.model}  {prompt}"


def _sum(some: Sequence[audit.InDoubtEntry]) -> str:
    prices = [doubt.price for doubt in some if doubt.price is not None]
    unknown = len(some) - len(prices)
    text = dollars(sum(prices, Decimal(0)))
    return f"{len(some)} ({text}{f' and {unknown} of unknown price' if unknown else ''})"


def _advice(left: Sequence[audit.InDoubtEntry]) -> str:
    return (
        f"{_sum(left)} in doubt: no answer arrived, so they may have been charged. Settle "
        "them with --job-id KEY=ID if the provider's dashboard shows their jobs, with --resubmit "
        "--max-cost X to pay again, or with --drop"
    )
