"""Checks a request that was numbered earlier, as a part of a longer list."""

from __future__ import annotations

from ..._core.errors import ConfigError, cut
from ..._core.models import ImageRequest
from ..catalog import validate

#: the highest integer of SQLite, which keeps the numbers
_MOST = 2**63 - 1


def prepared_request(given: object) -> ImageRequest:
    """Return a prepared request, checked and otherwise as it is. Raises ConfigError."""
    if not isinstance(given, ImageRequest):
        kind = type(given).__name__
        raise ConfigError(
            f"a prepared request is an ImageRequest, not {kind}: fluxasync.prepare() makes them"
        )
    if given.n != 1:
        raise ConfigError(
            f"n={cut(repr(given.n))}: a prepared request is one image; number the whole list with "
            "fluxasync.prepare(), which makes n requests of it"
        )
    for name in ("index", "occurrence"):
        number = getattr(given, name)
        if type(number) is not int or not 0 <= number <= _MOST:
            raise ConfigError.about(name, "a whole number, 0 or more", value=number)
    return validate(given)
