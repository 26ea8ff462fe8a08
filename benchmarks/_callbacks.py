"""The callbacks of the benchmarks' server: a POST to a submission's `webhook_url` at its end.

One that is not answered with 2xx is sent again after 1, 5 and 30 seconds, as BFL's documentation
says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

#: seconds from a failed try to the next one
RETRY_DELAYS = (1.0, 5.0, 30.0)
#: seconds that a receiver has for its answer
TIMEOUT = 5.0


class Callbacks:
    """Sends callbacks, and owns the tasks that do; they end with the server's loop."""

    def __init__(self) -> None:
        self.answered = 0
        self._sending: set[asyncio.Task[None]] = set()

    def plan(
        self, url: str, body: Callable[[], bytes], *, after: float, lost_first: bool = False
    ) -> None:
        """Call `url` after so many seconds. With `lost_first` the first try does not arrive."""
        task = asyncio.create_task(self._send(url, body, after, lost_first))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(
        self, url: str, body: Callable[[], bytes], after: float, lost_first: bool
    ) -> None:
        for number, delay in enumerate((after, *RETRY_DELAYS)):
            await asyncio.sleep(delay)
            if number or not lost_first:
                with suppress(OSError, TimeoutError, ValueError):
                    async with asyncio.timeout(TIMEOUT):
                        if 200 <= await post(url, body()) < 300:
                            self.answered += 1
                            return


async def post(url: str, body: bytes) -> int:
    """Send one callback on a connection of its own, and return the status of its answer. Raises
    OSError without a connection, ValueError without an answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        line = await reader.readline()
        return int(line[9:12])
    finally:
        writer.close()
