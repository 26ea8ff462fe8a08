"""The catalogue's data, one entry a model.

Ranges and defaults: BFL openapi 2026-04-23; flux-pro, canny and depth, which it no longer lists:
older BFL docs. Prices: BFL's price list of 2026-05-27. The limit of six: BFL docs. Durations are
server-side generation times, rounded from recorded answers and published measurements, less the
polls those contain; they pace the first poll and the estimate, so a wrong one costs little. In
BFL's document width and height of FLUX.2 default to 0, below their own minimum: leaving them out
means "like the input".
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from .model import Model, Parameter, Price


def _int(
    name: str,
    minimum: int,
    maximum: int | None,
    default: int | None = None,
    multiple_of: int | None = None,
) -> Parameter:
    return Parameter(
        name=name,
        kind="int",
        minimum=minimum,
        maximum=maximum,
        default=default,
        multiple_of=multiple_of,
    )


def _number(name: str, minimum: float, maximum: float, default: float) -> Parameter:
    return Parameter(name=name, kind="number", minimum=minimum, maximum=maximum, default=default)


def _bool(name: str, default: bool) -> Parameter:
    return Parameter(name=name, kind="bool", default=default)


def _image(name: str, *, required: bool = False) -> Parameter:
    return Parameter(name=name, kind="image", required=required)


def _format(*choices: str, default: str = "jpeg") -> Parameter:
    return Parameter(name="output_format", kind="choice", choices=choices, default=default)


def _references(count: int) -> tuple[Parameter, ...]:
    rest = (_image(f"input_image_{number}") for number in range(2, count + 1))
    return (_image("input_image"), *rest)


#: the vendors name no range (BFL openapi 2026-04-23); seeds of other tools have up to 64 bits
#: (Comfy-Org/ComfyUI#13814)
SEED_MAXIMUM: Final = 2**64 - 1

_PROMPT = Parameter(name="prompt", kind="text", default="")
_PROMPT_REQUIRED = Parameter(name="prompt", kind="text", required=True)
_SEED = _int("seed", 0, SEED_MAXIMUM)
_UPSAMPLING = _bool("prompt_upsampling", False)
_TOLERANCE = _int("safety_tolerance", 0, 6, 2)
_RATIO = Parameter(name="aspect_ratio", kind="ratio")
_WIDE_RATIO = Parameter(name="aspect_ratio", kind="ratio", default="16:9")
_WEBHOOK = (
    Parameter(name="webhook_url", kind="url"),
    Parameter(name="webhook_secret", kind="text"),
)
_ANY_FORMAT = _format("jpeg", "png", "webp")
_OLD_FORMAT = _format("jpeg", "png")  # webp came in 2026, to the models then in the openapi

_SIZE = (_int("width", 256, 1440, 1024, 32), _int("height", 256, 1440, 768, 32))
_FLUX_2_SIZE = (_int("width", 64, None, None, 16), _int("height", 64, None, None, 16))

_TEXT_TO_IMAGE = (
    _PROMPT, _image("image_prompt"), *_SIZE, _UPSAMPLING, _SEED, _TOLERANCE, *_WEBHOOK,
)  # fmt: skip
_EDIT = (
    _image("image", required=True), _PROMPT, _int("steps", 15, 50, 50),
    _number("guidance", 1.5, 100, 60), _UPSAMPLING, _SEED, _TOLERANCE, _ANY_FORMAT, *_WEBHOOK,
)  # fmt: skip
_CONTROL = (
    _PROMPT_REQUIRED, _image("control_image"), _image("preprocessed_image"),
    _int("steps", 15, 50, 50), _number("guidance", 1, 100, 30), _UPSAMPLING, _SEED, _TOLERANCE,
    _OLD_FORMAT, *_WEBHOOK,
)  # fmt: skip
_KONTEXT = (
    _PROMPT_REQUIRED, *_references(4), _RATIO, _UPSAMPLING, _SEED, _TOLERANCE,
    _format("jpeg", "png", "webp", default="png"), *_WEBHOOK,
)  # fmt: skip
_FLUX_2_COMMON = (
    _PROMPT_REQUIRED, *_FLUX_2_SIZE, _SEED, _int("safety_tolerance", 0, 5, 2), _ANY_FORMAT,
    *_WEBHOOK,
)  # fmt: skip
_FLUX_2 = (*_FLUX_2_COMMON, *_references(8))
_KLEIN = (*_FLUX_2_COMMON, *_references(4))

_FLUX_2_PIXELS = 2048 * 2048  # "up to 4 MP", BFL docs


def _price(first: str, following: str = "0", reference: str = "0") -> Price:
    return Price(first=Decimal(first), following=Decimal(following), reference=Decimal(reference))


def _model(
    name: str,
    *parameters: Parameter,
    price: Price,
    seconds: float,
    needs: tuple[str, ...] = (),
    active_limit: int | None = None,
    max_pixels: int | None = None,
) -> Model:
    return Model(
        name=name,
        parameters={parameter.name: parameter for parameter in parameters},
        price=price,
        typical_seconds=seconds,
        needs=needs,
        active_limit=active_limit,
        group="account" if active_limit is None else name,
        max_pixels=max_pixels,
    )


_PROMPTS = ("prompt", "image_prompt")
_CONTROLS = ("control_image", "preprocessed_image")

_MODELS = (
    _model(
        "flux-pro-1.1", *_TEXT_TO_IMAGE, _ANY_FORMAT,
        needs=_PROMPTS, price=_price("4"), seconds=1.8,  # done within the first 2-s poll
    ),
    _model(
        "flux-pro", *_TEXT_TO_IMAGE, _int("steps", 1, 50, 40), _number("guidance", 1.5, 5, 2.5),
        _number("interval", 1, 4, 2), _OLD_FORMAT,
        needs=_PROMPTS, price=_price("5"), seconds=1.8,  # as flux-pro-1.1
    ),
    _model(
        "flux-dev", *_TEXT_TO_IMAGE, _int("steps", 1, 50, 28), _number("guidance", 1.5, 5, 3),
        _ANY_FORMAT,
        needs=_PROMPTS, price=_price("2.5"), seconds=2.5,  # recorded `duration` 2.49
    ),
    _model(
        "flux-pro-1.1-ultra", _PROMPT, _WIDE_RATIO, _bool("raw", False), _image("image_prompt"),
        _number("image_prompt_strength", 0, 1, 0.1), _UPSAMPLING, _SEED, _TOLERANCE, _ANY_FORMAT,
        *_WEBHOOK,
        needs=_PROMPTS, price=_price("6"), seconds=9.5,  # `duration` 9.95 in 2024
    ),
    _model("flux-kontext-pro", *_KONTEXT, price=_price("4"), seconds=5.0),
    _model("flux-kontext-max", *_KONTEXT, price=_price("8"), seconds=6.0, active_limit=6),
    _model(
        "flux-2-pro", *_FLUX_2, max_pixels=_FLUX_2_PIXELS,
        price=_price("3", "1.5", "1.5"), seconds=8.5,  # recorded 8.5 to 9
    ),
    _model(
        "flux-2-pro-preview", *_FLUX_2, max_pixels=_FLUX_2_PIXELS,
        price=_price("3", "1.5", "1.5"), seconds=8.5,
    ),
    _model(
        "flux-2-flex", *_FLUX_2, _bool("prompt_upsampling", True), _int("steps", 1, 50, 50),
        _number("guidance", 1.5, 10, 5), max_pixels=_FLUX_2_PIXELS,
        price=_price("5", "5", "5"), seconds=6.0,  # 6 credits in earlier lists
    ),
    _model(
        "flux-2-max", *_FLUX_2, max_pixels=_FLUX_2_PIXELS,
        # sources give 1.5 or 3 for a reference image: a cap is safe with the higher
        price=_price("7", "3", "3"), seconds=20.0,  # recorded 20.6, 36 at larger sizes
    ),
    _model(
        "flux-2-klein-4b", *_KLEIN, max_pixels=_FLUX_2_PIXELS,
        price=_price("1.4", "0.1", "0.1"), seconds=1.0,  # "sub-second", BFL docs
    ),
    _model(
        "flux-2-klein-9b", *_KLEIN, max_pixels=_FLUX_2_PIXELS,
        price=_price("1.5", "0.2", "0.2"), seconds=1.5,
    ),
    _model(
        "flux-2-klein-9b-preview", *_KLEIN, max_pixels=_FLUX_2_PIXELS,
        price=_price("1.5", "0.2", "0.2"), seconds=1.5,
    ),
    _model("flux-pro-1.0-fill", *_EDIT, _image("mask"), price=_price("5"), seconds=3.0),
    _model(
        "flux-pro-1.0-expand", *_EDIT,
        *(_int(side, 0, 2048, 0) for side in ("top", "bottom", "left", "right")),
        price=_price("5"), seconds=5.0,  # measured 6.5 and 22.7: the widest spread of all
    ),
    _model(
        "flux-pro-1.0-canny", *_CONTROL, _int("canny_low_threshold", 0, 500, 50),
        _int("canny_high_threshold", 0, 500, 200),
        needs=_CONTROLS, price=_price("5"), seconds=3.0,
    ),
    _model("flux-pro-1.0-depth", *_CONTROL, needs=_CONTROLS, price=_price("5"), seconds=3.0),
)  # fmt: skip

TABLE: Final = {model.name: model for model in _MODELS}


def models() -> tuple[Model, ...]:
    """Return every model of the catalogue, the vendor page's own first."""
    return _MODELS


def find(name: str) -> Model | None:
    """Return the model of that name, or None if the catalogue does not know it."""
    return TABLE.get(name)


def _owners() -> dict[str, tuple[str, ...]]:
    owners: dict[str, tuple[str, ...]] = {}
    for model in _MODELS:
        for name in model.parameters:
            owners[name] = (*owners.get(name, ()), model.name)
    return owners


_OWNERS = _owners()


def models_with(parameter: str) -> tuple[str, ...]:
    """Return the names of the models that have a parameter; empty if none does."""
    return _OWNERS.get(parameter, ())
