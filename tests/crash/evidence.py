"""A whole run, recorded: what the tests of order and of power cuts look at."""

from __future__ import annotations

from pathlib import Path

from .children import Children
from .harness import prepared, wishes
from .recorder import Event, read

#: pixels; a picture of that size has three pages, so a cut can tear it
SIDE = 640


def recorded(
    children: Children,
    home: Path,
    *,
    images: int = 12,
    streamed: bool = False,
    mutant: str | None = None,
) -> list[Event]:
    """Run a batch to its end and return what it did to its disk and its server."""
    rows = [
        {**row, "prompt": f"{row['prompt']}, line {line}"}  # tells events apart
        for line, row in enumerate(wishes(images, seed=0, side=SIDE))
    ]
    place = prepared(children, home, rows, seed=0, latency=(0.0, 0.02))
    events = home / "events.jsonl"
    children.run(place, in_flight=4, streamed=streamed, mutant=mutant, record=events)
    return read(events)
