"""Checks the body of a submission as the providers do.

Messages have the words of pydantic and the structure that FastAPI puts under `detail`. Unknown
fields are ignored, as by the vendors, except by models with a strict schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .models import Model, Rule, ratio

Problem = dict[str, Any]

_MOST_PIXELS = 4 * 2**20  # BFL docs: limit of FLUX.2


def read_body(body: bytes) -> tuple[dict[str, Any], list[Problem]]:
    """Return the body's JSON object and the problems found in reading it."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        return {}, [_problem("json_invalid", (0,), "JSON decode error", {}, error=str(exc)[:80])]
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        return {}, [_problem("model_attributes_type", (), message, value)]
    return value, []


def problems_in(model: Model, body: Mapping[str, Any]) -> list[Problem]:
    """Return everything that is wrong with a request for this model."""
    found = [
        _problem("missing", (group[0],), "Field required", dict(body))
        for group in model.required
        if all(body.get(name) is None for name in group)
    ]
    for name, rule in model.rules.items():
        value = body.get(name)
        if value is not None:
            found += _check(name, rule, value)
    if model.is_strict:
        found += [
            _problem("extra_forbidden", (name,), "Extra inputs are not permitted", value)
            for name, value in body.items()
            if name not in model.rules
        ]
    if model.is_flux2 and not found:
        width, height = model.size_of(body)
        if width * height > _MOST_PIXELS:
            message = "Value error, Image size must not exceed 4 megapixels"
            found.append(_problem("value_error", (), message, f"{width}x{height}"))
    return found


def _problem(kind: str, loc: tuple[object, ...], msg: str, value: Any, **ctx: Any) -> Problem:
    entry: Problem = {"type": kind, "loc": ["body", *loc], "msg": msg, "input": value}
    if ctx:
        entry["ctx"] = ctx
    entry["url"] = f"https://errors.pydantic.dev/2.10/v/{kind}"
    return entry


def _check(name: str, rule: Rule, value: Any) -> list[Problem]:
    if rule.kind in ("int", "number"):
        return _number(name, rule, value)
    if rule.kind == "bool":
        if isinstance(value, bool):
            return []
        return [_problem("bool_type", (name,), "Input should be a valid boolean", value)]
    if rule.kind == "texts":
        return _texts(name, rule, [value] if isinstance(value, str) else value)
    if not isinstance(value, str):
        return [_problem("string_type", (name,), "Input should be a valid string", value)]
    if rule.kind == "choice":
        return _choice(name, rule, value)
    return _ratio(name, rule, value) if rule.kind == "ratio" else _length(name, rule, value)


def _number(name: str, rule: Rule, value: Any) -> list[Problem]:
    is_integer = rule.kind == "int"
    if isinstance(value, bool) or not isinstance(value, int if is_integer else (int, float)):
        noun = "integer" if is_integer else "number"
        kind = "int_type" if is_integer else "float_type"
        return [_problem(kind, (name,), f"Input should be a valid {noun}", value)]
    should = "Input should be"
    if rule.low is not None and not value >= rule.low:
        message = f"{should} greater than or equal to {rule.low:g}"
        return [_problem("greater_than_equal", (name,), message, value, ge=rule.low)]
    if rule.high is not None and not value <= rule.high:
        message = f"{should} less than or equal to {rule.high:g}"
        return [_problem("less_than_equal", (name,), message, value, le=rule.high)]
    if rule.step and value % rule.step:
        message = f"{should} a multiple of {rule.step}"
        return [_problem("multiple_of", (name,), message, value, multiple_of=rule.step)]
    return []


def _choice(name: str, rule: Rule, value: str) -> list[Problem]:
    if value in rule.choices:
        return []
    *most, last = (f"'{choice}'" for choice in rule.choices)
    expected = f"{', '.join(most)} or {last}"
    return [_problem("enum", (name,), f"Input should be {expected}", value, expected=expected)]


def _texts(name: str, rule: Rule, value: Any) -> list[Problem]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return [_problem("list_type", (name,), "Input should be a valid list", value)]
    low, high = rule.low or 0, rule.high or math.inf
    if low <= len(value) <= high:
        return []
    message = f"List should have {low:g} to {high:g} items after validation, not {len(value)}"
    kind = "too_short" if len(value) < low else "too_long"
    return [_problem(kind, (name,), message, f"{len(value)} items")]


def _ratio(name: str, rule: Rule, value: str) -> list[Problem]:
    shape = ratio(value)
    if shape is not None and (rule.low or 0) <= shape <= (rule.high or 0):
        return []
    message = "Value error, Aspect ratio must be between 21:9 and 9:21"
    return [_problem("value_error", (name,), message, value)]


def _length(name: str, rule: Rule, value: str) -> list[Problem]:
    if rule.low is not None and len(value) < rule.low:
        message = f"String should have at least {rule.low:g} character"
        return [_problem("string_too_short", (name,), message, value, min_length=rule.low)]
    if rule.high is not None and len(value) > rule.high:
        message = f"String should have at most {rule.high:g} characters"
        return [_problem("string_too_long", (name,), message, value, max_length=rule.high)]
    return []
