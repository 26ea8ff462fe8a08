"""Several files of one kind as one list: rows are counted and numbered over all of them.

So a list that was split has the keys of the whole one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ..._core.errors import ConfigError

if TYPE_CHECKING:
    from .formats import Format
    from .row_reader import ParsedRow, RowReader


@frozen(kw_only=True)
class Shard:
    """One of the files."""

    form: Format = field(repr=False)
    base: Path  #: folder of the relative paths in its rows
    prefix: str = ""  #: before its name in errors, where two files have the same


class ShardedFormat:
    """Files one after the other; a raw row is the place of its file and its raw row there.

    See `Format`.
    """

    def __init__(self, shards: Sequence[Shard], reading: RowReader) -> None:
        self._shards = shards
        self._reading = reading
        self._starts: list[int] = []  #: rows before each file

    def lists(self) -> Generator[list[Any], None, None]:
        self._starts.clear()
        count = 0
        for place, shard in enumerate(self._shards):
            self._starts.append(count)
            self._reading.enter(shard.base)  # a folder of captions opens its files while it lists
            try:
                with closing(shard.form.lists()) as lists:
                    for rows in lists:
                        count += len(rows)
                        yield [(place, raw) for raw in rows]
                        self._reading.enter(shard.base)
            except ConfigError as error:
                raise ConfigError(f"{shard.prefix}{error}") from None

    def where(self, number: int) -> str:
        place = bisect_right(self._starts, number - 1) - 1
        shard = self._shards[place]
        return f"{shard.prefix}{shard.form.where(number - self._starts[place])}"

    def read(self, raw: tuple[int, Any]) -> ParsedRow | None:
        place, inner = raw
        shard = self._shards[place]
        self._reading.enter(shard.base)
        return shard.form.read(inner)

    def content(self, raw: tuple[int, Any]) -> bytes:
        return self._shards[raw[0]].form.content(raw[1])
