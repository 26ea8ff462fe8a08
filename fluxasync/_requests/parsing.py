"""Rows of prompt files, keyword arguments and command options → requests.

A row is a mapping: `prompt`, `model`, `name`, `n`, `extra_body`, `extras`, any parameter of the
model by its wire name, and keys of the user's own, which only the metadata carries. A
misspelt `widht` would cost a thousand images of the wrong size, so a user's key may be neither a
parameter of another model nor similar to one of this model.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NoReturn

from attrs import evolve

from .._core.errors import ConfigError
from .._core.models import DEFAULT_MODEL, ImageRequest
from .catalog import Model, closest, find, models_with, unknown_parameter_message, validate

#: keys of a row that are not parameters
ROW_KEYS = ("model", "name", "n", "extra_body", "extras")
_FIELDS = frozenset((*ImageRequest.WIRE_FIELDS, *ROW_KEYS))
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def parse_request(
    row: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] = _NOTHING,
    allow_extras: bool = True,
) -> ImageRequest:
    """Return the checked request that a row describes; null means "not given".

    `defaults` are row keys of lower priority. Where a row names another model than they do, those
    which that model lacks are left out; in every other row they must fit. With `allow_extras`
    false, a key that nothing knows is an error instead of metadata. Raises ConfigError, one line.
    """
    given = _with_defaults(row, defaults) if defaults else row
    name = given.get("model")
    name = DEFAULT_MODEL if name in (None, "") else name  # "" is an empty cell
    model = find(name) if isinstance(name, str) else None
    typed: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, value in given.items():
        if value is None or (key == "model" and value == ""):
            continue
        if key in _FIELDS:
            typed[key] = value
        elif isinstance(value, str) and not value and models_with(key):
            continue  # an empty cell, as in the typed fields
        elif key in model.parameters if model else models_with(key):
            parameters[key] = value
        else:
            own[key] = value
    for key in own:
        _check_own_key(key, str(name), model, allow_extras)
    return _request(typed, parameters, own)


def _request(
    typed: dict[str, Any], parameters: dict[str, Any], own: dict[str, Any]
) -> ImageRequest:
    for key in ("extra_body", "extras"):
        if key in typed and not isinstance(typed[key], Mapping):
            raise ConfigError(f"{key} is an object, not {type(typed[key]).__name__}")
    if own:
        typed["extras"] = own | dict(typed.get("extras", _NOTHING))
    return validate(ImageRequest(parameters=parameters, **typed))


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in row.items()
        if value is not None and not (key == "model" and value == "")
    }


def _with_defaults(row: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    given, usual = _present(row), _present(defaults)
    name = given.get("model", DEFAULT_MODEL)
    if name == usual.get("model", DEFAULT_MODEL) or "model" not in given:
        return usual | given
    model = find(name) if isinstance(name, str) else None
    if model is None:
        return usual | given
    fitting = {
        key: value
        for key, value in usual.items()
        if key in ROW_KEYS or key in model.parameters or not models_with(key)
    }
    return fitting | given


def _check_own_key(key: Any, name: str, model: Model | None, allow_extras: bool) -> None:
    if not isinstance(key, str):
        raise ConfigError(f"a row's keys are text, not {type(key).__name__}")
    if near := _close_row_key(key):
        _refuse(key, f"{key!r} looks like {near}", allow_extras)
    if model is not None and (models_with(key) or closest(key, model)):
        _refuse(key, unknown_parameter_message(key, model, models_with(key)), allow_extras)
    if not allow_extras:
        _refuse(key, f"{key}: {name} has no such parameter", allow_extras)


def _refuse(key: str, reason: str, allow_extras: bool) -> NoReturn:
    keep = ""
    if allow_extras:
        column = f"a column: --map extras.{key[:40]}={key[:40]}"
        keep = f'; to keep it as metadata, put it inside "extras" ({column})'
    raise ConfigError(f'{reason}{keep}; to send it all the same, inside "extra_body"')


@lru_cache(maxsize=4096)
def _close_row_key(key: str) -> str | None:
    """Return the row key that this one misspells: a `modle` would cost another model's price."""
    wide = [known for known in ROW_KEYS if len(known) > 4]
    near = difflib.get_close_matches(key.lower(), wide, n=1, cutoff=0.8)
    return near[0] if near else None


def expand_copies(request: ImageRequest) -> Iterator[ImageRequest]:
    """Yield `n` requests of one image each; with a seed, copies take the seeds that follow.

    Without one they are alike, and only their occurrence in the run tells them apart.
    """
    if request.n == 1:
        yield request
        return
    for copy in range(request.n):
        seed = None if request.seed is None else request.seed + copy
        yield evolve(request, n=1, seed=seed)
