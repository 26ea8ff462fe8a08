"""A run carried on after a kill: a folder with very many images, and a process that starts in it.

The folder is made by the package itself, verb by verb, in a process that is killed at the end, so
the log of the database, its lock and its mark of an unclean end are real. The last jobs are real
ones of the practice server, which then sees when the next process asks for them, and when it
submits what is new.
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
from pathlib import Path

from attrs import frozen

from fluxasync import Batch, FluxSession, ImageRequest
from fluxasync._batch.output import open_folder
from fluxasync._engine.session import engine_of
from fluxasync._store.filenames import DEFAULT, FilenameTemplate
from fluxasync._store.journal.journal import Journal
from fluxasync.simulator import Scenario, Simulator

from ._images import WRITERS, file_name, request, work

#: jobs that run when the process is killed, and rows that are new afterwards
UNFINISHED = NEW = 24

#: as long as it takes to draw none of them
_SCENARIO = Scenario(latency=(0.5, 1.0), image_bytes=200_000)


@frozen(kw_only=True)
class Figures:
    """What starting in the folder came to; seconds count from the start of the process."""

    first_poll: float
    first_post: float
    ended: float
    memory: float  #: MB, the most there was
    journal: float  #: MB
    source: float  #: MB
    lists: float  #: MB


async def carried_on(home: Path, rows: int) -> Figures:
    """Make the folder, kill its process, start another; return what the server saw of it."""
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
        told = json.loads(await process.stdout.read())
        assert await process.wait() == 0
        ended = time.perf_counter() - began
        assert len(sim.charges) == UNFINISHED + NEW
    assert (told["known"], told["saved"]) == (rows, UNFINISHED + NEW), told
    return Figures(
        first_poll=first_poll,
        first_post=first_post,
        ended=ended,
        memory=told["memory"],
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
    """Leave a folder with so many images, the last ones still running, as a killed run does."""
    folder = home / "images"
    _write_source(home / "prompts.jsonl", rows + NEW)
    async with (
        FluxSession("cometapi", base_url=url) as flux,
        open_folder(
            folder,
            provider=engine_of(flux).provider,
            template=FilenameTemplate.parse(DEFAULT),
            max_bytes=2**20,
            ledger=None,
        ) as output,
    ):
        assert output.journal is not None
        await _done(output.journal, iter(range(rows - UNFINISHED)))
        await output.journal.project()
        _touch(folder, rows - UNFINISHED)
        last = [request(number) for number in range(rows - UNFINISHED, rows)]
        await asyncio.gather(*(flux.submit(wish, ledger=output.journal) for wish in last))
        os.kill(os.getpid(), signal.SIGKILL)


async def _done(ledger: Journal, numbers: Iterator[int]) -> None:
    await asyncio.gather(*(work(ledger, numbers) for _ in range(WRITERS)))


def _write_source(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for number in range(rows):
            file.write(json.dumps(_row(request(number))) + "\n")


def _row(wish: ImageRequest) -> dict[str, object]:
    return {"model": wish.model, **wish.given()}


def _touch(folder: Path, images: int) -> None:
    """Make the images as far as a start looks at them: their names."""
    for number in range(images):
        name = file_name(request(number))
        os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT))


# --- the process that carries on ------------------------------------------------------------------


async def resume(home: Path, url: str, rows: int) -> None:
    """Make the same call again; tell what it found, and the memory it took."""
    async with FluxSession("cometapi", base_url=url) as flux:
        batch = Batch(
            flux,
            home / "prompts.jsonl",
            out=home / "images",
            finished="skip",
            on_check=_shown,
        )
        async with batch:
            async for _ in batch:
                pass
    assert batch.plan is not None
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {"known": sum(batch.plan.known.values()), "saved": batch.summary.saved, "memory": memory}
    print(json.dumps(told))


def _shown(rows: int) -> None:
    """The progress line of the check."""
    print(f"\r{rows:,} lines checked", end="", file=sys.stderr)


if __name__ == "__main__":
    what, home, url, rows = sys.argv[1:]
    asyncio.run({"fill": fill, "resume": resume}[what](Path(home), url, int(rows)))
