"""The same work done by different clients: N images, so many in flight, into a folder.

Each contender runs in a process of its own (`python -m benchmarks._contenders NAME …`) and prints
one JSON line with the CPU seconds of all its threads and the wall seconds of the work alone:
imports and connections' set-up before the first image are not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from yarl import URL

from fluxasync import Batch, FluxSession, Limits, Polling, Saved

Work = Callable[[str, Path, int, int], Awaitable[None]]


async def ours(url: str, folder: Path, images: int, in_flight: int) -> None:
    """fluxasync with everything on: verify, fsync, metadata."""
    prompts = (f"prompt {number}" for number in range(images))
    saved = 0
    async with (
        FluxSession(
            base_url=url,
            limits=Limits(in_flight=in_flight, downloads=16),
            polling=Polling(interval=0),
        ) as flux,
        Batch(flux, prompts, out=folder) as batch,
    ):
        async for outcome in batch:
            saved += isinstance(outcome, Saved)
    assert saved == images, batch.summary


async def bare(url: str, folder: Path, images: int, in_flight: int) -> None:
    """What people write first: no checks, no fsync, no names, no record."""
    folder.mkdir()
    numbers = iter(range(images))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {"prompt": f"prompt {number}"}
            async with session.post(f"{url}/flux/v1/flux-dev", json=body) as answer:
                job = (await answer.json())["id"]
            async with session.get(f"{url}/flux/v1/get_result", params={"id": job}) as answer:
                sample = (await answer.json())["result"]["sample"]
            async with session.get(URL(sample, encoded=True)) as answer:
                image = await answer.read()
            (folder / f"{number:06}.jpg").write_bytes(image)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(worker(session) for _ in range(in_flight)))
    assert len(list(folder.iterdir())) == images


CONTENDERS: dict[str, Work] = {"ours": ours, "bare": bare}


def measure(
    name: str, url: str, folder: Path, *, images: int, in_flight: int, loop: str = "asyncio"
) -> dict[str, float]:
    """Run one contender once, in a fresh process; return its figures."""
    command = [
        sys.executable, "-m", "benchmarks._contenders", name, url, str(folder),
        "--images", str(images), "--in-flight", str(in_flight), "--loop", loop,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    given = parser.parse_args()
    if given.loop == "uvloop":
        import uvloop

        run = uvloop.run
    else:
        run = asyncio.run
    cpu, wall = _cpu(), time.perf_counter()
    run(CONTENDERS[given.name](given.url, given.folder, given.images, given.in_flight))
    cpu, wall = _cpu() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": cpu, "wall": wall, "rss": peak}))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    _main()
