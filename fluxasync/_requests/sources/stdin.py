"""Standard input as lines that come when they come.

Read by a daemon thread that nobody waits for: a read of a terminal or a quiet pipe cannot be
cancelled, and a thread of the loop's executor would hold the process open at its end. The thread
reads the descriptor, not `sys.stdin.buffer`, because a thread killed while it holds that buffer's
lock aborts the interpreter; and it reads only when asked, so that a fast writer is held back. The
loop's own pipe support is not used: it makes a terminal non-blocking for everything else on it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

from ..._core.errors import ConfigError
from .lines import Splitter, reject_utf16

_BLOCK = 2**16  #: bytes; what a pipe holds on Linux

Answer = asyncio.Future[bytes | OSError]


class PipeReader:
    """Reads a descriptor without ever blocking the loop or the end of the process."""

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
    reader, splitter, number = PipeReader(descriptor), Splitter(), 0
    try:
        block = await reader.read()
        reject_utf16(block, name="standard input")
        while block:
            for line in _fed(splitter, block):
                number += 1
                yield f"standard input line {number}", line
            block = await reader.read()
        for line in splitter.finish():
            yield f"standard input line {number + 1}", line
    finally:
        reader.close()
