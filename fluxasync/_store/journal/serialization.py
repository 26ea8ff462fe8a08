"""Requests, jobs and outcomes ↔ rows of the journal.

A row keeps what the metadata, a later poll and a person need. It never keeps the webhook and its
secret, the signed URL of an image, or image bytes, which their digest stands for. SQLite refuses
text with a lone surrogate, so such text is written with escapes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..._core.amounts import amount_of, amount_text
from ..._core.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    CreditError,
    DeadlineExceeded,
    DownloadError,
    Expired,
    FluxError,
    InvalidRequest,
    JobError,
    JobFailed,
    JobLost,
    Moderated,
    RateLimited,
    Redirected,
    ServerError,
    TransportError,
)
from ..._core.models import (
    NOT_LISTED,
    WEBHOOK_FIELDS,
    WIRE_FIELDS,
    Failed,
    ImageInput,
    ImageRequest,
    InDoubt,
    Job,
    Outcome,
    Saved,
    Stored,
)
from ..metadata import digest, kept_extras, shortened
from ..output_root import OutputRoot
from ..quarantine import is_quarantine_path
from .checked_row import (
    IMAGE,
    REQUEST,
    RESULT,
    Row,
    all_are,
    damaged,
    decoded,
    is_image,
    json_fault,
)
from .decisions import Discarded, Dropped
from .quarantined_row import is_quarantined, quarantined_of, recorded
from .schema import State

#: characters kept of raw evidence, of a message, and of a reported prompt: with escapes it fits
#: into a JSON column
_EVIDENCE, _MESSAGE, _PROMPT = 65_536, 2_048, 2**18

_FIELDS = tuple(name for name in WIRE_FIELDS if name not in WEBHOOK_FIELDS)

#: a URL with its query, which may hold a signature
_QUERY = re.compile(r"(https?:(?:\\*/){2}[^\s?\"'<>]+)\?[^\s\"'<>]*")

_ERRORS: dict[str, type[FluxError]] = {
    kind.cause: kind
    for kind in (
        FluxError, ConfigError, APIError, AuthenticationError, CreditError, InvalidRequest,
        RateLimited, Redirected, ServerError, DownloadError, Expired, Moderated, JobFailed,
        JobLost, DeadlineExceeded,
    )
}  # fmt: skip


_ERRORS |= {Dropped.cause: Dropped, Discarded.cause: Discarded}


# --- values → rows ------------------------------------------------------------------------------


def request_text(request: ImageRequest) -> str:
    """Return the fields of a request without a column of their own, as JSON.

    Raises ConfigError for values that JSON cannot hold.
    """
    kept: dict[str, Any] = {
        name: value for name in _FIELDS if (value := getattr(request, name)) is not None
    }
    if request.parameters:
        kept["parameters"] = _kept_parameters(request.parameters)
    if request.extra_body:
        kept["extra_body"] = _kept_parameters(request.extra_body)
    if request.extras:
        kept["extras"] = kept_extras(request.extras)
    if request.name is not None:
        kept["name"] = request.name
    if request.n != 1:
        kept["n"] = request.n
    return as_stored(kept)


def saved_values(saved: Saved, path: str | None) -> tuple[Any, ...]:
    """Return the columns of a done row, in the order of its SQL statement."""
    stored, job = saved.stored, saved.job
    result: dict[str, Any] = {"timings": saved.timings}
    if saved.seed is not None:
        result["seed"] = saved.seed
    request = saved.request or job.request
    if saved.prompt is not None and (request is None or saved.prompt != request.prompt):
        result["prompt"] = saved.prompt[:_PROMPT]
    elif saved.prompt is not None:
        result["same"] = 1
    cost = amount_text(saved.cost)
    return (
        cost, cost, saved.finished_at.timestamp(), path, bytes.fromhex(stored.sha256),
        stored.size, stored.format, stored.width, stored.height, as_stored(result),
    )  # fmt: skip


def failed_values(failed: Failed, folder: Path) -> tuple[Any, ...]:
    """Return cause, message, paid and details of a failure, then path, sha256 and size of its
    quarantined bytes, if they are in the folder's quarantine."""
    error = failed.error
    details: dict[str, Any] = {}
    if isinstance(error, APIError):
        details["status"] = error.status
    if isinstance(error, Moderated) and error.reasons:
        details["reasons"] = error.reasons
    kept = _quarantine_values(failed, folder)
    if kept[0] is not None:
        details |= recorded(failed, message(error))
    text = as_stored(details) if details else None
    return failed.cause, message(error), failed.paid, text, *kept


def _quarantine_values(failed: Failed, folder: Path) -> tuple[str | None, bytes | None, int | None]:
    kept = failed.quarantined
    if kept is None or kept.path is None:
        return None, None, None
    path = os.path.relpath(kept.path, folder)
    if not is_quarantine_path(path):  # of a sink elsewhere
        return None, None, None
    return path, bytes.fromhex(kept.sha256), kept.size


def evidence(error: FluxError) -> str | None:
    """Return the start of the reply that was no valid answer, without signatures."""
    found = getattr(error, "evidence", "")
    return storable(_QUERY.sub(r"\1?…", found)[:_EVIDENCE]) or None


def message(error: FluxError) -> str:
    return storable(_QUERY.sub(r"\1?…", str(error))[:_MESSAGE])


def storable(text: str) -> str:
    """Return the text with lone surrogates escaped, which SQLite refuses."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def amount(job: Job) -> str | None:
    """Return the best known cost of a job."""
    return amount_text(job.charge)


def as_stored(value: Any) -> str:
    """Return a value as JSON. Raises ConfigError for one that JSON or a row cannot hold."""
    try:
        text = _encode(value)
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, default=_kept, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigError(f"the request cannot be kept as JSON: {exc}") from exc
    if fault := json_fault(text):
        raise ConfigError(f"the request cannot be kept: as JSON it {fault}")
    return text


def _kept(value: Any) -> Any:
    match value:
        case ImageInput(url=str(url)):
            return {IMAGE: {"url": url}}
        case ImageInput(path=path, sha256=sha256):
            named = {} if path is None else {"path": storable(str(path))}
            return {IMAGE: named | {"sha256": sha256}}
        case Decimal():
            return float(value)
        case bytes():
            return digest(value)
        case Mapping():
            return dict(value)
    return str(value)


#: made once: `json.dumps` with options makes an encoder for each call
_encode = json.JSONEncoder(ensure_ascii=False, default=_kept, separators=(",", ":")).encode


def _kept_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: shortened(value) for name, value in given.items() if name not in WEBHOOK_FIELDS}


# --- rows → values ------------------------------------------------------------------------------


def request_of(row: Row) -> ImageRequest:
    """Return the request of a row, for metadata and collecting.

    Its long inputs are digests, so its own `key` may differ from the row's.
    """
    kept = decoded(row, "request", REQUEST)
    for name in ("parameters", "extra_body"):
        if name in kept:
            kept[name] = {key: _with_images(value) for key, value in kept[name].items()}
    try:
        if "image_prompt" in kept:
            kept["image_prompt"] = ImageInput.of(_with_images(kept["image_prompt"]))
        return ImageRequest(**kept, model=row.model, index=row.idx, occurrence=row.occurrence)
    except (ConfigError, TypeError) as exc:
        raise damaged("request", row.request, row.id) from exc


def _with_images(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_images(item) for item in value]
    if is_image(value):
        named = value[IMAGE]
        path = named.get("path")
        return ImageInput(
            url=named.get("url"), path=path and Path(path), sha256=named.get("sha256")
        )
    return value


def job_of(row: Row, request: ImageRequest) -> Job:
    return _job(row, request, _dollars(row.cost))


def _job(row: Row, request: ImageRequest, cost: Decimal | None) -> Job:
    assert row.job_id is not None  # noqa: S101 — checked by the caller
    return Job(
        job_id=row.job_id,
        polling_url=row.polling_url,
        request=request,
        provider=row.provider,
        account=row.account,
        submitted_at=_instant(row.submitted_at),
        price=_dollars(row.price),
        cost=cost,
    )


def known_of(
    row: Row, root: OutputRoot, request: ImageRequest | None = None
) -> Saved | Failed | InDoubt | Job | None:
    """Return the outcome of a row, its job if that is still to collect, or None.

    An open intent counts as in doubt. `request` is the caller's own, if there is one.
    """
    given = request_of(row) if request is None else request
    if row.state == State.SUBMITTED:
        return job_of(row, given)
    return None if row.state == State.AGAIN else outcome_of(row, root, given)


def outcome_of(row: Row, root: OutputRoot, request: ImageRequest) -> Outcome:
    """Return the outcome of a settled row; a job past its deadline is a failure."""
    if row.state == State.DONE:
        return _saved_of(row, root, request)
    if row.state in (State.FAILED, State.SUBMITTED):
        return _failed_of(row, root.folder, request)
    text = row.message or "the run ended before the answer came"
    error = TransportError(text, sent=True, evidence=row.evidence or "")
    return InDoubt(
        request=request,
        error=error,
        index=request.index,
        price=_dollars(row.price),
        is_unlisted=row.cause == NOT_LISTED,
    )


def _saved_of(row: Row, root: OutputRoot, request: ImageRequest) -> Saved:
    result = decoded(row, "result", RESULT)
    timings: dict[str, float] = result.get("timings", {})
    if not all_are(timings.values(), {int, float}):
        raise damaged("result", row.result, row.id)
    path, place = root.located(row.path)
    stored = Stored(
        path=path,
        place=place,
        size=row.size or 0,
        sha256=(row.sha256 or b"").hex(),
        format=row.format or "",
        width=row.width or 0,
        height=row.height or 0,
    )
    cost = _dollars(row.cost)
    return Saved(
        request=request,
        job=_job(row, request, None if cost == _dollars(row.price) else cost),
        stored=stored,
        index=request.index,
        seed=result.get("seed", request.seed),
        prompt=request.prompt if "same" in result else result.get("prompt"),
        cost=cost,
        finished_at=_instant(row.finished_at),
        timings=timings,
    )


def gives_up_job(row: Row) -> bool:
    """Whether a retry of a failed row pays without a look at its job: its user has discarded the
    image, or it is another request's, which a later session cannot see."""
    is_swap = row.cause == JobFailed.cause and is_quarantined(row)
    return row.cause == Discarded.cause or is_swap


def note_recorded(failed: Failed, row: Row | None, folder: Path) -> None:
    """Add to a failure the quarantined bytes of its row, with the first recorded reason."""
    error = failed.error
    if row is not None and isinstance(error, JobError | DownloadError):
        prompt = "" if failed.request is None else failed.request.prompt
        error.quarantined = quarantined_of(row, folder, prompt)


def _failed_of(row: Row, folder: Path, request: ImageRequest) -> Failed:
    job = None if row.job_id is None else job_of(row, request)
    error = _error_of(row, job)
    if isinstance(error, JobError | DownloadError):
        error.quarantined = quarantined_of(row, folder, request.prompt)
    return Failed(request=request, error=error, index=request.index, job=job)


def _error_of(row: Row, job: Job | None) -> FluxError:
    text, details = row.message or "", decoded(row, "result", RESULT)
    reasons: list[str] = details.get("reasons", [])
    if not all_are(reasons, {str}):
        raise damaged("result", row.result, row.id)
    kind = _ERRORS.get(row.cause or "", FluxError)
    if row.cause == TransportError.cause:
        return TransportError(text, sent=True)
    if issubclass(kind, APIError):
        return kind(text, status=details.get("status", 0))
    if issubclass(kind, JobError | DownloadError):
        if job is None:
            return FluxError(text)
        if kind is Moderated:
            return Moderated(text, job=job, reasons=tuple(reasons))
        return kind(text, job=job)
    return kind(text)


def _dollars(text: str | None) -> Decimal | None:
    return None if text is None else amount_of(text)


def _instant(seconds: float | None) -> datetime:
    return datetime.fromtimestamp(seconds or 0, UTC)
