"""A run killed at every kill point, and by the clock, keeps its promises each time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .children import SLOTS, Children, Plan
from .harness import Result, play, prepared, prompt_rows
from .oracle import DONE, INTENT, SUBMITTED, observe
from .points import MID_CHECKPOINT, POINTS
from .trials import cut_checkpoint

SEEDS = (1, 2)
IMAGES = 200


def every_place(seed: int) -> Iterator[Plan]:
    """Each kill point once, at a pass that the run surely reaches, and one kill by the clock."""
    for number, point in enumerate(POINTS):
        yield Plan(point=point, passes=min(POINTS[point], 1 + (number + seed) % 3))
    yield Plan(kill_after=0.05 * seed)


def finished(folder: Path, seed: int) -> Result:
    with Children() as children:
        ends = every_place(seed)
        return play(children, folder, seed=seed, images=IMAGES, kills=100, ends=ends)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two seeds in parallel, killed at every point, and then left to their end."""
    folders = [tmp_path_factory.mktemp(f"seed-{seed}") for seed in SEEDS]
    with ThreadPoolExecutor(len(SEEDS)) as threads:
        first, second = threads.map(finished, folders, SEEDS)
    return first + second


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as children:
        yield children


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("double charge", id="P1 nothing is paid twice"),
        pytest.param("unaccounted charge", id="P2 every charge is in the journal"),
        pytest.param("partial file", id="P4 a file under its final name is whole"),
        pytest.param("lost image", id="P5 what is done is there"),
        pytest.param("refused run", id="P1 the same line carries on"),
        pytest.param("other", id="P3 P5 F123 rows, files and lists agree"),
    ],
)
def test_after_every_kill_the_promises_hold(result, kind):
    """Observed after each kill and at the end: no violation."""
    assert [violation for violation in result.violations if violation.kind == kind] == []


@pytest.mark.parametrize("point", [pytest.param(point, id=f"F121 {point}") for point in POINTS])
def test_every_place_was_killed_at(result, point):
    """A kill point that no run reached would prove nothing."""
    assert result.kills[point] == len(SEEDS)


#: kill point → the row's state, charges, part files, files
LEFT = {
    "before intent commit": (None, 0, 0, 0),
    "after intent commit": (INTENT, 0, 0, 0),
    "before POST": (INTENT, 0, 0, 0),
    "before job commit": (INTENT, 1, 0, 0),
    "after job commit": (SUBMITTED, 1, 0, 0),
    "Ready seen": (SUBMITTED, 1, 0, 0),
    "mid-write": (SUBMITTED, 1, 1, 0),
    "before file fsync": (SUBMITTED, 1, 1, 0),
    "before publish": (SUBMITTED, 1, 1, 0),
    "after publish": (SUBMITTED, 1, 1, 1),
    "after folder fsync": (SUBMITTED, 1, 0, 1),
    "before done commit": (SUBMITTED, 1, 0, 1),
    "after done commit": (DONE, 1, 0, 1),
}


@pytest.mark.parametrize(
    ("point", "left"), [pytest.param(*item, id=f"F121 {item[0]}") for item in LEFT.items()]
)
def test_a_kill_point_is_where_its_name_says(children, tmp_path, point, left):
    """One image, killed half-way: what disk and server have by then."""
    place = prepared(children, tmp_path, prompt_rows(1, seed=0), seed=0)
    # the first folder fsync makes the output folder, the second one the image's name
    passes = 2 if point == "after folder fsync" else 1
    assert children.run(place, Plan(point=point, passes=passes)) == point
    found = observe(place)
    state = next((row.state for row in found.rows.values()), None)
    assert left == (state, len(found.charges), found.parts, len(found.files))


def test_an_interrupted_checkpoint_is_completed(children, tmp_path):
    """P1 F121: a header that names pages which are only in the log loses nothing."""
    result = cut_checkpoint(children, tmp_path)
    assert result.kills[MID_CHECKPOINT] == 1
    assert result.violations == ()


def test_every_image_is_there_or_in_doubt(result):
    """P1 P2 P3: a run that was killed thirty times ends with every image, except listed doubts."""
    assert result.kills.total() >= 30
    assert 0 < result.most_doubts <= SLOTS
    assert result.images == result.done + result.in_doubt
    assert result.charges == result.done + result.in_doubt_charged
    assert 0 < result.in_doubt_charged <= result.in_doubt
