"""A run whose first paid images all fail alike stops, like one whose requests are all refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.cost_server import cost_server
from support.simulator_sessions import fast_session, until

from fluxasync import Batch, Failed, JobError, Prompts, Saved, Timeouts
from fluxasync.audit import status, verify

pytestmark = pytest.mark.asyncio

SLOTS = 8
#: images in a list; far more than the brake lets through
MANY = 80
#: seconds for a job, and for a download that keeps failing, by how the jobs end. On a slow machine
#: 0.2 s end jobs too that are to end otherwise.
PATIENCE = {"deadline": 0.2, "download": 3.0}


def batch(flux: Any, folder: Path, count: int = MANY, **options: Any) -> Batch:
    rows = [f"a kite over dunes, {number}" for number in range(count)]
    return Batch(flux, Prompts(rows, model="flux-2-pro"), out=folder, **options)


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("moderated", "moderated"),
        ("failed", "failed"),
        ("lost", "lost"),
        ("deadline", "timeout"),
        ("download", "download"),
        ("expired", "lost"),
    ],
)
async def test_the_run_stops_after_twenty_that_end_alike(
    end: str, cause: str, tmp_path: Path
) -> None:
    """What was submitted lands in the journal; the error says in one line what to do."""
    job = PATIENCE.get(end, 60.0)
    timeouts = Timeouts(connect=30, submit=30, poll=30, download=30, job=job)
    async with (
        cost_server(end=end) as server,
        fast_session(server.url, "bfl", api_key="x", limits=SLOTS, timeouts=timeouts) as flux,
    ):
        running = batch(flux, tmp_path)
        with pytest.raises(JobError, match=f"first 20 accepted images all ended as '{cause}'"):
            await running.run()
        assert 20 <= server.submitted < MANY
        assert running.summary.failed == {cause: server.submitted}
    found = await status(tmp_path)
    late = server.submitted if cause == "timeout" else 0
    assert (sum(found.counts.failed.values()), found.counts.running) == (
        server.submitted - late,
        late,
    )
    assert (await verify(tmp_path)).is_clean


async def test_the_next_run_goes_on_with_the_rest(tmp_path: Path) -> None:
    """A list whose first prompts are all refused can be finished: failures are skipped."""
    async with cost_server(end="moderated") as server:
        async with fast_session(server.url, "bfl", api_key="x", limits=SLOTS) as flux:
            with pytest.raises(JobError):
                await batch(flux, tmp_path).run()
        failed, server.end = server.submitted, "saved"
        async with fast_session(server.url, "bfl", api_key="x", limits=SLOTS) as flux:
            summary = await batch(flux, tmp_path).run()
    assert (summary.saved, summary.failed_earlier["moderated"]) == (MANY - failed, failed)


async def test_one_image_that_is_saved_lets_the_run_go_on(tmp_path: Path) -> None:
    """Later failures concern their own images, however many they are."""
    async with (
        cost_server() as server,
        fast_session(server.url, "bfl", api_key="x", limits=1) as flux,
        batch(flux, tmp_path, count=30) as running,
    ):
        outcomes = []
        async for outcome in running:
            outcomes.append(outcome)
            server.end = "moderated"
    assert isinstance(outcomes[0], Saved)
    assert sum(isinstance(each, Failed) for each in outcomes) > 20
    assert server.submitted == 30


async def test_failures_that_cost_nothing_do_not_stop_a_run(tmp_path: Path) -> None:
    """The provider reports a cost of 0 for them."""
    async with (
        cost_server(end="moderated", at_submit=3.0, costs=[0]) as server,
        fast_session(server.url, "bfl", api_key="x", limits=SLOTS) as flux,
    ):
        summary = await batch(flux, tmp_path, count=30).run()
    assert (summary.failed["moderated"], summary.possible_cost) == (30, 0)


async def test_old_jobs_that_are_gone_do_not_stop_a_run(tmp_path: Path) -> None:
    """A run that is continued after days loses the jobs that were in flight: that shows nothing
    about the new ones, of which fewer than twenty fail here."""
    async with cost_server(end="deadline") as server:
        async with fast_session(server.url, "bfl", api_key="x", limits=24) as flux:
            running = batch(flux, tmp_path, count=24)
            async with running:
                await until(lambda: server.submitted == 24)
                running.stop(grace=0)
        server.end = "lost"
        async with fast_session(server.url, "bfl", api_key="x", limits=1) as flux:
            summary = await batch(flux, tmp_path, count=39).run()
    assert summary.failed == {"lost": 39}
