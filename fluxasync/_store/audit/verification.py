"""Whether a folder holds what its journal says: every image whole, every file known, every line.

One pass over the journal in the order of its rows, then one over `metadata.jsonl`, then one over
the folder. What is known of files waits in a temporary table on disk, so a million of them take no
more memory than a hundred. Only reads: nothing is mended here.

An odd fact: a picture of the user's own is no finding. The folder is theirs; only our temporary
names in it say that something was left half done.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from io import BufferedReader
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from attrs import define, field, frozen

from ..._core.errors import JournalError
from ..._core.images import EXTENSIONS
from ..._core.models import Saved, Stored
from ..files import NotOurs, ThreadRunner, disk_error, reading
from ..journal.integrity import is_part
from ..journal.journal import JournalView, read_only
from ..journal.schema import HOME
from ..metadata import METADATA
from .offline_journal import require, require_idle

#: findings and strangers kept; all are counted
KEPT = 1_000
#: seconds of work between two looks at whether the caller still wants it
_MOMENT = 0.1
#: bytes of a line of metadata.jsonl; a longer one is not ours
_LONGEST_LINE = 2**24


@frozen(kw_only=True)
class Finding:
    """One thing that is not as the journal says.

    `word` is "missing", "truncated", "changed" or "unreadable" (of an image), "unknown file" (a
    temporary name of ours), "line missing" or "line wrong" (in metadata.jsonl).
    """

    word: str
    where: str  #: path in the folder, with the line's number for a line
    key: str | None = None  #: of the image
    details: str = ""


@frozen(kw_only=True)
class Verification:
    """What was found; `is_clean` is the answer."""

    folder: Path
    images: int  #: done, by the journal
    bytes: int  #: of those, read and compared
    found: Mapping[str, int]  #: how many findings, by word
    findings: tuple[Finding, ...]  #: the first 1,000 of them
    strangers: int  #: image files that no run of ours made
    first_strangers: tuple[str, ...]  #: the first 1,000 of them, paths in the folder

    @property
    def is_clean(self) -> bool:
        return not self.found


async def verify(
    folder: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Compare every image of a folder with its record, by size and sha256; changes nothing.

    `progress` is called with the images compared so far and all of them. Raises ConfigError for a
    folder without a journal, Locked while a run goes on there, and JournalError for a journal that
    cannot be trusted.
    """
    report = _Report(folder=Path(folder))
    async with ThreadRunner(count=1) as threads:
        steps = _steps(report)
        try:
            while await threads.run(_advance, steps):
                if progress is not None:
                    progress(report.images, report.total)
        finally:
            await threads.run(steps.close)
    return report.verification()


def _advance(steps: Iterator[None]) -> bool:
    """Go on for a moment, so that a caller who is cancelled does not wait long."""
    until = time.monotonic() + _MOMENT
    try:
        for _ in steps:
            if time.monotonic() >= until:
                return True
    except sqlite3.Error as exc:
        raise JournalError(f"the verification broke off: {exc}: check the disk") from exc
    except OSError as exc:
        raise disk_error(exc.filename or "the folder", exc) from exc
    return False


def _steps(report: _Report) -> Generator[None, None, None]:
    """Tell the whole story, with a pause after each image, line and file."""
    folder = report.folder
    require(folder)
    require_idle(folder)
    with read_only(folder, thorough=True) as view, closing(_Known()) as known:
        report.total = view.counts.done
        yield from _images(view, known, report)
        yield from _lines(folder / METADATA, known, report)
        yield from _files(folder, PurePosixPath(), known, report)
    require_idle(folder)  # else a run began meanwhile, and what was found may be its doing


@define
class _Report:
    """What is found, as it is found."""

    folder: Path
    total: int = 0  #: images to compare
    images: int = 0
    bytes: int = 0
    found: Counter[str] = field(factory=Counter)
    findings: list[Finding] = field(factory=list)
    strangers: int = 0
    first_strangers: list[str] = field(factory=list)

    def add(self, word: str, where: str, *, key: str | None = None, details: str = "") -> None:
        self.found[word] += 1
        if len(self.findings) < KEPT:
            self.findings.append(Finding(word=word, where=where, key=key, details=details))

    def add_stranger(self, path: str) -> None:
        self.strangers += 1
        if len(self.first_strangers) < KEPT:
            self.first_strangers.append(path)

    def verification(self) -> Verification:
        return Verification(
            folder=self.folder,
            images=self.images,
            bytes=self.bytes,
            found=dict(self.found),
            findings=tuple(self.findings),
            strangers=self.strangers,
            first_strangers=tuple(self.first_strangers),
        )


# --- images -------------------------------------------------------------------------------------


def _images(view: JournalView, known: _Known, report: _Report) -> Iterator[None]:
    for entry in view.entries():
        if isinstance(entry.known, Saved):
            stored = entry.known.stored
            path = _within(stored.path, report.folder)
            known.add(entry.key, path, stored)
            word, details = _judged(stored, report)
            if word:
                report.add(word, path, key=entry.key, details=details)
            report.images += 1
        elif entry.stem is not None:  # its file may be there already, and its record was lost
            known.expect(entry.stem)
        yield


def _within(path: Path | None, folder: Path) -> str:
    return "" if path is None else PurePath(os.path.relpath(path, folder)).as_posix()


def _judged(stored: Stored, report: _Report) -> tuple[str, str]:
    """Return the word for what is wrong with a file, "" for nothing, and what was seen."""
    if stored.path is None:
        return "missing", "recorded without a file"
    try:
        with reading(stored.path, follow=True) as file:
            return _compared(file, stored, report)
    except (FileNotFoundError, NotADirectoryError):
        return "missing", ""
    except NotOurs:
        return "missing", "something else has its name"
    except OSError as exc:
        return "unreadable", exc.strerror or str(exc)


def _compared(file: BufferedReader, stored: Stored, report: _Report) -> tuple[str, str]:
    found = os.fstat(file.fileno())
    if found.st_size != stored.size:
        word = "truncated" if found.st_size < stored.size else "changed"
        return word, f"{found.st_size} bytes, not {stored.size}"
    report.bytes += found.st_size
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ("", "") if sha256 == stored.sha256 else ("changed", f"its sha256 is {sha256}")


# --- metadata.jsonl -----------------------------------------------------------------------------


def _lines(path: Path, known: _Known, report: _Report) -> Iterator[None]:
    """Compare each line with its image, then look for images without a line."""
    if os.path.lexists(path):
        with reading(path) as file:
            lines = iter(lambda: file.readline(_LONGEST_LINE), b"")
            for number, line in enumerate(lines, 1):
                key, wrong = _read(line, known)
                if wrong:
                    report.add("line wrong", f"{METADATA} line {number}", key=key, details=wrong)
                yield
    for key, name in known.unlisted():
        report.add("line missing", METADATA, key=key, details=f"for {name}")
        yield


def _read(line: bytes, known: _Known) -> tuple[str | None, str]:
    """Return a line's key, and what is wrong with the line, "" for nothing."""
    try:
        row = json.loads(line)
        key, told = str(row["key"]), (row["file_name"], row["sha256"], row["bytes"])
        found = known.listed(key)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, "not a line of ours"
    if found is None:
        return key, "no image of the journal"
    *expected, count = found
    if count > 1:
        return key, "the image has a line before"
    for name, here, there in zip(("file_name", "sha256", "bytes"), told, expected, strict=True):
        if here != there:
            return key, f"{name} is {here}, the journal says {there}"
    return key, ""


# --- files --------------------------------------------------------------------------------------


def _files(folder: Path, inside: PurePosixPath, known: _Known, report: _Report) -> Iterator[None]:
    """Look for files that no row accounts for, in the folder and below it."""
    with os.scandir(folder / inside) as entries:
        for entry in entries:
            path = inside / entry.name
            if entry.is_dir(follow_symlinks=False):
                if path != PurePosixPath(HOME):
                    yield from _files(folder, path, known, report)
            elif is_part(entry.name):
                report.add("unknown file", str(path), details="an image that was being written")
            elif path.suffix[1:].lower() in _ENDINGS and not known.has(path):
                report.add_stranger(str(path))
            yield


_ENDINGS = frozenset(EXTENSIONS.values()) | {"jpeg"}


class _Known:
    """What the journal knows of files, in a temporary table that SQLite keeps on disk."""

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
        """Count a line of the image; return path, sha256, size and its lines so far."""
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
    """Return a path as SQLite can hold it, and as the journal wrote it."""
    return str(path).encode(errors="backslashreplace").decode()
