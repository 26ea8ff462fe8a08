"""What load to put on which model, and when each image is wanted. Pure numbers.

A closed loop keeps so many jobs in flight and asks for the next when one has ended: it shows what
an account can do. An open loop asks at its own pace, whatever comes back, as users do: it shows how
long they wait. Each is a `Load`, and a run is a list of them.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import Literal

from attrs import frozen

from .._core.errors import ConfigError

#: jobs in flight where nobody says: one, some, half an account, a whole one (BFL docs: 24)
USUAL_IN_FLIGHT = (1, 4, 12, 24)
#: the slots of an open loop where nobody says
USUAL_SLOTS = 24
#: jobs in flight that a sweep tries in turn, until more buys next to nothing
SWEEP = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
#: measured images of a stage where nobody says: so many a slot, so many at least
ROUNDS = 4
FEWEST_IMAGES = 12
#: images that warm up an open loop, and a ramp
OPEN_WARM_UP = 5

Arrivals = Literal["constant", "poisson"]


@frozen(kw_only=True)
class LoadProfile:
    """One stage: a closed loop, or an open one where `rate` is given."""

    model: str
    in_flight: int  #: a closed loop's lanes; an open loop's slots
    rate: float | None = None  #: images a second
    rate_to: float | None = None  #: where a ramp ends
    arrivals: Arrivals = "constant"
    images: int | None = None  #: measured; None = as many as `duration` lets
    duration: float | None = None  #: seconds; None = until `images` are made
    warm_up: int = 0  #: images made before and not measured

    @property
    def label(self) -> str:
        if self.rate is None:
            return f"{self.in_flight} in flight"
        if self.rate_to is not None:
            return f"ramp {self.rate:g} to {self.rate_to:g}/s"
        return f"{self.rate:g}/s"

    @property
    def most_images(self) -> int | None:
        """How many it makes at most, warm-up included; None when only the time ends it."""
        if self.images is not None:
            return self.images + self.warm_up
        if self.rate is None or self.duration is None:
            return None
        mean = (self.rate + (self.rate_to or self.rate)) / 2
        return math.ceil(mean * self.duration) + self.warm_up


def closed(
    model: str,
    in_flight: int,
    *,
    images: int | None = None,
    duration: float | None = None,
    warm_up: int | None = None,
) -> LoadProfile:
    """Return a closed loop. By default a lane warms up with one image and is measured on four."""
    if images is None and duration is None:
        images = max(ROUNDS * in_flight, FEWEST_IMAGES)
    return LoadProfile(
        model=model,
        in_flight=in_flight,
        images=images,
        duration=duration,
        warm_up=in_flight if warm_up is None else warm_up,
    )


def opened(
    model: str,
    rate: float,
    *,
    rate_to: float | None = None,
    slots: int = USUAL_SLOTS,
    arrivals: Arrivals = "constant",
    images: int | None = None,
    duration: float | None = None,
    warm_up: int | None = None,
) -> LoadProfile:
    """Return an open loop, by default of a minute and of 12 images at least."""
    if images is None and duration is None:
        mean = (rate + (rate_to or rate)) / 2
        duration = max(60.0, FEWEST_IMAGES / mean)
    return LoadProfile(
        model=model,
        in_flight=slots,
        rate=rate,
        rate_to=rate_to,
        arrivals=arrivals,
        images=images,
        duration=duration,
        warm_up=OPEN_WARM_UP if warm_up is None else warm_up,
    )


def intended(load: LoadProfile, *, seed: int) -> Iterator[float]:
    """Yield when each image of an open loop is wanted, in seconds from its begin: first the
    warm-up at the first rate, then what is measured. The same for the same seed."""
    if load.rate is None:
        raise ConfigError("a closed loop has no schedule")
    dice = random.Random(seed)  # noqa: S311 — arrivals, not secrets
    steps = _steps(load.arrivals, dice)
    at = 0.0
    for step in itertools.islice(steps, load.warm_up):
        yield at
        at += step / load.rate
    begin = at
    wanted = 0.0
    for number in itertools.count():
        since = _when(load, wanted)
        if number == load.images or since is None:
            return
        if load.duration is not None and since >= load.duration:
            return
        yield begin + since
        wanted += next(steps)


def _steps(arrivals: Arrivals, dice: random.Random) -> Iterator[float]:
    """The distance from one image to the next at a rate of 1."""
    while True:
        yield 1.0 if arrivals == "constant" else dice.expovariate(1.0)


def _when(load: LoadProfile, wanted: float) -> float | None:
    """Return the second at which so many images have been wanted; None for never.

    A ramp's rate grows evenly, so the number wanted grows with the square of the time.
    """
    first = load.rate or 0.0
    last = first if load.rate_to is None else load.rate_to
    seconds = load.duration
    if seconds is None:
        seconds = (load.images or 0) / ((first + last) / 2)
    bend = (last - first) / (2 * seconds) if seconds else 0.0
    if abs(bend) < 1e-12:
        return wanted / first
    under = first**2 + 4 * bend * wanted
    if under < 0:
        return None
    return (math.sqrt(under) - first) / (2 * bend)


def read_counts(text: str, given: str) -> tuple[int, ...]:
    """Read "1,4,12,24"; `given` is how it was said. Raises ConfigError."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = (0,)
    if min(counts) < 1:
        raise ConfigError(f"{given}: say numbers of jobs, such as 1,4,12,24")
    return counts


def read_rate(text: str, given: str) -> float:
    """Read "0.5/s", "30/min" or plain images a second. Raises ConfigError."""
    number, _, unit = text.strip().partition("/")
    per = {"": 1.0, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}.get(unit.strip())
    try:
        rate = float(number) / (per or 0)
    except (ValueError, ZeroDivisionError):
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"{given}: say a pace, such as 0.5/s or 30/min")
    return rate


def read_rates(text: str, given: str) -> tuple[float, ...]:
    """Read "0.2/s,0.5/s". Raises ConfigError."""
    return tuple(read_rate(part, given) for part in text.split(","))


def read_ramp(text: str, given: str) -> tuple[float, float]:
    """Read "0.1/s..2/s". Raises ConfigError."""
    first, dots, last = text.partition("..")
    if not dots:
        raise ConfigError(f"{given}: say from where to where, such as 0.1/s..2/s")
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
        raise ConfigError(f"{given}: say a time, such as 90s or 5min")
    return duration
