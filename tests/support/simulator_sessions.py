"""What tests against the practice server share: fast sessions, small wishes, and the audit.

The audit holds a run against the server's own books and the pictures it drew, so a test that ends
with it cannot pass with a charge paid twice, a charge nobody tells of, or a broken file.
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
from fluxasync.simulator.images import PictureSpec
from support.patience import HANGING, patient

PROVIDERS = {"cometapi": COMETAPI, "bfl": BFL}
SIDE = 256  #: pixels; the smallest flux-dev takes, drawn in a few milliseconds

#: the defaults, at a hundredth of real time; timeouts only end what hangs
RETRY = Retry(initial=0.01, maximum=0.05, patience=1, not_found_grace=0.1, ready_grace=0.1)
FAST: dict[str, Any] = {
    "retry": RETRY,
    "polling": Polling(interval=0.01),
    "timeouts": Timeouts(connect=30, submit=30, poll=30, download=30, job=60),
}


def fast_session(base_url: str, dialect: str = "cometapi", **options: Any) -> FluxSession:
    """A session on the practice server, at a hundredth of real time."""
    return FluxSession(PROVIDERS[dialect], base_url=base_url, **(FAST | options))


def wishes(count: int, *, start: int = 0, **parameters: Any) -> list[ImageRequest]:
    """Small requests, each with a prompt and a seed of its own."""
    size = {"width": SIDE, "height": SIDE} | parameters
    return [
        ImageRequest(prompt=f"a small picture, number {number}", seed=number, **size)
        for number in range(start, start + count)
    ]


def end_jobs(sim: Simulator) -> None:
    """Let every job that runs end now, whatever its latency."""
    for job in sim.world._state.jobs._by_id.values():
        job.ends_at = job.started_at


async def outcomes_of(batch: Batch) -> list[Outcome]:
    """Every outcome of an entered batch; the error that ends the run passes."""
    return [outcome async for outcome in batch]


async def run_out(batch: Batch) -> tuple[list[Outcome], FluxError | None]:
    """Enter a batch, read it to its end, leave it; return the outcomes and what ended the run."""
    outcomes: list[Outcome] = []
    try:
        async with batch:
            async for outcome in batch:
                outcomes.append(outcome)  # noqa: PERF401 — those before an error count
    except FluxError as error:
        return outcomes, error
    return outcomes, None


async def until(condition: Callable[[], object], *, within: float = HANGING) -> None:
    """Let the loop go on until something has happened; fail when it never does."""
    async with asyncio.timeout(patient(within)):
        while not condition():  # noqa: ASYNC110 — what a server has seen sets no event
            await asyncio.sleep(0.001)


def tally(outcomes: Iterable[Outcome]) -> Counter[str]:
    """How many ended how: "saved", "in doubt", or a failure's cause."""
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

    Every outcome's job is a charge of its own; every charge is an outcome's job, an unclaimed one
    or explained by an outcome in doubt; no key came where none belongs; every saved image is the
    one that the server drew for its prompt.
    """
    told = [job.job_id for job in (*filter(None, map(_job, outcomes)), *unclaimed)]
    charged = {charge.job_id: charge for charge in world.charges}
    assert len(told) == len(set(told)), "one job has two outcomes"
    assert set(told) <= set(charged), "a job was told of that the server never charged"
    untold = Counter(charge.prompt for id_, charge in charged.items() if id_ not in set(told))
    doubts = Counter(o.request.prompt for o in outcomes if isinstance(o, InDoubt))
    assert untold <= doubts, "a charge is nowhere to be seen"
    wanted = Counter(o.request.prompt for o in outcomes if o.request is not None)
    wanted.update(job.request.prompt for job in unclaimed if job.request is not None)
    assert Counter(c.prompt for c in world.charges) <= wanted, "one wish was paid twice"
    assert not world.leaks, "a key went where it does not belong"
    for outcome in outcomes:
        if isinstance(outcome, Saved):
            audit_image(world, outcome)
    if folder is not None:
        audit_folder(folder, outcomes)


def audit_image(world: World, saved: Saved) -> None:
    """Assert that the bytes are those that the server drew for this prompt and seed."""
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
    )
    assert image == world.gallery.picture(spec).body
    assert (stored.size, stored.sha256) == (len(image), hashlib.sha256(image).hexdigest())


def audit_folder(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Assert that the folder holds the saved images and the two lists, and nothing else."""
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
    """The names of the files in a folder and below it; the journal's own are not looked at."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.name for path in found if path.parent.name != ".fluxasync"}


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a list; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _job(outcome: Outcome) -> Job | None:
    return None if isinstance(outcome, InDoubt) else outcome.job


def batch_of(flux: FluxSession, source: Any, **options: Any) -> Batch:
    """Return a Batch; the options that Prompts takes go there."""
    fields = attrs.fields_dict(Prompts)
    given = {name: options.pop(name) for name in fields if name in options}
    return Batch(flux, Prompts(source, **given), **options)
