"""The bytes of a prompt file in blocks, unpacked where its name says that they are packed.

Knows nothing of rows. Every block is shown to a witness before it is used, unpacked: so a second
pass reads what the first one read. Odd fact: the `zstandard` package takes a file that was cut off
for one that ended, hence the few lines of our own around it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol

from ..._core.errors import ConfigError
from ..._core.extras import install_command

BLOCK = 2**20  #: bytes a read; line by line through a thread costs 100 µs a line

#: suffixes of packed files; the suffix before says what is in them
PACKED = (".gz", ".zst")

#: packed bytes of a .zst that are unpacked at once: four of them may be a block of 128 KB
_CHUNK = 2**9
#: bytes that a .zst may refer back to, which are in memory; level 19 needs 8 MB
_WINDOW = 2**26


class Witness:
    """Remembers what the first pass saw of a file, and recognises it in the second."""

    def __init__(self, name: str) -> None:
        self.complete = False  #: the first pass has ended
        self._name = name
        self._stamp: tuple[int, ...] | None = None
        self._digests: list[bytes] = []

    def stat(self, found: os.stat_result) -> None:
        """Raise ConfigError if the file is no longer the one that was opened first."""
        stamp = (found.st_size, found.st_mtime_ns, found.st_ino)
        if self._stamp is None:
            self._stamp = stamp
        self._expect(stamp == self._stamp)

    def block(self, number: int, block: bytes) -> None:
        """Raise ConfigError if this block is not what the first pass read in its place."""
        digest = hashlib.sha256(block).digest()
        if not self.complete:
            self._digests.append(digest)
        self._expect(self._digests[number : number + 1] == [digest])

    def _expect(self, same: bool) -> None:
        if not same:
            raise ConfigError(f"{self._name} changed while it was being read; start again")


class Stream(Protocol):
    """What blocks are read from."""

    def read(self, size: int, /) -> bytes: ...


def suffix_of(path: Path) -> str:
    """Return the suffix that says how rows are written: ".jsonl" of prompts.jsonl.gz."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED else suffix


def blocks_of(
    path: Path, witness: Witness, *, is_text: bool = True
) -> Generator[bytes, None, None]:
    """Yield the file's content in blocks that the witness has seen.

    Raises ConfigError for a file that cannot be read or unpacked, for one that has changed, and
    for text that goes on with nothing but blank lines.
    """
    try:
        with path.open("rb") as file, _unpacked(file, path) as stream:
            for number in count():
                block = stream.read(BLOCK)
                witness.stat(os.fstat(file.fileno()))
                witness.block(number, block)
                if not block:
                    return
                if is_text and len(block) == BLOCK and block.isspace():
                    raise ConfigError(f"{path.name} holds 1 MB of blank lines in a row")
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise _not_whole(path, exc) from exc
    except OSError as exc:
        raise ConfigError(f"{path.name} cannot be read: {exc.strerror}") from exc


def _not_whole(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path.name} cannot be unpacked: {error}; copy or download it again")


@contextmanager
def _unpacked(file: IO[bytes], path: Path) -> Iterator[Stream]:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=file, mode="rb") as stream:
            yield stream
    elif suffix == ".zst":
        with _zstd(file, path) as stream:
            yield stream
    else:
        yield file


@contextmanager
def _zstd(file: IO[bytes], path: Path) -> Iterator[Stream]:
    if sys.version_info >= (3, 14):  # pragma: no cover — as below, by the standard library
        from compression import zstd

        error: type[Exception] = zstd.ZstdError
    else:
        try:
            import zstandard
        except ImportError:
            missing = f"{path.name} needs zstandard: {install_command('data')}"
            raise ConfigError(missing) from None
        error = zstandard.ZstdError
    try:
        if sys.version_info >= (3, 14):  # pragma: no cover — as above
            with zstd.ZstdFile(file) as stream:
                yield stream
        else:
            unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
            yield _Frames(file, unpacker.decompressobj)
    except error as exc:
        raise _not_whole(path, exc) from exc


class _Frames:
    """Frames of a .zst file one after another; EOFError where the last one is cut off."""

    def __init__(self, file: IO[bytes], new: Any) -> None:
        self._file, self._new = file, new
        self._frame = new()
        self._begun = False  #: the frame has had bytes
        self._ready = bytearray()

    def read(self, size: int, /) -> bytes:
        while len(self._ready) < size and (packed := self._file.read(_CHUNK)):
            self._unpack(packed)
        if len(self._ready) < size and self._begun:
            raise EOFError("it ends in the middle")
        block = bytes(self._ready[:size])
        del self._ready[:size]
        return block

    def _unpack(self, packed: bytes) -> None:
        while packed:
            self._ready += self._frame.decompress(packed)
            self._begun, packed = not self._frame.eof, b""
            if not self._begun:
                packed, self._frame = self._frame.unused_data, self._new()
