"""export(): a run's saved images in a format that other tools read.

A thread does the work; what it yields is recorded in the journal before it goes on.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Final

from .._core.arguments import check_callback
from .._core.concurrency import run_to_completion
from .._core.errors import JournalError, SinkError
from .._store.audit.resolution import OfflineJournal
from .._store.bucket_state import located
from .._store.disk_threads import ThreadRunner
from .._store.files import disk_error, make_folder
from .._store.journal.exports import ExportedFile, exported_files
from .._store.journal.recovery import sweep
from .._store.journal.schema import (
    FILE,
    HOME,
    RESTORE,
    connect_read_only,
    journal_errors,
    lift_limit,
)
from .._store.object_images import images_at
from .._store.output_root import OutputRoot
from .._store.picks import PICKS, picked_keys
from .._store.stored_images import StoredImages
from .deletion import Deletion
from .export_values import (
    SHARDED,
    TABLES,
    ExportOptions,
    ExportResult,
    ExportTally,
    NothingToExport,
    check_extra,
    options_of,
)
from .image_folder import folder_steps
from .run_images import RunImages
from .sharding import WAITING, Maker, Step, Steps, following_shard_steps, shard_steps
from .table_files import table_steps

#: seconds of work in a thread before the event loop can cancel it
_STEP = 0.1
#: seconds after which an unfinished file that does not grow is a killed export's
_ABANDONED = 3600.0

_MAKERS: dict[str, Maker] = {
    "webdataset": shard_steps,
    "parquet": shard_steps,
    "csv": table_steps,
    "xlsx": table_steps,
    "hf-folder": folder_steps,
}


class _End:
    """Nothing is left to do."""


_END: Final = _End()


async def export(
    folder: str | os.PathLike[str],
    to: str = "webdataset",
    *,
    out: str | os.PathLike[str] | None = None,
    shard: int | str | None = None,
    delete_images: bool = False,
    picked: bool = False,
    options: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExportResult:
    """Export the saved images of a run, in the order in which they were settled.

    `folder` is the run's, or the URL of one whose record is in its bucket.

    `to` is "webdataset" or "parquet" (shards `run-00000.tar`, `run-00001.tar`, …), "csv" or "xlsx"
    (a table with the images' paths or URLs), or "hf-folder" (images and `metadata.jsonl`, as
    `datasets.load_dataset("imagefolder", …)` reads them). `out` is the folder, or the file of a
    table (default: beside the run's folder). `shard` is the size of a shard in bytes or as a text
    (default: "1GB"). `options` are those of a run's bucket: see ObjectSink. `progress` is called
    with the number of images seen so far and their total.

    The same call continues: whole shards are kept, and a run that has grown gets further ones. An
    image whose file or object is not as recorded is left out and counted. `delete_images` deletes
    the images of each recorded shard from the run's folder or bucket, after the shard was read
    back; the last one is then not continued. `picked` exports only the images that `picks.jsonl` in
    the folder picks; it makes all its files again each time, because picks change.

    Raises ConfigError for wrong arguments and if no saved image is picked, Locked while a run is
    active in the folder, JournalError for a journal that cannot be trusted, SinkError for an error
    of the disk or the bucket or a file in the way.
    """
    run = await located(folder, options)
    wanted = options_of(
        run.folder, to, out=out, shard=shard, delete_images=delete_images, picked=picked,
        url=run.name if run.objects else "",
    )  # fmt: skip
    check_extra(wanted.to)
    check_callback("progress", progress)
    tally = ExportTally(options=wanted)
    async with ThreadRunner(count=1) as threads, OfflineJournal(run.folder, log=run.log) as journal:
        stored = images_at(journal.root, options)
        tally.output = journal.root.url
        with suppress(JournalError, SinkError):  # what recovery changed; the next run retries
            await run_to_completion(journal.project(keep_bad_rows=True))
        steps = export_steps(wanted, journal.root, stored, tally)
        try:
            while (found := await threads.run(_advance, steps)) is not _END:
                if isinstance(found, ExportedFile):
                    await journal.exports.add(found)
                elif isinstance(found, Deletion):
                    await journal.exports.delete(found.keys, found.shard)
                if progress is not None:
                    progress(tally.seen, tally.total)
        finally:
            await threads.run(steps.close)
        await run_to_completion(run.publish())
    return tally.result()


def export_steps(
    options: ExportOptions, root: OutputRoot, stored: StoredImages, tally: ExportTally
) -> Steps:
    """Make the export, and yield what is to be recorded before it goes on."""
    with _connected(options.folder) as connection:
        images = RunImages(root, connection, stored, _picked(options))
        tally.total, tally.unknown = images.count, tuple(images.unknown)
        if not tally.total:
            what = f"image that {PICKS} picks" if options.picked else "images"
            raise NothingToExport(f"{options.folder} has no saved {what}: nothing to export")
        _prepare_place(options)
        recorded = _recorded(options, connection)
        yield from _MAKERS[options.to](options, images, recorded, tally)


def following_steps(
    options: ExportOptions, root: OutputRoot, stored: StoredImages, tally: ExportTally
) -> Steps:
    """Make the shards that the images of an active run fill; yield WAITING until there is one."""
    if options.to not in SHARDED:
        yield WAITING
        return
    with _connected(options.folder) as connection:
        images = RunImages(root, connection, stored)
        recorded = _recorded(options, connection)
        _prepare_place(options)
        yield from following_shard_steps(options, images, recorded, tally)


@contextmanager
def _connected(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a read-only connection; errors of the block are not the journal's."""
    path = folder / HOME / FILE
    with journal_errors(path, RESTORE):
        connection = connect_read_only(path)
    with closing(connection):
        yield lift_limit(connection)


def _recorded(options: ExportOptions, connection: sqlite3.Connection) -> dict[int, ExportedFile]:
    """Return the files of this export that are recorded, by their numbers."""
    files = exported_files(connection, options.kind, options.place)
    return {file.number: file for file in files}


def _picked(options: ExportOptions) -> list[str] | None:
    """Return the keys of the picked images; None for an export of all."""
    if not options.picked:
        return None
    return picked_keys(options.folder)


def _prepare_place(options: ExportOptions) -> None:
    """Make the folder, and remove the unfinished files of an export that was killed."""
    is_table = options.to in TABLES
    place = options.out.parent if is_table else options.out
    make_folder(place)
    # other runs and exports may be at work in the folder of a table
    sweep({place}, before=time.time() - _ABANDONED if is_table else inf)


def _advance(steps: Steps) -> Step | _End:
    """Work for 0.1 s, or until something is to be recorded; return it, or _END."""
    until = time.monotonic() + _STEP
    try:
        for found in steps:
            if found is not None or time.monotonic() >= until:
                return found
    except sqlite3.Error as exc:
        raise JournalError(f"the export failed: {exc}: check the disk") from exc
    except OSError as exc:
        raise disk_error(exc.filename or "the export", exc) from exc
    return _END
