"""The same images by clients that poll differently, each image into a folder.

    python -m benchmarks._pollers NAME URL FOLDER …

Each contender runs in its own process and prints one JSON line: the CPU seconds of all its threads.
The server reports polls and detection lag, in the same way for all contenders.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from math import log, sqrt
from pathlib import Path

import aiohttp
from attrs import frozen
from yarl import URL

from fluxasync import Batch, FluxSession, Limits, Polling
from fluxasync._engine.polling import Durations, PollSchedule, PollSchedules
from fluxasync._engine.session import engine_of

TIGHT = 0.015
SECOND = "ours, second run"


@frozen
class Task:
    """What every contender is given."""

    url: str
    folder: Path
    images: int
    slots: int
    mean: float  #: seconds of a job; only the oracle uses it
    cv: float


async def ours(task: Task, *, polling: Polling, knows: bool = False) -> None:
    """fluxasync with everything on; `knows`: it gets the exact distribution of durations."""
    flux = FluxSession(base_url=task.url, limits=Limits(in_flight=task.slots), polling=polling)
    if knows:
        engine_of(flux).schedules = Knowing(task)
    prompts = (f"prompt {number}" for number in range(task.images))
    async with flux, Batch(flux, prompts, out=task.folder) as batch:
        async for _ in batch:
            pass
    assert batch.summary.saved == task.images, batch.summary


class Knowing(PollSchedules):
    """Schedules with the exact log-normal distribution, which learn nothing."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        sigma = sqrt(log(1 + task.cv**2))
        median = task.mean / sqrt(1 + task.cv**2)
        known = Durations(median, sigma=sigma, tail=0, weight=1e12)
        self._known = PollSchedule(median, durations=known)

    def of(self, key: object, *, typical: float) -> PollSchedule:
        return self._known


async def fixed(task: Task, *, interval: float) -> None:
    """The usual loop: one worker per slot, a poll every `interval` seconds."""
    task.folder.mkdir()
    numbers = iter(range(task.images))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {"prompt": f"prompt {number}"}
            async with session.post(f"{task.url}/flux/v1/flux-dev", json=body) as answer:
                job = (await answer.json())["id"]
            sample = None
            while sample is None:
                await asyncio.sleep(interval)
                async with session.get(
                    f"{task.url}/flux/v1/get_result", params={"id": job}
                ) as answer:
                    status = await answer.json()
                sample = status["result"] and status["result"]["sample"]
            async with session.get(URL(sample, encoded=True)) as answer:
                (task.folder / f"{number:06}.jpg").write_bytes(await answer.read())

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session) for _ in range(task.slots)))


async def replicate(task: Task) -> None:
    """The `replicate` client from PyPI as its manual shows it: async_run, then read the output."""
    from replicate.client import Client
    from replicate.helpers import FileOutput

    task.folder.mkdir()
    client = Client(api_token="simulated", base_url=task.url)  # noqa: S106 — made up
    numbers = iter(range(task.images))

    async def worker() -> None:
        for number in numbers:
            (output,) = await client.async_run(
                "black-forest-labs/flux-dev", input={"prompt": f"prompt {number}"}
            )
            # the client does this itself, except for plain http URLs
            image = await FileOutput(str(output), client).aread()
            (task.folder / f"{number:06}.jpg").write_bytes(image)

    await asyncio.gather(*(worker() for _ in range(task.slots)))


CONTENDERS: dict[str, Callable[[Task], Awaitable[None]]] = {
    "ours, default lag": partial(ours, polling=Polling()),
    SECOND: partial(ours, polling=Polling(remember=True)),
    "oracle, default lag": partial(ours, polling=Polling(), knows=True),
    "ours, tight": partial(ours, polling=Polling(lag=TIGHT)),
    "oracle, tight": partial(ours, polling=Polling(lag=TIGHT), knows=True),
    "fixed 0.5 s loop": partial(fixed, interval=0.5),
    "fixed 0.1 s loop": partial(fixed, interval=0.1),
    "replicate": replicate,
}


def measure(name: str, task: Task) -> float:
    """Run a contender once, in a new process, and return its CPU seconds."""
    command = [
        sys.executable, "-m", "benchmarks._pollers", name, task.url, str(task.folder),
        "--images", str(task.images), "--slots", str(task.slots),
        "--mean", str(task.mean), "--cv", str(task.cv),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return float(json.loads(done.stdout)["cpu"])


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--mean", type=float, required=True)
    parser.add_argument("--cv", type=float, required=True)
    given = vars(parser.parse_args())
    contender = CONTENDERS[given.pop("name")]
    before = _cpu()
    asyncio.run(contender(Task(**given)))  # type: ignore[arg-type]
    print(json.dumps({"cpu": _cpu() - before}))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    _main()
