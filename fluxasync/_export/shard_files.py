"""Writes one file of an export under a temporary name, then gives it its own."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from .._core.errors import SinkError
from .._store.files import AtomicFile, open_to_read, sync_folder
from .._store.journal.exports import ExportedFile
from .export_values import ExportOptions
from .run_images import RunImages, SavedImage


@frozen
class Prepared:
    """An image as one format writes it."""

    size: int  #: bytes that it adds to its shard, about
    value: Any


class ShardWriter(Protocol):
    """Writes the images of one shard."""

    size: int  #: bytes, about
    count: int

    def prepare(self, image: SavedImage, content: bytes) -> Prepared:
        """Return the image in this format."""

    def add(self, prepared: Prepared) -> None:
        """Write an image."""

    def finish(self) -> None:
        """Write what follows the last image."""

    def close(self) -> None:
        """Write nothing more; also called without `finish`."""


def publish(file: AtomicFile, target: Path, *, replaces: bool) -> None:
    """Give a whole file its name, durably. Without `replaces`, a file that is there already stays
    if it is the same, and another one raises SinkError."""
    if replaces:
        file.replace(str(target))
    elif os.path.lexists(target):
        if sha256_of(target) != file.sha256:
            raise taken(target)
    elif file.publish(str(target)) != str(target):  # pragma: no cover — a race with another process
        raise taken(target)
    sync_folder(target.parent)


def taken(target: Path) -> SinkError:
    return SinkError(
        f"{target} is not as this run's last export left it: move it away, or choose another place "
        "with -o"
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError."""
    with open_to_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def single_file(
    options: ExportOptions, images: RunImages, *, count: int, size: int, sha256: str
) -> ExportedFile:
    """Return the record of an export of one file, which is written whole each time."""
    return ExportedFile(
        format=options.kind,
        place=options.place,
        number=0,
        first=1,
        last=images.last,
        images=count,
        size=size,
        sha256=sha256,
        is_closed=False,
    )
