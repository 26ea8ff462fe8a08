"""An S3 that costs next to nothing: of images it reads the bytes and remembers the names only.

    with object_server() as server: …

It is one other process, so its CPU is not the client's. It refuses to create what exists, keeps
and lists what is under `.fluxasync/`, and checks no signature. At its end it knows how many images
it took.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs

from attrs import define

BUCKET = "benchmark"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_DELETED = re.compile(rb"<Key>([^<]+)</Key>")
_ROOT, _OWN = f"/{BUCKET}/".encode(), b"/.fluxasync/"
_TIME, _MODIFIED = b"2026-11-29T00:00:00.000Z", b"Sun, 29 Nov 2026 00:00:00 GMT"


def options(url: str) -> dict[str, str]:
    """Return the options of a store at this server."""
    return {
        "endpoint": url,
        "allow_http": "true",
        "access_key_id": "practice",
        "secret_access_key": "practice",
        "region": "us-east-1",
    }


@define
class ObjectServer:
    """A running server."""

    url: str
    images: int = 0  #: once it has ended


@contextmanager
def object_server(*, delay: float = 0.0) -> Iterator[ObjectServer]:
    """Run the server, which answers after so many seconds; at its end fill in what it took."""
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._object_server", str(delay)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    server = ObjectServer(child.stdout.readline().strip())
    try:
        yield server
    finally:
        output, _ = child.communicate(timeout=20)
        server.images = int(output)


class _Connection(asyncio.Protocol):
    """Calls, one after another."""

    def __init__(self, kept: dict[bytes, bytes], delay: float) -> None:
        self._kept = kept  #: contents by path; of images the name only
        self._delay = delay
        self._head, self._body = b"", bytearray()
        self._left: int | None = None  #: bytes of a body that have not come; None = still the head
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._left is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data, self._head = self._head[end + 4 :], self._head[: end + 2]
            length = _LENGTH.search(self._head)
            self._left = int(length[1]) if length else 0
        self._left -= len(data)
        if _OWN in self._head or self._head.startswith(b"POST"):
            self._body += data
        if not self._left:
            answer = self._answer(self._head, bytes(self._body))
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._transport.write, answer)
            else:
                self._transport.write(answer)
            self._head, self._body, self._left = b"", bytearray(), None

    def _answer(self, head: bytes, body: bytes) -> bytes:
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ", 2)
        path, _, query = target.partition(b"?")
        match method:
            case b"PUT" if path in self._kept and b"if-none-match" in head.lower():
                return _response(b"412 Precondition Failed")
            case b"PUT":
                self._kept[path] = body
                return _response(b"200 OK")
            case b"GET" if b"list-type" in query:
                return _response(b"200 OK", self._listed(query))
            case b"GET" | b"HEAD" if path in self._kept:
                return _response(b"200 OK", self._kept[path], is_head=method == b"HEAD")
            case b"GET" | b"HEAD":
                return _response(b"404 Not Found")
            case b"DELETE":
                self._kept.pop(path, None)
                return _response(b"200 OK")
        for name in _DELETED.findall(body):  # POST: several with one call
            self._kept.pop(_ROOT + name, None)
        return _response(b"200 OK", b"<DeleteResult></DeleteResult>")

    def _listed(self, query: bytes) -> bytes:
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        start, after = (_ROOT + asked.get(name, b"") for name in (b"prefix", b"start-after"))
        rows = (
            b"<Contents><Key>%b</Key><Size>%d</Size><ETag>1</ETag><LastModified>%b</LastModified>"
            b"</Contents>" % (path.removeprefix(_ROOT), len(self._kept[path]), _TIME)
            for path in sorted(self._kept)
            if path.startswith(start) and path > after
        )
        return b"<ListBucketResult>%b</ListBucketResult>" % b"".join(rows)


def _response(status: bytes, body: bytes = b"", *, is_head: bool = False) -> bytes:
    head = b'HTTP/1.1 %b\r\nETag: "1"\r\nLast-Modified: %b\r\nContent-Length: %d\r\n\r\n'
    return head % (status, _MODIFIED, len(body)) + (b"" if is_head else body)


async def _serve() -> None:
    loop, kept, delay = asyncio.get_running_loop(), dict[bytes, bytes](), float(sys.argv[1])
    server = await loop.create_server(lambda: _Connection(kept, delay), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(sum(path.endswith(b".jpg") for path in kept))


if __name__ == "__main__":
    run = asyncio.run
    with suppress(ImportError):
        import uvloop

        run = uvloop.run
    run(_serve())
