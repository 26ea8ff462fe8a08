"""The command `resolve --reconcile`: finds the jobs of images in doubt in the account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .. import Reconciliation, audit, reconcile
from .._batch.account_search import LISTED_LATE
from .._batch.progress.counts import wait_for_doubts
from .._batch.progress.terminal import Terminal
from .._batch.settlement import PATIENCE
from .._core.errors import (
    APIError,
    AuthenticationError,
    CreditError,
    Redirected,
    TransportError,
)
from .._core.events import DoubtsSought
from .._core.models import Failed, Saved
from .._core.text import display
from .._engine.charge_evidence import LATER
from .account_session import account_session
from .advice import ABOUT_CANDIDATES, ABOUT_UNLISTED
from .exit_codes import DONE, FAILED, IN_DOUBT, OUTAGE
from .options import AccountOptions
from .rendering import as_json, failure_line
from .undecided import doubt_lines, doubt_rows, in_doubt_among


async def reconcile_folder(
    terminal: Terminal,
    run: Path | str,
    options: AccountOptions,
    *,
    json: bool,
    storage_options: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> int:
    """Settle what the account shows, collect the images, and print what was found; return 4 if
    images are still in doubt, 3 if a job ended without an image, and 9 if the account gave no
    answer."""

    def show(event: object) -> None:
        if isinstance(event, DoubtsSought) and terminal.rewrites:
            terminal.status(wait_for_doubts(event))

    async with account_session(terminal, options, on_event=show) as flux:
        try:
            found = await reconcile(flux, run, patience=patience, options=storage_options)
        except (AuthenticationError, CreditError, Redirected):
            raise
        except (APIError, TransportError) as error:
            terminal.say(f"fluxasync: the account could not be asked: {error}; repeat this command")
            return OUTAGE
    left = await audit.in_doubt(run, options=storage_options)
    if json:
        terminal.out(as_json(_row(found, left)))
    else:
        for line in _lines(found, left):
            terminal.out(display(line))
    for line in _ways_on(found, left):
        terminal.say(line)
    terminal.say(_summary(found, left))
    if left:
        return IN_DOUBT
    return FAILED if any(isinstance(each, Failed) for each in found.outcomes) else DONE


def _lines(found: Reconciliation, left: list[audit.InDoubtEntry]) -> Iterator[str]:
    for outcome in found.outcomes:
        yield outcome.place if isinstance(outcome, Saved) else failure_line(outcome)
    yield from doubt_lines(left, reasons=found.reasons)


def _ways_on(found: Reconciliation, left: list[audit.InDoubtEntry]) -> Iterator[str]:
    """Yield the next step for each kind of image that is left."""
    undecided = [entry for entry in left if not entry.is_unlisted]
    named = [entry for entry in undecided if entry.candidates]
    charged = [entry for entry in undecided if not entry.candidates and entry.key in found.reasons]
    without = [entry for entry in undecided if entry not in named and entry not in charged]
    if named:
        yield f"with candidates: {ABOUT_CANDIDATES}"
    if charged:
        yield (
            "no task, but perhaps a charge: fluxasync bill compares the charges; look at the "
            "provider's dashboard before --resubmit"
        )
    if without:
        yield f"without a candidate: {_without(found, without, datetime.now(UTC))}"
    if len(undecided) < len(left):
        yield f"not listed: {ABOUT_UNLISTED}"


def _without(found: Reconciliation, without: Sequence[audit.InDoubtEntry], now: datetime) -> str:
    """Return what to do about images for which the list shows no job."""
    latest = max(entry.begun_at for entry in without)
    if now - latest < timedelta(seconds=LISTED_LATE):
        return "the list may be late: look again in a minute, with this command"
    if found.lists_own is False:
        return (
            "the list lacks this folder's other jobs of that time too, so it proves nothing: is "
            "the access token that of the account which made them, and does this provider list "
            "tasks?"
        )
    if now - latest < LATER:
        due = latest + LATER + timedelta(minutes=1)  # its seconds are cut off
        return (
            f"repeat this command at {due:%H:%M} UTC or later: ten minutes after the submission "
            "the account can show that it was not charged"
        )
    return (
        "the list was not read whole, or shows no other job of this folder from the same minute, "
        "so it does not prove that they were not charged: look at the provider's dashboard, then "
        "decide with --job-id KEY=ID, --resubmit --max-cost X or --drop"
    )


def _summary(found: Reconciliation, left: list[audit.InDoubtEntry]) -> str:
    saved = sum(isinstance(each, Saved) for each in found.outcomes)
    return f"{len(found.adopted)} adopted, {saved} collected, {in_doubt_among(left)}"


def _row(found: Reconciliation, left: list[audit.InDoubtEntry]) -> Mapping[str, Any]:
    """Return what was found as JSON values."""
    failed = [each for each in found.outcomes if not isinstance(each, Saved)]
    return {
        "adopted": dict(found.adopted),
        "collected": [each.place for each in found.outcomes if isinstance(each, Saved)],
        "failed": [failure_line(each) for each in failed],
        "not_listed": [entry.key for entry in left if entry.is_unlisted],
        "in_doubt": doubt_rows(left, reasons=found.reasons),
    }
