"""A prompt file or a program's list: checked whole before anything is spent, then run.

All reading, parsing and counting happens in one thread of the source's own, in steps of some
hundred rows, so that the check can be cancelled and the loop is never blocked.
"""

from __future__ import annotations

import asyncio
import hashlib
from asyncio import Future
from collections.abc import AsyncGenerator, Callable, Container, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from itertools import islice, repeat
from typing import Any, TypeVar

from attrs import evolve

from ..._core.errors import ConfigError
from ..._core.models import ImageRequest, occurrence_key
from ..._core.prices import NO_PRICES, Prices
from .expansion import RepeatedImages
from .formats import LIST_CAP, Format
from .plan import (
    DONE,
    EDITED,
    BadRow,
    ExpandedRow,
    Lookup,
    Numbering,
    Numbers,
    Plan,
    PlanCounts,
    images_of,
    requests_of,
)
from .repeated_names import RepeatedNames
from .row_reader import ParsedRow, RowReader, RowResult, image_inputs, with_inputs_read
from .spool import ImageValues, RowValues, Sample, Spool, SpooledRow, pack

Result = TypeVar("Result")

#: rows or keys that are looked up and stored at once. What waits is visited by the garbage
#: collector again and again: with 2,000 that took 2 s a million longer
BLOCK = 500

_HAND_OVER = 2_000  #: images that cross to the loop at once

_END = object()


class ListedSource:
    """Requests from a file, a folder or a list. See `Source`."""

    re_readable = True

    def __init__(
        self,
        form: Format,
        *,
        reading: RowReader,
        limit: int | None,
        skip_bad: bool,
        sample: Sample | None = None,
        prices: Prices = NO_PRICES,
        numbering: type[Numbering] = Numbering,
        name_of: Callable[[ImageRequest], str] | None = None,
    ) -> None:
        self._format = form
        self._reading = reading
        self._limit = limit
        self._skip_bad = skip_bad
        self._sample = sample
        self._prices = prices
        self._numbering = numbering
        self._name_of = name_of
        self._is_whole = limit is None and sample is None
        self._spool: Spool | None = None
        self._is_checked = False
        self._repeated = RepeatedImages()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fluxasync-source")

    async def check(
        self,
        *,
        progress: Callable[[int], None] | None = None,
        lookup: Lookup | None = None,
    ) -> Plan:
        self._is_checked = False
        self._repeated = RepeatedImages()
        self._keep(spool := await self._in_thread(Spool))
        counts = PlanCounts(
            limit=self._limit,
            unknown_keys=self._reading.unknown_keys,
            unchecked_keys=self._reading.unchecked_keys,
            skip_bad=self._skip_bad,
            prices=self._prices,
        )
        names = RepeatedNames(self._name_of)
        steps = self._checking(spool, counts, names, lookup)
        try:
            while await self._in_thread(lambda: next(steps, _END)) is not _END:
                if progress is not None:
                    progress(counts.read)
        finally:
            await self._in_thread(steps.close)
        notes = [*self._repeated.notes(), *names.notes(), *self._reading.all_notes()]
        plan = counts.plan(notes=notes)
        if self._reading.syntax_check is not None:
            self._reading.syntax_check.settle()
        self._reading.refuse_unseen()
        if self._is_whole:
            self._reading.refuse_unused()
        self._is_checked = True
        return plan

    async def requests(
        self, *, skip: Container[str] = frozenset()
    ) -> AsyncGenerator[ImageRequest | BadRow, None]:
        if not self._is_checked:
            await self.check()
        assert self._spool is not None  # noqa: S101 — the check made it
        async with aclosing(self._chunks(self._to_do(self._spool, skip))) as chunks:
            async for chunk in chunks:
                for request in chunk:
                    yield request

    async def aclose(self) -> None:
        self._keep(None)
        self._executor.shutdown(wait=False)  # what it still does is one step

    @property
    def _has_templates(self) -> bool:
        spread = self._reading.spread
        return spread is not None and spread.wildcards is not None

    def _keep(self, spool: Spool | None) -> None:
        if self._spool is not None:
            self._executor.submit(self._spool.close)  # after the readers' steps
        self._spool = spool

    async def _chunks(
        self, images: Generator[list[ImageRequest | BadRow], None, None]
    ) -> AsyncGenerator[list[ImageRequest | BadRow], None]:
        """Carry images to the loop in lists, making the next while the last is being used."""
        ahead = self._in_thread(lambda: next(images, None))
        try:
            while (chunk := await ahead) is not None:
                ahead = self._in_thread(lambda: next(images, None))
                yield chunk
        finally:
            ahead.add_done_callback(_retrieve)  # a reader that stops early leaves it unread
            await self._in_thread(images.close)

    def _in_thread(self, work: Callable[[], Result]) -> Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    # What follows runs in the thread.

    def _checking(
        self, spool: Spool, counts: PlanCounts, names: RepeatedNames, lookup: Lookup | None
    ) -> Generator[None, None, None]:
        """Check, count and spool the whole list, a step at a time."""
        block = _Block(spool, counts, lookup)
        with (
            closing(self._numbering(limit=self._limit)) as numbering,
            closing(self._rows(spool, counts)) as rows,
            closing(names),
        ):
            for found in rows:
                if found is not None:
                    number, raw = found
                    entry = self._entry(number, raw)
                    numbers: Numbers = ()
                    if entry is not None and not isinstance(entry, BadRow):
                        try:
                            numbers = numbering.numbers(entry)
                        except ConfigError as error:
                            entry = BadRow(where=self._format.where(number), error=error)
                    if isinstance(entry, ExpandedRow) and self._has_templates:
                        where = self._format.where(number)
                        self._repeated.add(where, entry.requests, len(numbers))
                    if numbers:
                        assert not isinstance(entry, BadRow | None)  # noqa: S101 — it has images
                        names.add(self._format.where(number), requests_of(entry))
                    block.take(number, raw, entry, numbers)
                if numbering.full or counts.is_hopeless:
                    break
                if found is None or block.is_due:
                    block.settle()
                    yield
            block.settle()

    def _rows(
        self, spool: Spool, counts: PlanCounts
    ) -> Generator[tuple[int, Any] | None, None, None]:
        """Yield the number and the raw form of each row, of a sample those in it; None = a turn."""
        if self._sample is None:
            yield from self._numbered_rows()
            return
        read = 0

        def contents() -> Iterator[tuple[int, Any, bytes]]:
            nonlocal read
            for found in self._numbered_rows():
                if found is not None:
                    read += 1
                    yield *found, self._format.content(found[1])

        taken = 0
        with closing(spool.sampled(contents(), self._sample)) as rows:
            for row in rows:
                taken += row is not None
                if row is not None or read % BLOCK == 0:
                    yield row
        counts.pass_over(read - taken)

    def _numbered_rows(self) -> Generator[tuple[int, Any] | None, None, None]:
        number = 0
        with closing(self._format.lists()) as lists:
            for rows in lists:
                for raw in rows:
                    number += 1
                    yield number, raw
                if not rows:
                    yield None

    def _entry(self, number: int, raw: Any) -> RowResult:
        check = self._reading.syntax_check
        if check is not None:
            check.begin()
        try:
            parsed = with_inputs_read(self._format.read(raw), base=self._reading.base)
            if check is not None and check.has_news:
                check.at(self._format.where(number))
            return parsed
        except ConfigError as error:
            if check is not None:
                check.forget()
            return BadRow(where=self._format.where(number), error=error)

    def _to_do(
        self, spool: Spool, skip: Container[str]
    ) -> Generator[list[ImageRequest | BadRow], None, None]:
        """Yield the images that are to do in lists, of 2,000 or of about 4 MB."""
        some: list[ImageRequest | BadRow] = []
        held = 0
        for row in spool.to_do(skip):
            for image in self._images(row):
                some.append(image)
                if len(some) == _HAND_OVER:
                    yield some
                    some, held = [], 0
            held += row.size
            if held > LIST_CAP:
                yield some
                some, held = [], 0
        if some:
            yield some

    def _images(self, row: SpooledRow) -> Iterator[ImageRequest | BadRow]:
        """Read a row again and yield its images that are to do, as the check numbered them."""
        where = self._format.where(row.number)
        if row.is_bad:
            yield BadRow(where=where, error=ConfigError(row.raw))
            return
        entry = self._entry(row.number, row.raw)
        if isinstance(entry, BadRow):
            yield entry
            return
        assert entry is not None  # noqa: S101 — a blank row has no images
        if row.content is not None and row.content != _digest(entry):
            error = ConfigError("an image input changed since it was checked; start again")
            yield BadRow(where=where, error=error)
            return
        wanted = iter(row.images)
        image = next(wanted, None)
        for place, request in enumerate(images_of(entry)):
            if image is None:
                return
            if place == image.place:
                yield evolve(request, index=image.index, occurrence=image.occurrence)
                image = next(wanted, None)


def _retrieve(future: Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


class _Block:
    """Rows that wait to be looked up, counted and stored together."""

    def __init__(self, spool: Spool, counts: PlanCounts, lookup: Lookup | None) -> None:
        self._spool, self._counts, self._lookup = spool, counts, lookup
        self._rows: list[tuple[int, bytes, ParsedRow | BadRow, Numbers]] = []
        self._taken = 0  #: rows, blank ones included
        self._images = 0
        self._size = 0  #: bytes

    @property
    def is_due(self) -> bool:
        return max(self._taken, self._images) >= BLOCK or self._size > LIST_CAP

    def take(self, number: int, raw: Any, entry: RowResult, numbers: Numbers) -> None:
        self._taken += 1
        if entry is None or isinstance(entry, BadRow):  # nothing to look up
            self._counts.take(entry)
        if entry is not None:
            packed = pack(str(entry.error) if isinstance(entry, BadRow) else raw)
            self._rows.append((number, packed, entry, numbers))
            self._images += len(numbers)
            self._size += len(packed)

    def settle(self) -> None:
        """Look up, count and store the rows that wait."""
        states = iter(self._states())
        rows: list[RowValues] = []
        images: list[ImageValues] = []
        for number, packed, entry, numbers in self._rows:
            if isinstance(entry, BadRow):
                rows.append((number, None, packed))
                images.append((number, 0, None, 0, None))
                continue
            known = [*islice(states, len(numbers))]
            self._counts.take(entry, known)
            rows.append((number, _digest(entry) if image_inputs(entry) else None, packed))
            for place, (_, occurrence, index) in enumerate(numbers):
                images.append((number, place, index, occurrence, known[place]))
        self._spool.add(rows, images)
        self._taken = self._images = self._size = 0
        self._rows.clear()

    def _states(self) -> Sequence[str | None]:
        """Return what earlier runs left of each image that waits."""
        if self._lookup is None:
            return [None] * self._images
        keys = [
            occurrence_key(content, occurrence)
            for *_, numbers in self._rows
            for content, occurrence, _ in numbers
        ]
        states: list[str | None] = []
        for start in range(0, len(keys), BLOCK):
            some = keys[start : start + BLOCK]
            states += self._marked(some, self._lookup(some), start)
        return states

    def _marked(
        self, keys: Sequence[str], states: Sequence[str | None], start: int
    ) -> list[str | None]:
        """Return the states, with EDITED for each saved image whose row has other extras now."""
        marked = list(states)
        find_edited = getattr(self._lookup, "edited", None)
        done = [place for place, state in enumerate(states) if state == DONE]
        if not done or find_edited is None:
            return marked
        extras = [
            request.extras
            for *_, entry, numbers in self._rows
            if not isinstance(entry, BadRow)
            for request in islice(_of_each_image(entry), len(numbers))
        ]
        edited = find_edited([(keys[place], extras[start + place]) for place in done])
        for place, is_edited in zip(done, edited, strict=True):
            if is_edited:
                marked[place] = EDITED
        return marked


def _of_each_image(parsed: ParsedRow) -> Iterator[ImageRequest]:
    """Yield the request of each image of a row, in order."""
    for request in requests_of(parsed):
        yield from repeat(request, request.n)


def _digest(parsed: ParsedRow) -> bytes:
    """Return the fingerprint of the row's image inputs, to detect a change since the check."""
    keys = "".join(request.content_key for request in requests_of(parsed))
    return hashlib.sha256(keys.encode()).digest()
