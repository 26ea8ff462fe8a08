"""WebDataset shards: tar files with three members an image (image, .json, .txt).

USTAR headers with fixed times and owners, so the same images give the same bytes. A null in the
.json is left out: `datasets` takes the types of its columns from the first five images, and a
column that was only null there refuses every later value (packaged_modules/webdataset in 5.2).
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .._core.images import EXTENSIONS
from .._store.column_types import ColumnTypes
from .._store.files import AtomicFile, open_to_read
from .run_images import SavedImage
from .shard_files import Prepared

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class TarShard:
    """Writes one tar file. See ShardWriter."""

    def __init__(self, file: AtomicFile, types: ColumnTypes) -> None:
        self._file, self._types = file, types
        self.size = self.count = 0

    def prepare(self, image: SavedImage, content: bytes) -> Prepared:
        line = self._types.settled(image.line)
        text = _json_of(line)
        parts = (
            (image.extension, content),
            ("json", text),
            ("txt", (image.line["prompt"] or "").encode()),
        )
        members = [(f"{image.stem}.{ending}", part) for ending, part in parts]
        size = sum(tarfile.BLOCKSIZE + _padded(part) for _, part in members)
        if line is not image.line:  # later images change the types, but not where a shard ends
            size += _padded(_json_of(image.line)) - _padded(text)
        return Prepared(size, members)

    def add(self, prepared: Prepared) -> None:
        for name, content in prepared.value:
            self._file.write(_header(name, len(content)))
            self._file.write(content)
            self._file.write(bytes(_padded(content) - len(content)))
        self.size += prepared.size
        self.count += 1

    def finish(self) -> None:
        end = self._file.size + 2 * tarfile.BLOCKSIZE
        self._file.write(bytes(end - self._file.size + -end % tarfile.RECORDSIZE))

    def close(self) -> None:
        """Do nothing: every image is written at once."""


def _json_of(line: Mapping[str, Any]) -> bytes:
    return _encode(_without_nulls(line)).encode()


def _padded(content: bytes) -> int:
    return len(content) + -len(content) % tarfile.BLOCKSIZE


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return value


def has_other_types(path: Path, types: ColumnTypes) -> bool:
    """Whether a line in a shard was written before one of its columns became text. Raises OSError
    and tarfile.TarError."""
    return any(types.settled(line) != line for line, _ in _members(path))


def read_back(path: Path) -> Iterator[tuple[str, str]]:
    """Yield key and SHA-256 of each image in a shard, in constant memory. Raises OSError and
    tarfile.TarError."""
    for line, content in _members(path):
        yield str(line["key"]), hashlib.sha256(content).hexdigest()


def _members(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the line and the bytes of each image."""
    image = b""
    with open_to_read(path) as file:
        while any(head := file.read(tarfile.BLOCKSIZE)):  # zeros end the file
            member = tarfile.TarInfo.frombuf(head, "utf-8", "strict")
            content = file.read(member.size)
            file.seek(-member.size % tarfile.BLOCKSIZE, os.SEEK_CUR)
            ending = member.name.rpartition(".")[2]
            if ending in EXTENSIONS.values():
                image = content
            elif ending == "json":
                yield json.loads(content), image
