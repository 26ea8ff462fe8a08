"""RunExport: the export of a run's images while they arrive.

A process of its own does the work (`export_process`); what it makes is recorded here, in the
journal of the run. An export that fails never ends the run: it is tried once more at the run's end,
and after that `export` makes the same files.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from attrs import asdict, field, frozen

from .._core.concurrency import run_to_completion
from .._core.errors import ConfigError, FluxError, JournalError, SinkError
from .._core.isolated_process import STORE_VARIABLES, start
from .._store.journal.exports import ExportedFile
from .._store.journal.journal import Journal
from .export_values import SHARDED, ExportOptions, ExportResult

if TYPE_CHECKING:
    from .._store.objects import Objects

logger = logging.getLogger("fluxasync")

#: lines to the process: its last message is recorded; the run is over
RECORDED, OVER = b"recorded", b"over"

#: seconds that a process has to end, as in a write to a slow disk
_LEAVING = 1.0


class ExportedRun(Protocol):
    """A run as its export sees it."""

    def open_journal(self) -> Journal:
        """Return the journal of the open run. Raises ConfigError for a run without one."""

    async def files_checked(self) -> None:
        """Return once the run does not look for missing files of earlier runs any more."""


@frozen
class RunBucket:
    """Where the images of a run are, if they are not in the folder of its journal."""

    url: str
    options: Mapping[str, str] = field(repr=False)  #: obstore's; they may have credentials


#: what a RunExport calls on entry: returns its work
_Begin = Callable[["RunExport"], Coroutine[Any, Any, None]]


class RunExport:
    """Exports the images of an open batch while they arrive: see `Batch.exporting`.

    A shard is written when the saved images fill it. Leaving the block writes the last shard, or
    the table or folder of the other formats. An export that fails is logged once and does not end
    the run; `fluxasync.export` makes the same files afterwards.
    """

    def __init__(self, begin: _Begin) -> None:
        self.result: ExportResult | None = None  #: None until the block is left, and if it failed
        self.error: FluxError | None = None  #: why it failed
        #: called with an error when the export stops; by default it is logged
        self.on_error: Callable[[FluxError], None] = _log
        #: called with the images exported so far and their total, after the run
        self.on_progress: Callable[[int, int], None] | None = None
        self.over = asyncio.Event()  #: the run has ended
        self._begin = begin
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._work is not None:
            raise ConfigError("an export beside a run runs once: call `exporting` again")
        self._work = asyncio.create_task(self._begin(self))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        assert self._work is not None  # noqa: S101 — made on entry
        if not _lets_finish(kind):
            self.stop()
        self.over.set()
        try:
            await asyncio.wait({self._work})
        finally:
            self._work.cancel()
            await asyncio.wait({self._work})

    def stop(self) -> None:
        """Write nothing more; the same export later continues."""
        if self._work is not None:
            self._work.cancel()


class ExportWork:
    """The work of a RunExport: starts the process and records what it makes."""

    def __init__(
        self, options: ExportOptions, run: ExportedRun, bucket: Objects | None = None
    ) -> None:
        self._options, self._run = options, run
        self._bucket = None if bucket is None else RunBucket(bucket.url, bucket.options)

    def begin(self, export: RunExport) -> Coroutine[Any, Any, None]:
        """Return the work. Raises ConfigError for a run that is not open."""
        return self._export(export, self._run.open_journal())

    async def _export(self, export: RunExport, journal: Journal) -> None:
        if self._options.to not in SHARDED:
            await export.over.wait()
        try:
            export.result = await self._attempt(export, journal)
            return
        except FluxError as error:
            export.error = error
        if isinstance(export.error, JournalError) and not journal.is_kept:
            return  # the run says so
        export.on_error(export.error)
        if export.over.is_set():
            return
        await export.over.wait()
        with suppress(FluxError):
            export.result = await self._attempt(export, journal)
            export.error = None

    async def _attempt(self, export: RunExport, journal: Journal) -> ExportResult:
        """Export in a process; return the result once the run is over. Raises FluxError."""
        try:
            child = await start(
                "fluxasync._export.export_process", quiet=True,
                keeps=STORE_VARIABLES if self._bucket else (),
            )  # fmt: skip
        except OSError as error:
            raise SinkError(f"the export did not start: {error.strerror}") from error
        assert child.stdin is not None  # noqa: S101 — opened by `start`
        ending = asyncio.create_task(_tell_end(child.stdin, export.over))
        try:
            _write(child.stdin, options_line(self._options, self._bucket))
            return await self._recorded(child, export, journal)
        finally:
            ending.cancel()
            await run_to_completion(_ended(child))

    async def _recorded(
        self, child: asyncio.subprocess.Process, export: RunExport, journal: Journal
    ) -> ExportResult:
        """Record what the process makes until it sends the result."""
        assert child.stdin is not None  # noqa: S101 — opened by `start`
        paths: list[Path] = []
        async for found in _messages(child):
            match found:
                case {"file": values}:
                    await journal.exports.add(ExportedFile(**values))
                    _write(child.stdin, RECORDED + b"\n")
                case {"keys": keys, "shard": values}:
                    await self._run.files_checked()
                    await journal.exports.delete(keys, ExportedFile(**values))
                    _write(child.stdin, RECORDED + b"\n")
                case {"seen": seen, "total": total}:
                    if export.on_progress is not None:
                        export.on_progress(seen, total)
                case {"path": path}:
                    paths.append(self._options.out / path)
                case {"error": text}:
                    raise SinkError(text)
                case result:
                    return ExportResult(
                        folder=self._options.folder,
                        to=self._options.to,
                        out=self._options.out,
                        output=self._bucket.url if self._bucket else "",
                        paths=tuple(paths),
                        unknown=(),
                        **result,
                    )
        raise SinkError(f"the process of the export ended with code {await child.wait()}")


async def _tell_end(child: asyncio.StreamWriter, over: asyncio.Event) -> None:
    await over.wait()
    _write(child, OVER + b"\n")


def _write(child: asyncio.StreamWriter, line: bytes) -> None:
    """Write to the process. If it has ended, its reader says so; uvloop raises RuntimeError for a
    pipe that is closed, asyncio's own loop nothing."""
    with suppress(RuntimeError, OSError):
        child.write(line)


async def _ended(child: asyncio.subprocess.Process) -> None:
    """Let the process remove its unfinished file; kill it if it does not end."""
    assert child.stdin is not None  # noqa: S101 — opened by `start`
    child.stdin.close()
    try:
        async with asyncio.timeout(_LEAVING):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


async def _messages(child: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert child.stdout is not None  # noqa: S101 — opened by `start`
    async for line in child.stdout:
        yield json.loads(line)


def _lets_finish(kind: type[BaseException] | None) -> bool:
    """Whether the last shard is written after a block that ended so: a run that an error ended
    has images, unless the disk is at fault."""
    if kind is None:
        return True
    return issubclass(kind, FluxError) and not issubclass(kind, JournalError | SinkError)


def _log(error: FluxError) -> None:
    logger.warning("the export beside the run stopped: %s", error)


def options_line(options: ExportOptions, bucket: RunBucket | None) -> bytes:
    """Return the line from which the process reads what to do. It may have credentials."""
    values = asdict(options, value_serializer=lambda _, __, value: _plain(value))
    line = {"options": values, "bucket": bucket and [bucket.url, dict(bucket.options)]}
    return json.dumps(line).encode() + b"\n"


def read_options(line: bytes) -> tuple[ExportOptions, RunBucket | None]:
    found = json.loads(line)
    values = found["options"]
    values |= {name: Path(values[name]) for name in ("folder", "out")}
    return ExportOptions(**values), found["bucket"] and RunBucket(*found["bucket"])


def _plain(value: Any) -> Any:
    return os.path.abspath(value) if isinstance(value, Path) else value
