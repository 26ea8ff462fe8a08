"""How long does checking a prompt file take per row, and does that grow with the file?

    python -m benchmarks.check [ROWS]

Writes a prompt list as .jsonl and .csv, checks each three times, and prints the median in
microseconds per row, without a journal and with an empty one.
"""

from __future__ import annotations

import asyncio
import csv
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fluxasync._requests.sources import Lookup, open_source


def _nothing(keys: Sequence[str]) -> list[str | None]:
    return [None] * len(keys)


async def _seconds(path: Path, lookup: Lookup | None) -> float:
    source = open_source(path)
    begun = time.perf_counter()
    plan = await source.check(lookup=lookup)
    took = time.perf_counter() - begun
    await source.aclose()
    assert plan.rows
    return took


def main() -> None:
    rows = int(sys.argv[1]) if sys.argv[1:] else 200_000
    rows_written = [
        {"prompt": f"a red fox in snow, number {n}", "width": 512, "height": 512, "seed": n}
        for n in range(rows)
    ]
    with tempfile.TemporaryDirectory() as folder:
        jsonl, table = Path(folder, "prompts.jsonl"), Path(folder, "prompts.csv")
        jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows_written))
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows_written[0]))
            writer.writeheader()
            writer.writerows(rows_written)
        del rows_written
        for path in (jsonl, table):
            for lookup in (None, _nothing):
                took = [asyncio.run(_seconds(path, lookup)) / rows * 1e6 for _ in range(3)]
                known = "counted" if lookup is None else "numbered and asked for"
                middle, low, high = statistics.median(took), min(took), max(took)
                line = f"{path.name}, {known}: {middle:.1f} µs per row ({low:.1f} to {high:.1f})"
                print(line, flush=True)


if __name__ == "__main__":
    main()
