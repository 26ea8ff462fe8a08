"""One row → its requests: choices in the prompt × models × grid × seeds.

The order is fixed: the prompt's choices outermost, then models, then each axis of the grid as
given, seeds last. A row that gives the parameter of an axis is an error. Of several models, one
without the parameter of an axis is requested once, not once per value.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from attrs import frozen

from ..._core.arguments import check_type, usable_path
from ..._core.errors import ConfigError, cut
from ..._core.models import DEFAULT_MODEL, ImageRequest
from ..catalog import COPIES_MAXIMUM, NUMERIC, Model, find, models_with, unknown_parameter_message
from ..parsing import ROW_KEYS
from .column_names import kind_of
from .templates import COUNT_CAP
from .wildcards import Wildcards

Axis = tuple[str, tuple[Any, ...]]

#: images of one row, which are held at once
MOST = COPIES_MAXIMUM

#: characters of one row's prompts, which are held at once
_PROMPTS_CAP = 20_000_000

_PLACES = {"model": "models", "prompt": "the prompt's choices", "seed": "seeds"}


@frozen(kw_only=True)
class Expansion:
    """The values by which rows are multiplied."""

    models: tuple[str, ...] = ()
    axes: tuple[Axis, ...] = ()  #: seeds last
    wildcards: Wildcards | None = None

    @classmethod
    def of(
        cls,
        *,
        seeds: Iterable[int] | None = None,
        models: Sequence[str] | None = None,
        grid: Mapping[str, Iterable[Any]] | None = None,
        wildcards: bool | str | os.PathLike[str] | None = None,
        allow_files: tuple[str, ...] = (),
        foreign_marks: bool = False,
    ) -> Expansion | None:
        """Check the caller's values; None if there are none.

        Raises ConfigError for an axis that no model has, that is empty, or has a value twice.
        """
        check_type("grid", grid, Mapping, type(None), expected='as {"guidance": [2, 3.5]}')
        axes = [(name, axis_values(name, values)) for name, values in (grid or {}).items()]
        if seeds is not None:
            axes.append(("seed", axis_values("seed", seeds, argument="seeds")))
        names = () if models is None else axis_values("model", models, argument="models")
        lists = _wildcards(wildcards, allow_files, foreign_marks)
        spread = cls(models=names, axes=tuple(axes), wildcards=lists)
        spread._refuse_useless()
        return spread if axes or names or spread.wildcards is not None else None

    def notes(self) -> Iterator[str]:
        """Yield the exceptions from plain multiplication, as sentences."""
        for name, _ in self.axes:
            without = [model for model in self.models if not self._takes(model, name)]
            if without:
                yield f"{name} is not varied for {', '.join(without)}, which has no such parameter"

    def rows(self, row: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the rows of the product.

        Raises ConfigError for a row that gives the parameter of an axis, or has too many images.
        """
        self._refuse_both(row, defaults)
        template = self._template(row)
        # (model or none, the axes that it has)
        lines = [(name, self._fitting(name, row, defaults)) for name in self.models or (None,)]
        each = sum(math.prod(len(values) for _, values in axes) for _, axes in lines)
        self._refuse_many(row, each * (1 if template is None else template.count))
        for text in (None,) if template is None else _held(template.texts()):
            chosen = {} if text is None else {"prompt": text}
            for name, axes in lines:
                named = {} if name is None else {"model": name}
                names = [axis for axis, _ in axes]
                for values in product(*(values for _, values in axes)):
                    yield {**row, **chosen, **named, **dict(zip(names, values, strict=True))}

    def described(self, row: Mapping[str, Any]) -> str:
        """Return the values of this variant: " (with model=flux-dev, seed=3)"."""
        names = [name for name, _ in self.axes]
        given = [f"{name}={row[name]}" for name in ("model", *names) if row.get(name) is not None]
        return f" (with {cut(', '.join(given))})" if given and (self.axes or self.models) else ""

    def _template(self, row: Mapping[str, Any]) -> Any:
        prompt = row.get("prompt")
        if self.wildcards is None or not isinstance(prompt, str):
            return None
        return self.wildcards.template(prompt)

    def _fitting(
        self, name: str | None, row: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> tuple[Axis, ...]:
        usual = defaults.get("model") or DEFAULT_MODEL
        own = row.get("model", usual) if name is None else name
        several = own != usual if name is None else len(self.models) > 1
        if not several:
            return self.axes  # what the only model lacks is a mistake, and found by the check
        return tuple(axis for axis in self.axes if self._takes(own, axis[0]))

    @staticmethod
    def _takes(model: object, name: str) -> bool:
        known = find(model) if isinstance(model, str) else None
        return known is None or name in known.parameters

    def _refuse_useless(self) -> None:
        known = [model for name in self.models if (model := find(name)) is not None]
        if len(known) < max(2, len(self.models)):
            return
        for name, _ in self.axes:
            if not any(name in model.parameters for model in known):
                raise ConfigError(
                    f"grid: {unknown_parameter_message(cut(name), known[0], models_with(name))}"
                )

    def _refuse_both(self, row: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        names = [name for name, _ in self.axes] + (["model"] if self.models else [])
        for name in names:
            if row.get(name) is not None:
                place = _PLACES.get(name, "the grid")
                raise ConfigError(f"{name}: given in the row and in {place}; remove one")
        n = row.get("n") or defaults.get("n")
        if any(name == "seed" for name, _ in self.axes) and n not in (None, 1):
            raise ConfigError(
                f"n={n} and seeds: copies take the seeds that follow; list more seeds"
            )

    @staticmethod
    def _refuse_many(row: Mapping[str, Any], count: int) -> None:
        n = row.get("n")
        images = count * (n if isinstance(n, int) else 1)
        if images > MOST:
            shown = f"{images:,}" if images < COUNT_CAP else f"{COUNT_CAP:,} or more"
            raise ConfigError(
                f"{shown} images in one row, the limit is {MOST:,}: split the row, or remove "
                "choices or values"
            )


class RepeatedImages:
    """Counts the images that a row's choices make more than once, in constant memory."""

    def __init__(self) -> None:
        self._images = 0
        self._repeated = 0
        self._first = ""  #: the first that is repeated, and its place

    def add(self, where: str, requests: Iterable[ImageRequest], images: int) -> None:
        """Count the first `images` images of a row's requests."""
        seen: set[str] = set()
        for request in requests:
            count = min(request.n, images)
            images -= count
            self._images += count
            if count and request.content_key in seen:
                self._repeated += count
                self._first = self._first or f"{where}: {cut(repr(request.prompt))}"
            seen.add(request.content_key)

    def notes(self) -> Iterator[str]:
        """Yield a sentence, if there are any."""
        if self._repeated:
            verb = "repeats" if self._repeated == 1 else "repeat"
            yield (
                f"{self._repeated:,} of {self._images:,} images of templates {verb} another one of "
                f"their row ({self._first}), and each is paid"
            )


def _held(texts: Iterable[str]) -> Iterator[str]:
    """Yield the prompts of a row. Raises ConfigError above 20 million characters."""
    size = 0
    for text in texts:
        size += len(text)
        if size > _PROMPTS_CAP:
            raise ConfigError(
                f"its prompts are more than {_PROMPTS_CAP // 10**6} million characters together: "
                "split the row, or remove choices"
            )
        yield text


def _wildcards(
    given: bool | str | os.PathLike[str] | None,
    allow_files: tuple[str, ...],
    foreign_marks: bool,
) -> Wildcards | None:
    if given is None or given is False:
        return None
    folder = None if given is True else usable_path("wildcards", given)
    return Wildcards(folder, allow_files, foreign_marks=foreign_marks)


def axis_values(name: str, values: Iterable[Any], *, argument: str = "") -> tuple[Any, ...]:
    """Return the values of one axis: a parameter of the grid, or an argument of its own.

    Raises ConfigError for a key that is no parameter, for no values, and for a value twice.
    """
    shown = argument or f"grid {cut(name)}"
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ConfigError(f"{shown}: a list of values, not {type(values).__name__}")
    if not argument and (name in ROW_KEYS or name in ("prompt", "seed")):
        raise ConfigError(no_axis_message(name))
    if isinstance(values, Sequence) and len(values) > MOST:  # before a range is unrolled
        raise ConfigError(f"{shown}: {len(values):,} values; at most {MOST:,}")
    read = NUMERIC.get(kind_of(name) or "")
    taken: list[Any] = []
    for value in values:
        if value is None or value == "":
            raise ConfigError(f"{shown}: an empty value")
        taken.append(read(value) if read is not None and isinstance(value, str) else value)
        if len(taken) > MOST:
            raise ConfigError(f"{shown}: more than {MOST:,} values")
    if not taken:
        raise ConfigError(f"{shown}: no values")
    shown_values = [repr(value) for value in taken]
    if len(set(shown_values)) < len(taken):
        twice = next(value for value in shown_values if shown_values.count(value) > 1)
        raise ConfigError(
            f"{shown}: duplicate value {cut(twice)} (it would be generated and charged twice)"
        )
    return tuple(taken)


def no_axis_message(name: str) -> str:
    """Return the error of a grid over something that is no parameter."""
    if name == "seed":
        return "grid seed: use --seeds, for example --seeds 1..4"
    if name == "model":
        return "grid model: use --models, for example --models A,B"
    if name == "prompt":
        return "grid prompt: prompts are the rows of the list"
    model = find(DEFAULT_MODEL)
    if name in ROW_KEYS or not isinstance(model, Model):
        return f"grid {cut(name)}: not a parameter of a model"
    return f"grid {unknown_parameter_message(cut(name), model, ())}"
