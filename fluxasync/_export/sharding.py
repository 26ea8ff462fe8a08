"""Decides which images are in which shard, and makes the shards that are not there.

A shard that is recorded and whole is kept. The last one grows with the run until it is full: it is
made again, with the same images at its beginning. If one of these images is not there any more, the
shard is kept as it is and closed, because the image may be nowhere else. Beside an active run only
full shards are made, so they are those of an export at its end.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from attrs import evolve

from .._core.errors import SinkError
from .._store.column_types import ColumnTypes
from .._store.files import AtomicFile, sync_folder
from .._store.journal.exports import SHARDS, ExportedFile, count_saved, is_there, shard_name
from .deletion import Deletion, deletion_steps
from .export_values import ExportOptions, ExportTally
from .parquet_shards import ParquetShard
from .run_images import LeftOut, RunImages, SavedImage
from .shard_files import ShardWriter, publish, sha256_of, taken
from .tar_shards import TarShard, has_other_types

_WRITERS: dict[str, Callable[[AtomicFile, ColumnTypes], ShardWriter]] = {
    "webdataset": TarShard,
    "parquet": ParquetShard,
}

#: times that an object is looked for which an active run created and the bucket does not show yet;
#: the pauses double from one second: a minute in all
_LOOKS = 6

#: formats whose bytes depend on the types of the run's columns
_TYPED = ("webdataset",)


class _Waiting:
    """The images of an active run do not fill a shard yet."""


WAITING: Final = _Waiting()

#: what a step of an export yields: what to record before it goes on, or None after an image
Step = ExportedFile | Deletion | _Waiting | None
Steps = Generator[Step, None, None]


class ShardExport:
    """Makes the shards of one run in one folder."""

    def __init__(
        self,
        options: ExportOptions,
        images: RunImages,
        recorded: dict[int, ExportedFile],
        tally: ExportTally,
    ) -> None:
        self._options, self._images, self._recorded = options, images, recorded
        self._tally = tally
        self._types = ColumnTypes()
        self._observed = 0  #: up to this sequence number the types are known
        self._changed = 0  #: the last one whose image changed the type of a column
        self._backlog = _Backlog(images, options.shard)
        self._writer = _WRITERS[options.to]

    def steps(self) -> Steps:
        """Make every shard."""
        yield from self._observe()
        number = after = 0
        while True:
            record = None if self._options.picked else self._recorded.get(number)
            if record is not None and self._is_kept(record) and not self._is_outdated(record):
                self._keep(record)
            else:
                record = yield from self._make(number, after, record)
            if record is None:
                break
            yield from self._deleted(record)
            number, after = number + 1, record.last
        if self._options.picked:
            self._remove_behind(number)

    def following(self) -> Steps:
        """Make each shard that the images of an active run fill, without end."""
        number = after = 0
        while True:
            record = self._recorded.get(number)
            is_closed = record is not None and record.is_closed
            if record is None or not (is_closed and is_there(record, self._options.folder)):
                while not (is_closed or self._backlog.is_full):
                    yield WAITING
                yield from self._observe()
                record = yield from self._make(number, after, record, only_full=True)
                if record is None:
                    continue
            yield from self._deleted(record)
            number, after = number + 1, record.last
            self._backlog.begin(after)

    def _deleted(self, record: ExportedFile) -> Steps:
        if self._options.deletes:
            yield from deletion_steps(record, self.path(record.number), self._images, self._tally)

    def _observe(self) -> Iterator[None]:
        """Find the types of the columns of all images so far: all shards have the same."""
        if self._options.to not in _TYPED:
            return
        for image in self._images.after(self._observed):
            if self._types.observe(image.line):
                self._changed = image.seq
            self._observed = image.seq
            yield None

    def _is_outdated(self, record: ExportedFile) -> bool:
        """Whether a shard has numbers in a column that became text behind it."""
        if self._changed <= record.last:
            return False
        try:
            return has_other_types(self.path(record.number), self._types)
        except (tarfile.TarError, ValueError):
            return True

    # --- shards that are there ------------------------------------------------------------------

    def path(self, number: int) -> Path:
        return self._options.out / shard_name(number, SHARDS[self._options.to])

    def _is_kept(self, record: ExportedFile) -> bool:
        is_grown = not record.is_closed and self._images.last > record.last
        return is_there(record, self._options.folder) and not is_grown

    def _keep(self, record: ExportedFile) -> None:
        saved = count_saved(self._images.connection, record.first, record.last)
        self._tally.left_out["earlier"] += max(saved - record.images, 0)
        self._tally.seen += saved
        self._tally.add(self.path(record.number), record, is_made=False)

    # --- shards to make -------------------------------------------------------------------------

    def _make(
        self, number: int, after: int, record: ExportedFile | None, *, only_full: bool = False
    ) -> Generator[Step, None, ExportedFile | None]:
        """Make a shard of the images behind a sequence number; return it, None without images or
        if it is to be full and is not."""
        file = AtomicFile(self._options.out)
        writer = self._writer(file, self._types)
        shard = _Shard(writer, self._options.shard, record, after)
        try:
            if record is not None and is_there(record, self._options.folder):
                shard.keeps = record.last
            with closing(self._images.contents(self._images.after(after))) as contents:
                for image, found in contents:
                    content = found
                    if only_full and self._images.is_late(found):
                        content = yield from self._awaited(image)
                    if not shard.takes(image, content):
                        break
                    self._tally.seen += 1
                    yield None
            if record is not None and shard.is_broken:
                yield (closed := evolve(record, is_closed=True))
                self._keep(closed)
                return closed
            if only_full and not shard.is_full:
                self._backlog.begin(shard.last, writer.size, is_tried=True)
                return None
            self._tally.left_out += shard.left_out
            if not writer.count:
                return record if record is not None and record.is_closed else None
            writer.finish()
            is_ours = record is not None or self._is_as_recorded(number)
            publish(file, self.path(number), replaces=is_ours)
        finally:
            writer.close()
            file.discard()
        made = ExportedFile(
            format=self._options.kind,
            place=self._options.place,
            number=number,
            first=after + 1,
            last=shard.last,
            images=writer.count,
            size=file.size,
            sha256=file.sha256,
            is_closed=shard.is_full or self._options.deletes,
        )
        yield made
        self._tally.add(self.path(number), made, is_made=True)
        return made

    def _awaited(self, image: SavedImage) -> Generator[Step, None, bytes | LeftOut]:
        """Read an image again that the bucket did not have, until it has it, for a minute."""
        content: bytes | LeftOut = LeftOut("missing")
        for look in range(_LOOKS):
            for _ in range(2**look):
                yield WAITING  # a second, or the end of the run
            with closing(self._images.contents(iter([image]))) as found:
                content = next(found)[1]
            if not self._images.is_late(content):
                break
        return content

    # --- the shards of an export of picks, which are made again each time -----------------------

    def _is_as_recorded(self, number: int) -> bool:
        record, path = self._recorded.get(number), self.path(number)
        return record is not None and os.path.lexists(path) and sha256_of(path) == record.sha256

    def _remove_behind(self, number: int) -> None:
        """Remove the shards of an earlier export that had more."""
        for behind in filter(number.__le__, self._recorded):
            if self._is_as_recorded(behind):
                os.unlink(self.path(behind))
            elif os.path.lexists(self.path(behind)):
                raise taken(self.path(behind))
        sync_folder(self._options.out)


class _Shard:
    """A shard in progress: which images it takes."""

    def __init__(
        self, writer: ShardWriter, limit: int, record: ExportedFile | None, after: int
    ) -> None:
        self.writer, self._limit = writer, limit
        #: a closed shard that was lost is made again from the same images, whatever its size
        self._until = record.last if record is not None and record.is_closed else None
        self._record = record
        self.keeps = 0  #: up to this sequence number the images are in the present file
        self.last = after
        self.is_full = self._until is not None
        self.is_broken = False  #: an image of the present file is not there any more
        self.left_out: Counter[str] = Counter()

    def takes(self, image: SavedImage, content: bytes | LeftOut) -> bool:
        """Add an image, or leave it out; return False for the first one behind the shard."""
        if self._until is not None and image.seq > self._until:
            return False
        if isinstance(content, LeftOut):
            return self._without(image, content.kind)
        prepared = self.writer.prepare(image, content)
        is_over = self.writer.size + prepared.size > self._limit
        if self._until is None and self.writer.count and is_over:
            self.is_full = True
            return False
        self.writer.add(prepared)
        self.last = image.seq
        return True

    def _without(self, image: SavedImage, kind: str) -> bool:
        if image.seq <= self.keeps:
            self.is_broken = True
            return False
        if kind == "deleted" and self._record is not None and image.export == self._record.id:
            raise SinkError(
                f"shard {self._record.number} is missing or was changed, and images in it were "
                "deleted after the export: restore it from a backup, or export to another place "
                "with -o"
            )
        self.left_out[kind] += 1
        self.last = image.seq
        return True


class _Backlog:
    """Estimates from the recorded sizes when the images behind the last shard fill the next one."""

    def __init__(self, images: RunImages, limit: int) -> None:
        self._images, self._limit = images, limit
        self.begin(0)

    def begin(self, after: int, size: int = 0, *, is_tried: bool = False) -> None:
        """Count the images behind a sequence number from now on; `size` is of those before, of
        which, if `is_tried`, no full shard could be made: a further image closes it."""
        self._last, self._size, self._is_tried = after, size, is_tried

    @property
    def is_full(self) -> bool:
        size, self._last = self._images.bytes_after(self._last)
        self._size += size
        self._is_tried = self._is_tried and not size
        return self._size >= self._limit and not self._is_tried


#: makes the steps of one format
Maker = Callable[[ExportOptions, RunImages, dict[int, ExportedFile], ExportTally], Steps]


def shard_steps(
    options: ExportOptions,
    images: RunImages,
    recorded: dict[int, ExportedFile],
    tally: ExportTally,
) -> Steps:
    """Yield the shards to record. See Maker."""
    yield from ShardExport(options, images, recorded, tally).steps()


def following_shard_steps(
    options: ExportOptions,
    images: RunImages,
    recorded: dict[int, ExportedFile],
    tally: ExportTally,
) -> Steps:
    """Yield the full shards of an active run to record, without end. See Maker."""
    yield from ShardExport(options, images, recorded, tally).following()
