"""A prompt file, read twice: once to check all of it, once to run it.

All reading, parsing and counting happens in one thread of its own, in blocks of 1 MiB that cross
to the loop as short lists of ready requests. The first pass keeps a digest of every block and the
second compares before it yields a row, so that no request is made from bytes that were not
checked: 64 KB of digests for a file of 2 GB. After a first pass that asked what is known, the
second reads only the rows that have something to do.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Container, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing
from itertools import count
from pathlib import Path
from typing import TypeVar

from .._errors import ConfigError
from .._inputs import resolve_now
from .._models import ImageRequest
from ._lines import Splitter, refuse_wide
from ._marks import Marks
from ._plan import BadRow, Numbering, Plan, Tally
from ._reading import Entry, Reading, entry, image_inputs
from ._survey import Lookup, Survey

Result = TypeVar("Result")

#: one of a second pass; None = a block of lines ends
Image = ImageRequest | BadRow | None

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
        self._name = path.name  # said of every row, and slow to ask a path for
        self._reading = reading
        self._limit = limit
        self._skip_bad = skip_bad
        self._witness = Witness(self._name)
        self._marks: Marks | None = None
        self._blocks_read = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fluxasync-source")

    async def check(
        self,
        *,
        progress: Callable[[int], None] | None = None,
        lookup: Lookup | None = None,
    ) -> Plan:
        self._witness = Witness(self._name)
        tally = Tally(limit=self._limit, unknown_keys=self._reading.unknown_keys)
        survey = Survey(tally, lookup=lookup, limit=self._limit)
        self._keep(survey.marks)
        entries = self._entries()
        try:
            while await self._in_thread(lambda: self._take_some(entries, survey)):
                if progress is not None:
                    progress(tally.rows)
        finally:
            await self._in_thread(entries.close)
            await self._in_thread(survey.close)
        self._witness.complete = True
        return tally.plan(skip_bad=self._skip_bad)

    async def requests(
        self, *, skip: Container[str] = frozenset()
    ) -> AsyncGenerator[ImageRequest | BadRow, None]:
        if not self._witness.complete:
            await self.check()
        images = self._numbered() if self._marks is None else self._to_do(self._marks, skip)
        async with aclosing(self._chunks(images)) as chunks:
            async for chunk in chunks:
                for request in chunk:
                    yield request

    async def aclose(self) -> None:
        self._keep(None)
        self._executor.shutdown(wait=False)  # what it still does is one hand-over

    def _keep(self, marks: Marks | None) -> None:
        if self._marks is not None:
            self._submit(self._marks.close)  # after whoever still reads them
        self._marks = marks

    async def _chunks(
        self, images: Generator[Image, None, None]
    ) -> AsyncGenerator[list[ImageRequest | BadRow], None]:
        """Carry images to the loop in lists, making the next while the last is being used."""
        ahead = self._submit(lambda: self._some(images))
        try:
            while (chunk := await asyncio.wrap_future(ahead)) is not None:
                ahead = self._submit(lambda: self._some(images))
                yield chunk
        finally:
            await self._in_thread(images.close)

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        return self._executor.submit(work)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.wrap_future(self._submit(work))

    # What follows runs in the thread. A hand-over is 2,000 rows, but no more than three blocks:
    # of long lines there are few, and of settled ones none.

    def _take_some(self, entries: Iterator[Entry], survey: Survey) -> bool:
        """Count the next rows; return whether there may be more."""
        more, last_block = False, self._blocks_read + 1
        for taken, row in enumerate(entries, start=1):
            survey.take(row)
            if survey.is_due:
                survey.settle(survey.ask())
            more = taken == _HAND_OVER or self._blocks_read > last_block
            if more or survey.full:
                break
        survey.settle(survey.ask())
        return more and not survey.full

    def _some(self, images: Iterator[Image]) -> list[ImageRequest | BadRow] | None:
        """Return the next images, or None after the last."""
        some: list[ImageRequest | BadRow] = []
        last_block = self._blocks_read + 1
        for image in images:
            if image is not None:
                some.append(image)
            if len(some) == _HAND_OVER or self._blocks_read > last_block:
                return some
        return some or None

    def _numbered(self) -> Generator[Image, None, None]:
        """Yield every image, numbered as it comes."""
        with closing(Numbering(limit=self._limit)) as numbering, closing(self._entries()) as rows:
            for row in rows:
                if isinstance(row, BadRow):
                    yield row
                elif row is not None:
                    yield from numbering.images(row)
                if numbering.full:
                    return

    def _to_do(self, marks: Marks, skip: Container[str]) -> Generator[Image, None, None]:
        """Yield the images that are to do, with the numbers of the first pass."""
        to_do, begun = marks.to_do(skip), 0
        with closing(self._line_lists()) as blocks:
            for lines in blocks:
                for mark in to_do.rows(len(lines)):
                    where = self._where(mark.row + 1)
                    yield from mark.images(where, self._entry(where, lines[mark.row - begun]))
                if to_do.images == self._limit:
                    return
                begun += len(lines)
                yield None

    def _entries(self) -> Generator[Entry, None, None]:
        number = 0
        with closing(self._line_lists()) as blocks:
            for lines in blocks:
                for line in lines:
                    number += 1
                    yield self._entry(self._where(number), line)

    def _where(self, number: int) -> str:
        return f"{self._name} line {number}"

    def _entry(self, where: str, line: bytes) -> Entry:
        return entry(where, self._request, line)

    def _request(self, line: bytes) -> ImageRequest | None:
        request = self._reading.line(line)
        if request is None or not image_inputs(request):
            return request
        return resolve_now(request, base=self._reading.base)

    def _line_lists(self) -> Generator[list[bytes], None, None]:
        splitter = Splitter()
        with closing(self._blocks()) as blocks:
            for number, block in enumerate(blocks):
                if number == 0:
                    refuse_wide(block, name=self._name)
                yield splitter.feed(block)
        yield splitter.finish()

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
            raise ConfigError(f"{self._name} cannot be read: {exc.strerror}") from exc
