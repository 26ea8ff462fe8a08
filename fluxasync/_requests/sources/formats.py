"""How prompt lists are cut into rows: lines, .json, folders of .txt, and lists of a program.

Everything here runs in the source's own thread.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..._core.errors import ConfigError
from ..._core.strict_json import parsed_object
from ..image_inputs import open_within
from .compression import PACKED, blocks_of
from .file_kinds import refuse_other_kinds
from .lines import (
    IMAGES_CAP,
    LINE_CAP,
    LINE_END_CAP,
    Splitter,
    length_without_images,
    reject_utf16,
)

if TYPE_CHECKING:
    from .row_reader import ParsedRow, RowReader

_ROWS = 1_000  #: rows of a list
_Raw = TypeVar("_Raw")


class Format(Protocol):
    """Cuts a list into raw rows and reads them. Everything runs in the source's own thread."""

    def lists(self) -> Generator[list[Any], None, None]:
        """Yield all rows in lists, blank ones included; an empty list lets the loop have a turn.

        Raises ConfigError for a file that is not of this format at all.
        """

    def where(self, number: int) -> str:
        """Return the place of a row, counted from 1: "prompts.csv row 17"."""

    def read(self, raw: Any) -> ParsedRow | None:
        """Return a row's request, None for a blank row. Raises ConfigError without its place."""

    def content(self, raw: Any) -> bytes:
        """Return the bytes by which a sample ranks the row, b"" for a blank one."""


#: bytes of rows that are handed over at once
LIST_CAP = 2**22


def gathered(
    rows: Iterable[_Raw], *, most: int, size: Callable[[_Raw], int]
) -> Iterator[list[_Raw]]:
    """Yield rows in lists, of `most` rows or of about 4 MB."""
    some: list[_Raw] = []
    held = 0
    for row in rows:
        some.append(row)
        held += size(row)
        if len(some) == most or held > LIST_CAP:
            yield some
            some, held = [], 0
    if some:
        yield some


class LineFormat:
    """A prompt or an object a line."""

    def __init__(self, path: Path, reading: RowReader) -> None:
        self._path = path
        self._name = path.name  # used for every row; `Path.name` is slow
        self.read = reading.line

    def lists(self) -> Generator[list[Any], None, None]:
        with closing(blocks_of(self._path)) as blocks:
            yield from self.rows(blocks)

    def rows(self, blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
        """Yield the lines of blocks that were read already."""
        # a small file may unpack to anything, and only an object holds images
        is_plain = self._path.suffix.lower() not in (PACKED, ".txt")
        splitter = Splitter(most=IMAGES_CAP if is_plain else LINE_END_CAP)
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


class ItemFormat:
    """A program's list of text, dicts and ImageRequests; a raw row is its place in the list.

    See `Format`.
    """

    def __init__(self, given: Iterable[object], reading: RowReader) -> None:
        self._given = tuple(given)  # the program may change its list
        self._reading = reading

    def lists(self) -> Generator[list[Any], None, None]:
        yield from gathered(range(len(self._given)), most=_ROWS, size=lambda _: 0)

    def where(self, number: int) -> str:
        return f"item {number}"

    def read(self, raw: int) -> ParsedRow | None:
        return self._reading.item(self._given[raw])

    def content(self, raw: int) -> bytes:
        return repr(self._given[raw]).encode(errors="surrogatepass")


#: bytes of a .json file, which is read whole
_JSON_CAP = 64 * 2**20
_LEAD = codecs.BOM_UTF8 + b" \t\n\r"
_SPACE = re.compile(r"[ \t\n\r]*")

#: finds the end of an element, which is read strictly as a row
_FINDER = json.JSONDecoder(parse_int=str, parse_float=str)

_FORM = (
    'a .json file is one list: [{"prompt": "…"}, …] (from pandas: orient="records"); '
    "an object a line is .jsonl"
)


class JsonFormat:
    """A .json file: one list of objects or texts; or an object a line, as data sets often are.

    See `Format`.
    """

    def __init__(self, path: Path, reading: RowReader) -> None:
        self._path = path
        self._name = path.name
        self._reading = reading
        self._lines = LineFormat(path, reading)
        self._is_lines = False

    def lists(self) -> Generator[list[Any], None, None]:
        with closing(blocks_of(self._path)) as blocks:
            content = b""
            for block in blocks:
                content += block
                start = content.lstrip(_LEAD)
                if start.startswith(b"{"):
                    self._is_lines = True
                    if _is_one_object(start):
                        raise ConfigError(f"{self._name}: {_FORM}")
                    yield from self._lines.rows(chain([content], blocks))
                    return
                if start:
                    break
            reject_utf16(content[:4], name=self._name)
            text = self._text(chain([content], blocks))
        if text.strip():
            yield from gathered(self._elements(text), most=_ROWS, size=len)

    def where(self, number: int) -> str:
        return self._lines.where(number) if self._is_lines else f"{self._name} item {number}"

    def read(self, raw: Any) -> ParsedRow | None:
        if self._is_lines:
            return self._lines.read(raw)
        if raw.startswith('"'):
            text = json.loads(raw)
            return self._reading.row({"prompt": text}) if text.strip() else None
        return self._reading.object(parsed_object(raw))

    def content(self, raw: Any) -> bytes:
        return self._lines.content(raw) if self._is_lines else raw.encode(errors="surrogatepass")

    def _text(self, blocks: Iterable[bytes]) -> str:
        """Return the whole file as text. Raises ConfigError for one over the cap."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        texts, size = [], 0
        try:
            for block in blocks:
                size += len(block)
                if size > _JSON_CAP:
                    raise ConfigError(
                        f"{self._name}: larger than {_JSON_CAP // 2**20} MB, the limit for .json; "
                        "save it as .jsonl, an object a line"
                    )
                texts.append(decoder.decode(block))
            texts.append(decoder.decode(b"", final=True))
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise ConfigError(
                f"{self._name}: byte 0x{byte:02x} is not UTF-8; save it as UTF-8"
            ) from None
        return "".join(texts)

    def _elements(self, text: str) -> Iterator[str]:
        """Yield the text of each element of the list."""
        place = _skip_space(text, 0)
        if text[place : place + 1] != "[":
            raise ConfigError(f"{self._name}: {_FORM}")
        place = _skip_space(text, place + 1)
        where = self._name
        number, is_last = 0, text[place : place + 1] == "]"
        while not is_last:
            number += 1
            where = f"{self._name} item {number}"
            end = _end_of_element(text, place, where=where)
            yield text[place:end]
            place = _skip_space(text, end)
            is_last = text[place : place + 1] == "]"
            if not is_last:
                if text[place : place + 1] != ",":
                    reason = "no comma after it" if place < len(text) else _CUT_OFF
                    raise ConfigError(f"{where}: {reason}")
                place = _skip_space(text, place + 1)
        if _skip_space(text, place + 1) < len(text):
            raise ConfigError(f"{where}: there is more after the list")


_CUT_OFF = "the file ends in the middle"


def _skip_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return place if match is None else match.end()


def _end_of_element(text: str, place: int, *, where: str) -> int:
    if place == len(text):
        raise ConfigError(f"{where}: {_CUT_OFF}")
    try:
        _, end = _FINDER.raw_decode(text, place)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not JSON: {error.msg}") from None
    if end - place > LINE_CAP and length_without_images(text[place:end].encode()) > LINE_CAP:
        raise ConfigError(f"{where}: longer than {LINE_CAP:,} characters")
    return end


def _is_one_object(start: bytes) -> bool:
    """Whether all of a file is in one object, as pandas writes tables by default: its first line
    only opens it, or holds nothing but objects and lists."""
    line = start.splitlines()[0].strip()
    if line == b"{":
        return True
    try:
        values = json.loads(line).values()
    except (ValueError, AttributeError, RecursionError):
        return False
    return bool(values) and all(isinstance(value, dict | list) for value in values)


_FILES = 200  #: files of a list
#: lines of a long prompt; a file of more is a list, a log or a text
_LINES = 10
#: names that other files than prompts bear, in folders of code and of downloads
NO_PROMPTS = re.compile(
    r"((read_?me|licen[cs]e|copying|requirements|change_?log)([-_.].*)?"
    r"|notice|authors|contributors|changes|todo|notes|constraints|cmakelists|robots|nohup"
    r"|(.*\.|(build|run|debug|error|install|access)[-_]?)?logs?)\.txt",
    re.IGNORECASE,
)
_APART = "move it away, or name a list as the source itself"

#: a file's name, and its content up to a little more than is taken, or why it has none
_FileRow = tuple[str, bytes | ConfigError]


class FolderFormat:
    """A folder of .txt files, one prompt each, as captions lie beside pictures. See `Format`.

    Files come in the order of their names; a file's stem is its image's `name`. Names are held,
    about 100 bytes each, contents are not.
    """

    def __init__(self, path: Path, reading: RowReader) -> None:
        self._path = path
        self._name = path.name or str(path)
        self._reading = reading
        self._names: list[str] = []

    def lists(self) -> Generator[list[Any], None, None]:
        try:
            self._names = _names(self._path)
            if not self._names:
                raise ConfigError(
                    f"{self._name}/ holds no .txt file and no list (.jsonl, .json, .csv, .tsv, "
                    ".parquet); its own folders are not read"
                )
            yield from gathered(map(self._file, self._names), most=_FILES, size=_file_size)
        except OSError as exc:
            where = exc.filename or self._path
            raise ConfigError(f"{where} cannot be read: {exc.strerror}") from exc

    def where(self, number: int) -> str:
        return f"{self._name}/{self._names[number - 1]}"

    def read(self, raw: _FileRow) -> ParsedRow | None:
        name, content = raw
        if NO_PROMPTS.fullmatch(name):
            raise ConfigError(f"not a prompt, by its name; {_APART}")
        if isinstance(content, ConfigError):
            raise content
        if len(content) > LINE_CAP:
            raise ConfigError(f"longer than {LINE_CAP:,} bytes, which is no prompt")
        reject_utf16(content, name="the file")
        refuse_other_kinds(content, name="the file")
        try:
            text = content.removeprefix(codecs.BOM_UTF8).decode()
        except UnicodeDecodeError as error:
            byte = content[error.start]
            raise ConfigError(f"byte 0x{byte:02x} is not UTF-8; save it as UTF-8") from None
        prompt = text.replace("\r\n", "\n").replace("\r", "\n").strip()
        if (lines := prompt.count("\n") + 1) > _LINES:
            raise ConfigError(f"{lines} lines, and a folder's file is one prompt; {_APART}")
        return self._reading.text(prompt, name=Path(name).stem) if prompt else None

    def content(self, raw: _FileRow) -> bytes:
        return b"outside" if isinstance(raw[1], ConfigError) else raw[1].strip()

    def _file(self, name: str) -> _FileRow:
        try:
            descriptor = open_within(self._path / name, self._reading.allowed)
        except ConfigError as error:
            return name, error
        with open(descriptor, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)  # and no pipe by now
            return name, file.read(LINE_CAP + 1) if is_file else b""


def _file_size(raw: _FileRow) -> int:
    return 0 if isinstance(raw[1], ConfigError) else len(raw[1])


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as found:
        return sorted(
            each.name
            for each in found
            if each.name.lower().endswith(".txt")
            and not each.name.startswith(".")  # what Macs leave beside files on other disks
            and each.is_file()
        )
