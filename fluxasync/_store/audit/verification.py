"""Compares the files and `metadata.jsonl` of a folder with its journal, by size and sha256.

Three passes: the journal's rows, the lines of the list, the folder. The known files are kept in a
temporary table on disk, so memory does not grow with their number. An image that no run made is
counted and is not a finding, because the folder is the user's.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from io import BufferedReader
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from attrs import define, evolve, field, frozen

from ..._core.errors import JournalError
from ..._core.images import EXTENSIONS
from ..._core.models import Saved, Stored
from ..bucket_state import located
from ..disk_threads import ThreadRunner
from ..files import NotOurs, disk_error, open_to_read
from ..journal.exports import intact_exports
from ..journal.integrity import is_part
from ..journal.reader import JournalView, read_only
from ..journal.schema import HOME
from ..metadata import METADATA
from ..object_images import ObjectImages
from ..objects import Objects
from .folder_status import (
    read_quarantined,
    reading_rows,
    require_idle,
    require_journal,
    running_jobs,
)
from .quarantine_files import differences

#: findings and unknown images kept; all are counted
KEPT = 1_000
#: seconds of work in a thread before the event loop can cancel it
_STEP = 0.1
#: maximum bytes of a line of metadata.jsonl
_LONGEST_LINE = 2**24


@frozen(kw_only=True)
class Finding:
    """One difference between the journal and the folder.

    `kind` is "missing", "truncated", "changed", "unreadable" or "outside" (an image; the path of
    an outside one leads out of the folder, and the file is not read), "export missing" (an image
    that was deleted after an export, whose shard is gone), "unknown file" (an unfinished image),
    "line missing" or "line wrong" (in metadata.jsonl), "quarantine missing", "quarantine changed"
    or "quarantine stray" (a file there that no image refers to).
    """

    kind: str
    where: str  #: path in the folder; for a line, with its number
    key: str | None = None  #: of the image
    details: str = ""


@frozen(kw_only=True)
class Verification:
    """The result of `verify`."""

    folder: Path
    output: str = ""  #: URL of the images; "" = they are in the folder
    is_deep: bool = True  #: whether contents were compared, not only sizes
    images: int  #: saved images in the journal
    exported: int  #: images whose files were deleted after an export, which is no finding
    quarantined: int  #: images whose bytes are in quarantine, which is no finding
    bytes: int  #: bytes read and compared
    found: Mapping[str, int]  #: number of findings by kind
    findings: tuple[Finding, ...]  #: the first 1,000
    unknown_images: int  #: image files that no run made
    first_unknown_images: tuple[str, ...]  #: the first 1,000, as paths in the folder
    #: pid, host, since and silence of an active run into the bucket: see Status
    holder: Mapping[str, Any] | None = None

    @property
    def is_clean(self) -> bool:
        return not self.found


async def verify(
    folder: str | os.PathLike[str],
    *,
    deep: bool = False,
    options: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Compare every image of a run with its record, by size and sha256; changes nothing.

    `folder` is the run's, or the URL of one whose record is in its bucket. Of a run into a bucket
    the objects are listed and their sizes compared; `deep` reads them too. `options` are the
    bucket's: see ObjectSink.

    `progress` is called with the number of images compared so far and their total. Raises
    ConfigError for a folder without a journal, Locked while a run is active there, JournalError for
    a journal that cannot be trusted, and SinkError for a bucket that cannot be read.
    """
    run = await located(folder, options)
    report = _Report(folder=run.folder, is_deep=deep, options=options)
    async with ThreadRunner(count=1) as threads:
        steps = _steps(report)
        try:
            while await threads.run(_advance, steps):
                if progress is not None:
                    progress(report.images, report.total)
        finally:
            await threads.run(steps.close)
    return evolve(report.verification(), holder=await run.holder())


def _advance(steps: Iterator[None]) -> bool:
    """Work for 0.1 s, so that a cancelled caller waits no longer; return whether more is left."""
    until = time.monotonic() + _STEP
    try:
        for _ in steps:
            if time.monotonic() >= until:
                return True
    except sqlite3.Error as exc:
        raise JournalError(f"the verification failed: {exc}: check the disk") from exc
    except OSError as exc:
        raise disk_error(exc.filename or "the folder", exc) from exc
    return False


def _steps(report: _Report) -> Generator[None, None, None]:
    """Fill the report; yields after each image, line and file."""
    folder = report.folder
    require_journal(folder)
    require_idle(folder)
    with ExitStack() as stack:
        view = stack.enter_context(read_only(folder, thorough=True))
        known = stack.enter_context(closing(_KnownFiles()))
        report.total = view.counts.done
        listed = _listed(view, report)
        if listed is not None:
            yield from listed.prepare()
        yield from _images(view, known, report, listed)
        yield from _lines(folder / METADATA, known, report)
        yield from _files(folder, PurePosixPath(), known, report)
        if listed is not None:
            yield from _unknown_objects(listed, known, report)
        entries, running = read_quarantined(folder), running_jobs(folder)
        report.quarantined = len(entries)
        for kind, where, key, details in differences(folder, entries, running=running):
            report.add(kind, where, key=key, details=details)
            yield
    require_idle(folder)  # a run that began meanwhile may have caused the findings


@define
class _Report:
    """A Verification in progress."""

    folder: Path
    is_deep: bool
    options: Mapping[str, str] | None
    output: str = ""
    total: int = 0  #: images to compare
    images: int = 0
    exported: int = 0
    quarantined: int = 0
    bytes: int = 0
    found: Counter[str] = field(factory=Counter)
    findings: list[Finding] = field(factory=list)
    unknown_images: int = 0
    first_unknown_images: list[str] = field(factory=list)

    def add(self, kind: str, where: str, *, key: str | None = None, details: str = "") -> None:
        self.found[kind] += 1
        if len(self.findings) < KEPT:
            self.findings.append(Finding(kind=kind, where=where, key=key, details=details))

    def add_unknown_image(self, path: str) -> None:
        self.unknown_images += 1
        if len(self.first_unknown_images) < KEPT:
            self.first_unknown_images.append(path)

    def verification(self) -> Verification:
        return Verification(
            folder=self.folder,
            output=self.output,
            is_deep=self.is_deep or not self.output,
            images=self.images,
            exported=self.exported,
            quarantined=self.quarantined,
            bytes=self.bytes,
            found=dict(self.found),
            findings=tuple(self.findings),
            unknown_images=self.unknown_images,
            first_unknown_images=tuple(self.first_unknown_images),
        )


# --- images -------------------------------------------------------------------------------------


def _listed(view: JournalView, report: _Report) -> ObjectImages | None:
    """Return the objects of a run into a bucket, not listed yet; None for one into a folder."""
    report.output = view.root.url
    if not report.output:
        return None
    return ObjectImages(Objects(report.output, report.options))


def _images(
    view: JournalView, known: _KnownFiles, report: _Report, listed: ObjectImages | None
) -> Iterator[None]:
    with reading_rows(report.folder) as connection:
        intact = intact_exports(connection, report.folder)
    for entry in view.entries():
        if isinstance(entry.known, Saved):
            stored = entry.known.stored
            if listed is None:
                path = _relative(stored.path, report.folder)
                kind, details = _check_image(stored, path, report)
            else:
                path = view.root.name_of(stored) or ""
                kind, details, size = listed.compare(path, stored, deep=report.is_deep)
                report.bytes += size
            known.add(entry.key, path, stored)
            if entry.export is not None and kind == "missing":
                report.exported += entry.export in intact
                kind = "" if entry.export in intact else "export missing"
            if kind:
                report.add(kind, path, key=entry.key, details=details)
            report.images += 1
        elif entry.stem is not None:  # its file may exist although its record was lost
            known.expect(entry.stem)
        yield


def _relative(path: Path | None, folder: Path) -> str:
    return "" if path is None else PurePath(os.path.relpath(path, folder)).as_posix()


def _check_image(stored: Stored, path: str, report: _Report) -> tuple[str, str]:
    """Return the kind of the finding, "" for none, and its details."""
    if stored.path is None:
        return "missing", "recorded without a file"
    if path.split("/")[0] == "..":
        return "outside", "the recorded path leads out of the folder; not read"
    try:
        with open_to_read(stored.path, follow=True) as file:
            return _compared(file, stored, report)
    except (FileNotFoundError, NotADirectoryError):
        return "missing", ""
    except NotOurs:
        return "missing", "its name belongs to something that is not a file"
    except OSError as exc:
        return "unreadable", exc.strerror or str(exc)


def _compared(file: BufferedReader, stored: Stored, report: _Report) -> tuple[str, str]:
    found = os.fstat(file.fileno())
    if found.st_size != stored.size:
        kind = "truncated" if found.st_size < stored.size else "changed"
        return kind, f"{found.st_size} bytes, not {stored.size}"
    report.bytes += found.st_size
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ("", "") if sha256 == stored.sha256 else ("changed", f"its sha256 is {sha256}")


# --- metadata.jsonl -----------------------------------------------------------------------------


def _lines(path: Path, known: _KnownFiles, report: _Report) -> Iterator[None]:
    """Compare each line with its image, then report the images without a line."""
    if os.path.lexists(path):
        with open_to_read(path) as file:
            lines = iter(lambda: file.readline(_LONGEST_LINE), b"")
            for number, line in enumerate(lines, 1):
                key, wrong = _read(line, known)
                if wrong:
                    report.add("line wrong", f"{METADATA} line {number}", key=key, details=wrong)
                yield
    for key, name in known.unlisted():
        report.add("line missing", METADATA, key=key, details=f"for {name}")
        yield


def _read(line: bytes, known: _KnownFiles) -> tuple[str | None, str]:
    """Return a line's key, and what is wrong with the line, "" for nothing."""
    try:
        row = json.loads(line)
        key, values = str(row["key"]), (row["file_name"], row["sha256"], row["bytes"])
        recorded = known.listed(key)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, "not a line of a run"
    if recorded is None:
        return key, "not an image of the journal"
    *expected, count = recorded
    if count > 1:
        return key, "a second line for the same image"
    for name, value, other in zip(("file_name", "sha256", "bytes"), values, expected, strict=True):
        if value != other:
            return key, f"{name} is {value}, the journal says {other}"
    return key, ""


# --- files --------------------------------------------------------------------------------------


def _files(
    folder: Path, inside: PurePosixPath, known: _KnownFiles, report: _Report
) -> Iterator[None]:
    """Report unfinished files and count unknown images, in the folder and its subfolders."""
    with os.scandir(folder / inside) as entries:
        for entry in entries:
            path = inside / entry.name
            if entry.is_dir(follow_symlinks=False):
                if path != PurePosixPath(HOME):
                    yield from _files(folder, path, known, report)
            elif is_part(entry.name):
                report.add("unknown file", str(path), details="an unfinished image")
            elif path.suffix[1:].lower() in _ENDINGS and not known.has(path):
                report.add_unknown_image(str(path))
            yield


def _unknown_objects(listed: ObjectImages, known: _KnownFiles, report: _Report) -> Iterator[None]:
    """Count the images in a bucket that no run made."""
    for name in listed.names():
        path = PurePosixPath(name)
        if path.suffix[1:].lower() in _ENDINGS and not known.has(path):
            report.add_unknown_image(name)
        yield


_ENDINGS = frozenset(EXTENSIONS.values()) | {"jpeg"}


class _KnownFiles:
    """The files that the journal knows, in a temporary table on disk."""

    def __init__(self) -> None:
        self._table = sqlite3.connect("", isolation_level=None)
        self._table.executescript(
            "PRAGMA cache_size = -8192; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE done (key TEXT PRIMARY KEY, path TEXT, sha256 TEXT, size INTEGER,"
            " lines INTEGER DEFAULT 0) WITHOUT ROWID;"
            "CREATE INDEX done_path ON done (path);"
            "CREATE TABLE expected (stem TEXT PRIMARY KEY) WITHOUT ROWID;"
        )

    def close(self) -> None:
        self._table.close()

    def add(self, key: str, path: str, stored: Stored) -> None:
        values = (key, path, stored.sha256, stored.size)
        self._table.execute("INSERT INTO done VALUES (?, ?, ?, ?, 0)", values)

    def expect(self, stem: str) -> None:
        self._table.execute("INSERT OR IGNORE INTO expected VALUES (?)", (stem,))

    def listed(self, key: str) -> Any:
        """Count one line of the image; return its path, sha256, size and number of lines."""
        self._table.execute("UPDATE done SET lines = lines + 1 WHERE key = ?", (key,))
        query = "SELECT path, sha256, size, lines FROM done WHERE key = ?"
        return self._table.execute(query, (key,)).fetchone()

    def unlisted(self) -> Iterator[tuple[str, str]]:
        yield from self._table.execute("SELECT key, path FROM done WHERE lines = 0")

    def has(self, path: PurePosixPath) -> bool:
        found = self._table.execute(
            "SELECT 1 FROM done WHERE path = ? UNION ALL SELECT 1 FROM expected WHERE stem = ?",
            (_text(path), _text(path.with_suffix(""))),
        )
        return found.fetchone() is not None


def _text(path: PurePosixPath) -> str:
    """Return a path as the journal writes it."""
    return str(path).encode(errors="backslashreplace").decode()
