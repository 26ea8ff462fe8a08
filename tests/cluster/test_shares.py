"""The slots of one account, divided among workers whose messages get lost."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fluxasync.cluster.shares import Shares

SLOTS = 10
#: seconds: jobs that are left behind, and the time in which a new ledger hears every worker
LEFT, RECOVERY = 5.0, 3.0


class Worker:
    """A worker that starts jobs up to its share; jobs go on when the share shrinks."""

    def __init__(self) -> None:
        self.share = self.in_flight = 0

    @property
    def used(self) -> int:
        return max(self.share, self.in_flight)


class SharedSlots(RuleBasedStateMachine):
    """Workers join, report, work and die, and ledgers are restarted, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.number = 0
        self.shares = Shares(SLOTS, expected=3, until=10.0)
        self.workers: dict[str, Worker] = {}
        self.left: list[tuple[int, float]] = []  # jobs of the dead, and until when they run

    @rule()
    def join(self) -> None:
        self.number += 1
        self.workers[f"worker-{self.number}"] = Worker()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), lost=st.sampled_from(["", "report", "answer", "first answer"]))
    def report(self, data: st.DataObject, lost: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        worker = self.workers[name]
        if lost == "report":
            return
        for _ in range(2 if lost == "first answer" else 1):
            share = self.shares.report(
                name, share=worker.share, in_flight=worker.in_flight, now=self.now
            )
        if lost != "answer":
            worker.share = share

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), ends=st.booleans())
    def work(self, data: st.DataObject, ends: bool) -> None:
        worker = self.workers[data.draw(st.sampled_from(sorted(self.workers)))]
        if ends:
            worker.in_flight = max(0, worker.in_flight - 1)
        else:
            worker.in_flight = max(worker.in_flight, worker.share)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        self.left.append((self.workers.pop(name).in_flight, self.now + LEFT))
        self.shares.leave(name, until=self.now + LEFT)

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """A new ledger knows no worker; each that lives reports before the recovery ends."""
        left = [until for jobs, until in self.left if jobs and until > self.now]
        opens = max([self.now + RECOVERY, *left])  # it knows no jobs of the dead either
        self.shares = Shares(SLOTS, expected=3, until=self.now + 10.0, opens=opens)
        for name in data.draw(st.permutations(sorted(self.workers))):
            worker = self.workers[name]
            worker.share = self.shares.report(
                name, share=worker.share, in_flight=worker.in_flight, now=self.now
            )

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_slot_is_used_twice(self) -> None:
        left = sum(jobs for jobs, until in self.left if until > self.now)
        used = sum(worker.used for worker in self.workers.values())
        assert used + left <= SLOTS


SharedSlots.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


class TestSharedSlots(SharedSlots.TestCase):
    """P12 Whatever report or answer is lost or repeated, all workers together and the jobs of the
    dead never use more than the account's slots."""


def settled(shares: Shares, told: dict[str, int], *, now: float) -> dict[str, int]:
    """Let each worker report until no share changes."""
    for _ in range(4):
        for name, share in told.items():
            told[name] = shares.report(name, share=share, in_flight=share, now=now)
    return told


def test_the_slots_are_divided_evenly_and_used_all():
    """P12 The first workers have the remainder, and no slot is idle."""
    shares = Shares(SLOTS)
    assert settled(shares, {"a": 0, "b": 0, "c": 0}, now=0) == {"a": 4, "b": 3, "c": 3}


def test_slots_of_a_lost_worker_are_free_after_its_jobs():
    """P12 The jobs that a lost worker left behind keep its slots; then the others have them."""
    shares = Shares(SLOTS)
    told = settled(shares, {"a": 0, "b": 0}, now=0)
    assert told == {"a": 5, "b": 5}
    shares.leave("b", until=60)
    told.pop("b")
    assert settled(shares, told, now=59) == {"a": 5}
    assert settled(shares, told, now=61) == {"a": 10}


def test_a_restarted_ledger_gives_nothing_before_it_heard_every_worker():
    """P12 A worker that has not reported yet may have more than its even part."""
    shares = Shares(SLOTS, expected=2, until=30, opens=5)
    assert shares.report("new", share=0, in_flight=0, now=1) == 0
    assert shares.report("old", share=10, in_flight=10, now=2) == 5
    assert shares.report("new", share=0, in_flight=0, now=6) == 0
    assert shares.report("old", share=5, in_flight=5, now=7) == 5
    assert shares.report("new", share=0, in_flight=0, now=8) == 5


@pytest.mark.parametrize("workers", [1, 3, 10])
def test_every_worker_has_a_slot(workers: int):
    """P12 No more workers are started than there are slots, so each has one."""
    told = settled(Shares(SLOTS), {f"{n}": 0 for n in range(workers)}, now=0)
    assert sum(told.values()) == SLOTS
    assert min(told.values()) >= 1
