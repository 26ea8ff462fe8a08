"""The models as the simulator offers them: parameters, sizes, prices, durations; and validation.

Parameters and ranges: BFL openapi 2026-04-23; older BFL docs for canny, depth and flux-pro. Prices:
BFL docs, in credits of 0.01 US dollars. Durations: recorded `duration`s, else published times from
submission to image minus the pollers' delay. Validation messages have the words of pydantic and
the structure that FastAPI puts under `detail`. Unknown fields are ignored, as by the vendors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attrs import field, frozen


@frozen
class Rule:
    """The valid values of one parameter."""

    kind: str  #: int, number, bool, text, ratio or choice
    low: float | None = None
    high: float | None = None
    step: int | None = None
    choices: tuple[str, ...] = ()


@frozen(kw_only=True)
class Model:
    """One model."""

    name: str
    seconds: float  #: median duration
    credits: Decimal  #: per image; FLUX.2: for the first output megapixel
    next_megapixel: Decimal | None = None  #: FLUX.2: credits per further megapixel
    reference: Decimal = Decimal(0)  #: FLUX.2: credits per reference image
    rules: Mapping[str, Rule] = field(repr=False)
    required: tuple[tuple[str, ...], ...] = ()  #: one parameter of each group is required
    size: tuple[int, int] = (1024, 768)  #: default size
    pixels: int | None = None  #: number of pixels of a model that is sized by aspect_ratio
    output_format: str = "jpeg"
    upsamples: bool = False  #: default of prompt_upsampling
    active_limit: int | None = None  #: below the account's limit

    @property
    def is_flux2(self) -> bool:
        return self.next_megapixel is not None

    def size_of(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """Return the width and height that this request produces."""
        if self.pixels is not None:
            return _ratio_size(body.get("aspect_ratio"), self.size, self.pixels)
        width, height = body.get("width") or self.size[0], body.get("height") or self.size[1]
        if self.is_flux2:  # BFL docs: FLUX.2 crops to multiples of 16
            return width - width % 16, height - height % 16
        sides = {side: int(body.get(side) or 0) for side in ("top", "bottom", "left", "right")}
        return width + sides["left"] + sides["right"], height + sides["top"] + sides["bottom"]

    def price(self, body: Mapping[str, Any]) -> Decimal:
        """Return the price of this request in credits. Megapixels are rounded up, as costs in
        recorded answers suggest."""
        if self.next_megapixel is None:
            return self.credits
        width, height = self.size_of(body)
        further = max(0, math.ceil(width * height / 2**20) - 1)
        references = sum(1 for name in body if name.startswith("input_image") and body[name])
        return self.credits + further * self.next_megapixel + references * self.reference


def ratio(text: Any) -> float | None:
    """Return width / height of 'W:H', or None if the text has another form."""
    wide, colon, high = str(text).partition(":")
    if not (colon and wide.isdecimal() and high.isdecimal() and int(wide) and int(high)):
        return None
    return int(wide) / int(high)


def _ratio_size(aspect_ratio: Any, default: tuple[int, int], pixels: int) -> tuple[int, int]:
    shape = ratio(aspect_ratio)
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

Problem = dict[str, Any]

_MOST_PIXELS = 4 * 2**20  # BFL docs: limit of FLUX.2


def read_body(body: bytes) -> tuple[dict[str, Any], list[Problem]]:
    """Return the body's JSON object and the problems found in reading it."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        return {}, [_problem("json_invalid", (0,), "JSON decode error", {}, error=str(exc)[:80])]
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        return {}, [_problem("model_attributes_type", (), message, value)]
    return value, []


def problems_in(model: Model, body: Mapping[str, Any]) -> list[Problem]:
    """Return everything that is wrong with a request for this model."""
    found = [
        _problem("missing", (group[0],), "Field required", dict(body))
        for group in model.required
        if all(body.get(name) is None for name in group)
    ]
    for name, rule in model.rules.items():
        value = body.get(name)
        if value is not None:
            found += _check(name, rule, value)
    if model.is_flux2 and not found:
        width, height = model.size_of(body)
        if width * height > _MOST_PIXELS:
            message = "Value error, Image size must not exceed 4 megapixels"
            found.append(_problem("value_error", (), message, f"{width}x{height}"))
    return found


def _problem(kind: str, loc: tuple[object, ...], msg: str, value: Any, **ctx: Any) -> Problem:
    entry: Problem = {"type": kind, "loc": ["body", *loc], "msg": msg, "input": value}
    if ctx:
        entry["ctx"] = ctx
    entry["url"] = f"https://errors.pydantic.dev/2.10/v/{kind}"
    return entry


def _check(name: str, rule: Rule, value: Any) -> list[Problem]:
    if rule.kind in ("int", "number"):
        return _number(name, rule, value)
    if rule.kind == "bool":
        if isinstance(value, bool):
            return []
        return [_problem("bool_type", (name,), "Input should be a valid boolean", value)]
    if not isinstance(value, str):
        return [_problem("string_type", (name,), "Input should be a valid string", value)]
    if rule.kind == "choice":
        return _choice(name, rule, value)
    return _ratio(name, rule, value) if rule.kind == "ratio" else _length(name, rule, value)


def _number(name: str, rule: Rule, value: Any) -> list[Problem]:
    is_integer = rule.kind == "int"
    if isinstance(value, bool) or not isinstance(value, int if is_integer else (int, float)):
        noun = "integer" if is_integer else "number"
        kind = "int_type" if is_integer else "float_type"
        return [_problem(kind, (name,), f"Input should be a valid {noun}", value)]
    should = "Input should be"
    if rule.low is not None and not value >= rule.low:
        message = f"{should} greater than or equal to {rule.low:g}"
        return [_problem("greater_than_equal", (name,), message, value, ge=rule.low)]
    if rule.high is not None and not value <= rule.high:
        message = f"{should} less than or equal to {rule.high:g}"
        return [_problem("less_than_equal", (name,), message, value, le=rule.high)]
    if rule.step and value % rule.step:
        message = f"{should} a multiple of {rule.step}"
        return [_problem("multiple_of", (name,), message, value, multiple_of=rule.step)]
    return []


def _choice(name: str, rule: Rule, value: str) -> list[Problem]:
    if value in rule.choices:
        return []
    *most, last = (f"'{choice}'" for choice in rule.choices)
    expected = f"{', '.join(most)} or {last}"
    return [_problem("enum", (name,), f"Input should be {expected}", value, expected=expected)]


def _ratio(name: str, rule: Rule, value: str) -> list[Problem]:
    shape = ratio(value)
    if shape is not None and (rule.low or 0) <= shape <= (rule.high or 0):
        return []
    message = "Value error, Aspect ratio must be between 21:9 and 9:21"
    return [_problem("value_error", (name,), message, value)]


def _length(name: str, rule: Rule, value: str) -> list[Problem]:
    if rule.low is not None and len(value) < rule.low:
        message = f"String should have at least {rule.low:g} character"
        return [_problem("string_too_short", (name,), message, value, min_length=rule.low)]
    if rule.high is not None and len(value) > rule.high:
        message = f"String should have at most {rule.high:g} characters"
        return [_problem("string_too_long", (name,), message, value, max_length=rule.high)]
    return []
