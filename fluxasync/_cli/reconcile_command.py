"""The command `resolve --reconcile`: finds the jobs of images in doubt in the account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import Reconciliation, audit, reconcile
from .._batch.progress.terminal import Terminal
from .._core.models import Failed, Saved
from .._core.text import display
from .._engine.session import FluxSession
from .._wire.credentials import Credentials
from .exit_codes import DONE, FAILED, IN_DOUBT
from .options import AccountOptions, key_from
from .rendering import as_json, failure_line
from .undecided import doubt_lines, doubt_rows


async def reconcile_folder(
    terminal: Terminal, folder: Path, options: AccountOptions, *, json: bool
) -> int:
    """Settle what the account shows, collect the images, and print what was found; return 4 if
    images are still in doubt, and 3 if a job ended without an image."""
    session = FluxSession(
        options.provider_named,
        api_key=Credentials(
            api_key=key_from(options.key_file, terminal.say),
            access_token=key_from(
                options.access_token_file, terminal.say, option="--access-token-file"
            ),
        ),
        base_url=options.base_url,
        proxy=options.proxy,
    )
    async with session as flux:
        found = await reconcile(flux, folder)
    left = await audit.in_doubt(folder)
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
        yield str(outcome.path) if isinstance(outcome, Saved) else failure_line(outcome)
    yield from doubt_lines(left, candidates=found.in_doubt)


def _ways_on(found: Reconciliation, left: list[audit.InDoubtEntry]) -> Iterator[str]:
    """Yield the next step for each kind of image that is left."""
    undecided = [entry for entry in left if not entry.is_unlisted]
    if any(found.in_doubt.get(entry.key) for entry in undecided):
        yield "with candidates: look at them, then decide with --job-id KEY=ID"
    if any(not found.in_doubt.get(entry.key) for entry in undecided):
        yield (
            "without a candidate: repeat this command; ten minutes after the submission the list "
            "can show that it was not charged"
        )
    if len(undecided) < len(left):
        yield "not listed: not charged; --resubmit-unlisted --max-cost X submits them again"


def _summary(found: Reconciliation, left: list[audit.InDoubtEntry]) -> str:
    saved = sum(isinstance(each, Saved) for each in found.outcomes)
    unlisted = sum(entry.is_unlisted for entry in left)
    candidates = sum(bool(found.in_doubt.get(entry.key)) for entry in left)
    parts = [
        f"adopted {len(found.adopted)}",
        f"collected {saved}",
        f"not listed {unlisted}",
        f"still in doubt {len(left) - unlisted}",
    ]
    return ", ".join(parts) + (f" ({candidates} with candidates)" if candidates else "")


def _row(found: Reconciliation, left: list[audit.InDoubtEntry]) -> Mapping[str, Any]:
    """Return what was found as JSON values."""
    failed = [each for each in found.outcomes if not isinstance(each, Saved)]
    return {
        "adopted": dict(found.adopted),
        "collected": [str(each.path) for each in found.outcomes if isinstance(each, Saved)],
        "failed": [failure_line(each) for each in failed],
        "not_listed": [entry.key for entry in left if entry.is_unlisted],
        "in_doubt": doubt_rows(left, candidates=found.in_doubt),
    }
