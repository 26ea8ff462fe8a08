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
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import aiohttp
from attrs import asdict, frozen
from yarl import URL

from benchmarks import _durable_floor
from benchmarks._object_server import BUCKET
from benchmarks._object_server import options as store_options
from fluxasync import Batch, Credentials, FluxSession, Limits, ObjectSink, Polling
from fluxasync.webhooks import Webhook


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
    store: str = ""  #: address of an object store, for the one that uses it

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


async def ours(
    task: Task,
    *,
    access_token: str | None = None,
    webhook: Webhook | None = None,
    out: ObjectSink | None = None,
    state: str | None = None,
) -> Losses:
    """fluxasync with everything on: journal, verify, fsync, metadata. Lost submissions are found
    in the account's list of tasks with an access token, and by their callbacks with a webhook."""
    prompts = (f"prompt {number}" for number in range(task.images))
    polling = Polling(interval=task.interval, webhook=webhook)
    limits = Limits(in_flight=task.slots)
    credentials = Credentials(access_token=access_token)
    async with (
        FluxSession(base_url=task.url, api_key=credentials, limits=limits, polling=polling) as flux,
        Batch(flux, prompts, out=out or task.folder, state=state) as batch,
    ):
        async for _ in batch:
            pass
    return Losses(failed=batch.summary.failed.total(), in_doubt=batch.summary.in_doubt)


async def ours_into_a_bucket(task: Task, *, is_logged: bool = True) -> Losses:
    """The same with the images in a bucket; `is_logged` = the record too, else in the folder."""
    # one folder under the URL for each run of a store that keeps its objects
    url = f"s3://{BUCKET}/{Path(task.folder).parent.name}"
    os.environ["XDG_CACHE_HOME"] = str(Path(task.folder).parent)  # of the copy of the record
    return await ours(
        task,
        out=ObjectSink(url, options=store_options(task.store)),
        state=None if is_logged else task.folder,
    )


async def ours_called_back(task: Task) -> Losses:
    """The same, with callbacks to a port of this machine."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{holder.getsockname()[1]}"
    return await ours(task, webhook=Webhook(url=f"http://{listen}/hook", listen=listen))


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


async def floor(task: Task) -> Losses:
    """The shortest loop that keeps the promises of ours; it ends at the first fault."""
    await _durable_floor.run(task.url, task.folder, images=task.images, slots=task.slots)
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


async def blackforest(task: Task) -> Losses:
    """The vendor's `blackforest` from PyPI as its manual shows it: generate and wait, in threads.

    Its session is not made for several threads, so each has a client. The manual fetches no image;
    a session of its own does that here, because the client's would send the key with it.
    """
    import requests
    from blackforest import BFLClient
    from blackforest.types.general.client_config import ClientConfig

    own = threading.local()
    interval = max(0.1, task.pause(1.0))  # the client's least and its usual one
    config = ClientConfig(sync=True, polling_interval=interval)

    def one(number: int) -> None:
        if not hasattr(own, "client"):
            own.client = BFLClient(api_key="simulated", base_url=task.url)
            own.images = requests.Session()
        made = own.client.generate("flux-dev", {"prompt": f"prompt {number}"}, config)
        answer = own.images.get(made.result["sample"], timeout=60)
        answer.raise_for_status()
        task.path(number).write_bytes(answer.content)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(task.slots) as threads:
        works = (loop.run_in_executor(threads, one, number) for number in range(task.images))
        ends = await asyncio.gather(*works, return_exceptions=True)
    return Losses(failed=sum(end is not None for end in ends))


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
    "ours, task list": partial(ours, access_token="simulated"),  # noqa: S106 — made up
    "ours, webhooks": ours_called_back,
    "ours, images in a bucket": partial(ours_into_a_bucket, is_logged=False),
    "ours, bucket": ours_into_a_bucket,
    "bare": bare,
    "floor": floor,
    "aiohttp loop": aiohttp_loop,
    "aiohttp loop, 3 tries": partial(aiohttp_loop, tries=3),
    "httpx loop": httpx_loop,
    "replicate": replicate,
    "fal-client": fal,
    "blackforest": blackforest,
}
#: the packages that do a contender's work
PACKAGES = {
    "ours": ("fluxasync", "aiohttp"),
    "ours, task list": ("fluxasync", "aiohttp"),
    "ours, webhooks": ("fluxasync", "aiohttp"),
    "ours, images in a bucket": ("fluxasync", "aiohttp", "obstore"),
    "ours, bucket": ("fluxasync", "aiohttp", "obstore"),
    "httpx loop": ("httpx",),
    "replicate": ("replicate", "httpx"),
    "fal-client": ("fal-client", "httpx"),
    "blackforest": ("blackforest", "requests"),
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
    if not name.startswith("ours"):  # it creates its folder
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
    figures = json.loads(done.stdout.splitlines()[-1])  # `blackforest` prints each of its polls
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
