"""Compares the catalogue with a provider's own OpenAPI document.

Only what the document states is compared: a range, a default or a list of values that it leaves out
is no difference. Of a document with mistakes in it, what cannot be read is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from ..._core.errors import ConfigError
from .model import Model, Parameter
from .table import TABLE

#: `$ref`s that are followed in a row
_MOST_REFERENCES = 8
#: properties of BFL's document that are no parameters for users
_INTERNAL = frozenset(("input_image_blob_path",))
#: "image" in the name of a property, or one of these, makes an endpoint one of images
_IMAGES = ("prompt", "mask", "person", "garment")


@frozen
class CatalogDifference:
    """One thing that the catalogue and the document have differently; None = not there."""

    model: str
    parameter: str | None  #: None for a whole model
    what: str  #: model, parameter, required, minimum, maximum, step, default or values
    catalogue: Any
    provider: Any


def differences(document: Mapping[str, Any], provider: str) -> list[CatalogDifference]:
    """Return how a document differs from what the catalogue has of a provider's models.

    Raises ConfigError for a document without a model.
    """
    served = {name: schema for name, schema in _models(document) if _is_of_images(name, schema)}
    if not served:
        raise ConfigError("not an OpenAPI document with models under /v1/")
    known = {name: model for name, model in TABLE.items() if provider in model.providers}
    found = [
        CatalogDifference(name, None, "model", "has it", None)
        for name in known
        if name not in served
    ]
    for name, schema in served.items():
        if name in known:
            found += _of_model(known[name], schema, document)
        else:
            found.append(CatalogDifference(name, None, "model", None, "has it"))
    return found


def _models(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each POST below /v1/ with the schema of its body."""
    for path, operations in _object(document.get("paths")).items():
        _, marker, name = str(path).partition("/v1/")
        body = _object(_object(_object(operations).get("post")).get("requestBody"))
        content = _object(_object(body.get("content")).get("application/json"))
        if marker and name and "{" not in name and content:
            yield name, _resolved(content.get("schema"), document)


def _is_of_images(name: str, schema: Mapping[str, Any]) -> bool:
    names = _object(schema.get("properties"))
    if "video" in name:
        return False
    return any("image" in each or each in _IMAGES for each in names)


def _of_model(
    model: Model, schema: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[CatalogDifference]:
    stated, required = _object(schema.get("properties")), schema.get("required")
    named = required if isinstance(required, list) else []
    for name, parameter in model.parameters.items():
        if name not in stated:
            yield CatalogDifference(model.name, name, "parameter", "has it", None)
            continue
        if parameter.required != (name in named):
            yield CatalogDifference(model.name, name, "required", parameter.required, name in named)
        facts = _facts(_resolved(stated[name], document))
        for what, theirs in facts.items():
            ours = _ours(parameter, what)
            if ours != theirs:
                yield CatalogDifference(model.name, name, what, ours, theirs)
    for name in stated:
        if name not in model.parameters and name not in _INTERNAL:
            yield CatalogDifference(model.name, name, "parameter", None, "has it")


def _facts(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a document states of a parameter, under the words of CatalogDifference.what."""
    low = schema.get("minimum", schema.get("minItems"))
    high = schema.get("maximum", schema.get("maxItems"))
    facts = {"minimum": low, "maximum": high, "step": schema.get("multipleOf")}
    facts = {what: value for what, value in facts.items() if _is_number(value)}
    if isinstance(values := schema.get("enum"), list):
        facts["values"] = sorted(str(value) for value in values if value is not None)
    default = schema.get("default")
    is_below = _is_number(default) and _is_number(low) and default < low  # FLUX.2: width 0 of 64
    if default not in (None, "") and not is_below:
        facts["default"] = default
    return facts


def _ours(parameter: Parameter, what: str) -> Any:
    if what == "values":
        return sorted(parameter.choices)
    name = {"step": "multiple_of"}.get(what, what)
    return getattr(parameter, name)


def _resolved(schema: Any, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema with its references followed, and without its "or null"."""
    merged = _object(schema)
    for _ in range(_MOST_REFERENCES):
        if isinstance(reference := merged.get("$ref"), str):
            target: Any = document
            for part in reference.removeprefix("#/").split("/"):
                target = _object(target).get(part)
            inner = _object(target)
        else:
            several = merged.get("anyOf") or merged.get("oneOf") or merged.get("allOf")
            kinds = [_object(each) for each in several] if isinstance(several, list) else []
            inner = next((each for each in kinds if each and each.get("type") != "null"), {})
        if not inner:
            break
        rest = {k: v for k, v in merged.items() if k not in ("$ref", "anyOf", "oneOf", "allOf")}
        merged = {**inner, **rest}
    return merged


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
