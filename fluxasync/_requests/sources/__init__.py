"""Prompt files and iterables → checked ImageRequests; the file formats by suffix.

A file or list is checked whole before anything is spent; a stream is checked row by row. The index
of a request is its place in the run. Its occurrence counts the equal requests before it, so a
prompt written three times is three images, the same three in every run.
"""

from __future__ import annotations

import os
import stat
from collections.abc import (
    AsyncGenerator,
    Callable,
    Container,
)
from pathlib import Path
from typing import Any, Protocol

from ..._core.errors import ConfigError
from ..._core.models import ImageRequest
from ..image_inputs import allowed_folders
from .columns import Columns
from .compression import PACKED, suffix_of
from .formats import FolderFormat, Format, ItemFormat, JsonFormat, LineFormat
from .listed_source import ListedSource
from .parquet import ParquetFormat
from .plan import BadRow, Lookup, Plan
from .prompts import Prompts, expansion_of, layout_of, sample_of
from .row_reader import RowDialect, RowReader
from .stream import StreamSource, items, lines_of, standard_input
from .tables import TableFormat

__all__ = [
    "BadRow",
    "Lookup",
    "Plan",
    "Prompts",
    "Source",
    "open_source",
]


_FORMATS: dict[str, tuple[RowDialect, Callable[[Path, RowReader], Format]]] = {
    ".txt": (RowDialect.TEXT, LineFormat),
    ".jsonl": (RowDialect.JSON, LineFormat),
    ".ndjson": (RowDialect.JSON, LineFormat),
    ".json": (RowDialect.JSON, JsonFormat),
    ".csv": (RowDialect.JSON, TableFormat),
    ".tsv": (RowDialect.JSON, TableFormat),
    ".parquet": (RowDialect.JSON, ParquetFormat),
}

#: formats whose first row may be the names of the columns
_TABLES = (".csv", ".tsv")

_KINDS = (
    ".txt (a prompt a line), .jsonl (an object a line), .json, .csv, .tsv or .parquet, "
    'or a folder of .txt; "-" is standard input'
)

_AS_CSV = "save it as CSV in UTF-8 (in Excel: “CSV UTF-8”)"
_REPACK = "unpack it, or pack it as .gz"

#: other suffixes of lists, and what to do
_OTHERS = {
    ".xlsx": _AS_CSV, ".xls": _AS_CSV, ".ods": _AS_CSV, ".numbers": _AS_CSV,
    ".arrow": "write it as .parquet", ".feather": "write it as .parquet",
    ".zip": _REPACK, ".bz2": _REPACK, ".xz": _REPACK, ".zst": _REPACK,
}  # fmt: skip

_ONE_PROMPT = "for one prompt use generate, or pass a list"

_Opened = Callable[[RowReader], Format]


def _format_of(path: Path) -> tuple[RowDialect, Path, _Opened]:
    """Return the row dialect, the folder of relative paths, and a function that opens the file.

    Raises ConfigError for a path that is not a prompt file, with the next step.
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
    if suffix == ".parquet" and path.suffix.lower() == PACKED:
        raise ConfigError(f"{shown}: a .parquet file is packed inside; unpack it")
    dialect, kind = _FORMATS[suffix]
    return dialect, path.parent, lambda reading: kind(path, reading)


class Source(Protocol):
    """Where requests come from. Belongs to one loop; close it when done."""

    re_readable: bool  #: it can be checked whole before it is run

    async def check(
        self,
        *,
        progress: Callable[[int], None] | None = None,
        lookup: Lookup | None = None,
    ) -> Plan:
        """Read the whole source, or its first `limit` images, and count what it holds.

        `progress` is called with the number of rows so far. `lookup` returns the states that
        earlier runs left; the plan counts them as `known` and estimates the rest, including what
        is to be done "again". Raises ConfigError that lists the first bad rows with their places
        (bad rows that are skipped excepted), and JournalError when the temporary folder is full. A
        stream is not read: its Plan has `images` None.
        """

    def requests(
        self, *, skip: Container[str] = frozenset()
    ) -> AsyncGenerator[ImageRequest | BadRow, None]:
        """Yield every image in source order, checked, numbered from 0, its image inputs digested.

        Images whose looked-up state is in `skip` are left out; the others keep their numbers in the
        whole source. A stream leaves nothing out. The caller closes the generator before the
        source. A source that was not checked is checked first. A row that is no request is a
        BadRow and takes no number.
        """

    async def aclose(self) -> None:
        """Release threads, the temporary file and the program's iterator."""


def open_source(given: Any, *, is_local: bool = False) -> Source:
    """Return the source of the prompts, unread; any other `given` is `Prompts(given)`.

    `is_local`: the provider is on this machine, so rows may name URLs on it. Raises ConfigError for
    a file that is no prompt list, and without a standard input.
    """
    prompts = given if isinstance(given, Prompts) else Prompts(given)
    columns, limit = Columns.of(prompts.columns), prompts.limit

    def reading(dialect: RowDialect, base: Path | None = None) -> RowReader:
        return RowReader(
            defaults=prompts.defaults,
            n=prompts.n,
            dialect=dialect,
            base=base,
            columns=columns,
            spread=expansion_of(prompts),
            allow_files=allowed_folders(prompts.allow_files),
            is_local=is_local,
            layout=layout_of(prompts),
        )

    sampled, skip_bad = sample_of(prompts), prompts.skip_bad
    if prompts.path is not None:
        path = Path(prompts.path)
        dialect, base, opened = _format_of(path)
        if dialect is RowDialect.TEXT and columns.sources:
            raise ConfigError(f"{path.name} has no columns that could be mapped: a row is a prompt")
        if not prompts.header and suffix_of(path) not in _TABLES:
            raise ConfigError(f"{path.name}: only tables ({', '.join(_TABLES)}) have a header")
        rule = reading(dialect, base)
        return ListedSource(
            opened(rule), reading=rule, limit=limit, skip_bad=skip_bad, sample=sampled
        )
    if isinstance(prompts.source, list | tuple):
        rule = reading(RowDialect.TEXT)
        return ListedSource(
            ItemFormat(prompts.source, rule),
            reading=rule,
            limit=limit,
            skip_bad=skip_bad,
            sample=sampled,
        )
    if isinstance(prompts.source, str | os.PathLike):
        rule = reading(RowDialect.EITHER)
        rows = lines_of(standard_input())
        return StreamSource(rows, read=rule.line, reading=rule, limit=limit)
    rule = reading(RowDialect.TEXT)
    return StreamSource(items(prompts.source), read=rule.item, reading=rule, limit=limit)
