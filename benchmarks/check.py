"""What does the check of a long prompt list cost, and how soon does a resumed run submit?

    python -m benchmarks.check [ROWS]

Writes one list as .jsonl and .csv and checks each in a process of its own: without a journal, with
one in which no image is known, and with one in which all but 24 are done. Prints processor seconds
of the check, resident memory (peak), the temporary file, and the time from the start of the check
to the first request that is to do.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from fluxasync._requests.sources import Lookup, open_source

#: images of the resumed list that are to do
NEW = 24


def _resumed(rows: int) -> Lookup:
    """A journal in which every image but the last is done."""
    left = rows - NEW

    def lookup(keys: Sequence[str]) -> list[str | None]:
        nonlocal left
        done = min(left, len(keys))
        left -= done
        return ["done"] * done + [None] * (len(keys) - done)

    return lookup


async def _measure(path: Path, journal: str, rows: int) -> None:
    lookups: dict[str, Lookup | None] = {
        "no journal": None,
        "nothing done": lambda keys: [None] * len(keys),
        "all but 24 done": _resumed(rows),
    }
    source = open_source(path)
    began, processor = time.perf_counter(), time.process_time()
    plan = await source.check(lookup=lookups[journal])
    processor = time.process_time() - processor
    size = _temporary_bytes()
    async with aclosing(source.requests(skip=frozenset({"done"}))) as requests:
        await anext(requests)
    first = time.perf_counter() - began
    await source.aclose()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{path.name}, {journal}: {plan.images:,} images, {processor:.1f} s of processor, "
        f"{peak:.0f} MB resident, temporary file {size / 1e6:.0f} MB, first request {first:.1f} s",
        flush=True,
    )


def _temporary_bytes() -> int:
    """Return the bytes of this process's open files without a name."""
    found = [os.fstat(int(name)) for name in os.listdir("/dev/fd") if _is_open(name)]
    return sum(each.st_size for each in found if each.st_nlink == 0)


def _is_open(name: str) -> bool:
    try:
        os.fstat(int(name))
    except OSError:  # of the listing itself
        return False
    return True


def main() -> None:
    rows = int(sys.argv[1]) if sys.argv[1:] else 200_000
    written = (
        {"prompt": f"a red fox in snow, number {n}", "width": 512, "height": 512, "seed": n}
        for n in range(rows)
    )
    with tempfile.TemporaryDirectory() as folder:
        jsonl, table = Path(folder, "prompts.jsonl"), Path(folder, "prompts.csv")
        with jsonl.open("w") as lines, table.open("w", newline="") as cells:
            writer = csv.DictWriter(cells, ["prompt", "width", "height", "seed"])
            writer.writeheader()
            for row in written:
                lines.write(json.dumps(row) + "\n")
                writer.writerow(row)
        for path in (jsonl, table):
            for journal in ("no journal", "nothing done", "all but 24 done"):
                command = [sys.executable, "-m", "benchmarks.check", path, journal, str(rows)]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        asyncio.run(_measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    else:
        main()
