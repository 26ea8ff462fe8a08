"""A prompt file, read twice: once to check all of it, once to run it.

All reading, parsing and counting happens in one thread of its own, in blocks of 1 MiB that cross
to the loop as short lists of ready requests. The first pass keeps a digest of every block and the
second compares before it yields a row, so that no request is made from bytes that were not
checked: 64 KB of digests for a file of 2 GB.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

from .._errors import ConfigError
from .._inputs import resolve_now
from .._models import ImageRequest
from ._lines import Splitter, refuse_wide
from ._plan import BadRow, Numbering, Plan, Tally
from ._reading import Entry, Reading, entry, image_inputs

Result = TypeVar("Result")

_BLOCK = 2**20  #: bytes a read; line by line through a thread costs 100 µs a line
_HAND_OVER = 2_000  #: rows that cross to the loop at once


class Witness:
    """Remembers what the first pass saw of a file, and recognises it in the second."""

    def __init__(self, name: str) -> None:
        self.complete = False  #: the first pass has ended
        self._name = name
        self._stamp: tuple[int, ...] | None = None
        self._digests: list[bytes] = []

    def stat(self, found: os.stat_result) -> None:
        """Raise ConfigError if the file is no longer the one that was opened first."""
        stamp = (found.st_size, found.st_mtime_ns, found.st_ino)
        if self._stamp is None:
            self._stamp = stamp
        self._expect(stamp == self._stamp)

    def block(self, number: int, block: bytes) -> None:
        """Raise ConfigError if this block is not what the first pass read in its place."""
        digest = hashlib.sha256(block).digest()
        if not self.complete:
            self._digests.append(digest)
        self._expect(self._digests[number : number + 1] == [digest])

    def _expect(self, same: bool) -> None:
        if not same:
            raise ConfigError(f"{self._name} changed while it was being read; start again")


class FileSource:
    """Requests from a prompt file. See `Source`."""

    re_readable = True

    def __init__(self, path: Path, *, reading: Reading, limit: int | None, skip_bad: bool) -> None:
        self._path = path
        self._reading = reading
        self._limit = limit
        self._skip_bad = skip_bad
        self._witness = Witness(path.name)
        self._blocks_read = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fluxasync-source")

    async def check(self, *, progress: Callable[[int], None] | None = None) -> Plan:
        self._witness = Witness(self._path.name)
        tally = Tally(limit=self._limit, unknown_keys=self._reading.unknown_keys)
        entries = self._entries()
        try:
            while await self._in_thread(lambda: _take_some(entries, tally)):
                if progress is not None:
                    progress(tally.rows)
        finally:
            await self._in_thread(entries.close)
        self._witness.complete = True
        return tally.plan(skip_bad=self._skip_bad)

    async def requests(self) -> AsyncGenerator[ImageRequest | BadRow, None]:
        if not self._witness.complete:
            await self.check()
        async with aclosing(self._chunks(self._numbered())) as chunks:
            async for chunk in chunks:
                for request in chunk:
                    yield request

    async def aclose(self) -> None:
        self._executor.shutdown(wait=False)  # what it still does is one hand-over

    async def _chunks(
        self, rows: Generator[Result, None, None]
    ) -> AsyncGenerator[list[Result], None]:
        """Carry rows to the loop in lists, making the next while the last is being used."""
        ahead = self._submit(lambda: self._some(rows))
        try:
            while chunk := await asyncio.wrap_future(ahead):
                ahead = self._submit(lambda: self._some(rows))
                yield chunk
        finally:
            await self._in_thread(rows.close)

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        return self._executor.submit(work)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.wrap_future(self._submit(work))

    # What follows runs in the thread.

    def _some(self, rows: Iterator[Result]) -> list[Result]:
        """Return the next rows, of no more than three blocks: of long lines there are few."""
        some: list[Result] = []
        last_block = self._blocks_read + 1
        for row in rows:
            some.append(row)
            if len(some) == _HAND_OVER or self._blocks_read > last_block:
                break
        return some

    def _numbered(self) -> Generator[ImageRequest | BadRow, None, None]:
        with closing(Numbering(limit=self._limit)) as numbering, closing(self._entries()) as rows:
            for row in rows:
                if isinstance(row, BadRow):
                    yield row
                elif row is not None:
                    yield from numbering.images(row)
                if numbering.full:
                    return

    def _entries(self) -> Generator[Entry, None, None]:
        with closing(self._lines()) as lines:
            for number, line in enumerate(lines, start=1):
                yield entry(f"{self._path.name} line {number}", self._request, line)

    def _request(self, line: bytes) -> ImageRequest | None:
        request = self._reading.line(line)
        if request is None or not image_inputs(request):
            return request
        return resolve_now(request, base=self._reading.base)

    def _lines(self) -> Generator[bytes, None, None]:
        splitter = Splitter()
        with closing(self._blocks()) as blocks:
            for number, block in enumerate(blocks):
                if number == 0:
                    refuse_wide(block, name=self._path.name)
                yield from splitter.feed(block)
        yield from splitter.finish()

    def _blocks(self) -> Generator[bytes, None, None]:
        try:
            with self._path.open("rb") as file:
                for number in count():
                    block = file.read(_BLOCK)
                    self._witness.stat(os.fstat(file.fileno()))
                    self._witness.block(number, block)
                    self._blocks_read += 1
                    if not block:
                        return
                    yield block
        except OSError as exc:
            raise ConfigError(f"{self._path.name} cannot be read: {exc.strerror}") from exc


def _take_some(entries: Generator[Entry, None, None], tally: Tally) -> bool:
    """Count the next rows; return whether there may be more."""
    taken = 0
    for row in islice(entries, _HAND_OVER):
        tally.take(row)
        taken += 1
        if tally.full:
            return False
    return taken == _HAND_OVER
