"""A .parquet file, as `datasets`, pandas and Spark write them, through pyarrow.

What pages announce is checked before Arrow unpacks them, and cells are measured before they become
Python's: texts are read as indices into a dictionary, so that a long text in every
row takes its memory once.
Columns of bytes (the pictures of an image data set) are read only where one is
mapped to an image input.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from attrs import frozen

from ..._core.errors import ConfigError
from ..._core.extras import install_command
from ..._core.models import DEFAULT_MODEL
from ..catalog import find
from ..foreign_names import is_result, works_on_images
from ..image_inputs import MAX_BYTES
from ..parsing import image_message
from .column_names import EXTRAS
from .columns import Columns, Header, refuse_many
from .file_kinds import HEAD, refuse_placeholder
from .lines import LINE_CAP
from .parquet_pages import NotPages, footer_of, pages_of

if TYPE_CHECKING:
    from .row_reader import ParsedRow, RowReader

_ROWS = 1_000  #: rows of a list
_FEW_ROWS = 4  #: of rows with pictures
_BUFFER = 2**16  #: packed bytes of a column that are read at once

#: bytes of a footer, which has about 100 for each column of each row group
_FOOTER_CAP = 2**24
#: bytes of a page, unpacked; most writers make pages of about 1 MB
_PAGE_CAP = 2**24
#: the same for many short values: some writers (DuckDB, fastparquet) make one page of a row group
_FULL_PAGE_CAP, _SHORT = 2**26, 1_024
#: the same for pictures, of which a page holds a hundred and more
_PICTURES_CAP = 2**27
#: values of a list in one cell, on average; a row's values are in memory at once
_LIST_VALUES = 1_000
#: bytes of texts that become Python's at once
_TEXTS_CAP = 2**23

#: the column in which pandas stores a table's index
_INDEX = re.compile(r"__index_level_[0-9]+__")


class ParquetFormat:
    """A table with types. See `Format`."""

    def __init__(self, path: Path, reading: RowReader) -> None:
        self._path = path
        self._name = path.name
        self._reading = reading
        self._header: Header | None = None

    def lists(self) -> Generator[list[Any], None, None]:
        parquet = _pyarrow_parquet(self._name)
        with self._readable(), self._path.open("rb") as file:
            refuse_placeholder(file.read(HEAD), name=self._name)
            self._check_footer(file)
            with parquet.ParquetFile(file) as table:
                wanted = self._wanted(table.schema_arrow)
                pictures = {n for n in wanted if _holds_bytes(table.schema_arrow.field(n).type)}
                groups = _groups(table.metadata)
                chunks = _chunks(table.metadata, groups, set(wanted))
                for chunk in chunks:
                    self._check_pages(file, chunk, is_picture=chunk.column in pictures)
                    yield []  # a turn
            texts = sorted({chunk.path for chunk in chunks if chunk.is_bytes})
            with parquet.ParquetFile(file, read_dictionary=texts, buffer_size=_BUFFER) as table:
                rows = _FEW_ROWS if pictures else _ROWS
                for batch in table.iter_batches(batch_size=rows, row_groups=groups, columns=wanted):
                    for part in self._measured(batch):
                        columns = [_cells(column) for column in part.columns]
                        yield list(zip(*columns, strict=True))

    def where(self, number: int) -> str:
        return f"{self._name} row {number}"

    def read(self, raw: tuple[Any, ...]) -> ParsedRow | None:
        assert self._header is not None  # noqa: S101 — rows come after it
        row = self._header.row(raw)
        return None if row is None else self._reading.row(row)

    def content(self, raw: tuple[Any, ...]) -> bytes:
        return b"" if all(cell in (None, "") for cell in raw) else repr(raw).encode()

    def _check_footer(self, file: IO[bytes]) -> None:
        """Raise ConfigError for a footer that would take too much memory, before it is parsed."""
        size, columns = footer_of(file) or (0, 0)
        try:
            refuse_many(columns)
        except ConfigError as error:
            raise ConfigError(f"{self._name}: {error}") from None
        if size > _FOOTER_CAP:
            raise ConfigError(
                f"{self._name}: a footer of {size / 10**6:,.0f} MB, more than the "
                f"{_FOOTER_CAP // 2**20} MB that are read; write larger row groups"
            )

    def _check_pages(self, file: IO[bytes], chunk: _Chunk, *, is_picture: bool) -> None:
        """Raise ConfigError for pages that would take too much memory, before one is unpacked."""
        where = f"{self._name}: column {chunk.column[:40]!r}"
        values = 0
        try:
            for page in pages_of(file, chunk.start, chunk.length):
                values += 0 if page.is_dictionary else page.values
                is_full = page.values * _SHORT >= page.size
                cap = _PICTURES_CAP if is_picture else _FULL_PAGE_CAP if is_full else _PAGE_CAP
                if page.size > cap:
                    raise ConfigError(
                        f"{where}: a page unpacks to {page.size / 10**6:,.0f} MB, more than the "
                        f"{cap // 2**20} MB that are read; leave the column out or write smaller "
                        "pages"
                    )
                if chunk.is_list and values > _LIST_VALUES * (chunk.rows + _LIST_VALUES):
                    raise ConfigError(f"{where}: lists of more than {_LIST_VALUES:,} values")
        except NotPages as error:
            raise ConfigError(f"{where}: not a whole .parquet file: {error}") from None

    def _measured(self, batch: Any) -> Iterator[Any]:
        """Yield the batch in parts whose texts fit into memory. Raises ConfigError for a cell that
        is too long."""
        total, has_pictures = 0, False
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            longest, size = _texts_of(column)
            total += size
            is_picture = _holds_bytes(column.type)
            has_pictures = has_pictures or is_picture
            if longest > (MAX_BYTES if is_picture else LINE_CAP):
                raise ConfigError(
                    f"{self._name}: column {name[:40]!r}: a cell of {longest / 10**6:,.1f} MB; "
                    f"a text has {LINE_CAP // 10**6} MB at most: shorten it or leave the column out"
                )
        if total <= _TEXTS_CAP or (batch.num_rows == 1 and has_pictures):
            yield batch
            return
        if batch.num_rows == 1:
            raise ConfigError(f"{self._name}: a row of {total / 10**6:,.1f} MB of text")
        half = batch.num_rows // 2
        yield from self._measured(batch.slice(0, half))
        yield from self._measured(batch.slice(half))

    def _wanted(self, schema: Any) -> list[str]:
        """Return the columns to read, and settle what they are."""
        try:
            refuse_many(len(schema.names))
            columns = self._reading.columns_of(schema.names)
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
        known = set(wanted)
        left_out = [
            name for name in schema.names if name not in known and not _INDEX.fullmatch(name)
        ]
        if left_out:
            self._refuse_inputs(left_out)
            self._reading.notes.add(
                f"left out, because bytes are no metadata: {', '.join(left_out)}"
            )
        return wanted

    def _refuse_inputs(self, names: list[str]) -> None:
        """Raise ConfigError for bytes that may be the image to work on."""
        model = find(str(self._reading.defaults.get("model") or DEFAULT_MODEL))
        kept = {
            column for to, column in self._reading.columns.sources.items() if to.startswith(EXTRAS)
        }
        if model is None or not works_on_images(model):
            return
        if unsure := [name for name in names if name not in kept and not is_result(name)]:
            raise ConfigError(f"{self._name}: {image_message(unsure[0], model, {})}")

    def _opened(self, names: list[str], columns: Columns) -> Header:
        reading = self._reading
        return Header(names, columns, defaults=reading.defaults, typed=True, used=reading.used)

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


@frozen(kw_only=True)
class _Chunk:
    """The pages of one leaf column in one row group."""

    column: str
    path: str
    start: int  #: offset in the file
    length: int  #: bytes, packed
    rows: int
    is_bytes: bool  #: texts or bytes, of any length
    is_list: bool


def _groups(metadata: Any) -> list[int]:
    """Return the row groups that have rows; Spark writes empty parts, whose group has no page."""
    return [
        place for place in range(metadata.num_row_groups) if metadata.row_group(place).num_rows > 0
    ]


def _chunks(metadata: Any, groups: list[int], wanted: set[str]) -> list[_Chunk]:
    found = []
    for group in map(metadata.row_group, groups):
        for place in range(group.num_columns):
            chunk = group.column(place)
            column = chunk.path_in_schema.split(".")[0]
            if column in wanted or chunk.path_in_schema in wanted:  # a name may hold a dot
                leaf = metadata.schema.column(place)
                first = chunk.data_page_offset
                if chunk.has_dictionary_page:
                    first = min(first, chunk.dictionary_page_offset or first)
                found.append(
                    _Chunk(
                        column=column if column in wanted else chunk.path_in_schema,
                        path=chunk.path_in_schema,
                        start=first,
                        length=chunk.total_compressed_size,
                        rows=group.num_rows,
                        is_bytes=chunk.physical_type == "BYTE_ARRAY",
                        is_list=leaf.max_repetition_level > 0,
                    )
                )
    return found


def _texts_of(column: Any) -> tuple[int, int]:
    """Return the bytes of the longest text of a column and of all of them."""
    import pyarrow
    import pyarrow.compute as compute

    types, type_ = pyarrow.types, column.type
    if types.is_dictionary(type_):
        lengths = compute.take(compute.binary_length(column.dictionary), column.indices)
    elif types.is_struct(type_):
        sizes = [_texts_of(inner) for inner in column.flatten()]
        return max((one for one, _ in sizes), default=0), sum(every for _, every in sizes)
    elif types.is_map(type_):
        return _texts_of(pyarrow.StructArray.from_arrays([column.keys, column.items], ["k", "v"]))
    elif types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return _texts_of(column.flatten())
    elif types.is_string(type_) or types.is_large_string(type_) or _holds_bytes(type_):
        lengths = compute.binary_length(column)
    else:
        return 0, 0
    return compute.max(lengths).as_py() or 0, compute.sum(lengths).as_py() or 0


def _cells(column: Any) -> list[Any]:
    """Return a column as Python's values."""
    import pyarrow

    plain = column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
    cells: list[Any] = plain.to_pylist()
    return cells


def _pyarrow_parquet(name: str) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise ConfigError(f"{name} needs pyarrow: {install_command('data')}") from None
    return parquet


def _holds_bytes(type_: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(type_):
        return _holds_bytes(type_.value_type)
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_fixed_size_binary(type_):
        return True
    return any(_holds_bytes(type_.field(place).type) for place in range(type_.num_fields))
