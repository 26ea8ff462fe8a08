"""How a prompt file is cut into rows: what every format does, and the one of lines.

A format yields raw rows in lists, says where one stands, and reads one when it is wanted: so a
second pass goes over rows that are settled without reading them. Everything here runs in the
source's own thread.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..._core.errors import ConfigError
from .compression import Witness, blocks_of
from .lines import Splitter, reject_utf16
from .row_reader import RowReader, Wish

_Raw = TypeVar("_Raw")


class Format(Protocol):
    """A prompt file as raw rows, which only their own format understands."""

    def lists(self, witness: Witness) -> Generator[list[Any], None, None]:
        """Yield all rows in lists, blank ones included, each list seen by the witness before.

        Raises ConfigError for a file that is not of this format at all.
        """

    def where(self, number: int) -> str:
        """Return the place of a row, counted from 1: "prompts.csv row 17"."""

    def read(self, raw: Any) -> Wish | None:
        """Return a row's request, None for a blank row. Raises ConfigError without its place."""

    def content(self, raw: Any) -> bytes:
        """Return what tells rows apart, b"" for a blank one, without reading it."""


#: bytes of rows that are handed over at once
_LIST_CAP = 2**22


def gathered(
    rows: Iterable[_Raw], *, most: int, size: Callable[[_Raw], int]
) -> Iterator[list[_Raw]]:
    """Yield rows in lists, of `most` rows or of about 4 MB."""
    some: list[_Raw] = []
    held = 0
    for row in rows:
        some.append(row)
        held += size(row)
        if len(some) == most or held > _LIST_CAP:
            yield some
            some, held = [], 0
    if some:
        yield some


class LineFormat:
    """A prompt or an object a line."""

    def __init__(self, path: Path, reading: RowReader) -> None:
        self._path = path
        self._name = path.name  # said of every row, and slow to ask a path for
        self.read = reading.line

    def lists(self, witness: Witness) -> Generator[list[Any], None, None]:
        with closing(blocks_of(self._path, witness)) as blocks:
            yield from self.rows(blocks)

    def rows(self, blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
        """Yield the lines of blocks that were read already."""
        splitter = Splitter()
        for number, block in enumerate(blocks):
            if number == 0:
                reject_utf16(block, name=self._name)
            try:
                lines = splitter.feed(block)
            except ConfigError as error:
                raise ConfigError(f"{self._name}: {error}") from None
            yield lines
        if last := splitter.finish():
            yield last

    def where(self, number: int) -> str:
        return f"{self._name} line {number}"

    def content(self, raw: bytes) -> bytes:
        return raw.removeprefix(codecs.BOM_UTF8).strip()
