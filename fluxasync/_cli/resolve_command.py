"""The command `resolve`: a person's decisions about images in doubt and in quarantine.

It submits nothing: the next run does, within its own checks and caps. Only `--reconcile` needs a
network and a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from attrs import frozen

from .. import audit
from .._batch.progress.terminal import Terminal
from .._core.amounts import dollars
from .._core.config import Budget
from .._core.errors import ConfigError, cut
from .._core.text import display
from .._store.audit.folder_status import last_place
from .._store.bucket_state import folder_of
from .advice import ABOUT_CANDIDATES, ABOUT_UNLISTED, about_quarantine
from .exit_codes import DONE, IN_DOUBT
from .options import AccountOptions, read_storage_options
from .rendering import as_json
from .undecided import KEY_DIGITS, doubt_lines, doubt_rows, kept_lines, kept_rows


@frozen(kw_only=True)
class Decision:
    """The decision given to `resolve`; without one, it lists what waits for one."""

    run: Path | str  #: its folder, or its URL
    keys: tuple[str, ...] = ()
    drop: bool = False
    resubmit: bool = False
    resubmit_unlisted: bool = False
    max_cost: str | None = None
    job_ids: tuple[str, ...] = ()  #: as KEY=ID
    accept: bool = False
    discard: bool = False
    reconcile: bool = False
    account: AccountOptions | None = None  #: for `reconcile`
    storage_options: tuple[str, ...] = ()  #: of a bucket, as K=V

    @property
    def options(self) -> dict[str, str]:
        """The bucket's options. Raises ConfigError for texts that are none."""
        return read_storage_options(self.storage_options)

    def checked(self) -> Decision:
        """Return the decision. Raises ConfigError for options that exclude each other."""
        resubmits = self.resubmit or self.resubmit_unlisted
        both = (self.resubmit, self.resubmit_unlisted)
        about_all = (self.drop, *both, self.accept, self.discard)
        if sum((*about_all, self.reconcile, bool(self.job_ids))) > 1:
            raise ConfigError(
                "decide one thing at a time: --reconcile, --drop, --resubmit or --job-id for "
                "images in doubt, --accept or --discard for images in quarantine"
            )
        if self.keys and self.reconcile:
            raise ConfigError("--reconcile is about all images in doubt: leave out the keys")
        if self.account is not None and not self.reconcile:
            raise ConfigError(
                "--accounts, --provider, its key and its network belong to --reconcile"
            )
        if self.keys and not any(about_all):
            raise ConfigError(
                "say what becomes of these: --drop or --resubmit --max-cost X if they are in "
                "doubt, --accept or --discard if they are in quarantine"
            )
        if resubmits and self.max_cost is None:
            option = "--resubmit" if self.resubmit else "--resubmit-unlisted"
            raise ConfigError(f"{option} pays once more: say up to how much with --max-cost X")
        if self.max_cost is not None and not resubmits:
            raise ConfigError("--max-cost belongs to --resubmit")
        return self


async def resolve(terminal: Terminal, decision: Decision, *, json: bool) -> int:
    """Apply the decision, then print the images that still wait for one; return 4 if any of them
    is in doubt."""
    settled, line = await _settled(decision.checked())
    if line:
        terminal.say(line)
    left = await audit.in_doubt(decision.run, options=decision.options)
    kept = await audit.quarantined(decision.run, options=decision.options)
    if json:
        row = {"settled": settled, "in_doubt": doubt_rows(left), "quarantined": kept_rows(kept)}
        terminal.out(as_json(row))
    else:
        for line in (*doubt_lines(left), *kept_lines(kept)):
            terminal.out(display(line))
    for line in _ways_on(left, decision.run):
        terminal.say(line)
    if kept:
        terminal.say(about_quarantine(len(kept), decision.run))
    if not (left or kept or settled):
        terminal.say("nothing is in doubt or in quarantine")
    return IN_DOUBT if left else DONE


async def _settled(decision: Decision) -> tuple[list[str], str]:
    """Apply the decision; return the keys of the images, and a line about them."""
    if decision.accept:
        return await _accepted(decision)
    if decision.discard:
        kept = await audit.discard(decision.run, decision.keys, options=decision.options)
        line = "deleted: the same run command with --retry discarded makes them again, and pays"
        return _keys(kept), f"{_sum([entry.cost for entry in kept])} {line}"
    settled, line = await _doubts_settled(decision)
    if line and not settled:
        known = "known as not listed" if decision.resubmit_unlisted else "in doubt"
        return [], f"no image is {known}: nothing is changed"
    return _keys(settled), line and f"{_sum([doubt.price for doubt in settled])} {line}"


async def _accepted(decision: Decision) -> tuple[list[str], str]:
    run, keys, options = decision.run, decision.keys, decision.options
    before = {entry.key: entry for entry in await audit.quarantined(run, options=options)}
    kept = await audit.accept(run, keys, options=options)
    parts = [f"{len(kept)} accepted: {_listed(kept)}"] if kept else []
    if changed := [one.key for one in kept if one.sha256 != before[one.key].sha256]:
        first = changed[0][:KEY_DIGITS]
        parts.append(f"{len(changed)} of them changed since the run recorded it ({first})")
    if len(kept) < len(before) and (not keys or keys == ("all",)):
        parts.append(
            f"{len(before) - len(kept)} of {len(before)} are no whole images as recorded, or are "
            "another request's: look at them; accept one by its KEY, or --discard"
        )
    return _keys(kept), "\n".join(parts)


def _keys(images: Iterable[audit.InDoubtEntry | audit.QuarantinedEntry]) -> list[str]:
    return [image.key for image in images]


def _listed(kept: Sequence[audit.QuarantinedEntry]) -> str:
    first, more = kept[0].place, len(kept) - 1
    return f"{first} and {more} more" if more else first


async def _doubts_settled(decision: Decision) -> tuple[list[audit.InDoubtEntry], str]:
    run, keys, options = decision.run, decision.keys, decision.options
    if decision.drop:
        settled = await audit.drop(run, keys, options=options)
        return settled, "given up: they may have been charged"
    if decision.resubmit or decision.resubmit_unlisted:
        cap = Budget.of(decision.max_cost).max_cost or Decimal(0)
        unlisted = not decision.resubmit
        settled = await audit.resubmit(run, keys, max_cost=cap, unlisted=unlisted, options=options)
        return settled, "to do again: run the same command again to submit them"
    if decision.job_ids:
        settled = await audit.give_jobs(run, dict(map(_pair, decision.job_ids)), options=options)
        return settled, "given a job: run the same command again to collect them"
    return [], ""


def _pair(text: str) -> tuple[str, str]:
    key, _, job_id = (part.strip() for part in text.partition("="))
    if not (key and job_id):
        raise ConfigError(f"--job-id {cut(text)}: write KEY=ID")
    return key, job_id


def _sum(costs: Sequence[Decimal | None]) -> str:
    prices = [cost for cost in costs if cost is not None]
    unknown = len(costs) - len(prices)
    text = dollars(sum(prices, Decimal(0)))
    return f"{len(costs)} ({text}{f' and {unknown} of unknown price' if unknown else ''})"


def _ways_on(left: Sequence[audit.InDoubtEntry], run: Path | str) -> Iterator[str]:
    """Yield the next steps for the images in doubt, one for each kind."""
    undecided = [doubt for doubt in left if not doubt.is_unlisted]
    named = sum(bool(doubt.candidates) for doubt in undecided)
    if named:
        yield f"{named} with candidates: {ABOUT_CANDIDATES}"
    if len(undecided) < len(left):
        unlisted = [doubt.price for doubt in left if doubt.is_unlisted]
        yield f"{_sum(unlisted)} in doubt and not listed: {ABOUT_UNLISTED}"
    if undecided:
        named = any(doubt.account is not None for doubt in undecided)
        has_ids = any(doubt.candidate is not None for doubt in undecided)
        search = _ACCOUNTS.format(run) if named else _search(run, has_ids=has_ids)
        yield (
            f"{_sum([doubt.price for doubt in undecided])} in doubt: no answer arrived, so they "
            f"may have been charged. {search} settle them with --job-id "
            "KEY=ID, with --resubmit --max-cost X to pay again, or with --drop"
        )


#: how to look for the jobs of several accounts
_ACCOUNTS = (
    "fluxasync resolve {} --reconcile --accounts FILE looks for their jobs in the accounts, with "
    "their keys and access tokens. Or"
)


def _search(run: Path | str, *, has_ids: bool) -> str:
    """Return how to look for the jobs at the provider of the run's last submission; `has_ids`:
    broken answers have job ids, which can be proved without a list."""
    from .._wire.providers import PROVIDERS  # only where something is in doubt

    name, origin = last_place(folder_of(run))
    known = PROVIDERS.get(name)
    has_list = known is None or known.tasks_path is not None
    if not (has_list or has_ids):
        return f"{name} has no list of tasks: look at its dashboard, then"
    options = f" --provider {name}" if known else ""
    if known is None or origin != "{}://{}:{}".format(*known.origin):
        options += " --base-url URL"
    looks = (
        "looks for their jobs in the account, with its key and access token"
        if has_list
        else "polls the job ids in their broken answers"
    )
    return f"fluxasync resolve {run} --reconcile{options} {looks}. Or"
