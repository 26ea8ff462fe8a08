"""The Flux models as data: parameters, ranges, defaults, prices, limits and usual durations.

A model that is not in the table is not an error: only the types of its parameters are checked,
because vendors add models faster than catalogues do.
"""

from __future__ import annotations

import difflib
from functools import lru_cache

from .model import Model, Parameter, Price, Provenance, closest, unknown_parameter_message
from .table import SEED_MAXIMUM, TABLE, find, models, models_with
from .text_numbers import NUMERIC, is_exact, lost_digits, number_of, truth_of, whole_number
from .validation import COPIES_MAXIMUM, validate

__all__ = [
    "COPIES_MAXIMUM",
    "NUMERIC",
    "SEED_MAXIMUM",
    "TABLE",
    "Model",
    "Parameter",
    "Price",
    "Provenance",
    "closest",
    "closest_model",
    "find",
    "is_exact",
    "lost_digits",
    "models",
    "models_with",
    "number_of",
    "truth_of",
    "unknown_parameter_message",
    "validate",
    "whole_number",
]


@lru_cache(maxsize=256)
def closest_model(name: str) -> str | None:
    """Return the catalogue's name most like an unknown one, for a warning, or None."""
    near = difflib.get_close_matches(name.lower(), TABLE, n=1, cutoff=0.75)
    return near[0] if near else None
