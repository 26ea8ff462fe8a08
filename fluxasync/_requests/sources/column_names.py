"""The meaning of a column's name: the parameter, the row key, or the user's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from ..._core.errors import ConfigError
from ..catalog.table import find, models_with

EXTRAS = "extras."  #: a target of this start is a key of the metadata
EXTRA_BODY = "extra_body."  #: a target of this start is sent under the rest of its name

_KINDS_OF_ROW_KEYS = {
    "prompt": "prompt", "model": "text", "name": "text", "n": "int", "extra_body": "object",
    "extras": "object",
}  # fmt: skip


def kind_of(name: str) -> str | None:
    """Return the catalogue's kind of a row's key; None for a key of the user."""
    if name in _KINDS_OF_ROW_KEYS:
        return _KINDS_OF_ROW_KEYS[name]
    takers = models_with(name)
    model = find(takers[0]) if takers else None
    return None if model is None else model.parameters[name].kind


@lru_cache(maxsize=4096)
def target_of(name: str) -> str:
    """Return the parameter or row key that a column's name means, else the name.

    Capitals, spaces and dashes do not count, as people write headers: "Output Format".
    """
    plain = re.sub(r"[\s-]+", "_", name.strip().lower())
    return plain if kind_of(plain) is not None else name


#: the plural, as DrawBench's tables have it; it counts where nothing is named prompt
_PROMPTS = "prompts"


def targets_of(names: Iterable[str], mapped: Mapping[str, str]) -> list[str]:
    """Return the target of each column; `mapped` holds those that the user chose."""
    names = list(names)
    targets = [mapped.get(name) or target_of(name) for name in names]
    if "prompt" in targets or "prompt" in mapped.values():
        return targets
    return [
        "prompt" if name == target and name.strip().lower() == _PROMPTS else target
        for name, target in zip(names, targets, strict=True)
    ]


def named(row: Mapping[str, Any], *, has_prompt: bool = False) -> dict[str, Any]:
    """Return an object's row under the names of parameters. Raises ConfigError for two of one.

    `has_prompt`: the prompt is in another column.
    """
    if all(map(is_plain, row)):
        return dict(row)
    given = {key: value for key, value in row.items() if value is not None}
    made: dict[str, Any] = {}
    sources: dict[str, str] = {}
    faults = []
    taken = {"prompt": "prompt"} if has_prompt else {}
    for name, target in zip(given, targets_of(map(str, given), taken), strict=True):
        if target in sources:
            faults.append(twice(target, sources[target], name))
        sources[target] = name
        made[target if isinstance(name, str) else name] = given[name]
    if faults:
        raise ConfigError("; ".join(faults))
    return made


def is_plain(name: Any) -> bool:
    """Return whether a name stands for itself in any row."""
    return isinstance(name, str) and target_of(name) == name and name.lower() != _PROMPTS


def twice(target: str, one: str, other: str) -> str:
    if one == other:
        return f"two columns are named {short(one)}; rename or remove one"
    return (
        f"{target} would come from two columns, {short(one)} and {short(other)}; "
        f"keep one as metadata: --map {EXTRAS}{target}=COLUMN"
    )


def short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


#: rows below a title in which names are looked for
_BELOW = 5


def title_fault(
    names: Sequence[str], below: Iterable[Sequence[Any]], *, row: int
) -> ConfigError | None:
    """Return the error of a row that should name columns and has one cell, where a row below it has
    several: it is the title of a table. `row` is its number; None = it is no title."""
    titles = [name for name in names if name.strip()]
    if len(titles) != 1:
        return None
    for number, cells in enumerate(islice(below, _BELOW), start=row + 1):
        if (count := _filled(cells)) > 1:
            return ConfigError(
                f"row {row} has one cell, {short(titles[0].strip())}, and row {number} has "
                f"{count}: is row {row} a title? Remove what is above the names of the columns"
            )
    return None


def _filled(cells: Sequence[Any]) -> int:
    filled = [str(cell) for cell in cells if cell is not None and str(cell).strip()]
    if len(filled) == 1:  # the separator was looked for in the title
        return max(sum(map(bool, map(str.strip, filled[0].split(mark)))) for mark in ";\t")
    return len(filled)
