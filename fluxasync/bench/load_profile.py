"""The load of one stage, and the instant at which each image is submitted. Pure arithmetic.

A closed loop keeps a number of jobs active and submits the next when one has ended: it measures
capacity. An open loop submits at its own rate, whatever comes back, as users do: it measures their
latency.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from .._core.errors import ConfigError

#: active jobs that a sweep measures in turn
SWEEP = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
#: default number of measured images: per worker, and at least per stage
ROUNDS = 4
FEWEST_IMAGES = 12
#: default warm-up images of an open loop
OPEN_WARM_UP = 5

Arrivals = Literal["constant", "poisson"]


@frozen(kw_only=True)
class LoadProfile:
    """One stage: an open loop if it has a `rate`, else a closed one."""

    model: str
    in_flight: int  #: a closed loop's workers; an open loop's slots
    rate: float | None = None  #: images per second
    rate_to: float | None = None  #: where a ramp ends
    arrivals: Arrivals = "constant"
    images: int | None = None  #: measured; None = as many as `duration` allows
    duration: float | None = None  #: seconds; None = until `images` are made
    warm_up: int = 0  #: images before that, not measured

    @property
    def label(self) -> str:
        if self.rate is None:
            return f"{self.in_flight} in flight"
        if self.rate_to is not None:
            return f"ramp {self.rate:g} to {self.rate_to:g}/s"
        return f"{self.rate:g}/s"

    @property
    def most_images(self) -> int | None:
        """The most images it can make, warm-up included; None when only time ends it."""
        if self.images is not None:
            return self.images + self.warm_up
        if self.rate is None or self.duration is None:
            return None
        mean = (self.rate + (self.rate_to or self.rate)) / 2
        return math.ceil(mean * self.duration) + self.warm_up


def closed_loop(
    model: str,
    in_flight: int,
    *,
    images: int | None = None,
    duration: float | None = None,
    warm_up: int | None = None,
) -> LoadProfile:
    """Return a closed loop; by default each worker warms up with one image and measures four."""
    if images is None and duration is None:
        images = max(ROUNDS * in_flight, FEWEST_IMAGES)
    return LoadProfile(
        model=model,
        in_flight=in_flight,
        images=images,
        duration=duration,
        warm_up=in_flight if warm_up is None else warm_up,
    )


def open_loop(
    model: str,
    rate: float,
    *,
    slots: int,
    rate_to: float | None = None,
    arrivals: Arrivals = "constant",
    images: int | None = None,
    duration: float | None = None,
    warm_up: int | None = None,
) -> LoadProfile:
    """Return an open loop; by default of a minute, and longer if that is fewer than 12 images."""
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
    """Yield the instant of each image of an open loop, in seconds since its start.

    The warm-up comes first, at the first rate. The same seed gives the same instants.
    """
    if load.rate is None:
        raise ConfigError("a closed loop has no schedule")
    rng = random.Random(seed)  # noqa: S311 — arrivals, not secrets
    steps = _steps(load.arrivals, rng)
    at = 0.0
    for step in itertools.islice(steps, load.warm_up):
        yield at
        at += step / load.rate
    begin = at
    arrived = 0.0
    for number in itertools.count():
        since = _instant(load, arrived)
        if number == load.images or since is None:
            return
        if load.duration is not None and since >= load.duration:
            return
        yield begin + since
        arrived += next(steps)


def _steps(arrivals: Arrivals, rng: random.Random) -> Iterator[float]:
    """The time between consecutive images at a rate of 1."""
    while True:
        yield 1.0 if arrivals == "constant" else rng.expovariate(1.0)


def _instant(load: LoadProfile, arrivals: float) -> float | None:
    """Return the second at which this number of images has arrived; None for never.

    A ramp's rate grows linearly, so the number of arrivals grows with the square of the time.
    """
    first = load.rate or 0.0
    last = first if load.rate_to is None else load.rate_to
    seconds = load.duration
    if seconds is None:
        seconds = (load.images or 0) / ((first + last) / 2)
    growth = (last - first) / (2 * seconds) if seconds else 0.0
    if abs(growth) < 1e-12:
        return arrivals / first
    under = first**2 + 4 * growth * arrivals
    if under < 0:
        return None
    return (math.sqrt(under) - first) / (2 * growth)
