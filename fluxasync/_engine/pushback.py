"""What a refused or lost submission means for those after it: wait, try one, or stop.

Push-back and outages are never one request's own, so they are judged here for all of a session's
submissions together. Pure decisions over errors and loop times; the limiter obeys, the gates shut.

Three kinds, three patiences. Who is told to wait waits as told, but not over an hour and not for
ever. A network that is down is tried by one submission every half minute, however long it takes.
Answers that tell nothing may each have cost an image, so a few in a row are enough.
"""

from __future__ import annotations

from attrs import frozen

from .._core.config import Retry
from .._core.errors import FluxError, TransportError
from .._core.models import Refused, Verdict
from .circuit_breaker import is_lasting
from .polling import retry_delay

#: seconds; whoever is told to wait longer comes back another time
LONGEST_WAIT = 3600.0
#: push-backs without a job between them before patience can run out: one long wait is no proof
FEWEST = 3
#: submissions in a row whose answer told nothing before the others wait
STREAK = 3
#: and as many again, tried one by one, before a batch gives up
HOPELESS = 2 * STREAK
#: of `Retry.maximum`: seconds between the submissions that try a dead network (30 by default)
PROBE_SHARE = 0.5
#: probes are spread by this part, so that many clients do not come back in step
PROBE_SPREAD = 0.2


@frozen(kw_only=True)
class Backoff:
    """Nobody submits for so long, then one; the rest when that one is accepted."""

    seconds: float
    reason: str
    is_told: bool  #: by the server: obeyed to the second
    patience: float | None = None  #: seconds until the session gives up; None = it does not


@frozen(kw_only=True)
class GiveUp:
    """Waiting cannot help, or has taken too long."""

    error: FluxError


class PushbackPolicy:
    """The judgement of one session's submissions; times are loop times in seconds."""

    def __init__(self) -> None:
        self._since: float | None = None  # first refusal since a job was accepted
        self._resumes = 0.0  # loop time at which the latest wait is over
        self._episodes = 0
        self._streak = 0

    def __repr__(self) -> str:
        return f"<PushbackPolicy {self._episodes} episodes, {self._streak} lost in a row>"

    def accepted(self) -> bool:
        """A submission became a job; return whether that ended a trouble."""
        was_in_trouble = self._since is not None
        self._since, self._episodes, self._streak = None, 0, 0
        return was_in_trouble

    def rejected(self) -> None:
        """A submission was refused for what it is: the server is well."""
        self._streak = 0

    def refused(
        self, refused: Refused, retry: Retry, *, now: float, dice: float, first: bool, reached: bool
    ) -> Backoff | GiveUp:
        """Judge what was certainly not taken; `first` = not part of a push-back already seen,
        `reached` = the provider has answered at least once."""
        error = refused.error
        if is_lasting(error):
            return GiveUp(error=error)
        if self._since is None or now > self._resumes + LONGEST_WAIT:
            self._since, self._episodes = now, 0  # idle hours are not hours of push-back
        is_network = refused.verdict is Verdict.NOT_SENT and not is_local(error)
        is_outage = is_network and reached
        if not is_outage and self._is_too_long(refused, retry, now):
            return GiveUp(error=error)
        patience = None if is_outage else max(self._since + retry.patience - now, 0.0)
        self._episodes += first
        told = refused.retry_after
        backoff = self._backoff(retry, dice, is_network=is_network)
        seconds = backoff if told is None else max(told, retry.initial)  # "0" asks for a storm
        self._resumes = max(self._resumes, now + seconds)
        is_told = told is not None
        return Backoff(seconds=seconds, reason=str(error), is_told=is_told, patience=patience)

    def lost(
        self, refused: Refused, retry: Retry, *, now: float, dice: float, may_end: bool
    ) -> Backoff | GiveUp | None:
        """Judge a submission whose answer told nothing; None while it may be its own bad luck.

        A batch may end by it; an app's users each try for themselves.
        """
        self._streak += 1
        if self._streak < STREAK:
            return None
        if self._since is None:
            self._since = now
        if self._streak >= HOPELESS and may_end:
            return GiveUp(error=_hopeless(refused.error))
        seconds = _probe_every(retry, dice)
        reason = f"{self._streak} submissions in a row without a usable answer: {refused.error}"
        return Backoff(seconds=seconds, reason=reason, is_told=False)

    def _is_too_long(self, refused: Refused, retry: Retry, now: float) -> bool:
        if refused.retry_after is not None and refused.retry_after > LONGEST_WAIT:
            return True
        waited = 0.0 if self._since is None else now - self._since
        enough = self._episodes >= FEWEST or refused.verdict is Verdict.NOT_SENT
        return waited > retry.patience and enough

    def _backoff(self, retry: Retry, dice: float, *, is_network: bool) -> float:
        episodes = max(self._episodes, 1)
        full = retry_delay(episodes, initial=retry.initial, maximum=retry.maximum, jitter=1.0)
        if is_network and full >= PROBE_SHARE * retry.maximum:
            return _probe_every(retry, dice)
        return retry_delay(episodes, initial=retry.initial, maximum=retry.maximum, jitter=dice)


def is_local(error: FluxError) -> bool:
    """Say whether it is this machine that has nothing left to connect with."""
    return isinstance(error, TransportError) and error.local


def _probe_every(retry: Retry, dice: float) -> float:
    return PROBE_SHARE * retry.maximum * (1 + PROBE_SPREAD * dice)


def _hopeless(last: FluxError) -> FluxError:
    """Not sent: of the requests that stay at home, nothing left this machine."""
    evidence = last.evidence if isinstance(last, TransportError) else ""
    return TransportError(
        f"{HOPELESS} submissions in a row had no usable answer (the last: {last}). Is there a "
        "login page, a proxy or a broken gateway between? Nothing more is sent; those "
        "submissions may have been charged",
        sent=False,
        permanent=True,
        evidence=evidence,
    )
