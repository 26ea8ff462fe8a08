"""A .parquet file, as `datasets`, pandas and Spark write them, through pyarrow.

The file is digested whole before its first row is read, because Arrow reads it in its own order.
Columns of bytes (the pictures of an image data set) are no metadata and are not even read, unless
one is mapped to an image input.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from .._errors import ConfigError
from .._extras import install_command
from ._cells import Columns, Header
from ._reading import Reading, Wish
from ._unpacked import Witness, blocks_of

_ROWS = 1_000  #: rows of a list

#: what pandas names the index of a table, which nobody wrote
_INDEX = re.compile(r"__index_level_[0-9]+__")


class ParquetFormat:
    """A table with types. See `Format`."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path = path
        self._name = path.name
        self._reading = reading
        self._header: Header | None = None

    def lists(self, witness: Witness) -> Generator[list[Any], None, None]:
        with closing(blocks_of(self._path, witness)) as blocks:
            for _ in blocks:
                yield []  # so that whoever waits may have a turn
        parquet = _pyarrow_parquet(self._name)
        with self._readable(), self._path.open("rb") as file, parquet.ParquetFile(file) as table:
            wanted = self._wanted(table.schema_arrow)
            for batch in table.iter_batches(batch_size=_ROWS, columns=wanted):
                witness.stat(os.fstat(file.fileno()))
                columns = [column.to_pylist() for column in batch.columns]
                yield list(zip(*columns, strict=True))

    def where(self, number: int) -> str:
        return f"{self._name} row {number}"

    def read(self, raw: tuple[Any, ...]) -> Wish | None:
        assert self._header is not None  # noqa: S101 — rows come after it
        row = self._header.row(raw)
        return None if row is None else self._reading.row(row)

    def content(self, raw: tuple[Any, ...]) -> bytes:
        return b"" if all(cell in (None, "") for cell in raw) else repr(raw).encode()

    def _wanted(self, schema: Any) -> list[str]:
        """Return the columns to read, and settle what they are."""
        try:
            columns = self._reading.columns
            every = self._opened(schema.names, columns)
            wanted = [
                field.name
                for field in schema
                if not _INDEX.fullmatch(field.name)
                and (not _holds_bytes(field.type) or every.takes(field.name))
            ]
            self._header = self._opened(wanted, columns.among(wanted))
        except ConfigError as error:
            raise ConfigError(f"{self._name}: {error}") from None
        left_out = [
            name for name in schema.names if name not in wanted and not _INDEX.fullmatch(name)
        ]
        if left_out:
            self._reading.notes.add(
                f"left out, because bytes are no metadata: {', '.join(left_out)}"
            )
        return wanted

    def _opened(self, names: list[str], columns: Columns) -> Header:
        return Header(names, columns, prompted=self._reading.draws_without_prompt)

    @contextmanager
    def _readable(self) -> Generator[None, None, None]:
        import pyarrow

        try:
            yield
        except pyarrow.ArrowException as error:
            [reason, *_] = str(error).splitlines() or [""]
            raise ConfigError(f"{self._name} is not a whole .parquet file: {reason}") from None
        except OSError as error:
            raise ConfigError(f"{self._name} cannot be read: {error}") from None


def _pyarrow_parquet(name: str) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise ConfigError(f"{name} needs pyarrow: {install_command('data')}") from None
    return parquet


def _holds_bytes(type_: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_fixed_size_binary(type_):
        return True
    return any(_holds_bytes(type_.field(place).type) for place in range(type_.num_fields))
