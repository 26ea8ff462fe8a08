"""Downloads that keep failing are shown: by an event, a warning, and the line of the run.

Silent retries after a wrong checksum are a known complaint: owncloud/client#9133,
retroplasma/earth-reverse-engineering#71.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.virtual_time import START, run
from support.world_transport import ORIGIN, WorldTransport

from fluxasync import (
    Batch,
    Failed,
    FluxSession,
    ImageRequest,
    Job,
    MemoryLedger,
    MemorySink,
    Moderated,
    Outcome,
    Saved,
    Timeouts,
)
from fluxasync._batch.progress.counts import Progress
from fluxasync._cli.rendering import event_row
from fluxasync._engine.failing_downloads import FailingDownloads
from fluxasync._wire.client import now
from fluxasync.events import DownloadsFailing, Event, JobReady, JobSubmitted
from fluxasync.simulator import Scenario, World

#: faults of a download, and what the line says of them
KINDS = [
    pytest.param("wrong-bytes", "Content-MD5 differs", id="F77 checksum"),
    pytest.param("html-as-image", "an HTML page, not an image", id="F75 HTML"),
    pytest.param("truncated", "", id="F71 truncated"),
    pytest.param("download-503", "HTTP 503 for the image's URL", id="503"),
    pytest.param("download-reset", "", id="reset"),
]


class Seen:
    """What an observer sees of a run, with the time and the run's line."""

    def __init__(self, total: int) -> None:
        self.progress = Progress(total=total)
        self.failing: list[tuple[float, DownloadsFailing, str]] = []
        self.outcomes: list[Outcome] = []

    def __call__(self, event: Event) -> None:
        self.progress(event)
        if isinstance(event, DownloadsFailing):
            self.failing.append((now() - START, event, self.progress.line(now())))


class Refusal:
    """A download that its host refuses for now."""

    status = 503

    def __init__(self, seconds: int) -> None:
        self.headers = {"retry-after": str(seconds)}

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b""


class BusyHost(WorldTransport):
    """A world whose image host asks for a pause at every download."""

    def __init__(self, world: World, *, seconds: int) -> None:
        super().__init__(world)
        self._seconds = seconds

    @asynccontextmanager
    async def stream(self, *_: Any, **options: Any) -> AsyncIterator[Any]:
        yield Refusal(self._seconds)


def a_batch(
    fault: str, *, images: int = 3, job: float = 600.0, pause: int = 0, **scenario: Any
) -> Seen:
    """Run a batch over a world whose downloads have this fault."""
    seen = Seen(images)

    async def outcomes() -> list[Outcome]:
        world = World(Scenario(latency=(1, 2), faults=[fault], **scenario))
        flux = FluxSession(
            base_url=ORIGIN,
            transport=BusyHost(world, seconds=pause) if pause else WorldTransport(world),
            on_event=seen,
            timeouts=Timeouts(job=job),
        )
        requests = [ImageRequest(prompt=f"a fox {n}") for n in range(images)]
        batch = Batch(flux, requests, out=MemorySink(), ledger=MemoryLedger())
        async with flux, batch:
            return [outcome async for outcome in batch]

    seen.outcomes = run(outcomes())
    return seen


@pytest.mark.parametrize(("fault", "reason"), KINDS)
def test_downloads_that_keep_failing_are_shown_within_seconds(fault: str, reason: str) -> None:
    """The line names number, reason, end and way out, and no job that is ready as running."""
    seen = a_batch(f"{fault}:1", repeats=10_000)
    at, _, _ = seen.failing[0]
    assert at < 15
    (event, line) = next((e, line) for _, e, line in seen.failing if e.count == 3)
    assert reason in event.reason
    assert event.until is not None
    end = f"{event.until.astimezone():%H:%M}"
    assert f"3 downloads fail ({event.reason}); fresh URLs are asked for until {end}" in line
    assert line.endswith("; Ctrl-C leaves them to the next run")
    assert "3 downloading" in line
    assert "running" not in line
    assert "ETA" not in line


@pytest.mark.parametrize("fault", ["wrong-bytes", "html-as-image", "download-503"])
def test_the_line_goes_when_downloads_succeed_again(fault: str) -> None:
    """The last event has the count 0, and nothing of the failure is left in the line."""
    seen = a_batch(f"{fault}:1", repeats=6)
    assert all(isinstance(outcome, Saved) for outcome in seen.outcomes)
    assert seen.failing[-1][1] == DownloadsFailing(count=0)
    assert "fail (" not in seen.failing[-1][2]
    assert all(event.count for _, event, _ in seen.failing[:-1])


def test_images_whose_host_asked_for_a_pause_are_shown_too() -> None:
    """A long Retry-After of the host looks like a hang as well."""
    seen = a_batch("429:0", images=20, pause=120, job=900.0)
    assert seen.failing[0][0] < 15
    assert max(event.count for _, event, _ in seen.failing) == 20
    assert len(seen.failing) < 100


def test_a_pause_of_the_host_does_not_hide_why_an_image_failed() -> None:
    """What the host answered says more than that it is waited for."""
    seen = a_batch("429:0", images=1, pause=20, job=300.0)
    assert {e.reason for _, e, _ in seen.failing if e.count} == {"HTTP 503 for the image's URL"}


def test_a_download_that_is_given_up_is_not_shown_any_more() -> None:
    """After `timeouts.job` the image has its outcome, and the line goes."""
    seen = a_batch("wrong-bytes:1", repeats=10_000, job=60.0)
    assert seen.failing[-1][1].count == 0
    assert not any(isinstance(outcome, Saved) for outcome in seen.outcomes)


def test_a_fault_that_is_over_in_a_moment_is_not_shown() -> None:
    """One broken answer is tried again at once: no event and no line."""
    assert a_batch("wrong-bytes:1", repeats=1).failing == []


def test_each_reason_is_logged_once_in_a_session(caplog: pytest.LogCaptureFixture) -> None:
    """Under --quiet the warning is all there is; a hundred images do not make a hundred."""
    with caplog.at_level(logging.WARNING, "fluxasync"):
        seen = a_batch("wrong-bytes:1", images=40, repeats=10_000, job=120.0)
    found = [r.getMessage() for r in caplog.records if "fresh URLs are asked" in r.getMessage()]
    assert len(found) == 1
    assert "Content-MD5 differs" in found[0]
    assert len(seen.failing) < 400  # no event without news


def test_programs_receive_the_event_as_json() -> None:
    """`--json` prints an object with count, reason and end."""
    row = event_row(DownloadsFailing(count=2, reason="HTML"))
    expected = {"event": "downloads failing", "count": 2, "reason": "HTML", "until": None}
    assert expected == row


def test_a_bug_in_it_does_not_reach_a_download(caplog: pytest.LogCaptureFixture) -> None:
    """It only shows: an error in it is logged, and the download goes on."""
    failing = FailingDownloads(None)  # type: ignore[arg-type]
    failing.waits("j", None)  # type: ignore[arg-type]
    failing.ended("j")
    assert "the run continues" in caplog.text


@pytest.mark.parametrize(("others", "words"), [(0, None), (1, "ETA 10 s"), (4, "ETA 40 s")])
def test_failing_downloads_have_no_part_in_the_eta(others: int, words: str | None) -> None:
    """The ETA is of images that only need time; with none left, the line has no rate either."""
    progress = Progress(total=5 + others)
    for number in range(5):
        job = Job(job_id=str(number), request=ImageRequest(prompt="a fox"))
        progress(JobSubmitted(job=job, in_flight=1))
        progress(JobReady(job=job, polls=1, in_flight=0))
    for number in range(3):
        job = Job(job_id=str(number), request=ImageRequest(prompt="a fox"))
        failed = Failed(request=job.request, error=Moderated("no", job=job), job=job)
        progress.update(failed, now=10.0 * number)
    progress(DownloadsFailing(count=2, reason="an HTML page"))
    line = progress.line(20.0)
    assert ("images/min" in line) is bool(others)
    assert "2 downloading, " in line
    if words is None:
        assert "ETA" not in line
    else:
        assert f"{words}, 2 downloads fail (an HTML page); fresh URLs are asked for; " in line
