"""What is wrong with a command line, and what to do about it, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from cyclopts import (
    CoercionError,
    CycloptsError,
    Token,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from .._core.errors import VALUE_LENGTH, ConfigError, cut, cut_runs

_KINDS = {int: "a whole number", float: "a number"}


def usage(error: CycloptsError) -> str:
    """Return what is wrong with a command line, and what to do about it."""
    match error:
        case UnusedCliTokensError(unused_tokens=list(unused)):
            return _unused(unused, error.command_chain or ())
        case CoercionError(token=Token() as token):
            kinds = [_KINDS[kind] for kind in _KINDS if kind in _kinds(error.target_type)]
            kinds += [text for text in _kinds(error.target_type) if isinstance(text, str)]
            if kinds:
                return f"{_option(error)} {token.value}: must be {' or '.join(kinds)}."
        case UnknownOptionError(token=Token() as token):
            return _unknown_option(token.keyword or token.value, error)
        case ValidationError() if isinstance(error.__cause__, ConfigError):
            return f"{_option(error)}{error.__cause__!s}."
    return str(error)


#: names that other tools give to what an option is called here
_USUAL = {
    "template": "prompt", "prompts": "prompt", "output": "out", "output-dir": "out",
    "outdir": "out", "concurrency": "in-flight", "workers": "in-flight", "parallel": "in-flight",
    "jobs": "in-flight", "budget": "max-cost", "max-budget": "max-cost", "picks": "from-picks",
    "filename": "name", "file-name": "name", "width": "param",
    "height": "param", "y": "yes", "format": "to",
}  # fmt: skip


def with_cut(tokens: Sequence[str], message: str) -> str:
    """Return the message with long arguments cut; text in base64 may be among them."""
    for token in tokens:
        message = message.replace(token, cut(token)) if len(token) > VALUE_LENGTH else message
    return cut_runs(message)


def _unused(unused: Sequence[str], command: Sequence[str]) -> str:
    words = " ".join(unused)
    if tuple(command) == ("generate",):
        return f'unexpected {words}: put a prompt of several words in quotes, as in "a red fox".'
    return f"unexpected {words}: put an argument that has spaces in quotes."


def _unknown_option(given: str, error: UnknownOptionError) -> str:
    names = {name.lstrip("-"): name for each in error.argument_collection for name in each.names}
    # without the dashes, which make any two options similar
    near = get_close_matches(given.lstrip("-"), names, n=1, cutoff=0.6)
    if (usual := _USUAL.get(given.lstrip("-"))) in names:
        near = [str(usual)]
    return f"Unknown option: {given}." + (f" Did you mean {names[near[0]]}?" if near else "")


def _kinds(target: Any) -> tuple[Any, ...]:
    """Return the types that a hint such as `int | Literal["auto"] | None` consists of."""
    inner = get_args(target)
    return tuple(kind for each in inner for kind in _kinds(each)) if inner else (target,)


def _option(error: CycloptsError) -> str:
    token = getattr(error, "token", None)
    if token is not None and token.keyword:
        return str(token.keyword)
    return "" if error.argument is None else error.argument.name
