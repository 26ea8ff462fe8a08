"""Checks the parts of an .xlsx file before openpyxl reads them, and finds what it does not report.

An .xlsx is a zip of XML. Sizes are taken from the zip's directory, which Python's reader does not
exceed. A document type, in which entities are declared, is refused, so none is ever expanded.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

from attrs import define, field

from ..._core.errors import ConfigError

#: parts; a workbook has some ten for each sheet, drawing and comment
_PARTS = 10_000
#: bytes of a part that is read whole, unpacked: texts that cells share, styles, the workbook
_PART_CAP = 2**24
#: texts that cells share, which are in memory at once; about 100 bytes each and the text
_TEXTS = 250_000
#: bytes of all sheets, unpacked; a million rows of 250 bytes
_SHEETS_CAP = 2**28
#: bytes of a row with its cells, and of what stands outside of rows
_ROW_CAP = 2**22
_ROWS = 2**20  #: rows of a sheet, as Excel has them
_COLUMNS = 2**14  #: of a row, as Excel has them
_BLOCK = 2**18

_SHEETS = "xl/worksheets/"
#: parts that may be large and are not read
_UNREAD = ("xl/pivotCache/", "xl/media/", "xl/drawings/", "xl/charts/", "xl/externalLinks/")
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  #: how .xls files and encrypted ones begin

_DOCTYPE = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_ENCODING = re.compile(rb"^<\?xml[^>]{0,200}encoding\s*=\s*[\"'](?!utf-?8|us-ascii)", re.IGNORECASE)
_TEXT = re.compile(rb"<(?:\w+:)?si\b")
# an attribute has no "<", and without one a search ends at the next tag
_ROW_END = re.compile(rb"</(?:\w+:)?row>|<(?:\w+:)?row\b[^<>]*/>")
_ROW_NUMBER = re.compile(rb"<(?:\w+:)?row\b[^<>]*?\br=\"(\d+)\"")
#: a cell with a formula, and with no value or an empty one
_UNSAVED = re.compile(
    rb"<(?:\w+:)?c\b([^<>]*)>\s*<(?:\w+:)?f\b(?:[^<>]*/>|[^<>]*>[^<]*</(?:\w+:)?f>)\s*"
    rb"(<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
_PLACE = re.compile(rb"\br=\"([A-Z]{1,3})([0-9]{1,7})\"")
_MERGED = re.compile(rb"<(?:\w+:)?mergeCell\b[^<>]*\bref=\"([A-Z]+)(\d+):([A-Z]+)(\d+)\"")


@define
class SheetFacts:
    """What a reader of values cannot see in one sheet."""

    #: of each row the first formula without a value, as row × 2**14 + column; 8 MB for a million
    unsaved: array[int] = field(factory=lambda: array("Q"))
    is_unplaced: bool = False  #: such a formula has no place, or rows are not in order
    merged: list[tuple[int, str]] = field(factory=list)  #: last row and text of merged ranges

    def unsaved_in(self, row: int) -> int | None:
        """Return the column of a formula without a value in this row, counted from 1."""
        place = bisect_left(self.unsaved, row * _COLUMNS)
        if place == len(self.unsaved) or self.unsaved[place] >= (row + 1) * _COLUMNS:
            return None
        return self.unsaved[place] % _COLUMNS + 1

    def note_unsaved(self, place: re.Match[bytes] | None) -> None:
        """Note a formula without a value."""
        last = self.unsaved[-1] // _COLUMNS if self.unsaved else 0
        row = 0 if place is None else int(place[2])
        if place is None or row < max(last, 1):
            self.is_unplaced = True
        elif row > last:
            self.unsaved.append(row * _COLUMNS + min(_column(place[1]), _COLUMNS) - 1)


def sheet_facts(path: Path) -> dict[str, SheetFacts]:
    """Return the facts of each sheet, by the name of its part.

    Raises ConfigError for a file that is no workbook, for one that would take too much memory, and
    for one that is encrypted.
    """
    name = path.name
    try:
        with path.open("rb") as file:
            _refuse_others(file, name=name)
            with ZipFile(file) as parts:
                infos = parts.infolist()
                _check_sizes(infos, name=name)
                for info in infos:
                    if info.filename.endswith((".xml", ".rels")) and not _is_unread(info):
                        _check_head(parts, info, name=name)
                    if info.filename.endswith("sharedStrings.xml"):
                        _check_texts(parts, info, name=name)
                sheets = [info for info in infos if _is_sheet(info)]
                return {info.filename: _facts(parts, info, name=name) for info in sheets}
    except (BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise ConfigError(f"{name} is not a whole .xlsx file: {str(error)[:80]}") from None
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from None


def _refuse_others(file: IO[bytes], *, name: str) -> None:
    if file.read(len(_OLE)) == _OLE:
        raise ConfigError(
            f"{name} is encrypted, or an .xls under another name; open it in Excel and save it as "
            ".xlsx without a password"
        )
    size = file.seek(0, 2)
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 12:
        raise ConfigError(f"{name} is not a whole .xlsx file: it has no directory; {_step(file)}")
    [count] = struct.unpack_from("<H", tail, end + 10)
    if count > _PARTS:
        raise ConfigError(f"{name}: {count:,} parts; a workbook has {_PARTS:,} at most")


def _step(file: IO[bytes]) -> str:
    """Return what to do about a file that is no ZIP archive."""
    file.seek(0)
    head = file.read(512)
    if head.startswith(b"PK"):
        return "copy or download it again, or save it in Excel again"
    if head.lstrip()[:1] == b"<":
        return "it looks like a web page: log in, and download the file itself"
    if head and b"\0" not in head:
        return "it looks like text: name it .csv if it is a table"
    return "open it in Excel or LibreOffice and save it as .xlsx"


def _check_sizes(infos: list[ZipInfo], *, name: str) -> None:
    if len(infos) > _PARTS:
        raise ConfigError(f"{name}: {len(infos):,} parts; a workbook has {_PARTS:,} at most")
    if any(info.flag_bits & 1 for info in infos):
        raise ConfigError(f"{name} is encrypted; save it without a password")
    if not any(info.filename == "xl/workbook.xml" for info in infos):
        raise ConfigError(f"{name} is not an .xlsx file; save it as .xlsx or CSV UTF-8")
    for info in infos:
        if not _is_sheet(info) and not _is_unread(info) and info.file_size > _PART_CAP:
            raise ConfigError(
                f"{name}: {info.filename[-40:]} unpacks to {info.file_size / 10**6:,.0f} MB, more "
                f"than the {_PART_CAP // 2**20} MB that are read; save it as CSV UTF-8"
            )
    size = sum(info.file_size for info in infos if _is_sheet(info))
    if size > _SHEETS_CAP:
        raise ConfigError(
            f"{name}: its sheets unpack to {size / 10**6:,.0f} MB, more than the "
            f"{_SHEETS_CAP // 2**20} MB that are read; save the list as CSV UTF-8"
        )


def _is_sheet(info: ZipInfo) -> bool:
    return info.filename.startswith(_SHEETS) and info.filename.endswith(".xml")


def _is_unread(info: ZipInfo) -> bool:
    return info.filename.startswith(_UNREAD)


def _check_head(parts: ZipFile, info: ZipInfo, *, name: str) -> None:
    """Raise ConfigError for XML in which a reader could find entities."""
    with parts.open(info) as part:
        head = part.read(_BLOCK)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _DOCTYPE.search(head) or _ENCODING.search(start) or (start and start[:1] != b"<"):
        raise ConfigError(
            f"{name}: {info.filename[-40:]} is not XML as spreadsheets write it (a document type, "
            "or an encoding other than UTF-8); open it in Excel and save it again"
        )


def _check_texts(parts: ZipFile, info: ZipInfo, *, name: str) -> None:
    with parts.open(info) as part:
        count = len(_TEXT.findall(part.read()))
    if count > _TEXTS:
        raise ConfigError(
            f"{name}: {count:,} different texts, more than the {_TEXTS:,} that are read; "
            "save it as CSV UTF-8"
        )


def _facts(parts: ZipFile, info: ZipInfo, *, name: str) -> SheetFacts:
    facts = SheetFacts()
    with parts.open(info) as part:
        for text in _pieces(part, name=name):
            if _DOCTYPE.search(text):
                raise ConfigError(f"{name}: {info.filename[-40:]} has a document type")
            for match in _ROW_NUMBER.finditer(text):
                if len(match[1]) > 7 or int(match[1]) > _ROWS:
                    raise ConfigError(f"{name}: a row beyond {_ROWS:,}, the last one of a sheet")
            _note_unsaved(text, facts)
            for left, _, right, row in (match.groups() for match in _MERGED.finditer(text)):
                place = match_text(left, right)
                facts.merged.append((int(row[:8]), place + row[:8].decode()))
    return facts


def match_text(left: bytes, right: bytes) -> str:
    """Return the columns of a merged range: "A", "A to C"."""
    first, last = left.decode(), right.decode()
    return f"{first} to {last}" if first != last else first


def _note_unsaved(text: bytes, facts: SheetFacts) -> None:
    if b"<f" not in text and b":f" not in text:
        return
    for match in _UNSAVED.finditer(text):
        is_empty_text = match[2] is not None and b't="str"' in match[1]
        if not is_empty_text:
            facts.note_unsaved(_PLACE.search(match[1]))


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number


def _pieces(part: IO[bytes], *, name: str) -> Iterator[bytes]:
    """Yield a sheet in pieces that end with a row, and its end. Raises ConfigError for a row that
    is too long."""
    rest = b""
    while block := part.read(_BLOCK):
        rest += block
        end = 0
        for match in _ROW_END.finditer(rest):
            if match.end() - end > _ROW_CAP:
                break
            end = match.end()
        if len(rest) - end > _ROW_CAP:
            raise ConfigError(f"{name}: a row, or what is around rows, of more than 4 MB")
        if end:
            yield rest[:end]
            rest = rest[end:]
    yield rest
