"""A run that looks into the account is killed, and leaves nothing in doubt in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from .children import Children
from .harness import play_settling


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_with_the_list_of_tasks_nothing_is_in_doubt_after_kills(tmp_path: Path, seed: int) -> None:
    """P1 P2 P3: 5 % lost replies and kills, also while a job is adopted: what was charged is found,
    what was not is submitted again on request; none is paid twice, none is lost."""
    with Children() as children:
        result = play_settling(children, tmp_path, seed=seed, images=160, kills=15)
    assert result.violations == ()
    assert (result.in_doubt, result.in_doubt_charged) == (0, 0)
    assert result.done == result.charges == result.images
    assert result.kills.total() > 5
