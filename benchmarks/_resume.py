"""Resuming a killed run: a folder with very many images, and a process that starts in it.

The package itself makes the folder, in a process that is killed at the end, so the database log,
the lock and the mark of an unclean end are real. The last jobs exist at the simulator, which
records when the next process polls them and when it submits new ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from attrs import frozen

from fluxasync import Batch, FluxSession, ImageRequest
from fluxasync._batch.output import open_folder
from fluxasync._engine.session import engine_of
from fluxasync._store.filenames import DEFAULT
from fluxasync._store.journal.journal import Journal
from fluxasync.events import RowsChecked
from fluxasync.extend import FilenameTemplate
from fluxasync.simulator import Scenario, Simulator

from ._images import WRITERS, file_name, request, work

#: jobs active when the process is killed, and rows added afterwards
UNFINISHED = NEW = 24

#: images of this size are not drawn
_SCENARIO = Scenario(latency=(0.5, 1.0), image_bytes=200_000)


@frozen(kw_only=True)
class Figures:
    """The cost of starting in the folder; seconds since the start of the process."""

    first_poll: float
    first_post: float
    ended: float
    memory: float  #: MB, the peak
    journal: float  #: MB
    source: float  #: MB
    lists: float  #: MB


async def resume_after_kill(home: Path, rows: int) -> Figures:
    """Fill the folder, kill the process, start another; return what the server saw."""
    async with Simulator(_SCENARIO) as sim:
        killed = await _process("fill", home, sim.url, rows)
        assert await killed.wait() == -signal.SIGKILL
        assert len(sim.charges) == UNFINISHED
        sizes = _sizes(home)
        polls, posts = sim.world.polls, sim.world.posts
        began = time.perf_counter()
        process = await _process("resume", home, sim.url, rows)
        first_poll = await _when(lambda: sim.world.polls > polls, began)
        first_post = await _when(lambda: sim.world.posts > posts, began)
        assert process.stdout is not None
        result = json.loads(await process.stdout.read())
        assert await process.wait() == 0
        ended = time.perf_counter() - began
        assert len(sim.charges) == UNFINISHED + NEW
    assert (result["known"], result["saved"]) == (rows, UNFINISHED + NEW), result
    return Figures(
        first_poll=first_poll,
        first_post=first_post,
        ended=ended,
        memory=result["memory"],
        **sizes,
    )


async def _process(what: str, home: Path, url: str, rows: int) -> asyncio.subprocess.Process:
    arguments = ("-m", "benchmarks._resume", what, str(home), url, str(rows))
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE
    )


async def _when(happened: Callable[[], bool], began: float) -> float:
    while not happened():  # noqa: ASYNC110 — the server sets no event
        await asyncio.sleep(0.002)
    return time.perf_counter() - began


def _sizes(home: Path) -> dict[str, float]:
    folder = home / "images"
    paths = {
        "journal": folder / ".fluxasync" / "journal.db",
        "source": home / "prompts.jsonl",
        "lists": folder / "metadata.jsonl",
    }
    return {name: path.stat().st_size / 2**20 for name, path in paths.items()}


# --- the process that is killed -------------------------------------------------------------------


async def fill(home: Path, url: str, rows: int) -> None:
    """Leave a folder as a killed run does: `rows` images, the last ones still active."""
    folder = home / "images"
    _write_source(home / "prompts.jsonl", rows + NEW)
    async with FluxSession("cometapi", base_url=url) as flux, AsyncExitStack() as stack:
        output = await open_folder(
            stack,
            folder,
            providers=engine_of(flux).providers,
            template=FilenameTemplate.parse(DEFAULT),
            max_bytes=2**20,
            ledger=None,
        )
        assert output.journal is not None
        await _done(output.journal, iter(range(rows - UNFINISHED)))
        await output.journal.project()
        _touch(folder, rows - UNFINISHED)
        last = [request(number) for number in range(rows - UNFINISHED, rows)]
        await asyncio.gather(*(flux.submit(image, ledger=output.journal) for image in last))
        os.kill(os.getpid(), signal.SIGKILL)


async def _done(ledger: Journal, numbers: Iterator[int]) -> None:
    await asyncio.gather(*(work(ledger, numbers) for _ in range(WRITERS)))


def _write_source(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for number in range(rows):
            file.write(json.dumps(_row(request(number))) + "\n")


def _row(image: ImageRequest) -> dict[str, object]:
    return {"model": image.model, **image.given()}


def _touch(folder: Path, images: int) -> None:
    """Create empty files: a start looks at the names only."""
    for number in range(images):
        name = file_name(request(number))
        os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT))


# --- the process that resumes ---------------------------------------------------------------------


async def resume(home: Path, url: str, rows: int) -> None:
    """Make the same call again; print what it found and its peak memory."""
    async with FluxSession("cometapi", base_url=url) as flux:
        batch = Batch(
            flux,
            home / "prompts.jsonl",
            out=home / "images",
            finished="skip",
            on_event=_shown,
        )
        async with batch:
            async for _ in batch:
                pass
    assert batch.plan is not None
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {
        "known": sum(batch.plan.known.values()),
        "saved": batch.summary.saved,
        "memory": memory,
    }
    print(json.dumps(result))


def _shown(event: object) -> None:
    """The progress line of the check."""
    if isinstance(event, RowsChecked):
        print(f"\r{event.count:,} lines checked", end="", file=sys.stderr)


if __name__ == "__main__":
    what, home, url, rows = sys.argv[1:]
    asyncio.run({"fill": fill, "resume": resume}[what](Path(home), url, int(rows)))
