"""Observers and readers receive all events in order, and none of them can slow the run."""

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


def test_p26_an_observer_that_raises_does_not_affect_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P26: its exception is logged once; the others receive this event and the later ones."""
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


def test_a_removed_observer_receives_nothing() -> None:
    """The function that `add` returns removes this observer only, also when it is called twice."""
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
async def test_a_slow_reader_loses_the_oldest_events_and_receives_their_number() -> None:
    """The notice is in the place of the lost events, once for each gap."""
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
async def test_a_reader_waits_for_events_and_ends_with_the_run() -> None:
    """A reader waits for the next event; its loop ends after the run."""
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
    """A buffer of size 0 is refused when it is made."""
    with pytest.raises(ConfigError, match="buffer=0: must be 1 or more"):
        Observers().read(buffer=0)


def test_the_page_about_events_names_them_all() -> None:
    """docs/progress.md names every event, and no other."""
    page = Path(__file__).parents[2].joinpath("docs", "progress.md").read_text("utf-8")
    table = page[page.index("| event |") : page.index("## OpenTelemetry")]
    named = set(re.findall(r"`([A-Z]\w+)`", table))
    assert {kind.__name__ for kind in get_args(Event)} == named
