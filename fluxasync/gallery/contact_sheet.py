"""A contact sheet: the thumbnails of a run as one image, each with what tells it from the others.

The thumbnails are drawn by a separate process (see `sheet_worker`), as they were made by one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from .._core.errors import ConfigError, SinkError
from .._core.isolated_process import start
from .cards import Card

#: suffixes of a sheet
KINDS = (".png", ".jpg", ".jpeg", ".webp")
#: images on one sheet: with more of them nobody sees any
MOST_IMAGES = 1_000
#: pixels of a sheet's longer side, and of the side of an image on it
_LONGEST, _LARGEST, _SMALLEST = 6_000, 480, 96
_GAP = 16


def check_sheet(path: Path) -> None:
    """Raise ConfigError for a file that cannot be a sheet."""
    if path.suffix.lower() not in KINDS:
        raise ConfigError(f"--sheet {path}: name a .png, .jpg or .webp file")
    if path.is_dir():
        raise ConfigError(f"--sheet {path} is a folder: name a file in it")


def check_count(folder: Path, count: int) -> None:
    """Raise ConfigError for no image, and for more than a sheet can show."""
    if not count:
        raise ConfigError(f"{folder} has no image for a sheet")
    if count > MOST_IMAGES:
        raise ConfigError(
            f"{count:,} images are too many for a sheet (most: {MOST_IMAGES:,}): pick some in the "
            "gallery and add --picked"
        )


def layout_of(count: int) -> tuple[int, int]:
    """Return the number of columns, and the side of an image in pixels."""
    columns = max(1, ceil(sqrt(count * 1.4)))
    rows = ceil(count / columns)
    room = _LONGEST - _GAP
    side = min(room // columns, room // rows) - _GAP
    return columns, max(_SMALLEST, min(_LARGEST, side))


def caption_of(card: Card) -> str:
    """Return an image's number in the run and its seed, with which it can be named."""
    seed = card.facts.get("seed")
    parts = [f"{card.index}", *([] if seed is None else [f"seed {seed}"])]
    return " · ".join(parts)


async def draw_sheet(
    folder: Path, cards: Sequence[Card], thumbs: Mapping[str, str], target: Path
) -> int:
    """Write the sheet of the cards that have a thumbnail, whole or not at all; return their number.

    Raises ConfigError for none, SinkError if it cannot be written.
    """
    shown = [card for card in cards if card.key in thumbs]
    check_count(folder, len(shown))
    columns, side = layout_of(len(shown))
    drawn = [[str(folder / thumbs[card.key]), caption_of(card)] for card in shown]
    order: dict[str, Any] = {"images": drawn, "columns": columns, "side": side}
    order |= {"gap": _GAP, "caption": max(16, side // 14), "target": str(target)}
    process = await start("fluxasync.gallery.sheet_worker", quiet=True)
    try:
        answer, _ = await process.communicate(json.dumps(order).encode() + b"\n")
    except asyncio.CancelledError:
        process.kill()
        await process.communicate()
        raise
    try:
        problem = json.loads(answer)
    except ValueError:
        problem = "the process that draws it crashed"
    if problem:
        raise SinkError(f"{target}: {problem}")
    return len(shown)
