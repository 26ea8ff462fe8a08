"""The tables in docs/models.md: the catalogue's entries with their sources.

`python -m tests.docs.model_tables`, in the repository's folder, rewrites them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fluxasync import Model, Parameter, models
from fluxasync._core.amounts import CREDIT, dollars

PAGE = Path(__file__).parent.parent.parent / "docs" / "models.md"

_TABLES = re.compile(r"(?<=<!-- models -->\n).*?(?=<!-- end models -->)", re.DOTALL)
_NUMBERED = re.compile(r"(input_image)_(\d+)")
_PROVIDERS = {"bfl": "BFL", "cometapi": "CometAPI"}


def with_tables(page: str) -> str:
    """Return the page with its tables made from the catalogue as it is."""
    return _TABLES.sub(lambda _: "\n" + "\n".join(_lines()) + "\n\n", page)


def _lines() -> Iterator[str]:
    yield "| model | served by | price of an image | parameters from | price from |"
    yield "|---|---|---|---|---|"
    for model in models():
        served = ", ".join(_PROVIDERS[name] for name in model.providers)
        sources = f"{model.parameters_from} | {model.price_from}"
        yield f"| `{model.name}` | {served} | {_price(model)} | {sources} |"
    yield from ("", "| model | where sources differ |", "|---|---|")
    yield from (f"| `{model.name}` | {model.note} |" for model in models() if model.note)
    yield from ("", "## Parameters and limits")
    for names, model in _alike():
        yield from ("", f"### {', '.join(names)}", "", *_limits(model))
        yield from ("| parameter | takes | the provider's default |", "|---|---|---|")
        yield from _parameters(model)


def _alike() -> Iterator[tuple[list[str], Model]]:
    """Yield the models with the same parameters and limits together."""
    groups: dict[tuple[object, ...], list[Model]] = {}
    for model in models():
        alike = (
            tuple(model.parameters.values()),
            model.max_pixels,
            model.active_limit,
            model.needs,
        )
        groups.setdefault(alike, []).append(model)
    for group in groups.values():
        yield [model.name for model in group], group[0]


def _limits(model: Model) -> Iterator[str]:
    limits = [
        f"at most {model.max_pixels / 2**20:g} megapixels" if model.max_pixels else "",
        f"at most {model.active_limit} active jobs" if model.active_limit else "",
        f"needs {' or '.join(model.needs)}" if model.needs else "",
    ]
    if any(limits):
        text = "; ".join(filter(None, limits))
        yield from (f"{text[0].upper()}{text[1:]}.", "")


def _price(model: Model) -> str:
    price = model.price
    if price.tiers:
        tiers = (f"{value}: {dollars(each * CREDIT)}" for value, each in price.tiers.items())
        return f"by `{price.by}`: {', '.join(tiers)}"
    text = dollars(price.first * CREDIT)
    if price.following:
        text += f", each further megapixel {dollars(price.following * CREDIT)}"
    if price.reference:
        text += f", each megapixel of input images {dollars(price.reference * CREDIT)}"
    return text


def _parameters(model: Model) -> Iterator[str]:
    numbered = [name for name in model.parameters if _NUMBERED.fullmatch(name)]
    for name, parameter in model.parameters.items():
        if name in numbered:
            continue
        shown = f"`{name}`"
        if name == "input_image" and numbered:
            shown += f", `input_image_2` … `{numbered[-1]}`"
        required = " (required)" if parameter.required else ""
        yield f"| {shown}{required} | {_allowed(parameter)} | {_default(parameter)} |"


def _allowed(parameter: Parameter) -> str:
    return parameter.allowed.replace("|", r"\|")


def _default(parameter: Parameter) -> str:
    match parameter.default:
        case None | "":
            return "–"
        case bool(value):
            return str(value).lower()
    return f"{parameter.default}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), encoding="utf-8")
