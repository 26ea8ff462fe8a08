"""Does memory grow with the list? Peak RSS of 200,000 prompts from a generator.

    python -m benchmarks.memory [--prompts 200000]

A transport object answers in memory at once, so only the library itself is measured. RSS is sampled
during the run.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import field, frozen

from fluxasync import Batch, FluxSession, Limits, Polling
from fluxasync.extend import Call, Reply

TARGET = 120
#: a structurally complete JPEG of 16 × 16 pixels
IMAGE = bytes.fromhex("ffd8ffc0000b080010001001011100ffda0008010100003f0000ffd9")


@frozen
class Instant:
    """A download whose image is in memory."""

    status: int = 200
    headers: Mapping[str, str] = field(factory=lambda: {"content-length": str(len(IMAGE))})

    async def chunks(self) -> AsyncIterator[bytes]:
        yield IMAGE


class InstantTransport:
    """Accepts every job and reports it Ready at once."""

    def __init__(self) -> None:
        self.jobs = 0

    async def send(self, call: Call) -> Reply:
        if call.method == "POST":
            self.jobs += 1
            body = b'{"id":"job%d"}' % self.jobs
        else:
            body = b'{"status":"Ready","result":{"sample":"http://127.0.0.1/sample"}}'
        return Reply(status=200, headers={}, body=body)

    @asynccontextmanager
    async def stream(self, url: str, *, timeout: float) -> AsyncIterator[Instant]:
        yield Instant()

    async def aclose(self) -> None:
        pass


async def run(prompts: int) -> None:
    rows = (f"prompt number {number}" for number in range(prompts))
    seen = 0
    async with (
        FluxSession(
            base_url="http://127.0.0.1",
            transport=InstantTransport(),
            limits=Limits(in_flight=64),
            polling=Polling(interval=0),
        ) as flux,
        Batch(flux, rows) as batch,
    ):
        async for _ in batch:
            seen += 1
            if seen % (prompts // 10) == 0:
                print(f"{seen:>9,} images  {_rss():6.1f} MB now")
    assert batch.summary.saved == prompts, batch.summary
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{prompts:,} prompts: peak RSS {peak:.1f} MB; target ≤ {TARGET} MB; {batch.summary}")


def _rss() -> float:
    """Return the current MB (Linux), elsewhere the peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200_000)
    asyncio.run(run(parser.parse_args().prompts))
