"""`docs/benchmarks.md`, of which figures are written by the scripts that measured them.

A block lies between `<!-- name -->` and `<!-- end name -->`; what stands around it is written by
hand. The short table stands in the README too. The machine and the moment are told with the blocks.
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
#: share of its cores that others keep, from which on a machine counts as busy
BUSY = 0.1
#: seconds that this is looked at
LOOKING = 2.0


def write(name: str, text: str) -> None:
    """Replace a block, wherever it stands."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    pages = {path: path.read_text("utf-8") for path in (PAGE, README)}
    places = [path for path, page in pages.items() if block.search(page)]
    if not places:
        raise SystemExit(f"{PAGE}: no block {name!r}")
    for path in places:
        new = block.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", pages[path])
        path.write_text(new, "utf-8")


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in Markdown: words to the left, figures to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(load: float) -> str:
    """What measured, when, and whether others were busy on it (see `load`)."""
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    said = f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
    said += f"Python {platform.python_version()}; {moment}"
    if load > BUSY:
        said += (
            f". **The machine was busy** (others kept {load:.0%} of its cores before the run), so "
            "CPU and seconds are too high; compare the contenders"
        )
    return f"Measured on {said}."


def load() -> float:
    """The share of this machine's cores that are at work while we are not.

    Not the load average, which still counts the benchmark that ran before this one.
    """
    before = _ticks()
    time.sleep(LOOKING)
    after = _ticks()
    if before is None or after is None:
        return min(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0)
    idle, whole = (now - was for was, now in zip(before, after, strict=True))
    return 1 - idle / whole if whole else 0.0


def _ticks() -> tuple[int, int] | None:
    """Of all cores: ticks without work, and all; None where the system does not tell (Linux)."""
    try:
        told = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    ticks = [int(count) for count in told]
    return ticks[3] + ticks[4], sum(ticks)


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
