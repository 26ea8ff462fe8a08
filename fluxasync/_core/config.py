"""The policies of a session: their defaults and the reasons for them.

Small frozen values, each with a shorthand (`limits=24`, `budget="5.00"`). They are changed while
running by assignment: `flux.limits = attrs.evolve(flux.limits, in_flight=12)`. All durations are
seconds on the loop's clock.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from math import inf
from numbers import Real
from typing import Any, Literal, Self, TypeVar

from attrs import define, field, frozen, validators

from .errors import ConfigError

_T = TypeVar("_T")


def _at_least(minimum: float, maximum: float = inf, *, why: str = "") -> Any:
    def check(instance: object, attribute: Any, value: Any) -> None:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        # no endless ones: a timer for ever overflows some event loops
        if is_number and minimum <= value <= maximum and value < inf:
            return
        wanted = (
            f"a number, {minimum:g} or more" if maximum == inf else f"{minimum:g} to {maximum:g}"
        )
        owner = type(instance).__name__
        raise ConfigError(f"{owner}({attribute.name}={value!r}): must be {wanted}{why}")

    return check


def _count_or_auto(instance: object, attribute: Any, value: Any) -> None:
    if value == "auto" or (isinstance(value, int) and value >= 1 and value is not True):
        return
    raise ConfigError(f"Limits(in_flight={value!r}): must be 1 or more, or 'auto'")


def _one_of(kind: type[_T], name: str, given: object) -> _T:
    if isinstance(given, kind):
        return given
    if given is not None:
        owner = kind.__name__
        raise ConfigError(f"{name}: a fluxasync.{owner}, not {type(given).__name__}")
    return kind()


_positive_or_none = validators.optional(_at_least(1e-6))


@frozen(kw_only=True)
class Limits:
    """How much may go on at once.

    Shorthand: a number, or "auto", is `in_flight`.
    """

    #: jobs submitted and not yet terminal. 24 is the documented limit of an account (BFL docs,
    #: "active tasks"); a model with a lower one of its own (flux-kontext-max: 6) obeys that too,
    #: and where a 429 says that fewer are allowed, fewer are in flight until more are let in.
    #: "auto" begins with those and then finds out: a 429 tells the count, and from time to time
    #: one more is tried.
    in_flight: int | Literal["auto"] = field(default=24, validator=_count_or_auto)
    #: submissions per second, evenly spaced; None = as slots come free.
    rate: float | None = field(default=None, validator=_positive_or_none)
    #: downloads at once. Kept apart from slots: a slot is free at the terminal status.
    downloads: int = field(default=16, validator=_at_least(1))
    #: bytes; a larger image is refused. PNGs of 4 MP are 5–9 MB.
    max_image_bytes: int = field(default=64 * 2**20, validator=_at_least(1))
    #: bytes of images that are on their way at once; one image alone may be more. 16 PNGs of 4 MP
    #: are about 100 MB: on a fast line nobody waits, on a small machine nothing is swapped.
    max_bytes_in_flight: int = field(default=128 * 2**20, validator=_at_least(1))

    @classmethod
    def of(cls, given: Self | int | Literal["auto"] | None) -> Limits:
        """Return a Limits from its shorthand."""
        if isinstance(given, Limits):
            return given
        return cls() if given is None else cls(in_flight=given)


@frozen(kw_only=True)
class Retry:
    """How free calls, and submissions that were certainly not taken, are tried again."""

    initial: float = field(default=0.5, validator=_at_least(0))  #: seconds before the second try
    maximum: float = field(default=60.0, validator=_at_least(0))  #: longest wait between tries
    #: seconds of push-back without one accepted submission before a run gives up. A network that
    #: is down counts only until the provider has answered for the first time: later a run waits.
    patience: float = field(default=600.0, validator=_at_least(0))
    #: seconds after submit in which "not found" means "not yet visible" (regions replicate late)
    not_found_grace: float = field(default=60.0, validator=_at_least(0))
    #: seconds a Ready answer may lack its image URL before it is a protocol error
    ready_grace: float = field(default=30.0, validator=_at_least(0))
    #: tries of one URL for bytes that arrive broken; then a fresh URL is asked for
    downloads: int = field(default=3, validator=_at_least(1))

    @classmethod
    def of(cls, given: Self | None) -> Retry:
        """Return the Retry given, or the default. Raises ConfigError for anything else."""
        return _one_of(Retry, "retry", given)


@frozen(kw_only=True)
class Polling:
    """How closely a running job is watched.

    Shorthand: a number is `lag`.
    """

    #: mean seconds from a job's end to the poll that sees it, as a share of the usual duration of
    #: its model and size, which is learned. It is what slots lose: 0.04 leaves 96 % of an account's
    #: throughput for some 5 polls an image (durations of cv 0.2), 0.015 leaves 98.5 % for 12.
    lag: float = field(
        default=0.04,
        validator=_at_least(0.001, 0.5, why=", a share of the usual duration (0.04 is 4 %)"),
    )
    #: polls per second over the whole session; None = as the schedule has it. All jobs are then
    #: polled less often alike.
    max_rate: float | None = field(default=None, validator=_positive_or_none)
    #: seconds between polls, overriding `lag`; also the wait before the first.
    interval: float | None = field(default=None, validator=validators.optional(_at_least(0)))

    @classmethod
    def of(cls, given: Self | float | None) -> Polling:
        """Return a Polling from its shorthand: a number is `lag`."""
        if isinstance(given, Polling):
            return given
        return cls() if given is None else cls(lag=given)


@frozen(kw_only=True)
class Timeouts:
    """How long each call may take: its own time, not that of a blocked event loop."""

    connect: float = field(default=10.0, validator=_at_least(0.001))
    #: the answer of a POST is worth money: read on far beyond the seconds it usually takes
    submit: float = field(default=120.0, validator=_at_least(0.001))
    poll: float = field(default=20.0, validator=_at_least(0.001))
    download: float = field(default=60.0, validator=_at_least(0.001))  #: until it begins
    #: a download that brings less than 1 KB/s over so many seconds is begun anew
    stall: float = field(default=30.0, validator=_at_least(0.001))
    #: from submit until a job that is still running counts as stuck (CometAPI's FLUX.2: ~100 s)
    job: float = field(default=600.0, validator=_at_least(0.001))
    #: seconds an idle submit connection is kept; 0 = a fresh one for every submission. Well below
    #: what servers keep, because a POST on a connection that is just closing may be paid unseen.
    keepalive: float = field(default=4.0, validator=_at_least(0))

    @classmethod
    def of(cls, given: Self | None) -> Timeouts:
        """Return the Timeouts given, or the default. Raises ConfigError for anything else."""
        return _one_of(Timeouts, "timeouts", given)


@define(kw_only=True)
class Policies:
    """The policies in force in one session. The session's parts share this object and read it at
    each use, so an assignment takes effect at once."""

    limits: Limits = field(factory=Limits)
    retry: Retry = field(factory=Retry)
    polling: Polling = field(factory=Polling)
    timeouts: Timeouts = field(factory=Timeouts)


def _dollars(value: Any) -> Decimal | None:
    if value is None:
        return None
    try:
        amount = Decimal(str(value).removeprefix("$"))
    except InvalidOperation:
        raise ConfigError(f"not an amount in US dollars: {value!r} (say 5 or 5.00)") from None
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"not an amount in US dollars: {value!r} (say 5 or 5.00)")
    return amount


@frozen(kw_only=True)
class Budget:
    """What may be spent. Shorthand: an amount in US dollars."""

    max_cost: Decimal | None = field(default=None, converter=_dollars)  #: US dollars; None = no cap

    @classmethod
    def of(cls, given: Self | Decimal | float | str | None) -> Budget:
        """Return a Budget from its shorthand."""
        return given if isinstance(given, Budget) else cls(max_cost=given)


def retry_delay(attempt: int, *, initial: float, maximum: float, jitter: float = 0.5) -> float:
    """Return the seconds before try `attempt` + 1: exponential, with full jitter above a half.

    `attempt` is 1-based. Never below half of the exponential step, so that push-back is obeyed.
    """
    exponent = min(attempt - 1, 60)  # beyond it the power overflows and the cap holds anyway
    step = min(maximum, initial * 2.0**exponent)
    return step * (0.5 + 0.5 * jitter)
