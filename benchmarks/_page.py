"""`docs/benchmarks.md`, of which figures are written by the scripts that measured them.

A block lies between `<!-- name -->` and `<!-- end name -->`; what stands around it is written by
hand. The machine and the moment are told with every block.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
#: load average before a run, from which on a machine counts as busy
BUSY = 0.5


def write(name: str, text: str) -> None:
    """Replace a block of the page."""
    page = PAGE.read_text("utf-8")
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not block.search(page):
        raise SystemExit(f"{PAGE}: no block {name!r}")
    PAGE.write_text(block.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page), "utf-8")


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in Markdown: words to the left, figures to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(load: float) -> str:
    """What measured, when, and whether others were busy on it (load average before)."""
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    said = f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
    said += f"Python {platform.python_version()}; {moment}"
    if load > BUSY:
        said += (
            f". **The machine was busy** (a load of {load:.1f} before the run), so CPU and seconds "
            "are too high; compare the contenders"
        )
    return f"Measured on {said}."


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
