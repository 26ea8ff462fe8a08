"""Draws a contact sheet in a separate process, with capped memory.

`python -m fluxasync.gallery.sheet_worker` reads one JSON object from standard input and answers
with a JSON text: the problem, or "".
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._core import standard_streams
from .._store.files import create_own, open_to_read
from .thumbnail_worker import limit_resources

_GROUND, _INK, _SURFACE = (251, 250, 248), (29, 28, 26), (240, 238, 234)
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def main() -> None:
    """Draw one sheet."""
    standard_streams.open_missing()
    limit_resources()
    sys.stdout.write(json.dumps(draw(json.loads(sys.stdin.buffer.readline()))) + "\n")


def draw(order: Mapping[str, Any]) -> str:
    """Write the sheet, whole or not at all; return the problem, "" for none."""
    from PIL import Image, ImageDraw, ImageFont

    images, columns, side = order["images"], order["columns"], order["side"]
    gap, caption = order["gap"], order["caption"]
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    size = (gap + columns * (side + gap), gap + rows * (side + caption + gap))
    target = Path(order["target"])
    new = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        sheet = Image.new("RGB", size, _GROUND)
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(caption * 0.68)
        for number, (path, text) in enumerate(images):
            x = gap + number % columns * (side + gap)
            y = gap + number // columns * (side + caption + gap)
            pen.rectangle((x, y, x + side - 1, y + side - 1), fill=_SURFACE)
            _paste(sheet, Path(path), (x, y), side)
            pen.text((x, y + side + caption // 8), _fitting(text, font, side), font=font, fill=_INK)
        with create_own(new, mode=0o666) as made:
            sheet.save(made, _FORMATS[target.suffix.lower()], quality=90)
        new.replace(target)
    except MemoryError:
        return "too large to draw"
    except OSError as error:
        return f"cannot be written: {error.strerror or error}"
    finally:
        new.unlink(missing_ok=True)
    return ""


def _paste(sheet: Any, path: Path, place: tuple[int, int], side: int) -> None:
    """Draw an image in the middle of its square; one that cannot be decoded stays empty."""
    from PIL import Image

    try:
        with open_to_read(path) as file, Image.open(file, formats=("WEBP",)) as thumb:
            small = thumb.convert("RGBA")
    except Exception:
        return
    scale = side / max(small.size)
    small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))))
    x, y = place[0] + (side - small.width) // 2, place[1] + (side - small.height) // 2
    sheet.paste(small, (x, y), small)


def _fitting(text: str, font: Any, width: int) -> str:
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


if __name__ == "__main__":
    main()
