"""A server that is faster than any client: several processes on one port, three APIs.

    with fast_server(workers=2, images=1000, image_bytes=262144) as server: …

It speaks Flux's submit and poll under the paths of CometAPI and of BFL, CometAPI's list of tasks,
Replicate's predictions and fal's queue (with TLS, because fal's client requires it), and returns
the same image for every job. It calls back each submission's `webhook_url`. The processes share
nothing: a job's id contains its end and its prompt, so each process can answer for it; the list of
tasks is complete with one process only. Each counts its own events, and `fast_server` adds them up
at the end.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from functools import partial
from hashlib import md5
from pathlib import Path
from typing import Any

from attrs import asdict, define, field, frozen

from benchmarks._callbacks import Callbacks
from benchmarks._fast_apis import NOT_FOUND, polled, posted, result
from fluxasync.simulator.durations import lognormal
from fluxasync.simulator.images import Gallery, PictureSpec, padded
from fluxasync.simulator.scenario import SeededRandom

#: a structurally complete JPEG of 16 × 16 pixels, for images of a few bytes
TINY = bytes.fromhex("ffd8ffc0000b080010001001011100ffda0008010100003f0000ffd9")
#: the answer of a proxy whose API is down
BAD_GATEWAY = b"<html><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>"
URL_LIFE = 600  #: seconds

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PROMPT = re.compile(rb"prompt (\d+)\"")
_WEBHOOK = re.compile(rb"\"webhook_url\": *\"([^\"]+)\"")


@frozen(kw_only=True)
class Scenario:
    """The behaviour of the server, given to every process."""

    workers: int = 2
    images: int  #: prompts are "prompt 0" to "prompt N - 1"
    image_bytes: int = 256 * 1024
    mean: float = 0.0  #: seconds of a job; 0 = ready at once
    cv: float = 0.2
    faults: float = 0.0  #: share of exchanges that go wrong, of each kind
    seed: int = 1
    tls: bool = False
    has_tasks: bool = False  #: keep the list of tasks, for one process


@define
class Books:
    """Counts of events, of one process or of all."""

    charges: int = 0
    twice: int = 0  #: charges beyond one per prompt
    polls: int = 0
    downloads: int = 0
    lost_replies: int = 0
    bad_gateways: int = 0
    truncated: int = 0
    callbacks: int = 0  #: that were answered
    lost_callbacks: int = 0  #: whose first try did not arrive
    began: float = float("inf")  #: the first acceptance, on the clock that all processes share
    ended: float = 0.0  #: the last end of a job that a poll saw
    lag: float = 0.0  #: sum of detection lags, in seconds
    work: float = 0.0  #: sum of job durations, in seconds
    cpu: float = 0.0  #: CPU seconds of the server's processes
    paid: bytearray = field(factory=bytearray, repr=False)

    def add(self, other: Books) -> None:
        self.began = min(self.began, other.began)
        self.ended = max(self.ended, other.ended)
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.paid = bytearray(
            min(a + b, 255) for a, b in zip(self.paid or bytes(len(other.paid)), other.paid,
                                            strict=True)
        )  # fmt: skip
        self.twice = sum(count - 1 for count in self.paid if count > 1)


#: the counts of `Books` that add up
SUMS = (
    *("charges", "polls", "downloads", "lost_replies", "bad_gateways", "truncated"),
    *("callbacks", "lost_callbacks", "lag", "work", "cpu"),
)


@define
class Server:
    """A running server: its addresses, and its counts once it has ended."""

    url: str
    tls_url: str
    certificate: str
    image: bytes = field(repr=False)
    books: Books = field(factory=Books)


def drawn(size: int) -> bytes:
    """Return a JPEG of exactly `size` bytes: drawn, or only the frame if that would not fit."""
    if size < 64 * 1024:
        tiny = padded(TINY, size)
        assert tiny is not None
        return tiny
    spec = PictureSpec(prompt="", seed=0, width=1024, height=768, format="jpeg")
    return Gallery(image_bytes=size).picture(spec).body


@contextmanager
def fast_server(**options: Any) -> Iterator[Server]:
    """Start the server's processes; at the end, stop them and fill in `books`."""
    scenario = Scenario(**options)
    with tempfile.TemporaryDirectory() as scratch, _port() as port, _port() as tls_port:
        image = drawn(scenario.image_bytes)
        Path(scratch, "image").write_bytes(image)
        if scenario.tls:
            _make_certificate(Path(scratch))
        options = json.dumps([asdict(scenario), scratch, port, tls_port])
        children = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks._fast_server", options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(scenario.workers)
        ]
        server = Server(
            url=f"http://127.0.0.1:{port}",
            tls_url=f"https://127.0.0.1:{tls_port}",
            certificate=str(Path(scratch, "cert.pem")),
            image=image,
        )
        try:
            for child in children:
                assert child.stdout is not None
                child.stdout.readline()
            yield server
        finally:
            for child in children:
                output, _ = child.communicate(timeout=60)
                if child.returncode:
                    raise RuntimeError("the server of the benchmarks failed; its error is above")
                row = json.loads(output)
                row["paid"] = bytearray.fromhex(row["paid"])
                server.books.add(Books(**row))


@contextmanager
def _port() -> Iterator[int]:
    """Reserve a port for processes that listen on it together."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def _make_certificate(folder: Path) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


# --- one process ----------------------------------------------------------------------------------


class World:
    """The jobs; their ids contain all their state."""

    def __init__(self, scenario: Scenario, image: bytes, url: str, tls_url: str) -> None:
        self.books = Books(paid=bytearray(scenario.images))
        self.url, self.tls_url = url.encode(), tls_url.encode()
        self._scenario = scenario
        self._image = image
        self._rng = SeededRandom(scenario.seed)
        self._seen: set[bytes] = set()
        self._tasks: list[dict[str, Any]] = []
        self.callbacks = Callbacks()
        digest = b64encode(md5(image, usedforsecurity=False).digest())
        self._image_head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n"
            b"Content-MD5: %b\r\n\r\n" % (len(image), digest)
        )
        self._date, self._expiry, self._second = b"", b"", 0

    def submit(self, body: bytes) -> bytes | None:
        """Accept a job and charge for it; None when the reply is lost."""
        found = _PROMPT.search(body)
        assert found is not None, body
        number, now, books = int(found[1]), time.monotonic(), self.books
        takes = 0.0
        if self._scenario.mean:
            takes = lognormal(self._rng, number, mean=self._scenario.mean, cv=self._scenario.cv)
        books.charges += 1
        books.began = min(books.began, now)
        books.work += takes
        before = books.paid[number]
        books.paid[number] = min(before + 1, 255)
        job = b"%016x%08x%08x" % (int(1e6 * (now + takes)), number, books.charges)
        self._list(job.decode(), number)
        if webhook := _WEBHOOK.search(body):
            is_lost = self._goes_wrong("callback", number, before, "lost_callbacks")
            url, told = webhook[1].decode(), partial(result, self, job)
            self.callbacks.plan(url, told, after=takes, lost_first=is_lost)
        return None if self._goes_wrong("submit", number, before, "lost_replies") else job

    def is_ready(self, job: bytes) -> bool | None:
        """Whether a job has ended; None for a 502 from the gateway."""
        self.books.polls += 1
        if self._goes_wrong("poll", job, self.books.polls, "bad_gateways"):
            return None
        if not self._scenario.mean:
            return True
        now, end = time.monotonic(), int(job[:16], 16) / 1e6
        if now < end:
            return False
        if job not in self._seen:
            self._seen.add(job)
            self.books.lag += now - end
            self.books.ended = max(self.books.ended, end)
        return True

    def _list(self, job: str, number: int) -> None:
        if self._scenario.has_tasks:
            named = {"input": f"prompt {number}", "origin_model_name": "flux-dev"}
            times = {"submit_time": int(time.time()), "created_at": int(time.time())}
            self._tasks.append({"task_id": job, "status": "SUBMITTED", "properties": named} | times)

    def tasks(self, page: int, size: int) -> bytes:
        """Return a page of the account's list of tasks, newest first."""
        items = self._tasks[::-1][(page - 1) * size : page * size]
        data = {"page": page, "page_size": size, "total": len(self._tasks), "items": items}
        return json.dumps({"success": True, "message": "", "data": data}).encode()

    def sample(self, job: bytes) -> bytes:
        self._update_time()
        return b"%b/images/%b.jpg?se=%b&sig=c2ln" % (self.url, job, self._expiry)

    def image(self, job: bytes) -> tuple[bytes, bytes, bool]:
        """Return head and body of a download, and whether it is cut off."""
        self.books.downloads += 1
        if self._goes_wrong("image", job, self.books.downloads, "truncated"):
            return self._image_head, self._image[: len(self._image) // 2], True
        return self._image_head, self._image, False

    def head(self, length: int, status: bytes = b"200 OK") -> bytes:
        self._update_time()
        return (
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nDate: %b\r\nContent-Length: %d"
            b"\r\n\r\n" % (status, self._date, length)
        )

    def _update_time(self) -> None:
        second = int(time.time())
        if second == self._second:
            return
        self._second = second
        self._date = formatdate(second, usegmt=True).encode()
        expiry = time.strftime("%Y-%m-%dT%H%%3A%M%%3A%SZ", time.gmtime(second + URL_LIFE))
        self._expiry = expiry.encode()

    def _goes_wrong(self, what: str, which: object, turn: int, count: str) -> bool:
        share = self._scenario.faults
        if not share or self._rng.uniform(what, which, turn) >= share:
            return False
        setattr(self.books, count, getattr(self.books, count) + 1)
        return True


class Connection(asyncio.Protocol):
    """The part of HTTP/1.1 with keep-alive that these clients use."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._got = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            head, whole = self._got[:end], end + 4
            if head.startswith(b"POST") and (length := _LENGTH.search(head)):
                whole += int(length[1])
                if len(self._got) < whole:
                    return
            body, self._got = self._got[end + 4 : whole], self._got[whole:]
            method, target, _ = head.split(b"\r\n", 1)[0].split(b" ", 2)
            self._answer(method, target, body)

    def _answer(self, method: bytes, target: bytes, body: bytes) -> None:
        world, path = self._world, target.partition(b"?")[0]
        if path.startswith(b"/images/"):
            head, image, breaks = world.image(path[8:40])
            self._transport.writelines((head, image))
            if breaks:
                self._transport.close()
            return
        reply = (posted if method == b"POST" else polled)(world, path, target, body)
        if reply is None:
            self._transport.abort() if method == b"POST" else self._send(
                BAD_GATEWAY, b"502 Bad Gateway"
            )
        elif reply is NOT_FOUND:
            self._send(reply, b"404 Not Found")
        else:
            self._send(reply)

    def _send(self, body: bytes, status: bytes = b"200 OK") -> None:
        self._transport.write(self._world.head(len(body), status) + body)


async def _serve(scenario: Scenario, folder: Path, port: int, tls_port: int) -> None:
    loop, failures = asyncio.get_running_loop(), list[Exception]()
    loop.set_exception_handler(lambda _, context: failures.append(_failure(context)))
    image = (folder / "image").read_bytes()
    url, tls_url = f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls_port}"
    world = World(scenario, image, url, tls_url)
    make: Callable[[], Connection] = lambda: Connection(world)  # noqa: E731 — a factory, typed
    shared: dict[str, Any] = {"reuse_port": True, "backlog": 4096}
    await loop.create_server(make, "127.0.0.1", port, **shared)
    if scenario.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        await loop.create_server(make, "127.0.0.1", tls_port, ssl=context, **shared)
    cpu = time.process_time()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    if failures:
        raise failures[0]  # a request that it did not understand: figures would be wrong
    world.books.callbacks = world.callbacks.answered
    world.books.cpu = time.process_time() - cpu
    print(json.dumps(asdict(world.books) | {"paid": world.books.paid.hex()}))


def _failure(context: dict[str, Any]) -> Exception:
    return context.get("exception") or RuntimeError(context["message"])


def _main() -> None:
    options, folder, port, tls_port = json.loads(sys.argv[1])
    run: Callable[[Any], Any] = asyncio.run
    with suppress(ImportError):
        import uvloop

        run = uvloop.run
    run(_serve(Scenario(**options), Path(folder), port, tls_port))


if __name__ == "__main__":
    _main()
