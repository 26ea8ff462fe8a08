"""Which format a prompt file has: the one place that knows their suffixes."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from ..._core.errors import ConfigError
from .compression import PACKED, suffix_of
from .folders import FolderFormat
from .formats import Format, LineFormat
from .json_lists import JsonFormat
from .parquet import ParquetFormat
from .row_reader import RowDialect, RowReader
from .tables import TableFormat

_FORMATS: dict[str, tuple[RowDialect, Callable[[Path, RowReader], Format]]] = {
    ".txt": (RowDialect.TEXT, LineFormat),
    ".jsonl": (RowDialect.JSON, LineFormat),
    ".ndjson": (RowDialect.JSON, LineFormat),
    ".json": (RowDialect.JSON, JsonFormat),
    ".csv": (RowDialect.JSON, TableFormat),
    ".tsv": (RowDialect.JSON, TableFormat),
    ".parquet": (RowDialect.JSON, ParquetFormat),
}

_KINDS = (
    ".txt (a prompt a line), .jsonl (an object a line), .json, .csv, .tsv or .parquet, "
    'or a folder of .txt; "-" is standard input'
)

_AS_CSV = "save it as CSV in UTF-8 (in Excel: “CSV UTF-8”)"
_REPACK = "unpack it, or pack it as .gz or .zst"

#: what people have instead, and what to do about it
_OTHERS = {
    ".xlsx": _AS_CSV, ".xls": _AS_CSV, ".ods": _AS_CSV, ".numbers": _AS_CSV,
    ".arrow": "write it as .parquet", ".feather": "write it as .parquet",
    ".zip": _REPACK, ".bz2": _REPACK, ".xz": _REPACK,
}  # fmt: skip

_ONE_PROMPT = "for one prompt use generate, or pass a list"

Opened = Callable[[RowReader], Format]


def format_of(path: Path) -> tuple[RowDialect, Path, Opened]:
    """Return how rows are written, the folder of their relative paths, and what opens the file.

    Raises ConfigError for what is no prompt file, with the next step.
    """
    shown = str(path)[:80]
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ConfigError(f"{shown}: no such file; {_ONE_PROMPT}") from None
    except (OSError, ValueError):  # too long for a name, or holding a NUL
        raise ConfigError(f"{shown}: not the path of a file; {_ONE_PROMPT}") from None
    if stat.S_ISDIR(mode):
        return RowDialect.TEXT, path, lambda reading: FolderFormat(path, reading)
    if not stat.S_ISREG(mode):
        raise ConfigError(f'{shown} can be read only once; pipe it in and say "-"')
    suffix = suffix_of(path)
    if suffix not in _FORMATS:
        raise ConfigError(f"{shown}: {_OTHERS.get(suffix) or f'a prompt file is {_KINDS}'}")
    if suffix == ".parquet" and path.suffix.lower() in PACKED:
        raise ConfigError(f"{shown}: a .parquet file is packed inside; unpack it")
    dialect, kind = _FORMATS[suffix]
    return dialect, path.parent, lambda reading: kind(path, reading)
