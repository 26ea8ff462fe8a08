"""The export beside a run, in a process of its own: it can neither delay nor end the run.

`python -m fluxasync._export.export_process` reads the export's options, and those of the run's
bucket, as a line of JSON. It makes
each shard that the settled images fill, at half of its speed. After the line "over" it makes the
whole export, as the command `export` does; what is there already is kept. The run's process records
each file in the journal and answers "recorded". The end of standard input, also after that process
was killed, ends this one.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing, suppress
from select import select
from typing import Any

from attrs import asdict

from .._core import standard_streams
from .._core.errors import FluxError, JournalError
from .._store.files import disk_error
from .._store.journal.exports import ExportedFile
from .._store.object_images import images_at
from .._store.output_root import OutputRoot
from .._store.stored_images import FolderImages, StoredImages
from .dataset_export import export_steps, following_steps
from .deletion import Deletion
from .export_values import ExportOptions, ExportTally, NothingToExport, check_extra
from .run_export import OVER, RECORDED, RunBucket, read_options
from .sharding import WAITING, Steps

#: seconds between two looks at the journal, and between two lines about the progress
_LOOK, _REPORT = 1.0, 0.5
#: seconds of work, after which as long a pause follows while the run is under way
_WORK = 0.1


def main() -> None:
    """Export until the run is over and all of it is exported."""
    standard_streams.open_missing()
    with suppress(OSError):
        os.nice(10)
    run = _Run()
    options, bucket = read_options(run.line())
    try:
        check_extra(options.to)
        before = ExportTally(options=options)
        _follow(options, bucket, before, run)
        run.send(**_result(options, bucket, before, run))
    except FluxError as error:
        run.send(error=str(error))
    except Exception as error:  # any kind: the run says it, and goes on
        run.send(error=f"{type(error).__name__}: {error}")


def _follow(
    options: ExportOptions, bucket: RunBucket | None, tally: ExportTally, run: _Run
) -> None:
    """Make full shards until the run is over."""
    with closing(following_steps(options, *_images(options, bucket), tally)) as steps:
        _perform(steps, tally, run, follows=True)


def _result(
    options: ExportOptions, bucket: RunBucket | None, before: ExportTally, run: _Run
) -> dict[str, Any]:
    """Make the whole export; return its result without the paths, which are sent before."""
    tally = ExportTally(options=options)
    steps = export_steps(options, *_images(options, bucket), tally)
    with closing(steps), suppress(NothingToExport):
        _perform(steps, tally, run, follows=False)
    for path in tally.paths:
        run.send(path=os.path.relpath(path, options.out))
    return {
        "made": len(tally.made | before.made),
        "images": tally.images,
        "size": tally.size,
        "left_out": dict(+tally.left_out),
        "deleted": tally.deleted + before.deleted,
    }


def _images(options: ExportOptions, bucket: RunBucket | None) -> tuple[OutputRoot, StoredImages]:
    if bucket is None:
        return OutputRoot(options.folder), FolderImages(options.folder)
    root = OutputRoot(options.folder, bucket.url, is_copy=bool(options.url))
    return root, images_at(root, bucket.options)


def _perform(steps: Steps, tally: ExportTally, run: _Run, *, follows: bool) -> None:
    """Take the steps; have what they yield recorded. Returns at their end, and if they follow a
    run that is over when there is nothing to do."""
    began = reported = time.monotonic()
    try:
        for found in steps:
            run.listen()
            now = time.monotonic()
            if found is WAITING:
                if run.is_over:
                    return
                run.listen(_LOOK)
                began = time.monotonic()
            elif isinstance(found, ExportedFile):
                run.record(file=asdict(found))
            elif isinstance(found, Deletion):
                run.record(keys=found.keys, shard=asdict(found.shard))
            elif follows and now - began >= _WORK and not run.is_over:
                run.listen(now - began)
                began = time.monotonic()
            elif not follows and now - reported >= _REPORT:
                reported = now
                run.send(seen=tally.seen, total=tally.total)
    except sqlite3.Error as exc:
        raise JournalError(f"the export failed: {exc}: check the disk") from exc
    except OSError as exc:
        raise disk_error(exc.filename or "the export", exc) from exc


class _Run:
    """The run's process, at the other end of standard input and output."""

    def __init__(self) -> None:
        self.is_over = False
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
        self._lines: list[bytes] = []
        self._rest = b""

    def line(self) -> bytes:
        """Return the next line."""
        while not self._lines:
            self._read()
        return self._lines.pop(0)

    def listen(self, seconds: float = 0.0) -> None:
        """Read what has arrived, and wait so long for something."""
        self._note_end()  # it may have arrived together with the options
        while select([0], [], [], 0.0 if self.is_over else seconds)[0]:
            self._read()
            self._note_end()
            seconds = 0.0

    def _note_end(self) -> None:
        while self._lines:
            self.is_over = self._lines.pop(0) == OVER or self.is_over

    def record(self, **values: Any) -> None:
        """Return when the run has recorded this durably."""
        self.send(**values)
        while (line := self.line()) != RECORDED:
            self.is_over = line == OVER or self.is_over

    def send(self, **values: Any) -> None:
        try:
            self._answers.write(json.dumps(values) + "\n")
            self._answers.flush()
        except BrokenPipeError:
            raise SystemExit from None

    def _read(self) -> None:
        piece = os.read(0, 2**16)
        if not piece:
            raise SystemExit
        *whole, self._rest = (self._rest + piece).split(b"\n")
        self._lines += whole


if __name__ == "__main__":
    main()
