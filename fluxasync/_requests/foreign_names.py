"""Names that other image tools give to what Flux takes.

A row that asks for a size, a number of images or an image to edit under such a name would be paid
without it, so the name is refused with the option that mends it. Names of data sets that only
describe an image are metadata. The names of fal and Replicate were read in their references on
2026-11-29. The others are usual in the APIs of OpenAI, Stability, Runware and Imagen, and in
diffusers, ComfyUI and AUTOMATIC1111.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from functools import lru_cache
from typing import Any

from attrs import frozen

from .._core.errors import cut
from .._core.images import NotAnImage, sniff
from .._core.inline_image import inline_image
from .._core.models import ImageInput
from .catalog.model import Model, unknown_parameter_message
from .catalog.table import models_with

#: Flux's name → the names elsewhere, whose values mean the same; letters and digits alone count
_RENAMED: Mapping[str, str] = {
    "width": "w image_width img_width output_width target_width",
    "height": "h image_height img_height output_height target_height",
    "aspect_ratio": "ar aspect ratio image_ratio image_aspect_ratio image_aspect",
    "n": "num_images num_outputs n_images number_of_images num_images_per_prompt images_per_prompt "
    "image_count number_results num_results num_samples n_samples samples sample_count n_iter "
    "batch_size number_of_outputs num_generations no_of_images",
    "steps": "num_inference_steps inference_steps num_steps number_of_steps steps_num n_steps "
    "sampling_steps sample_steps sampler_steps ddim_steps step_count num_sampling_steps",
    "guidance": "guidance_scale cfg_scale cfg scale_cfg distilled_cfg_scale distilled_guidance "
    "flux_guidance text_guidance_scale guidance_strength",
    "seed": "random_seed noise_seed rng_seed manual_seed generator_seed base_seed",
    "output_format": "format image_format file_format output_type output_mime_type mime_type "
    "image_type",
    "model": "model_name model_id model_slug ckpt_name",
    "prompt_upsampling": "enhance_prompt expand_prompt prompt_expansion prompt_enhancement "
    "prompt_extend magic_prompt",
    "webhook_url": "callback_url webhook_uri",
}  # fmt: skip

#: sizes in one value: its form differs, so it cannot be renamed
_SIZES = (
    "size image_size img_size output_size target_size dimensions dimension dims image_dimensions "
    "image_resolution output_resolution megapixels"
)
#: how far an image to edit is changed; Flux takes none
_STRENGTHS = (
    "strength image_strength img_strength prompt_strength denoise denoising_strength "
    "image_guidance_scale init_image_strength image_weight"
)


def _squashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_MEANINGS = {_squashed(name): meant for meant, names in _RENAMED.items() for name in names.split()}
_SIZE_NAMES = frozenset(map(_squashed, _SIZES.split()))
_STRENGTH_NAMES = frozenset(map(_squashed, _STRENGTHS.split()))

_PICTURE = "(image|img|photo|picture|pic|mask)s?"
#: words before it that say that the picture is for the model to work on
_PURPOSE = (
    "input|source|src|init|initial|start|first|reference|ref|control|controlnet|conditioning|cond|"
    "condition|hint|edit|base|style|prompt|redux|seed|subject|guide|ip_?adapter|pose"
)
_WORDS = (
    f"{_PURPOSE}|original|orig|user|character|face|person|human|model|garment|product|identity|"
    "composition|depth|canny|inpaint|content|structure|background|raw"
)
_CARRIER = (
    "urls?|uris?|paths?|files?|file_?names?|links?|b64|base64|data|bytes|inputs?|references?|"
    "refs?|prompts?|list"
)
_AN_IMAGE = re.compile(
    rf"(({_WORDS})_?)*{_PICTURE}(_?\d+)?(_?({_CARRIER}))*(_?\d+)?"
    rf"|(input|reference|ref|init)s?_?(\d+_?)?({_CARRIER})(_?\d+)?|references?(_?\d+)?"
)
_TO_WORK_ON = re.compile(
    rf"(({_WORDS})_?)*({_PURPOSE})_?(({_WORDS})_?)*{_PICTURE}(_?\d+)?(_?({_CARRIER}))*(_?\d+)?"
    rf"|{_PICTURE}_?(inputs?|references?|refs?|prompts?)(_?({_CARRIER}))*(_?\d+)?"
)
#: names of what a row's image is compared with, or saved as
_A_RESULT = re.compile(
    r"(^|_)(outputs?|out|targets?|tgt|edited|results?|generated|gt|truth|saved?|dest|destination|"
    r"after|expected)(_|$)"
)


@frozen
class Foreign:
    """What a name of another tool means."""

    reason: str
    meant: str | None = None  #: the parameter or row key that takes the value as it is


def foreign_name(key: str, model: Model, taken: Container[str]) -> Foreign | None:
    """Return what another tool's name means for the model; None for any other name.

    `taken` are the parameters that the row has already: an image goes to the first free one.
    """
    plain = _squashed(key)
    if (meant := _MEANINGS.get(plain)) is not None:
        return _renamed(key, meant, model)
    if plain in _SIZE_NAMES:
        return Foreign(f"{key}: {_size_of(model)}")
    if plain in _STRENGTH_NAMES:
        return Foreign(f"{key}: {model.name} has no such parameter")
    if _is_asked_for(key, works_on_images(model)) and not _describes(key, model, taken):
        return image_for(key, model, taken)
    return None


def _renamed(key: str, meant: str, model: Model) -> Foreign:
    lead = f"{key}: Flux calls it {meant}"
    if meant in ("n", "model") or meant in model.parameters:
        return Foreign(lead, meant)
    if meant == "aspect_ratio" and "resolution" not in model.parameters:
        return Foreign(f"{key}: {_size_of(model)}")
    return Foreign(f"{lead}; {unknown_parameter_message(meant, model, models_with(meant))}")


def _size_of(model: Model) -> str:
    sides = ("width", "height", "aspect_ratio", "resolution")
    names = [name for name in sides if name in model.parameters]
    if not names:
        return f"{model.name} takes no size"
    if len(names) == 1:
        return f"{model.name} takes {names[0]}: give it a column of that name"
    return f"{model.name} takes {' and '.join(names)}: put each into a column of its own"


@lru_cache(maxsize=256)
def _image_parameters(model: Model) -> tuple[str, ...]:
    return tuple(
        name for name, each in model.parameters.items() if each.kind in ("image", "images")
    )


def works_on_images(model: Model) -> bool:
    """Whether a model is for edits; those with image_prompt alone are mostly given text."""
    return any(name != "image_prompt" for name in _image_parameters(model))


@lru_cache(maxsize=4096)
def _is_asked_for(key: str, is_for_edits: bool) -> bool:
    """Whether a name asks for an image input. Of a model that is mostly given text, `image_url` is
    metadata, as in the tables of COCO and LAION, and `init_image` is not."""
    if len(key) > 60:
        return False
    name = _snake(key)
    return (_AN_IMAGE if is_for_edits else _TO_WORK_ON).fullmatch(name) is not None


def _snake(key: str) -> str:
    """Return the words of imageUrl, image-url and Image URL as image_url."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key.strip())
    return re.sub(r"[\W_]+", "_", apart).strip("_").lower()


def _describes(key: str, model: Model, taken: Container[str]) -> bool:
    """Whether a name is about an image that the row has: input_image_url beside input_image."""
    plain = _squashed(key)
    return any(
        name in taken and re.fullmatch(rf"{_squashed(name)}[^0-9s].*", plain)
        for name in _image_parameters(model)
    )


def image_for(key: str, model: Model, taken: Container[str]) -> Foreign:
    """Return the image input of the model that a column of images may be."""
    names, shown = _image_parameters(model), cut(key)
    free = [name for name in names if name not in taken]
    plain = _squashed(key)
    alike = [name for name in free if _squashed(name) in plain]
    if "mask" in plain:
        free = alike = [name for name in free if name == "mask"]
    usual = [name for name in free if name not in ("mask", "preprocessed_image")]
    for name in (*sorted(alike, key=len, reverse=True), *(free if "mask" in plain else usual)):
        return Foreign(f"{shown}: looks like an image; {model.name} takes {name}", name)
    if "mask" in plain or not names:
        kind = "mask" if names else "images"
        return Foreign(f"{shown}: looks like an image; {model.name} takes no {kind}")
    return Foreign(f"{shown}: looks like an image; {model.name} takes no more of them")


def holds_image(key: str, value: Any) -> bool:
    """Whether a value is the bytes of an image, base64 or a data URI, which is no metadata."""
    if isinstance(value, list | tuple):
        return any(holds_image(key, each) for each in value[:20])
    if isinstance(value, bytes | ImageInput):
        return not is_result(key)
    if not isinstance(value, str) or len(value) < 20 or is_result(key):
        return False
    if value[:11].lower() == "data:image/":
        return True
    try:
        data = inline_image(value)
        if data is not None:
            sniff(data[:512])
    except (ValueError, NotAnImage):
        return False
    return data is not None


def is_result(key: str) -> bool:
    """Whether a name is that of a finished image: output_image, target, edited_photo."""
    return _A_RESULT.search(_snake(key)) is not None


#: the name of a file of an image that models take
IMAGE_FILE = re.compile(r"[^\n\0]{1,1000}\.(jpe?g|png|webp)", re.IGNORECASE)
