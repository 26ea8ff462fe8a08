"""The parameters of the models as types: editors and type checkers know `generate(…, width=…)`.

`tests/requests/test_model_parameters.py` compares them with the catalogue.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar

from .._core.models import ImageInput, Secret

_F = TypeVar("_F", bound=Callable[..., Any])

#: an image input: an ImageInput, a path, a URL, base64 or bytes
Image = ImageInput | str | bytes | os.PathLike[str]

#: the models of the catalogue; any other name is sent too
ModelName = (
    Literal[
        "flux-pro-1.1", "flux-pro", "flux-dev", "flux-pro-1.1-ultra", "flux-kontext-pro",
        "flux-kontext-max", "flux-2-pro", "flux-2-pro-preview", "flux-2-flex", "flux-2-max",
        "flux-2-klein-4b", "flux-2-klein-9b", "flux-2-klein-9b-preview", "flux-pro-1.0-fill",
        "flux-pro-1.0-expand", "flux-pro-1.0-canny", "flux-pro-1.0-depth",
        "flux-pro-1.1-ultra-finetuned", "flux-pro-1.0-fill-finetuned", "flux-3-image",
        "flux-3-image-klein", "flux-tools/outpainting-v1", "flux-tools/erase-v1",
        "flux-tools/deblur-v1", "flux-tools/vto-v1", "flux-tools/vto-v2",
    ]
    | str
)  # fmt: skip


class ModelParameters(TypedDict, total=False):
    """The keywords of `generate`: every parameter that some model has. None is not sent.

    `fluxasync.models()` says which models have which, and what they allow. `extra_body` is sent
    unchecked: a parameter that the catalogue lacks is typed there.
    """

    image_prompt: Image | None
    width: int | None
    height: int | None
    prompt_upsampling: bool | None
    seed: int | None
    safety_tolerance: int | None
    webhook_url: str | None
    webhook_secret: str | Secret | None
    output_format: Literal["jpeg", "png", "webp"] | str | None
    steps: int | None
    guidance: float | None
    interval: float | None
    aspect_ratio: str | None
    image_prompt_strength: float | None
    raw: bool | None
    input_image: Image | None
    input_image_2: Image | None
    input_image_3: Image | None
    input_image_4: Image | None
    input_image_5: Image | None
    input_image_6: Image | None
    input_image_7: Image | None
    input_image_8: Image | None
    disable_pup: bool | None
    image: Image | None
    mask: Image | None
    top: int | None
    bottom: int | None
    left: int | None
    right: int | None
    control_image: Image | None
    preprocessed_image: Image | None
    canny_low_threshold: int | None
    canny_high_threshold: int | None
    finetune_id: str | None
    finetune_strength: float | None
    images: Sequence[Image] | None
    resolution: Literal["768sq", "1k", "1.5k", "2k", "4k"] | str | None
    grounding: bool | None
    version: str | None
    reference_offset_x: int | None
    reference_offset_y: int | None
    auto_crop: bool | None
    mode: Literal["high", "fast"] | str | None
    dilate_pixels: int | None
    person: Image | None
    garment: Image | None
    extra_body: Mapping[str, Any] | None
    #: kept with the image, not sent
    extras: Mapping[str, Any] | None
    name: str | None


def completed(function: _F) -> _F:
    """Show the keywords of ModelParameters in the function's signature, which completion in
    notebooks and `help` read."""
    signature = inspect.signature(function)
    *first, rest = signature.parameters.values()
    keywords = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=getattr(kind, "__forward_arg__", kind),
        )
        for name, kind in ModelParameters.__annotations__.items()
    ]
    shown = signature.replace(parameters=[*first, *keywords, rest])
    function.__signature__ = shown  # type: ignore[attr-defined]
    return function
