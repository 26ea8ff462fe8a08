"""Rows of prompt files, keyword arguments and command options → requests.

A row is a mapping: `prompt`, `model`, `name`, `n`, `extra_body`, `extras`, any parameter of the
model by its wire name, and keys of the user's own. Of a model that the catalogue lacks, every other
key is a parameter and is sent. Of a known model, keys of the user's own are metadata. A
misspelt `widht` would cost a thousand images of the wrong size, so a user's key may be neither a
parameter of another model, nor another tool's name of a parameter, nor similar to one of this
model, unless the row has the parameter and the key is longer than its name: `prompt_id` beside
`prompt` is metadata.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from attrs import frozen

from .._core.errors import ConfigError, cut
from .._core.models import DEFAULT_MODEL, WIRE_FIELDS, ImageRequest
from .catalog.model import Model, closest, unknown_parameter_message
from .catalog.table import find, models_with
from .catalog.validation import validate
from .foreign_names import foreign_name, holds_image, image_for, works_on_images

#: keys of a row that are not parameters
ROW_KEYS = ("model", "name", "n", "extra_body", "extras")
_FIELDS = frozenset((*WIRE_FIELDS, *ROW_KEYS))
#: parameters of some model whose names are columns of many data sets: for another model they are
#: metadata, which is reported, and no mistake
_COMMON_WORDS = frozenset(("version", "person"))
#: of a request in a batch file; no provider takes it
_LABELS = ("custom_id",)
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
    name, model = _model_of(given)
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
    if own and (faults := _own_faults(own, {**row, **given}, name, model, allow_extras)):
        raise ConfigError("; ".join(faults))
    if model is None:
        label = {key: own.pop(key) for key in _LABELS if key in own}
        return _request(typed, parameters | own, label)
    return _request(typed, parameters, own)


def key_faults(row: Mapping[str, Any], *, defaults: Mapping[str, Any] = _NOTHING) -> list[str]:
    """Return what is wrong with a row's keys, as `parse_request` would raise it."""
    given = _with_defaults(row, defaults) if defaults else row
    name, model = _model_of(given)
    known = _FIELDS | (model.parameters.keys() if model else set())
    own = {key: "" for key in given if key not in known and (model or not models_with(key))}
    return _own_faults(own, given, name, model, allow_extras=True)


def _model_of(given: Mapping[str, Any]) -> tuple[str, Model | None]:
    name = given.get("model")
    name = DEFAULT_MODEL if name in (None, "") else name  # "" is an empty cell
    return str(name), find(name) if isinstance(name, str) else None


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
        key: value for key, value in usual.items() if key in ROW_KEYS or key in model.parameters
    }
    return fitting | given


@frozen
class _Fault:
    """A key that is neither a parameter nor plainly the user's own."""

    key: str
    reason: str
    meant: str | None = None  #: the key that it resembles


def _own_faults(
    own: Mapping[str, Any],
    given: Mapping[str, Any],
    name: str,
    model: Model | None,
    allow_extras: bool,
) -> list[str]:
    """Return the faults of the keys that are no parameters, with the options that mend them."""
    faults: list[_Fault] = []
    taken = {key for key, value in given.items() if value is not None}
    for key in own:
        fault = _own_fault(key, given, name, model, allow_extras, taken)
        if fault is not None:
            faults.append(fault)
            taken |= {fault.meant} if fault.meant else set()
    lines = []
    if allow_extras and _lacks_prompt(given) and all(each.meant != "prompt" for each in faults):
        lines.append(no_prompt_message(list(own), noun="key"))
    if faults:
        lines += [_with_columns(fault) if allow_extras else fault.reason for fault in faults]
        them = "it" if len(faults) == 1 else "them"
        if allow_extras:
            columns = "a column" if len(faults) == 1 else "columns"
            options = " ".join(_as_metadata(fault.key) for fault in faults)
            keep = f'put {them} inside "extras" ({columns}: {options})'
            lines.append(f"to keep {them} as metadata, {keep}")
        lines.append(f'to send {them} all the same, inside "extra_body"')
    return lines


def _own_fault(
    key: Any,
    given: Mapping[str, Any],
    name: str,
    model: Model | None,
    allow_extras: bool,
    taken: set[str],
) -> _Fault | None:
    if not isinstance(key, str):
        raise ConfigError(f"a row's keys are text, not {type(key).__name__}")
    if (near := _close_row_key(key)) and not _describes(key, near, given):
        return _Fault(key, f"{cut(repr(key))} looks like {near}", near)
    if model is None:
        return None
    near = closest(key, model)
    if others := () if key in _COMMON_WORDS else models_with(key):
        if near is None and _is_image(key):
            near = image_for(key, model, taken).meant
        return _Fault(key, unknown_parameter_message(cut(key), model, others), near)
    if (found := _foreign_fault(key, given[key], model, taken)) is not None:
        return found
    if near and not _describes(key, near, given):
        return _Fault(key, unknown_parameter_message(cut(key), model, ()), near)
    return None if allow_extras else _Fault(key, f"{cut(key)}: {name} has no such parameter")


def _foreign_fault(key: str, value: Any, model: Model, taken: set[str]) -> _Fault | None:
    """Return the fault of a name that another tool gives to a parameter, or of an image."""
    found = foreign_name(key, model, taken)
    if found is None and works_on_images(model) and holds_image(key, value):
        found = image_for(key, model, taken)
    return None if found is None else _Fault(key, found.reason, found.meant)


def image_message(key: str, model: Model, given: Mapping[str, Any]) -> str:
    """Return the error of a column of images that is no parameter, with the options."""
    found = image_for(key, model, given)
    use = _with_columns(_Fault(key, found.reason, found.meant))
    return f"{use}; to keep it as metadata: {_as_metadata(key)}"


def _describes(key: str, near: str, given: Mapping[str, Any]) -> bool:
    """Whether a key is about a parameter that the row has: `prompt_id`, `width_px`, `image_url`.

    A numbered one (`input_image_9`) is no remark but a further value.
    """
    if given.get(near) is None:
        return False
    rest = _squashed(key).replace(_squashed(near), "", 1)
    return len(rest) < len(_squashed(key)) and bool(rest) and not rest.isdecimal()


def _squashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _with_columns(fault: _Fault) -> str:
    if fault.meant is None:
        return fault.reason
    key = shlex.quote(fault.key[:40])
    use = f"--prompt-column {key}" if fault.meant == "prompt" else f"--map {fault.meant}={key}"
    return f"{fault.reason} ({use})"


def _as_metadata(key: str) -> str:
    return f"--map {shlex.quote(f'extras.{key[:40]}={key[:40]}')}"


#: names under which data sets keep prompts; which one is meant, only the user knows
_PROMPT_LIKE = re.compile(
    r"(captions?|texts?|descriptions?|inputs?|instructions?|sentences?|titles?|prompt.*|.*prompts?)",
    re.IGNORECASE,
)


def prompt_candidates(names: Sequence[Any]) -> list[str]:
    """Return the names that may be those of the prompts."""
    texts = [name for name in names if isinstance(name, str)]
    return [
        name
        for name in texts
        if _PROMPT_LIKE.fullmatch(name.strip())
        and name.strip().lower() not in _FIELDS
        and not models_with(name.strip().lower())
    ] or difflib.get_close_matches("prompt", texts, n=1, cutoff=0.7)


#: a name that is a sentence or a number: the first row of a table without a header
_IS_VALUE = re.compile(r"[-+]?[0-9.]+|.{41,}|.*[,.;:!] .*|(\S+\s+){3,}\S+", re.DOTALL)


def is_value(name: str) -> bool:
    """Whether the name of a column rather is a sentence or a number."""
    return _IS_VALUE.fullmatch(name) is not None


def no_prompt_message(names: Sequence[Any], *, noun: str, advice: str | None = None) -> str:
    """Return the error of columns or keys without a prompt, with the option to type.

    `advice` is for names that stand in the first row of a table.
    """
    lead = f"no {noun} is named prompt ({noun}s: {listed(names)}); "
    if advice is not None and any(is_value(str(name)) for name in names):
        return f"{lead}if the first row is one of the list: {advice}"
    candidates = [name for name in prompt_candidates(names) if len(name) <= 40][:2]
    options = [f"--prompt-column {shlex.quote(name)}" for name in candidates]
    step = f"name the {noun} of the prompts: {' or '.join(options) or '--prompt-column NAME'}"
    if not candidates:
        step += f", or fill {noun}s in: --prompt {shlex.quote(_template_of(names))}"
    if advice is None:
        return lead + step
    return f"{lead}{step}; if the first row is one of the list: {advice}"


def _template_of(names: Sequence[Any]) -> str:
    """Return a template as an example, with the first name that can stand in one."""
    plain = (text for text in map(str, names) if text and len(text) <= 40)
    return f"{{{next((text for text in plain if not set(text) & set('{}')), 'COLUMN')}}} …"


def listed(names: Sequence[Any]) -> str:
    """Return the first names, in quotes, for an error."""
    texts = [text if len(text) <= 40 else f"{text[:40]}…" for text in map(str, names[:12]) if text]
    shown = ", ".join(map(repr, texts))
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "no names"


def _lacks_prompt(given: Mapping[str, Any]) -> bool:
    if "prompt" in given or given.get("extra_body"):
        return False
    return not any(value is not None and _is_image(key) for key, value in given.items())


def _is_image(key: Any) -> bool:
    takers = models_with(key)
    model = find(takers[0]) if takers else None
    return model is not None and model.parameters[key].kind in ("image", "images")


@lru_cache(maxsize=4096)
def _close_row_key(key: str) -> str | None:
    """Return the row key that this one misspells: a `modle` would cost another model's price."""
    wide = [known for known in ROW_KEYS if len(known) > 4]
    near = difflib.get_close_matches(key.lower(), wide, n=1, cutoff=0.8)
    return near[0] if near else None
