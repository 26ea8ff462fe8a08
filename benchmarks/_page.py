"""Writes the figures of the benchmarks into docs/benchmarks.md.

A block is between `<!-- name -->` and `<!-- end name -->`; the text around it is written by hand.
Each block names the machine and the time of its measurement. The README has the block `short` too.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
#: share of the cores used by other processes above which a machine counts as busy
BUSY = 0.1
#: seconds of that measurement
LOAD_SECONDS = 2.0


def write(name: str, text: str, *, page: Path | None = None) -> None:
    """Replace a block of a page; None = the page of the benchmarks."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    path = page or PAGE
    whole = path.read_text("utf-8")
    if not block.search(whole):
        raise SystemExit(f"{path}: no block {name!r}")
    path.write_text(block.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", whole), "utf-8")


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table: text aligned to the left, figures to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(load: float) -> str:
    """Return the machine, the time, and whether it was busy (see `load`)."""
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
    text += f"Python {platform.python_version()}; {moment}"
    if load > BUSY:
        text += (
            f". **The machine was busy** (other processes used {load:.0%} of its cores before the "
            "run), so CPU and seconds are too high; compare the contenders"
        )
    return f"Measured on {text}."


def load() -> float:
    """Return the share of this machine's cores that other processes use.

    The load average would still count the benchmark that ran before this one.
    """
    before = _ticks()
    time.sleep(LOAD_SECONDS)
    after = _ticks()
    if before is None or after is None:
        return min(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0)
    idle, whole = (now - was for was, now in zip(before, after, strict=True))
    return 1 - idle / whole if whole else 0.0


def _ticks() -> tuple[int, int] | None:
    """Return idle ticks and all ticks of all cores; None where they are not known (Linux only)."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    ticks = [int(count) for count in fields]
    return ticks[3] + ticks[4], sum(ticks)


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
