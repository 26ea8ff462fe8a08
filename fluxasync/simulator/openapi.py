"""The simulator's OpenAPI document, in the form of BFL's own at /openapi.json."""

from __future__ import annotations

from typing import Any

from .models import MODELS, Model, Rule

#: served, and not in BFL's document of 2026-04-23
_UNLISTED = ("flux-pro", "flux-pro-1.0-canny", "flux-pro-1.0-depth")
_TYPES = {"int": "integer", "number": "number", "bool": "boolean", "texts": "array"}


def openapi_document() -> dict[str, Any]:
    """Return the document: one POST for each model, its schema under `components`."""
    listed = [model for model in MODELS.values() if model.name not in _UNLISTED]
    return {
        "openapi": "3.1.0",
        "info": {"title": "fluxasync simulator", "version": "0.0.1"},
        "paths": {f"/v1/{model.name}": {"post": _operation(model.name)} for model in listed},
        "components": {"schemas": {_schema_name(each.name): _schema(each) for each in listed}},
    }


def _operation(name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{_schema_name(name)}"}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def _schema_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.replace("/", "-").split("-")) + "Inputs"


def _schema(model: Model) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            name: _property(rule, model.defaults.get(name)) for name, rule in model.rules.items()
        },
        "required": [group[0] for group in model.required if len(group) == 1],
    }
    return schema | ({"additionalProperties": False} if model.is_strict else {})


def _property(rule: Rule, default: object) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _TYPES.get(rule.kind, "string")}
    if rule.kind == "texts":
        found |= {"items": {"type": "string"}, "minItems": rule.low, "maxItems": rule.high}
    elif rule.kind in ("int", "number"):
        limits = {"minimum": rule.low, "maximum": rule.high, "multipleOf": rule.step}
        found |= {name: value for name, value in limits.items() if value is not None}
    if rule.choices:
        found["enum"] = list(rule.choices)
    if default is not None:
        found["default"] = default
    return found
