"""Outcomes as HTML for a notebook's cell.

Prompts, names and messages are untrusted: each passes `display` and is escaped, and no cell has a
script or loads anything. A picture is a thumbnail inside the page, so a cell's size is bounded.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from .amounts import dollars
from .text import display

if TYPE_CHECKING:
    from .models import Failed, InDoubt, Saved, Stored

#: pixels of a picture's longer side as it is shown: alone, and in a table
SIDE, SMALL_SIDE = 384, 96
#: pixels that it has for each of them, for screens of high density
DENSITY = 1.5
#: characters that are shown of a prompt, and of a message
_TEXT, _MESSAGE = 160, 300
#: bytes of an image that is shown as it is, where pillow is missing
_SHOWN_WHOLE = 2**18
#: bytes of a file, and pixels of an image, that are decoded
_MOST_BYTES, _MOST_PIXELS = 64 * 2**20, 64_000_000
#: JupyterLab would typeset what is between two dollar signs
_FRAME = '<div class="tex2jax_ignore mathjax_ignore" style="max-width:56em">'
_QUIET = "font-size:85%;opacity:.75"


def picture(saved: Saved) -> str:
    """Return a saved image with what it was made of."""
    caption = "<br>".join(filter(None, (_prompt_of(saved), _quiet(_facts(saved)))))
    return f"{_FRAME}{_image(saved, SIDE)}<div>{caption}</div></div>"


def problem(outcome: Failed | InDoubt) -> str:
    """Return an image that was not saved, with the reason."""
    return f"{_FRAME}{_problem_lines(outcome)}</div>"


def overview(line: str, images: Sequence[Saved], problems: Iterable[Failed | InDoubt] = ()) -> str:
    """Return a run: its line, a table of images, and what was not saved."""
    rows = "".join(map(_row, images))
    table = f'<table style="margin:.5em 0">{rows}</table>' if rows else ""
    failures = "".join(f"<li>{_problem_lines(each)}</li>" for each in problems)
    listed = f"<ul>{failures}</ul>" if failures else ""
    return f"{_FRAME}<div>{escape(display(line))}</div>{table}{listed}</div>"


def _row(saved: Saved) -> str:
    texts = "<br>".join(filter(None, (_prompt_of(saved), _quiet(_facts(saved)))))
    cell = '<td style="text-align:left;vertical-align:top">'
    return f"<tr>{cell}{_image(saved, SMALL_SIDE)}</td>{cell}{texts}</td></tr>"


def _problem_lines(outcome: Failed | InDoubt) -> str:
    where = getattr(outcome, "where", None) or ""
    message = escape(display(f"{where} {outcome.error}".strip(), _MESSAGE))
    cause = escape(display(outcome.cause, _TEXT))
    return "<br>".join(filter(None, (f"<b>{cause}</b> {message}", _prompt_of(outcome))))


def _prompt_of(outcome: Saved | Failed | InDoubt) -> str:
    request = outcome.request
    return "" if request is None else escape(display(request.prompt, _TEXT))


def _quiet(facts: Iterable[str]) -> str:
    shown = " · ".join(escape(display(fact, _TEXT)) for fact in facts)
    return f'<span style="{_QUIET}">{shown}</span>' if shown else ""


def _facts(saved: Saved) -> Iterator[str]:
    if (model := saved.job.model) is not None:
        yield model
    if saved.seed is not None:
        yield f"seed {saved.seed}"
    yield f"{saved.stored.width}×{saved.stored.height}"
    if saved.cost is not None:
        yield dollars(saved.cost)
    if saved.place:
        yield saved.place


def _image(saved: Saved, side: int) -> str:
    found = thumbnail(saved.stored, round(side * DENSITY))
    if found is None:
        return f'<div style="{_QUIET}">no preview</div>'
    kind, content = found
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    prompt = _prompt_of(saved)
    style = f"max-width:{side}px;max-height:{side}px"
    return f'<img src="{source}" alt="{prompt}" title="{prompt}" style="{style}">'


def thumbnail(stored: Stored, side: int) -> tuple[str, bytes] | None:
    """Return format and bytes of a thumbnail; None for an image in a bucket, for one that is gone
    or cannot be decoded, and without pillow for a large one."""
    try:
        content = stored.data if stored.path is None else _read(stored.path)
    except (OSError, ValueError):  # it is gone, or no file can have the name
        return None
    if content is None:
        return None
    if importlib.util.find_spec("PIL") is None:
        known = stored.format in ("jpeg", "png", "webp")
        return (stored.format, content) if known and len(content) <= _SHOWN_WHOLE else None
    return _small(content, side)


def _read(path: Path) -> bytes | None:
    """Return the content of a regular file; None for anything else, and for a huge file."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MOST_BYTES:
            return None
        return file.read(_MOST_BYTES)


def _small(content: bytes, side: int) -> tuple[str, bytes] | None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            image.draft("RGB", (side, side))
            small = image.convert("RGBA" if "A" in image.getbands() else "RGB")
            small.thumbnail((side, side))
            made = io.BytesIO()
            small.save(made, "WEBP", quality=80, method=2)
    except Exception:  # a decoder may raise anything, and a cell must not fail
        return None
    return "webp", made.getvalue()
