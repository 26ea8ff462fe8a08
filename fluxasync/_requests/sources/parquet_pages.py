"""The footer and the page headers of a .parquet file, read before Arrow allocates memory for them.

A packed page of a few kilobytes may announce a cell of gigabytes, and Arrow unpacks a page whole.
Arrow also parses a footer whole, into about nine times its size.
Both are Thrift structs in the compact protocol (parquet-format, FileMetaData and PageHeader); only
sizes and counts are taken from them, everything else is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from attrs import frozen

#: bytes of a header that are read at first, and at most: it may hold the least and greatest value
_HEAD, _LONGEST_HEAD = 2**12, 2**20
#: levels of structs; a page header has four
_DEPTH = 8

_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY = (1, 2), 3, (4, 5, 6), 7, 8
_LIST, _STRUCT = 9, 12

#: fields of a PageHeader
_UNPACKED, _PACKED, _DATA, _DICTIONARY, _DATA_2 = 2, 3, 5, 7, 8


#: bytes at the end of a file: the length of the footer, and a mark
_TAIL, _MARK = 8, b"PAR1"
#: fields of a FileMetaData and of the SchemaElement of the root
_VERSION, _SCHEMA, _CHILDREN = 1, 2, 5


class NotPages(ValueError):
    """The bytes are no page headers."""


def footer_of(file: IO[bytes]) -> tuple[int, int] | None:
    """Return the bytes of the footer and the number of columns, or None if it cannot be read so."""
    size = os.fstat(file.fileno()).st_size
    tail = os.pread(file.fileno(), _TAIL, max(0, size - _TAIL))
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MARK or length > size - _TAIL:
        return None
    reader = _Thrift(os.pread(file.fileno(), min(length, _HEAD), size - _TAIL - length))
    try:
        return length, reader.columns()
    except (NotPages, IndexError):
        return None


@frozen
class DataPage:
    """One page of a column chunk, as its header announces it."""

    size: int  #: bytes, unpacked
    values: int
    is_dictionary: bool


def pages_of(file: IO[bytes], start: int, length: int) -> Iterator[DataPage]:
    """Yield the pages of the column chunk at this place. Raises NotPages and OSError."""
    place, end = start, start + length
    while place < end:
        fields, header = _header(file, place)
        size, packed = fields.get(_UNPACKED), fields.get(_PACKED)
        kinds = [fields[kind] for kind in (_DATA, _DATA_2, _DICTIONARY) if kind in fields]
        inner = kinds[0] if kinds else {1: 0}
        values = inner.get(1) if isinstance(inner, dict) else None
        if not (isinstance(size, int) and isinstance(packed, int) and isinstance(values, int)):
            raise NotPages("a page header without sizes")
        if min(size, packed, values) < 0:
            raise NotPages("a page header with a negative size")
        yield DataPage(size, values, _DICTIONARY in fields)
        place += header + packed


_Fields = dict[int, "int | _Fields"]


def _header(file: IO[bytes], place: int) -> tuple[_Fields, int]:
    for length in (_HEAD, _LONGEST_HEAD):
        reader = _Thrift(os.pread(file.fileno(), length, place))
        try:
            return reader.struct(), reader.place
        except IndexError:
            continue  # the header is longer than what was read
    raise NotPages("a page header that does not end")


class _Thrift:
    """Reads a struct of the compact protocol; IndexError where the bytes end."""

    def __init__(self, content: bytes) -> None:
        self.place = 0
        self._content = content

    def struct(self, depth: int = 0) -> _Fields:
        if depth > _DEPTH:
            raise NotPages("a page header that is nested too deeply")
        fields: _Fields = {}
        number = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            number = number + delta if delta else self._integer()
            if kind in _INTEGERS:
                fields[number] = self._integer()
            elif kind == _STRUCT:
                fields[number] = self.struct(depth + 1)
            else:
                self._skip(kind)
        return fields

    def columns(self) -> int:
        """Read the beginning of a footer; the root of its schema has the columns as children."""
        if self._byte() != _VERSION << 4 | _INTEGERS[1]:
            raise NotPages("no version")
        self._integer()
        if self._byte() != (_SCHEMA - _VERSION) << 4 | _LIST:
            raise NotPages("no schema")
        if self._byte() >> 4 == 15:  # a longer list has its length after the head
            self._varint()
        children = self.struct().get(_CHILDREN)
        if not isinstance(children, int):
            raise NotPages("a root without columns")
        return children

    def _skip(self, kind: int) -> None:
        if kind in _BOOLEANS:
            return
        if kind in (_BYTE, _DOUBLE):
            self._pass(1 if kind == _BYTE else 8)
        elif kind == _BINARY:
            self._pass(self._varint())
        else:  # page headers have no lists and maps
            raise NotPages("a page header of an unknown form")

    def _pass(self, length: int) -> None:
        self.place += length
        if self.place > len(self._content):
            raise IndexError

    def _byte(self) -> int:
        byte = self._content[self.place]
        self.place += 1
        return byte

    def _varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise NotPages("a page header with a number that does not end")

    def _integer(self) -> int:
        number = self._varint()
        return number >> 1 ^ -(number & 1)
