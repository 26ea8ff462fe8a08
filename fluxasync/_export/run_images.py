"""The saved images of a run in the order of settling, compared with their records."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from attrs import frozen

from .._core.images import EXTENSIONS
from .._store.files import NotOurs
from .._store.journal.checked_row import Row
from .._store.journal.exports import count_saved, export_of
from .._store.journal.lists import saved_image, saved_images
from .._store.journal.schema import FILE, HOME, RESTORE, journal_errors
from .._store.output_root import OutputRoot
from .._store.stored_images import StoredImages

#: reads of a bucket at the same time, and bytes of images that are read ahead
_READS, _MOST_AHEAD = 8, 2**26


class LeftOut(Exception):
    """This image is not exported."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@frozen(kw_only=True)
class SavedImage:
    """A saved image as the journal records it."""

    seq: int  #: its place in the order of settling
    key: str
    line: dict[str, Any]  #: of metadata.jsonl
    name: str  #: in the run's output; "" = recorded without one
    size: int
    sha256: str
    format: str
    export: int | None  #: id of the shard that has it, if its file was deleted

    @property
    def stem(self) -> str:
        """A name that sorts by index and is the image's own."""
        return f"{self.line['index']:09}-{self.key:.8}"

    @property
    def extension(self) -> str:
        return EXTENSIONS[self.format]


class RunImages:
    """Reads a journal through its own connection, page by page, and the images it records; with
    `keys`, only their images."""

    def __init__(
        self,
        root: OutputRoot,
        connection: sqlite3.Connection,
        stored: StoredImages,
        keys: Iterable[str] | None = None,
    ) -> None:
        self.connection = connection
        self._root, self._stored = root, stored
        self.unknown: list[str] = []  #: the keys that name no saved image
        self._chosen = None if keys is None else self._found(keys)

    @property
    def count(self) -> int:
        """How many images there are."""
        if self._chosen is not None:
            return len(self._chosen)
        return count_saved(self.connection, 1, self.last)

    def _found(self, keys: Iterable[str]) -> list[tuple[int, str]]:
        """Return sequence number and key of each saved image, in order."""
        found = []
        for key in keys:
            image = self.of_key(key)
            if image is None:
                self.unknown.append(key)
            else:
                found.append((image.seq, key))
        return sorted(found)

    @property
    def last(self) -> int:
        """The sequence number of the last saved image now; 0 without one."""
        query = "SELECT seq FROM image WHERE seq > 0 AND +state = 2 ORDER BY seq DESC LIMIT 1"
        found = self.connection.execute(query).fetchone()
        return 0 if found is None else int(found[0])

    def bytes_after(self, seq: int) -> tuple[int, int]:
        """Return the bytes of the images behind a sequence number, and the last one's number."""
        query = "SELECT total(size), max(seq) FROM image WHERE seq > ? AND +state = 2"
        size, last = self.connection.execute(query, (seq,)).fetchone()
        return int(size), last or seq

    def has_files(self, first: int, last: int) -> bool:
        """Whether a file of the images from one sequence number to another is there. Objects are
        not looked for: True."""
        if self._stored.is_remote:
            return True
        query = "SELECT path FROM image WHERE seq BETWEEN ? AND ? AND +state = 2"
        rows = self.connection.execute(query, (first, last))
        return any(isinstance(name, str) and self._is_there(name) for (name,) in rows)

    def _is_there(self, name: str) -> bool:
        path = self._stored.path(name)
        return path is not None and "\0" not in name and os.path.lexists(path)

    # --- records --------------------------------------------------------------------------------

    def after(self, seq: int) -> Iterator[SavedImage]:
        """Yield the images behind a sequence number. Raises JournalError for an invalid row."""
        if self._chosen is None:
            yield from self.all_after(seq)
            return
        for number, key in self._chosen:
            if number > seq and (image := self.of_key(key)) is not None:
                yield image

    def all_after(self, seq: int) -> Iterator[SavedImage]:
        """Yield the same without `keys`."""
        folder = self._root.folder
        with journal_errors(folder / HOME / FILE, RESTORE):
            for row, line in saved_images(self.connection, folder, after=seq):
                yield _image(row, line)

    def of_key(self, key: str) -> SavedImage | None:
        """Return the saved image of a key; None if it is not saved any more."""
        folder = self._root.folder
        with journal_errors(folder / HOME / FILE, RESTORE):
            found = saved_image(self.connection, folder, bytes.fromhex(key))
        return None if found is None else _image(*found)

    # --- images ---------------------------------------------------------------------------------

    def contents(
        self, images: Iterator[SavedImage], copy: Callable[[SavedImage], bytes | None] | None = None
    ) -> Generator[tuple[SavedImage, bytes | LeftOut], None, None]:
        """Yield images with their bytes as recorded, or with the reason why there are none.

        Those of a bucket are read ahead, several at once; `copy` returns what need not be read, for
        an image that is listed (see `prepare`). Close the iterator. Raises SinkError.
        """
        if not self._stored.is_remote:
            yield from ((image, self._content(image)) for image in images)
            return
        pool = ThreadPoolExecutor(_READS, thread_name_prefix="fluxasync-read")
        try:
            ahead: deque[tuple[SavedImage, Future[bytes | LeftOut]]] = deque()
            size = 0
            for image in images:
                ahead.append((image, pool.submit(self._content, image, copy)))
                size += image.size
                while ahead and (size > _MOST_AHEAD or len(ahead) > 2 * _READS):
                    first, content = ahead.popleft()
                    size -= first.size
                    yield first, content.result()
            yield from ((image, content.result()) for image, content in ahead)
        finally:
            pool.shutdown(cancel_futures=True)

    def is_late(self, content: bytes | LeftOut) -> bool:
        """Whether an image is missing in a bucket, which may show a new object late."""
        is_missing = isinstance(content, LeftOut) and content.kind == "missing"
        return is_missing and self._stored.is_remote

    def _content(
        self, image: SavedImage, copy: Callable[[SavedImage], bytes | None] | None = None
    ) -> bytes | LeftOut:
        if image.format not in EXTENSIONS:
            return LeftOut("no image")
        try:
            _check_name(image)
            if copy is not None:
                self.place(image)  # it is listed
                if (found := copy(image)) is not None:
                    return found
            content = self._stored.read(image.name, image.size)
            _check_size(len(content), image)
        except LeftOut as reason:
            return reason
        except OSError as exc:
            return _left_out(image, exc)
        is_same = hashlib.sha256(content).hexdigest() == image.sha256
        return content if is_same else LeftOut("changed")

    def prepare(self) -> Iterator[None]:
        """List the images of a bucket, in steps, for `place`. Raises SinkError."""
        return self._stored.prepare()

    def place(self, image: SavedImage) -> str:
        """Return the path or the URL of an image that has its recorded size, without reading it.
        Raises LeftOut for any other. After `prepare`."""
        _check_name(image)
        try:
            size = self._stored.size(image.name)
        except OSError as exc:
            raise _left_out(image, exc) from exc
        if size is None:
            raise _missing(image)
        _check_size(size, image)
        path, place = self._root.located(image.name)
        return place if path is None else os.path.abspath(path)

    def is_link(self, image: SavedImage, target: str) -> bool:
        """Whether a file is the image's own."""
        path = self._stored.path(image.name)
        try:
            return path is not None and os.path.samefile(path, target)
        except OSError:
            return False

    def link(self, image: SavedImage, target: str) -> bool:
        """Make a hard link to an image; return False where that cannot be done."""
        path = self._stored.path(image.name)
        if path is None:
            return False
        try:
            os.link(os.path.realpath(path), target)  # link() does not follow a link
        except OSError:  # another file system, or one without links; a bad disk fails a copy too
            return False
        return True

    def remove(self, images: list[SavedImage]) -> None:
        """Remove the files or objects of images. Raises OSError and SinkError."""
        self._stored.remove([image.name for image in images])


def _image(row: Row, line: dict[str, Any]) -> SavedImage:
    return SavedImage(
        seq=row.seq or 0,
        key=line["key"],
        line=line,
        name=row.path or "",
        size=row.size or 0,
        sha256=(row.sha256 or b"").hex(),
        format=row.format or "",
        export=export_of(row),
    )


def _check_name(image: SavedImage) -> None:
    """Raise LeftOut for an image without a name, and for one outside of the run's output."""
    if not image.name:
        raise LeftOut("missing")
    if os.path.isabs(image.name) or ".." in image.name.split("/"):
        raise LeftOut("outside")


def _check_size(size: int, image: SavedImage) -> None:
    if size != image.size:
        raise LeftOut("truncated" if size < image.size else "changed")


def _missing(image: SavedImage) -> LeftOut:
    return LeftOut("missing" if image.export is None else "deleted")


def _left_out(image: SavedImage, error: OSError) -> LeftOut:
    if isinstance(error, FileNotFoundError | NotADirectoryError | NotOurs):
        return _missing(image)
    return LeftOut("unreadable")
