"""Decodes images in a separate process, because an image from a server may exhaust a decoder.

`python -m fluxasync.gallery.thumbnail_worker` reads JSON lines `[source, target]` and answers each
with a JSON line: the problem, or "". `source` is a path, or the number of bytes of the image, which
follow the line. Memory is capped, three formats are tried, and a huge image is
refused by its header. The parent process kills a worker that needs too long for one image.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from .._core import standard_streams
from .._store.files import create_own, open_to_read

#: pixels of a thumbnail's longer side: sharp on a high-density screen at the page's row height
SIDE = 560
#: maximum pixels; the largest image of the catalogue has four million
_MOST_PIXELS = 64_000_000
#: bytes of address space: room for two decoded images of that size, and for Python
_MOST_MEMORY = 2 * 2**30
_QUALITY = 82


def main() -> None:
    """Make thumbnails until standard input ends."""
    standard_streams.open_missing()
    limit_resources()
    for line in sys.stdin.buffer:
        source, target = json.loads(line)
        given = sys.stdin.buffer.read(source) if isinstance(source, int) else Path(source)
        sys.stdout.write(json.dumps(make_thumbnail(given, Path(target))) + "\n")
        sys.stdout.flush()


def make_thumbnail(source: Path | bytes, target: Path) -> str:
    """Write the thumbnail of an image, whole or not at all; return the problem, "" for none."""
    from PIL import Image

    new = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        with (
            BytesIO(source)
            if isinstance(source, bytes)
            else open_to_read(source, follow=True) as file,
            Image.open(file, formats=("JPEG", "PNG", "WEBP")) as picture,
        ):
            if picture.width * picture.height > _MOST_PIXELS:
                return f"too large: {picture.width} × {picture.height} pixels"
            picture.draft("RGB", (SIDE, SIDE))
            small = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
            small.thumbnail((SIDE, SIDE))
            with create_own(new, mode=0o666) as made:
                small.save(made, "WEBP", quality=_QUALITY, method=3)
        new.replace(target)
    except FileNotFoundError:
        return "missing"
    except MemoryError:
        return "too large to decode"
    except Exception as error:  # a decoder may raise anything, and the next image waits
        return f"cannot be decoded: {type(error).__name__}"
    finally:
        new.unlink(missing_ok=True)
    return ""


def limit_resources() -> None:
    """Run at low priority, with capped memory."""
    import resource

    with suppress(OSError):
        os.nice(10)
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


if __name__ == "__main__":
    main()
