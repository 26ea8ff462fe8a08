"""Answers the account's calls: balance, list of tasks, usage log; no call is charged.

CometAPI's paths and shapes are those of its command `cometapi-cli` 0.3.10 and of the gateway
QuantumNous/new-api (`model/task.go`, `model/log.go`), read on 2026-11-29; BFL has the balance in
credits. The lists have what the record of charges has, newest first, also the jobs whose answer was
lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

from attrs import frozen

from .dialects import DIALECTS, Answer, DialectName, html_answer, json_answer
from .jobs import Job
from .state import State, key_of

BILLING = "/v1/dashboard/billing/"
USER = "/api/user/self"
TASKS = "/api/task/self"
LOG = "/api/log/self"

_UNLIMITED = Decimal(1_000_000)  # credits that are reported if the scenario sets none
_UNITS = 500_000  # of quota in one US dollar
_UNLIMITED_USD = 100_000_000  # the limit of a key without one
_MOST_ROWS = 100  # of a page
_LATE = 600.0  # seconds that the fault task-late adds
_KEPT = 100_000
_CONSUMED, _REFUNDED = 2, 6
_FAILED = ("Error", "Request Moderated", "Content Moderated")


@frozen
class Entry:
    """One job of the account, and as CometAPI's lists show it."""

    number: int
    dialect: DialectName
    job_id: str
    model: str
    prompt: str
    price_usd: Decimal
    at: float  #: seconds on the server's clock
    ends_at: float
    final_status: str

    @classmethod
    def of(cls, job: Job) -> Entry:
        charge = job.charge
        return cls(
            job.number, job.dialect, job.id, job.model.name, charge.prompt,
            charge.price_usd, charge.at, job.ends_at, job.final_status,
        )  # fmt: skip

    @property
    def quota(self) -> int:
        return int(self.price_usd * _UNITS)


class AccountEndpoint:
    """Answers the GETs of the account."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._entries: deque[Entry] = deque(maxlen=_KEPT)
        self._calls = 0

    @staticmethod
    def has(path: str) -> bool:
        """Whether a path is one of the account's at CometAPI."""
        return path.startswith(BILLING) or path in (USER, TASKS, LOG)

    def add(self, job: Job) -> None:
        """Note an accepted job: CometAPI lists it, and both give its charge back if it fails."""
        self._entries.append(Entry.of(job))

    def credits(self, now: float, headers: Mapping[str, str]) -> Answer:
        """Answer GET /v1/credits of BFL."""
        state, key = self._state, key_of("bfl", headers)
        if state.scenario.key not in (None, key):
            return DIALECTS["bfl"].bad_key(key is not None, state.request_id(now))
        return json_answer({"credits": float(self._left(now))})

    def answer(self, now: float, path: str, query: str, headers: Mapping[str, str]) -> Answer:
        """Answer a GET of CometAPI's account; `query` is what follows the question mark."""
        self._calls += 1
        scenario, token = self._state.scenario, key_of("comet", headers)
        by_key = path.startswith(BILLING)
        required = scenario.key if by_key else scenario.access_token
        if required not in (None, token) or self._takes("list-401"):
            if by_key:
                return DIALECTS["comet"].bad_key(token is not None, self._state.request_id(now))
            return _refusal("Unauthorized, invalid access token", 401)
        if self._takes("list-html"):
            return html_answer(200, "All models in one API")
        if self._takes("list-false"):
            return _refusal("database is locked")
        if by_key:
            return self._billing(now, path.removeprefix(BILLING))
        if path == USER:
            used = int(self._spent(now) * _UNITS)
            return _success({"quota": int(self._left(now) * _UNITS / 100), "used_quota": used})
        return self._page(self._rows(now, path), parse_qs(query))

    # ----------------------------------------------------------------------------------- balance

    def _spent(self, now: float) -> Decimal:
        """Return US dollars: all charges without those that were given back."""
        refunded = sum(
            (e.price_usd for e in self._entries if self._is_refunded(now, e)), Decimal(0)
        )
        return self._state.charge_log.spent_usd - refunded

    def _left(self, now: float) -> Decimal:
        """Return the balance in credits."""
        balance = self._state.scenario.credits
        balance = _UNLIMITED if balance is None else balance
        return Decimal(0) if self._state.out_of_credit else balance - self._spent(now) * 100

    def _billing(self, now: float, name: str) -> Answer:
        spent, credits = self._spent(now), self._state.scenario.credits
        if name == "subscription":
            limit = _UNLIMITED_USD if credits is None else float(credits / 100)
            return json_answer({"object": "billing_subscription", "hard_limit_usd": limit})
        if name == "usage":
            return json_answer({"object": "list", "total_usage": float(spent * 100)})
        return json_answer({"error": {"message": f"Invalid URL (GET {BILLING}{name})"}}, 404)

    # ------------------------------------------------------------------------------------- lists

    def _is_refunded(self, now: float, entry: Entry) -> bool:
        is_failed = entry.final_status in _FAILED and now >= entry.ends_at
        return self._state.scenario.refunds and is_failed

    def _has(self, fault: str, entry: Entry) -> bool:
        """Whether a job has a fault; counted once for each list that it changes."""
        return self._state.takes_fault(fault, entry.number)

    def _takes(self, fault: str) -> bool:
        return self._state.takes_fault(fault, self._calls)

    def _rows(self, now: float, path: str) -> list[dict[str, Any]]:
        """Return all rows of a list, newest first."""
        listed = [entry for entry in self._entries if entry.dialect == "comet"]  # BFL has no list
        if path == LOG:
            rows = [row for entry in listed for row in self._log_rows(now, entry)]
            rows.sort(key=lambda row: row["created_at"], reverse=True)
            return [row | {"id": place} for place, row in enumerate(rows, start=1)]
        return [
            self._task_row(now, entry) for entry in reversed(listed) if self._is_listed(now, entry)
        ]

    def _is_listed(self, now: float, entry: Entry) -> bool:
        late = _LATE if self._has("task-late", entry) else 0.0
        is_due = now >= entry.at + self._state.scenario.list_delay + late
        return is_due and not self._has("task-unlisted", entry)

    def _task_row(self, now: float, entry: Entry) -> dict[str, Any]:
        submitted, is_over = self._wall(entry.at), now >= entry.ends_at
        is_failed = entry.final_status in _FAILED
        ended = ("FAILURE", "100%") if is_failed else ("SUCCESS", "100%")
        status, progress = ended if is_over else ("IN_PROGRESS", "30%")
        return {
            "id": entry.number,
            "created_at": submitted,
            "task_id": entry.job_id,
            "platform": "bfl" if self._has("task-platform", entry) else "flux",
            "action": "generate",
            "status": status,
            "fail_reason": entry.final_status if is_over and is_failed else "",
            "submit_time": submitted,
            "start_time": submitted,
            "finish_time": self._wall(entry.ends_at) if is_over else 0,
            "progress": progress,
            "quota": entry.quota,
            "properties": {"input": entry.prompt, "origin_model_name": entry.model},
        }

    def _log_rows(self, now: float, entry: Entry) -> list[dict[str, Any]]:
        row = {
            "created_at": self._wall(entry.at),
            "type": _CONSUMED,
            "model_name": entry.model,
            "token_name": "default",
            "quota": entry.quota,
            "request_id": self._state.rng.hex("log", entry.number, digits=20),
            "content": f"model price ${entry.price_usd}",
            "other": f'{{"model_price":{entry.price_usd},"request_path":"/flux/v1/{entry.model}"}}',
        }
        if not self._is_refunded(now, entry):
            return [row]
        refund = {"created_at": self._wall(entry.ends_at), "type": _REFUNDED}
        return [row, row | refund | {"content": f"task {entry.job_id} failed: refunded"}]

    def _wall(self, at: float) -> int:
        return int(self._state.epoch + at)

    def _page(self, rows: list[dict[str, Any]], asked: dict[str, list[str]]) -> Answer:
        def number(name: str, default: int) -> int:
            text = asked.get(name, [""])[0]
            return int(text) if text.isascii() and text.isdigit() else default

        since, until = number("start_timestamp", 0), number("end_timestamp", 2**62)
        platform = asked.get("platform", [""])[0]
        rows = [
            row
            for row in rows
            if since <= row["created_at"] <= until and platform in ("", row.get("platform"))
        ]
        size = min(max(number("page_size", 10), 1), _MOST_ROWS)
        page = max(number("p", 1), 1)
        start, end = (page - 1) * size, page * size
        if 0 < start < len(rows) and self._takes("list-repeats"):
            start -= 1
        items = [] if page > 1 and self._takes("list-cut") else rows[start:end]
        return _success({"page": page, "page_size": size, "total": len(rows), "items": items})


def _success(found: Any) -> Answer:
    return json_answer({"success": True, "message": "", "data": found})


def _refusal(message: str, status: int = 200) -> Answer:
    return json_answer({"success": False, "message": message}, status)
