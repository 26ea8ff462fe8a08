"""Where requests come from: prompt files and iterables → checked ImageRequests.

A file of any format is read twice, first to check all of it before anything is spent, then to run
it; a list is checked whole too; a stream is checked row by row as it comes. A request's index is
its place in the run and its occurrence counts equal ones before it, so that a prompt written three
times is three images, in every run the same three. Nothing here knows sessions, sinks or journals.
"""

from __future__ import annotations

import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Container,
    Iterable,
    Mapping,
)
from pathlib import Path
from typing import Any, Protocol

from ..._core.arguments import check_type, local_path
from ..._core.errors import ConfigError
from ..._core.models import ImageRequest
from .columns import Columns
from .expansion import Expansion
from .file_source import FileSource
from .kinds import format_of
from .list_source import ListSource
from .plan import BadRow, Plan
from .row_reader import RowDialect, RowReader
from .sample import Sample
from .stdin import lines_of, standard_input
from .stream import StreamSource, items
from .survey import Lookup

__all__ = [
    "BadRow",
    "Columns",
    "Expansion",
    "Lookup",
    "Plan",
    "Sample",
    "Source",
    "open_source",
]


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

        `progress` is called with the rows so far. `lookup` says what earlier runs left of images,
        in blocks of up to 500 keys and in a thread of the source's own; the plan counts that as
        `known` and estimates the rest, among it what is to do "again". Raises ConfigError that
        lists the first bad rows with their places, unless they are to be skipped, and JournalError
        when the temporary folder is full. A stream is not touched: its Plan has `images` None.
        """

    def requests(
        self, *, skip: Container[str] = frozenset()
    ) -> AsyncGenerator[ImageRequest | BadRow, None]:
        """Yield every image in source order, checked, numbered from 0, its image inputs digested.

        Images whose state was in `skip` when a `lookup` was asked are left out; the others keep
        the numbers that they have in the whole. A stream leaves nothing out. An async generator:
        whoever iterates it closes it, before the source. What was not checked yet is checked first.
        A row that is no request is a BadRow and takes no number. Raises ConfigError when a file is
        no longer what was checked, before it yields from that part.
        """

    async def aclose(self) -> None:
        """Give back threads and the program's iterator."""


def open_source(
    given: Any,
    *,
    defaults: Mapping[str, Any] | None = None,
    n: int = 1,
    limit: int | None = None,
    skip_bad: bool = False,
    columns: Columns | None = None,
    spread: Expansion | None = None,
    sample: Sample | None = None,
    allow_files: tuple[str, ...] = (),
    is_local: bool = False,
) -> Source:
    """Return the source that `given` is, unread.

    `given` is the path of a prompt file or of a folder of .txt, "-" for standard input, or an
    iterable or async iterable of text, dicts and ImageRequests. `defaults` are parameters for rows
    that lack them (an ImageRequest is complete and takes none); `n` is the images of a row that
    does not say; `limit` ends the source after that many images. `columns` renames what rows have,
    `spread` multiplies each row, `sample` takes some of them. Image paths in a file are relative to
    its folder, and must be below it or below one of the `allow_files` (links resolved). `is_local`:
    the provider is on this machine. Raises ConfigError when `given` is none of these.
    """
    _refuse_counts(n, limit)
    _refuse_both(defaults or {}, spread)
    path = _path(given)

    def reading(dialect: RowDialect, base: Path | None = None) -> RowReader:
        return RowReader(
            defaults=defaults or {},
            n=n,
            dialect=dialect,
            base=base,
            columns=columns,
            spread=spread,
            allow_files=allow_files,
            is_local=is_local,
        )

    if path is not None and path != Path("-"):
        dialect, base, opened = format_of(path)
        if dialect is RowDialect.TEXT and columns is not None and columns.sources:
            raise ConfigError(f"{path.name} has no columns that could be mapped: a row is a prompt")
        rule = reading(dialect, base)
        return FileSource(
            path, opened(rule), reading=rule, limit=limit, skip_bad=skip_bad, sample=sample
        )
    if isinstance(given, list | tuple):
        rule = reading(RowDialect.TEXT)
        return ListSource(given, reading=rule, limit=limit, skip_bad=skip_bad, sample=sample)
    if sample is not None:
        raise ConfigError("a sample needs a file or a list: of a stream the end is not known ahead")
    if path is not None:
        rule = reading(RowDialect.EITHER)
        rows = lines_of(standard_input())
        return StreamSource(rows, read=rule.line, reading=rule, limit=limit)
    rule = reading(RowDialect.TEXT)
    return StreamSource(_items(given), read=rule.item, reading=rule, limit=limit)


def _refuse_counts(n: int, limit: int | None) -> None:
    check_type("n", n, int, expected="a whole number, 1 to 10,000")
    check_type("limit", limit, int, type(None), expected="a whole number, or None for no limit")
    if not 1 <= n <= 10_000:
        raise ConfigError(f"n={n}: 1 to 10,000 images of a prompt")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: 1 or more images, or none for no limit")


def _refuse_both(defaults: Mapping[str, Any], spread: Expansion | None) -> None:
    names = [] if spread is None else [name for name, _ in spread.axes]
    if spread is not None and spread.models:
        names.append("model")
    for name in names:
        if defaults.get(name) is not None:
            raise ConfigError(f"{name} is given once for all and as values to vary: take one away")


def _path(given: object) -> Path | None:
    return local_path("source", given) if isinstance(given, str | os.PathLike) else None


def _items(given: object) -> Any:
    if isinstance(given, Mapping | ImageRequest):
        raise ConfigError("a source is a file or many requests; put this one into a list")
    if type(given).__name__ == "DataFrame":  # iterating one yields the names of its columns
        raise ConfigError('a DataFrame is given as its rows: df.to_dict("records")')
    if isinstance(given, bytes | bytearray) or not isinstance(given, Iterable | AsyncIterable):
        kind = type(given).__name__
        raise ConfigError(f"a source is a path or an iterable of prompts, not {kind}")
    return items(given)
