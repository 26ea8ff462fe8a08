"""The policies of a session, their defaults and the reasons for them.

A policy is changed during a run by assignment:
`flux.limits = attrs.evolve(flux.limits, in_flight=12)`. Durations are seconds on the loop's clock.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from math import inf
from numbers import Real
from typing import Any, Literal, Self, TypeVar

from attrs import define, field, frozen, validators

from .errors import ConfigError
from .prices import Prices, prices_of
from .webhook import Webhook

_T = TypeVar("_T")

#: seconds in which paid jobs may land after a stop
GRACE = 10.0


def _at_least(minimum: float, maximum: float = inf, *, why: str = "") -> Any:
    def check(instance: object, attribute: Any, value: Any) -> None:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        # an infinite timer overflows some event loops
        if is_number and minimum <= value <= maximum and value < inf:
            return
        valid = f"{minimum:g} or more" if maximum == inf else f"{minimum:g} to {maximum:g}"
        owner = type(instance).__name__
        raise ConfigError.about(attribute.name, f"must be {valid}{why}", value=value, owner=owner)

    return check


def _webhook_or_none(instance: object, attribute: Any, value: Any) -> None:
    if value is not None and not isinstance(value, Webhook):
        reason = f"give a fluxasync.webhooks.Webhook, not {type(value).__name__}"
        raise ConfigError.about("webhook", reason, owner="Polling")


def _bool_or_none(instance: object, attribute: Any, value: Any) -> None:
    if value is not None and not isinstance(value, bool):
        raise ConfigError.about("remember", "True, False or None", value=value, owner="Polling")


def _count_or_auto(instance: object, attribute: Any, value: Any) -> None:
    if value == "auto" or (isinstance(value, int) and value >= 1 and value is not True):
        return
    raise ConfigError.about(
        "in_flight", "must be 1 or more, or 'auto'", value=value, owner="Limits"
    )


def _one_of(kind: type[_T], name: str, given: object) -> _T:
    if isinstance(given, kind):
        return given
    if given is not None:
        owner = kind.__name__
        raise ConfigError(f"{name}: give a fluxasync.{owner}, not {type(given).__name__}")
    return kind()


_positive_or_none = validators.optional(_at_least(1e-6))


@frozen(kw_only=True)
class Limits:
    """What runs at the same time. Shorthand: a number or "auto" is `in_flight`."""

    #: maximum number of active jobs. 24 is the documented limit of an account (BFL docs, "active
    #: tasks"). A model with a lower limit (flux-kontext-max: 6) keeps to it. When a 429 shows that
    #: the account allows fewer, fewer are active until the server accepts more. "auto" starts with
    #: the documented limits and adapts to the account's: after a 429 it lowers the limit, and from
    #: time to time it tries one job more.
    in_flight: int | Literal["auto"] = field(default=24, validator=_count_or_auto)
    #: submissions per second, evenly spaced; None = one whenever a slot is free
    rate: float | None = field(default=None, validator=_positive_or_none)
    #: downloads at once. Kept apart from slots: a slot is free at the terminal status.
    downloads: int = field(default=16, validator=_at_least(1))
    #: bytes; a larger image is refused. A PNG of 4 megapixels has 5 to 9 MB.
    max_image_bytes: int = field(default=64 * 2**20, validator=_at_least(1))
    #: bytes of all downloads under way; a single image may exceed it. 16 PNGs of 4 megapixels have
    #: about 100 MB, so a fast line is used in full and a small machine does not swap.
    max_bytes_in_flight: int = field(default=128 * 2**20, validator=_at_least(1))

    @classmethod
    def of(cls, given: Self | int | Literal["auto"] | None) -> Limits:
        """Return a Limits from its shorthand."""
        if isinstance(given, Limits):
            return given
        return cls() if given is None else cls(in_flight=given)


@frozen(kw_only=True)
class Retry:
    """How polls, downloads and submissions that were not accepted are tried again."""

    initial: float = field(default=0.5, validator=_at_least(0))  #: seconds before the second try
    maximum: float = field(default=60.0, validator=_at_least(0))  #: seconds; longest delay
    #: seconds of refusals without an accepted submission after which a run gives up. An unreachable
    #: provider counts only before its first answer; after that the run waits for the network.
    patience: float = field(default=600.0, validator=_at_least(0))
    #: seconds after the submission in which "not found" means "not visible yet" (BFL's regions)
    not_found_grace: float = field(default=60.0, validator=_at_least(0))
    #: seconds for which a "Ready" answer may lack the image's URL
    ready_grace: float = field(default=30.0, validator=_at_least(0))
    #: downloads of one URL whose bytes are damaged before a new URL is requested
    downloads: int = field(default=3, validator=_at_least(1))

    @classmethod
    def of(cls, given: Self | None) -> Retry:
        """Return `given`, or the default for None. Raises ConfigError for other types."""
        return _one_of(Retry, "retry", given)


@frozen(kw_only=True)
class Polling:
    """How often a running job is polled. Shorthand: a number is `lag`."""

    #: mean delay between a job's end and the poll that sees it, as a share of the usual duration of
    #: its model and size (learned during the run). A job keeps its slot for this delay: 0.04 leaves
    #: 96 % of an account's throughput with about 5 polls an image, 0.015 leaves 98.5 % with 12
    #: (durations with a coefficient of variation of 0.2).
    lag: float = field(
        default=0.04,
        validator=_at_least(0.001, 0.5, why=": a share of the usual duration (0.04 is 4 %)"),
    )
    #: polls per second of the whole session; None = as often as the schedule needs. Below that, all
    #: jobs are polled less often by the same factor.
    max_rate: float | None = field(default=None, validator=_positive_or_none)
    #: seconds between polls and before the first one, instead of a schedule from `lag`
    interval: float | None = field(default=None, validator=validators.optional(_at_least(0)))
    #: where the provider calls when a job has ended. Calls replace most polls; without calls jobs
    #: are polled as usual. It stays as it is while the session lives.
    webhook: Webhook | None = field(default=None, validator=_webhook_or_none)
    #: seconds after the first job in which a call must come, or a warning says that none does
    webhook_wait: float = field(default=60.0, validator=_at_least(0))
    #: start from the durations that earlier runs of this user learned, and keep what is learned in
    #: the user's cache folder. None = unless the API is on this machine, such as a simulator, or
    #: the transport is your own.
    remember: bool | None = field(default=None, validator=_bool_or_none)

    @classmethod
    def of(cls, given: Self | float | None) -> Polling:
        """Return a Polling from its shorthand."""
        if isinstance(given, Polling):
            return given
        return cls() if given is None else cls(lag=given)


@frozen(kw_only=True)
class Timeouts:
    """Seconds that each call may take. Time in which the event loop was blocked does not count."""

    connect: float = field(default=10.0, validator=_at_least(0.001))  #: a connection
    #: a submission. Usually it takes a few seconds; without its answer the image is in doubt.
    submit: float = field(default=120.0, validator=_at_least(0.001))
    poll: float = field(default=20.0, validator=_at_least(0.001))  #: a poll
    download: float = field(default=60.0, validator=_at_least(0.001))  #: a download's headers
    #: a download below 1 KB/s for this long is started again
    stall: float = field(default=30.0, validator=_at_least(0.001))
    #: from the submission to DeadlineExceeded (FLUX.2 at CometAPI takes about 100 s)
    job: float = field(default=600.0, validator=_at_least(0.001))
    #: idle time of a submission's connection; 0 = a new connection each time. It is far below what
    #: servers allow, because a POST on a connection that is being closed may be charged unanswered.
    keepalive: float = field(default=4.0, validator=_at_least(0))

    @classmethod
    def of(cls, given: Self | None) -> Timeouts:
        """Return `given`, or the default for None. Raises ConfigError for other types."""
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
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        reason = "give an amount in US dollars, such as 5.00"
        raise ConfigError.about("max_cost", reason, value=value, owner="Budget")
    return amount


@frozen(kw_only=True)
class Budget:
    """The spending limit, and prices that differ from the list. Shorthand: an amount in US dollars.

    `prices` takes US dollars an image, of all models (`"0.04"`) or by model
    (`{"flux-dev": "0.02", "*": "0.04"}`), or a Price. They replace the catalogue's prices, so a
    limit and a benchmark also work for a model that the catalogue lacks. Raises ConfigError.
    """

    max_cost: Decimal | None = field(default=None, converter=_dollars)  #: US dollars; None = no cap
    #: US dollars an image, of all models or by model, instead of the catalogue's prices
    prices: Prices = field(factory=Prices, converter=prices_of)

    @classmethod
    def of(cls, given: Self | Decimal | float | str | None) -> Budget:
        """Return a Budget from its shorthand."""
        return given if isinstance(given, Budget) else cls(max_cost=given)
