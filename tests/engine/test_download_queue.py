"""Who may download next: by deadline, within places and bytes, and never too late."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support import virtual_time

from fluxasync._core.config import Limits, Policies
from fluxasync._core.observers import Fallback
from fluxasync._engine.download_queue import FIRST_GUESS, DownloadQueue

MB = 2**20


class Dock:
    """Permits with downloads before them: who began, when, and how much was open at most."""

    def __init__(self, *, active: int = 0, **limits: Any) -> None:
        self.policies = Policies(limits=Limits(**limits))
        self.fallback = Fallback()
        self.queue = DownloadQueue(self.policies, self.fallback)
        self.active = active
        self.went: list[str] = []
        self.most = 0
        self.most_bytes = 0
        self._tasks: list[asyncio.Task[None]] = []

    def come(self, name: str, life: float = 600.0, **options: Any) -> asyncio.Task[None]:
        deadline = asyncio.get_running_loop().time() + life
        task = asyncio.create_task(self._visit(name, deadline, **options))
        self._tasks.append(task)
        return task

    async def _visit(
        self, name: str, deadline: float, *, hold: float = 1.0, size: int = MB, tells: bool = True
    ) -> None:
        async with self.queue.take(deadline) as permit:
            self.went.append(name)
            if tells:
                await permit.expect(size)
            self.most_bytes = max(self.most_bytes, self.queue.bytes_in_flight)
            self.most = max(self.most, len(self.queue._open))
            await asyncio.sleep(hold)
            self.queue.landed(size)

    def submit_delay(self) -> float:
        return self.queue.submit_delay(self.active)

    async def close(self) -> list[str]:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self.queue.is_idle
        assert not self.fallback.has_failed
        assert self.queue.bytes_in_flight == 0
        return self.went


def played(story: Any) -> Any:
    return virtual_time.run(story)


def test_the_nearest_deadline_goes_first():
    """P13: whoever has least time left is next, whenever it came."""

    async def story() -> list[str]:
        dock = Dock(downloads=1)
        dock.come("under way")
        await asyncio.sleep(0)
        for name, life in (("late", 300), ("soon", 10), ("later", 500), ("next", 100)):
            dock.come(name, life)
        return await dock.close()

    assert played(story()) == ["under way", "soon", "next", "late", "later"]


def test_no_more_than_the_places_are_open():
    """P13: `downloads` is a limit, and raised while running it is used at once."""

    async def story() -> tuple[int, int]:
        dock = Dock(downloads=3)
        for number in range(20):
            dock.come(str(number))
        await asyncio.sleep(0.5)
        before = dock.most
        dock.policies.limits = Limits(downloads=8)
        dock.queue.limits_changed()
        await dock.close()
        return before, dock.most

    assert played(story()) == (3, 8)


def test_new_places_are_used_when_the_limits_change():
    """P13: a download that waits goes at once, not when the one before it ends."""

    async def story() -> list[str]:
        dock = Dock(downloads=1)
        dock.come("under way", hold=60.0)
        dock.come("waiting")
        await asyncio.sleep(1)
        dock.policies.limits = Limits(downloads=2)
        dock.queue.limits_changed()
        await asyncio.sleep(1)
        went = list(dock.went)
        await dock.close()
        return went

    assert played(story()) == ["under way", "waiting"]


def test_no_more_bytes_than_the_limit_are_in_flight():
    """P20: with sizes told, never more than `max_bytes_in_flight`; one guessed image at most."""

    async def story() -> int:
        dock = Dock(downloads=16, max_bytes_in_flight=20 * MB)
        for number in range(60):
            dock.come(str(number), size=6 * MB, hold=0.7)
        await dock.close()
        return dock.most_bytes

    assert played(story()) <= 20 * MB + 6 * MB


def test_one_image_larger_than_the_limit_goes_alone():
    """P20: a limit that no image fits into is no deadlock."""

    async def story() -> list[str]:
        dock = Dock(max_bytes_in_flight=MB)
        for name in "abc":
            dock.come(name, size=9 * MB)
        return await dock.close()

    assert played(story()) == ["a", "b", "c"]


def test_what_grew_waits_for_room_and_no_one_for_ever():
    """P20: ten that turn out larger than thought get their bytes one after another."""

    async def story() -> float:
        dock = Dock(downloads=10, max_bytes_in_flight=10 * FIRST_GUESS)
        began = asyncio.get_running_loop().time()
        for number in range(10):
            dock.come(str(number), life=600 - number, size=8 * FIRST_GUESS)
        await dock.close()
        return asyncio.get_running_loop().time() - began

    assert 9 <= played(story()) <= 10.5


def test_who_gives_up_waiting_leaves_nothing_behind():
    """P13: a cancelled caller's place and bytes go to the next."""

    async def story() -> list[str]:
        dock = Dock(downloads=1, max_bytes_in_flight=4 * MB)
        dock.come("first", size=3 * MB)
        gone = [dock.come(f"gone {n}", life=1 + n, size=9 * MB) for n in range(3)]
        dock.come("last")
        await asyncio.sleep(0.5)
        for task in gone:
            task.cancel()
        return await dock.close()

    assert played(story()) == ["first", "last"]


def test_submissions_wait_while_paid_images_would_come_too_late():
    """P13: 100 images that wait, 2 s each, URLs of 300 s: the brake is on until enough is down."""

    async def story() -> list[float]:
        dock = Dock(downloads=1, active=10)
        brakes = [dock.submit_delay()]
        for number in range(100):
            dock.come(str(number), life=300, hold=2.0)
        await asyncio.sleep(5)
        brakes.append(dock.submit_delay())
        await asyncio.sleep(120)
        brakes.append(dock.submit_delay())
        await dock.close()
        return [*brakes, dock.submit_delay()]

    assert played(story()) == [0.0, 1.0, 0.0, 0.0]


def test_a_link_that_fell_silent_brakes_too():
    """P13: no image for a minute and sixty that wait: the pace of before is no longer believed."""

    async def story() -> float:
        dock = Dock(downloads=2)
        for number in range(4):
            dock.come(f"quick {number}", hold=0.1)
        await asyncio.sleep(1)
        for number in range(60):
            dock.come(f"stuck {number}", life=600, hold=1000)
        await asyncio.sleep(60)
        brake = dock.submit_delay()
        for task in dock._tasks:
            task.cancel()
        await dock.close()
        return brake

    assert played(story()) > 0


def test_an_idle_hour_does_not_count_as_a_silent_link():
    """P13: the silence is measured from the time at which images began to wait."""

    async def story() -> list[float]:
        dock, brakes = Dock(downloads=1), []
        for day in range(2):
            for number in range(2):
                dock.come(f"image {number} of {day}", hold=0.5)
            await asyncio.sleep(0.25)
            brakes.append(dock.submit_delay())
            await asyncio.sleep(3600)
        await dock.close()
        return brakes

    assert played(story()) == [0.0, 0.0]


def test_images_that_join_the_queue_do_not_hide_a_silent_link():
    """P13: one more waits each second, and still the silence is that of the whole minute."""

    async def story() -> list[float]:
        dock, brakes = Dock(downloads=1), []
        for name in ("quick", "quick too"):
            dock.come(name, hold=0.1)
        await asyncio.sleep(1)
        for number in range(60):
            dock.come(f"stuck {number}", life=600, hold=1000)
            await asyncio.sleep(1)
            brakes.append(dock.submit_delay())
        for task in dock._tasks:
            task.cancel()
        await dock.close()
        return [brakes[1], brakes[-1]]

    assert played(story()) == [0.0, 1.0]


def test_a_free_link_never_brakes():
    """P13: without a queue there is nothing to be late for, however many jobs run."""

    async def story() -> set[float]:
        dock, seen = Dock(downloads=16, active=5000), set()
        for number in range(50):
            dock.come(str(number), hold=3.0)
            await asyncio.sleep(1)
            seen.add(dock.submit_delay())
        await dock.close()
        return seen

    assert played(story()) == {0.0}


moves = st.one_of(
    st.tuples(st.just("come"), st.integers(1, 50), st.integers(1, 12)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("sleep"), st.floats(0.1, 3)),
    st.tuples(st.just("limit"), st.integers(1, 5), st.integers(1, 20)),
)


@settings(max_examples=100)
@given(st.lists(moves, max_size=30), st.integers(0, 3))
def test_no_order_of_events_leaks_a_byte(story: list[tuple[Any, ...]], seed: int):
    """P20: downloads that come, grow, end and are cancelled in any order leave nothing counted."""

    async def play() -> None:
        dock = Dock(downloads=2, max_bytes_in_flight=8 * MB)
        for number, move in enumerate(story):
            match move:
                case "come", life, size:
                    dock.come(str(number), life=life, size=size * MB)
                case "cancel", at if dock._tasks:
                    dock._tasks[at % len(dock._tasks)].cancel()
                case "sleep", seconds:
                    await asyncio.sleep(seconds)
                case "limit", downloads, size:
                    dock.policies.limits = Limits(
                        downloads=downloads, max_bytes_in_flight=size * MB
                    )
                    dock.queue.limits_changed()
        await dock.close()

    virtual_time.run(play(), seed=seed)


def test_the_disk_is_measured_from_the_image_it_began_first():
    """Only images whose bytes are all here count, and none once it is stored."""

    async def story() -> list[float]:
        dock, loop = Dock(downloads=3), asyncio.get_running_loop()
        began, seen = loop.time(), []
        async with dock.queue.take(began + 600), dock.queue.take(began + 600) as second:
            seen.append(dock.queue.longest_store(began + 1))
            async with dock.queue.take(began + 600) as first:
                first.arrived(began + 1)
                second.arrived(began + 4)
                seen.append(dock.queue.longest_store(began + 10))
            seen.append(dock.queue.longest_store(began + 10))
        return [*seen, dock.queue.longest_store(began + 10)]

    assert played(story()) == [0.0, 9.0, 6.0, 0.0]
