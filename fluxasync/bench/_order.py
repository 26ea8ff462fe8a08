"""What a benchmark is asked for, checked before anything is opened or spent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import field, frozen

from .._config import Budget, Polling
from .._errors import ConfigError
from .._providers import Provider
from ._load import USUAL_IN_FLIGHT, USUAL_SLOTS, Arrivals, Load, closed, opened


def _folder(given: str | os.PathLike[str]) -> Path:
    return Path(given)


def _cap(given: Decimal | float | str | None) -> Decimal | None:
    return Budget.of(given).max_cost


def _several(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _positive(instance: object, attribute: Any, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ConfigError(f"{attribute.name}={value!r}: must be above 0")


def _all_positive(instance: object, attribute: Any, value: tuple[float, ...]) -> None:
    for each in value:
        _positive(instance, attribute, each)


@frozen(kw_only=True)
class Order:
    """A benchmark, before it runs: models × loads into a folder.

    Say one kind of load: `in_flight` (closed loops, the default: 1, 4, 12 and 24), `rate` (open
    loops), `ramp` (an open loop from one rate to another) or `sweep` (closed loops until more buys
    next to nothing). Rates are images a second. Raises ConfigError.
    """

    out: Path = field(converter=_folder)  #: a folder that holds no report yet
    models: tuple[str, ...] = field(default=("flux-dev",), converter=_several)
    in_flight: tuple[int, ...] = field(default=(), converter=_several, validator=_all_positive)
    rate: tuple[float, ...] = field(default=(), converter=_several, validator=_all_positive)
    ramp: tuple[float, float] | None = None
    sweep: bool = False
    arrivals: Arrivals = "constant"
    slots: int = field(default=USUAL_SLOTS, validator=_positive)  #: of open loops; a sweep's most
    images: int | None = field(default=None, validator=_positive)  #: measured, for each stage
    duration: float | None = field(default=None, validator=_positive)  #: seconds, each stage
    warm_up: int | None = None  #: images before a stage that are not measured; None = as it needs
    objective: float | None = field(default=None, validator=_positive)  #: seconds that are good

    prompts: Any = None  #: what Batch takes as a source; None = a varied list of our own
    parameters: Mapping[str, Any] = field(factory=dict)
    seed: int = 0  #: of prompts, image seeds and arrivals
    title: str = ""

    provider: Provider | str | None = None
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    polling: Polling | float | None = None
    #: US dollars, over all stages; without it only a practice server is measured
    max_cost: Decimal | None = field(default=None, converter=_cap)
    #: measure a practice server, for nothing: that at `base_url` on this machine, else one that is
    #: started for the run. It is what is measured too where there is no key and no `base_url`.
    simulate: bool = False

    def __attrs_post_init__(self) -> None:
        kinds = [bool(self.in_flight), bool(self.rate), self.ramp is not None, self.sweep]
        if sum(kinds) > 1:
            raise ConfigError("say one of in-flight, rate, ramp and sweep: each is another load")
        if self.ramp is not None and self.images is None and self.duration is None:
            raise ConfigError("a ramp needs a duration, such as --duration 5min")
        if self.warm_up is not None and self.warm_up < 0:
            raise ConfigError(f"warm_up={self.warm_up}: must be 0 or more")
        if len(set(self.models)) < len(self.models) or not self.models:
            raise ConfigError("name each model once")

    @property
    def name(self) -> str:
        """The title, or what it measures."""
        return self.title or " and ".join(self.models)

    def loads(self, model: str) -> Iterator[Load]:
        """Yield the stages of one model; a sweep's are not known ahead."""
        ends: dict[str, Any] = {
            "images": self.images, "duration": self.duration, "warm_up": self.warm_up,
        }  # fmt: skip
        opening: dict[str, Any] = ends | {"slots": self.slots, "arrivals": self.arrivals}
        if self.ramp is not None:
            yield opened(model, self.ramp[0], rate_to=self.ramp[1], **opening)
        elif self.rate:
            for rate in self.rate:
                yield opened(model, rate, **opening)
        else:
            for in_flight in self.in_flight or USUAL_IN_FLIGHT:
                yield closed(model, in_flight, **ends)

    def step(self, model: str, in_flight: int) -> Load:
        """Return one stage of a sweep."""
        return closed(
            model, in_flight, images=self.images, duration=self.duration, warm_up=self.warm_up
        )

    def options(self) -> dict[str, Any]:
        """What was asked for, as JSON values; never the key, nor where prompts lie."""
        return {
            "models": list(self.models),
            "in_flight": list(self.in_flight),
            "rate": list(self.rate),
            "ramp": None if self.ramp is None else list(self.ramp),
            "sweep": self.sweep,
            "arrivals": self.arrivals,
            "slots": self.slots,
            "images": self.images,
            "duration": self.duration,
            "warm_up": self.warm_up,
            "objective": self.objective,
            "prompts": "built in" if self.prompts is None else "own",
            "parameters": {name: str(value)[:200] for name, value in self.parameters.items()},
            "seed": self.seed,
            "max_cost": None if self.max_cost is None else str(self.max_cost),
        }
