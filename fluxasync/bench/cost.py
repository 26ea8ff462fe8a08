"""What a benchmark may cost: refused before anything is sent, or said. Decides over no image."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from .._core.amounts import dollars
from .._core.errors import ConfigError
from .._core.text import display
from .._requests.catalog import closest_model
from .._requests.pricing import Estimator, price
from .._wire.providers import Provider
from .bench_config import BenchConfig
from .prompt_pool import MOST_KEPT, PromptPool


def guard(order: BenchConfig, provider: Provider, prompts: PromptPool, *, simulated: bool) -> None:
    """Refuse what could spend more than was said. Raises ConfigError."""
    if order.simulate and not simulated:
        raise ConfigError(
            f"simulate=True is for a practice server on this machine; {provider.origin[1]} is "
            "none: leave out base_url, or say max_cost instead"
        )
    if not simulated and order.max_cost is None:
        raise ConfigError(
            f"a benchmark of {provider.origin[1]} spends money: say how much at most, such as "
            "--max-cost 2.00 (max_cost=2), or measure the practice server with --simulate "
            "(simulate=True)"
        )
    if order.max_cost is not None:
        for model in order.models:
            if price(prompts.of(model, 0)) is None:
                near = closest_model(model)
                step = f"did you mean {near}?" if near else "fluxasync models lists those known"
                raise ConfigError(
                    f"the price of {display(model, 60)} is not known, so no cap can be kept: {step}"
                )


def announce(
    order: BenchConfig, prompts: PromptPool, *, simulated: bool, note: Callable[[str], None]
) -> None:
    """Say what it will cost; a run that only the time ends is priced by its cap."""
    cost, is_whole = _cost(order, prompts)
    cap = order.max_cost
    if simulated:
        note("a practice server is measured: it costs nothing and is not the real API")
    elif cap is not None:
        about = f"about {dollars(cost)} by the catalogue"
        said = about if is_whole else "the number of images is not known ahead"
        note(f"{said}; at most {dollars(cap)} is spent")
    if cap is not None and cost > cap:
        note(f"{dollars(cost)} is more than the cap: the run will end early")


def _cost(order: BenchConfig, prompts: PromptPool) -> tuple[Decimal, bool]:
    """Return the price of all stages by the catalogue, and whether that is all of them."""
    cost, is_whole = Decimal(0), not order.sweep
    for model in order.models:
        for load in order.loads(model):
            count = load.most_images
            is_whole = is_whole and count is not None
            cost += cost_of(prompts, model, count or 0)
    return cost, is_whole


def cost_of(prompts: PromptPool, model: str, count: int) -> Decimal:
    """Return what so many images cost by the catalogue; of very many, by the first of them."""
    looked = min(count, MOST_KEPT)
    if not looked:
        return Decimal(0)
    estimator = Estimator()
    for index in range(looked):
        estimator.add(prompts.of(model, index))
    return estimator.estimate(1).cost * count / looked
