"""The bytes of a prompt file in blocks, unpacked where its name ends in .gz."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

from ..._core.errors import ConfigError
from .file_kinds import HEAD, refuse_other_kinds, refuse_placeholder
from .lines import reject_utf16

BLOCK = 2**20  #: bytes a read; line by line through a thread costs 100 µs a line

#: suffix of packed files; the suffix before says what is in them
PACKED = ".gz"


def suffix_of(path: Path) -> str:
    """Return the suffix that says how rows are written: ".jsonl" of prompts.jsonl.gz."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == PACKED else suffix


def blocks_of(path: Path) -> Generator[bytes, None, None]:
    """Yield the file's content in blocks.

    Raises ConfigError for a file that cannot be read or unpacked, that is another kind of file, or
    that goes on with nothing but blank lines.
    """
    opened = gzip.open if path.suffix.lower() == PACKED else open
    try:
        with opened(path, "rb") as file:
            first = True
            while block := file.read(BLOCK):
                if first:
                    reject_utf16(block, name=path.name)
                    refuse_other_kinds(block, name=path.name)
                    first = False
                if len(block) == BLOCK and block.isspace():
                    raise ConfigError(f"{path.name} holds 1 MB of blank lines in a row")
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        with suppress(OSError), path.open("rb") as file:
            refuse_placeholder(file.read(HEAD), name=path.name)
        raise ConfigError(
            f"{path.name} cannot be unpacked: {exc}; copy or download it again"
        ) from exc
    except OSError as exc:
        raise ConfigError(f"{path.name} cannot be read: {exc.strerror}") from exc
