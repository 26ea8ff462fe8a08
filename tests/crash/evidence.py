"""A recorded run, for the tests of order and of power cuts."""

from __future__ import annotations

from pathlib import Path

from .children import Children
from .harness import prepared, prompt_rows
from .recorder import Event, read

#: pixels; an image of this size has three 4 KiB pages, so a cut can tear it
SIDE = 640


def recorded(
    children: Children,
    home: Path,
    *,
    images: int = 12,
    streamed: bool = False,
    mutant: str | None = None,
) -> list[Event]:
    """Run a batch to its end and return its actions on disk and server."""
    rows = [
        {**row, "prompt": f"{row['prompt']}, line {line}"}  # tells events apart
        for line, row in enumerate(prompt_rows(images, seed=0, side=SIDE))
    ]
    place = prepared(children, home, rows, seed=0, latency=(0.0, 0.02))
    events = home / "events.jsonl"
    children.run(place, in_flight=4, streamed=streamed, mutant=mutant, record=events)
    return read(events)
