"""One row → one checked request: what the caller said for all rows, and how a row is written.

Knows lines and items, not where they come from. A row is text (the prompt), an object, or an
ImageRequest that someone made; what it cannot be is a ConfigError without a place, to which the
room that knows the place adds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve

from .._catalog import checked
from .._errors import ConfigError
from .._models import ImageInput, ImageRequest
from .._rows import request_from
from ._lines import decoded
from ._plan import BadRow, Names
from ._strict import parsed_object

Given = TypeVar("Given")

#: what one row turned out to be; None = blank
Entry = ImageRequest | BadRow | None


class Dialect(Enum):
    """How a line is written."""

    TEXT = "a prompt a line"
    JSON = "an object a line"
    EITHER = "an object if it starts with {, else a prompt"


class Reading:
    """Reads rows, and notes the names it does not know while it does."""

    def __init__(
        self, *, defaults: Mapping[str, Any], n: int, dialect: Dialect, base: Path | None = None
    ) -> None:
        self.base = base  #: folder of relative image paths; None = the current one
        self.unknown_keys = Names()
        self._defaults = dict(defaults)
        self._n = n
        self._dialect = dialect

    def line(self, raw: bytes) -> ImageRequest | None:
        """Return the line's request, or None if it is blank."""
        text = decoded(raw).strip()
        if not text:
            return None
        if self._dialect is Dialect.TEXT:
            return self._row({"prompt": text})
        if self._dialect is Dialect.EITHER and not text.startswith("{"):
            return self._row({"prompt": text})
        return self._row(parsed_object(text))

    def item(self, given: object) -> ImageRequest:
        """Return the request of something that a program gave."""
        if isinstance(given, ImageRequest):
            return checked(given if given.n != 1 else evolve(given, n=self._n))
        if isinstance(given, str):
            return self._row({"prompt": given})
        if isinstance(given, Mapping):
            return self._row(given)
        kind = type(given).__name__
        raise ConfigError(f"a request is text, a dict or an ImageRequest, not {kind}")

    def _row(self, row: Mapping[str, Any]) -> ImageRequest:
        if self._n != 1 and row.get("n") is None:
            row = {**row, "n": self._n}
        request = request_from(row, defaults=self._defaults)
        for name in request.extras:
            if name in row:  # not from the object that is named "extras" on purpose
                self.unknown_keys.add(name)
        return request


def entry(where: str, read: Callable[[Given], ImageRequest | None], given: Given) -> Entry:
    """Return what `read` makes of a row; its ConfigError becomes a BadRow with its place."""
    try:
        return read(given)
    except ConfigError as error:
        return BadRow(where=where, error=error)


def image_inputs(request: ImageRequest) -> list[ImageInput]:
    """Return the images that a request is given, in no special order."""
    if request.image_prompt is None and not request.parameters:
        return []
    given = [request.image_prompt, *request.parameters.values()]
    return [value for value in given if isinstance(value, ImageInput)]
