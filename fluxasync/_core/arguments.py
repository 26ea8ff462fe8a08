"""Checks the types of arguments at the public entry points.

Python does not check annotations. A sink or callback of the wrong type would fail at its first use,
after the image was paid for.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ConfigError, cut

#: bytes of a file's name and characters of a path, on all usual systems
_LONGEST_NAME, _LONGEST_PATH = 255, 1023

#: "s3://bucket/run", also as `Path` changes it: "s3:/bucket/run"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def check_type(name: str, value: object, *kinds: type, expected: str) -> None:
    """Raise ConfigError unless `value` has one of the types; a bool is not a number."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ConfigError(f"{name}: {expected}, not {described(value)}")


def check_methods(name: str, value: object, methods: tuple[str, ...], *, expected: str) -> None:
    """Raise ConfigError unless `value` is an object with these methods."""
    is_class = isinstance(value, type)
    missing = [each for each in methods if not callable(getattr(value, each, None))]
    if missing and not is_class:
        lacks = "" if len(missing) == len(methods) else f", which has no {missing[0]}()"
        raise ConfigError(f"{name}: {expected}, not {described(value)}{lacks}")
    if is_class:
        raise ConfigError(f"{name}: {expected}, not the class {described(value)}: pass an instance")


def check_callback(name: str, value: Callable[..., Any] | None, *, may_wait: bool = False) -> None:
    """Raise ConfigError unless `value` is None or callable; `may_wait` allows a coroutine
    function."""
    if value is None:
        return
    if not callable(value):
        raise ConfigError(f"{name}: a function, not {described(value)}")
    call = getattr(value, "__call__", None)  # noqa: B004 — it may be a coroutine function
    if not may_wait and (inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(call)):
        raise ConfigError(f"{name}: a plain function, not an async one, because it is not awaited")


def is_url(given: object) -> bool:
    """Whether a value is the text of a URL, such as `s3://bucket/run`."""
    return isinstance(given, str) and "://" in given and _SCHEME.fullmatch(given) is not None


def local_path(name: str, given: str | os.PathLike[str]) -> Path:
    """Return the path. Raises ConfigError for other types, and for a URL such as `s3://bucket/run`,
    which would become a local folder named `s3:`."""
    if not isinstance(given, str | os.PathLike) or isinstance(os.fspath(given), bytes):
        raise ConfigError(f"{name}: a path, not {described(given)}")
    text = os.fspath(given)
    if not text:
        raise ConfigError(f"{name}: the path is empty")
    if url := _SCHEME.fullmatch(text):
        # a local folder of this name can be given by its absolute path
        raise ConfigError(f"{name}: {url[1]}://{url[2][:60]} is a URL: give a local path")
    return Path(given)


def usable_path(name: str, given: str | os.PathLike[str]) -> Path:
    """Return the path as `local_path` does. Raises ConfigError also for one no file can have."""
    path = local_path(name, given)
    text = str(path)
    longest = max(map(len, os.fsencode(text).split(os.fsencode(os.sep))))
    if "\0" in text or longest > _LONGEST_NAME or len(text) > _LONGEST_PATH:
        raise ConfigError(f"{name}: {cut(text)!r} is too long for a path, or has a NUL character")
    return path


def described(value: object) -> str:
    """Return a short value itself, and of others the name of the type, for an error message."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)[:40]
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:40]}…")
    return value.__name__ if isinstance(value, type) else type(value).__name__
