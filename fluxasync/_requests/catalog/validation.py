"""Checks one request against the catalogue.

The first fault is raised as one line: the value, the allowed range and the nearest allowed value.
Secrets and URLs are never quoted. Of a model that the table lacks only types are checked, and what
JSON or a URL path cannot hold (NaN, lone surrogates, `../`).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve

from ..._core.errors import ConfigError, cut
from ..._core.images import NotAnImage, sniff
from ..._core.models import WIRE_FIELDS, ImageInput, ImageRequest, Secret
from ..cells import EXACT, json_list, plain, unwrapped
from .model import Kind, Model, Parameter, unknown_parameter_message
from .table import SEED_MAXIMUM, find, models, models_with
from .text_numbers import lost_digits, number_of, truth_of, whole_number

#: a model's name is a part of the URL that carries the key: segments that begin with a letter or a
#: digit, so never ".." or an empty one
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,3}")
_RATIO = re.compile(r"([0-9]{1,5}):([0-9]{1,5})", re.ASCII)
_URL_MAXIMUM = 2083  # characters; BFL openapi 2026-04-23, webhook_url
#: copies of one request
COPIES_MAXIMUM = 10_000
_LARGEST = SEED_MAXIMUM  # of a model that the table lacks; no parameter takes more
_TYPED = frozenset(WIRE_FIELDS)


def validate(request: ImageRequest) -> ImageRequest:
    """Return the request, fit to be sent: image inputs in `parameters` become ImageInput, and text
    that is exactly a number (or true or false) becomes that value where the parameter takes one.

    Raises ConfigError, one line, for the first parameter that the model does not have or whose
    value it does not take, and for a prompt that is missing. The parameters of a model that is
    not in the catalogue are checked for their types only. Reads no files.
    """
    model = _model_of(request)
    given = request.given()
    changed = _judged(given, request.model, model)
    if changed:
        request, given = _evolved(request, changed), given | changed
    if model is None:
        if not request.prompt.strip() and not request.extra_body and not _has_image(given):
            raise ConfigError(f"the prompt is empty; {request.model} needs one")
    else:
        _check_presence(given, model)
        _check_pixels(given, model)
    _check_copies(request)
    return _check_rest(request, given)


def _model_of(request: ImageRequest) -> Model | None:
    name = request.model
    model = find(name) if isinstance(name, str) else None
    if model is None and not (isinstance(name, str) and _MODEL_NAME.fullmatch(name)):
        raise ConfigError(f"model={_shown(name)}: not the name of a model")
    return model


def _judged(given: Mapping[str, Any], name: str, model: Model | None) -> dict[str, Any]:
    """Check each value; return those that had to be converted."""
    known = _LOOSE if model is None else model.parameters
    changed = {}
    for key, value in given.items():
        parameter = known.get(key)
        if parameter is None:
            if model is not None:
                raise ConfigError(unknown_parameter_message(cut(key), model, models_with(key)))
            fit = _check_unknown(key, value, name)
            if fit is not value:
                changed[key] = fit
            continue
        fit = _CHECKS[parameter.kind](value, parameter, name)
        if fit is not value:
            changed[key] = fit
    return changed


def _evolved(request: ImageRequest, changed: dict[str, Any]) -> ImageRequest:
    typed = {key: value for key, value in changed.items() if key in _TYPED}
    parameters = {key: changed.get(key, value) for key, value in request.parameters.items()}
    return evolve(request, parameters=parameters, **typed)


def _check_presence(given: Mapping[str, Any], model: Model) -> None:
    for name in model.required:
        if _is_absent(given, name):
            raise ConfigError(f"{_absence(name)}: {model.name} needs one")
    for name in model.needs:  # a loop, because `all` of a generator costs 5 % of a check
        if not _is_absent(given, name):
            return
    if model.needs:
        raise ConfigError(
            f"{_absence(model.needs[0])}: {model.name} needs {' or '.join(model.needs)}"
        )


def _is_absent(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    return not value.strip() if isinstance(value, str) else value is None


def _absence(name: str) -> str:
    return "the prompt is empty" if name == "prompt" else f"{name} is missing"


def _has_image(given: Mapping[str, Any]) -> bool:
    return any(key in _LOOSE and _LOOSE[key].kind in ("image", "images") for key in given)


def _check_pixels(given: Mapping[str, Any], model: Model) -> None:
    if model.max_pixels is None:
        return
    sides = {name: given[name] for name in ("width", "height") if name in given}
    least = model.parameters["width"].minimum or 1  # a side left out is at least that
    if math.prod(sides.values()) * least ** (2 - len(sides)) > model.max_pixels:
        size = ", ".join(f"{name}={_shown(value)}" for name, value in sides.items())
        raise ConfigError(
            f"{size}: {model.name} makes at most {model.max_pixels / 2**20:g} MP "
            f"({model.max_pixels} pixels)"
        )


def _check_copies(request: ImageRequest) -> None:
    n, seed = request.n, request.seed
    if type(n) is not int or not 1 <= n <= COPIES_MAXIMUM:
        raise ConfigError(f"n={_shown(n)}: a whole number, 1 to {COPIES_MAXIMUM}")
    # Copies of a request take the seeds that follow: see `_rows.expanded`.
    if seed is not None and seed + n - 1 > SEED_MAXIMUM:
        raise ConfigError(f"seed={seed} with n={n}: goes past {SEED_MAXIMUM}")


def _check_rest(request: ImageRequest, given: Mapping[str, Any]) -> ImageRequest:
    if request.parameters and (twice := _TYPED & request.parameters.keys()):
        name = min(twice)
        raise ConfigError(f"{name}: give it as {name}=…, not inside parameters")
    if request.extra_body:
        _check_json("extra_body", request.extra_body)
        if both := given.keys() & request.extra_body.keys():
            raise ConfigError(f"{cut(min(both))}: given twice, once in extra_body: leave one out")
    if request.name is not None:
        _check_text("name", request.name)
    if not request.extras:
        return request
    if not all(type(value) in EXACT for value in request.extras.values()):
        try:
            request = evolve(request, extras=plain(request.extras))
        except ConfigError as error:
            raise ConfigError(f"extras: {error}") from None
    _check_json("extras", request.extras)
    return request


# The checks of one value, by kind: each returns the value, converted where it must be.


def _check_int(value: Any, parameter: Parameter, model: str) -> int:
    if type(value) is not int:
        value = whole_number(value) if isinstance(value, str) else value
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise _wrong_kind(value, parameter, model, "a whole number")
        value = int(value)  # numpy's integers become ours, because JSON has no others
    number: int = value
    step = parameter.multiple_of
    if _is_outside(number, parameter) or (step and number % step):
        raise _not_taken(number, parameter, model)
    return number


def _check_number(value: Any, parameter: Parameter, model: str) -> float:
    value = number_of(value) if isinstance(value, str) else unwrapped(value)
    number = float(value) if isinstance(value, Decimal) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _wrong_kind(value, parameter, model, "a number")
    if number != number or number in (math.inf, -math.inf):
        raise ConfigError(f"{parameter.name}={number}: {model} takes {parameter.allowed}")
    if _is_outside(number, parameter):
        raise _not_taken(number, parameter, model)
    # a spreadsheet writes 3.0 as 3: the image must be the same, so the key must be
    is_huge = isinstance(number, int) and number.bit_length() > 1023  # beyond any float
    return number if is_huge else float(number)


def _is_outside(number: float, parameter: Parameter) -> bool:
    low, high = parameter.minimum, parameter.maximum
    return (low is not None and number < low) or (high is not None and number > high)


def _check_bool(value: Any, parameter: Parameter, model: str) -> bool:
    value = truth_of(value) if isinstance(value, str) else unwrapped(value)
    if not isinstance(value, bool):
        raise _wrong_kind(value, parameter, model, "true or false")
    return value


def _check_choice(value: Any, parameter: Parameter, model: str) -> str:
    if not isinstance(value, str) or value not in parameter.choices:
        raise ConfigError(f"{parameter.name}={_shown(value)}: {model} takes {parameter.allowed}")
    return value


def _check_ratio(value: Any, parameter: Parameter, model: str) -> str:
    match = _RATIO.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _not_taken(value, parameter, model)
    width, height = int(match[1]), int(match[2])
    if not width or not height or 9 * width > 21 * height or 9 * height > 21 * width:
        raise _not_taken(value, parameter, model)
    return str(value)


def _check_url(value: Any, parameter: Parameter, model: str) -> str:
    # never quoted: a webhook's URL may hold its owner's token
    if not isinstance(value, str) or not _is_web_url(value):
        raise ConfigError(f"{parameter.name}: {model} takes {parameter.allowed}")
    return value


def _is_web_url(text: str) -> bool:
    if not 1 <= len(text) <= _URL_MAXIMUM or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _check_text_value(value: Any, parameter: Parameter, model: str) -> Any:
    if not isinstance(value, str | Secret):
        raise _wrong_kind(value, parameter, model, "text")
    _check_text(parameter.name, value if isinstance(value, str) else value.reveal())
    return value


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise ConfigError(f"{name} is text, not {type(text).__name__}")
    if text.isascii():  # which costs nothing, and most prompts are
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name}: half of a surrogate pair at character {error.start + 1}, which UTF-8 "
            "cannot carry"
        ) from None


def _check_image(value: Any, parameter: Parameter, model: str) -> ImageInput:
    if isinstance(value, list | tuple):
        others = ": give the second as input_image_2" * (parameter.name == "input_image")
        raise ConfigError(f"{parameter.name}: one image, not a list{others}")
    try:
        image = ImageInput.of(value)
    except ConfigError as error:
        raise ConfigError(f"{parameter.name}: {error}") from None
    if sum(part is not None for part in (image.url, image.path, image.data)) != 1:
        raise ConfigError(f"{parameter.name}: exactly one of a path, bytes and a URL")
    if image.url is not None and not _is_web_url(image.url):
        raise ConfigError(
            f"{parameter.name}: not an http(s) URL of up to {_URL_MAXIMUM} characters"
        )
    if isinstance(value, str) and image.data is not None:  # base64: no file need be read
        try:
            sniff(image.data[:512])
        except NotAnImage as error:
            raise ConfigError(f"{parameter.name}: {error.as_input()}") from None
    return image


def _check_images(value: Any, parameter: Parameter, model: str) -> tuple[ImageInput, ...]:
    """Return the images of a list; one image alone is a list of one, and so is its text.

    The cell of a table has a list as JSON: ["a.jpg", "b.jpg"].
    """
    given = json_list(value) if isinstance(value, str) else value
    given = given if isinstance(given, list | tuple) else (given,)
    if _is_outside(len(given), parameter):
        raise ConfigError(
            f"{parameter.name}: {len(given)} images; {model} takes {parameter.allowed}"
        )
    images = []
    for number, each in enumerate(given, start=1):
        try:
            images.append(_check_image(each, parameter, model))
        except ConfigError as error:
            raise ConfigError(f"image {number} of {error}") from None
    return value if type(value) is tuple and value == tuple(images) else tuple(images)


#: what a file of an image is called; also of formats that are refused, so that none is sent by name
_IMAGE_FILE = re.compile(
    r"[^\n]{1,1000}\.(jpe?g|png|webp|gif|bmp|tiff?|heic|heif|avif)", re.IGNORECASE
)


def _check_unknown(name: str, value: Any, model: str) -> Any:
    """Return the value of a parameter that no model of the catalogue has.

    Paths, bytes and the names of image files are images, also in a list; all else is sent as it is.
    """
    shown = cut(name)
    parameter = Parameter(name=shown, kind="images", minimum=1, maximum=math.inf)
    if _is_local_image(value):
        return _check_image(value, parameter, model)
    if isinstance(value, list | tuple) and any(map(_is_local_image, value)):
        return _check_images(value, parameter, model)
    _check_json(shown, value)
    return value


def _is_local_image(value: Any) -> bool:
    if isinstance(value, ImageInput | bytes | os.PathLike):
        return True
    return (
        isinstance(value, str)
        and _IMAGE_FILE.fullmatch(value) is not None
        and not value.startswith(("http://", "https://", "data:"))
    )


def _check_any(value: Any, parameter: Parameter, model: str) -> Any:
    _check_json(parameter.name, value)
    return value


_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, sort_keys=True)


def _check_json(name: str, value: Any) -> None:
    try:
        _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{name}: half of a surrogate pair, which UTF-8 cannot carry: remove it"
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{name}: cannot be sent as JSON: {reason}") from None


#: what -1 means in other tools (gelasdev/ComfyUI-FLUX-BFL-API: default -1)
_SEED_LEFT_OUT = "-1 means any seed in other tools: here leave the seed out, or its cell empty"


def _not_taken(value: Any, parameter: Parameter, model: str) -> ConfigError:
    shown = _shown(int(value) if isinstance(value, float) and value.is_integer() else value)
    line = f"{parameter.name}={shown}: {model} takes {parameter.allowed}"
    if parameter.name == "seed":  # another seed is another image, so none is advised
        return ConfigError(f"{line}; {_SEED_LEFT_OUT}" if value == -1 else line)
    if parameter.kind not in ("int", "number"):
        return ConfigError(line)
    return ConfigError(f"{line}; nearest {parameter.nearest(value)}")


def _wrong_kind(value: Any, parameter: Parameter, model: str, kind: str) -> ConfigError:
    # "a whole number, 256 to 1440" but not "a whole number, a whole number"
    if parameter.kind == "int" and (lost := lost_digits(value)):
        return ConfigError(f"{parameter.name}={_shown(value)} {lost}")
    allowed = kind if parameter.allowed == kind else f"{kind}, {parameter.allowed}"
    return ConfigError(f"{parameter.name}={_shown(value)}: {model} takes {allowed}")


def _shown(value: Any) -> str:
    """Show a scalar, cut; of anything else only the type, because it may be huge."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"(a number of {value.bit_length()} bits)"
    if not isinstance(value, str | int | float | None):
        return f"({type(value).__name__})"
    text = repr(value if not isinstance(value, str) else value[:40])
    return f"{text}…" if isinstance(value, str) and len(value) > 40 else text


_CHECKS: Mapping[str, Callable[[Any, Parameter, str], Any]] = {
    "int": _check_int,
    "number": _check_number,
    "bool": _check_bool,
    "choice": _check_choice,
    "ratio": _check_ratio,
    "url": _check_url,
    "text": _check_text_value,
    "image": _check_image,
    "images": _check_images,
    "any": _check_any,
}


def _loose() -> dict[str, Parameter]:
    """Every parameter that any model has, held to its type only."""
    loose = {}
    for parameter in (each for model in models() for each in model.parameters.values()):
        kind: Kind = "any" if parameter.kind in ("choice", "ratio") else parameter.kind
        low, high = (-_LARGEST, _LARGEST) if kind == "int" else (None, None)
        loose[parameter.name] = Parameter(name=parameter.name, kind=kind, minimum=low, maximum=high)
    return loose


_LOOSE = _loose()
