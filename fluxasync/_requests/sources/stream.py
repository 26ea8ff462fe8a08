"""Requests from a program's iterable or from standard input, checked row by row as they come.

Everything runs on the loop, in the program's own iterator, which is closed at the end. A sync
iterator that blocks blocks the loop; the loop gets a turn after every 100 requests.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Container,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import aclosing, asynccontextmanager, closing, suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from ..._core.errors import ConfigError
from ..._core.models import ImageRequest
from ..image_inputs import resolve
from .file_kinds import refuse_other_kinds
from .lines import IMAGES_CAP, Splitter, reject_utf16
from .plan import BadRow, ExpandedRow, Lookup, Numbering, Plan, metadata_message
from .row_reader import ParsedRow, RowReader, RowResult, image_inputs

Given = TypeVar("Given")

Rows = AsyncGenerator[tuple[str, Any], None]  #: a row and its place, "item 3"

logger = logging.getLogger("fluxasync")

TURN = 100  #: requests between two turns of the loop; about 3 ms


class StreamSource:
    """Requests from rows that come once. See `Source`."""

    re_readable = False

    def __init__(
        self,
        rows: Rows,
        *,
        read: Callable[[Any], ParsedRow | None],
        reading: RowReader,
        limit: int | None,
        numbering: type[Numbering] = Numbering,
    ) -> None:
        self._rows = rows
        self._read = read
        self._reading = reading
        self._limit = limit
        self._numbering = numbering
        self._begun = False

    async def check(
        self,
        *,
        progress: Callable[[int], None] | None = None,
        lookup: Lookup | None = None,
    ) -> Plan:
        return Plan(images=None)

    async def requests(
        self, *, skip: Container[str] = frozenset()
    ) -> AsyncGenerator[ImageRequest | BadRow, None]:
        if self._begun:
            raise ConfigError("a stream of prompts is read once; pass a list or a file")
        self._begun = True
        entries = entries_of(self._rows, self._read, self._reading)
        reported = 0
        numbering = self._numbering(limit=self._limit)
        async with aclosing(numbered(entries, numbering)) as requests:
            async for request in requests:
                if new := [*self._reading.unknown_keys][reported:]:
                    reported += len(new)
                    logger.warning("%s", metadata_message(new))
                yield request

    async def aclose(self) -> None:
        await self._rows.aclose()


async def items(given: Iterable[object] | AsyncIterable[object]) -> Rows:
    """Yield each item with its place, and close the generator it came from."""
    number = 0
    if isinstance(given, AsyncIterable):
        async with _closed_at_end(aiter(given)) as waiting:
            async for item in waiting:
                number += 1
                yield f"item {number}", item
        return
    async with _closed_at_end(iter(given)) as ready:
        for item in ready:
            number += 1
            yield f"item {number}", item


@asynccontextmanager
async def _closed_at_end(iterator: Given) -> AsyncGenerator[Given, None]:
    """Close generators only: a file or cursor belongs to the program."""
    try:
        yield iterator
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()
        elif isinstance(iterator, Generator):
            iterator.close()


async def entries_of(
    rows: Rows, read: Callable[[Any], ParsedRow | None], reading: RowReader
) -> AsyncGenerator[tuple[str, RowResult], None]:
    """Read each row into its place and entry, giving the loop a turn now and then."""
    async with aclosing(rows):
        requests = 0  #: since the last turn
        async for where, row in rows:
            made = await entry_of(where, row, read, reading)
            yield where, made
            requests += len(made.requests) if isinstance(made, ExpandedRow) else 1
            if requests >= TURN:
                requests = 0
                await asyncio.sleep(0)


async def entry_of(
    where: str, row: Any, read: Callable[[Any], ParsedRow | None], reading: RowReader
) -> RowResult:
    """Read a row, and its images off the loop, so that it has a key."""
    check = reading.syntax_check
    if check is not None:
        check.begin()
    try:
        made = read(row)
        if made is not None and image_inputs(made):
            made = await _resolved(made, reading)
    except ConfigError as error:
        if check is not None:
            check.forget()
        return BadRow(where=where, error=error)
    try:
        if check is not None:
            check.so_far(where)
    except ConfigError as error:
        return BadRow(where=where, error=error)
    return made


async def _resolved(parsed: ParsedRow, reading: RowReader) -> ParsedRow:
    if isinstance(parsed, ImageRequest):
        return await resolve(parsed, base=reading.base)
    each = [await resolve(request, base=reading.base) for request in parsed.requests]
    return ExpandedRow(tuple(each))


async def numbered(
    entries: AsyncGenerator[tuple[str, RowResult], None], numbering: Numbering
) -> AsyncGenerator[ImageRequest | BadRow, None]:
    """Yield the images of the entries, each with its index and occurrence; close the numbering."""
    async with aclosing(entries):
        with closing(numbering):
            async for where, row in entries:
                for image in _images(where, row, numbering):
                    yield image
                if numbering.full:
                    return


def _images(where: str, row: RowResult, numbering: Numbering) -> Iterator[ImageRequest | BadRow]:
    if row is None or isinstance(row, BadRow):
        yield from () if row is None else (row,)
        return
    try:
        yield from numbering.images(row)
    except ConfigError as error:
        yield BadRow(where=where, error=error)


# --- standard input ------------------------------------------------------------------------------

_BLOCK = 2**16  #: bytes; what a pipe holds on Linux

Answer = asyncio.Future[bytes | OSError]


class PipeReader:
    """Reads a descriptor without ever blocking the loop or the end of the process.

    A read of a terminal or a quiet pipe cannot be cancelled, and a thread of the loop's executor
    would hold the process open at its end: hence a daemon thread that is not joined. It reads the
    descriptor, not `sys.stdin.buffer`, because a thread killed while it holds that buffer's lock
    aborts the interpreter. It reads only on request, so that a fast writer is held back. The loop's
    own pipe support would make a terminal non-blocking for all other users of it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._asked: SimpleQueue[Answer | None] = SimpleQueue()
        Thread(target=self._serve, name="fluxasync-stdin", daemon=True).start()

    async def read(self) -> bytes:
        """Return the next bytes as soon as there are any, or b"" at the end."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self._asked.put(answer)
        found = await answer
        if isinstance(found, OSError):
            raise ConfigError(f"standard input cannot be read: {found.strerror}") from found
        return found

    def close(self) -> None:
        self._asked.put(None)

    def _serve(self) -> None:
        while (answer := self._asked.get()) is not None:
            found: bytes | OSError
            try:
                found = os.read(self._descriptor, _BLOCK)
            except OSError as exc:
                found = exc
            with suppress(RuntimeError):  # the loop was closed while the read was waiting
                answer.get_loop().call_soon_threadsafe(_give, answer, found)


def _give(answer: Answer, found: bytes | OSError) -> None:
    if not answer.done():  # cancelled while the read was waiting
        answer.set_result(found)


def _fed(splitter: Splitter, block: bytes) -> list[bytes]:
    try:
        return splitter.feed(block)
    except ConfigError as error:
        raise ConfigError(f"standard input: {error}") from None


def standard_input() -> int:
    """Return the descriptor of standard input. Raises ConfigError if there is none."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # None, a stand-in without one, closed
        raise ConfigError("there is no standard input to read prompts from") from None


async def lines_of(descriptor: int) -> AsyncGenerator[tuple[str, bytes], None]:
    """Yield each line with its place, "standard input line 3", until the input ends."""
    reader, splitter, number = PipeReader(descriptor), Splitter(most=IMAGES_CAP), 0
    try:
        block = await reader.read()
        reject_utf16(block, name="standard input")
        refuse_other_kinds(block, name="standard input")
        while block:
            for line in _fed(splitter, block):
                number += 1
                yield f"standard input line {number}", line
            block = await reader.read()
        for line in splitter.finish():
            yield f"standard input line {number + 1}", line
    finally:
        reader.close()
