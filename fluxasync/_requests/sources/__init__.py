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
    Callable,
    Container,
)
from pathlib import Path
from typing import Any, Protocol

from ..._core.errors import ConfigError
from ..._core.models import ImageRequest
from ..image_inputs import allowed_folders
from .columns import Columns
from .file_source import FileSource
from .kinds import format_of
from .list_source import ListSource
from .plan import BadRow, Plan
from .prompts import Prompts, expansion_of, sample_of
from .row_reader import RowDialect, RowReader
from .stdin import lines_of, standard_input
from .stream import StreamSource, items
from .survey import Lookup

__all__ = [
    "BadRow",
    "Lookup",
    "Plan",
    "Prompts",
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


def open_source(given: Any, *, is_local: bool = False) -> Source:
    """Return the source that the prompts name, unread; a bare `given` is `Prompts(given)`.

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
        )

    sampled, skip_bad = sample_of(prompts), prompts.skip_bad
    if prompts.path is not None:
        path = Path(prompts.path)
        dialect, base, opened = format_of(path)
        if dialect is RowDialect.TEXT and columns.sources:
            raise ConfigError(f"{path.name} has no columns that could be mapped: a row is a prompt")
        rule = reading(dialect, base)
        return FileSource(
            path, opened(rule), reading=rule, limit=limit, skip_bad=skip_bad, sample=sampled
        )
    if isinstance(prompts.source, list | tuple):
        rule = reading(RowDialect.TEXT)
        return ListSource(
            prompts.source, reading=rule, limit=limit, skip_bad=skip_bad, sample=sampled
        )
    if isinstance(prompts.source, str | os.PathLike):
        rule = reading(RowDialect.EITHER)
        rows = lines_of(standard_input())
        return StreamSource(rows, read=rule.line, reading=rule, limit=limit)
    rule = reading(RowDialect.TEXT)
    return StreamSource(items(prompts.source), read=rule.item, reading=rule, limit=limit)
