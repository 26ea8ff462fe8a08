"""Prompts that are JSON objects: FLUX.2 and FLUX 3 read them as text (docs.bfl.ai)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..._core.errors import ConfigError
from ..catalog import models_with
from ..parsing import ROW_KEYS
from .templates import json_text

_CHOICES = re.compile(r"\{[^{}\"':]*(?:\||\$\$)")

#: names of columns that hold prompts in other people's lists
_PROMPT_COLUMNS = frozenset(
    ("prompts", "promt", "promot", "caption", "captions", "text", "text_prompt", "prompt_text",
     "positive", "positive_prompt", "instruction")
)  # fmt: skip


def structured_prompt(given: Any) -> str:
    """Return a prompt that is an object, or a list of objects, as its JSON text.

    Raises ConfigError for a list of texts, and for values that JSON has not.
    """
    if not isinstance(given, Mapping) and not any(isinstance(each, Mapping) for each in given):
        raise ConfigError(
            "a prompt is text or an object, not a list; write one row for each prompt"
        )
    try:
        return json_text(given)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the prompt is no JSON: {str(error)[:80]}") from None


def begins_with_choices(line: str) -> bool:
    """Whether a line that starts with a brace is a template, `{red|grey} fox`, and no object."""
    return _CHOICES.match(line) is not None


def is_prompt(row: Mapping[str, Any], *, as_written: bool) -> bool:
    """Whether an object is a prompt of its own, and not a row; `as_written`: each without a prompt.

    Raises ConfigError for an object without a prompt that has a name of a row.
    """
    if not row or "prompt" in {name.strip().lower() for name in row}:
        return False
    if as_written:
        return True
    names = [name for name in row if _is_of_a_row(name)]
    if any("image" in name for name in names):
        return False  # an edit needs no prompt
    if names:
        raise ConfigError(
            f"an object without a prompt, though {names[0][:40]!r} is a name of a row: "
            "--prompt-column NAME says where the prompt is; --syntax as-written sends the object "
            "as the prompt"
        )
    return True


def _is_of_a_row(name: str) -> bool:
    return name.lower() in _PROMPT_COLUMNS or name in ROW_KEYS or bool(models_with(name))
