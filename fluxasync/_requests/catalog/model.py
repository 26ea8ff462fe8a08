"""The shape of a catalogue entry (`Model`, its `Parameter`s and its `Price`), and the short forms
that entries are written with.

`Parameter.allowed` is the text of a range in errors, the models listing and the documentation.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal

from attrs import field, frozen

Kind = Literal["int", "number", "bool", "text", "image", "images", "choice", "ratio", "url", "any"]

_WORDS: Mapping[Kind, str] = {
    "int": "a whole number",
    "number": "a number",
    "bool": "true or false",
    "text": "text",
    "image": "a path, bytes or a URL",
    "images": "images, each a path, bytes or a URL",
    "ratio": "a ratio W:H between 21:9 and 9:21",
    "url": "an http(s) URL of 1 to 2083 characters",
    "any": "any JSON value",
}


@frozen(kw_only=True)
class Parameter:
    """One parameter of a model, under its wire name."""

    name: str
    kind: Kind
    minimum: float | None = None  #: of a list of images: its length
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
        if self.kind == "images":
            return f"{bounds} {_WORDS[self.kind]}"
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
    megapixel of output, and `reference` for each megapixel of input image. FLUX 3 models cost what
    `tiers` has for the value of the parameter `by`; `first` is the price of its default.
    """

    first: Decimal
    following: Decimal = Decimal(0)
    reference: Decimal = Decimal(0)
    by: str | None = None  #: the parameter that chooses the tier
    tiers: Mapping[str, Decimal] = field(factory=dict)  #: its value → credits


@frozen
class Provenance:
    """Where facts of an entry come from, and when they were read there."""

    name: str
    date: str  #: YYYY-MM-DD

    def __str__(self) -> str:
        return f"{self.name}, {self.date}"


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
    providers: tuple[str, ...] = ("bfl", "cometapi")  #: that are known to serve it
    parameters_from: Provenance | None = None
    price_from: Provenance | None = None
    note: str = ""  #: where sources differ, and which was taken
    required: tuple[str, ...] = field(init=False, repr=False)  #: names of required parameters

    def __repr__(self) -> str:
        return f"<Model {self.name}, from ${self.price.first / 100:.3f}>"

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
    "width": ("aspect_ratio", "resolution"),
    "height": ("aspect_ratio", "resolution"),
    "aspect_ratio": ("width", "height"),
    "image_prompt": ("input_image", "images", "image", "control_image"),
    "input_image": ("images", "image_prompt", "image", "control_image"),
    "image": ("input_image", "images", "image_prompt", "control_image"),
    "images": ("input_image", "image_prompt", "image"),
    "resolution": ("width", "height"),
    "disable_pup": ("prompt_upsampling",),
    "prompt_upsampling": ("disable_pup",),
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
        choose = "one of them" if len(others) > 1 else "it"
        return f"{lead}; {', '.join(others[:3])}{more} {verb} it: choose {choose}, or leave it out"
    return f"{lead}; fluxasync models lists what it takes"


# --- what entries of several families share ----------------------------------------------------

OPENAPI: Final = Provenance("BFL openapi", "2026-04-23")
OPENAPI_AUGUST: Final = Provenance("BFL openapi", "2026-08-13")
OLDER_DOCS: Final = Provenance("older BFL docs", "2025-06-01")
PRICE_LIST: Final = Provenance("bfl.ai/pricing", "2026-05-27")

#: the vendors name no range (BFL openapi 2026-04-23); seeds of other tools have up to 64 bits
#: (Comfy-Org/ComfyUI#13814)
SEED_MAXIMUM: Final = 2**64 - 1


def whole(
    name: str,
    minimum: int | None = None,
    maximum: int | None = None,
    default: int | None = None,
    **more: Any,
) -> Parameter:
    """Return a parameter that takes whole numbers."""
    return Parameter(
        name=name, kind="int", minimum=minimum, maximum=maximum, default=default, **more
    )


def real(name: str, minimum: float, maximum: float, default: float) -> Parameter:
    """Return a parameter that takes numbers."""
    return Parameter(name=name, kind="number", minimum=minimum, maximum=maximum, default=default)


def flag(name: str, default: bool) -> Parameter:
    """Return a parameter that is true or false."""
    return Parameter(name=name, kind="bool", default=default)


def image(name: str, *, required: bool = False) -> Parameter:
    """Return a parameter that takes one image."""
    return Parameter(name=name, kind="image", required=required)


def choice(name: str, *choices: str, default: str) -> Parameter:
    """Return a parameter that takes one of some words."""
    return Parameter(name=name, kind="choice", choices=choices, default=default)


def references(count: int) -> tuple[Parameter, ...]:
    """Return input_image, input_image_2 and so on."""
    rest = (image(f"input_image_{number}") for number in range(2, count + 1))
    return (image("input_image"), *rest)


def credits(first: str, following: str = "0", reference: str = "0") -> Price:
    """Return a price per image, or per megapixel."""
    return Price(first=Decimal(first), following=Decimal(following), reference=Decimal(reference))


def tiers(by: str, default: str, prices: Mapping[str, str]) -> Price:
    """Return a price that depends on the value of one parameter."""
    amounts = {value: Decimal(text) for value, text in prices.items()}
    return Price(first=amounts[default], by=by, tiers=amounts)


def entry(name: str, *parameters: Parameter, seconds: float, **more: Any) -> Model:
    """Return a model; one with its own limit of active jobs is a group of its own."""
    limit = more.get("active_limit")
    return Model(
        name=name,
        parameters={parameter.name: parameter for parameter in parameters},
        typical_seconds=seconds,
        group="account" if limit is None else name,
        **more,
    )


PROMPT = Parameter(name="prompt", kind="text", default="")
PROMPT_REQUIRED = Parameter(name="prompt", kind="text", required=True)
SEED = whole("seed", 0, SEED_MAXIMUM)
UPSAMPLING = flag("prompt_upsampling", False)
WEBHOOK = (
    Parameter(name="webhook_url", kind="url"),
    Parameter(name="webhook_secret", kind="text"),
)
ANY_FORMAT = choice("output_format", "jpeg", "png", "webp", default="jpeg")
ANY_FORMAT_PNG = choice("output_format", "jpeg", "png", "webp", default="png")
