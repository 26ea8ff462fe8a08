"""The cluster with one safeguard removed, over a line that loses calls; each removal is noticed.

A scenario passes with the package as it is, and fails with a plausible mistake in it. Otherwise it
would prove nothing.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.cluster_runs import Line, drive, kill, ledger_order
from support.patience import patient
from support.simulator_sessions import audit, small_requests, tally

from fluxasync import Budget, Prompts, prepare
from fluxasync._core.attempts import Attempt
from fluxasync.cluster import run_ledger, worker_run
from fluxasync.cluster.messages import LedgerOrder
from fluxasync.cluster.remote_ledger import Unreachable
from fluxasync.cluster.row_queue import RowQueue
from fluxasync.cluster.run_ledger import RunLedger
from fluxasync.simulator import Scenario, Simulator

#: seconds after which a scenario counts as hanging; each takes about one
HANGING = 8.0

#: a run that shows what is broken by an AssertionError or by hanging
Play = Callable[[Path], Awaitable[None]]


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_ledger, "RECOVERY", 0.3)
    monkeypatch.setattr(run_ledger, "LEFT_BEHIND", 0.2)
    monkeypatch.setattr(worker_run, "_BEAT", 0.05)


# --- scenarios ------------------------------------------------------------------------------------


async def numbered(count: int) -> list[Any]:
    """Each second request occurs twice."""
    requests = small_requests(count)
    return [request async for request in prepare(requests + requests[::2])]


class Forgetful(Line):
    """Loses the first answer to each question for images, and to each group of steps."""

    def __init__(self, order: LedgerOrder) -> None:
        super().__init__(order)
        self._asked: set[bytes] = set()

    async def __call__(self, method: str, *arguments: Any) -> Any:
        call = pickle.dumps((method, arguments))
        answer = await super().__call__(method, *arguments)
        if method in ("take", "steps") and answer and call not in self._asked:
            self._asked.add(call)
            raise Unreachable("the answer was lost")
        return answer


async def answers_are_lost(folder: Path) -> None:
    """Each call has to be repeated: everything is made, by the one worker that was started."""
    async with Simulator(Scenario(latency=(0.01, 0.03))) as sim:
        line = Forgetful(ledger_order(folder, sim.url))
        await line.open()
        names: set[str] = set()
        outcomes = await drive(
            line, await numbered(40), workers=1, meddle=lambda _, living: names.update(living)
        )
        assert tally(outcomes) == {"saved": 60}
        audit(sim.world, outcomes, folder=folder)
        assert names == {"worker-0"}


async def workers_die(folder: Path) -> None:
    """Workers are killed: what they had is made by others, and paid once."""

    def meddle(count: int, living: dict[str, asyncio.Task[None]]) -> None:
        if living and count >= 10 * (len(line.killed) + 1) and len(line.killed) < 4:
            kill(line, living, min(living))

    async with Simulator(Scenario(latency=(0.02, 0.05))) as sim:
        line = Line(ledger_order(folder, sim.url))
        await line.open()
        requests = await numbered(60)
        outcomes = await drive(line, requests, meddle=meddle)
        latest = {outcome.request.key: outcome for outcome in outcomes}
        assert latest.keys() == {request.key for request in requests}
        audit(sim.world, list(latest.values()), folder=folder)


async def the_ledger_restarts(folder: Path) -> None:
    """The ledger is started again while POSTs are under way: nothing of it is in doubt."""
    restarts = 0

    def meddle(count: int, _living: object) -> Any:
        nonlocal restarts
        ledger = line.ledger
        is_posting = ledger is not None and len(ledger._open) >= 3  # else there is nothing to doubt
        if restarts < 3 and count >= 8 * (restarts + 1) and is_posting:
            restarts += 1
            return line.restart()
        return None

    # also on a busy machine, the driver hears of the new ledger before the POSTs are answered
    async with Simulator(Scenario(latency=(0.01, 0.03), submit_delay=1.0)) as sim:
        line = Line(ledger_order(folder, sim.url, slots=20))
        await line.open()
        outcomes = await drive(line, await numbered(40), meddle=meddle)
        assert restarts == 3
        assert tally(outcomes) == {"saved": 60}
        audit(sim.world, outcomes, folder=folder)


async def the_cap_is_reached(folder: Path) -> None:
    """Four workers reach a cap at the same time: no charge passes it."""
    async with Simulator(Scenario(latency=(0.01, 0.03))) as sim:
        order = ledger_order(folder, sim.url, slots=24, max_cost=Decimal("0.50"))
        line = Line(order)
        await line.open()
        await drive(line, await numbered(40), workers=4)
        assert len(sim.world.charges) == 20


# --- mutants --------------------------------------------------------------------------------------


def no_attempt_token(patch: pytest.MonkeyPatch) -> None:
    """A step that is repeated is another attempt."""
    intent = RunLedger._intent

    async def anew(
        self: RunLedger, worker: str, request: Any, price: Any, attempt: Attempt
    ) -> None:
        await intent(self, worker, request, price, Attempt())

    patch.setattr(RunLedger, "_intent", anew)


def renumbered_identity(patch: pytest.MonkeyPatch) -> None:
    """Each worker numbers its images again."""
    patch.setattr(worker_run, "Prompts", lambda source, prepared: Prompts(source))


def doubts_living_owners(patch: pytest.MonkeyPatch) -> None:
    """A ledger that was restarted takes every open intent for one of a dead process."""
    open_output = run_ledger.open_output

    def forgetful(stack: Any, order: Any, *, keeps_intents: bool) -> Any:
        return open_output(stack, order, keeps_intents=False)

    patch.setattr(run_ledger, "open_output", forgetful)


def cap_in_each_worker(patch: pytest.MonkeyPatch) -> None:
    """The cap is checked by each worker's own count only."""
    open_output = run_ledger.open_output

    def uncapped(stack: Any, order: Any, *, keeps_intents: bool) -> Any:
        return open_output(stack, evolve(order, max_cost=None), keeps_intents=keeps_intents)

    patch.setattr(run_ledger, "open_output", uncapped)
    patch.setattr(worker_run, "Budget", partial(Budget, max_cost=Decimal("0.50")))


def takes_without_numbers(patch: pytest.MonkeyPatch) -> None:
    """A repeated question for images gives other ones; those of the lost answer wait."""
    take = RowQueue.take

    def anew(self: RowQueue, worker: str, number: int, *, workers: int) -> Any:
        self._last.pop(worker, None)
        return take(self, worker, number, workers=workers)

    patch.setattr(RowQueue, "take", anew)


CAUGHT = (
    (no_attempt_token, answers_are_lost),
    (renumbered_identity, workers_die),
    (doubts_living_owners, the_ledger_restarts),
    (cap_in_each_worker, the_cap_is_reached),
    (takes_without_numbers, answers_are_lost),
)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("mutant", "play"), [pytest.param(*pair, id=pair[0].__name__) for pair in CAUGHT]
)
async def test_a_missing_safeguard_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: Any, play: Play
):
    """P1 P2 P7 Each mistake breaks what its scenario promises."""
    mutant(monkeypatch)
    with pytest.raises((AssertionError, TimeoutError)):
        async with asyncio.timeout(patient(HANGING)):
            await play(tmp_path / "run")


@pytest.mark.asyncio
@pytest.mark.parametrize("play", dict.fromkeys(play for _, play in CAUGHT))
async def test_the_package_itself_passes(tmp_path: Path, play: Play):
    """P1 P2 P7 A scenario that always fails would prove nothing."""
    async with asyncio.timeout(patient(60)):
        await play(tmp_path / "run")
