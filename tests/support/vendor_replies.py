"""Answers as the vendors send them, for tests of decoding."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from fluxasync import BFL, COMETAPI, ImageRequest, Job
from fluxasync.extend import Reply, Verdict

REQUEST = ImageRequest(prompt="a red fox")
UUID = "4ca5b657-4b04-4afc-9c4b-7445c578d324"
WORD_ID = "1n6vvx3ykhrm80cphgnafcmvgg"
JOB = Job(job_id=UUID, request=REQUEST)
NOW = 5000.0  #: loop time of a poll's answer
SERVER_TIME = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HTML = b"<!DOCTYPE html><html><body>Bad gateway</body></html>"

both_dialects = pytest.mark.parametrize("provider", [BFL, COMETAPI], ids=lambda p: p.name)


def reply(body: Any = b"", status: int = 200, **headers: str) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=content,
    )


def envelope(code: str, message: str = "no (request id: 20260101)") -> dict[str, Any]:
    return {
        "error": {"message": message, "type": "comet_api_error", "param": "", "code": code},
    }


BAD_KEY = {"detail": "Not authenticated - Invalid Authentication"}

VERDICTS = {
    "-": Verdict.NOT_SENT,
    "R": Verdict.REFUSED,
    "X": Verdict.REJECTED,
    "J": Verdict.ACCEPTED,
    "?": Verdict.AMBIGUOUS,
}

ID_BAD = (
    None, "", 7, [UUID], {"id": UUID}, True, 1.5, "x" * 257, "a" * 10_000, "a\0b", "../x", "a/b",
    "a..b", "a b", " a", "a\n", "é", "\ud800", "-a", "<a>", 'a"b',
)  # fmt: skip
