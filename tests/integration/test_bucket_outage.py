"""A bucket that does not answer while a run goes on is shown, and so is its end."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support.object_stores import BUCKET, SmallS3, options_of
from support.simulator_sessions import fast_session, run_out, small_requests, tally

from fluxasync import Batch, ObjectSink
from fluxasync._batch import store_watch
from fluxasync._batch.progress.counts import Progress
from fluxasync.events import Event, JobSubmitted, StoreOutage
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("obstore", reason="the extra `store` is not installed")
pytestmark = pytest.mark.asyncio

URL = f"s3://{BUCKET}/run"


async def test_an_outage_is_said_once_and_so_is_its_end(
    s3: SmallS3, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """An observer, the progress line and the log name the bucket and since when; a run that goes
    on after it has lost nothing."""
    monkeypatch.setattr(store_watch, "SHOWN_AFTER", 0.3)
    monkeypatch.setattr(store_watch, "_CHECK_EVERY", 0.05)
    progress, outages, lines = Progress(), [], []

    def watch(event: Event) -> None:
        progress(event)
        if isinstance(event, JobSubmitted):
            s3.late, s3.late_seconds = 1, 1.5
        if isinstance(event, StoreOutage):
            outages.append(event)
            lines.append(progress.line(0))

    caplog.set_level(logging.WARNING, "fluxasync")
    sink: Any = ObjectSink(URL, options=options_of(s3.url))
    async with Simulator(Scenario(latency=(0, 0))) as sim, fast_session(sim.url) as flux:
        outcomes, error = await run_out(Batch(flux, small_requests(1), out=sink, on_event=watch))
    assert (tally(outcomes), error) == ({"saved": 1}, None)
    first, last = outages
    assert (first.url, last.since, last.text) == (URL, None, "")
    assert f"{URL} has not answered since {first.since.astimezone():%H:%M:%S}" in first.text
    assert [first.text in line for line in lines] == [True, False]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == first.text
    assert said[1].startswith(f"{URL} answers again, after ")
    assert len(said) == 2
