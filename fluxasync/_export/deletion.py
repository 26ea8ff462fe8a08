"""Deletes the images of a recorded shard, one by one as they are read back from it.

The shard's SHA-256 is compared with the record first. An image is deleted if the bytes in the shard
and those of its file or object both have the recorded SHA-256; the journal knows before it is gone.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from attrs import evolve, frozen

from .._core.errors import SinkError
from .._store.journal.exports import ExportedFile
from . import parquet_shards, tar_shards
from .export_values import ExportTally
from .run_images import RunImages, SavedImage
from .shard_files import sha256_of

#: images that are recorded together
_TOGETHER = 100

_READERS: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {
    "webdataset": tar_shards.read_back,
    "parquet": parquet_shards.read_back,
}


@frozen
class Deletion:
    """The files of these images are about to be deleted."""

    keys: tuple[str, ...]
    shard: ExportedFile  #: has them


def deletion_steps(
    record: ExportedFile, shard: Path, images: RunImages, tally: ExportTally
) -> Generator[ExportedFile | Deletion | None, None, None]:
    """Delete the images that a shard holds. Raises SinkError, and deletes nothing of it, for a
    shard that is not as recorded."""
    if not record.is_closed:  # without its images it cannot be made again with further ones
        yield evolve(record, is_closed=True)
    if not images.has_files(record.first, record.last):
        yield None
        return
    if sha256_of(shard) != record.sha256:
        raise SinkError(
            f"{shard} has another SHA-256 than recorded, so none of its images was deleted: remove "
            "it, and the same command makes it again"
        )
    with closing(_proven(record, shard, images)) as found:
        while batch := list(islice(found, _TOGETHER)):
            yield Deletion(tuple(image.key for image in batch), record)
            images.remove(batch)
            tally.deleted += len(batch)
            yield None


def _proven(
    record: ExportedFile, shard: Path, images: RunImages
) -> Generator[SavedImage, None, None]:
    """Yield each image whose file or object has the bytes that are in the shard."""
    with closing(images.contents(_held(record, shard, images))) as found:
        for image, content in found:
            if isinstance(content, bytes):  # else deleted earlier, or changed since
                yield image


def _held(record: ExportedFile, shard: Path, images: RunImages) -> Iterator[SavedImage]:
    """Yield the images that a shard holds as they are recorded."""
    try:
        for key, sha256 in _READERS[record.format](shard):
            image = images.of_key(key)
            if image is not None and image.name and image.sha256 == sha256:
                yield image  # else made again since
    except (tarfile.TarError, ValueError, KeyError) as exc:
        raise SinkError(f"{shard} cannot be read back ({exc}): check the disk") from exc
