"""The same work by different clients: N images, a number of them at once, into a folder.

Each contender runs in its own process (`python -m benchmarks._contenders NAME TASK`) and prints one
JSON line: CPU seconds of all threads and wall seconds of the work without imports, peak memory, and
the images that it reports as failed or in doubt. Every package runs with its defaults, as its
manual shows it.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import aiohttp
from attrs import asdict, frozen
from yarl import URL

from fluxasync import Batch, FluxSession, Limits, Polling


@frozen(kw_only=True)
class Task:
    """What every contender is given."""

    url: str
    folder: str
    images: int
    slots: int  #: active jobs
    interval: float | None = None  #: seconds between polls; None = the client's own
    tls_url: str = ""  #: for clients that require TLS
    certificate: str = ""
    loop: str = "asyncio"

    def path(self, number: int) -> Path:
        return Path(self.folder, f"{number:06}.jpg")

    def pause(self, usual: float) -> float:
        return usual if self.interval is None else self.interval


@frozen(kw_only=True)
class Losses:
    """The images that a contender reports as missing."""

    failed: int = 0
    in_doubt: int = 0  #: possibly charged, and kept for reconciliation


@frozen(kw_only=True)
class Figures:
    """One contender's run."""

    cpu: float  #: seconds, of all threads
    wall: float  #: seconds
    rss: float  #: MB at most
    losses: Losses


async def ours(task: Task) -> Losses:
    """fluxasync with everything on: journal, verify, fsync, metadata."""
    prompts = (f"prompt {number}" for number in range(task.images))
    polling = Polling(interval=task.interval)
    limits = Limits(in_flight=task.slots)
    async with (
        FluxSession(base_url=task.url, limits=limits, polling=polling) as flux,
        Batch(flux, prompts, out=task.folder) as batch,
    ):
        async for _ in batch:
            pass
    return Losses(failed=batch.summary.failed.total(), in_doubt=batch.summary.in_doubt)


async def bare(task: Task) -> Losses:
    """The minimum: workers, no checks, no waits, no error handling. A baseline."""
    numbers = iter(range(task.images))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {"prompt": f"prompt {number}"}
            async with session.post(f"{task.url}/flux/v1/flux-dev", json=body) as answer:
                job = (await answer.json())["id"]
            async with session.get(f"{task.url}/flux/v1/get_result", params={"id": job}) as answer:
                sample = (await answer.json())["result"]["sample"]
            async with session.get(URL(sample, encoded=True)) as answer:
                image = await answer.read()
            task.path(number).write_bytes(image)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(worker(session) for _ in range(task.slots)))
    return Losses()


async def aiohttp_loop(task: Task, *, tries: int = 1) -> Losses:
    """The usual semaphore and aiohttp; `tries` works like a retry decorator."""

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        body = {"prompt": f"prompt {number}"}
        async with session.post(f"{task.url}/flux/v1/flux-dev", json=body) as answer:
            job = (await answer.json())["id"]
        while True:
            async with session.get(f"{task.url}/flux/v1/get_result", params={"id": job}) as answer:
                status = await answer.json()
            if status["status"] == "Ready":
                break
            await asyncio.sleep(task.pause(0.5))
        async with session.get(URL(status["result"]["sample"], encoded=True)) as answer:
            task.path(number).write_bytes(await answer.read())

    async with aiohttp.ClientSession(raise_for_status=True) as session:
        return await _all(task, partial(one, session), tries=tries)


async def httpx_loop(task: Task) -> Losses:
    """The same on httpx."""
    import httpx

    async def one(client: httpx.AsyncClient, number: int) -> None:
        body = {"prompt": f"prompt {number}"}
        answer = await client.post(f"{task.url}/flux/v1/flux-dev", json=body)
        job = answer.raise_for_status().json()["id"]
        while True:
            answer = await client.get(f"{task.url}/flux/v1/get_result", params={"id": job})
            status = answer.raise_for_status().json()
            if status["status"] == "Ready":
                break
            await asyncio.sleep(task.pause(0.5))
        answer = await client.get(status["result"]["sample"])
        task.path(number).write_bytes(answer.raise_for_status().content)

    async with httpx.AsyncClient(timeout=60) as client:
        return await _all(task, partial(one, client))


async def replicate(task: Task) -> Losses:
    """The `replicate` client from PyPI as its manual shows it: async_run, then read the output."""
    from replicate.client import Client
    from replicate.helpers import FileOutput

    client = Client(api_token="simulated", base_url=task.url)  # noqa: S106 — made up

    async def one(number: int) -> None:
        (output,) = await client.async_run(
            "black-forest-labs/flux-dev", input={"prompt": f"prompt {number}"}
        )
        # the client does this itself, except for plain http URLs
        image = await FileOutput(str(output), client).aread()
        task.path(number).write_bytes(image)

    return await _all(task, one)


async def fal(task: Task) -> Losses:
    """The `fal-client` from PyPI as its manual shows it: subscribe, then fetch the image's URL."""
    import fal_client
    import httpx

    client = fal_client.AsyncClient(key="simulated")

    async def one(images: httpx.AsyncClient, number: int) -> None:
        arguments = {"prompt": f"prompt {number}"}
        interval = task.pause(fal_client.client.DEFAULT_QUEUE_POLL_INTERVAL)
        result = await client.subscribe("fal-ai/flux/dev", arguments, interval=interval)
        answer = await images.get(result["images"][0]["url"])
        task.path(number).write_bytes(answer.raise_for_status().content)

    async with httpx.AsyncClient(timeout=60) as images:
        return await _all(task, partial(one, images))


async def _all(task: Task, one: Callable[[int], Awaitable[None]], *, tries: int = 1) -> Losses:
    """Run one per image, `task.slots` at once, and count the exceptions."""
    semaphore = asyncio.Semaphore(task.slots)

    async def held(number: int) -> None:
        async with semaphore:
            for left in reversed(range(tries)):
                try:
                    return await one(number)
                except Exception:
                    if not left:
                        raise

    ends = await asyncio.gather(*map(held, range(task.images)), return_exceptions=True)
    return Losses(failed=sum(end is not None for end in ends))


Work = Callable[[Task], Awaitable[Losses]]
CONTENDERS: dict[str, Work] = {
    "ours": ours,
    "bare": bare,
    "aiohttp loop": aiohttp_loop,
    "aiohttp loop, 3 tries": partial(aiohttp_loop, tries=3),
    "httpx loop": httpx_loop,
    "replicate": replicate,
    "fal-client": fal,
}
#: the packages that do a contender's work
PACKAGES = {
    "ours": ("fluxasync", "aiohttp"),
    "httpx loop": ("httpx",),
    "replicate": ("replicate", "httpx"),
    "fal-client": ("fal-client", "httpx"),
}


def emptied(folder: Path) -> None:
    """Release a run's disk space but keep its files until the end of the benchmark.

    ext4 without a journal checks the inode of every recently deleted file for each new file: after
    a thousand deletions that takes up to a millisecond.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


def versions(name: str) -> str | None:
    """Return the versions of a contender's packages; None when one is not installed."""
    try:
        return ", ".join(f"{p} {version(p)}" for p in PACKAGES.get(name, ("aiohttp",)))
    except PackageNotFoundError:
        return None


def measure(name: str, task: Task) -> Figures:
    """Run a contender once, in a new process and folder, and return its figures."""
    if name != "ours":  # it creates its folder
        Path(task.folder).mkdir()
    command = [sys.executable, "-m", "benchmarks._contenders", name, json.dumps(asdict(task))]
    environ = dict(os.environ)
    if name == "fal-client":
        environ["FAL_QUEUE_RUN_HOST"] = task.tls_url.removeprefix("https://")
        environ["SSL_CERT_FILE"] = task.certificate
    if task.interval is not None:
        environ["REPLICATE_POLL_INTERVAL"] = str(task.interval)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-4000:]}")
    figures = json.loads(done.stdout)
    return Figures(**figures | {"losses": Losses(**figures["losses"])})


def _main() -> None:
    name, options = sys.argv[1:]
    task = Task(**json.loads(options))
    if task.loop == "uvloop":
        import uvloop

        run = uvloop.run
    else:
        run = asyncio.run
    cpu, wall = _cpu(), time.perf_counter()
    losses = run(CONTENDERS[name](task))  # type: ignore[arg-type]
    cpu, wall = _cpu() - cpu, time.perf_counter() - wall
    rss = peak_memory()
    print(json.dumps(asdict(Figures(cpu=cpu, wall=wall, rss=rss, losses=losses))))


def peak_memory() -> float:
    """Return this process's peak MB; getrusage would include the parent's at the fork."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    _main()
