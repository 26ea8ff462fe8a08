"""The lines of `metadata.jsonl` (saved images) and `failures.jsonl`, and their writer.

The `datasets` library reads this format (datasets docs, "ImageFolder with metadata"):
`file_name` is a relative path and every line has the same keys. A lone surrogate is written as the
text of its escape, because strict JSON readers refuse a file that contains one.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from .._core.concurrency import Coalescer, run_to_completion
from .._core.errors import ConfigError, SinkError
from .._core.images import NotAnImage, sniff
from .._core.inline_image import inline_image
from .._core.models import (
    WEBHOOK_FIELDS,
    Failed,
    ImageInput,
    ImageRequest,
    InDoubt,
    Job,
    Outcome,
    Quarantined,
    Saved,
)
from .column_types import ColumnTypes, line_of, rewrite, settle_types
from .disk_threads import ThreadRunner
from .files import (
    check_regular,
    disk_error,
    open_own,
    open_to_read,
    sync,
    sync_folder,
    write_all,
)
from .output_root import OutputRoot

METADATA = "metadata.jsonl"
FAILURES = "failures.jsonl"

#: parameters with a column of their own, and secrets
_NOT_PARAMETERS = ("prompt", "seed", *WEBHOOK_FIELDS)

#: characters; a longer parameter is an image in base64, which its digest stands for
_LONGEST_PARAMETER = 8_192


def metadata_row(saved: Saved, root: OutputRoot) -> dict[str, Any]:
    """Return the line of one image as JSON values, with the same keys for every image.

    `file_name` is relative to the output; an object also has its `url`, and an image of a run with
    several accounts its `account`. An image input is named by its digest or URL.
    """
    request, job, stored = saved.request or saved.job.request, saved.job, saved.stored
    prompt = None if request is None else request.prompt
    seed = saved.seed if saved.seed is not None or request is None else request.seed
    return {
        "file_name": _plain(root.name_of(stored)),
        **({"url": _plain(stored.place)} if root.url else {}),
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
        **_account(job),
        "prompt_used": _plain(saved.prompt_used),
        "extras": {} if request is None else _plain(kept_extras(request.extras)),
    }


def failure_row(outcome: Failed | InDoubt, folder: Path | None = None) -> dict[str, Any]:
    """Return the line of an image that was not saved: the cause, the cost, its job, and its
    quarantined bytes, whose path is relative to `folder`."""
    kept: Quarantined | None = None
    match outcome:
        case Failed(job=job, where=where, cause=cause, paid=paid, quarantined=kept):
            price = None if job is None else job.charge
        case InDoubt(price=price, cause=cause):
            job, where, paid = None, None, "unknown"
    request = outcome.request
    return {
        "index": outcome.index,
        "prompt": None if request is None else _plain(request.prompt),
        "model": None if request is None else _plain(request.model),
        "where": _plain(where),
        "cause": cause,
        "message": _plain(_message(outcome)),
        "paid": paid,
        "price": _plain(price),
        "job_id": None if job is None else _plain(job.job_id),
        "polling_url": None if job is None else _plain(job.polling_url),
        **({} if job is None else _account(job)),
        "key": _key(request),
        "quarantine": None if kept is None else _quarantine(kept, outcome.error, folder),
        "extras": {} if request is None else _plain(kept_extras(request.extras)),
    }


def _account(job: Job) -> dict[str, Any]:
    """Return the name of the job's account, where the run has several."""
    return {} if job.account is None else {"account": _plain(job.account)}


def _message(outcome: Failed | InDoubt) -> str:
    is_unlisted = isinstance(outcome, InDoubt) and outcome.is_unlisted
    listed = "not listed: the account shows no task and no charge; " if is_unlisted else ""
    return f"{listed}{outcome.error}"


def _quarantine(kept: Quarantined, error: Exception, folder: Path | None) -> dict[str, Any]:
    path = None if kept.path is None else _relative(kept.path, folder or Path())
    return {
        "path": path,
        "reason": _plain(kept.reason or str(error)),
        "bytes": kept.size,
        "sha256": kept.sha256,
        "seed": kept.seed,
    }


def _relative(path: Path, folder: Path) -> str:
    inside, text = os.path.join(folder, ""), str(path)
    if not text.startswith(inside):
        text, inside = os.path.relpath(path, folder), ""
    relative: str = _plain(text.removeprefix(inside))
    return relative


def parameters_of(request: ImageRequest | None) -> dict[str, Any]:
    """Return the parameters other than prompt, model and seed, as JSON values."""
    if request is None:
        return {}
    given = {k: v for k, v in request.given().items() if k not in _NOT_PARAMETERS}
    given |= request.extra_body
    return {_plain(name): _plain(shortened(value)) for name, value in given.items()}


def shortened(value: Any) -> Any:
    """Return a parameter with every long text in it replaced by its digest."""
    if isinstance(value, str) and len(value) > _LONGEST_PARAMETER:
        return digest(value.encode(errors="surrogatepass"))
    if isinstance(value, list | tuple):
        return [shortened(item) for item in value]
    return value


def kept_extras(value: Any) -> Any:
    """Return a user's own values with every image in base64 replaced by its digest."""
    if isinstance(value, str):
        is_image = len(value) > _LONGEST_PARAMETER and _is_image(value)
        return digest(value.encode(errors="surrogatepass")) if is_image else value
    if isinstance(value, Mapping):
        return {name: kept_extras(inner) for name, inner in value.items()}
    return [kept_extras(inner) for inner in value] if isinstance(value, list | tuple) else value


def _is_image(text: str) -> bool:
    try:
        content = inline_image(text)
        return content is not None and bool(sniff(content[:512]))
    except NotAnImage as error:
        return error.is_other_picture
    except ValueError:
        return False


def digest(content: bytes) -> str:
    """Return the text that stands for bytes or a long text."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _key(request: ImageRequest | None) -> str | None:
    try:
        return None if request is None else request.key
    except ConfigError:  # an image input cannot be read, which is why the request failed
        return None


def _plain(value: Any) -> Any:
    """Return any value as JSON can hold it."""
    if type(value) is str and value.isascii():  # most are
        return value
    match value:
        case None | bool() | int():
            return value
        case str():
            return value if value.isascii() else value.encode(errors="backslashreplace").decode()
        case float() | Decimal():
            return float(value) if math.isfinite(value) else None
        case bytes():
            return digest(value)
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
    """Adds a line for each outcome to `metadata.jsonl` or `failures.jsonl` in a folder.

    Entering raises SinkError if the folder already has lists and `resumes` is false, or cannot be
    read.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        url: str = "",
        resumes: bool = False,
        unchecked: Iterable[str] = (),
    ) -> None:
        """`url` is that of the images, if they are not in the folder; `unchecked` names lists that
        were written from the journal, without settled types."""
        self.folder = Path(folder)
        self._root = OutputRoot(self.folder, url)
        self._unchecked = frozenset(unchecked)
        self._resumes = resumes
        self._threads = ThreadRunner(count=1)
        self._files: dict[str, int] = {}  # open handles by name; only the thread touches them
        self._types: dict[str, ColumnTypes] = {}  # by name; only the thread touches them
        self._lines = Coalescer(self._write)
        self._broken: SinkError | None = None

    def __repr__(self) -> str:
        return f"<MetadataWriter of {str(self.folder)!r}, {len(self._lines)} lines waiting>"

    async def __aenter__(self) -> Self:
        await self._threads.__aenter__()
        try:
            await self._threads.run(self._check_folder)
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
        """Add the outcome's line; it is in the file on return, and durable after closing.

        Raises SinkError for an error of the disk and from then on, because a line after half a
        line would be lost with it.
        """
        if self._broken is not None:
            raise self._broken
        if isinstance(outcome, Saved):
            await self._lines.add((METADATA, metadata_row(outcome, self._root)))
        else:
            await self._lines.add((FAILURES, failure_row(outcome, self.folder)))

    async def _write(self, lines: list[tuple[str, dict[str, Any]]]) -> None:
        try:
            await self._threads.run(self._append, lines)
        except SinkError as exc:
            self._broken = exc
            raise

    async def _close(self) -> None:
        await self._lines.finish()
        await self._threads.run(self._finish)

    def _check_folder(self) -> None:
        try:
            for name in (METADATA, FAILURES):
                check_regular(self.folder / name)  # before anything is paid
            if not self._resumes:
                check_fresh(self.folder)
        except OSError as exc:
            raise disk_error(self.folder, exc) from exc

    def _append(self, lines: list[tuple[str, dict[str, Any]]]) -> None:
        if self._broken is not None:
            raise self._broken
        for name in (METADATA, FAILURES):
            rows = [row for file, row in lines if file == name]
            try:
                if rows:
                    types = self._types_of(name)
                    if sum(map(types.observe, rows)):  # all are observed
                        self._retype(name, types)
                    text = b"".join(line_of(types.settled(row)) for row in rows)
                    write_all(self._opened(name), text)
            except OSError as exc:
                raise disk_error(self.folder / name, exc, in_use=True) from exc

    def _types_of(self, name: str) -> ColumnTypes:
        """Return the types of a list, read from its lines before the first is added."""
        if name not in self._types:
            self._types[name] = settle_types(self.folder / name)
        return self._types[name]

    def _retype(self, name: str, types: ColumnTypes) -> None:
        """Write the earlier lines again, after a column of theirs became text."""
        if (handle := self._files.pop(name, None)) is not None:
            os.close(handle)
        rewrite(self.folder / name, types)

    def _opened(self, name: str) -> int:
        if name not in self._files:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._files[name] = open_own(self.folder / name, flags)
        return self._files[name]

    def _finish(self) -> None:
        try:
            for name in self._unchecked - self._types.keys():
                settle_types(self.folder / name)
        except OSError as exc:
            raise disk_error(self.folder, exc, in_use=True) from exc
        finally:
            self._sync()

    def _sync(self) -> None:
        handles = list(self._files.values())
        try:
            for handle in handles:
                sync(handle)
            if handles:
                sync_folder(self.folder)
        except OSError as exc:
            raise disk_error(self.folder, exc, in_use=True) from exc
        finally:
            _close_all(handles)


def check_fresh(folder: Path) -> None:
    """Raise SinkError if the folder already holds the lists of a run."""
    if any(_size(folder / name) for name in (METADATA, FAILURES)):
        count = _count_lines(folder / METADATA)
        raise SinkError(f"{folder} already holds a run ({count} images): choose another folder")


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _count_lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with open_to_read(path) as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))


def _close_all(handles: Iterable[int]) -> None:
    for handle in handles:
        os.close(handle)
