"""The durable floor: the shortest loop that keeps fluxasync's promises for an ordinary image.

The intent is durable before the POST, the id before the poll. The image is read whole, compared
with its Content-MD5, hashed with SHA-256, checked for a whole JPEG, written under a temporary name,
synced and linked to its final name. The folder is synced once for all images of a group. Then a
row says that the image is done. Commits and images go in groups: a thread takes all that waits, and
tells the loop once.

There are no limits, retries, checks of answers, lists or events, so nothing with this set of
promises can be much cheaper in Python. `tests/integration/test_floor.py` holds it to them.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import md5, sha256
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import aiohttp
from yarl import URL

_T = TypeVar("_T")
JOURNAL = "journal.db"

TABLE = "CREATE TABLE image (number INTEGER PRIMARY KEY, state TEXT, job TEXT, sha256 TEXT)"
INTENT = "INSERT INTO image VALUES (?, 'intent', NULL, NULL)"
ANSWERED = "UPDATE image SET state = 'job', job = ? WHERE number = ?"
DONE = "UPDATE image SET state = 'done', sha256 = ? WHERE number = ?"


class Groups(Generic[_T]):
    """Threads that take all that waits as one group, and tell the loop once for each."""

    def __init__(self, work: Callable[[list[_T]], list[Any]], *, threads: int) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[tuple[_T, asyncio.Future[Any]] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    async def do(self, item: _T) -> Any:
        """Return the item's result once its group is finished."""
        done: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.put((item, done))
        return await done

    def close(self) -> None:
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first, *self._others()]
            try:
                results = self._work([item for item, _ in group])
            except BaseException as error:
                self._loop.call_soon_threadsafe(_fail, group, error)
            else:
                self._loop.call_soon_threadsafe(_finish, group, results)

    def _others(self) -> Iterator[tuple[_T, asyncio.Future[Any]]]:
        with suppress(Empty):
            while (found := self._waiting.get_nowait()) is not None:
                yield found
            self._waiting.put(None)  # the end, of this thread or of another


def _finish(group: list[tuple[Any, asyncio.Future[Any]]], results: list[Any]) -> None:
    for (_, done), result in zip(group, results, strict=True):
        done.set_result(result)


def _fail(group: list[tuple[Any, asyncio.Future[Any]]], error: BaseException) -> None:
    for _, done in group:
        done.set_exception(error)


class Disk:
    """Keeps images in a folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def keep(self, group: list[tuple[int, bytes, str | None]]) -> list[str]:
        """Store images (number, bytes, MD5 in base64) durably; return their SHA-256."""
        digests = [self._stored(*each) for each in group]
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return digests

    def _stored(self, number: int, image: bytes, expected: str | None) -> str:
        if expected and md5(image, usedforsecurity=False).digest() != b64decode(expected):
            raise ValueError("not what the server sent")
        if not (image.startswith(b"\xff\xd8") and image.endswith(b"\xff\xd9")):
            raise ValueError("not a whole JPEG")
        digest = sha256(image).hexdigest()
        name = f"{self._folder}/{number:06}.jpg"
        part = f"{self._folder}/.{number:06}.part"
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            written = os.write(file, image)
            if written != len(image):
                raise OSError("short write")
            os.fsync(file)
        finally:
            os.close(file)
        os.link(part, name)
        os.unlink(part)
        return digest


class Journal:
    """Rows of images; each group is one durable commit."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, JOURNAL)
        self._connection: sqlite3.Connection | None = None

    def commit(self, group: list[tuple[str, tuple[object, ...]]]) -> list[None]:
        connection = self._connection or self._opened()
        connection.execute("BEGIN IMMEDIATE")
        for statement, values in group:
            connection.execute(statement, values)
        connection.execute("COMMIT")
        return [None] * len(group)

    def _opened(self) -> sqlite3.Connection:
        self._connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(TABLE)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


async def run(url: str, folder: str, *, images: int, slots: int) -> None:
    """Make the images with so many workers."""
    journal, disk = Journal(folder), Disk(folder)
    commits = Groups(journal.commit, threads=1)
    stored = Groups(disk.keep, threads=2)
    numbers = iter(range(images))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            await commits.do((INTENT, (number,)))
            body = {"prompt": f"prompt {number}"}
            async with session.post(f"{url}/flux/v1/flux-dev", json=body) as answer:
                job = (await answer.json())["id"]
            await commits.do((ANSWERED, (job, number)))
            async with session.get(f"{url}/flux/v1/get_result", params={"id": job}) as answer:
                sample = (await answer.json())["result"]["sample"]
            async with session.get(URL(sample, encoded=True)) as answer:
                image = await answer.read()
                expected = answer.headers.get("Content-MD5")
            digest = await stored.do((number, image, expected))
            await commits.do((DONE, (digest, number)))

    connector = aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:
            await asyncio.gather(*(worker(session) for _ in range(slots)))
    finally:
        commits.close()
        stored.close()
        journal.close()
