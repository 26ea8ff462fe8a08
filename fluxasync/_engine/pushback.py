"""Decides how the session reacts to a refused or unanswered submission: back off, probe, give up.

Push-back and outages never concern one request alone, so all submissions of a session are judged
together. Pure decisions over errors and loop times; limiter and circuit breakers apply them.

There are three kinds. A server's Retry-After is obeyed, up to an hour and while patience lasts. A
network that is down is tried by one submission every half minute, without an end. A submission
without a usable answer may have cost an image, so a few in a row are enough.
"""

from __future__ import annotations

from attrs import frozen

from .._core.backoff import retry_delay
from .._core.config import Retry
from .._core.errors import FluxError, TransportError, is_lasting
from .._core.models import Refused, Verdict

#: seconds; a longer Retry-After ends the run
LONGEST_WAIT = 3600.0
#: push-backs without a job between them before patience can run out: one long wait proves nothing
FEWEST = 3
#: submissions in a row without a usable answer, before the others wait
STREAK = 3
#: and as many again, sent one by one, before a batch gives up
HOPELESS = 2 * STREAK
#: part of `Retry.maximum` between the submissions that try a dead network (default: 30 s)
PROBE_SHARE = 0.5
#: probes are spread by this part, so that many clients do not return in step
PROBE_SPREAD = 0.2


@frozen(kw_only=True)
class Backoff:
    """No submission for so long, then one; the rest when that one is accepted."""

    seconds: float
    reason: str
    is_from_server: bool  #: the server named the seconds, so they are obeyed exactly
    patience: float | None = None  #: seconds until the session gives up; None = it does not


@frozen(kw_only=True)
class GiveUp:
    """Waiting cannot help, or has taken too long."""

    error: FluxError


class PushbackPolicy:
    """Judges the submissions of one session; times are loop times in seconds."""

    def __init__(self) -> None:
        self._since: float | None = None  # first refusal since a job was accepted
        self._resumes = 0.0  # loop time at which the latest wait is over
        self._episodes = 0
        self._streak = 0

    def __repr__(self) -> str:
        return f"<PushbackPolicy {self._episodes} episodes, {self._streak} lost in a row>"

    def accepted(self) -> bool:
        """Note a submission that became a job; return whether that ended a push-back."""
        was_pushed_back = self._since is not None
        self._since, self._episodes, self._streak = None, 0, 0
        return was_pushed_back

    def rejected(self) -> None:
        """Note a submission that was refused as wrong: the server works."""
        self._streak = 0

    def refused(
        self,
        refused: Refused,
        retry: Retry,
        *,
        now: float,
        jitter: float,
        is_new: bool,
        was_reached: bool,
    ) -> Backoff | GiveUp:
        """Judge a submission that was certainly not accepted; `is_new` = not part of a push-back
        already seen, `was_reached` = the provider has answered at least once."""
        error = refused.error
        if is_lasting(error):
            return GiveUp(error=error)
        if self._since is None or now > self._resumes + LONGEST_WAIT:
            self._since, self._episodes = now, 0  # idle hours are not hours of push-back
        is_network = refused.verdict is Verdict.NOT_SENT and not is_local(error)
        is_outage = is_network and was_reached
        if not is_outage and self._is_too_long(refused, retry, now):
            return GiveUp(error=error)
        patience = None if is_outage else max(self._since + retry.patience - now, 0.0)
        self._episodes += is_new
        seconds = self._backoff(retry, jitter, is_network=is_network)
        if refused.retry_after is not None:
            seconds = max(refused.retry_after, retry.initial)  # 0 would be a storm of requests
        self._resumes = max(self._resumes, now + seconds)
        return Backoff(
            seconds=seconds,
            reason=str(error),
            is_from_server=refused.retry_after is not None,
            patience=patience,
        )

    def lost(
        self, refused: Refused, retry: Retry, *, now: float, jitter: float, may_end: bool
    ) -> Backoff | GiveUp | None:
        """Judge a submission without a usable answer; None while it may be a single accident.

        A row of them ends a batch (`may_end`), and never an app's session.
        """
        self._streak += 1
        if self._streak < STREAK:
            return None
        if self._since is None:
            self._since = now
        if self._streak >= HOPELESS and may_end:
            return GiveUp(error=_hopeless(refused.error))
        seconds = _probe_interval(retry, jitter)
        reason = f"{self._streak} submissions in a row without a usable answer: {refused.error}"
        return Backoff(seconds=seconds, reason=reason, is_from_server=False)

    def _is_too_long(self, refused: Refused, retry: Retry, now: float) -> bool:
        if refused.retry_after is not None and refused.retry_after > LONGEST_WAIT:
            return True
        waited = 0.0 if self._since is None else now - self._since
        enough = self._episodes >= FEWEST or refused.verdict is Verdict.NOT_SENT
        return waited > retry.patience and enough

    def _backoff(self, retry: Retry, jitter: float, *, is_network: bool) -> float:
        episodes = max(self._episodes, 1)
        full = retry_delay(episodes, initial=retry.initial, maximum=retry.maximum, jitter=1.0)
        if is_network and full >= PROBE_SHARE * retry.maximum:
            return _probe_interval(retry, jitter)
        return retry_delay(episodes, initial=retry.initial, maximum=retry.maximum, jitter=jitter)


def is_local(error: FluxError) -> bool:
    """Return whether this machine itself could not connect (no file descriptors, no ports)."""
    return isinstance(error, TransportError) and error.local


def _probe_interval(retry: Retry, jitter: float) -> float:
    return PROBE_SHARE * retry.maximum * (1 + PROBE_SPREAD * jitter)


def _hopeless(last: FluxError) -> FluxError:
    """Return the error that ends the run; not `sent`, as the waiting requests were not."""
    evidence = last.evidence if isinstance(last, TransportError) else ""
    return TransportError(
        f"{HOPELESS} submissions in a row had no usable answer (the last: {last}). Is there a "
        "login page, a proxy or a broken gateway between? Nothing more is sent; those "
        "submissions may have been charged",
        sent=False,
        permanent=True,
        evidence=evidence,
    )
