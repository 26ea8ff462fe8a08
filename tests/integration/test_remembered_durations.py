"""A run starts from the durations that the user's earlier runs learned, over real sockets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.simulator_sessions import fast_session, small_requests

from fluxasync import Batch, MemorySink, Polling
from fluxasync._store.duration_cache import NAME
from fluxasync.simulator import Scenario, Simulator

#: the catalogue says 2.5 s
SCENARIO = Scenario(latency=0.4, latency_cv=0.1, image_bytes=1, reports_progress=False, seed=1)
COUNT, SLOTS = 16, 8
KEY = "a-key-that-stays-here"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in this test's own cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fluxasync" / NAME


async def made(url: str, polling: Polling) -> None:
    """Make images in a new session."""
    async with fast_session(url, limits=SLOTS, polling=polling, api_key=KEY) as flux:
        async with Batch(flux, small_requests(COUNT), out=MemorySink()) as batch:
            saved = [outcome async for outcome in batch]
        assert len(saved) == batch.summary.saved == COUNT


@pytest.mark.asyncio
async def test_the_second_run_sees_its_first_jobs_at_once(cache: Path) -> None:
    """The first run polls its first jobs when the catalogue says, far too late; the second one
    knows better. The file has neither the key nor a prompt."""
    async with Simulator(SCENARIO) as simulator:
        await made(simulator.url, Polling(remember=True))
        first = simulator.world.summary(0)["lag"]
        await made(simulator.url, Polling(remember=True))
        second = simulator.world.summary(0)["lag"] - first
    assert second < first  # a third to an eighth of it where nothing else runs
    assert words_of(cache) == {"http", "127.0.0.1", str(urlsplit(simulator.url).port), "flux-dev"}


def words_of(cache: Path) -> set[str]:
    """Return the words in the file, without its numbers."""
    return {
        word
        for origin, model, *numbers in json.loads(cache.read_bytes())
        for word in (*origin.replace("://", ":").split(":"), model)
        if all(isinstance(number, int | float) for number in numbers)
    }


@pytest.mark.parametrize(
    "polling",
    [
        pytest.param(Polling(), id="at loopback"),
        pytest.param(Polling(remember=False), id="turned off"),
        pytest.param(Polling(remember=True, interval=0.05), id="nothing learned"),
    ],
)
@pytest.mark.asyncio
async def test_nothing_is_kept_unless_it_is_asked_for(polling: Polling, cache: Path) -> None:
    """A simulator's durations say nothing about a provider's."""
    async with Simulator(SCENARIO) as simulator:
        await made(simulator.url, polling)
    assert not cache.parent.exists()


@pytest.mark.asyncio
async def test_a_cache_that_cannot_be_used_costs_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe without a writer lies where the file would be."""
    (tmp_path / "fluxasync").mkdir()
    os.mkfifo(tmp_path / "fluxasync" / NAME)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    async with Simulator(SCENARIO) as simulator:
        await made(simulator.url, Polling(remember=True))
