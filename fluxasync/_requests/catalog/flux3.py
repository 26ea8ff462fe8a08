"""FLUX 3 as data, one entry a model.

flux-3-image: docs.bfl.ai/flux_3 of 2026-10-01 and docs.comfy.org (comfy-router,
bfl/flux-3-image), which agree; a strict schema, without seed, size and output_format.
flux-3-image-klein: @ai-sdk/black-forest-labs 2.0.63 of 2026-10-15 (vercel/ai), which also has the
range 0 to 7 of safety_tolerance for both; the earlier sources have 0 to 4. Prices: BFL's page of
2026-10-01 as its clients quote it, and the listings of two gateways for klein.
"""

from __future__ import annotations

from .model import (
    ANY_FORMAT,
    PROMPT_REQUIRED,
    SEED,
    WEBHOOK,
    Parameter,
    Provenance,
    choice,
    entry,
    flag,
    tiers,
    whole,
)

#: width × height of each resolution (docs.comfy.org, Flux3ImageNode, 2026-10)
PIXELS_OF = {
    "768sq": 768 * 768, "1k": 2**20, "1.5k": 2_400_000, "2k": 4_200_000, "4k": 16_800_000,
}  # fmt: skip

_RATIO = choice(
    "aspect_ratio", "auto", "21:9", "2:1", "16:9", "3:2", "7:5", "4:3", "5:4", "1:1", "4:5", "3:4",
    "5:7", "2:3", "9:16", "1:2", "9:21", default="auto",
)  # fmt: skip
_COMMON = (
    PROMPT_REQUIRED,
    #: "one to ten"; a text alone is a list of one (docs.comfy.org, comfy-router)
    Parameter(name="images", kind="images", minimum=1, maximum=10),
    _RATIO,
    choice("resolution", *PIXELS_OF, default="1k"),
    flag("grounding", True),
    whole("safety_tolerance", 0, 7, 2),
    Parameter(name="version", kind="text", default="latest"),
    *WEBHOOK,
)

FLUX_3 = (
    entry(
        "flux-3-image", *_COMMON,
        price=tiers(
            "resolution", "1k",
            {"768sq": "4.1", "1k": "4.8", "1.5k": "10", "2k": "10", "4k": "60.7"},
        ),
        seconds=15.0,  # of 1k and 2k; "4k can take several minutes", BFL docs
        providers=("bfl",),
        parameters_from=Provenance("docs.bfl.ai/flux_3, docs.comfy.org", "2026-10-01"),
        price_from=Provenance("bfl.ai/pricing", "2026-10-01"),
        note=(
            "safety_tolerance: 0 to 4 in docs.bfl.ai, 0 to 7 in @ai-sdk/black-forest-labs 2.0.63, "
            "which is taken; 1.5k has no listed price: that of 2k is taken; launch discounts are "
            "left out"
        ),
    ),
    entry(
        "flux-3-image-klein", *_COMMON, SEED, whole("width", 64, 4096), whole("height", 64, 4096),
        whole("steps", 1, 50), ANY_FORMAT,
        price=tiers(
            "resolution", "1k",
            {"768sq": "0.9", "1k": "0.9", "1.5k": "1.4", "2k": "1.4", "4k": "3.6"},
        ),
        seconds=3.0, providers=("bfl",), max_pixels=4096 * 4096,
        parameters_from=Provenance("@ai-sdk/black-forest-labs 2.0.63", "2026-10-15"),
        price_from=Provenance("vercel.com/ai-gateway, muapi.ai", "2026-10-15"),
        note=(
            "768sq and 1.5k have no listed price: that of the next resolution is taken; "
            "grounding and version as flux-3-image has them"
        ),
    ),
)  # fmt: skip
