"""The saved images of a run in a bucket: listed once, read and removed."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock

from .._core.models import Stored
from .files import HOME
from .objects import Objects
from .output_root import OutputRoot
from .stored_images import FolderImages, StoredImages


class ObjectImages:
    """See StoredImages. Names and sizes are in a temporary table on disk. For several threads."""

    is_remote = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._lock = Lock()
        self._is_listed = False
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._table.executescript(
            "PRAGMA cache_size = -8192; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE object (name TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID;"
        )
        weakref.finalize(self, self._table.close)

    def prepare(self) -> Iterator[None]:
        if self._is_listed:
            return
        for found in self._objects.sizes():
            with self._lock:
                self._table.execute("INSERT OR REPLACE INTO object VALUES (?, ?)", found)
            yield
        self._is_listed = True

    def size(self, name: str) -> int | None:
        query = "SELECT size FROM object WHERE name = ?"
        with self._lock:
            found = self._table.execute(query, (name,)).fetchone()
        return None if found is None else int(found[0])

    def read(self, name: str, size: int) -> bytes:
        content = self._objects.read(name)
        if content is None:
            raise FileNotFoundError(f"{self._objects.url}/{name}")
        return content

    def path(self, name: str) -> Path | None:
        return None

    def remove(self, names: Sequence[str]) -> None:
        self._objects.delete_all(names)

    def compare(self, name: str, stored: Stored, *, deep: bool) -> tuple[str, str, int]:
        """Return the kind of a finding, "" for none, its details, and the bytes that were read.

        `deep` reads an object of the recorded size too. Raises SinkError.
        """
        size = self.size(name)
        if size is None:
            return "missing", "", 0
        if size != stored.size:
            kind = "truncated" if size < stored.size else "changed"
            return kind, f"{size} bytes, not {stored.size}", 0
        if not deep:
            return "", "", 0
        sha256 = self._objects.sha256(name)
        if sha256 is None:
            return "missing", "", 0
        is_same = sha256 == stored.sha256
        return ("", "", size) if is_same else ("changed", f"its sha256 is {sha256}", size)

    def names(self) -> Iterator[str]:
        """Yield the names of all objects but our own."""
        query = "SELECT name FROM object ORDER BY name"
        for (name,) in self._table.execute(query):
            if not name.startswith(f"{HOME}/"):
                yield name


def images_at(root: OutputRoot, options: Mapping[str, str] | None = None) -> StoredImages:
    """Return the images of a run. Raises ConfigError for options that its bucket does not have."""
    return ObjectImages(Objects(root.url, options)) if root.url else FolderImages(root.folder)
