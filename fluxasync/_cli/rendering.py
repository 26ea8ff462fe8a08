"""Outcomes, plans and totals as text and as JSON.

`--json` prints the columns of `metadata.jsonl`. JSON is plain ASCII, because a prompt may contain
terminal control characters.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from attrs import asdict

from .._batch.summary import Summary
from .._core.amounts import dollars
from .._core.events import (
    ClockJumped,
    DiskLagged,
    DoubtsSought,
    DownloadsFailing,
    Event,
    JobAdopted,
    JobEnded,
    JobReady,
    JobSubmitted,
    JobUnclaimed,
    LimitChanged,
    LoopLagged,
    Paused,
    Resumed,
    RowsChecked,
    Settled,
    StoreOutage,
    SubmitFailed,
    WorkersReported,
)
from .._core.models import NOT_LISTED, Failed, ImageRequest, InDoubt, Job, Outcome, Saved
from .._core.text import counted, duration
from .._requests.estimate import Estimate
from .._requests.sources.plan import Plan
from .._store.journal.totals import JournalCounts
from .._store.metadata import failure_row, metadata_row
from .._store.output_root import OutputRoot
from .advice import (
    about_candidates,
    about_damage,
    about_failures,
    about_quarantine,
    about_unlisted,
)

#: characters of a prompt that name it in a message
_PROMPT = 60


def active_line(holder: Mapping[str, Any], counted_at: str | None = None) -> str:
    """Return who is running a run: see Status.holder and Status.counted_at."""
    host, pid, since = holder.get("host"), holder.get("pid"), holder.get("since")
    with suppress(ValueError):
        since = f"{datetime.fromisoformat(str(since)):%Y-%m-%d %H:%M} UTC"
    with suppress(ValueError):
        counted_at = counted_at and f"{datetime.fromisoformat(counted_at):%H:%M:%S} UTC"
    who = f"active on {host} (process {pid}) since {since}" if host else "active"
    if "silence" in holder:
        return f"{who}, last sign {duration(holder['silence'])} ago"
    return f"{who}, {f'counted at {counted_at}' if counted_at else 'not counted yet'}"


def as_json(row: Mapping[str, Any]) -> str:
    """Return one line of ASCII JSON."""
    return json.dumps(row, ensure_ascii=True, default=str)


def outcome_row(outcome: Outcome, root: OutputRoot) -> dict[str, Any]:
    """Return the object that `--json` prints for an outcome; paths within are below `root`."""
    match outcome:
        case Saved():
            row = metadata_row(outcome, root)
            return {"outcome": "saved", "path": outcome.place, **row}
        case Failed():
            return {"outcome": "failed", **failure_row(outcome, root.folder)}
        case InDoubt():
            return {"outcome": "in doubt", **failure_row(outcome, root.folder)}


def event_row(event: Event) -> dict[str, Any] | None:
    """Return the object that `run --json` prints for an event; None for one that tells programs
    nothing, or that an outcome follows."""
    match event:
        case JobSubmitted(job=job, in_flight=in_flight):
            return {"event": "submitted", **_job(job), "in_flight": in_flight}
        case JobReady(job=job, polls=polls, in_flight=in_flight):
            return {"event": "ready", **_job(job), "polls": polls, "in_flight": in_flight}
        case JobUnclaimed(job=job):
            return {"event": "unclaimed", **_job(job)}
        case JobAdopted(job=job):
            return {"event": "found", **_job(job)}
        case JobEnded() | SubmitFailed() | Settled() | RowsChecked() | WorkersReported():
            return None  # the last comes several times a second
    return {"event": _EVENTS[type(event)], **asdict(event)}


#: names of events that are not about one image
_EVENTS = {
    DoubtsSought: "waiting for images in doubt",
    Paused: "paused",
    Resumed: "resumed",
    DownloadsFailing: "downloads failing",
    StoreOutage: "store outage",
    LimitChanged: "limit changed",
    LoopLagged: "loop lagged",
    ClockJumped: "clock jumped",
    DiskLagged: "disk lagged",
}


def _job(job: Job) -> dict[str, Any]:
    return {"job_id": job.job_id, "index": None if job.request is None else job.request.index}


def failure_line(outcome: Failed | InDoubt) -> str:
    """Return one line about an image that was not saved."""
    where = getattr(outcome, "where", None) or f"image {outcome.index}"
    if isinstance(outcome, InDoubt):
        return f"in doubt: {where}{_named(outcome.request)}: {outcome.error}"
    line = f"{outcome.cause}: {where}{_named(outcome.request)}: {outcome.error}"
    kept = outcome.quarantined
    return line if kept is None or kept.path is None else f"{line}; its bytes are in {kept.path}"


def _named(request: ImageRequest | None) -> str:
    if request is None or not request.prompt:
        return ""
    prompt = request.prompt
    return f" “{prompt[:_PROMPT]}…”" if len(prompt) > _PROMPT else f" “{prompt}”"


def announcement(
    plan: Plan,
    estimate: Estimate | None,
    *,
    affordable: Estimate | None = None,
    recovered: JournalCounts | None = None,
    is_whole: bool = True,
    retries: Collection[str] = (),
    simulated: bool,
) -> Iterator[str]:
    """Yield the lines before a run: what earlier runs left, and last the price.

    `affordable` is the part of the estimate within the cap; `is_whole` means that the plan counts
    all prompts, not only the first ones; `retries` has the classes that `--retry` names.
    """
    if retries:
        yield retry_line(plan, retries)
    if recovered is not None and recovered != JournalCounts():
        to_do = "" if plan.to_do is None else f", {plan.to_do} to do"
        yield f"{recovered}{to_do}"
        if is_whole:
            yield from _removed(plan, recovered)
    elif recovered is None and plan.known:
        known = ", ".join(f"{count} {state}" for state, count in sorted(plan.known.items()))
        yield f"from earlier runs: {known}; {plan.to_do} to do"
    if plan.images is not None and plan.images != plan.rows - plan.bad:
        rows = plan.rows - plan.bad
        yield f"{counted(rows, 'row')} for {counted(plan.images, 'image')}"
    if plan.edited:
        yield f"metadata of {counted(plan.edited, 'image')} differs in the list: a run updates it"
    yield from plan.notes
    if plan.unchecked_keys:
        names = ", ".join(name[:40] for name in plan.unchecked_keys)
        yield f"sent unchecked to a model that the catalogue lacks: {names}"
    if plan.bad:
        yield f"{plan.bad} bad {'line is' if plan.bad == 1 else 'lines are'} left out"
    text = "read as it comes: number and price are unknown in advance"
    if estimate is not None:
        text = str(estimate)
    if estimate is not None and affordable is not None and affordable != estimate:
        text += f"; the cap pays for {affordable}"
    yield f"{text}; simulated: costs nothing" if simulated else text


def _removed(plan: Plan, recovered: JournalCounts) -> Iterator[str]:
    """Yield how many images of earlier runs have no prompt; unknown for a stream."""
    failed = sum(recovered.failed.values())
    left = recovered.done + recovered.running + recovered.in_doubt + failed + recovered.again
    count = left - sum(plan.known.values()) - plan.again.estimate(1).images
    if plan.to_do is not None and count > 0:
        images = counted(count, "image")
        yield f"{images} of earlier runs not among these prompts: kept as they are"


#: classes whose images are submitted again without a poll: they have no job, or are discarded
_WITHOUT_POLL = frozenset(
    {"auth", "discarded", "dropped", "invalid", "not-listed", "refused", "rejected"}
)


def retry_line(plan: Plan, classes: Collection[str]) -> str:
    """Return the line about `--retry`: what is made again, and what of it may be free."""
    is_about_unlisted = set(classes) == {NOT_LISTED}
    if plan.images is None:
        named = "that are not listed" if is_about_unlisted else "with an outcome that --retry names"
        return f"images {named} are made again when their prompts arrive"
    again = plan.again.estimate(1)
    parts = []
    if again.images:
        unknown = f" and {again.unpriced} of unknown price" if again.unpriced else ""
        parts.append(
            f"{again.images} (at most {dollars(again.cost)}{unknown}{_free(frozenset(classes))})"
        )
    if to_collect := plan.known.get("to-collect"):
        parts.append(f"{to_collect} already paid, to collect")
    if not parts and is_about_unlisted:
        return (
            "no image in doubt is known as not listed, so none is submitted again; the account can "
            "show it ten minutes after a submission"
        )
    if not parts:
        return "no image has an outcome that --retry names: none is made again"
    return f"to make again: {', '.join(parts)}"


def _free(classes: frozenset[str]) -> str:
    if classes <= _WITHOUT_POLL:
        return "; paid again"
    but = " unless it was discarded" if classes & {"discarded", "failed"} else ""
    return f"; what the provider still has is collected for free{but}"


def plan_row(plan: Plan, estimate: Estimate | None) -> dict[str, Any]:
    """Return the object that `--dry-run --json` prints; US dollars and seconds, null if unknown."""
    priced = estimate is not None and not estimate.unpriced
    return {
        "images": plan.images,
        "known": dict(plan.known),
        "to_do": plan.to_do,
        "edited": plan.edited,
        "cost": float(estimate.cost) if estimate is not None and priced else None,
        "seconds": None if estimate is None else estimate.seconds,
        "rows": plan.rows,
        "bad": plan.bad,
        "unknown_keys": plan.unknown_keys,
        "unchecked_keys": plan.unchecked_keys,
        "unknown_models": plan.unknown_models,
    }


def closing(
    summary: Summary,
    root: OutputRoot,
    *,
    in_doubt: int = 0,
    at_cap: bool = False,
    cap: str = "--max-cost",
    by_error: bool = False,
    simulated: bool = False,
) -> Iterator[str]:
    """Yield the last lines of a run: images in doubt, what to do about failures and damage, how to
    continue, and the totals with the folder. `at_cap`: the cap ended the run, and `cap` names what
    raises it; `by_error`: another error did, and names the first step."""
    where = root.record
    if in_doubt:
        yield (
            f"{in_doubt} in doubt: no answer arrived, so they may have been charged; "
            f"they are not submitted again; to settle them: fluxasync resolve {where}"
        )
    if summary.with_candidates:
        yield about_candidates(summary.with_candidates, where)
    if summary.not_listed:
        yield about_unlisted(summary.not_listed, of_them=in_doubt > 0)
    failed = summary.failed + summary.failed_earlier
    yield from about_failures(failed, where, quarantined=summary.quarantined)
    if summary.quarantined:
        yield about_quarantine(summary.quarantined, where)
    if summary.damaged:
        yield about_damage(summary.damaged)
    if at_cap:
        yield f"to continue: the same command with a higher {cap}"
    elif summary.not_started or summary.unclaimed:
        first = "after that, " if by_error else ""
        free = "; paid images are collected for free" if summary.unclaimed else ""
        yield f"{first}run the same command again to continue{free}"
    yield f"{summary.line(simulated=simulated)} → {root.url or where}/"
