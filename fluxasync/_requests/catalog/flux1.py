"""FLUX.1 as data, one entry a model.

Parameters: BFL openapi 2026-04-23; flux-pro, canny and depth, which it no longer lists: older BFL
docs. Prices: BFL's price list of 2026-05-27. The limit of six: BFL docs.
"""

from __future__ import annotations

from .model import (
    ANY_FORMAT,
    ANY_FORMAT_PNG,
    OLDER_DOCS,
    OPENAPI,
    PRICE_LIST,
    PROMPT,
    PROMPT_REQUIRED,
    SEED,
    UPSAMPLING,
    WEBHOOK,
    Parameter,
    choice,
    credits,
    entry,
    flag,
    image,
    real,
    references,
    whole,
)

_PROMPTS = ("prompt", "image_prompt")
_CONTROLS = ("control_image", "preprocessed_image")

_TOLERANCE = whole("safety_tolerance", 0, 6, 2)
_RATIO = Parameter(name="aspect_ratio", kind="ratio")
_WIDE_RATIO = Parameter(name="aspect_ratio", kind="ratio", default="16:9")
#: webp came in 2026, to the models then in the openapi
_OLD_FORMAT = choice("output_format", "jpeg", "png", default="jpeg")

_SIZE = (
    whole("width", 256, 1440, 1024, multiple_of=32),
    whole("height", 256, 1440, 768, multiple_of=32),
)
_TEXT_TO_IMAGE = (
    PROMPT, image("image_prompt"), *_SIZE, UPSAMPLING, SEED, _TOLERANCE, *WEBHOOK,
)  # fmt: skip
_ULTRA = (
    PROMPT, _WIDE_RATIO, image("image_prompt"), real("image_prompt_strength", 0, 1, 0.1),
    UPSAMPLING, SEED, _TOLERANCE, ANY_FORMAT, *WEBHOOK,
)  # fmt: skip
_EDIT = (
    image("image", required=True), PROMPT, whole("steps", 15, 50, 50),
    real("guidance", 1.5, 100, 60), UPSAMPLING, SEED, _TOLERANCE, ANY_FORMAT, *WEBHOOK,
)  # fmt: skip
_CONTROL = (
    PROMPT_REQUIRED, image("control_image"), image("preprocessed_image"),
    whole("steps", 15, 50, 50), real("guidance", 1, 100, 30), UPSAMPLING, SEED, _TOLERANCE,
    _OLD_FORMAT, *WEBHOOK,
)  # fmt: skip
_KONTEXT = (
    PROMPT_REQUIRED, *references(4), _RATIO, UPSAMPLING, SEED, _TOLERANCE, ANY_FORMAT_PNG, *WEBHOOK,
)  # fmt: skip
_FINETUNE = Parameter(name="finetune_id", kind="text", required=True)

_TODAY = {"parameters_from": OPENAPI, "price_from": PRICE_LIST}
#: not in BFL's openapi of 2026-04-23; CometAPI lists them
_OLD = {"parameters_from": OLDER_DOCS, "price_from": PRICE_LIST, "providers": ("cometapi",)}
_BFL = {"parameters_from": OPENAPI, "price_from": PRICE_LIST, "providers": ("bfl",)}

#: the vendor page's own first
FLUX_1 = (
    entry(
        "flux-pro-1.1", *_TEXT_TO_IMAGE, ANY_FORMAT, needs=_PROMPTS,
        price=credits("4"), seconds=1.8, **_TODAY,  # done within the first 2-s poll
    ),
    entry(
        "flux-pro", *_TEXT_TO_IMAGE, whole("steps", 1, 50, 40), real("guidance", 1.5, 5, 2.5),
        real("interval", 1, 4, 2), _OLD_FORMAT, needs=_PROMPTS,
        price=credits("5"), seconds=1.8, **_OLD,  # as flux-pro-1.1
    ),
    entry(
        "flux-dev", *_TEXT_TO_IMAGE, whole("steps", 1, 50, 28), real("guidance", 1.5, 5, 3),
        ANY_FORMAT, needs=_PROMPTS,
        price=credits("2.5"), seconds=2.5, **_TODAY,  # recorded `duration` 2.49
    ),
    entry(
        "flux-pro-1.1-ultra", *_ULTRA, flag("raw", False), needs=_PROMPTS,
        price=credits("6"), seconds=9.5, **_TODAY,  # `duration` 9.95 in 2024
    ),
    entry("flux-kontext-pro", *_KONTEXT, price=credits("4"), seconds=5.0, **_TODAY),
    entry(
        "flux-kontext-max", *_KONTEXT, active_limit=6, price=credits("8"), seconds=6.0, **_TODAY
    ),
)  # fmt: skip

FLUX_1_EDITS = (
    entry(
        "flux-pro-1.0-fill", *_EDIT, image("mask"), price=credits("5"), seconds=3.0, **_TODAY
    ),
    entry(
        "flux-pro-1.0-expand", *_EDIT,
        *(whole(side, 0, 2048, 0) for side in ("top", "bottom", "left", "right")),
        price=credits("5"), seconds=5.0, **_BFL,  # measured 6.5 and 22.7: the widest spread of all
    ),
    entry(
        "flux-pro-1.0-canny", *_CONTROL, whole("canny_low_threshold", 0, 500, 50),
        whole("canny_high_threshold", 0, 500, 200), needs=_CONTROLS,
        price=credits("5"), seconds=3.0, **_OLD,
    ),
    entry(
        "flux-pro-1.0-depth", *_CONTROL, needs=_CONTROLS, price=credits("5"), seconds=3.0, **_OLD
    ),
    entry(
        "flux-pro-1.1-ultra-finetuned", *_ULTRA, _FINETUNE, real("finetune_strength", 0, 2, 1.2),
        needs=_PROMPTS, price=credits("7"), seconds=9.5, **_TODAY,
    ),
    entry(
        "flux-pro-1.0-fill-finetuned", *_EDIT, image("mask"), _FINETUNE,
        real("finetune_strength", 0, 2, 1.1), price=credits("7"), seconds=3.0, **_BFL,
        note="no price is listed: that of flux-pro-1.1-ultra-finetuned is taken",
    ),
)  # fmt: skip
