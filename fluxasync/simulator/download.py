"""The blob store that hands out finished images by signed, expiring URLs.

Pure. The signature is checked byte for byte over path and query, as a store's is, so it holds all
that a client might re-quote: %2B, %2F, %3D, %3A and a raw slash. Odd fact: to a store, an
Authorization header beside a signed URL is a bad request (Azure, 400).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

from attrs import evolve

from .answers import Answer, html_answer, json_answer, xml_answer
from .images import Picture
from .jobs import Job
from .seeded_random import SeededRandom
from .state import State

_RANGE = re.compile(r"bytes=(\d+-\d*|-\d+)")
_OUT_OF_TIME = "Signature not valid in the specified time frame"
_FAULTS = (
    "download-503", "download-reset", "html-as-image", "truncated", "wrong-bytes", "slow",
)  # fmt: skip


def image_path(dice: SeededRandom, number: int, form: str, *, is_flux2: bool, wall: float) -> str:
    """Where an image lies: the two layouts that were seen."""
    name = dice.hex("blob", number, digits=32)
    if is_flux2:
        return f"/results/{datetime.fromtimestamp(wall, UTC):%Y/%m/%d}/{name}_sample.{form}"
    return f"/results/{name[:2]}/{name[2:16]}/{name}/sample.{form}"


def signed_path(dice: SeededRandom, path: str, form: str, *, expires_wall: float, nth: int) -> str:
    """The path and query of an image's nth URL; `se` is told in whole seconds."""
    expires = datetime.fromtimestamp(expires_wall, UTC).strftime("%Y-%m-%dT%H%%3A%M%%3A%SZ")
    parts = [dice.hex("signature", path, nth, part, digits=12) for part in range(4)]
    signature = f"{parts[0]}%2B{parts[1]}/{parts[2]}%2F{parts[3]}%3D"
    return f"{path}?se={expires}&sp=r&sv=2024-11-04&sr=b&rsct=image/{form}&sig={signature}"


class Deliveries:
    """Answers GET of a signed URL."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.downloads = 0

    def answer(self, now: float, path_query: str, headers: Mapping[str, str]) -> Answer:
        self.downloads += 1
        job = self._state.jobs.by_path(now, path_query.partition("?")[0])
        if job is None:
            return xml_answer(404, "BlobNotFound", "The specified blob does not exist.")
        return self._refusal(now, job, path_query, headers) or self._fetched(now, job, headers)

    def _refusal(
        self, now: float, job: Job, path_query: str, headers: Mapping[str, str]
    ) -> Answer | None:
        if "authorization" in headers:
            why = "Authorization header and signed URL exclude each other."
            return xml_answer(400, "InvalidAuthenticationInfo", why)
        dies = job.urls.get(path_query)
        if dies is None:
            return _forbidden("Signature did not match.")
        if now >= dies:
            return _forbidden(_OUT_OF_TIME)
        job.fetches += 1
        if self._state.first_of(("expired",), job.number, nth=job.fetches):
            job.urls[path_query] = now
            return _forbidden(_OUT_OF_TIME)
        return None

    def _fetched(self, now: float, job: Job, headers: Mapping[str, str]) -> Answer:
        state = self._state
        picture = state.gallery.picture(job.picture)
        answer = _image(picture, headers, wall=state.epoch + job.ends_at)
        if answer.status not in (200, 206):
            return answer
        fault = state.first_of(_FAULTS, job.number, nth=job.fetches)
        if fault in (None, "slow"):
            if not job.charge.delivered:
                state.log.delivered(job)
            state.books.deliver(job.charge, at=now)
        return answer if fault is None else self._spoiled(fault, answer, job)

    def _spoiled(self, fault: str, answer: Answer, job: Job) -> Answer:
        """The answer as a fault leaves it."""
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
        if self._state.dice.roll("truncated with length", job.number) < 0.5:
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
    """The picture, or the range of it that was asked for."""
    told = {
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
        return Answer(headers=told | {"Content-MD5": picture.md5}, body=picture.body)
    first, last = span
    if first > last:
        return xml_answer(416, "InvalidRange", "The range is invalid for this blob.")
    told["Content-Range"] = f"bytes {first}-{last}/{len(picture.body)}"
    return Answer(status=206, headers=told, body=picture.body[first : last + 1])


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte asked for; first > last when there are none; None = the whole."""
    asked = _RANGE.fullmatch((header or "").strip())
    if asked is None:
        return None
    start, _, end = asked[1].partition("-")
    if not start:
        return max(0, size - int(end)), size - 1
    return int(start), min(int(end or size - 1), size - 1)
