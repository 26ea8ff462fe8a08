"""How many polls do callbacks replace, and how soon is a job's end seen?

    python -m benchmarks.webhooks [--images 300] [--rounds 3] [--lost 0.1 …] [--lost-replies 0.05]

A server in another process allows 24 active jobs of 1 s (log-normal, cv 0.2), and calls back. The
same jobs are polled, then called back with the receiver in the client's process, each over real
sockets. `--lost` is the share of callbacks that never come. With `--lost-replies` answers of
submissions are lost too, and the images in doubt that callbacks settled are counted. Lag is the
time from a job's end, by the server's clock, to the poll that saw it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path

from attrs import frozen

from benchmarks._server import simulator
from fluxasync import Batch, FluxSession, Polling, Summary
from fluxasync.webhooks import Webhook

SECRET = "a-secret-of-the-benchmark"  # noqa: S105 — for the simulator
#: polls an image and mean seconds of lag with callbacks, none of them lost
TARGET = (1.3, 0.05)


@frozen
class Row:
    """One run."""

    polls: float  #: per image
    lag: float  #: mean, seconds
    seconds: float
    summary: Summary
    charges: int
    callbacks: int


def play(polling: Polling, seed: int, lost: float, given: argparse.Namespace) -> Row:
    """Make the images of one round."""
    scenario = {
        "latency": given.mean, "latency_cv": given.cv, "image_bytes": 64 * 1024,
        "active_limit": given.slots, "seed": seed,
        "faults": {"hook-lost": lost, "lost-reply": given.lost_replies},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch, simulator(**scenario) as url:
        began = time.perf_counter()
        summary = asyncio.run(_made(url, Path(scratch, "images"), polling, given))
        seconds = time.perf_counter() - began
        with urllib.request.urlopen(f"{url}/simulator/ledger") as answer:  # noqa: S310 — our own
            ledger = json.load(answer)
    seen = max(ledger["seen"], 1)
    return Row(
        polls=ledger["polls"] / given.images,
        lag=ledger["lag"] / seen,
        seconds=seconds,
        summary=summary,
        charges=ledger["charges"],
        callbacks=ledger["callbacks"].get("delivered", 0),
    )


async def _made(url: str, out: Path, polling: Polling, given: argparse.Namespace) -> Summary:
    prompts = [f"prompt {number}" for number in range(given.images)]
    async with FluxSession(base_url=url, limits=given.slots, polling=polling) as flux:
        return await Batch(flux, prompts, out=out).run()


def called() -> Polling:
    """Return a Polling with a webhook that this process receives."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{held.getsockname()[1]}"
    return Polling(webhook=Webhook(url=f"http://{listen}/hook", listen=listen, secret=SECRET))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--slots", type=int, default=24)
    parser.add_argument("--mean", type=float, default=1.0)
    parser.add_argument("--cv", type=float, default=0.2)
    parser.add_argument("--lost", type=float, nargs="*", default=[0.0, 0.1])
    parser.add_argument("--lost-replies", type=float, default=0.0)
    given = parser.parse_args()
    print(
        f"{given.rounds} rounds of {given.images} images, {given.slots} slots, mean {given.mean:g} "
        f"s, cv {given.cv:g}, {given.lost_replies:.0%} of answers lost"
    )
    print(
        f"{'':26} {'polls/image':>11} {'lag ms':>7} {'seconds':>8} {'saved':>6} {'in doubt':>8} "
        f"{'settled':>8} {'charges':>8}"
    )
    seeds = range(1, given.rounds + 1)
    _show("polled", [play(Polling(), seed, 0.0, given) for seed in seeds], target=False)
    for lost in given.lost:
        rows = [play(called(), seed, lost, given) for seed in seeds]
        _show(f"called, {lost:.0%} of calls lost", rows, target=not lost and not given.lost_replies)


def _show(name: str, rows: list[Row], *, target: bool) -> None:
    polls, lag = (
        statistics.median(getattr(row, field) for row in rows) for field in ("polls", "lag")
    )
    saved, doubts, found, charges = (
        sum(counts)
        for counts in zip(
            *((r.summary.saved, r.summary.in_doubt, r.summary.found, r.charges) for r in rows),
            strict=True,
        )
    )
    verdict = ""
    if target:
        is_reached = polls <= TARGET[0] and lag <= TARGET[1]
        verdict = f"  target ≤ {TARGET[0]} polls, ≤ {TARGET[1] * 1000:.0f} ms: " + (
            "reached" if is_reached else "MISSED"
        )
    seconds = statistics.median(row.seconds for row in rows)
    print(
        f"{name:26} {polls:11.2f} {lag * 1000:7.1f} {seconds:8.1f} {saved:6} {doubts:8} {found:8} "
        f"{charges:8}{verdict}"
    )


if __name__ == "__main__":
    main()
