"""The models as a table for people, or as one JSON object a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from textwrap import wrap

from rich.console import Console
from rich.table import Table

from .._core.amounts import CREDIT
from .._requests.catalog import Model, models
from .rendering import as_json

#: parameters of every model; the table shows the others
_COMMON = {
    "prompt", "seed", "safety_tolerance", "output_format", "webhook_url", "webhook_secret", "width",
    "height",
}  # fmt: skip
#: width from which on the parameters have their own column
_WIDE = 140
_IN = "    "
#: input_image_2 and so on are shown as one
_NUMBERED = re.compile(r"input_image_\d+$")


def rows() -> Iterator[str]:
    """Yield a JSON object for each model; money in US dollars, durations in seconds."""
    for model in models():
        parameters = {name: known.allowed for name, known in model.parameters.items()}
        yield as_json(
            {
                "name": model.name,
                "price": float(model.price.first * CREDIT),
                "price_following_mp": float(model.price.following * CREDIT),
                "price_reference_mp": float(model.price.reference * CREDIT),
                "price_by": model.price.by,
                "price_tiers": {
                    value: float(amount * CREDIT) for value, amount in model.price.tiers.items()
                },
                "providers": model.providers,
                "parameters_from": str(model.parameters_from),
                "price_from": str(model.price_from),
                "note": model.note,
                "active_limit": model.active_limit,
                "typical_seconds": model.typical_seconds,
                "max_pixels": model.max_pixels,
                "parameters": parameters,
            }
        )


def table(columns: int) -> list[str]:
    """Return the lines of the table; no name is cut.

    On a narrow screen a model's own parameters are listed below it.
    """
    is_wide = columns >= _WIDE
    heads = ["model", "price", "at once", "usually", "width, height"]
    drawn = Table(
        *heads, *["other parameters"] * is_wide, box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for column in drawn.columns[: len(heads)]:
        column.no_wrap = True
    for model in models():
        cells = [model.name, _price(model), _limit(model), f"{model.typical_seconds:g} s"]
        drawn.add_row(*cells, _size(model), *[_own(model)] * is_wide)
    page = StringIO()
    width = columns if is_wide else _WIDE
    Console(file=page, width=width, markup=False, highlight=False, emoji=False).print(drawn)
    lines = [line.rstrip() for line in page.getvalue().splitlines()]
    return lines if is_wide else list(_with_parameters(lines, columns))


def _with_parameters(lines: list[str], columns: int) -> Iterator[str]:
    yield lines[0]
    for line, model in zip(lines[1:], models(), strict=True):
        yield line
        if own := _own(model):
            yield from wrap(own, max(columns, 40), initial_indent=_IN, subsequent_indent=_IN)


def _size(model: Model) -> str:
    """Return the sides that the model takes: "256–1440, step 32", "64+, step 16, ≤4 MP"."""
    side = model.parameters.get("width")
    if side is None or side.minimum is None:
        if "resolution" in model.parameters:
            return "resolution"
        return "aspect_ratio" if "aspect_ratio" in model.parameters else "as the image"
    sides = f"{side.minimum:g}+" if side.maximum is None else f"{side.minimum:g}–{side.maximum:g}"
    step = f", step {side.multiple_of}" if side.multiple_of else ""
    is_limited = model.max_pixels is not None and model.max_pixels != (side.maximum or 0) ** 2
    most = f", ≤{(model.max_pixels or 0) / 2**20:g} MP" if is_limited else ""
    return f"{sides}{step}{most}"


def _price(model: Model) -> str:
    first = f"${model.price.first * CREDIT:.3f}"
    following, tiers = model.price.following, model.price.tiers.values()
    if tiers:
        return f"${min(tiers) * CREDIT:.3f}–${max(tiers) * CREDIT:.3f}"
    return f"{first}+{following * CREDIT:.3f}/MP" if following else first


def _limit(model: Model) -> str:
    return "account" if model.active_limit is None else str(model.active_limit)


def _own(model: Model) -> str:
    names = [name for name in model.parameters if name not in _COMMON]
    first = [name for name in names if not _NUMBERED.match(name)]
    images = len(names) - len(first) + 1
    text = ", ".join(first)
    return text.replace("input_image", f"input_image (up to {images})") if images > 1 else text
