"""What the practice server has against a request's body, in pydantic's words.

Pure. The entries have the shape that FastAPI puts under `detail` ({type, loc, msg, input, ctx,
url}); `dialects` decides how they are told. Unknown fields are ignored, as the real endpoints do.
Odd fact: `input` echoes the offending value, and for an image field that is megabytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .models import Model, Rule, ratio

Complaint = dict[str, Any]

_MOST_PIXELS = 4 * 2**20  # BFL docs: FLUX.2 gives 4 MP at most


def read_body(body: bytes) -> tuple[dict[str, Any], list[Complaint]]:
    """The body's JSON object, or what is wrong with it."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        return {}, [_complaint("json_invalid", (0,), "JSON decode error", {}, error=str(exc)[:80])]
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        return {}, [_complaint("model_attributes_type", (), message, value)]
    return value, []


def complaints(model: Model, body: Mapping[str, Any]) -> list[Complaint]:
    """Everything wrong with this request for this model; empty when it is fine."""
    found = [
        _complaint("missing", (group[0],), "Field required", dict(body))
        for group in model.required
        if all(body.get(name) is None for name in group)
    ]
    for name, rule in model.rules.items():
        value = body.get(name)
        if value is not None:
            found += _against(name, rule, value)
    if model.is_flux2 and not found:
        width, height = model.size_of(body)
        if width * height > _MOST_PIXELS:
            message = "Value error, Image size must not exceed 4 megapixels"
            found.append(_complaint("value_error", (), message, f"{width}x{height}"))
    return found


def _complaint(kind: str, where: tuple[object, ...], msg: str, given: Any, **ctx: Any) -> Complaint:
    entry: Complaint = {"type": kind, "loc": ["body", *where], "msg": msg, "input": given}
    if ctx:
        entry["ctx"] = ctx
    entry["url"] = f"https://errors.pydantic.dev/2.10/v/{kind}"
    return entry


def _against(name: str, rule: Rule, value: Any) -> list[Complaint]:
    if rule.kind in ("int", "number"):
        return _number(name, rule, value)
    if rule.kind == "bool":
        if isinstance(value, bool):
            return []
        return [_complaint("bool_type", (name,), "Input should be a valid boolean", value)]
    if not isinstance(value, str):
        return [_complaint("string_type", (name,), "Input should be a valid string", value)]
    if rule.kind == "choice":
        return _choice(name, rule, value)
    return _shape(name, rule, value) if rule.kind == "ratio" else _length(name, rule, value)


def _number(name: str, rule: Rule, value: Any) -> list[Complaint]:
    whole = rule.kind == "int"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        noun = "integer" if whole else "number"
        kind = "int_type" if whole else "float_type"
        return [_complaint(kind, (name,), f"Input should be a valid {noun}", value)]
    should = "Input should be"
    if rule.low is not None and not value >= rule.low:
        message = f"{should} greater than or equal to {rule.low:g}"
        return [_complaint("greater_than_equal", (name,), message, value, ge=rule.low)]
    if rule.high is not None and not value <= rule.high:
        message = f"{should} less than or equal to {rule.high:g}"
        return [_complaint("less_than_equal", (name,), message, value, le=rule.high)]
    if rule.step and value % rule.step:
        message = f"{should} a multiple of {rule.step}"
        return [_complaint("multiple_of", (name,), message, value, multiple_of=rule.step)]
    return []


def _choice(name: str, rule: Rule, value: str) -> list[Complaint]:
    if value in rule.choices:
        return []
    *most, last = (f"'{choice}'" for choice in rule.choices)
    expected = f"{', '.join(most)} or {last}"
    return [_complaint("enum", (name,), f"Input should be {expected}", value, expected=expected)]


def _shape(name: str, rule: Rule, value: str) -> list[Complaint]:
    shape = ratio(value)
    if shape is not None and (rule.low or 0) <= shape <= (rule.high or 0):
        return []
    message = "Value error, Aspect ratio must be between 21:9 and 9:21"
    return [_complaint("value_error", (name,), message, value)]


def _length(name: str, rule: Rule, value: str) -> list[Complaint]:
    if rule.low is not None and len(value) < rule.low:
        message = f"String should have at least {rule.low:g} character"
        return [_complaint("string_too_short", (name,), message, value, min_length=rule.low)]
    if rule.high is not None and len(value) > rule.high:
        message = f"String should have at most {rule.high:g} characters"
        return [_complaint("string_too_long", (name,), message, value, max_length=rule.high)]
    return []
