"""The shape of a catalogue entry: `Model`, its `Parameter`s and its `Price`.

`Parameter.allowed` is the text of a range in errors, the models listing and the documentation.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Literal

from attrs import field, frozen

Kind = Literal["int", "number", "bool", "text", "image", "choice", "ratio", "url"]

_WORDS: Mapping[Kind, str] = {
    "int": "a whole number",
    "number": "a number",
    "bool": "true or false",
    "text": "text",
    "image": "a path, bytes or a URL",
    "ratio": "a ratio W:H between 21:9 and 9:21",
    "url": "an http(s) URL of 1 to 2083 characters",
}


@frozen(kw_only=True)
class Parameter:
    """One parameter of a model, under its wire name."""

    name: str
    kind: Kind
    minimum: float | None = None
    maximum: float | None = None  #: only beside a minimum
    multiple_of: int | None = None
    choices: tuple[str, ...] = ()
    default: object = None  #: what the provider assumes; never sent
    required: bool = False

    @property
    def allowed(self) -> str:
        """What it takes, in words: "256 to 1440 in steps of 32"."""
        if self.choices:
            return " or ".join(filter(None, (", ".join(self.choices[:-1]), self.choices[-1])))
        bounds = self._bounds()
        if bounds is None:
            return _WORDS[self.kind]
        return bounds + (f" in steps of {self.multiple_of}" if self.multiple_of else "")

    def _bounds(self) -> str | None:
        if self.minimum is None:
            return None
        if self.maximum is None:
            return f"{_plain(self.minimum)} or more"
        return f"{_plain(self.minimum)} to {_plain(self.maximum)}"

    def nearest(self, value: float) -> str:
        """Return the allowed number closest to one that is not, as text."""
        step = self.multiple_of or 1
        if self.multiple_of:
            value = (value + step // 2) // step * step
        if self.minimum is not None and value < self.minimum:
            value = -(-self.minimum // step) * step if self.multiple_of else self.minimum
        if self.maximum is not None and value > self.maximum:
            value = self.maximum // step * step if self.multiple_of else self.maximum
        return _plain(value)


def _plain(number: float) -> str:
    """Say 256 and not 256.0; all digits of a whole number."""
    return str(int(number)) if number == int(number) else f"{number:g}"


@frozen(kw_only=True)
class Price:
    """List price in credits of US$0.01.

    FLUX.1 models cost `first` an image. FLUX.2 models also cost `following` for each further
    megapixel of output, and `reference` for each megapixel of input image.
    """

    first: Decimal
    following: Decimal = Decimal(0)
    reference: Decimal = Decimal(0)


@frozen(kw_only=True, eq=False)
class Model:
    """One Flux model and what it takes; there is one object of each, so they compare as such."""

    name: str
    parameters: Mapping[str, Parameter] = field(repr=False)
    price: Price
    typical_seconds: float  #: server-side generation time of one image
    needs: tuple[str, ...] = ()  #: at least one of these parameters must be given
    active_limit: int | None = None  #: active jobs the provider allows; None = the account's
    group: str = "account"  #: models of one group share their active jobs
    max_pixels: int | None = None  #: width × height
    required: tuple[str, ...] = field(init=False, repr=False)  #: names of required parameters

    @required.default
    def _find_required(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.parameters.values() if each.required)


@lru_cache(maxsize=4096)
def closest(name: str, model: Model) -> str | None:
    """Return the parameter of `model` that `name` looks like a misspelling of, or None."""
    squashed = {_squash(known): known for known in model.parameters}
    if _squash(name) in squashed:
        return squashed[_squash(name)]
    near = difflib.get_close_matches(_squash(name), squashed, n=1, cutoff=0.75)
    return squashed[near[0]] if near else None


def _squash(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


#: what a model that lacks the first has in its place
_INSTEAD = {
    "width": ("aspect_ratio",),
    "height": ("aspect_ratio",),
    "aspect_ratio": ("width", "height"),
    "image_prompt": ("input_image", "image", "control_image"),
    "input_image": ("image_prompt", "image", "control_image"),
    "image": ("input_image", "image_prompt", "control_image"),
}


def unknown_parameter_message(name: str, model: Model, others: tuple[str, ...]) -> str:
    """Return the error of a parameter that `model` lacks, with the next step."""
    lead = f"{name}: {model.name} has no such parameter"
    instead = [known for known in _INSTEAD.get(name, ()) if known in model.parameters]
    if instead:
        return f"{lead}; it takes {' and '.join(instead)}"
    if near := closest(name, model):
        return f"{lead}; did you mean {near}?"
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        verb = "have" if len(others) > 1 else "has"
        return f"{lead}; {', '.join(others[:3])}{more} {verb} it"
    return lead
