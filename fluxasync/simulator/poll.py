"""Answers polls: the state of a job, and the URL of its image.

BFL's regional hosts know only their own jobs (BFL docs: "must use the polling_url"); CometAPI's
gateway knows all of its jobs. Every successful poll has a Retry-After of 0 or 1, as recorded
answers have.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from .dialects import DIALECTS, Answer, DialectName, html_answer, json_answer, task_body
from .download import live_url
from .jobs import Job, failure_of
from .state import State, key_of

_CREDITS = Decimal(100)  # of one US dollar
_WINDOW_LIMIT = 1200  # X-RateLimit-Limit of successful polls, per second
_REASONS = ("Derivative Works Filter", "Safety Filter", "Sexual Content")
_UNKNOWN_STATUSES = ("Reasoning", "Uploading", "Generating", "Queued", "Simmering")
_FAULTS = ("poll-reset", "poll-502-html", "poll-500", "poll-429")


class PollEndpoint:
    """Answers GET …/get_result."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.polls = 0
        self.seen = 0  #: jobs whose terminal status was answered
        self.lag = 0.0  #: total seconds from their ends to that answer
        self.last_seen: float | None = None  #: time of the last such answer
        self._window = (0, 0)  # second, polls in it

    def answer(
        self,
        now: float,
        dialect: DialectName,
        job_id: str,
        headers: Mapping[str, str],
        host_region: str | None,
    ) -> Answer:
        self.polls += 1
        refusal = self._key_refusal(now, dialect, headers) or self._rate_refusal(now, dialect)
        if refusal is not None:
            return refusal
        job = self._state.jobs.by_id(now, job_id)
        if job is None or job.dialect != dialect:
            return DIALECTS[dialect].not_found(job_id)
        if dialect == "bfl" and job.region != host_region:
            return json_answer({"detail": "Not Found"}, 404)
        job.polls += 1
        return self._fault(now, job) or self._task(now, job)

    def _key_refusal(
        self, now: float, dialect: DialectName, headers: Mapping[str, str]
    ) -> Answer | None:
        """Refuse a wrong key. A revoked key may still poll the jobs it paid for."""
        key, required = key_of(dialect, headers), self._state.scenario.key
        is_free = dialect == "bfl" and key is None  # BFL openapi: get_result needs no key
        if required is None or key == required or is_free:
            return None
        return DIALECTS[dialect].bad_key(key is not None, self._state.request_id(now))

    def _rate_refusal(self, now: float, dialect: DialectName) -> Answer | None:
        second, limit = int(now), self._state.scenario.poll_rate_limit
        self._window = (second, self._window[1] + 1 if self._window[0] == second else 1)
        if limit is None or self._window[1] <= limit:
            return None
        state = self._state
        return DIALECTS[dialect].too_many("polls", state.request_id(now), state.retry_after)

    def _fault(self, now: float, job: Job) -> Answer | None:
        state, words = self._state, DIALECTS[job.dialect]
        misses = 1 + state.rng.integer("misses", job.number, below=3)
        if job.polls <= misses * state.scenario.repeats and state.takes_fault(
            "not-found-first", job.number
        ):
            return words.not_found(job.id)
        match state.first_fault(_FAULTS, job.number, nth=job.polls):
            case "poll-reset":
                return Answer(drop="reset")
            case "poll-502-html":
                return html_answer(502, "502 Bad Gateway")
            case "poll-500":
                return words.broken(state.request_id(now))
            case "poll-429":
                return words.too_many("polls", state.request_id(now), state.retry_after)
        return None

    # --------------------------------------------------------------------------------- the answer

    def _task(self, now: float, job: Job) -> Answer:
        if now < job.ends_at:
            return self._successful(now, self._running(now, job))
        if job.seen_at is None:
            job.seen_at = now
            self.seen, self.lag, self.last_seen = self.seen + 1, self.lag + now - job.ends_at, now
        if job.final_status == "Ready":
            return self._successful(now, self._ready(now, job))
        if job.final_status == "Error":
            status, why = failure_of(self._state.rng, job)
            body = task_body(job.id, "Error", details={"error": why})
            return self._successful(now, body) if status == 200 else json_answer(body, status)
        reason = _REASONS[self._state.rng.integer("reason", job.number, below=len(_REASONS))]
        details = {"Moderation Reasons": [reason]}
        return self._successful(now, task_body(job.id, job.final_status, details=details))

    def _running(self, now: float, job: Job) -> dict[str, Any]:
        status = "Pending"
        if self._state.takes_fault("unknown-status", job.number):
            nth = self._state.rng.integer(
                "word", job.number, job.polls, below=len(_UNKNOWN_STATUSES)
            )
            status = _UNKNOWN_STATUSES[nth]
        if job.model.is_flux2 or not self._state.scenario.reports_progress:
            return task_body(job.id, status)
        share = (now - job.started_at) / max(job.ends_at - job.started_at, 1e-9)
        return task_body(job.id, status, progress=round(min(1.0, 0.1 + share), 1))

    def _ready(self, now: float, job: Job) -> dict[str, Any]:
        epoch = self._state.epoch
        result: dict[str, Any] = {
            "sample": live_url(self._state, now, job),
            "prompt": job.result_prompt,
            "seed": job.picture.seed,
            "start_time": epoch + job.started_at,
        }
        if not job.model.is_flux2 and self._state.scenario.reports_progress:
            result["end_time"] = epoch + job.ends_at
            result["duration"] = job.ends_at - job.started_at
        body = task_body(job.id, "Ready", result=result)
        if job.dialect == "bfl" and not job.model.is_flux2:
            body["cost"] = float(job.charge.price_usd * _CREDITS)
        return body

    def _successful(self, now: float, body: dict[str, Any]) -> Answer:
        return json_answer(
            body,
            Retry_After=str(self.polls % 2),
            X_RateLimit_Limit=str(_WINDOW_LIMIT),
            X_RateLimit_Remaining=str(max(0, _WINDOW_LIMIT - self._window[1])),
            X_RateLimit_Reset=f"{self._state.epoch + int(now) + 1:.4f}",
        )
