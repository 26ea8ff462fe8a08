"""Object stores on loopback: a small S3 that misbehaves on request, and moto's."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Event, Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

from attrs import define, field

from support.patience import patient

BUCKET = "pictures"
SECRET = "not-a-real-secret-9f31"


def options_of(endpoint: str) -> dict[str, str]:
    """The options of a store on loopback, as users write them."""
    return {
        "endpoint": endpoint,
        "allow_http": "true",
        "access_key_id": "AKIAEXAMPLE",
        "secret_access_key": SECRET,
        "region": "us-east-1",
    }


@define
class SmallS3:
    """One bucket over HTTP. What it is asked to do wrong is in its public fields."""

    objects: dict[str, bytes] = field(factory=dict)
    attributes: dict[str, dict[str, str]] = field(factory=dict)
    honours_conditions: bool = True
    refusals: dict[str, int] = field(factory=dict)  #: method → status of every such call
    hiccups: int = 0  #: calls that get a 503 first
    losses: int = 0  #: PUTs that are done, and whose answer is a 503
    drops: int = 0  #: PUTs that are done, and whose connection is closed without an answer
    drops_every: int | None = None  #: the same for one in so many PUTs
    conflicts: int = 0  #: PUTs that are refused as colliding with another call, and not done
    late: int = 0  #: PUTs that are done, and answered after `late_seconds`
    late_seconds: float = 1.0
    loses_probes: bool = False  #: also those of a start
    calls: Counter[str] = field(factory=Counter)  #: by method
    puts: int = 0  #: images that were created
    silent_name: str | None = None  #: a PUT of a name with this in it is done and not answered
    hidden: int = 0  #: GETs of images that do not find them yet
    silent_gets_from: int | None = None  #: from this GET on, none is answered
    silent_from: int | None = None  #: from this image on, PUTs are done and not answered
    is_silent: Event = field(factory=Event)  #: one of them has arrived
    over: Event = field(factory=Event)
    url: str = ""
    modified: dict[str, float] = field(factory=dict)  #: seconds since 1970, by its own clock
    ahead: float = 0.0  #: seconds that its clock is ahead of this machine's
    lock: Condition = field(factory=Condition)  #: notified of each answer

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Wait until something is true after an answer."""
        with self.lock:
            assert self.lock.wait_for(holds, patient())

    def tag(self, name: str) -> str | None:
        """The ETag of an object, which depends on its content as S3's does."""
        content = self.objects.get(name)
        if content is None:
            return None
        return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'

    def images(self) -> dict[str, bytes]:
        """The objects but our own, by name."""
        return {name: held for name, held in self.objects.items() if ".fluxasync/" not in name}


@contextmanager
def small_s3() -> Iterator[SmallS3]:
    """Serve a SmallS3 while the block runs."""
    bucket = SmallS3()

    class Handler(_Handler):
        held = bucket

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # killed clients
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    bucket.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield bucket
    finally:
        bucket.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: SmallS3

    def log_message(self, *_: object) -> None:
        return None

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        with self.held.lock:
            self.held.lock.notify_all()

    def _error(self, status: int) -> None:
        self._answer(status, f"<Error><Code>E{status}</Code></Error>".encode())

    def _name(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").removeprefix("/")

    def _is_refused(self) -> bool:
        with self.held.lock:
            self.held.calls[self.command] += 1
            status = self.held.refusals.get(self.command)
            if status is None and self.held.hiccups:
                self.held.hiccups -= 1
                status = 503
        if status is not None:
            self._error(status)
        return status is not None

    def _is_hidden(self) -> bool:
        held = self.held
        with held.lock:
            is_image = self.command == "GET" and ".fluxasync/" not in self._name()
            if not (is_image and held.hidden):
                return False
            held.hidden -= 1
        return True

    def _is_dropped(self) -> bool:
        held = self.held
        with held.lock:
            if held.drops_every is not None:
                return held.calls["PUT"] % held.drops_every == 0
            if held.drops:
                held.drops -= 1
                return True
        return False

    def _be_silent(self) -> None:
        self.held.is_silent.set()
        self.held.over.wait()

    def do_PUT(self) -> None:
        content, name = self.rfile.read(int(self.headers["Content-Length"])), self._name()
        if self._is_refused():
            return
        held = self.held
        with held.lock:
            is_only_new = self.headers.get("If-None-Match") == "*" and held.honours_conditions
            wanted = self.headers.get("If-Match")
            is_stale = wanted is not None and wanted != held.tag(name)
            if held.conflicts:
                held.conflicts -= 1
                status = 409
            elif is_stale or (is_only_new and name in held.objects):
                status = 412
            else:
                held.objects[name] = content
                held.modified[name] = time.time() + held.ahead
                held.attributes[name] = {k.lower(): v for k, v in self.headers.items()}
                status = 200
                held.puts += ".fluxasync/" not in name
                if held.losses and (held.loses_probes or ".fluxasync/" not in name):
                    held.losses -= 1
                    status = 503
        if self._is_dropped():
            self.close_connection = True
            return
        if status == 200 and held.late:
            held.late -= 1
            held.over.wait(held.late_seconds)
        if status == 200 and held.silent_from is not None and held.puts >= held.silent_from:
            self._be_silent()
        if held.silent_name is not None and held.silent_name in name:
            self._be_silent()
        if status == 200:
            self._answer(200, ETag=held.tag(name) or "")
        else:
            self._error(status)

    def do_GET(self) -> None:
        if self._is_refused():
            return
        silent_from = self.held.silent_gets_from
        if silent_from is not None and self.held.calls["GET"] >= silent_from:
            self._be_silent()
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            after = query.get("start-after", [""])[0]
            self._answer(200, self._listing(query.get("prefix", [""])[0], after))
            return
        content = self.held.objects.get(self._name())
        if content is None or self._is_hidden():
            self._error(404)
            return
        self._answer(
            200,
            content,
            ETag=self.held.tag(self._name()) or "",
            Last_Modified=formatdate(self.held.modified.get(self._name(), 0), usegmt=True),
            Content_Length=str(len(content)),
        )

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        if not self._is_refused():
            self.held.objects.pop(self._name(), None)
            self._answer(204)

    def do_POST(self) -> None:  # several are deleted with one call
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        names = [unescape(part.partition("</Key>")[0]) for part in body.split("<Key>")[1:]]
        for name in names:
            self.held.objects.pop(name, None)
        done = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in names)
        self._answer(200, f"<DeleteResult>{done}</DeleteResult>".encode())

    def _listing(self, prefix: str, after: str) -> bytes:
        rows = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(content)}</Size><ETag>1</ETag>"
            "<LastModified>2026-11-29T00:00:00.000Z</LastModified></Contents>"
            for name, content in sorted(self.held.objects.items())
            if name.startswith(prefix) and name > after
        )
        text = (
            f"<ListBucketResult><Name>{BUCKET}</Name><IsTruncated>false</IsTruncated>"
            f"{rows}</ListBucketResult>"
        )
        return text.encode()


@contextmanager
def moto_s3(folder: Path) -> Iterator[str]:
    """Run moto's S3 in a process of its own with an empty bucket; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
    address = f"http://127.0.0.1:{port}"
    try:
        _make_bucket(address, server)
        yield address
    finally:
        server.terminate()
        server.wait()


def _make_bucket(address: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + patient()
    while True:
        request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")  # noqa: S310 — loopback
        try:
            with urllib.request.urlopen(request):  # noqa: S310 — loopback
                return
        except urllib.error.URLError:
            if server.poll() is not None or time.monotonic() > until:
                raise
        time.sleep(0.05)
