"""The download queue: earliest expiry first, within count and bytes, and submissions held back."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support import virtual_time

from fluxasync import Limits
from fluxasync._core.config import Policies
from fluxasync._core.observers import Fallback
from fluxasync._engine.download_queue import FIRST_GUESS, DownloadQueue

MB = 2**20


class DownloadsUnderTest:
    """Downloads over a queue: which began, when, and how much was open at most."""

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
        self,
        name: str,
        deadline: float,
        *,
        hold: float = 1.0,
        size: int = MB,
        is_known: bool = True,
    ) -> None:
        async with self.queue.take(deadline) as permit:
            self.went.append(name)
            if is_known:
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


def run_main(main: Any) -> Any:
    return virtual_time.run(main)


def test_the_nearest_deadline_goes_first():
    """P13: the earliest expiry is next, whatever the order of arrival."""

    async def main() -> list[str]:
        downloads = DownloadsUnderTest(downloads=1)
        downloads.come("under way")
        await asyncio.sleep(0)
        for name, life in (("late", 300), ("soon", 10), ("later", 500), ("next", 100)):
            downloads.come(name, life)
        return await downloads.close()

    assert run_main(main()) == ["under way", "soon", "next", "late", "later"]


def test_no_more_than_the_places_are_open():
    """P13: `downloads` is a limit; a raised one takes effect at once."""

    async def main() -> tuple[int, int]:
        downloads = DownloadsUnderTest(downloads=3)
        for number in range(20):
            downloads.come(str(number))
        await asyncio.sleep(0.5)
        before = downloads.most
        downloads.policies.limits = Limits(downloads=8)
        downloads.queue.limits_changed()
        await downloads.close()
        return before, downloads.most

    assert run_main(main()) == (3, 8)


def test_new_places_are_used_when_the_limits_change():
    """P13: a download that waits goes at once, not when the one before it ends."""

    async def main() -> list[str]:
        downloads = DownloadsUnderTest(downloads=1)
        downloads.come("under way", hold=60.0)
        downloads.come("waiting")
        await asyncio.sleep(1)
        downloads.policies.limits = Limits(downloads=2)
        downloads.queue.limits_changed()
        await asyncio.sleep(1)
        went = list(downloads.went)
        await downloads.close()
        return went

    assert run_main(main()) == ["under way", "waiting"]


def test_no_more_bytes_than_the_limit_are_in_flight():
    """P20: with known sizes, never more than `max_bytes_in_flight`; at most one estimated image
    more."""

    async def main() -> int:
        downloads = DownloadsUnderTest(downloads=16, max_bytes_in_flight=20 * MB)
        for number in range(60):
            downloads.come(str(number), size=6 * MB, hold=0.7)
        await downloads.close()
        return downloads.most_bytes

    assert run_main(main()) <= 20 * MB + 6 * MB


def test_one_image_larger_than_the_limit_goes_alone():
    """P20: a limit below the size of an image is no deadlock."""

    async def main() -> list[str]:
        downloads = DownloadsUnderTest(max_bytes_in_flight=MB)
        for name in "abc":
            downloads.come(name, size=9 * MB)
        return await downloads.close()

    assert run_main(main()) == ["a", "b", "c"]


def test_growing_images_get_their_bytes_one_after_another():
    """P20: ten images that are larger than estimated get their bytes one after another."""

    async def main() -> float:
        downloads = DownloadsUnderTest(downloads=10, max_bytes_in_flight=10 * FIRST_GUESS)
        began = asyncio.get_running_loop().time()
        for number in range(10):
            downloads.come(str(number), life=600 - number, size=8 * FIRST_GUESS)
        await downloads.close()
        return asyncio.get_running_loop().time() - began

    assert 9 <= run_main(main()) <= 10.5


def test_nothing_new_begins_while_an_image_waits_for_more_bytes():
    """P20: a new one would take the bytes that the open one waits for."""

    async def main() -> tuple[list[str], list[str]]:
        downloads = DownloadsUnderTest(downloads=10, max_bytes_in_flight=3 * FIRST_GUESS)
        downloads.come("first", size=FIRST_GUESS)
        downloads.come("grows", life=700, size=3 * FIRST_GUESS)
        await asyncio.sleep(0.1)
        downloads.come("new", size=FIRST_GUESS)
        await asyncio.sleep(0.4)
        return [*downloads.went], await downloads.close()

    assert run_main(main()) == (["first", "grows"], ["first", "grows", "new"])


def test_a_cancelled_waiter_leaves_nothing_behind():
    """P13: a cancelled caller's place and bytes go to the next."""

    async def main() -> list[str]:
        downloads = DownloadsUnderTest(downloads=1, max_bytes_in_flight=4 * MB)
        downloads.come("first", size=3 * MB)
        gone = [downloads.come(f"gone {n}", life=1 + n, size=9 * MB) for n in range(3)]
        downloads.come("last")
        await asyncio.sleep(0.5)
        for task in gone:
            task.cancel()
        return await downloads.close()

    assert run_main(main()) == ["first", "last"]


def test_submissions_wait_while_paid_images_would_come_too_late():
    """P13: with 100 waiting images of 2 s and URLs of 300 s, submissions wait until enough have
    arrived."""

    async def main() -> list[float]:
        downloads = DownloadsUnderTest(downloads=1, active=10)
        delays = [downloads.submit_delay()]
        for number in range(100):
            downloads.come(str(number), life=300, hold=2.0)
        await asyncio.sleep(5)
        delays.append(downloads.submit_delay())
        await asyncio.sleep(120)
        delays.append(downloads.submit_delay())
        await downloads.close()
        return [*delays, downloads.submit_delay()]

    assert run_main(main()) == [0.0, 1.0, 0.0, 0.0]


def test_a_silent_link_holds_submissions_back_too():
    """P13: after a minute without an image, with sixty waiting, the earlier pace no longer
    counts."""

    async def main() -> float:
        downloads = DownloadsUnderTest(downloads=2)
        for number in range(4):
            downloads.come(f"quick {number}", hold=0.1)
        await asyncio.sleep(1)
        for number in range(60):
            downloads.come(f"stuck {number}", life=600, hold=1000)
        await asyncio.sleep(60)
        delay = downloads.submit_delay()
        for task in downloads._tasks:
            task.cancel()
        await downloads.close()
        return delay

    assert run_main(main()) > 0


def test_an_idle_hour_does_not_count_as_a_silent_link():
    """P13: the silence is measured from the time at which images began to wait."""

    async def main() -> list[float]:
        downloads, delays = DownloadsUnderTest(downloads=1), []
        for day in range(2):
            for number in range(2):
                downloads.come(f"image {number} of {day}", hold=0.5)
            await asyncio.sleep(0.25)
            delays.append(downloads.submit_delay())
            await asyncio.sleep(3600)
        await downloads.close()
        return delays

    assert run_main(main()) == [0.0, 0.0]


def test_images_that_join_the_queue_do_not_hide_a_silent_link():
    """P13: one more waits each second, and the silence still counts as a whole minute."""

    async def main() -> list[float]:
        downloads, delays = DownloadsUnderTest(downloads=1), []
        for name in ("quick", "quick too"):
            downloads.come(name, hold=0.1)
        await asyncio.sleep(1)
        for number in range(60):
            downloads.come(f"stuck {number}", life=600, hold=1000)
            await asyncio.sleep(1)
            delays.append(downloads.submit_delay())
        for task in downloads._tasks:
            task.cancel()
        await downloads.close()
        return [delays[1], delays[-1]]

    assert run_main(main()) == [0.0, 1.0]


def test_a_free_link_never_holds_submissions_back():
    """P13: without a queue nothing can be late, however many jobs run."""

    async def main() -> set[float]:
        downloads, seen = DownloadsUnderTest(downloads=16, active=5000), set()
        for number in range(50):
            downloads.come(str(number), hold=3.0)
            await asyncio.sleep(1)
            seen.add(downloads.submit_delay())
        await downloads.close()
        return seen

    assert run_main(main()) == {0.0}


moves = st.one_of(
    st.tuples(st.just("come"), st.integers(1, 50), st.integers(1, 12)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("sleep"), st.floats(0.1, 3)),
    st.tuples(st.just("limit"), st.integers(1, 5), st.integers(1, 20)),
)


@settings(max_examples=100)
@given(st.lists(moves, max_size=30), st.integers(0, 3))
def test_no_order_of_events_leaks_a_byte(history: list[tuple[Any, ...]], seed: int):
    """P20: downloads that come, grow, end and are cancelled in any order leave nothing counted."""

    async def play() -> None:
        downloads = DownloadsUnderTest(downloads=2, max_bytes_in_flight=8 * MB)
        for number, move in enumerate(history):
            match move:
                case "come", life, size:
                    downloads.come(str(number), life=life, size=size * MB)
                case "cancel", at if downloads._tasks:
                    downloads._tasks[at % len(downloads._tasks)].cancel()
                case "sleep", seconds:
                    await asyncio.sleep(seconds)
                case "limit", count, size:
                    limits = Limits(downloads=count, max_bytes_in_flight=size * MB)
                    downloads.policies.limits = limits
                    downloads.queue.limits_changed()
        await downloads.close()

    virtual_time.run(play(), seed=seed)


def test_the_disk_is_measured_from_the_image_it_began_first():
    """Only images that have fully arrived count, and only until they are stored."""

    async def main() -> list[float]:
        downloads, loop = DownloadsUnderTest(downloads=3), asyncio.get_running_loop()
        began, seen = loop.time(), []
        async with downloads.queue.take(began + 600), downloads.queue.take(began + 600) as second:
            seen.append(downloads.queue.longest_store(began + 1))
            async with downloads.queue.take(began + 600) as first:
                first.arrived(began + 1)
                second.arrived(began + 4)
                seen.append(downloads.queue.longest_store(began + 10))
            seen.append(downloads.queue.longest_store(began + 10))
        return [*seen, downloads.queue.longest_store(began + 10)]

    assert run_main(main()) == [0.0, 9.0, 6.0, 0.0]
