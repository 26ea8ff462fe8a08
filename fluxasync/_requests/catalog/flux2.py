"""FLUX.2 and the tools made of it as data, one entry a model.

Parameters: BFL openapi 2026-04-23; the tools: BFL openapi of 2026-08-13, as two clients of that
month have it. In BFL's document width and height of FLUX.2 default to 0, below their own minimum:
leaving them out means "like the input".
"""

from __future__ import annotations

from typing import Any

from .model import (
    ANY_FORMAT,
    ANY_FORMAT_PNG,
    OPENAPI,
    OPENAPI_AUGUST,
    PRICE_LIST,
    PROMPT,
    PROMPT_REQUIRED,
    SEED,
    WEBHOOK,
    Model,
    Parameter,
    Provenance,
    choice,
    credits,
    entry,
    flag,
    image,
    real,
    references,
    tiers,
    whole,
)

_PIXELS = 2048 * 2048  # "up to 4 MP", BFL docs
#: step 16: BFL docs; the openapi states none
_SIZE = (whole("width", 64, multiple_of=16), whole("height", 64, multiple_of=16))
_TOLERANCE = whole("safety_tolerance", 0, 5, 2)
_COMMON = (PROMPT_REQUIRED, *_SIZE, SEED, _TOLERANCE, ANY_FORMAT, *WEBHOOK)
_FLUX_2 = (*_COMMON, *references(8))
_KLEIN = (*_COMMON, *references(4))
#: was in the openapi of 2026-04-04 to -14, is sent by clients of September 2026, and BFL's own
#: nodes have it for pro, max and the preview (not for flex, which has prompt_upsampling)
_NO_UPSAMPLING = flag("disable_pup", False)
_NOTE = (
    "disable_pup: in the openapi of 2026-04-04 to 2026-04-14 and in clients of 2026-09, not in "
    "that of 2026-04-23"
)

_BOTH = {"max_pixels": _PIXELS, "parameters_from": OPENAPI, "price_from": PRICE_LIST}
_BFL = {**_BOTH, "providers": ("bfl",)}

FLUX_2 = (
    entry(
        "flux-2-pro", *_FLUX_2, _NO_UPSAMPLING,
        price=credits("3", "1.5", "1.5"), seconds=8.5, note=_NOTE, **_BOTH,  # recorded 8.5 to 9
    ),
    entry(
        "flux-2-pro-preview", *_FLUX_2, _NO_UPSAMPLING,
        price=credits("3", "1.5", "1.5"), seconds=8.5, note=_NOTE, **_BFL,
    ),
    entry(
        "flux-2-flex", *_FLUX_2, flag("prompt_upsampling", True), whole("steps", 1, 50, 50),
        real("guidance", 1.5, 10, 5),
        price=credits("5", "5", "5"), seconds=6.0, **_BOTH,  # 6 credits in earlier lists
    ),
    entry(
        "flux-2-max", *_FLUX_2, _NO_UPSAMPLING,
        price=credits("7", "3", "3"), seconds=20.0, **_BOTH,  # recorded 20.6, 36 at larger sizes
        note=f"1.5 or 3 credits for a reference image: the dearer is taken; {_NOTE}",
    ),
    entry(
        "flux-2-klein-4b", *_KLEIN,
        price=credits("1.4", "0.1", "0.1"), seconds=1.0, **_BFL,  # "sub-second", BFL docs
    ),
    entry("flux-2-klein-9b", *_KLEIN, price=credits("1.5", "0.2", "0.2"), seconds=1.5, **_BFL),
    entry(
        "flux-2-klein-9b-preview", *_KLEIN,
        price=credits("1.5", "0.2", "0.2"), seconds=1.5, **_BFL,
    ),
)  # fmt: skip

_TOOL = (SEED, _TOLERANCE, *WEBHOOK)
#: what a client was charged in September 2026 (aself101/bfl-api, live report)
_CHARGED = Provenance("charges seen by a client", "2026-09-22")
_TRY_ON = (
    PROMPT_REQUIRED, image("person", required=True), image("garment", required=True), ANY_FORMAT,
    *_TOOL,
)  # fmt: skip


def _tool(name: str, *parameters: Parameter, **more: Any) -> Model:
    return entry(
        f"flux-tools/{name}", *parameters, providers=("bfl",), parameters_from=OPENAPI_AUGUST,
        price_from=_CHARGED, **{"note": "no listed price", **more},
    )  # fmt: skip


FLUX_TOOLS = (
    _tool(
        "outpainting-v1", image("input_image", required=True), whole("width", 64, required=True),
        whole("height", 64, required=True), PROMPT, whole("reference_offset_x"),
        whole("reference_offset_y"), flag("auto_crop", False),
        choice("mode", "high", "fast", default="high"), _NO_UPSAMPLING, ANY_FORMAT_PNG, *_TOOL,
        price=tiers("mode", "high", {"high": "20", "fast": "4.5"}), seconds=15.0,
    ),
    _tool(
        "erase-v1", image("image", required=True), image("mask", required=True),
        whole("dilate_pixels", 0, 25, 10), ANY_FORMAT_PNG, *_TOOL,
        price=credits("3"), seconds=8.0,
    ),
    _tool(
        "deblur-v1", image("image", required=True), ANY_FORMAT_PNG, *_TOOL,
        price=credits("3"), seconds=8.0,
    ),
    _tool("vto-v1", *_TRY_ON, price=credits("4.75"), seconds=5.0),
    _tool("vto-v2", *_TRY_ON, price=credits("4.75"), seconds=8.0),
)  # fmt: skip
