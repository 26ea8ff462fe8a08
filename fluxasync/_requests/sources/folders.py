"""A folder of .txt files, one prompt each, as captions lie beside pictures.

Files come in the order of their names; a file's stem is its image's `name`. The folder itself is
not watched, only what is read: images may be written into it meanwhile. Names are held, about
100 bytes each, contents are not.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ..._core.errors import ConfigError
from ..image_inputs import open_within
from .compression import Witness
from .formats import gathered
from .lines import LINE_CAP, reject_utf16
from .row_reader import RowReader, Wish

_FILES = 200  #: files of a list
#: lines of a long prompt; a file of more is a list, a log or a text
_LINES = 10
#: names that other files than prompts bear, in folders of code and of downloads
_OTHERS = re.compile(
    r"((read_?me|licen[cs]e|copying|requirements|change_?log)([-_.].*)?"
    r"|notice|authors|contributors|changes|todo|notes|constraints|cmakelists|robots|nohup"
    r"|(.*\.|(build|run|debug|error|install|access)[-_]?)?logs?)\.txt",
    re.IGNORECASE,
)
_APART = "move it away, or name a list as the source itself"

#: a file's name, and its content up to a little more than is taken, or why it has none
Raw = tuple[str, bytes | ConfigError]


class FolderFormat:
    """A prompt a file. See `Format`."""

    def __init__(self, path: Path, reading: RowReader) -> None:
        self._path = path
        self._name = path.name or str(path)
        self._reading = reading
        self._names: list[str] = []

    def lists(self, witness: Witness) -> Generator[list[Any], None, None]:
        try:
            self._names = _names(self._path)
            if not self._names:
                raise ConfigError(f"{self._name}/ holds no .txt file; a prompt a file is read")
            witness.block(0, "\0".join(self._names).encode(errors="surrogateescape"))
            every = gathered(map(self._file, self._names), most=_FILES, size=_size)
            for number, some in enumerate(every, start=1):
                witness.block(number, b"\0".join(map(self.content, some)))
                yield some
        except OSError as exc:
            where = exc.filename or self._path
            raise ConfigError(f"{where} cannot be read: {exc.strerror}") from exc

    def where(self, number: int) -> str:
        return f"{self._name}/{self._names[number - 1]}"

    def read(self, raw: Raw) -> Wish | None:
        name, content = raw
        if _OTHERS.fullmatch(name):
            raise ConfigError(f"not a prompt, by its name; {_APART}")
        if isinstance(content, ConfigError):
            raise content
        if len(content) > LINE_CAP:
            raise ConfigError(f"longer than {LINE_CAP:,} bytes, which is no prompt")
        reject_utf16(content, name="the file")
        try:
            text = content.removeprefix(codecs.BOM_UTF8).decode()
        except UnicodeDecodeError as error:
            byte = content[error.start]
            raise ConfigError(f"byte 0x{byte:02x} is not UTF-8; save it as UTF-8") from None
        prompt = text.replace("\r\n", "\n").replace("\r", "\n").strip()
        if (lines := prompt.count("\n") + 1) > _LINES:
            raise ConfigError(f"{lines} lines, and a folder's file is one prompt; {_APART}")
        return self._reading.row({"prompt": prompt, "name": Path(name).stem}) if prompt else None

    def content(self, raw: Raw) -> bytes:
        return b"outside" if isinstance(raw[1], ConfigError) else raw[1].strip()

    def _file(self, name: str) -> Raw:
        try:
            descriptor = open_within(self._path / name, self._reading.allowed)
        except ConfigError as error:
            return name, error
        with open(descriptor, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)  # and no pipe by now
            return name, file.read(LINE_CAP + 1) if is_file else b""


def _size(raw: Raw) -> int:
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
