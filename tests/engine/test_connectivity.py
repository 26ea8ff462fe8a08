"""Connectivity: outages, the sleepers that their end wakes, and answers about other jobs."""

from __future__ import annotations

import asyncio

import pytest
from support import virtual_time

from fluxasync._engine.connectivity import RETURN, UNANSWERED, Connectivity, WrongAnswers


def test_the_network_is_down_after_a_few_calls_without_an_answer() -> None:
    """P9 Two are not enough; an answer in between starts the count again."""
    connectivity = Connectivity()
    for _ in range(UNANSWERED - 1):
        connectivity.unanswered()
    assert not connectivity.is_down
    connectivity.answered()
    for _ in range(UNANSWERED):
        connectivity.unanswered()
    assert (connectivity.is_down, connectivity.outages) == (True, 1)
    assert connectivity.answered(), "it ended an outage"
    assert not connectivity.answered()
    assert (connectivity.is_down, connectivity.outages) == (False, 1)


def test_sleepers_return_soon_after_an_outage_and_not_in_step() -> None:
    """P9 A poll that was due in a minute is sent within seconds after the outage."""

    async def main() -> list[float]:
        connectivity, loop = Connectivity(), asyncio.get_running_loop()
        for _ in range(UNANSWERED):
            connectivity.unanswered()
        back: list[float] = []

        async def sleeper(jitter: float) -> None:
            await connectivity.sleep(60.0, jitter=jitter)
            back.append(loop.time() - virtual_time.START)

        tasks = [asyncio.create_task(sleeper(number / 10)) for number in range(10)]
        await asyncio.sleep(5)
        connectivity.answered()
        await asyncio.gather(*tasks)
        return back

    back = virtual_time.run(main())
    assert back == sorted(back)
    assert len(set(back)) == 10
    assert 5 <= min(back) < max(back) <= 5 + RETURN


def test_a_sleep_without_an_outage_lasts_to_its_end() -> None:
    """It lasts as long as requested; zero gives the loop a turn."""

    async def main() -> float:
        connectivity = Connectivity()
        await connectivity.sleep(0.0, jitter=0.5)
        await connectivity.sleep(7.0, jitter=0.5)
        return asyncio.get_running_loop().time() - virtual_time.START

    assert virtual_time.run(main()) == pytest.approx(7.0)


def test_a_provider_has_answered_when_it_did_once() -> None:
    """F30 An address that never answered is given up; one that did is waited for."""
    connectivity = Connectivity()
    connectivity.unanswered()
    assert not connectivity.has_answered
    connectivity.answered()
    connectivity.unanswered()
    assert connectivity.has_answered


# --- answers about other jobs -------------------------------------------------------------------


def is_hopeless_after(*polls: str) -> bool:
    """Play polls, each sent after the last answer: "a>b" is a poll of a, answered about b."""
    wrong = WrongAnswers()
    for time, poll in enumerate(polls):
        asked, _, named = poll.partition(">")
        if asked == named:
            wrong.right(asked)
        else:
            wrong.counts(named, asked=float(time), now=time + 0.5)
    return wrong.is_hopeless


@pytest.mark.parametrize(
    ("polls", "is_hopeless"),
    [
        pytest.param(["a>x", "b>y"], False, id="F60 two"),
        pytest.param(["a>x", "b>y", "c>z"], True, id="F60 three in a row"),
        pytest.param(["a>x", "a>x", "a>x"], True, id="F60 of one job"),
        pytest.param(["a>x", "b>y", "c>c", "d>z"], False, id="F60 a right one between"),
        pytest.param(["a>x", "x>x", "b>x", "x>x", "c>x"], True, id="F60 a cache is right once"),
        pytest.param(["a>x", "b>x", "c>x", "d>d"], True, id="F60 it stays"),
        pytest.param(
            ["a>x", "b>b", "c>y", "d>z", "x>x", "e>w"], False, id="F60 a name of an earlier row"
        ),
    ],
)
def test_answers_about_other_jobs_are_counted_in_a_row(polls: list[str], is_hopeless: bool):
    """F60 Three in a row end a run; one connection that is out of step does not."""
    assert is_hopeless is is_hopeless_after(*polls)


def test_polls_under_way_together_are_one_wrong_answer():
    """F60 A proxy that swaps the answers of open polls proves nothing about the next poll."""
    wrong = WrongAnswers()
    assert [wrong.counts("x", asked=0.0, now=1.0) for _ in range(9)] == [True, *[False] * 8]
    assert not wrong.is_hopeless


def test_no_sleep_leaves_anything_behind() -> None:
    """P20 Sleeps that ended, were woken or were cancelled are not kept."""

    async def main() -> None:
        connectivity = Connectivity()
        for _ in range(100):
            await connectivity.sleep(1.0, jitter=0.5)
        tasks = [asyncio.create_task(connectivity.sleep(60.0, jitter=0.5)) for _ in range(20)]
        await asyncio.sleep(1)
        assert len(connectivity._sleepers) == 20
        for task in tasks[:10]:
            task.cancel()
        connectivity.wake()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not connectivity._sleepers

    virtual_time.run(main())
