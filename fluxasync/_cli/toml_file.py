"""Reads a TOML file of the user's."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

from .._core.errors import ConfigError, cut

#: bytes; a longer file is not one of options
_LONGEST = 2**20


def read_toml(path: Path, *, shown: str) -> dict[str, Any]:
    """Return a file's content, its decimals exact. Raises ConfigError, which begins with `shown`
    and never has the text of a broken line, because that could be a key."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise ConfigError(f"{shown}: {error.strerror}") from None
    if len(content) > _LONGEST:
        raise ConfigError(f"{shown}: it has more than a megabyte")
    try:
        return tomllib.loads(content.decode("utf-8-sig"), parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError) as error:
        place = str(error).rpartition("(")[2].rstrip(")") if "(at " in str(error) else "not TOML"
        raise ConfigError(f"{shown}: it cannot be read as TOML: {cut(place)}") from None
