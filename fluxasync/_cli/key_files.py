"""Secrets that a user keeps in files, and paths on this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from .._core.arguments import is_url, usable_path
from .._core.errors import ConfigError, cut
from .._store.output_root import object_url

#: bytes; a file longer than this is not a key
_LONGEST_KEY = 4096

_BUCKETS = ("s3:", "gs:", "az:")

KEY_FILE, TOKEN_FILE = "--key-file", "--access-token-file"


def _check_local(_type: Any, path: Path | None) -> None:
    if path is not None:
        usable_path("", path)


def _place(_type: Any, tokens: Sequence[Token]) -> Path | str:
    text = tokens[0].value
    # s3:/bucket/run is a URL with a slash too few, which no folder is
    return text if is_url(text) or text.startswith(_BUCKETS) else Path(text)


def _check_place(_type: Any, place: Path | str | None) -> None:
    if isinstance(place, str):
        object_url("", place)
    else:
        _check_local(_type, place)


#: a path on this machine, or the URL of an object store
Place = Annotated[Path | str, Parameter(converter=_place, validator=_check_place)]

#: the folder of a run, or the URL of one whose record is in its bucket
RunPlace = Place

#: a path on this machine: a URL such as s3://bucket/run is refused
LocalPath = Annotated[Path, Parameter(validator=_check_local)]
#: the folder or file to write
OutPath = Annotated[LocalPath, Parameter(name=["--out", "-o"])]


def key_from(
    path: Path | None, warn: Callable[[str], None], *, option: str = KEY_FILE
) -> str | None:
    """Return the key, or the token, in the file of an option; None without one. Passes a warning
    to `warn`."""
    if path is None:
        return None
    key, warning = read_key(path, option=option)
    if warning is not None:
        warn(f"warning: {warning}")
    return key


def read_key(path: Path, *, option: str = KEY_FILE) -> tuple[str, str | None]:
    """Return the key in the file's first line, and a warning if others can read or change it.

    Raises ConfigError, which never shows the content, when there is no key in it.
    """
    try:
        with path.open("rb") as file:
            first_line = file.readline(_LONGEST_KEY + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise ConfigError(f"{option} {cut(str(path))}: {error.strerror}") from None
    try:
        key = first_line.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        key = ""
    if not first_line:
        raise ConfigError(f"{option} {cut(str(path))}: the file is empty")
    if not first_line.strip():
        raise ConfigError(f"{option} {cut(str(path))}: its first line is empty")
    if not key or len(first_line) > _LONGEST_KEY:
        word = "an access token" if option == TOKEN_FILE else "a key"
        raise ConfigError(f"{option} {cut(str(path))}: its first line is not {word}")
    others = exposed(mode) if stat.S_ISREG(mode) else None
    return key, others and f"{path} can be {others}; chmod 600 {path}"


def exposed(mode: int) -> str | None:
    """Return how other users can access a file with these permissions; None if they cannot."""
    everyone, group = "every user of this machine", "every user of its group"
    cases = (
        (stat.S_IWOTH, f"changed by {everyone}"),
        (stat.S_IROTH, f"read by {everyone}"),
        (stat.S_IWGRP, f"changed by {group}"),
        (stat.S_IRGRP, f"read by {group}"),
    )
    return next((text for bit, text in cases if mode & bit), None)


def key_in(path: Path) -> str:
    """Return the key in a file; a worker of a cluster calls this on its machine."""
    return read_key(path)[0]
