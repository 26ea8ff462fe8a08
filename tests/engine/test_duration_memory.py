"""The cache folder may be on a disk that hangs: neither a run nor its end waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from fluxasync._engine import duration_memory
from fluxasync._engine.duration_memory import aside


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """What a call into a hanging disk waits for."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.asyncio
async def test_a_disk_that_hangs_is_left_alone(
    hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is then the one without a file; the late one is dropped."""
    monkeypatch.setattr(duration_memory, "PATIENCE", 0.01)
    assert await aside(hanging.wait, "no answer") == "no answer"
    hanging.set()
    assert await aside(lambda: "answer", "no answer") == "answer"


def test_a_late_answer_may_find_its_loop_closed(
    hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends, or goes on with another loop."""
    monkeypatch.setattr(duration_memory, "PATIENCE", 0.01)
    threads = set(threading.enumerate())
    asyncio.run(aside(hanging.wait, False))
    (late,) = set(threading.enumerate()) - threads
    hanging.set()
    late.join(10)
    assert not late.is_alive()


@pytest.mark.asyncio
async def test_an_error_is_no_answer() -> None:
    """Nothing that goes wrong there ends a run."""
    assert await aside(lambda: 1 // 0, 7) == 7
