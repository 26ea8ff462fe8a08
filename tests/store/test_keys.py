"""Keys of released versions never change, because journals contain them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from fluxasync import ImageInput, ImageRequest

PAGE: dict[str, Any] = {
    "width": 1024,
    "height": 768,
    "steps": 40,
    "prompt_upsampling": False,
    "seed": 0,
    "guidance": 2.5,
    "safety_tolerance": 2,
    "interval": 2.0,
    "output_format": "png",
}
IMAGES: dict[str, Any] = {
    "input_image": ImageInput.of(b"fox"),
    "input_image_2": ImageInput.of("https://example.com/a.png"),
    "aspect_ratio": "16:9",
    "not_given": None,
}
NESTED: dict[str, Any] = {"b": [1, {"z": None, "a": 1e-7}], "a": True}
EXTRA: dict[str, Any] = {"y": {"ß": [1.0, -0.0]}, "x": Decimal("0.1")}

KEYS = [
    pytest.param(
        ImageRequest(prompt="a red fox"),
        "2d8a583e56da881838e359909190a60d8bb2e8036e2afd41d1cf669a913a4360",
        id="P27 prompt",
    ),
    pytest.param(
        ImageRequest(),
        "3090ae32a3202c3e5d725b1b3c5f07a09c6657f17b8e3f66db5dba8d1b057329",
        id="P27 nothing",
    ),
    pytest.param(
        ImageRequest(prompt='\x00\x1b\u202e\u2028"\\ 🦊 ß', model="flux-pro-1.1"),
        "c038f0db3a9876489ca12b6a844037ac6479d68d003511208fcd503fae3277ae",
        id="P27 odd characters",
    ),
    pytest.param(
        ImageRequest(prompt="a red fox", model="flux-pro", **PAGE),
        "a5216e5bf45254bf34f83058d08241524612142c4f033a125a8887a01cb39f19",
        id="P27 every parameter of the page",
    ),
    pytest.param(
        ImageRequest(prompt="fox", model="flux-kontext-pro", parameters=IMAGES),
        "67bb80eaad505565377123ece1cd81c3efc334fe36387f61a1e3498d97f27fbe",
        id="P27 images by content and URL",
    ),
    pytest.param(
        ImageRequest(image_prompt=b"fox"),
        "35436a7268c3e9027e33c742fe64e1e7a05e66969166a5777bf37a11899e5feb",
        id="P27 image prompt",
    ),
    pytest.param(
        ImageRequest(prompt="fox", model="flux-9", parameters=NESTED, extra_body=EXTRA),
        "fc174d5415ac0a318f7a759317324e069da46f1338424b1b530d2c0c93e044bf",
        id="P27 nested, extra_body",
    ),
    pytest.param(
        ImageRequest(prompt="fox", guidance=Decimal("2.50")),  # type: ignore[arg-type]
        "2f5b76165f29c855fed843a7d3e0053288cbe71885c561a1a49c788062e46867",
        id="P27 decimal",
    ),
    pytest.param(
        ImageRequest(prompt="a red fox", occurrence=3),
        "c0e60073fec7e295ca7f05198b244d6b1ef7051c34b8a85f0371bb4484fbfcff",
        id="P27 fourth of its content",
    ),
    pytest.param(
        ImageRequest(
            prompt="a red fox",
            occurrence=3,
            index=7,
            n=5,
            name="x",
            extras={"a": 1},
            webhook_url="https://example.com",
            webhook_secret="s",
        ),
        "c0e60073fec7e295ca7f05198b244d6b1ef7051c34b8a85f0371bb4484fbfcff",
        id="P27 what is not part of the image",
    ),
]


@pytest.mark.parametrize(("request_", "expected"), KEYS)
def test_keys_have_not_changed_since_earlier_versions(
    request_: ImageRequest, expected: str
) -> None:
    """A journal of an earlier version finds its images."""
    assert expected == request_.key
