"""`fluxasync.audit` as a program uses it: counts, verification, a decision about a doubt."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from support.simulator_sessions import fast_session, run_out, small_requests

from fluxasync import Batch, BudgetExceeded, audit
from fluxasync.simulator import Scenario, Simulator


@pytest.mark.asyncio
async def test_a_folder_is_counted_verified_and_decided_about(tmp_path: Path) -> None:
    """P3: the charge of a lost answer is listed with its key; given its job id, it is collected."""
    scenario = Scenario(latency=(0, 0), faults=["lost-reply:1"])
    async with Simulator(scenario) as simulator:

        async def run() -> None:
            async with fast_session(simulator.url) as flux:
                await run_out(Batch(flux, small_requests(1), out=tmp_path))

        await run()
        status = await audit.status(tmp_path)
        assert (status.counts.done, status.counts.in_doubt, status.is_running) == (0, 1, False)
        (entry,) = status.doubts
        assert [entry] == await audit.in_doubt(tmp_path)
        with pytest.raises(BudgetExceeded):
            await audit.resubmit(tmp_path, max_cost=Decimal(0))
        (charge,) = simulator.charges
        await audit.give_jobs(tmp_path, {entry.key: charge.job_id})
        await run()
        assert [charge.job_id] == [one.job_id for one in simulator.charges]
    checked = await audit.verify(tmp_path)
    assert (checked.is_clean, checked.images, checked.unknown_images) == (True, 1, 0)
