"""The models as a table for people, or as one JSON object a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from io import StringIO

from rich.console import Console
from rich.table import Table

from .._catalog import Model, models
from ._shown import as_json

#: US dollars a credit of the price list
_CREDIT = Decimal("0.01")
#: what every model has or has under one name; the table shows what tells them apart
_COMMON = {"prompt", "seed", "safety_tolerance", "output_format", "webhook_url", "webhook_secret"}
#: input_image_2 and its followers: one word stands for all
_NUMBERED = re.compile(r"input_image_\d+$")


def rows() -> Iterator[str]:
    """Yield a JSON object for each model; money in US dollars, durations in seconds."""
    for model in models():
        parameters = {name: known.allowed for name, known in model.parameters.items()}
        yield as_json(
            {
                "name": model.name,
                "price": float(model.price.first * _CREDIT),
                "price_following_mp": float(model.price.following * _CREDIT),
                "price_reference_mp": float(model.price.reference * _CREDIT),
                "active_limit": model.active_limit,
                "typical_seconds": model.typical_seconds,
                "parameters": parameters,
            }
        )


def table(columns: int) -> list[str]:
    """Return the table's lines, for a screen of so many columns."""
    drawn = Table("model", "price", "at once", "usually", "parameters of its own", box=None)
    for model in models():
        usually = f"{model.typical_seconds:g} s"
        drawn.add_row(model.name, _price(model), _limit(model), usually, _own(model))
    page = StringIO()
    Console(file=page, width=columns, markup=False, highlight=False, emoji=False).print(drawn)
    return [line.rstrip() for line in page.getvalue().splitlines()]


def _price(model: Model) -> str:
    first = f"${model.price.first * _CREDIT:.3f}"
    following = model.price.following
    return f"{first} + ${following * _CREDIT:.3f}/MP" if following else first


def _limit(model: Model) -> str:
    return "account's" if model.active_limit is None else str(model.active_limit)


def _own(model: Model) -> str:
    names = [name for name in model.parameters if name not in _COMMON]
    first = [name for name in names if not _NUMBERED.match(name)]
    images = len(names) - len(first) + 1
    return ", ".join(first).replace("input_image", f"input_image (up to {images})")
