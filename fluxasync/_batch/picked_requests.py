"""Requests out of the picked images of a run: more of them, or the same from another model.

A picked image is known by its record: prompt, parameters, columns, image inputs and the seed it was
made with. Another model lacks some parameters and has others, so what it lacks is left out and the
shape is kept by what it has.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import gcd
from pathlib import Path
from typing import Any

from attrs import frozen

from .._core.errors import ConfigError
from .._core.models import WIRE_FIELDS, ImageInput, ImageRequest, Saved
from .._core.text import counted
from .._requests.catalog import Model, find
from .._store.journal.reader import read_only
from .._store.picks import PICKS, picked_keys

logger = logging.getLogger("fluxasync")

#: the start of a text that stands for bytes, in a record
_DIGEST = "sha256:"
_SIZE = ("width", "height")
#: what no further image takes over from a picked one
_OWN = ("prompt", "seed", "webhook_url", "webhook_secret")


@frozen(kw_only=True)
class Variation:
    """How the new images differ from the picked ones; one value at least must be given."""

    models: Sequence[str] = ()  #: instead of each image's own model
    parameters: Mapping[str, Any] = {}
    varied: Collection[str] = ()  #: names that the run gives several values, such as "seed"
    keeps_seed: bool = True  #: False: several images of each, so the seeds are new


def picked_requests(folder: Path, variation: Variation) -> list[ImageRequest]:
    """Return a request for each picked image in each model, in the order of the run.

    Images that would be equal are one. Parameters that a model lacks are left out, which is a
    warning. Raises ConfigError without a picked image, and for an image input whose bytes the
    record does not have; JournalError for a record that cannot be read.
    """
    left_out: Counter[tuple[str, str]] = Counter()
    found: dict[str, ImageRequest] = {}
    for saved, base in _picked(folder):
        for model in variation.models or (base.model,):
            request, missing = _varied(saved, base, model, variation)
            for name in missing:
                left_out[model, name] += 1
            found.setdefault(request.content_key, request)
    for (model, name), count in left_out.items():
        logger.warning("%s has no %s: left out of %s", model, name, counted(count, "image"))
    return list(found.values())


def _picked(folder: Path) -> Iterator[tuple[Saved, ImageRequest]]:
    keys = picked_keys(folder)
    with read_only(folder) as view:
        entries = view.by_key(keys).values()
    known = [each.known for each in entries if isinstance(each.known, Saved)]
    images = [(saved, saved.request) for saved in known if saved.request is not None]
    if len(images) < len(keys):
        missing = counted(len(keys) - len(images), "picked image")
        logger.warning("%s: %s without a saved image: left out", folder, missing)
    if not images:
        raise ConfigError(f"{folder} has no saved image that {PICKS} picks")
    yield from sorted(images, key=lambda image: (image[1].index, image[1].occurrence))


def _varied(
    saved: Saved, base: ImageRequest, model: str, variation: Variation
) -> tuple[ImageRequest, list[str]]:
    """Return the request, and the names of the parameters that its model lacks."""
    entry = find(model)
    given = {name: value for name, value in base.given().items() if name not in _OWN}
    missing: list[str] = []
    if entry is not None and model != base.model:
        missing = [name for name in given if name not in entry.parameters]
        given = {name: value for name, value in given.items() if name in entry.parameters}
        given |= {n: v for n, v in _shape(saved, entry).items() if n not in given}
        if entry.parameters.keys() & {"aspect_ratio", "width"}:  # has the shape
            missing = [name for name in missing if name not in (*_SIZE, "aspect_ratio")]
    seed = base.seed if saved.seed is None else saved.seed
    if variation.keeps_seed and seed is not None:
        given["seed"] = seed
    given |= variation.parameters
    given = {name: value for name, value in given.items() if name not in variation.varied}
    for name, value in given.items():
        _check_input(name, value)
    typed = {name: value for name, value in given.items() if name in WIRE_FIELDS}
    request = ImageRequest(
        prompt=base.prompt,
        model=model,
        **typed,
        parameters={name: value for name, value in given.items() if name not in WIRE_FIELDS},
        extra_body=base.extra_body,
        extras=base.extras,
        name=base.name,
    )
    return request, missing


def _shape(saved: Saved, model: Model) -> dict[str, Any]:
    """Return the parameters by which a model makes an image of the same shape."""
    width, height = saved.stored.width, saved.stored.height
    ratio = model.parameters.get("aspect_ratio")
    if ratio is not None and ratio.kind == "ratio":
        shared = gcd(width, height)
        return {"aspect_ratio": f"{width // shared}:{height // shared}"}
    sides = [model.parameters.get(name) for name in _SIZE]
    most = min((side.maximum for side in sides if side is not None and side.maximum), default=None)
    shrink = 1.0 if most is None else min(1.0, most / max(width, height))
    if model.max_pixels is not None:
        shrink = min(shrink, (model.max_pixels / (width * height)) ** 0.5)
    return {
        side.name: int(side.nearest(int(value * shrink)))
        for side, value in zip(sides, (width, height), strict=True)
        if side is not None
    }


def _check_input(name: str, value: Any) -> None:
    """Raise ConfigError for an image input of which the record has the digest only."""
    values = value if isinstance(value, list | tuple) else (value,)
    for each in values:
        is_lost = isinstance(each, ImageInput) and each.url is None and each.path is None
        if is_lost or (isinstance(each, str) and each.startswith(_DIGEST)):
            raise ConfigError(
                f"{name}: the record of the picked image has its digest only, not the image: "
                f"give it again with --param {name}=FILE"
            )
