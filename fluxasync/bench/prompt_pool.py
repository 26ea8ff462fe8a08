"""The requests of a benchmark: the user's own prompts, or a varied list of ours.

The same seed gives the same requests in the same order, so that two runs measure the same work.
The n-th request of a run is asked for by its number: short lists are gone through again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from attrs import evolve, frozen

from .._core.errors import ConfigError
from .._core.models import ImageRequest
from .._requests.catalog import find, validate
from .._requests.parsing import parse_request
from .._requests.sources import BadRow, Prompts, open_source

#: requests kept of a source; a longer one is measured on its beginning
MOST_KEPT = 10_000

# short and long ones, text in the picture, people, things, scenes: what users ask for
_SUBJECTS = (
    "a red fox", "an old fisherman mending a net", "a glass teapot", "two children on a swing",
    "a lighthouse", "a bowl of ramen", "a steam locomotive", "a sleeping cat", "a potter's hands",
    "a paper crane", "an astronaut", "a street musician with a cello", "a beehive",
    "a vintage typewriter", "a mountain hut", "a neon sign that reads OPEN LATE",
)  # fmt: skip
_PLACES = (
    "in fresh snow", "on a wooden table by a window", "at dusk by the sea", "in heavy rain",
    "in a sunlit greenhouse", "on an empty street at night", "above the clouds",
    "in a crowded market", "on plain grey paper", "in tall grass",
)  # fmt: skip
_STYLES = (
    "", ", photograph, 50 mm, soft light", ", watercolour", ", pencil sketch",
    ", flat vector illustration, three colours", ", oil painting with visible brush strokes",
    ", isometric 3D render, clean background, high detail, gentle shadows", ", film still, grain",
)  # fmt: skip


@frozen
class PromptPool:
    """Requests by number, for each model of a run."""

    _rows: Mapping[str, Sequence[ImageRequest]]

    def of(self, model: str, index: int) -> ImageRequest:
        """Return the request of this number; its occurrence keeps equal ones apart."""
        rows = self._rows[model]
        return evolve(rows[index % len(rows)], index=index, occurrence=index)


async def wishes(
    source: Any,
    *,
    models: Sequence[str],
    parameters: Mapping[str, Any],
    seed: int,
    prompt_column: str | None = None,
) -> PromptPool:
    """Read and check all that will be asked for, before anything is spent.

    `source` is what `Batch` takes, or None for our own list. Each row is asked of every model.
    `prompt_column` is the column of the prompts, where it is not named prompt.
    Raises ConfigError for rows that a model does not take.
    """
    rows: dict[str, Sequence[ImageRequest]] = {}
    if source is None:
        for model in models:
            rows[model] = own_list(model, parameters, seed=seed)
        return PromptPool(rows)
    read = await _read(
        Prompts(
            source,
            model=models[0],
            parameters=parameters,
            columns=None if prompt_column is None else {"prompt": prompt_column},
            limit=MOST_KEPT,
        )
    )
    random.Random(seed).shuffle(read)  # noqa: S311 — an order, not secrets
    for model in models:
        rows[model] = [validate(evolve(row, model=model)) for row in read]
    return PromptPool(rows)


def own_list(model: str, parameters: Mapping[str, Any], *, seed: int) -> list[ImageRequest]:
    """Return every combination of our subjects, places and styles, shuffled and with seeds."""
    dice = random.Random(seed)  # noqa: S311 — an order, not secrets
    prompts = [
        f"{subject} {place}{style}"
        for subject in _SUBJECTS
        for place in _PLACES
        for style in _STYLES
    ]
    dice.shuffle(prompts)
    known = find(model)
    takes_seed = known is not None and "seed" in known.parameters and "seed" not in parameters
    return [
        parse_request(
            {
                "prompt": prompt,
                "model": model,
                **({"seed": dice.randrange(2**31)} if takes_seed else {}),
                **parameters,
            },
            allow_extras=False,
        )
        for prompt in prompts
    ]


async def _read(prompts: Prompts) -> list[ImageRequest]:
    opened = open_source(prompts)
    found: list[ImageRequest] = []
    try:
        await opened.check()
        async with aclosing(opened.requests()) as requests:
            async for request in requests:
                if isinstance(request, BadRow):
                    raise ConfigError(str(request))
                found.append(request)
    finally:
        await opened.aclose()
    if not found:
        raise ConfigError("the prompts are empty: a benchmark needs at least one")
    return found
