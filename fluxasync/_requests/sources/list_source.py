"""Requests from a list or tuple: checked whole before anything is spent, like a file.

Rows are read on the loop, which gets a turn now and then; only the questions about what is known,
which may go to a disk, have a thread of their own. The program's list is copied, so that it may
change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from ..._core.models import ImageRequest
from .marks import Marks
from .plan import BadRow, Plan, PlanCounts
from .row_reader import LEFT_OUT, Entry, RowReader
from .sample import Draw, Sample
from .stream import TURN, entries_of, entry_of, items, numbered
from .survey import Lookup, Survey


class ListSource:
    """Requests from a list or tuple. See `Source`."""

    re_readable = True

    def __init__(
        self,
        given: Iterable[object],
        *,
        reading: RowReader,
        limit: int | None,
        skip_bad: bool,
        sample: Sample | None = None,
    ) -> None:
        self._given = _sampled(tuple(given), sample)
        self._reading = reading
        self._limit = limit
        self._is_whole = limit is None and sample is None
        self._skip_bad = skip_bad
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
        tally = PlanCounts(
            limit=self._limit, unknown_keys=self._reading.unknown_keys, skip_bad=self._skip_bad
        )
        survey = Survey(tally, lookup=lookup, limit=self._limit)
        self._keep(survey.marks)
        try:
            await self._take_all(survey, tally, progress)
        finally:
            survey.close()
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
        if self._marks is None:
            images = numbered(self._entries(), limit=self._limit)
        else:
            images = self._to_do(self._marks, skip)
        async with aclosing(images) as requests:
            async for request in requests:
                yield request

    async def aclose(self) -> None:
        self._keep(None)
        self._executor.shutdown(wait=False)  # what it still does is one question

    def _keep(self, marks: Marks | None) -> None:
        if self._marks is not None:
            self._marks.close()
        self._marks = marks

    async def _take_all(
        self, survey: Survey, tally: PlanCounts, progress: Callable[[int], None] | None
    ) -> None:
        async with aclosing(self._entries()) as entries:
            async for row in entries:
                survey.take(row)
                if survey.full:
                    break
                if survey.is_due:
                    await self._settle(survey)
                if progress is not None and tally.rows and tally.rows % TURN == 0:
                    progress(tally.rows)
        await self._settle(survey)

    async def _settle(self, survey: Survey) -> None:
        if survey.asks:
            loop = asyncio.get_running_loop()
            survey.settle(await loop.run_in_executor(self._executor, survey.ask))

    def _entries(self) -> AsyncGenerator[Entry, None]:
        return entries_of(items(self._given), self._reading.item, self._reading)

    async def _to_do(
        self, marks: Marks, skip: Container[str]
    ) -> AsyncGenerator[ImageRequest | BadRow, None]:
        """Yield the images that are to do, with the numbers of the first pass."""
        to_do = marks.to_do(skip)
        for _ in range(0, len(self._given), TURN):
            for mark in to_do.rows(TURN):
                where = f"item {mark.row + 1}"
                given = self._given[mark.row]
                row = await entry_of(where, given, self._reading.item, self._reading)
                for image in mark.images(where, row):
                    yield image
            await asyncio.sleep(0)


def _sampled(given: tuple[object, ...], sample: Sample | None) -> tuple[object, ...]:
    """Leave out what is not in the sample, so that the others keep their places."""
    if sample is None:
        return given
    draw = Draw(sample)
    draw.take(repr(item).encode(errors="surrogatepass") for item in given)
    chosen = draw.places
    return tuple(item if place in chosen else LEFT_OUT for place, item in enumerate(given))
