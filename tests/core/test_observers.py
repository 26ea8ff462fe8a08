"""Observers and readers of events: each sees all, in order, and none can hold anything up."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import get_args

import pytest

from fluxasync import ConfigError
from fluxasync._core.observers import Events, Observers
from fluxasync.events import Event, EventsDropped, Paused, Resumed


def paused(seconds: float) -> Paused:
    return Paused(seconds=seconds, reason="429")


def test_p26_an_observer_that_raises_keeps_nobody_from_seeing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P26: what one observer raises is logged once; the others, and later events, are shown."""
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("broken on purpose")

    observers = Observers(broken)
    observers.add(seen.append)
    with caplog.at_level(logging.WARNING, logger="fluxasync"):
        observers.show(paused(1))
        observers.show(Resumed())
    assert [paused(1), Resumed()] == seen
    assert len(caplog.records) == 1


def test_who_looks_away_sees_no_more() -> None:
    """What `add` returns ends it, also when called twice, and for that observer only."""
    kept: list[Event] = []
    left: list[Event] = []
    observers = Observers(kept.append)
    away = observers.add(left.append)
    observers.show(paused(1))
    away()
    away()
    observers.show(paused(2))
    assert ([paused(1), paused(2)], [paused(1)]) == (kept, left)


@pytest.mark.asyncio
async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    """The notice stands where the lost events were, and comes once for each gap."""
    events = Events(buffer=3)
    for number in range(5):
        events(paused(number))
    read = [await anext(events) for _ in range(2)]
    assert [EventsDropped(count=2), paused(2)] == read
    for number in range(5, 7):
        events(paused(number))
    events.end()
    assert [EventsDropped(count=1), *map(paused, (4, 5, 6))] == [event async for event in events]


@pytest.mark.asyncio
async def test_a_reader_waits_for_news_and_ends_with_the_run() -> None:
    """Whoever reads ahead sleeps until something happens, and leaves the loop at the end."""
    observers = Observers()
    events = observers.read(buffer=10)

    async def all_of_them() -> list[Event | EventsDropped]:
        return [event async for event in events]

    reader = asyncio.create_task(all_of_them())
    await asyncio.sleep(0)
    observers.show(paused(1))
    await asyncio.sleep(0)
    observers.show(Resumed())
    observers.end()
    observers.show(paused(2))  # too late
    assert [paused(1), Resumed()] == await reader
    assert [event async for event in observers.read(buffer=10)] == []


def test_a_reader_keeps_at_least_one_event() -> None:
    """A buffer that can hold nothing is a slip, told before anything is lost."""
    with pytest.raises(ConfigError, match="buffer=0: must be 1 or more"):
        Observers().read(buffer=0)


def test_the_page_about_events_names_them_all() -> None:
    """docs/progress.md has a row, or at least a word, for each event there is, and none besides."""
    page = Path(__file__).parents[2].joinpath("docs", "progress.md").read_text("utf-8")
    table = page[page.index("| event |") : page.index("A batch's observers")]
    named = set(re.findall(r"`([A-Z]\w+)`", table))
    assert {kind.__name__ for kind in get_args(Event)} == named
