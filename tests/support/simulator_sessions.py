"""Fast sessions, small requests and an audit, for tests against the simulator.

The audit compares a run with the simulator's record of charges and its images: a test that ends
with it cannot pass with a charge paid twice, a charge without an outcome, or a broken file.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from fluxasync import (
    BFL,
    COMETAPI,
    Batch,
    Failed,
    FluxError,
    FluxSession,
    ImageRequest,
    InDoubt,
    Job,
    Outcome,
    Polling,
    Prompts,
    Retry,
    Saved,
    Timeouts,
)
from fluxasync.simulator import Simulator, World
from fluxasync.simulator.images import PictureSpec, variant_of
from support.patience import HANGING, patient

PROVIDERS = {"cometapi": COMETAPI, "bfl": BFL}
SIDE = 256  #: pixels; the minimum of flux-dev, drawn in a few milliseconds

#: the defaults at a hundredth of real time; timeouts only end what hangs
RETRY = Retry(initial=0.01, maximum=0.05, patience=1, not_found_grace=0.1, ready_grace=0.1)
FAST: dict[str, Any] = {
    "retry": RETRY,
    "polling": Polling(interval=0.01),
    "timeouts": Timeouts(connect=30, submit=30, poll=30, download=30, job=60),
}


def fast_session(base_url: str, dialect: str = "cometapi", **options: Any) -> FluxSession:
    """Return a session on the simulator, at a hundredth of real time."""
    return FluxSession(PROVIDERS[dialect], base_url=base_url, **(FAST | options))


def small_requests(count: int, *, start: int = 0, **parameters: Any) -> list[ImageRequest]:
    """Return small requests with different prompts and seeds."""
    size = {"width": SIDE, "height": SIDE} | parameters
    return [
        ImageRequest(prompt=f"a small picture, number {number}", seed=number, **size)
        for number in range(start, start + count)
    ]


def end_jobs(sim: Simulator) -> None:
    """End every active job now."""
    for job in sim.world._state.jobs._by_id.values():
        job.ends_at = job.started_at


async def outcomes_of(batch: Batch) -> list[Outcome]:
    """Return all outcomes of an entered batch; raise the error that ends the run."""
    return [outcome async for outcome in batch]


async def run_out(batch: Batch) -> tuple[list[Outcome], FluxError | None]:
    """Run a batch; return its outcomes and the error that ended it."""
    outcomes: list[Outcome] = []
    try:
        async with batch:
            async for outcome in batch:
                outcomes.append(outcome)  # noqa: PERF401 — those before an error count
    except FluxError as error:
        return outcomes, error
    return outcomes, None


def batch_after_balance(flux: FluxSession, requests: Any, **options: Any) -> Batch:
    """Return a batch whose first submission waits for the balance, as the command's does; else
    the balance may come after the first charges."""

    async def known(_plan: object) -> None:
        await batch.opening_balance(within=30)

    batch = Batch(flux, requests, on_plan=known, **options)
    return batch


async def until(condition: Callable[[], object], *, within: float = HANGING) -> None:
    """Wait until a condition is true; fail if it never becomes true."""
    async with asyncio.timeout(patient(within)):
        while not condition():  # noqa: ASYNC110 — a server's counters set no event
            await asyncio.sleep(0.001)


def tally(outcomes: Iterable[Outcome]) -> Counter[str]:
    """Count outcomes as "saved", "in doubt", or the cause of the failure."""
    return Counter(map(_word, outcomes))


def _word(outcome: Outcome) -> str:
    match outcome:
        case Saved():
            return "saved"
        case InDoubt():
            return "in doubt"
        case Failed(cause=cause):
            return cause


def audit(
    world: World,
    outcomes: Sequence[Outcome],
    *,
    unclaimed: Iterable[Job] = (),
    folder: Path | None = None,
) -> None:
    """Assert that money, outcomes and files agree.

    Every outcome's job has its own charge. Every charge belongs to an outcome's job, an unclaimed
    job or an outcome in doubt. No key was sent to a wrong host. Every saved image is the one that
    the simulator drew for its prompt.
    """
    known = [job.job_id for job in (*filter(None, map(_job, outcomes)), *unclaimed)]
    charged = {charge.job_id: charge for charge in world.charges}
    assert len(known) == len(set(known)), "one job has two outcomes"
    assert set(known) <= set(charged), "an outcome has a job that was never charged"
    unexplained = Counter(charge.prompt for id_, charge in charged.items() if id_ not in set(known))
    doubts = Counter(o.request.prompt for o in outcomes if isinstance(o, InDoubt))
    assert unexplained <= doubts, "a charge has no outcome"
    requested = Counter(o.request.prompt for o in outcomes if o.request is not None)
    requested.update(job.request.prompt for job in unclaimed if job.request is not None)
    assert Counter(c.prompt for c in world.charges) <= requested, "one request was paid twice"
    assert not world.leaks, "a key was sent to a wrong host"
    for outcome in outcomes:
        if isinstance(outcome, Saved):
            audit_image(world, outcome)
    if folder is not None:
        audit_folder(folder, outcomes)


def audit_image(world: World, saved: Saved) -> None:
    """Assert that the bytes are those that the simulator drew for this prompt and seed."""
    request, stored = saved.request, saved.stored
    assert request is not None
    image = stored.data if stored.path is None else stored.path.read_bytes()
    assert image is not None
    spec = PictureSpec(
        prompt=request.prompt,
        seed=saved.seed if saved.seed is not None else -1,
        width=stored.width,
        height=stored.height,
        format=stored.format,
        variant=variant_of(request.model, request.given() | request.extra_body),
    )
    assert image == world.gallery.picture(spec).body
    assert (stored.size, stored.sha256) == (len(image), hashlib.sha256(image).hexdigest())


def audit_folder(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Assert that the folder contains exactly the saved images and the two lists."""
    saved = [outcome for outcome in outcomes if isinstance(outcome, Saved)]
    images = {outcome.path.name for outcome in saved if outcome.path is not None}
    assert images == names(folder) - {"metadata.jsonl", "failures.jsonl"}
    metadata, failures = rows(folder / "metadata.jsonl"), rows(folder / "failures.jsonl")
    assert {row["file_name"] for row in metadata} == images
    assert {(row["job_id"], row["sha256"]) for row in metadata} == {
        (outcome.job.job_id, outcome.stored.sha256) for outcome in saved
    }
    lost = [outcome for outcome in outcomes if not isinstance(outcome, Saved)]
    assert Counter(row["index"] for row in failures) == Counter(o.index for o in lost)


def names(folder: Path) -> set[str]:
    """Return the names of the files in a folder and below, without the journal's."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.name for path in found if path.parent.name != ".fluxasync"}


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a list; none if the file does not exist."""
    if not path.exists():
        return []
    text = path.read_text("utf-8")  # splitlines() would break a line at U+0085 in a text
    return [json.loads(line) for line in text.split("\n") if line]


def _job(outcome: Outcome) -> Job | None:
    return None if isinstance(outcome, InDoubt) else outcome.job


def batch_of(flux: FluxSession, source: Any, **options: Any) -> Batch:
    """Return a Batch; the options that Prompts takes go there."""
    fields = attrs.fields_dict(Prompts)
    given = {name: options.pop(name) for name in fields if name in options}
    return Batch(flux, Prompts(source, **given), **options)
