"""A prompt file of any format, read twice: once to check all of it, once to run it.

A sample is drawn in a pass before these. All reading, parsing and counting happens in one thread of
its own, in blocks of 1 MiB that cross to the loop as short lists of ready requests. The first pass
keeps a digest of every block and each later one compares before it yields a row, so that no request
is made from bytes that were not checked: 64 KB of digests for a file of 2 GB. After a first pass
that asked what is known, the second reads only the rows that have something to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Container, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from ..._core.errors import ConfigError
from ..._core.models import ImageRequest
from .compression import Witness
from .formats import Format
from .marks import Marks
from .plan import BadRow, Numbering, Plan, PlanCounts
from .row_reader import Entry, RowReader, settled
from .sample import Draw, Sample
from .survey import Lookup, Survey

Result = TypeVar("Result")

#: one of a second pass; None = a list of rows ends
Image = ImageRequest | BadRow | None


class _Turn(Enum):
    """Stands between rows where a format has read on, and whoever waits may have a turn."""

    NOW = "now"


_HAND_OVER = 2_000  #: rows that cross to the loop at once


class FileSource:
    """Requests from a prompt file. See `Source`."""

    re_readable = True

    def __init__(
        self,
        path: Path,
        form: Format,
        *,
        reading: RowReader,
        limit: int | None,
        skip_bad: bool,
        sample: Sample | None = None,
    ) -> None:
        self._name = path.name
        self._format = form
        self._reading = reading
        self._limit = limit
        self._skip_bad = skip_bad
        self._sample = sample
        self._is_whole = limit is None and sample is None
        self._chosen: frozenset[int] | None = None  #: places of the sample's rows, from 0
        self._witness = Witness(self._name)
        self._lists = 0  #: of rows, taken so far in all passes
        self._checked = False
        self._marks: Marks | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fluxasync-source")

    async def check(
        self,
        *,
        progress: Callable[[int], None] | None = None,
        lookup: Lookup | None = None,
    ) -> Plan:
        self._checked = False
        self._witness = Witness(self._name)
        await self._draw()
        tally = PlanCounts(
            limit=self._limit, unknown_keys=self._reading.unknown_keys, skip_bad=self._skip_bad
        )
        survey = Survey(tally, lookup=lookup, limit=self._limit)
        self._keep(survey.marks)
        entries = self._entries()
        try:
            while await self._in_thread(lambda: self._take_some(entries, survey)):
                if progress is not None:
                    progress(tally.read)
        finally:
            await self._in_thread(entries.close)
            await self._in_thread(survey.close)
        self._witness.complete = True
        plan = tally.plan(notes=self._reading.all_notes())
        self._reading.refuse_unseen()
        if self._is_whole:
            self._reading.refuse_unused()
        self._checked = True
        return plan

    async def requests(
        self, *, skip: Container[str] = frozenset()
    ) -> AsyncGenerator[ImageRequest | BadRow, None]:
        if not self._checked:
            await self.check()
        images = self._numbered() if self._marks is None else self._to_do(self._marks, skip)
        async with aclosing(self._chunks(images)) as chunks:
            async for chunk in chunks:
                for request in chunk:
                    yield request

    async def aclose(self) -> None:
        self._keep(None)
        self._executor.shutdown(wait=False)  # what it still does is one hand-over

    async def _draw(self) -> None:
        """Choose the sample's rows, a list of rows at a time, so that this can be cancelled."""
        self._chosen = None
        if self._sample is None:
            return
        draw, lists = Draw(self._sample), self._format.lists(self._witness)
        try:
            while await self._in_thread(lambda: self._drawn(draw, lists)):
                pass
        finally:
            await self._in_thread(lists.close)
        self._witness.complete = True
        self._chosen = draw.places

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

    # What follows runs in the thread. A hand-over is 2,000 rows, but no more than three lists:
    # of long rows there are few, and of settled ones none.

    def _take_some(self, entries: Iterator[Entry | _Turn], survey: Survey) -> bool:
        """Count the next rows; return whether there may be more."""
        more, last_list = False, self._lists + 1
        for taken, row in enumerate(entries, start=1):
            if isinstance(row, _Turn):
                more = True
                break
            survey.take(row)
            if survey.is_due:
                survey.settle(survey.ask())
            more = taken == _HAND_OVER or self._lists > last_list
            if more or survey.full:
                break
        survey.settle(survey.ask())
        return more and not survey.full

    def _some(self, images: Iterator[Image]) -> list[ImageRequest | BadRow] | None:
        """Return the next images, or None after the last."""
        some: list[ImageRequest | BadRow] = []
        last_list = self._lists + 1
        for image in images:
            if image is not None:
                some.append(image)
            if len(some) == _HAND_OVER or self._lists > last_list:
                return some
        return some or None

    def _numbered(self) -> Generator[Image, None, None]:
        """Yield every image, numbered as it comes."""
        with closing(Numbering(limit=self._limit)) as numbering, closing(self._entries()) as rows:
            for row in rows:
                if row is None or isinstance(row, _Turn):
                    yield None
                elif isinstance(row, BadRow):
                    yield row
                else:
                    yield from numbering.images(row)
                if numbering.full:
                    return

    def _to_do(self, marks: Marks, skip: Container[str]) -> Generator[Image, None, None]:
        """Yield the images that are to do, with the numbers of the first pass."""
        to_do, begun = marks.to_do(skip), 0
        with closing(self._format.lists(self._witness)) as lists:
            for rows in lists:
                self._lists += 1
                for mark in to_do.rows(len(rows)):
                    where = self._format.where(mark.row + 1)
                    entry = self._entry(mark.row + 1, rows[mark.row - begun])
                    yield from mark.images(where, entry)
                if to_do.images == self._limit:
                    return
                begun += len(rows)
                yield None

    def _entries(self) -> Generator[Entry | _Turn, None, None]:
        number, chosen = 0, self._chosen
        with closing(self._format.lists(self._witness)) as lists:
            for rows in lists:
                self._lists += 1
                if not rows:
                    yield _Turn.NOW
                for row in rows:
                    number += 1
                    if chosen is None or number - 1 in chosen:
                        yield self._entry(number, row)
                    else:
                        yield None

    def _entry(self, number: int, row: Any) -> Entry:
        try:
            return settled(self._format.read(row), base=self._reading.base)
        except ConfigError as error:
            return BadRow(where=self._format.where(number), error=error)

    def _drawn(self, draw: Draw, lists: Iterator[list[Any]]) -> bool:
        """Show the draw the next rows; return whether there were any."""
        rows = next(lists, None)
        if rows is not None:
            draw.take(map(self._format.content, rows))
        return rows is not None
