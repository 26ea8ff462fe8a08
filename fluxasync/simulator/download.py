"""The blob store: serves images under signed, expiring URLs.

The signature is compared byte for byte with path and query, and contains all characters that a
client might re-encode: %2B, %2F, %3D, %3A and a slash. An Authorization header with a signed URL
is refused with 400, as Azure does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

from attrs import evolve

from .dialects import Answer, html_answer, json_answer, xml_answer
from .images import Picture
from .jobs import Job
from .scenario import SeededRandom
from .state import State

_RANGE = re.compile(r"bytes=(\d+-\d*|-\d+)")
_EXPIRED = "Signature not valid in the specified time frame"
_FAULTS = (
    "download-503", "download-reset", "html-as-image", "truncated", "wrong-bytes", "slow",
)  # fmt: skip


def image_path(rng: SeededRandom, number: int, form: str, *, is_flux2: bool, wall: float) -> str:
    """Return the path of an image, in one of the two recorded layouts."""
    name = rng.hex("blob", number, digits=32)
    if is_flux2:
        return f"/results/{datetime.fromtimestamp(wall, UTC):%Y/%m/%d}/{name}_sample.{form}"
    return f"/results/{name[:2]}/{name[2:16]}/{name}/sample.{form}"


def signed_path(rng: SeededRandom, path: str, form: str, *, expires_wall: float, nth: int) -> str:
    """Return path and query of an image's nth URL; `se` has whole seconds."""
    expires = datetime.fromtimestamp(expires_wall, UTC).strftime("%Y-%m-%dT%H%%3A%M%%3A%SZ")
    parts = [rng.hex("signature", path, nth, part, digits=12) for part in range(4)]
    signature = f"{parts[0]}%2B{parts[1]}/{parts[2]}%2F{parts[3]}%3D"
    return f"{path}?se={expires}&sp=r&sv=2024-11-04&sr=b&rsct=image/{form}&sig={signature}"


def live_url(state: State, now: float, job: Job) -> str:
    """Return the last URL, or a new one if it has expired and the scenario allows that."""
    if job.urls:
        last = next(reversed(job.urls))
        if now < job.urls[last] or not state.scenario.fresh_urls:
            return state.delivery + last
    created_at = now if job.urls else job.ends_at
    expires_at = created_at + state.scenario.url_lifetime
    form = state.gallery.format_of(job.picture)
    url = signed_path(
        state.id_rng, job.path, form, expires_wall=state.epoch + expires_at, nth=len(job.urls)
    )
    job.urls[url] = expires_at
    return state.delivery + url


class DownloadEndpoint:
    """Answers GET of a signed URL."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.downloads = 0

    def answer(self, now: float, path_query: str, headers: Mapping[str, str]) -> Answer:
        self.downloads += 1
        job = self._state.jobs.by_path(now, path_query.partition("?")[0])
        if job is None:
            return xml_answer(404, "BlobNotFound", "The specified blob does not exist.")
        return self._refusal(now, job, path_query, headers) or self._served(now, job, headers)

    def _refusal(
        self, now: float, job: Job, path_query: str, headers: Mapping[str, str]
    ) -> Answer | None:
        if "authorization" in headers:
            why = "Authorization header and signed URL exclude each other."
            return xml_answer(400, "InvalidAuthenticationInfo", why)
        expires_at = job.urls.get(path_query)
        if expires_at is None:
            return _forbidden("Signature did not match.")
        if now >= expires_at:
            return _forbidden(_EXPIRED)
        job.fetches += 1
        if self._state.first_fault(("expired",), job.number, nth=job.fetches):
            job.urls[path_query] = now
            return _forbidden(_EXPIRED)
        return None

    def _served(self, now: float, job: Job, headers: Mapping[str, str]) -> Answer:
        state = self._state
        picture = state.gallery.picture(job.picture)
        answer = _image(picture, headers, wall=state.epoch + job.ends_at)
        if answer.status not in (200, 206):
            return answer
        fault = state.first_fault(_FAULTS, job.number, nth=job.fetches)
        if fault in (None, "slow"):
            if not job.charge.delivered:
                state.log.delivered(job)
            state.charge_log.deliver(job.charge, at=now)
        return answer if fault is None else self._with_fault(fault, answer, job)

    def _with_fault(self, fault: str, answer: Answer, job: Job) -> Answer:
        """Apply a fault to an answer."""
        match fault:
            case "download-503":
                return json_answer({"error": "Server Busy"}, 503)
            case "download-reset":
                return evolve(answer, drop="tear")
            case "html-as-image":
                headers = {"Content-Type": answer.headers["Content-Type"]}
                return evolve(html_answer(200, "Sign in to the network"), headers=headers)
            case "wrong-bytes":
                return evolve(answer, body=_flipped(answer.body))
            case "slow":
                return evolve(answer, bytes_per_second=self._state.scenario.slow_bytes_per_second)
        if self._state.rng.uniform("truncated with length", job.number) < 0.5:
            return evolve(answer, drop="cut")
        kept = {k: v for k, v in answer.headers.items() if k != "Content-MD5"}
        half = answer.body[: len(answer.body) // 2]
        return evolve(answer, headers=kept, body=half, has_length=False)


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]


def _forbidden(why: str) -> Answer:
    detail = f"<AuthenticationErrorDetail>{why}</AuthenticationErrorDetail>"
    message = "Server failed to authenticate the request. Check the signature."
    return xml_answer(403, "AuthenticationFailed", message, detail)


def _image(picture: Picture, headers: Mapping[str, str], *, wall: float) -> Answer:
    """Return the image, or the requested range of it."""
    fields = {
        "Accept-Ranges": "bytes",
        "Content-Type": f"image/{picture.format}",
        "ETag": picture.etag,
        "Last-Modified": format_datetime(datetime.fromtimestamp(wall, UTC), usegmt=True),
        "Server": "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-version": "2024-11-04",
    }
    if headers.get("if-match", picture.etag) not in (picture.etag, "*"):
        return xml_answer(412, "ConditionNotMet", "The condition was not met.")
    span = _span(headers.get("range"), len(picture.body))
    if span is None:
        return Answer(headers=fields | {"Content-MD5": picture.md5}, body=picture.body)
    first, last = span
    if first > last:
        return xml_answer(416, "InvalidRange", "The range is invalid for this blob.")
    fields["Content-Range"] = f"bytes {first}-{last}/{len(picture.body)}"
    return Answer(status=206, headers=fields, body=picture.body[first : last + 1])


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """Return first and last byte of a range; first > last: no bytes; None: the complete body."""
    match = _RANGE.fullmatch((header or "").strip())
    if match is None:
        return None
    start, _, end = match[1].partition("-")
    if not start:
        return max(0, size - int(end)), size - 1
    return int(start), min(int(end or size - 1), size - 1)
