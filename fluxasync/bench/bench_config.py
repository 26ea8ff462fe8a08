"""What a benchmark is asked for, checked before anything is opened or spent."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

from attrs import field, frozen
from attrs.validators import deep_iterable, optional

from .._core.arguments import check_type, local_path
from .._core.config import Budget, Polling
from .._core.errors import ConfigError
from .._wire.providers import Provider, provider_by_name
from .load_profile import (
    USUAL_IN_FLIGHT,
    USUAL_SLOTS,
    Arrivals,
    LoadProfile,
    closed,
    opened,
    read_counts,
    read_duration,
    read_ramp,
    read_rates,
)


def _folder(given: str | os.PathLike[str]) -> Path:
    return local_path("out", given)


def _cap(given: Decimal | float | str | None) -> Decimal | None:
    return Budget.of(given).max_cost


def _several(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, list | tuple) else (given,)


# what the command line takes as text may be text here too; the validators judge what is none


def _in_flight(given: int | str | Sequence[int]) -> tuple[int, ...]:
    if isinstance(given, str):
        return read_counts(given, f"in_flight={given!r}")
    return _several(given)


def _rate(given: float | str | Sequence[float]) -> tuple[float, ...]:
    return read_rates(given, f"rate={given!r}") if isinstance(given, str) else _several(given)


def _ramp(given: tuple[float, float] | str | None) -> tuple[float, float] | None:
    return read_ramp(given, f"ramp={given!r}") if isinstance(given, str) else given


def _duration(given: float | str | None) -> float | None:
    return read_duration(given, f"duration={given!r}") if isinstance(given, str) else given


def _objective(given: float | str | None) -> float | None:
    return read_duration(given, f"objective={given!r}") if isinstance(given, str) else given


def _positive(instance: object, attribute: Any, value: Any) -> None:
    _number(attribute.name, value, Real, _RIGHT[attribute.name])


def _whole(instance: object, attribute: Any, value: Any) -> None:
    _number(attribute.name, value, Integral, "a whole number above 0")


def _number(name: str, value: Any, kind: type, right: str) -> None:
    is_one = isinstance(value, kind) and not isinstance(value, bool)
    if not (is_one and 0 < value < math.inf):
        raise ConfigError(f"{name}={value!r}: must be {right}")


#: what is right, by the field
_RIGHT = {
    "rate": "images a second above 0, such as 0.5 or '30/min'",
    "ramp": "two paces, such as (0.1, 2.0) or '0.1/s..2/s'",
    "duration": "seconds above 0, such as 90 or '5min'",
    "objective": "seconds above 0, such as 10 or '10s'",
}


def _pair(instance: object, attribute: Any, value: Any) -> None:
    if not (isinstance(value, list | tuple) and len(value) == 2):
        raise ConfigError(f"{attribute.name}={value!r}: must be {_RIGHT[attribute.name]}")
    for each in value:
        _positive(instance, attribute, each)


def _arrivals(instance: object, attribute: Any, value: Any) -> None:
    if value not in get_args(Arrivals):
        raise ConfigError(f"arrivals={value!r}: must be {' or '.join(get_args(Arrivals))}")


def _kind(*kinds: type, expected: str) -> Any:
    def check(instance: object, attribute: Any, value: Any) -> None:
        check_type(attribute.name, value, *kinds, expected=expected)

    return check


def _known(instance: object, attribute: Any, value: Provider | str | None) -> None:
    if value is not None and not isinstance(value, Provider):
        provider_by_name(value)


@frozen(kw_only=True)
class BenchConfig:
    """A benchmark, before it runs: models × loads into a folder.

    Say one kind of load: `in_flight`, `rate`, `ramp` or `sweep`. Each of its values on each model
    is a stage. What the command line takes as text may be text here too: `duration="5min"`.

    Args:
        out: a folder that holds nothing yet; the report, its page and the images go there.
        models: one name or several, each measured on its own; flux-dev by default.
        in_flight: closed loops: so many jobs at once, one number or several, or "1,4,12". The load
            by default, with 1, 4, 12 and 24.
        rate: open loops: images wanted a second whatever comes back, one number or several, or
            "0.5/s,30/min".
        ramp: an open loop from one rate to another, as (0.1, 2.0) or "0.1/s..2/s"; needs
            `duration` or `images`.
        sweep: closed loops of more and more jobs, until more buys next to nothing.
        arrivals: of an open loop: "constant" (the default), or "poisson" as independent users come.
        slots: most jobs at once in an open loop; a sweep ends at four times that. 24 by default.
        images: measured in each stage; by default four for each job at once and 12 at least, of an
            open loop what comes in a minute.
        duration: the time of each stage instead, in seconds or as "90s".
        warm_up: images before each stage that are not measured; by default one for each job at
            once, five of an open loop.
        objective: the latency that counts as good, in seconds or as "10s"; none by default. The
            report then tells goodput.
        prompts: what `Batch` takes as a source; by default a varied list of our own.
        prompt_column: the column of the prompts, where it is not named prompt.
        parameters: of the model, for every image.
        seed: of our prompts, their image seeds and arrivals; 0 by default, the same again.
        title: what the report is called; by default its models.
        provider: "cometapi", "bfl" or a Provider; by default the one whose key is set.
        api_key: by default the one in COMETAPI_KEY or BFL_API_KEY.
        base_url: another origin of the provider, or a practice server's.
        polling: a Polling, or how late a finished job may be noticed as a share of its usual
            duration; 0.04 by default.
        max_cost: most to spend over all stages, in US dollars. Needed unless a practice server is
            measured.
        simulate: measure a practice server, for nothing: that at `base_url` on this machine, else
            one started for the run. Without a key and a `base_url` that is done anyway, with a
            warning.

    Raises ConfigError.
    """

    out: Path = field(converter=_folder)
    models: tuple[str, ...] = field(
        default=("flux-dev",),
        converter=_several,
        validator=deep_iterable(_kind(str, expected="names of models")),
    )
    in_flight: tuple[int, ...] = field(
        default=(), converter=_in_flight, validator=deep_iterable(_whole)
    )
    rate: tuple[float, ...] = field(default=(), converter=_rate, validator=deep_iterable(_positive))
    ramp: tuple[float, float] | None = field(
        default=None, converter=_ramp, validator=optional(_pair)
    )
    sweep: bool = False
    arrivals: Arrivals = field(default="constant", validator=_arrivals)
    slots: int | None = field(default=None, validator=optional(_whole))
    images: int | None = field(default=None, validator=optional(_whole))
    duration: float | None = field(default=None, converter=_duration, validator=optional(_positive))
    warm_up: int | None = None
    objective: float | None = field(
        default=None, converter=_objective, validator=optional(_positive)
    )

    prompts: Any = None
    prompt_column: str | None = field(
        default=None, validator=optional(_kind(str, expected="a column's name"))
    )
    parameters: Mapping[str, Any] = field(
        factory=dict, validator=_kind(Mapping, expected='as {"width": 512}')
    )
    seed: int = field(default=0, validator=_kind(int, expected="a whole number"))
    title: str = field(default="", validator=_kind(str, expected="text"))

    provider: Provider | str | None = field(default=None, validator=_known)
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    polling: Polling | float | None = None
    max_cost: Decimal | None = field(default=None, converter=_cap)
    simulate: bool = False

    def __attrs_post_init__(self) -> None:
        kinds = [bool(self.in_flight), bool(self.rate), self.ramp is not None, self.sweep]
        if sum(kinds) > 1:
            raise ConfigError("say one of in-flight, rate, ramp and sweep: each is another load")
        if self.ramp is not None and self.images is None and self.duration is None:
            raise ConfigError("a ramp needs a duration, such as --duration 5min")
        self._refuse_idle(is_open=bool(self.rate) or self.ramp is not None)
        if self.warm_up is not None and not (
            isinstance(self.warm_up, Integral) and self.warm_up >= 0
        ):
            raise ConfigError(f"warm_up={self.warm_up!r}: must be a whole number, 0 or more")
        if len(set(self.models)) < len(self.models) or not self.models:
            raise ConfigError("name each model once")

    def _refuse_idle(self, *, is_open: bool) -> None:
        """Refuse what would be passed over in silence."""
        if self.arrivals != "constant" and not is_open:
            raise ConfigError(
                f"{self.arrivals} arrivals are those of an open loop: say its --rate or --ramp too"
            )
        if self.slots is not None and not (is_open or self.sweep):
            raise ConfigError(
                "slots are those of an open loop or a sweep, and in a closed loop --in-flight says "
                "how many jobs there are at once: leave out --slots, or say --rate, --ramp or "
                "--sweep"
            )
        if self.images is not None and self.duration is not None:
            raise ConfigError("a stage ends by --images or by --duration: say one of them")
        if self.prompt_column is not None and self.prompts is None:
            raise ConfigError("--prompt-column names a column of --prompts FILE: say that too")
        for values, option in ((self.in_flight, "--in-flight"), (self.rate, "--rate")):
            twice = [each for each in dict.fromkeys(values) if values.count(each) > 1]
            if twice:
                raise ConfigError(f"{option}: {twice[0]:g} stands twice; say each load once")

    @property
    def name(self) -> str:
        """The title, or what it measures."""
        return self.title or " and ".join(self.models)

    @property
    def most_slots(self) -> int:
        """The slots of an open loop, said or usual."""
        return USUAL_SLOTS if self.slots is None else self.slots

    def loads(self, model: str) -> Iterator[LoadProfile]:
        """Yield the stages of one model; a sweep's are not known ahead."""
        ends: dict[str, Any] = {
            "images": self.images, "duration": self.duration, "warm_up": self.warm_up,
        }  # fmt: skip
        opening: dict[str, Any] = ends | {"slots": self.most_slots, "arrivals": self.arrivals}
        if self.ramp is not None:
            yield opened(model, self.ramp[0], rate_to=self.ramp[1], **opening)
        elif self.rate:
            for rate in self.rate:
                yield opened(model, rate, **opening)
        else:
            for in_flight in self.in_flight or USUAL_IN_FLIGHT:
                yield closed(model, in_flight, **ends)

    def step(self, model: str, in_flight: int) -> LoadProfile:
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
            "slots": self.most_slots,
            "images": self.images,
            "duration": self.duration,
            "warm_up": self.warm_up,
            "objective": self.objective,
            "prompts": "built in" if self.prompts is None else "own",
            "parameters": {name: str(value)[:200] for name, value in self.parameters.items()},
            "seed": self.seed,
            "max_cost": None if self.max_cost is None else str(self.max_cost),
        }
