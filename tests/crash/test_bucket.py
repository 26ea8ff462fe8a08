"""A run into a bucket, killed at every kill point and continued elsewhere, keeps its promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.object_servers import seaweedfs

from .children import Children, Plan
from .harness import Result, play
from .points import BUCKET_POINTS, LIST_UPLOAD

pytest.importorskip("obstore", reason="the extra `store` is not installed")

IMAGES = 120


def every_place() -> Iterator[Plan]:
    """Each kill point once, at a pass that the run surely reaches, and one kill by the clock."""
    for number, point in enumerate(BUCKET_POINTS):
        yield Plan(point=point, passes=min(BUCKET_POINTS[point], 1 + number % 3))
    yield Plan(kill_after=0.1)
    yield Plan(point=LIST_UPLOAD)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One seed, killed at every point, and then left to its end."""
    home = tmp_path_factory.mktemp("bucket")
    with seaweedfs(home) as store, Children() as children:
        return play(
            children,
            home / "run",
            seed=1,
            images=IMAGES,
            kills=100,
            ends=every_place(),
            store=store,
        )


def test_after_every_kill_the_promises_hold(result: Result) -> None:
    """P1 P2 P4 P5: seen from a machine that knows only the bucket nothing is paid twice, every
    charge is in the record, every object is whole, and what is done is there."""
    assert result.violations == ()
    assert result.images == result.done + result.in_doubt
    assert result.charges == result.done + result.in_doubt_charged


@pytest.mark.parametrize("point", [*BUCKET_POINTS, LIST_UPLOAD])
def test_every_place_was_killed_at(result: Result, point: str) -> None:
    """F121: a kill point that no run reached would prove nothing."""
    assert result.kills[point] == 1
