"""The models as the simulator offers them: parameters, sizes, prices, durations.

Parameters and ranges: BFL openapi 2026-04-23; older BFL docs for canny, depth and flux-pro;
docs.bfl.ai/flux_3 of October 2026 for FLUX 3, whose schema is strict; the openapi of August 2026
for flux-tools. Prices: BFL docs, in credits of 0.01 US dollars. Durations: recorded `duration`s,
else published times from submission to image minus the pollers' delay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attrs import field, frozen


@frozen
class Rule:
    """The valid values of one parameter."""

    kind: str  #: int, number, bool, text, texts, ratio or choice
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
    is_strict: bool = False  #: refuses fields that it does not know
    tier: str = ""  #: the parameter that decides the price
    tiers: Mapping[str, tuple[Decimal, int]] = field(factory=dict)  #: its value → credits, pixels
    defaults: Mapping[str, Any] = field(factory=dict)  #: as the openapi file states them

    @property
    def is_flux2(self) -> bool:
        return self.next_megapixel is not None

    def size_of(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """Return the width and height that this request produces."""
        if self.tier == "resolution" and not (body.get("width") and body.get("height")):
            pixels = self.tiers[body.get("resolution") or "1k"][1]
            side = 16 * round(math.sqrt(pixels) / 16)
            return _ratio_size(body.get("aspect_ratio"), (side, side), pixels)
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
        if self.tiers:
            return self._tier_price(body)
        if self.next_megapixel is None:
            return self.credits
        width, height = self.size_of(body)
        further = max(0, math.ceil(width * height / 2**20) - 1)
        references = sum(1 for name in body if name.startswith("input_image") and body[name])
        return self.credits + further * self.next_megapixel + references * self.reference

    def _tier_price(self, body: Mapping[str, Any]) -> Decimal:
        if self.tier == "resolution" and body.get("width") and body.get("height"):
            pixels = body["width"] * body["height"]
            return next((price for price, most in self.tiers.values() if pixels <= most))
        return self.tiers[body.get(self.tier) or self.defaults[self.tier]][0]


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
_RATIOS = (
    "auto", "21:9", "2:1", "16:9", "3:2", "7:5", "4:3", "5:4", "1:1", "4:5", "3:4", "5:7", "2:3",
    "9:16", "1:2", "9:21",
)  # fmt: skip
_TIERS = {
    "768sq": 768**2, "1k": 1024**2, "1.5k": 1536**2, "2k": 2048**2, "4k": 4096**2,
}  # fmt: skip
_FLUX3 = {
    "prompt": _TEXT,
    "images": Rule("texts", 1, 10),
    "aspect_ratio": Rule("choice", choices=_RATIOS),
    "resolution": Rule("choice", choices=tuple(_TIERS)),
    "grounding": _BOOL,
    "safety_tolerance": Rule("int", 0, 7),
    "version": _TEXT,
    "webhook_url": Rule("text", low=1, high=2083),
    "webhook_secret": _TEXT,
}
_FLUX3_DEFAULTS = {
    "aspect_ratio": "auto", "resolution": "1k", "grounding": True, "safety_tolerance": 2,
    "version": "latest",
}  # fmt: skip
_KLEIN3 = {
    "seed": Rule("int"), "width": Rule("int", 64, 4096), "height": Rule("int", 64, 4096),
    "steps": Rule("int", 1, 50),
    "output_format": Rule("choice", choices=("jpeg", "png", "webp")),
}  # fmt: skip
_FLUX2_TOOL = {
    "seed": Rule("int"),
    "safety_tolerance": Rule("int", 0, 5),
    "output_format": Rule("choice", choices=("jpeg", "png", "webp")),
    "webhook_url": Rule("text", low=1, high=2083),
    "webhook_secret": _TEXT,
}
_PUP = {"disable_pup": _BOOL}
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


def _flux3(name: str, seconds: float, prices: str, **more: Any) -> Model:
    credits = map(_credits, prices.split())
    tiers = {value: (next(credits), pixels) for value, pixels in _TIERS.items()}
    return Model(
        name=name, seconds=seconds, credits=tiers["1k"][0], tier="resolution", tiers=tiers,
        rules=_FLUX3 | more.pop("rules", {}), required=_PROMPT, size=(1024, 1024), upsamples=True,
        is_strict=True, defaults=_FLUX3_DEFAULTS | more.pop("defaults", {}), **more,
    )  # fmt: skip


def _tool(name: str, seconds: float, price: str, rules: Mapping[str, Rule], **more: Any) -> Model:
    return Model(
        name=f"flux-tools/{name}", seconds=seconds, credits=_credits(price),
        rules={**_FLUX2_TOOL, **rules}, defaults={"safety_tolerance": 2} | more.pop("defaults", {}),
        output_format=more.pop("output_format", "png"), **more,
    )  # fmt: skip


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
_FINETUNED = {"finetune_id": _TEXT, "finetune_strength": Rule("number", 0, 2)}
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
        _flux1(
            "flux-pro-1.1-ultra-finetuned", 9.9, "7",
            {name: rule for name, rule in _ULTRA.items() if name != "raw"} | _FINETUNED,
            size=(2752, 1536), pixels=2752 * 1536, required=(("finetune_id",),),
        ),
        _flux1(
            "flux-pro-1.0-fill-finetuned", 3.0, "7",
            _TOOL | {"image": _TEXT, "mask": _TEXT} | _FINETUNED,
            required=(("image",), ("finetune_id",)),
        ),
        _flux2("flux-2-pro", 8.7, "3 1.5 1.5", rules=_PUP),
        _flux2("flux-2-pro-preview", 8.7, "3 1.5 1.5", rules=_PUP),
        _flux2("flux-2-max", 20.6, "7 3 3", rules=_PUP),
        _flux2("flux-2-flex", 6.0, "5 5 5", rules=_FLEX, upsamples=True),
        _flux2("flux-2-klein-9b", 1.5, "1.5 0.2 0.2", images=4),
        _flux2("flux-2-klein-9b-preview", 1.5, "1.5 0.2 0.2", images=4),
        _flux2("flux-2-klein-4b", 1.0, "1.4 0.1 0.1", images=4),
        _flux3("flux-3-image", 12.0, "4.1 4.8 10 10 60.7"),
        _flux3(
            "flux-3-image-klein", 3.0, "0.9 0.9 1.4 1.4 3.6", rules=_KLEIN3,
            defaults={"output_format": "jpeg"},
        ),
        _tool(
            "outpainting-v1", 14.0, "20",
            {
                "input_image": _TEXT, "width": Rule("int", 64), "height": Rule("int", 64),
                "prompt": _TEXT, "reference_offset_x": Rule("int"),
                "reference_offset_y": Rule("int"), "auto_crop": _BOOL,
                "mode": Rule("choice", choices=("high", "fast")),
            } | _PUP,
            required=(("input_image",), ("width",), ("height",)), tier="mode",
            tiers={"high": (Decimal(20), 0), "fast": (Decimal("4.5"), 0)},
            defaults={"mode": "high", "auto_crop": False, "output_format": "png"},
        ),
        _tool(
            "erase-v1", 7.0, "3",
            {"image": _TEXT, "mask": _TEXT, "dilate_pixels": Rule("int", 0, 25)},
            required=(("image",), ("mask",)),
            defaults={"dilate_pixels": 10, "output_format": "png"},
        ),
        _tool(
            "deblur-v1", 7.0, "3", {"image": _TEXT}, required=(("image",),),
            defaults={"output_format": "png"},
        ),
        *(
            _tool(
                name, 5.0, "4.75", {"prompt": _TEXT, "person": _TEXT, "garment": _TEXT},
                required=(("prompt",), ("person",), ("garment",)), output_format="jpeg",
                defaults={"output_format": "jpeg"},
            )
            for name in ("vto-v1", "vto-v2")
        ),
    )
}  # fmt: skip
