"""Cuts JSON text into the texts of its parts, without reading all of it into memory at once.

The parts are found here and read strictly later, each as a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator

from ..._core.errors import ConfigError
from .lines import LINE_CAP, length_without_images

_SPACE = re.compile(r"[ \t\n\r]*")
_FINDER = json.JSONDecoder(parse_int=str, parse_float=str)
_CUT_OFF = "the file ends in the middle"

#: levels of a file that are walked part by part; deeper values are found whole
_WALKED = 2

#: the key of a part of an object (of a list ""), the start and the end of its value
Part = tuple[str, int, int]


def skip_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return place if match is None else match.end()


def parts_of(text: str, place: int, *, where: str, depth: int = 0) -> Generator[Part, None, int]:
    """Yield the parts of the list or object at `place`; return the place after it.

    Raises ConfigError for text that is not JSON, for a key that stands twice, and for a part that
    is longer than a line of a list may be.
    """
    is_object = text[place] == "{"
    end_mark = "}" if is_object else "]"
    keys: set[str] = set()
    place = skip_space(text, place + 1)
    number, at, is_last = 0, where, text[place : place + 1] == end_mark
    while not is_last:
        number += 1
        at, key = f"{where} item {number}", ""
        if is_object:
            key, place = _key(text, place, where=where)
            at = f"{where} key {key[:40]!r}"
            if key in keys:
                raise ConfigError(f"{where}: duplicate key {key[:40]!r}")
            keys.add(key)
        end = end_of(text, place, where=at, depth=depth + 1)
        yield key, place, end
        place = skip_space(text, end)
        is_last = text[place : place + 1] == end_mark
        if not is_last:
            if text[place : place + 1] != ",":
                raise ConfigError(f"{at}: {'no comma after it' if place < len(text) else _CUT_OFF}")
            place = skip_space(text, place + 1)
    return place + 1


def end_of(text: str, place: int, *, where: str, depth: int = 0) -> int:
    """Return the place after the value at `place`."""
    if place >= len(text):
        raise ConfigError(f"{where}: {_CUT_OFF}")
    if depth < _WALKED and text[place] in "[{":
        return _exhausted(parts_of(text, place, where=where, depth=depth))
    try:
        _, end = _FINDER.raw_decode(text, place)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not JSON: {error.msg}") from None
    cut(text, place, end, where=where)
    return end


def elements_of(text: str, place: int, *, where: str) -> Iterator[tuple[str, int]]:
    """Yield the text of each element of the list at `place`, and the place after it."""
    for _, start, end in parts_of(text, place, where=where, depth=_WALKED):
        yield text[start:end], end


def cut(text: str, start: int, end: int, *, where: str) -> str:
    """Return a row's text. Raises ConfigError for one that is too long without its images."""
    if end - start > LINE_CAP and length_without_images(text[start:end].encode()) > LINE_CAP:
        raise ConfigError(f"{where}: longer than {LINE_CAP:,} characters")
    return text[start:end]


def _key(text: str, place: int, *, where: str) -> tuple[str, int]:
    """Return the key at `place`, and the place of its value."""
    try:
        key, end = _FINDER.raw_decode(text, place)
    except (json.JSONDecodeError, RecursionError):
        key, end = None, place
    if not isinstance(key, str):
        raise ConfigError(f"{where}: {'a key is text' if place < len(text) else _CUT_OFF}")
    end = skip_space(text, end)
    if text[end : end + 1] != ":":
        raise ConfigError(f"{where} key {key[:40]!r}: no colon after it")
    return key, skip_space(text, end + 1)


def _exhausted(parts: Generator[Part, None, int]) -> int:
    while True:
        try:
            next(parts)
        except StopIteration as stop:
            return int(stop.value)
