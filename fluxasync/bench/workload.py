"""The load that a user asks for, checked, and the stages that it consists of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any, get_args

from attrs import field, frozen
from attrs.validators import deep_iterable, optional

from .._core.errors import ConfigError, cut
from .load_profile import Arrivals, LoadProfile, closed_loop, open_loop

#: active jobs of closed loops by default: one, some, half an account, a full one (BFL docs: 24)
USUAL_IN_FLIGHT = (1, 4, 12, 24)
#: slots of an open loop by default
USUAL_SLOTS = 24


def read_counts(text: str, given: str) -> tuple[int, ...]:
    """Read "1,4,12,24"; errors begin with `given`. Raises ConfigError."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = (0,)
    if min(counts) < 1:
        raise ConfigError(f"{cut(str(given))}: not a list of job counts, e.g. 1,4,12,24")
    return counts


def read_rate(text: str, given: str) -> float:
    """Read "0.5/s", "30/min" or a number of images per second. Raises ConfigError."""
    number, _, unit = text.strip().partition("/")
    per = {"": 1.0, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}.get(unit.strip())
    try:
        rate = float(number) / (per or 0)
    except (ValueError, ZeroDivisionError):
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"{cut(str(given))}: not a rate, e.g. 0.5/s or 30/min")
    return rate


def read_rates(text: str, given: str) -> tuple[float, ...]:
    """Read "0.2/s,0.5/s". Raises ConfigError."""
    return tuple(read_rate(part, given) for part in text.split(","))


def read_ramp(text: str, given: str) -> tuple[float, float]:
    """Read "0.1/s..2/s". Raises ConfigError."""
    first, dots, last = text.partition("..")
    if not dots:
        raise ConfigError(f"{cut(str(given))}: not a range of rates, e.g. 0.1/s..2/s")
    return read_rate(first, given), read_rate(last, given)


def read_duration(text: str, given: str) -> float:
    """Read "90", "90s" or "5min" as seconds. Raises ConfigError."""
    units: Sequence[tuple[str, float]] = (("min", 60.0), ("m", 60.0), ("h", 3600.0), ("s", 1.0))
    stripped, scale = text.strip(), 1.0
    for unit, seconds in units:
        if stripped.endswith(unit):
            stripped, scale = stripped.removesuffix(unit), seconds
            break
    try:
        duration = float(stripped) * scale
    except ValueError:
        duration = math.nan
    if not (math.isfinite(duration) and duration > 0):
        raise ConfigError(f"{cut(str(given))}: not a duration, e.g. 90s or 5min")
    return duration


# converters read text; validators check every other value


def _in_flight(given: int | str | Sequence[int]) -> tuple[int, ...]:
    return read_counts(given, f"in_flight={given!r}") if isinstance(given, str) else several(given)


def _rate(given: float | str | Sequence[float]) -> tuple[float, ...]:
    return read_rates(given, f"rate={given!r}") if isinstance(given, str) else several(given)


def _ramp(given: tuple[float, float] | str | None) -> tuple[float, float] | None:
    return read_ramp(given, f"ramp={given!r}") if isinstance(given, str) else given


def _duration(given: float | str | None) -> float | None:
    return read_duration(given, f"duration={given!r}") if isinstance(given, str) else given


def _objective(given: float | str | None) -> float | None:
    return read_duration(given, f"objective={given!r}") if isinstance(given, str) else given


def several(given: Any) -> tuple[Any, ...]:
    """Return a list or tuple as a tuple, and any other value as a tuple of one."""
    return tuple(given) if isinstance(given, list | tuple) else (given,)


_EXPECTED = {
    "rate": "images per second above 0, e.g. 0.5 or '30/min'",
    "ramp": "two rates, e.g. (0.1, 2.0) or '0.1/s..2/s'",
    "duration": "seconds above 0, e.g. 90 or '5min'",
    "objective": "seconds above 0, e.g. 10 or '10s'",
}


def _positive(instance: object, attribute: Any, value: Any) -> None:
    _check_number(attribute.name, value, Real, _EXPECTED[attribute.name])


def _positive_integer(instance: object, attribute: Any, value: Any) -> None:
    _check_number(attribute.name, value, Integral, "an integer above 0")


def _check_number(name: str, value: Any, kind: type, expected: str) -> None:
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not (is_number and 0 < value < math.inf):
        raise ConfigError(f"{name}={cut(repr(value))}: must be {expected}")


def _natural(instance: object, attribute: Any, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ConfigError(f"{attribute.name}={cut(repr(value))}: must be an integer, 0 or more")


def _pair(instance: object, attribute: Any, value: Any) -> None:
    if not (isinstance(value, list | tuple) and len(value) == 2):
        raise ConfigError(
            f"{attribute.name}={cut(repr(value))}: must be {_EXPECTED[attribute.name]}"
        )
    for each in value:
        _positive(instance, attribute, each)


def _arrivals(instance: object, attribute: Any, value: Any) -> None:
    if value not in get_args(Arrivals):
        raise ConfigError(f"arrivals={cut(repr(value))}: must be {' or '.join(get_args(Arrivals))}")


@frozen(kw_only=True)
class Workload:
    """The load of a benchmark: closed loops, open loops, a ramp or a sweep.

    Give at most one of `in_flight`, `rate`, `ramp` and `sweep`. Each of its values is a stage for
    each model. Values may be text as on the command line: `duration="5min"`.

    Args:
        in_flight: closed loops: number of active jobs, one or several, or "1,4,12" (default: 1, 4,
            12 and 24).
        rate: open loops: submissions per second whatever comes back, one or several, or
            "0.5/s,30/min".
        ramp: an open loop from one rate to another, as (0.1, 2.0) or "0.1/s..2/s"; needs
            `duration` or `images`.
        sweep: closed loops of more and more jobs until throughput stops growing.
        arrivals: arrivals of an open loop: "constant" (default) or "poisson", as from independent
            users.
        slots: maximum active jobs of an open loop (default: 24); a sweep ends at four times that.
        images: images measured per stage (default: four per active job and at least 12; in an open
            loop, those of a minute).
        duration: duration of each stage instead, in seconds or as "90s".
        warm_up: images before each stage that are not measured (default: one per active job, five
            in an open loop).
        objective: latency objective in seconds or as "10s" (default: none). The report then
            includes goodput.

    Raises ConfigError.
    """

    in_flight: tuple[int, ...] = field(
        default=(), converter=_in_flight, validator=deep_iterable(_positive_integer)
    )
    rate: tuple[float, ...] = field(default=(), converter=_rate, validator=deep_iterable(_positive))
    ramp: tuple[float, float] | None = field(
        default=None, converter=_ramp, validator=optional(_pair)
    )
    sweep: bool = False
    arrivals: Arrivals = field(default="constant", validator=_arrivals)
    slots: int | None = field(default=None, validator=optional(_positive_integer))
    images: int | None = field(default=None, validator=optional(_positive_integer))
    duration: float | None = field(default=None, converter=_duration, validator=optional(_positive))
    warm_up: int | None = field(default=None, validator=optional(_natural))
    objective: float | None = field(
        default=None, converter=_objective, validator=optional(_positive)
    )

    def __attrs_post_init__(self) -> None:
        kinds = [bool(self.in_flight), bool(self.rate), self.ramp is not None, self.sweep]
        if sum(kinds) > 1:
            raise ConfigError("in-flight, rate, ramp and sweep are different loads: give only one")
        if self.ramp is not None and self.images is None and self.duration is None:
            raise ConfigError("a ramp needs a duration, e.g. --duration 5min")
        self._check_unused(is_open=self.is_open)
        for values, option in ((self.in_flight, "--in-flight"), (self.rate, "--rate")):
            twice = [each for each in dict.fromkeys(values) if values.count(each) > 1]
            if twice:
                raise ConfigError(f"{option}: duplicate value {twice[0]:g}")

    def _check_unused(self, *, is_open: bool) -> None:
        """Refuse options that would have no effect."""
        if self.arrivals != "constant" and not is_open:
            raise ConfigError(f"{self.arrivals} arrivals need an open loop: add --rate or --ramp")
        if self.slots is not None and not (is_open or self.sweep):
            raise ConfigError(
                "--slots needs an open loop or a sweep; --in-flight is the number of active jobs "
                "of a closed loop: leave out --slots, or add --rate, --ramp or --sweep"
            )
        if self.images is not None and self.duration is not None:
            raise ConfigError("a stage ends after --images or after --duration: give only one")

    @property
    def is_open(self) -> bool:
        """Whether images arrive at a rate, whatever comes back."""
        return bool(self.rate) or self.ramp is not None

    @property
    def most_slots(self) -> int:
        """The slots of an open loop."""
        return USUAL_SLOTS if self.slots is None else self.slots


def stages_of(load: Workload, model: str) -> Iterator[LoadProfile]:
    """Yield the stages of one model; those of a sweep depend on its results."""
    if load.ramp is not None:
        yield _open_stage(load, model, load.ramp[0], rate_to=load.ramp[1])
    elif load.rate:
        yield from (_open_stage(load, model, rate) for rate in load.rate)
    else:
        counts = load.in_flight or USUAL_IN_FLIGHT
        yield from (closed_stage(load, model, count) for count in counts)


def closed_stage(load: Workload, model: str, in_flight: int) -> LoadProfile:
    """Return one closed loop, as in a sweep."""
    return closed_loop(
        model, in_flight, images=load.images, duration=load.duration, warm_up=load.warm_up
    )


def _open_stage(
    load: Workload, model: str, rate: float, *, rate_to: float | None = None
) -> LoadProfile:
    return open_loop(
        model,
        rate,
        rate_to=rate_to,
        slots=load.most_slots,
        arrivals=load.arrivals,
        images=load.images,
        duration=load.duration,
        warm_up=load.warm_up,
    )
