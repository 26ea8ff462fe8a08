"""The requests of a benchmark: the user's prompts, or a varied built-in list.

The same seed gives the same requests in the same order, so two runs measure the same work.
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
from .._requests.sources import open_source
from .._requests.sources.nesting import one_by_one
from .._requests.sources.plan import BadRow
from .._requests.sources.prompts import Prompts
from .bench_config import BenchConfig

#: requests read from a source; of a longer one only the beginning is measured
MOST_KEPT = 10_000

# short and long prompts with texts, people, objects and scenes: what users ask for
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
    """Requests by number, for each model of a run; a short list repeats."""

    _rows: Mapping[str, Sequence[ImageRequest]]

    @classmethod
    async def of(cls, config: BenchConfig) -> PromptPool:
        """Read and check all requests before anything is spent.

        Raises ConfigError for rows that one of the models does not accept.
        """
        parameters, seed = config.parameters, config.seed
        if config.prompts is None:
            return cls({m: built_in_requests(m, parameters, seed=seed) for m in config.models})
        rows = await _read(
            evolve(
                config.prompts,
                model=config.models[0],
                parameters={**parameters, **config.prompts.parameters},
                limit=min(config.prompts.limit or MOST_KEPT, MOST_KEPT),
            )
        )
        random.Random(seed).shuffle(rows)  # noqa: S311 — an order, not secrets
        return cls(
            {model: [validate(evolve(row, model=model)) for row in rows] for model in config.models}
        )

    def request(self, model: str, index: int) -> ImageRequest:
        """Return the request of this number; its occurrence distinguishes equal ones."""
        rows = self._rows[model]
        return evolve(rows[index % len(rows)], index=index, occurrence=index)


def built_in_requests(
    model: str, parameters: Mapping[str, Any], *, seed: int
) -> list[ImageRequest]:
    """Return all combinations of subjects, places and styles, shuffled and with image seeds."""
    rng = random.Random(seed)  # noqa: S311 — an order, not secrets
    prompts = [
        f"{subject} {place}{style}"
        for subject in _SUBJECTS
        for place in _PLACES
        for style in _STYLES
    ]
    rng.shuffle(prompts)
    known = find(model)
    takes_seed = known is not None and "seed" in known.parameters and "seed" not in parameters
    return [
        parse_request(
            one_by_one(
                {
                    "prompt": prompt,
                    "model": model,
                    **({"seed": rng.randrange(2**31)} if takes_seed else {}),
                    **parameters,
                }
            ),
            allow_extras=False,
        )
        for prompt in prompts
    ]


async def _read(prompts: Prompts) -> list[ImageRequest]:
    source = open_source(prompts)
    found: list[ImageRequest] = []
    try:
        await source.check()
        async with aclosing(source.requests()) as requests:
            async for request in requests:
                if not isinstance(request, BadRow):
                    found.append(request)
                elif not prompts.skip_bad:
                    raise ConfigError(str(request))
    finally:
        await source.aclose()
    if not found:
        raise ConfigError("prompts: the list is empty; a benchmark needs at least one prompt")
    return found
