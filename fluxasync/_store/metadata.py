"""The two lists beside the images: `metadata.jsonl` (what was saved) and `failures.jsonl`.

Lines are added as outcomes come, many in one write. They follow the rules of an image folder of
the `datasets` library (datasets docs, "ImageFolder with metadata"): `file_name` holds a relative
path and every line has the same keys. Nothing here decides what is worth a line, and nothing
reads the lists back: they are projections, never truth.

An odd fact: half a surrogate pair is a legal Python string and a legal JSON escape, and makes
strict readers refuse the whole file; here it is written as the text of its escape.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from .._core.concurrency import Coalescer, run_to_completion
from .._core.errors import ConfigError, SinkError
from .._core.models import WEBHOOK_FIELDS, Failed, ImageInput, ImageRequest, InDoubt, Outcome, Saved
from .files import ThreadRunner, check_regular, disk_error, open_own, reading, sync, sync_folder

METADATA = "metadata.jsonl"
FAILURES = "failures.jsonl"

#: parameters with a column of their own, or that nobody else may read
_NOT_PARAMETERS = ("prompt", "seed", *WEBHOOK_FIELDS)

#: characters; a longer parameter is an image in base64, not something to read in a list
_LONGEST_PARAMETER = 8_192


def metadata_row(saved: Saved, folder: Path) -> dict[str, Any]:
    """Return the line of one image: every value JSON can hold, the same keys for every image.

    `file_name` is relative to `folder`. Image inputs are named by digest or URL, never contained.
    """
    request, job, stored = saved.request or saved.job.request, saved.job, saved.stored
    prompt = None if request is None else request.prompt
    seed = saved.seed if saved.seed is not None or request is None else request.seed
    return {
        "file_name": None if stored.path is None else _relative(stored.path, folder),
        "prompt": _plain(prompt),
        "model": None if request is None else _plain(request.model),
        "seed": seed,
        "parameters": parameters_of(request),
        "job_id": _plain(job.job_id),
        "width": stored.width,
        "height": stored.height,
        "format": stored.format,
        "bytes": stored.size,
        "sha256": stored.sha256,
        "cost": _plain(saved.cost),
        "timings": _plain(saved.timings),
        "index": saved.index,
        "key": _key(request),
        "finished_at": _plain(saved.finished_at),
        "provider": _plain(job.provider),
        "prompt_used": None if saved.prompt == prompt else _plain(saved.prompt),
        "extras": {} if request is None else _plain(request.extras),
    }


def failure_row(outcome: Failed | InDoubt) -> dict[str, Any]:
    """Return the line of what did not come: why, what was paid, and how to find its job."""
    match outcome:
        case Failed(job=job, where=where, cause=cause, paid=paid):
            price = None if job is None else job.price
        case InDoubt(price=price):
            job, where, cause, paid = None, None, "in-doubt", "unknown"
    request = outcome.request
    return {
        "index": outcome.index,
        "prompt": None if request is None else _plain(request.prompt),
        "model": None if request is None else _plain(request.model),
        "where": _plain(where),
        "cause": cause,
        "message": _plain(str(outcome.error)),
        "paid": paid,
        "price": _plain(price),
        "job_id": None if job is None else _plain(job.job_id),
        "polling_url": None if job is None else _plain(job.polling_url),
        "key": _key(request),
        "extras": {} if request is None else _plain(request.extras),
    }


def _relative(path: Path, folder: Path) -> str:
    inside, text = os.path.join(folder, ""), str(path)
    if not text.startswith(inside):
        text, inside = os.path.relpath(path, folder), ""
    relative: str = _plain(text.removeprefix(inside))
    return relative


def parameters_of(request: ImageRequest | None) -> dict[str, Any]:
    """Return what was given beside prompt, model and seed, as JSON can hold it."""
    if request is None:
        return {}
    given = {k: v for k, v in request.given().items() if k not in _NOT_PARAMETERS}
    return {
        _plain(name): _named(value) for name, value in (given | dict(request.extra_body)).items()
    }


def _named(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST_PARAMETER:
        return _digest(value.encode(errors="surrogatepass"))
    return _plain(value)


def _key(request: ImageRequest | None) -> str | None:
    try:
        return None if request is None else request.key
    except ConfigError:  # an image input that could not be read, which is why it failed
        return None


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a value that came from anywhere."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return value if value.isascii() else value.encode(errors="backslashreplace").decode()
        case float() | Decimal():
            return float(value) if math.isfinite(value) else None
        case bytes():
            return _digest(value)
        case datetime():
            return value.isoformat()
        case ImageInput():
            unread = value.url is None and value.sha256 is None
            return _plain(f"path:{value.path}" if unread else value.identity)
        case Mapping():
            return {_plain(str(name)): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return _plain(str(value))


class MetadataWriter:
    """Adds a line for every outcome to `metadata.jsonl` or `failures.jsonl` in a folder.

    Entering it raises SinkError when the folder already holds a run, or cannot be read.
    """

    def __init__(self, folder: str | os.PathLike[str], *, resumes: bool = False) -> None:
        self.folder = Path(folder)
        self._resumes = resumes  # a journal vouches for the lines that are there
        self._threads = ThreadRunner(count=1)
        self._files: dict[str, int] = {}  # open handles by name; only the thread touches them
        self._lines = Coalescer(self._write)
        self._broken: SinkError | None = None

    def __repr__(self) -> str:
        return f"<MetadataWriter of {str(self.folder)!r}, {len(self._lines)} lines waiting>"

    async def __aenter__(self) -> Self:
        await self._threads.__aenter__()
        try:
            await self._threads.run(self._begin)
        except BaseException:
            await self._threads.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await run_to_completion(self._close())
        finally:
            await self._threads.__aexit__()

    async def add(self, outcome: Outcome) -> None:
        """Add the outcome's line; on return it is in the file (durable when the manifest closes).

        Raises SinkError when the disk refuses, and from then on: what follows half a line would
        be lost with it.
        """
        if self._broken is not None:
            raise self._broken
        if isinstance(outcome, Saved):
            await self._lines.add((METADATA, _line(metadata_row(outcome, self.folder))))
        else:
            await self._lines.add((FAILURES, _line(failure_row(outcome))))

    async def _write(self, lines: list[tuple[str, bytes]]) -> None:
        try:
            await self._threads.run(self._append, lines)
        except SinkError as exc:
            self._broken = exc
            raise

    async def _close(self) -> None:
        await self._lines.finish()
        await self._threads.run(self._finish)

    def _begin(self) -> None:
        try:
            for name in (METADATA, FAILURES):
                check_regular(self.folder / name)  # said now, because no line will go through it
            if not self._resumes:
                check_fresh(self.folder)
        except OSError as exc:
            raise disk_error(self.folder, exc) from exc

    def _append(self, lines: list[tuple[str, bytes]]) -> None:
        if self._broken is not None:
            raise self._broken
        for name in (METADATA, FAILURES):
            text = b"".join(line for file, line in lines if file == name)
            try:
                if text:
                    _write_all(self._opened(name), text)
            except OSError as exc:
                raise disk_error(self.folder / name, exc) from exc

    def _opened(self, name: str) -> int:
        if name not in self._files:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._files[name] = open_own(self.folder / name, flags)
        return self._files[name]

    def _finish(self) -> None:
        handles = list(self._files.values())
        try:
            for handle in handles:
                sync(handle)
            if handles:
                sync_folder(self.folder)
        except OSError as exc:
            raise disk_error(self.folder, exc) from exc
        finally:
            _close_all(handles)


def check_fresh(folder: Path) -> None:
    """Raise SinkError when the folder already holds the lists of a run."""
    if any(_size(folder / name) for name in (METADATA, FAILURES)):
        count = _count_lines(folder / METADATA)
        raise SinkError(f"{folder} already holds a run ({count} images): choose a fresh folder")


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _count_lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with reading(path) as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))


def _line(row: Mapping[str, Any]) -> bytes:
    return _encode(row).encode() + b"\n"


#: made once, because `json.dumps` with options makes one a call
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _write_all(handle: int, text: bytes) -> None:
    with memoryview(text) as view:
        done = 0
        while done < len(view):
            done += os.write(handle, view[done:])


def _close_all(handles: Iterable[int]) -> None:
    for handle in handles:
        os.close(handle)
