"""How long a simulated job takes."""

from __future__ import annotations

from math import exp, log, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import Model
    from .scenario import SeededRandom
    from .state import State

#: sigma of the log-normal durations
_SPREAD = 0.35
#: share of jobs that take 3 to 10 times as long
_OUTLIERS = 0.015


def job_duration(state: State, number: int, model: Model) -> float:
    """Return the seconds that a job takes, by its number: the scenario's, else the model's."""
    scenario = state.scenario
    rng, latency = state.rng, scenario.latency
    if scenario.latency_cv is not None:
        mean = model.seconds if latency is None else sum(latency) / 2
        return lognormal(rng, number, mean=mean, cv=scenario.latency_cv)
    if latency is not None:
        return latency[0] + (latency[1] - latency[0]) * rng.uniform("latency", number)
    seconds = model.seconds * exp(_SPREAD * rng.normal("latency", number))
    if rng.uniform("outlier", number) < _OUTLIERS:
        seconds *= 3 + 7 * rng.uniform("outlier by", number)
    return seconds


def lognormal(rng: SeededRandom, number: int, *, mean: float, cv: float) -> float:
    """Return the duration of a job, by its number, for a scenario with `latency_cv`."""
    variance = log(1 + cv * cv)
    return mean * exp(sqrt(variance) * rng.normal("latency", number) - variance / 2)
