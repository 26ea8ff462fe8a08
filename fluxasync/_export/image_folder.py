"""A folder of images with `metadata.jsonl`, as `datasets.load_dataset("imagefolder", …)` reads it.

The images are hard links to those of the run where they are files and the file system allows it,
else copies; what was copied from a bucket is not read again. The folder is recorded before its
first image is there, so only an export of the same run goes on in it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .._core.errors import ConfigError
from .._store.column_types import ColumnTypes, line_of
from .._store.files import AtomicFile, open_to_read, sync_folder
from .._store.journal.exports import ExportedFile
from .._store.metadata import METADATA
from .export_values import ExportOptions, ExportTally
from .run_images import LeftOut, RunImages, SavedImage
from .shard_files import publish, single_file

if TYPE_CHECKING:
    from .sharding import Steps


def folder_steps(
    options: ExportOptions,
    images: RunImages,
    recorded: dict[int, ExportedFile],
    tally: ExportTally,
) -> Steps:
    """Fill the folder and yield its metadata.jsonl, to be recorded. See Maker."""
    if 0 not in recorded:
        if os.listdir(options.out):
            raise ConfigError(f"{options.out} is not empty: name a new folder")
        yield single_file(options, images, count=0, size=0, sha256=bytes(32).hex())
    yield from images.prepare()
    types = ColumnTypes()
    for image in images.after(0):
        types.observe(image.line)
        yield None
    lines = AtomicFile(options.out)
    count = 0
    try:
        lines.open()
        copied = partial(_copied, options.out)
        with closing(images.contents(images.after(0), copied)) as contents:
            for image, content in contents:
                tally.seen += 1
                if isinstance(content, LeftOut):
                    tally.left_out[content.kind] += 1
                else:
                    _place(image, content, options.out, images)
                    lines.write(line_of(types.settled(image.line)))
                    count += 1
                    tally.size += image.size
                yield None
        _sync_all(options.out)
        publish(lines, options.out / METADATA, replaces=True)
        if options.picked:
            yield from _without_others(options, images)
    finally:
        lines.discard()
    made = single_file(options, images, count=count, size=lines.size, sha256=lines.sha256)
    yield made
    tally.add(options.out / METADATA, made, is_made=True)


def _without_others(options: ExportOptions, images: RunImages) -> Iterator[None]:
    """Remove the images that an earlier export had and that are not picked any more."""
    kept = {image.key for image in images.after(0)}
    copied = partial(_copied, options.out)
    others = (
        image
        for image in images.all_after(0)
        if image.key not in kept and copied(image) is not None
    )
    with closing(images.contents(others, copied)) as contents:
        for image, content in contents:
            if isinstance(content, bytes):  # the run has it
                os.unlink(os.path.join(options.out, image.line["file_name"]))
            yield None


def _place(image: SavedImage, content: bytes, folder: Path, images: RunImages) -> None:
    """Link or copy an image; one that is there already stays."""
    target = os.path.join(folder, image.line["file_name"])
    if images.is_link(image, target) or _copied(folder, image) is not None:
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with suppress(FileNotFoundError):
        os.unlink(target)  # of an image that was made again
    if images.link(image, target):
        return
    copy = AtomicFile(os.path.dirname(target))
    try:
        copy.write(content)
        copy.replace(target)
    finally:
        copy.discard()


def _copied(folder: Path, image: SavedImage) -> bytes | None:
    """Return the bytes of an image that the folder has already; None if it has not."""
    try:
        with open_to_read(os.path.join(folder, image.line["file_name"])) as file:
            content = file.read(image.size + 1)
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == image.sha256 else None


def _sync_all(folder: Path) -> None:
    for place, _folders, _files in os.walk(folder):
        sync_folder(Path(place))
