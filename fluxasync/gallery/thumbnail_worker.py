"""Decodes pictures in a process of its own, apart from the process that pays for them.

`python -m fluxasync.gallery.thumbnail_worker` reads JSON lines `[source, target]` and answers each
with a JSON line: the problem, or "". A server may send an image that exhausts a decoder. Therefore
memory is capped, only three formats are tried, and a huge picture is refused by its header. The
parent process ends a worker when one picture takes too long.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from .._store.files import create_own, open_to_read

#: pixels of a thumbnail's longer side: sharp on a dense screen at the size of the page's rows
SIDE = 560
#: pixels; the largest picture of the catalogue has four million
_MOST_PIXELS = 64_000_000
#: bytes of address space: a decoded picture of that many pixels, twice, beside Python
_MOST_MEMORY = 2 * 2**30
_QUALITY = 82


def main() -> None:
    """Paint what is asked for until standard input ends."""
    _behave()
    for line in sys.stdin:
        source, target = json.loads(line)
        sys.stdout.write(json.dumps(paint(Path(source), Path(target))) + "\n")
        sys.stdout.flush()


def paint(source: Path, target: Path) -> str:
    """Write a thumbnail of one picture to the other path, whole or not at all; return what was
    wrong, "" for nothing."""
    from PIL import Image

    new = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        with (
            open_to_read(source, follow=True) as file,
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
    except Exception as error:  # a decoder raises what it likes, and the next picture waits
        return f"cannot be decoded: {type(error).__name__}"
    finally:
        new.unlink(missing_ok=True)
    return ""


def _behave() -> None:
    """Stand back behind every other process, and take no more memory than a picture needs."""
    import resource

    with suppress(OSError):
        os.nice(10)
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


if __name__ == "__main__":
    main()
