"""How prompt lists are cut into rows: lines, .json, folders of .txt, and lists of a program.

Everything here runs in the source's own thread.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..._core.errors import ConfigError
from ..image_inputs import open_within
from .compression import PACKED, blocks_of, suffix_of
from .file_kinds import refuse_other_kinds
from .lines import IMAGES_CAP, LINE_CAP, LINE_END_CAP, Splitter, reject_utf16

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
                self._refuse_list(block)
            try:
                lines = splitter.feed(block)
            except ConfigError as error:
                raise ConfigError(f"{self._name}: {error}") from None
            yield lines
        if last := splitter.finish():
            yield last

    def _refuse_list(self, head: bytes) -> None:
        """Raise ConfigError for a .jsonl file that is one list, or objects of several lines."""
        start = head.lstrip(codecs.BOM_UTF8 + b" \t\r\n")
        is_list = start.startswith(b"[") or start.split(b"\n", 1)[0].strip() == b"{"
        if is_list and suffix_of(self._path) in (".jsonl", ".ndjson"):
            raise ConfigError(
                f"{self._name}: not an object a line, but JSON over several lines; name it .json"
            )

    def where(self, number: int) -> str:
        return f"{self._name} line {number}"

    def content(self, raw: bytes) -> bytes:
        return raw.removeprefix(codecs.BOM_UTF8).strip()


class ItemFormat:
    """A program's list of text, dicts and ImageRequests; a raw row is its place in the list.

    `read` makes the request of an item. See `Format`.
    """

    def __init__(self, given: Iterable[object], read: Callable[[object], ParsedRow | None]) -> None:
        self._given = tuple(given)  # the program may change its list
        self._read = read

    def lists(self) -> Generator[list[Any], None, None]:
        yield from gathered(range(len(self._given)), most=_ROWS, size=lambda _: 0)

    def where(self, number: int) -> str:
        return f"item {number}"

    def read(self, raw: int) -> ParsedRow | None:
        return self._read(self._given[raw])

    def content(self, raw: int) -> bytes:
        return repr(self._given[raw]).encode(errors="surrogatepass")


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
                    ".xlsx, .parquet); its own folders are not read"
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
