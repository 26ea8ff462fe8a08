"""A request for several images → requests for one image each."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from .._core.models import ImageRequest


def expand_copies(request: ImageRequest) -> Iterator[ImageRequest]:
    """Yield `n` requests of one image each; with a seed, copies take the seeds that follow.

    Without one they are alike, and only their occurrence in the run tells them apart.
    """
    if request.n == 1:
        yield request
        return
    for copy in range(request.n):
        seed = None if request.seed is None else request.seed + copy
        yield evolve(request, n=1, seed=seed)
