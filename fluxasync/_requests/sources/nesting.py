"""Rows that lie one level down in an object, and images that lie in a list.

Request bodies of other tools have them so:

| object | row |
|---|---|
| `{"custom_id": "1", "method": "POST", "body": {"prompt": …}}` (batch files of OpenAI) | `body` |
| `{"row_idx": 0, "row": {"prompt": …}}` (datasets-server) | `row` |
| `{"input": {"prompt": …}}` (Replicate) | `input` |

What the tool itself wrote beside the row, such as `custom_id` and `method`, is metadata for any
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._core.errors import ConfigError
from ..cells import image_of, json_list
from .column_names import kind_of, targets_of

#: keys under which tools put a request
_NESTS = (
    "body", "row", "input", "inputs", "request", "payload", "params", "parameters", "arguments",
    "data", "record",
)  # fmt: skip

#: key of a nest → what its tool writes beside it; never sent
_ENVELOPES = {
    "body": ("custom_id", "method", "url"),
    "row": ("row_idx", "truncated_cells"),
    "input": ("id", "version", "status", "created_at", "webhook_events_filter"),
}
#: names that are no wish of the user; the warning about metadata advises nothing for them
ENVELOPE_NAMES = frozenset(("custom_id", "method", "url", "row_idx", "truncated_cells"))


def draws(row: Mapping[str, Any], mapped: Mapping[str, str]) -> bool:
    """Whether an object is a row: it has a prompt or an image input. `mapped` holds the columns
    that the user chose, by target."""
    if "prompt" in row or mapped.get("prompt") in row:
        return True
    names = [name for name in row if isinstance(name, str)]
    sources = {column: target for target, column in mapped.items()}
    targets = targets_of(names, sources)
    return any(target == "prompt" or kind_of(target) == "image" for target in targets)


def unnested(row: Mapping[str, Any], mapped: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the row inside an object, with what is beside it; a row as it is.

    Raises ConfigError for a key that is inside and beside it, with different values.
    """
    if draws(row, mapped):
        return row
    nests = [key for key in _NESTS if isinstance(row.get(key), Mapping) and draws(row[key], mapped)]
    if len(nests) != 1:
        return row
    inner = row[nests[0]]
    for key, value in row.items():
        if key in inner and inner[key] != value:
            raise ConfigError(f"{str(key)[:40]!r} is given inside {nests[0]} and beside it")
    beside = {key: value for key, value in row.items() if key != nests[0]}
    used = {*mapped.values(), *inner}
    envelope = {key: beside.pop(key) for key in _ENVELOPES.get(nests[0], ()) if key in beside
                and key not in used}  # fmt: skip
    extras = inner.get("extras", beside.get("extras"))
    if not envelope or not isinstance(extras, Mapping | None):
        return {**envelope, **beside, **inner}
    return {**beside, **inner, "extras": {**envelope, **(extras or {})}}


def one_by_one(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row whose list under `input_image` became input_image, input_image_2 and so on, in
    order; gaps are left out. A cell of a table has the list as JSON. Raises ConfigError for an
    image that is also given by itself."""
    given = row.get("input_image")
    if isinstance(given, str):
        given = json_list(given)
    if not isinstance(given, list | tuple):
        return row
    images = [image for image in map(image_of, given) if image not in (None, "")]
    names = ["input_image", *(f"input_image_{place}" for place in range(2, len(images) + 1))]
    rest = {name: value for name, value in row.items() if name != "input_image"}
    if twice := [name for name in names if rest.get(name) is not None]:
        raise ConfigError(f"{twice[0]} is given in the list input_image and beside it")
    return {**rest, **dict(zip(names, images, strict=False))}
