"""The callbacks of jobs: which are due, to which URL, and again after which answers.

BFL's skills repository: a receiver answers 2xx within 30 seconds; after any other answer, or none,
the callback is sent again after 1, 5 and 30 seconds, then never.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from heapq import heappop, heappush
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from attrs import evolve, field, frozen

from .download import live_url
from .jobs import Job, Webhook, failure_of
from .state import State
from .webhook_forms import (
    VENDOR_FORMS,
    WebhookForm,
    encode,
    failure_payload,
    progress_payload,
    success_payload,
)

#: seconds from a failed try to the next one
_RETRY_DELAYS = (1.0, 5.0, 30.0)
_REPEATS = 5  # of a callback with hook-repeats
_LATE = (10.0, 60.0)  # seconds from the end to the callback with hook-late
_DISORDER = (0.1, 1.0)  # seconds from the last callback to the progress event with hook-disorder


@frozen(kw_only=True)
class Callback:
    """One POST that is due to a `webhook_url`. Its URL, headers and body may contain secrets.

    `due` is in seconds on the world's clock; `attempt` counts the tries from 1.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    due: float
    job_id: str  #: of the job whose webhook this is; a false body names another one
    attempt: int = 1
    is_false: bool = False  #: forged or replayed: not from the provider, so sent only once


class WebhookQueue:
    """Callbacks by due time. `only_local` leaves out URLs that are not on this machine or network.

    Without it, the simulator would tell a real application about simulated jobs, with the
    application's own secret.
    """

    def __init__(self, state: State, *, only_local: bool) -> None:
        self._state = state
        self._only_local = only_local
        self._due: list[tuple[float, int, Callable[[], Callback]]] = []
        self._added = 0
        self._last_final: Callback | None = None  # of an earlier job, for hook-replay
        self.counts: Counter[str] = Counter()
        self.added: Callable[[], None] | None = None  #: called whenever a callback is added

    @property
    def next_at(self) -> float | None:
        """When the next callback is due; None: there is none."""
        return self._due[0][0] if self._due else None

    def take(self, now: float) -> list[Callback]:
        """Remove and return the callbacks that are due, the earliest first."""
        found = []
        while self._due and self._due[0][0] <= now:
            found.append(heappop(self._due)[2]())
            self.counts["sent"] += 1
        return found

    def answered(self, now: float, callback: Callback, status: int | None) -> None:
        """Count a receiver's answer and send again later if it was not 2xx. None: no answer."""
        if status is not None and 200 <= status < 300:
            self.counts["delivered"] += 1
        elif callback.is_false:
            self.counts["refused"] += 1
        elif callback.attempt > len(_RETRY_DELAYS):
            self.counts["abandoned"] += 1
        else:
            self.counts["retried"] += 1
            due = now + _RETRY_DELAYS[callback.attempt - 1]
            again = evolve(callback, due=due, attempt=callback.attempt + 1)
            self._add(due, lambda: again)

    def accepted(self, job: Job) -> None:
        """Plan the callbacks of an accepted job."""
        hook, state, number = job.webhook, self._state, job.number
        if hook is None:
            return
        if self._only_local and not is_local(hook.url):
            self.counts["external"] += 1
            return
        self._plan_false(job, hook)
        if state.takes_fault("hook-lost", number):
            return
        late = 0.0
        if state.takes_fault("hook-late", number):
            late = self._seconds("late", number, _LATE)
        if self._form(job).payload == "progress":
            for percent in (0, 50):
                at = job.started_at + percent / 100 * (job.ends_at - job.started_at) + late
                self._add(at, partial(self._progress, job, hook, percent, at))
        if job.final_status == "Pending":
            return
        ends_at = job.ends_at + late
        for _ in range(_REPEATS if state.takes_fault("hook-repeats", number) else 1):
            self._add(ends_at, partial(self._final, job, hook, ends_at))
        if state.takes_fault("hook-disorder", number):
            at = ends_at + self._seconds("disorder", number, _DISORDER)
            self._add(at, partial(self._progress, job, hook, 50, at))

    # ---------------------------------------------------------------------------------- contents

    def _form(self, job: Job) -> WebhookForm:
        return self._state.scenario.webhooks or VENDOR_FORMS[job.dialect]

    def _callback(
        self, job: Job, hook: Webhook, at: float, payload: Mapping[str, Any], secret: str | None
    ) -> Callback:
        headers, body = encode(self._form(job), payload, secret)
        return Callback(url=hook.url, headers=headers, body=body, due=at, job_id=job.id)

    def _progress(self, job: Job, hook: Webhook, percent: int, at: float) -> Callback:
        return self._callback(job, hook, at, progress_payload(job, percent), hook.secret)

    def _final(self, job: Job, hook: Webhook, at: float) -> Callback:
        state, form = self._state, self._form(job)
        if job.final_status == "Ready":
            sample = live_url(state, at, job)
            payload = success_payload(form, job, sample=sample, epoch=state.epoch)
        else:
            moderated = job.final_status != "Error"
            payload = failure_payload(
                form,
                job,
                error="content_policy_violation" if moderated else "generation_failed",
                message=job.final_status if moderated else failure_of(state.rng, job)[1],
                epoch=state.epoch,
            )
        callback = self._callback(job, hook, at, payload, hook.secret)
        self._last_final = callback
        return callback

    # ------------------------------------------------------------------------------------- faults

    def _plan_false(self, job: Job, hook: Webhook) -> None:
        """Plan what others than the provider send to a webhook's URL."""
        at = (job.started_at + job.ends_at) / 2
        if self._state.takes_fault("hook-forged", job.number):
            self._add(at, partial(self._forged, job, hook, at))
        last = self._last_final
        if last is not None and self._state.takes_fault("hook-replay", job.number):
            replayed = evolve(last, url=hook.url, due=at, job_id=job.id, attempt=1, is_false=True)
            self._add(at, lambda: replayed)

    def _forged(self, job: Job, hook: Webhook, at: float) -> Callback:
        """Return a success of a job that does not exist, signed with a wrong secret."""
        state = self._state
        unknown = str(UUID(state.id_rng.hex("forged", job.number, digits=32), version=4))
        sample = f"http://images.attacker.invalid/results/{unknown}/sample.jpeg"
        payload = success_payload(
            self._form(job), evolve(job, id=unknown), sample=sample, epoch=state.epoch
        )
        wrong = None if hook.secret is None else state.id_rng.hex("wrong", job.number, digits=32)
        return evolve(self._callback(job, hook, at, payload, wrong), is_false=True)

    def _seconds(self, name: str, number: int, bounds: tuple[float, float]) -> float:
        low, high = bounds
        return low + (high - low) * self._state.rng.uniform("hook", name, number)

    def _add(self, due: float, make: Callable[[], Callback]) -> None:
        self._added += 1
        heappush(self._due, (due, self._added, make))
        if self.added is not None:
            self.added()


def is_local(url: str) -> bool:
    """Whether a URL is on this machine or its network: a private address, or a name without dots
    (localhost, or a container)."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme not in ("http", "https"):
        return False
    try:
        address = ip_address(host)
    except ValueError:
        return host != "" and "." not in host
    return address.is_private
