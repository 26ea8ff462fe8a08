"""What do several workers make, and how many steps does their ledger record?

    python -m benchmarks.cluster [--rounds 1] [--seconds 5] [--only scaling|ledger] [--write]

It needs the extra `ray`.

Scaling: jobs of 2 s and 24 slots for each worker, on a Ray cluster of this machine; the simulator
is another process. Images per second are counted from two jobs after the last worker's first beat
until the last jobs begin, so the start of Ray and of the workers and the end are left out. Linear
is 24 slots ÷ 2 s for each worker, which nobody reaches: a slot is free again once a poll has seen
the end of its job.

The ledger alone: an actor, its journal in a folder or in a log of objects on this disk, and callers
in other processes, each of which sends groups of steps one after another. An image is three steps.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import evolve

from benchmarks import _page
from benchmarks._images import PRICE, file_name, job_of, request, saved
from benchmarks._server import simulator
from fluxasync import COMETAPI, FluxSession, ImageRequest, Job, Saved
from fluxasync._core.attempts import Attempt
from fluxasync._core.config import Limits
from fluxasync.cluster.messages import LedgerOrder, RunOutput
from fluxasync.events import WorkersReported
from fluxasync.ray import Ray

#: seconds of a job, slots of a worker, and jobs that each slot makes
MEAN, SLOTS, TURNS = 2.0, 24, 20
WORKERS = (1, 2, 4)
SCALING = 0.9  #: target: of linear, with 4 workers

CALLERS, GROUPS = 4, (1, 8, 32, 128)
STEPS = 1_500  #: target: a second, in groups


# --- scaling ------------------------------------------------------------------------------------


async def _made(url: str, folder: Path, workers: int) -> float:
    """Return the images per second of a run while all its workers are at work."""
    slots = SLOTS * workers
    count, full = TURNS * slots, list[float]()

    def note(event: Any) -> None:
        if isinstance(event, WorkersReported) and event.workers == workers:
            full.append(time.time())

    prompts = [{"prompt": f"a red fox, view {number}"} for number in range(count)]
    cluster = Ray("local", workers=workers)
    async with (
        FluxSession(base_url=url, limits=slots) as flux,
        cluster.batch(flux, prompts, out=folder, on_event=note) as batch,
    ):
        ends = sorted([outcome.finished_at.timestamp() async for outcome in batch])
    assert batch.summary.saved == count, batch.summary
    assert full, f"the {workers} workers were never there together: is the machine busy?"
    first, last = bisect(ends, full[0] + 2 * MEAN), count - slots
    assert last - first > count / 3, "the workers were there too late: make TURNS larger"
    return (last - first) / (ends[last] - ends[first])


def scaling(rounds: int) -> str:
    """Return the table of workers."""
    body, per_worker, one = [], SLOTS / MEAN, 0.0
    for workers in WORKERS:
        rates = []
        for _ in range(rounds):
            scenario = {
                "latency": MEAN, "image_bytes": 16 * 1024, "active_limit": SLOTS * workers,
            }  # fmt: skip
            with tempfile.TemporaryDirectory() as scratch, simulator(**scenario) as url:
                rates.append(asyncio.run(_made(url, Path(scratch, "run"), workers)))
        rate, linear = statistics.median(rates), per_worker * workers
        one = one or rate
        body.append(
            [str(workers), str(SLOTS * workers), _spread(rates, 1), f"{linear:.0f}",
             f"{rate / linear:.2f}", f"{rate / one / workers:.2f}", f"{os.getloadavg()[0]:.1f}"]
        )  # fmt: skip
        print(*body[-1], file=sys.stderr, sep=" | ")
    head = ["workers", "slots", "images/s", "linear", "of linear", "of one worker's", "load"]
    return _page.rows(head, body)


# --- the ledger alone ---------------------------------------------------------------------------


class Caller:
    """A process that sends the steps of images to the ledger."""

    def __init__(self, ledger: Any, number: int, output: RunOutput) -> None:
        self._ledger, self._name, self._output = ledger, f"caller-{number}", output
        self._first = number * 10_000_000

    async def work(self, seconds: float, group: int) -> tuple[int, int, float]:
        """Return calls and steps that were made in some seconds, and the CPU seconds of them."""
        began, cpu = time.perf_counter(), time.process_time()
        calls = steps = 0
        while time.perf_counter() < began + seconds:
            for sent in self._stages(group):
                answers, error = await self._ledger.call.remote("steps", self._name, sent)
                assert error is None, error
                assert all(each is None for _, each in answers), answers
                calls, steps = calls + 1, steps + len(sent)
        return calls, steps, time.process_time() - cpu

    def _stages(self, group: int) -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
        """Yield the three steps of a group of images."""
        images = [request(self._first + number) for number in range(group)]
        self._first += group
        attempts = [Attempt() for _ in images]
        jobs = [job_of(image) for image in images]
        pairs = list(zip(images, attempts, strict=True))
        yield [("intent", (image, PRICE, attempt)) for image, attempt in pairs]
        yield [
            ("answered", (image, job, attempt))
            for (image, attempt), job in zip(pairs, jobs, strict=True)
        ]
        yield [
            ("settle", (self._saved(image, job),)) for image, job in zip(images, jobs, strict=True)
        ]

    def _saved(self, image: ImageRequest, job: Job) -> Saved:
        if self._output.folder is not None:
            return saved(image, job, self._output.folder)
        made = saved(image, job, Path())
        stored = evolve(made.stored, path=None, place=f"{self._output.url}/{file_name(image)}")
        return evolve(made, stored=stored)


@contextmanager
def ray_here() -> Iterator[Any]:
    from fluxasync.cluster import actors

    actors._connect("local", CALLERS)
    try:
        yield actors.ray
    finally:
        actors.ray.shutdown()


def ledger_order(home: Path, *, bucket: bool) -> LedgerOrder:
    output = RunOutput(folder=home / "run")
    if bucket:
        output = RunOutput(folder=None, url=f"file://{home / 'bucket'}/run")
    provider = evolve(COMETAPI, base_url="http://127.0.0.1:9")
    return LedgerOrder(
        output=output, provider=provider, slots=1_000, workers=CALLERS, max_cost=None,
        max_image_bytes=Limits().max_image_bytes,
    )  # fmt: skip


def recorded(ray: Any, order: LedgerOrder, group: int, seconds: float) -> tuple[float, ...]:
    """Return calls and steps per second, and CPU microseconds per step of ledger and of callers."""
    from fluxasync.cluster.actors import LedgerActor

    ledger = ray.remote(_Timed(LedgerActor)).options(max_concurrency=1_000, num_cpus=0)
    actor = ledger.remote(order)

    def wait(refs: list[Any]) -> Any:
        while len(ray.wait(refs, num_returns=len(refs), timeout=1)[0]) < len(refs):
            ray.get(actor.call.remote("news", None))  # the ledger ends when its driver is silent
        return ray.get(refs)

    made = ray.remote(Caller).options(num_cpus=1)
    callers = [made.remote(actor, number, order.output) for number in range(CALLERS)]
    wait([caller.work.remote(0.2, group) for caller in callers])  # the first calls connect
    cpu, began = ray.get(actor.cpu.remote()), time.perf_counter()
    found = wait([caller.work.remote(seconds, group) for caller in callers])
    took, cpu = time.perf_counter() - began, ray.get(actor.cpu.remote()) - cpu
    calls, steps, spent = (sum(each) for each in zip(*found, strict=True))
    ray.get(actor.call.remote("close"))
    for each in (*callers, actor):
        ray.kill(each)
    return calls / took, steps / took, cpu / steps * 1e6, spent / steps * 1e6


def _Timed(actor: type[Any]) -> type[Any]:
    class Timed(actor):  # type: ignore[misc, valid-type]
        """The ledger, which says how much CPU its process has used."""

        async def cpu(self) -> float:
            return time.process_time()

    return Timed


def ledger(rounds: int, seconds: float) -> str:
    """Return the table of the ledger alone."""
    body = []
    with ray_here() as ray:
        for where, bucket in (("folder", False), ("file:// log", True)):
            for group in GROUPS:
                found = []
                for _ in range(rounds):
                    with tempfile.TemporaryDirectory() as home:
                        order = ledger_order(Path(home), bucket=bucket)
                        found.append(recorded(ray, order, group, seconds))
                calls, steps, cpu, spent = (list(each) for each in zip(*found, strict=True))
                body.append(
                    [f"{where}, {group}", _spread(calls, 0), _spread(steps, 0),
                     f"{statistics.median(cpu):,.0f} + {statistics.median(spent):,.0f}",
                     f"{os.getloadavg()[0]:.1f}"]
                )  # fmt: skip
                print(*body[-1], file=sys.stderr, sep=" | ")
    head = ["journal, steps a call", "calls/s", "steps/s", "CPU µs/step, ledger + callers", "load"]
    return _page.rows(head, body)


def _spread(figures: list[float], digits: int) -> str:
    text = f"{statistics.median(figures):,.{digits}f}"
    if len(figures) == 1:
        return text
    return f"{text} ({min(figures):,.{digits}f}–{max(figures):,.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", choices=("scaling", "ledger"))
    parser.add_argument("--write", action="store_true", help=f"into {_page.PAGE.name}")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    machine = _page.machine(_page.load())
    if given.only != "ledger":
        text = f"{machine}\n\n{scaling(given.rounds)}\n\nTarget: {SCALING:g} × linear."
        _show("cluster-scaling", text, writes=given.write)
    if given.only != "scaling":
        text = (
            f"{CALLERS} callers, {given.rounds} × {given.seconds:g} s. {machine}\n\n"
            f"{ledger(given.rounds, given.seconds)}\n\nTarget: {STEPS:,} steps/s in groups."
        )
        _show("cluster-ledger", text, writes=given.write)


def _show(name: str, text: str, *, writes: bool) -> None:
    print(text, flush=True)
    if writes:
        _page.write(name, text)


if __name__ == "__main__":
    main()
