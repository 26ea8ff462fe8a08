"""Whatever is in the file of learned durations, it does no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxasync import Polling
from fluxasync._engine.polling import PollSchedule, PollSchedules
from fluxasync._store.duration_cache import (
    NAME,
    DurationCache,
    DurationEstimate,
)

ORIGIN = "https://api.bfl.ai:443"
CLASS = "flux-dev", 0
cells = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(ORIGIN)
rows = st.lists(
    st.tuples(
        st.sampled_from([ORIGIN, "http://127.0.0.1:1"]) | cells,
        st.just("flux-dev") | cells,
        st.just(0) | cells,
        st.floats(min_value=0, max_value=1e4) | cells,
        st.floats(min_value=0, max_value=2) | cells,
        st.integers(min_value=20_000, max_value=22_000) | cells,
    )
    | st.lists(cells)
    | cells
)
contents = st.binary() | rows.map(lambda rows: json.dumps(rows).encode())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file, in a folder that exists."""
    home = tmp_path_factory.mktemp("home")
    (home / "fluxasync").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield home / "fluxasync" / NAME


@given(content=contents)
def test_any_file_is_read_without_an_error_and_replaced(content: bytes, path: Path) -> None:
    """What it says is bounded or ignored: a schedule from it polls in bounded steps."""
    path.write_bytes(content)
    cache, schedules = DurationCache(ORIGIN), PollSchedules()
    schedules.known = cache.read()
    for key in schedules.known:
        first = schedules.of(key, typical=2.0).first(Polling())
        assert 0 < first <= 3600
    learned = DurationEstimate(seconds=2.0, spread=0.2)
    cache.write({CLASS: learned})
    assert cache.read()[CLASS] == learned


@given(
    seconds=st.floats(min_value=0.2, max_value=3600), spread=st.floats(min_value=0.02, max_value=1)
)
def test_a_remembered_schedule_says_the_same(seconds: float, spread: float, path: Path) -> None:
    """Kept and read, it has the same usual duration, within the width of a bin."""
    DurationCache(ORIGIN).write({CLASS: DurationEstimate(seconds, spread)})
    schedule = PollSchedule.remembered(DurationCache(ORIGIN).read()[CLASS])
    assert schedule.usual == pytest.approx(seconds, rel=0.05, abs=0.01)
