"""The Flux models as the practice server offers them: parameters, sizes, prices, durations.

Written down a second time on purpose, apart from the client's catalogue, so that the two cannot
share a mistake. Parameters and ranges: BFL openapi 2026-04-23, for canny, depth and flux-pro the
older BFL docs. Prices: BFL docs, in credits of 0.01 US dollars. Durations: recorded
`duration`s where there are any, else published times from submit to image less the pollers' lag.
Odd fact: kontext answers PNG unless told otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attrs import field, frozen


@frozen
class Rule:
    """What one parameter may be."""

    kind: str  #: int, number, bool, text, ratio or one of `choices`
    low: float | None = None
    high: float | None = None
    step: int | None = None
    choices: tuple[str, ...] = ()


@frozen(kw_only=True)
class Model:
    """One model on offer."""

    name: str
    seconds: float  #: median duration
    credits: Decimal  #: of an image, or of its first megapixel
    next_megapixel: Decimal | None = None  #: FLUX.2 only: each further output megapixel
    reference: Decimal = Decimal(0)  #: FLUX.2 only: each reference image, taken as one megapixel
    rules: Mapping[str, Rule] = field(repr=False)
    required: tuple[tuple[str, ...], ...] = ()  #: of each group, one must be given
    size: tuple[int, int] = (1024, 768)  #: unless the request says
    pixels: int | None = None  #: sized by aspect_ratio to about so many pixels
    output_format: str = "jpeg"
    upsamples: bool = False  #: prompt_upsampling unless the request says
    active_limit: int | None = None  #: lower than the account's

    @property
    def is_flux2(self) -> bool:
        return self.next_megapixel is not None

    def size_of(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """Pixels of the image that this request gives."""
        if self.pixels is not None:
            return _ratio_size(body.get("aspect_ratio"), self.size, self.pixels)
        width, height = body.get("width") or self.size[0], body.get("height") or self.size[1]
        if self.is_flux2:  # BFL docs: FLUX.2 crops to multiples of 16
            return width - width % 16, height - height % 16
        sides = {side: int(body.get(side) or 0) for side in ("top", "bottom", "left", "right")}
        return width + sides["left"] + sides["right"], height + sides["top"] + sides["bottom"]

    def price(self, body: Mapping[str, Any]) -> Decimal:
        """Credits this request costs. Megapixels are rounded up, as echoed costs suggest."""
        if self.next_megapixel is None:
            return self.credits
        width, height = self.size_of(body)
        further = max(0, math.ceil(width * height / 2**20) - 1)
        references = sum(1 for name in body if name.startswith("input_image") and body[name])
        return self.credits + further * self.next_megapixel + references * self.reference


def ratio(text: Any) -> float | None:
    """Width over height of 'W:H'; None when it is no such thing."""
    wide, colon, high = str(text).partition(":")
    if not (colon and wide.isdecimal() and high.isdecimal() and int(wide) and int(high)):
        return None
    return int(wide) / int(high)


def _ratio_size(given: Any, default: tuple[int, int], pixels: int) -> tuple[int, int]:
    shape = ratio(given)
    if shape is None:
        return default
    return round(math.sqrt(pixels * shape) / 32) * 32, round(math.sqrt(pixels / shape) / 32) * 32


_TEXT = Rule("text")
_BOOL = Rule("bool")
_COMMON = {
    "prompt": _TEXT,
    "seed": Rule("int"),
    "output_format": Rule("choice", choices=("jpeg", "png", "webp")),
    "webhook_url": Rule("text", low=1, high=2083),
    "webhook_secret": _TEXT,
}
_FLUX1 = _COMMON | {"safety_tolerance": Rule("int", 0, 6), "prompt_upsampling": _BOOL}
_SIDE = Rule("int", 256, 1440, 32)
_SIZED = _FLUX1 | {"width": _SIDE, "height": _SIDE, "image_prompt": _TEXT}
_RATIO = _FLUX1 | {"aspect_ratio": Rule("ratio", 9 / 21, 21 / 9)}
_TOOL = _FLUX1 | {"steps": Rule("int", 15, 50), "guidance": Rule("number", 1.5, 100)}
_CONTROL = _FLUX1 | {
    "control_image": _TEXT,
    "preprocessed_image": _TEXT,
    "steps": Rule("int", 15, 50),
    "guidance": Rule("number", 1, 100),
}
_THRESHOLD = Rule("int", 0, 500)
_GROWTH = Rule("int", 0, 2048)
_FLUX2 = _COMMON | {
    "width": Rule("int", 64),
    "height": Rule("int", 64),
    "safety_tolerance": Rule("int", 0, 5),
}


def _inputs(count: int) -> dict[str, Rule]:
    names = ["input_image", *(f"input_image_{n}" for n in range(2, count + 1))]
    return dict.fromkeys(names, _TEXT)


def _credits(text: str) -> Decimal:
    return Decimal(text)


_PROMPT = (("prompt",),)
_KONTEXT = _RATIO | _inputs(4)
_FLEX = {
    "prompt_upsampling": _BOOL,
    "guidance": Rule("number", 1.5, 10),
    "steps": Rule("int", 1, 50),
}


def _flux2(name: str, seconds: float, prices: str, *, images: int = 8, **more: Any) -> Model:
    first, further, reference = map(_credits, prices.split())
    rules = _FLUX2 | _inputs(images) | more.pop("rules", {})
    return Model(
        name=name, seconds=seconds, credits=first, next_megapixel=further, reference=reference,
        rules=rules, required=_PROMPT, size=(1024, 1024), **more,
    )  # fmt: skip


def _flux1(name: str, seconds: float, price: str, rules: Mapping[str, Rule], **more: Any) -> Model:
    return Model(name=name, seconds=seconds, credits=_credits(price), rules=rules, **more)


_GUIDED = {"steps": Rule("int", 1, 50), "guidance": Rule("number", 1.5, 5)}
_ULTRA = _RATIO | {
    "raw": _BOOL,
    "image_prompt": _TEXT,
    "image_prompt_strength": Rule("number", 0, 1),
}
_SQUARE_MEGAPIXEL: dict[str, Any] = {
    "required": _PROMPT,
    "size": (1024, 1024),
    "pixels": 2**20,
    "output_format": "png",
}
_OUTLINE = {"canny_low_threshold": _THRESHOLD, "canny_high_threshold": _THRESHOLD}
_CONTROLLED = (("prompt",), ("control_image", "preprocessed_image"))

MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        _flux1("flux-dev", 2.5, "2.5", _SIZED | _GUIDED),
        _flux1("flux-pro", 1.8, "5", _SIZED | _GUIDED | {"interval": Rule("number", 1, 4)}),
        _flux1("flux-pro-1.1", 1.8, "4", _SIZED),
        _flux1("flux-pro-1.1-ultra", 9.9, "6", _ULTRA, size=(2752, 1536), pixels=2752 * 1536),
        _flux1("flux-kontext-pro", 5.0, "4", _KONTEXT, **_SQUARE_MEGAPIXEL),
        _flux1("flux-kontext-max", 6.0, "8", _KONTEXT, active_limit=6, **_SQUARE_MEGAPIXEL),
        _flux1(
            "flux-pro-1.0-fill", 3.0, "5", _TOOL | {"image": _TEXT, "mask": _TEXT},
            required=(("image",),),
        ),
        _flux1(
            "flux-pro-1.0-expand", 5.0, "5",
            _TOOL | {"image": _TEXT}
            | dict.fromkeys(("top", "bottom", "left", "right"), _GROWTH),
            required=(("image",),),
        ),
        _flux1("flux-pro-1.0-canny", 3.0, "5", _CONTROL | _OUTLINE, required=_CONTROLLED),
        _flux1("flux-pro-1.0-depth", 3.0, "5", _CONTROL, required=_CONTROLLED),
        _flux2("flux-2-pro", 8.7, "3 1.5 1.5"),
        _flux2("flux-2-pro-preview", 8.7, "3 1.5 1.5"),
        _flux2("flux-2-max", 20.6, "7 3 3"),
        _flux2("flux-2-flex", 6.0, "5 5 5", rules=_FLEX, upsamples=True),
        _flux2("flux-2-klein-9b", 1.5, "1.5 0.2 0.2", images=4),
        _flux2("flux-2-klein-9b-preview", 1.5, "1.5 0.2 0.2", images=4),
        _flux2("flux-2-klein-4b", 1.0, "1.4 0.1 0.1", images=4),
    )
}  # fmt: skip
