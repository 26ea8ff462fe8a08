"""Slots, rate and pause on a virtual clock: what may go, when, and that nothing leaks."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from support import virtual_time
from support.limiters import LimiterUnderTest

from fluxasync import AuthenticationError, FluxError, Limits
from fluxasync._engine.circuit_breaker import CircuitBreaker
from fluxasync._engine.limiter import BURST, Lease, Limiter
from fluxasync.events import Event, LimitChanged


class Submitters:
    """A limiter and its waiting submissions; `granted_at` is in seconds from the start."""

    def __init__(self, in_flight: int = 2, **limits: Any) -> None:
        self.limiter = LimiterUnderTest(in_flight, **limits)
        self.breaker = CircuitBreaker()
        self.granted_at: dict[str, float] = {}
        self.most = 0
        self._start = asyncio.get_running_loop().time()
        self._tasks: list[asyncio.Task[None]] = []

    def submit(self, name: str, group: str = "a", cap: int | None = None, **options: Any) -> Any:
        task = asyncio.create_task(self._hold_slot(name, group, cap, **options))
        self._tasks.append(task)
        return task

    async def _hold_slot(
        self, name: str, group: str, cap: int | None, *, hold: float = 1.0, priority: int = 0
    ) -> None:
        lease = await self.limiter.take(group, cap, breaker=self.breaker, priority=priority)
        self.granted_at[name] = asyncio.get_running_loop().time() - self._start
        self.most = max(self.most, self.limiter.in_flight)
        await asyncio.sleep(hold)
        self.limiter.give(lease)

    async def close(self) -> dict[str, float]:
        """Wait until every submission has gone and ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert is_empty(self.limiter)
        return self.granted_at


def is_empty(limiter: Limiter) -> bool:
    return repr(limiter).startswith("<Limiter 0/") and repr(limiter).endswith(", 0 waiting>")


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def run_main(main: Coroutine[Any, Any, Any]) -> Any:
    return virtual_time.run(main)


def test_never_more_than_in_flight_and_never_idle() -> None:
    """P12 A hundred jobs of mixed length: at most four at once, and no slot waits for a job."""

    async def main() -> None:
        submitters, rng = Submitters(4), random.Random(1)
        holds = [rng.uniform(0.1, 3) for _ in range(100)]
        for number, hold in enumerate(holds):
            submitters.submit(str(number), hold=hold)
        await submitters.close()
        assert submitters.most == 4
        assert max(submitters.granted_at.values()) <= sum(holds) / 4 + 3

    run_main(main())


def test_a_full_group_does_not_hold_up_the_others() -> None:
    """P12 While one model's limit is reached, later requests of other models go."""

    async def main() -> dict[str, float]:
        submitters = Submitters(3)
        for name in ("max1", "max2", "max3"):
            submitters.submit(name, "kontext-max", 1)
        submitters.submit("dev1", "dev")
        submitters.submit("dev2", "dev")
        return await submitters.close()

    expected = {"max1": 0, "dev1": 0, "dev2": 0, "max2": 1, "max3": 2}
    assert expected == run_main(main())


def test_higher_priority_goes_first_then_arrival() -> None:
    """The waiter with the highest priority goes first; among equals, the earliest."""

    async def main() -> list[str]:
        submitters = Submitters(1)
        submitters.submit("running")
        await turns()
        for name, priority in (("b", 0), ("c", 0), ("a", 5), ("e", -1), ("d", 0)):
            submitters.submit(name, priority=priority)
        return list(await submitters.close())

    assert ["running", *"abcde"] == run_main(main())


def test_arrival_counts_within_a_full_group_too() -> None:
    """A waiter that was passed over because its model was full keeps its place."""

    async def main() -> list[str]:
        submitters = Submitters(2)
        for name in "abcd":
            submitters.submit(name, "one", 1)
        submitters.submit("x", "two")
        return list(await submitters.close())

    assert [*"axbcd"] == run_main(main())


def test_those_passed_over_stay_before_later_arrivals() -> None:
    """When the model's slot is free again, its first request goes before later arrivals."""

    async def main() -> dict[str, float]:
        submitters = Submitters(2)
        submitters.submit("one", "one", 1, hold=2.0)
        submitters.submit("two", "two", hold=1.0)
        submitters.submit("passed over", "one", 1)
        submitters.submit("passing", "two", hold=5.0)
        submitters.submit("later", "two")
        return await submitters.close()

    expected = {"one": 0, "two": 0, "passing": 1, "passed over": 2, "later": 3}
    assert expected == run_main(main())


def test_a_rate_has_no_opening_burst() -> None:
    """Two a second means one every half second from the start."""

    async def main() -> list[float]:
        submitters = Submitters(100, rate=2.0)
        for number in range(6):
            submitters.submit(str(number))
        return list((await submitters.close()).values())

    assert pytest.approx(run_main(main())) == [0, 0.5, 1, 1.5, 2, 2.5]


def test_an_idle_hour_saves_up_no_burst() -> None:
    """After an idle hour the spacing is unchanged."""

    async def main() -> list[float]:
        submitters = Submitters(100, rate=1.0)
        submitters.submit("before")
        await asyncio.sleep(3600)
        for number in range(3):
            submitters.submit(str(number))
        return list((await submitters.close()).values())

    assert pytest.approx(run_main(main())) == [0, 3600, 3601, 3602]


def test_many_waiters_go_in_portions_and_none_is_forgotten() -> None:
    """P12 After a pause at most sixteen go in one turn of the loop, and all at that instant."""

    async def main() -> tuple[list[int], dict[str, float]]:
        submitters, portions = Submitters(1000), []
        submitters.limiter.pause(1.0)
        for number in range(5 * BURST):
            submitters.submit(str(number))
        await asyncio.sleep(1.0)
        for _ in range(10):
            before = submitters.limiter.in_flight
            await asyncio.sleep(0)
            portions.append(submitters.limiter.in_flight - before)
        return portions, await submitters.close()

    portions, granted_at = run_main(main())
    assert max(portions) <= BURST
    assert len(granted_at) == 5 * BURST
    assert set(granted_at.values()) == {1.0}


def test_a_pause_is_obeyed_to_the_second() -> None:
    """P11 Nothing goes before its end although slots are free; everything goes after it."""

    async def main() -> dict[str, float]:
        submitters = Submitters(3)
        submitters.submit("before", hold=1.0)
        await turns()
        submitters.limiter.pause(30.0)
        for name in ("a", "b", "c"):
            submitters.submit(name, hold=1.0)
        return await submitters.close()

    granted_at = run_main(main())
    assert granted_at == pytest.approx({"before": 0, "a": 30, "b": 30, "c": 30})
    assert all(granted_at[name] >= 30 for name in "abc")


@pytest.mark.parametrize(
    ("pauses", "ends"), [((30, 5), 30), ((5, 30), 30), ((0,), 0), ((10, 10), 10)], ids=str
)
def test_the_longest_pause_counts(pauses: tuple[float, ...], ends: float) -> None:
    """P11 A shorter push-back after a longer one does not shorten it."""

    async def main() -> float:
        submitters = Submitters(1)
        for seconds in pauses:
            submitters.limiter.pause(seconds)
        submitters.submit("a")
        return (await submitters.close())["a"]

    assert run_main(main()) == pytest.approx(ends)


def test_a_pause_that_comes_while_others_wait_holds_them() -> None:
    """P11 Waiters for a slot wait for the pause as well."""

    async def main() -> dict[str, float]:
        submitters = Submitters(1)
        submitters.submit("running", hold=2.0)
        submitters.submit("next")
        await asyncio.sleep(1.0)
        submitters.limiter.pause(10.0)
        return await submitters.close()

    assert run_main(main()) == pytest.approx({"running": 0, "next": 11})


def test_a_pause_is_shown_while_it_lasts() -> None:
    """Only leases from before a push-back are held."""

    async def main() -> list[bool]:
        limiter = Submitters().limiter
        seen = [limiter.is_paused]
        limiter.pause(5.0)
        for _ in range(2):
            seen.append(limiter.is_paused)
            await asyncio.sleep(5.0)
        return [*seen, limiter.is_paused]

    assert run_main(main()) == [False, True, False, False]


def test_a_pause_grows_while_its_timer_runs() -> None:
    """P11 A second push-back during a pause is obeyed as well."""

    async def main() -> float:
        submitters = Submitters(1)
        submitters.limiter.pause(5.0)
        submitters.submit("a")
        await asyncio.sleep(4.0)
        submitters.limiter.pause(60.0)
        return (await submitters.close())["a"]

    assert run_main(main()) == pytest.approx(64)


def test_a_lease_from_before_a_push_back_is_held_until_one_is_accepted() -> None:
    """P11 F2 After the pause only later grants go, until a submission is accepted."""

    async def main() -> list[tuple[bool, bool]]:
        limiter, breaker = LimiterUnderTest(4), CircuitBreaker()
        before = await limiter.take("a", breaker=breaker)
        seen = [(limiter.holds(before), False)]
        limiter.probe(5.0)
        limiter.answered(before)
        probe = asyncio.create_task(limiter.take("a", breaker=breaker))
        await turns()
        seen.append((limiter.holds(before), probe.done()))
        await asyncio.sleep(6.0)
        lease = await probe
        seen.append((limiter.holds(before), limiter.holds(lease)))
        limiter.accepted(lease)
        seen.append((limiter.holds(before), limiter.holds(lease)))
        return seen

    assert run_main(main()) == [(False, False), (True, False), (True, False), (False, False)]


def test_a_cancelled_waiter_leaves_its_place() -> None:
    """P12 A cancelled waiter takes no slot, and the next one does."""

    async def main() -> dict[str, float]:
        submitters = Submitters(1)
        submitters.submit("running")
        gone = submitters.submit("gone")
        submitters.submit("next")
        await turns()
        gone.cancel()
        return await submitters.close()

    assert run_main(main()) == {"running": 0, "next": 1}


def test_granted_and_cancelled_in_the_same_turn_gives_the_slot_on() -> None:
    """P12 The lease of a task that was cancelled before it woke goes to the next one."""

    async def main() -> dict[str, float]:
        submitters = Submitters(1)
        lease = await submitters.limiter.take("a", breaker=submitters.breaker)
        gone = submitters.submit("gone")
        submitters.submit("next")
        await turns()
        submitters.limiter.give(lease)
        gone.cancel()  # the slot is already its own, but it has not woken yet
        return await submitters.close()

    assert run_main(main()) == {"next": 0}


def test_giving_back_twice_gives_one_slot() -> None:
    """P12 A lease is worth one slot however often it is given back; a foreign one is worth none."""

    async def main() -> int:
        submitters = Submitters(1)
        lease = await submitters.limiter.take("a", breaker=submitters.breaker)
        submitters.limiter.give(lease)
        submitters.limiter.give(lease)
        submitters.limiter.give(Lease("a"))
        for name in "ab":
            submitters.submit(name)
        await submitters.close()
        return submitters.most

    assert run_main(main()) == 1


REASON = AuthenticationError("the key was refused", status=401)


def test_a_tripped_breaker_fails_every_waiter_at_once() -> None:
    """P8 Waiters for slots or a pause get the error now; granted ones finish."""

    async def main() -> dict[str, float]:
        submitters = Submitters(1)
        submitters.submit("running", hold=5.0)
        waiting = [submitters.submit(str(number)) for number in range(3)]
        await turns()
        submitters.limiter.pause(3600)
        submitters.breaker.trip(REASON)
        for task in waiting:
            with pytest.raises(AuthenticationError):
                await task
        with pytest.raises(AuthenticationError):
            await submitters.limiter.take("a", breaker=submitters.breaker)
        assert asyncio.get_running_loop().time() == virtual_time.START
        return await submitters.close()

    assert run_main(main()) == {"running": 0}


def test_a_parents_breaker_fails_waiters_too_and_other_breakers_stay_closed() -> None:
    """P8 The session's breaker ends its batches; a batch's breaker ends no other batch."""

    async def main() -> None:
        limiter, parent = LimiterUnderTest(1), CircuitBreaker()
        stopped, other = CircuitBreaker(parent), CircuitBreaker(parent)
        lease = await limiter.take("a", breaker=parent)
        tasks = [asyncio.create_task(limiter.take("a", breaker=b)) for b in (stopped, other)]
        await turns()
        stopped.trip(REASON)
        await turns()
        assert [task.done() for task in tasks] == [True, False]
        parent.trip(REASON)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert ends == [REASON, REASON]
        limiter.give(lease)
        assert is_empty(limiter)

    run_main(main())


def test_tripped_and_cancelled_in_the_same_turn_is_quiet() -> None:
    """A task that is cancelled as the breaker trips leaves neither a slot nor an unread error."""

    async def main() -> None:
        submitters = Submitters(1)
        lease = await submitters.limiter.take("a", breaker=submitters.breaker)
        task = submitters.submit("gone")
        await turns()
        submitters.breaker.trip(REASON)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        submitters.limiter.give(lease)
        await submitters.close()

    run_main(main())


def test_raised_limits_let_the_waiting_go_at_once() -> None:
    """More slots take effect without a departure."""

    async def main() -> dict[str, float]:
        submitters = Submitters(1)
        for name in "abcd":
            submitters.submit(name, hold=10.0)
        await asyncio.sleep(1.0)
        submitters.limiter.assign(evolve(submitters.limiter.policies.limits, in_flight=3))
        return await submitters.close()

    assert run_main(main()) == {"a": 0, "b": 1, "c": 1, "d": 10}


def test_jobs_of_an_earlier_process_do_not_raise_an_adaptive_limit() -> None:
    """P12 Adopted jobs are counted beyond any limit, so their number does not raise it."""

    async def main() -> tuple[int, int]:
        limiter, breaker = LimiterUnderTest("auto"), CircuitBreaker()
        lease = await limiter.take("account", breaker=breaker)
        for _ in range(100):
            limiter.count("account")
        limiter.accepted(lease)
        return limiter.in_flight, limiter.slots

    assert run_main(main()) == (101, 24)


def test_a_newly_assigned_limit_replaces_a_learned_one() -> None:
    """F2 A 429 lowers the assigned limit; a limit assigned afterwards counts as newer."""

    async def main() -> list[int]:
        limiter, breaker, slots = LimiterUnderTest(24), CircuitBreaker(), []
        leases = [await limiter.take("account", breaker=breaker) for _ in range(9)]
        for lease in leases[:8]:
            limiter.accepted(lease)
        limiter.on_rate_limited(leases[8])
        slots.append(limiter.slots)
        limiter.assign(evolve(limiter.policies.limits, rate=50.0))
        slots.append(limiter.slots)
        limiter.assign(evolve(limiter.policies.limits, in_flight=20))
        return [*slots, limiter.slots]

    assert run_main(main()) == [8, 8, 20]


def test_lowered_limits_let_the_running_finish() -> None:
    """Fewer slots revoke no lease; the next submission goes when the count is below the limit."""

    async def main() -> dict[str, float]:
        submitters = Submitters(3)
        for name, hold in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 1.0)):
            submitters.submit(name, hold=hold)
        await turns()
        submitters.limiter.assign(evolve(submitters.limiter.policies.limits, in_flight=1))
        return await submitters.close()

    assert run_main(main()) == {"a": 0, "b": 0, "c": 0, "d": 3}


@pytest.mark.parametrize(("rate", "ends"), [(None, 1.0), (2.0, 1.0), (0.1, 10.0)], ids=repr)
def test_a_changed_rate_counts_from_the_last_submission(rate: float | None, ends: float) -> None:
    """A spacing of an hour, replaced after a second, is not waited to its end."""

    async def main() -> float:
        submitters = Submitters(5, rate=1 / 3600)
        submitters.submit("first", hold=0.0)
        submitters.submit("second")
        await asyncio.sleep(1.0)
        submitters.limiter.assign(evolve(submitters.limiter.policies.limits, rate=rate))
        return (await submitters.close())["second"]

    assert run_main(main()) == pytest.approx(ends)


def test_the_repr_shows_slots_and_waiters() -> None:
    """Slots in use, slots in all, and waiters."""

    async def main() -> str:
        submitters = Submitters(1)
        submitters.submit("a")
        submitters.submit("b")
        await turns()
        shown = repr(submitters.limiter)
        await submitters.close()
        return shown

    assert run_main(main()) == "<Limiter 1/1, 1 waiting>"


# — any order of events ————————————————————————————————————————————————————————————————————————

CAPS = {"a": None, "b": 2, "c": 1}

moves = st.one_of(
    st.tuples(st.just("take"), st.sampled_from("abc"), st.integers(0, 2)),
    st.tuples(st.just("give"), st.integers(0, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("limit"), st.integers(1, 4)),
    st.tuples(st.just("pause"), st.integers(0, 3)),
    st.tuples(st.just("turn")),
    st.tuples(st.just("sleep"), st.integers(0, 4)),
)


class Crowd:
    """Plays moves, some of them in the same turn of the loop, and counts the leases held."""

    def __init__(self) -> None:
        self.limiter = LimiterUnderTest(2)
        self.breaker = CircuitBreaker()
        self.held: dict[asyncio.Task[None], Lease] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def _hold_slot(self, group: str, priority: int) -> None:
        lease = await self.limiter.take(group, CAPS[group], breaker=self.breaker, priority=priority)
        task = asyncio.current_task()
        assert task is not None
        self.held[task] = lease
        await asyncio.get_running_loop().create_future()

    async def play(self, move: tuple[Any, ...]) -> None:
        match move:
            case "take", group, priority:
                self.tasks.append(asyncio.create_task(self._hold_slot(group, priority)))
            case "give", at if self.held:
                task = list(self.held)[at % len(self.held)]
                self.limiter.give(self.held.pop(task))
                task.cancel()
            case "cancel", at:
                waiting = [t for t in self.tasks if not t.done() and t not in self.held]
                if waiting:
                    waiting[at % len(waiting)].cancel()
            case "limit", in_flight:
                self.limiter.assign(Limits(in_flight=in_flight))
            case "pause", seconds:
                self.limiter.pause(seconds)
            case ("turn",):
                await turns()
                self.check()
            case "sleep", seconds:
                await asyncio.sleep(seconds)
                await turns()
                self.check()

    def check(self) -> None:
        """The leases are the held ones, and no group is over its cap."""
        assert self.limiter.in_flight == len(self.held)
        by_group = Counter(lease.group for lease in self.held.values())
        assert all(cap is None or by_group[group] <= cap for group, cap in CAPS.items())

    async def end(self) -> None:
        """With the pauses over, every waiter is granted, one after another."""
        self.limiter.assign(Limits(in_flight=1))
        waiting = sum(not task.done() for task in self.tasks)
        for _ in range(waiting):
            await asyncio.sleep(4)
            self.check()
            await self.play(("give", 0))
        await turns()
        assert not self.held
        assert all(task.done() for task in self.tasks)
        assert is_empty(self.limiter)


@settings(max_examples=150)
@given(st.lists(moves, max_size=40), st.integers(0, 3))
def test_no_order_of_events_leaks_a_slot(history: list[tuple[Any, ...]], seed: int) -> None:
    """P12 Takes, returns, cancellations and new limits in any order, also within one turn."""

    async def main() -> None:
        crowd = Crowd()
        for move in history:
            await crowd.play(move)
        await turns()
        await crowd.end()

    virtual_time.run(main(), seed=seed)


@given(st.lists(st.integers(0, 1), min_size=1, max_size=20), st.integers(0, 20))
def test_a_breaker_tripped_at_any_moment_leaves_no_waiter(choices: list[int], after: int) -> None:
    """P8 Waiters of the tripped breaker get its error; the others are granted."""

    async def main() -> None:
        limiter, both = LimiterUnderTest(1), (CircuitBreaker(), CircuitBreaker())
        tasks = [asyncio.create_task(limiter.take("a", breaker=both[choice])) for choice in choices]
        await turns(after)
        both[0].trip(FluxError("stop"))
        for choice, task in zip(choices, tasks, strict=True):
            try:
                limiter.give(await task)
            except FluxError:
                assert choice == 0
        assert is_empty(limiter)

    virtual_time.run(main())


def test_a_limit_that_changed_is_reported_and_one_that_did_not_is_not() -> None:
    """P12 An event names the group and its new limit, once for each change."""

    async def main() -> list[Event]:
        limiter = LimiterUnderTest(24)
        leases = [await limiter.take("account", breaker=CircuitBreaker()) for _ in range(9)]
        for lease in leases[:8]:
            limiter.accepted(lease)
        limiter.on_server_error()
        assert limiter.events == []
        limiter.on_rate_limited(leases[8])
        return limiter.events

    assert run_main(main()) == [LimitChanged(group="account", limit=8)]


@pytest.mark.parametrize(
    ("others", "lowered"),
    [(0, LimitChanged(group="big", limit=7)), (15, LimitChanged(group="account", limit=22))],
    ids=["its own", "the account"],
)
def test_a_429_lowers_the_limit_that_is_used_up_the_most(others: int, lowered: LimitChanged):
    """P12 The server does not say which limit was met. Of a model's own and the account's, the
    fuller one is lowered."""

    async def main() -> list[Event]:
        breaker = CircuitBreaker()
        limiter = LimiterUnderTest(24)
        leases = [await limiter.take("small", breaker=breaker) for _ in range(others)]
        leases += [await limiter.take("big", cap=10, breaker=breaker) for _ in range(8)]
        for lease in leases[:-1]:
            limiter.accepted(lease)
        limiter.on_rate_limited(leases[-1])
        return limiter.events

    assert run_main(main()) == [lowered]
