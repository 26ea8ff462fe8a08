"""Prompt files and iterables → checked ImageRequests; the file formats by suffix.

A file or list is checked whole before anything is spent; a stream is checked row by row. The index
of a request is its place in the run. Its occurrence counts the equal requests before it, so a
prompt written three times is three images, the same three in every run. Prepared requests were
numbered earlier, as a part of a longer list: they keep their numbers.
"""

from __future__ import annotations

import os
from collections.abc import (
    AsyncGenerator,
    Callable,
    Container,
    Sequence,
)
from pathlib import Path
from typing import Any, Protocol

from attrs import evolve

from ..._core.models import ImageRequest
from ..._core.prices import NO_PRICES, Prices
from ..image_inputs import allowed_folders
from .columns import Columns
from .formats import ItemFormat
from .list_files import format_of, list_files, refuse_misfits
from .listed_source import ListedSource
from .plan import BadRow, GivenNumbers, Lookup, Numbering, Plan
from .prepared import prepared_request
from .prompt_syntax import Syntax
from .prompts import Prompts, expansion_of, layout_of, sample_of, used_by
from .row_reader import ParsedRow, RowDialect, RowReader
from .stream import StreamSource, items, lines_of, standard_input

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
        Prepared requests keep their own numbers.

        Images whose looked-up state is in `skip` are left out; the others keep their numbers in the
        whole source. A stream leaves nothing out. The caller closes the generator before the
        source. A source that was not checked is checked first. A row that is no request is a
        BadRow and takes no number.
        """

    async def aclose(self) -> None:
        """Release threads, the temporary file and the program's iterator."""


def open_source(
    given: Any,
    *,
    is_local: bool = False,
    prices: Prices = NO_PRICES,
    in_names: Sequence[str] = (),
    of_every_image: Sequence[str] = (),
    name_of: Callable[[ImageRequest], str] | None = None,
) -> Source:
    """Return the source of the prompts, unread; any other `given` is `Prompts(given)`.

    `is_local`: the provider is on this machine, so rows may name URLs on it. `prices` are the
    user's own. `in_names` are the columns that every row needs for the names of its files, and
    `of_every_image` their other fields, which an error lists. `name_of` returns the file name of a
    request's images where several can have the same, so that the check tells of them. Raises
    ConfigError for a file that is no prompt list, and without a standard input.
    """
    prompts = given if isinstance(given, Prompts) else Prompts(given)
    # a grid or a parameter for all rows gives these to every image; rows need no column of them
    given_to_all = {"prompt", *(prompts.grid or ()), *prompts.parameters}
    used = evolve(
        used_by(prompts),
        in_names=tuple(name for name in in_names if name not in given_to_all),
        of_every_image=tuple(of_every_image),
    )
    columns, limit = Columns.of(prompts.columns), prompts.limit

    def reading(
        dialect: RowDialect, base: Path | None = None, *, is_trusted: bool = False
    ) -> RowReader:
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
            syntax=Syntax(prompts.syntax),
            is_trusted=is_trusted,
            used=used,
        )

    def read_item(rule: RowReader) -> Callable[[object], ParsedRow | None]:
        if prompts.prepared:
            return lambda given: used.checked(prepared_request(given))
        return rule.item

    numbering = GivenNumbers if prompts.prepared else Numbering
    sampled, skip_bad = sample_of(prompts), prompts.skip_bad
    if prompts.paths:
        files = list_files([Path(path) for path in prompts.paths])
        rule = reading(files[0].dialect, files[0].base)
        refuse_misfits(files[0], columns, rule.layout)
        return ListedSource(
            format_of(files, rule),
            reading=rule,
            limit=limit,
            skip_bad=skip_bad,
            sample=sampled,
            prices=prices,
            name_of=name_of,
        )
    if isinstance(prompts.source, list | tuple):
        rule = reading(RowDialect.TEXT, is_trusted=True)
        return ListedSource(
            ItemFormat(prompts.source, read_item(rule)),
            reading=rule,
            limit=limit,
            skip_bad=skip_bad,
            sample=sampled,
            prices=prices,
            name_of=name_of,
            numbering=numbering,
        )
    if isinstance(prompts.source, str | os.PathLike):
        rule = reading(RowDialect.EITHER)
        rows = lines_of(standard_input())
        return StreamSource(rows, read=rule.line, reading=rule, limit=limit)
    rule = reading(RowDialect.TEXT, is_trusted=True)
    return StreamSource(
        items(prompts.source),
        read=read_item(rule),
        reading=rule,
        limit=limit,
        numbering=numbering,
    )
