"""Progress: counts that add up, one line of them, shown steadily and only while a run lasts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from support.virtual_time import run

from fluxasync import (
    Estimate,
    Failed,
    ImageRequest,
    InDoubt,
    Job,
    JournalCounts,
    Moderated,
    Plan,
    Saved,
    ServerError,
    TransportError,
)
from fluxasync._batch.progress.counts import Progress, ProgressSnapshot
from fluxasync._batch.progress.screens import showing
from fluxasync._core.text import duration
from fluxasync.events import (
    DoubtsSought,
    JobReady,
    JobSubmitted,
    LimitChanged,
    Paused,
    Resumed,
)
from fluxasync.extend import Stored

REQUEST = ImageRequest(prompt="a fox")
JOB = Job(job_id="j", request=REQUEST)
SAVED = Saved(
    request=REQUEST,
    job=JOB,
    stored=Stored(size=1, sha256="0" * 64, format="png", width=1, height=1),
    cost=Decimal("0.025"),
)
MODERATED = Failed(request=REQUEST, error=Moderated("no", job=JOB), job=JOB)
REJECTED = Failed(request=REQUEST, error=ServerError("no", status=503))
DOUBT = InDoubt(request=REQUEST, error=TransportError("lost", sent=True))


class Page:
    """A screen that records its views."""

    def __init__(self, *, rewrites: bool) -> None:
        self.rewrites = rewrites
        self.lines: list[str] = []

    def status(self, line: str) -> None:
        self.lines.append(line)

    def draw(self, view: ProgressSnapshot) -> None:
        self.lines.append(view.line())

    def clear(self) -> None:
        self.is_clear = True


def test_the_line_shows_counts_rate_cost_and_time_left() -> None:
    """One line has all a person asks of a run that is under way."""
    progress = Progress(total=10)
    for in_flight in range(1, 7):
        progress(JobSubmitted(job=JOB, in_flight=in_flight))
    for second, outcome in enumerate([SAVED, MODERATED, SAVED, SAVED]):
        progress.update(outcome, now=6.0 * second)
    expected = "3/10 saved, 1 failed (1 moderated), 2 running, 10.0 images/min, $0.075, ETA 36 s"
    assert expected == progress.line(18.0)


def test_line_without_a_total_promises_no_end() -> None:
    """Standard input has no known length, so no total and no ETA are made up."""
    progress = Progress()
    progress.update(SAVED, now=0.0)
    progress.update(SAVED, now=1.0)
    assert progress.line(1.0) == "2 saved, 0 failed, 60.0 images/min, $0.05"


def test_in_doubt_is_counted_apart_from_failed() -> None:
    """A submission without an answer is neither saved nor failed, and is always named."""
    progress = Progress(total=3)
    progress.update(DOUBT, now=0.0)
    progress.update(REJECTED, now=0.0)
    assert progress.line(0.0) == "0/3 saved, 1 failed (1 server), 1 in doubt"


def test_under_way_counts_paid_jobs_until_their_image_landed() -> None:
    """A job whose slot is free again is still paid and awaited until its outcome."""
    progress = Progress()
    progress(JobSubmitted(job=JOB, in_flight=1))
    progress(JobReady(job=JOB, polls=2, in_flight=0))
    assert progress.under_way == 1
    progress.update(SAVED, now=1.0)
    assert progress.under_way == 0


def test_a_pause_is_shown_until_submissions_resume() -> None:
    """The view shows why nothing is submitted, and only while that is true."""
    progress = Progress()
    progress(Paused(seconds=30.0, reason="429, asked for 30 s", status=429))
    assert progress.line(0.0).endswith("paused for 30 s: 429, asked for 30 s")
    assert progress.line(12.0).endswith("paused for 18 s: 429, asked for 30 s")
    assert progress.line(31.0).endswith("paused: 429, asked for 30 s")
    progress(Resumed())
    assert "paused" not in progress.line(0.0)


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("account", "looking in the account for images in doubt"),
        ("callbacks", "waiting for callbacks about images in doubt"),
    ],
)
def test_the_wait_for_images_in_doubt_replaces_the_pause_before_it(by: Any, words: str) -> None:
    """Nothing is submitted any more, so "still trying" is over; a later pause counts again."""
    progress, until = Progress(), datetime(2026, 11, 29, 12, 41, 30, tzinfo=UTC)
    progress.update(DOUBT, now=0.0)
    progress(Paused(seconds=30.0, reason="no usable answer"))
    progress(DoubtsSought(count=1, until=until, by=by))
    at = f"{until.astimezone():%H:%M:%S}"
    assert progress.line(0.0).endswith(f"{words}, at most until {at}; Ctrl-C stops")
    progress(Paused(seconds=30.0, reason="no usable answer"))
    assert progress.line(0.0).endswith("no usable answer; still trying, Ctrl-C to stop")


def test_a_wait_for_images_in_doubt_has_no_rate() -> None:
    """The rate of images that are saved says nothing about a search, and would only fall."""
    progress = Progress(total=4)
    for second in (1.0, 2.0):
        progress(JobSubmitted(job=JOB, in_flight=1))
        progress.update(SAVED, now=second)
    progress.update(DOUBT, now=3.0)
    assert "images/min" in progress.line(3.0)  # one is waiting
    progress.total = 3
    progress(DoubtsSought(count=1, until=datetime.now(UTC)))
    assert "images/min" not in progress.line(30.0)
    progress(JobSubmitted(job=JOB, in_flight=1))
    assert "images/min" in progress.line(30.0)


def test_an_address_that_never_answers_is_shown_with_the_time_of_giving_up() -> None:
    """F31: the reason, the end, and the key that stops it; the same words from try to try."""
    progress, until = Progress(), datetime(2026, 11, 29, 12, 41, 30, tzinfo=UTC)
    words = f"connection refused; still trying until {until.astimezone():%H:%M}, Ctrl-C to stop"
    for now in (0.0, 7.0, 300.0):
        progress(Paused(seconds=30.0, reason="connection refused", until=until))
        assert progress.line(now).endswith(words)
    progress(Paused(seconds=30.0, reason="connection refused"))
    assert progress.line(0.0).endswith("connection refused; still trying, Ctrl-C to stop")


def test_a_log_has_one_line_of_an_outage_and_has_it_soon() -> None:
    """F31: not a line for each try, and none ten seconds late; the run's next line ends it."""
    page, progress = Page(rewrites=False), Progress()

    async def an_outage() -> None:
        async with showing(progress, page):
            for _ in range(20):
                progress(Paused(seconds=30.0, reason="connection refused"))
                await asyncio.sleep(3)
            said.extend(page.lines)
            progress(Resumed())
            await asyncio.sleep(21)

    said: list[str] = []
    run(an_outage())
    assert len(said) == 1
    assert "still trying" in said[0]
    assert len(page.lines) == 3
    assert "still trying" not in page.lines[-1]


def test_a_limit_that_was_found_out_is_shown() -> None:
    """P12: under "auto" the line says how many slots there are; a model's own limit is not it."""
    progress = Progress()
    progress(JobSubmitted(job=JOB, in_flight=1))
    assert progress.line(0.0).endswith("1 running")
    progress(LimitChanged(group="account", limit=13))
    progress(LimitChanged(group="kontext-max", limit=5))
    assert progress.line(0.0).endswith("1 running (13 slots)")


def test_eta_forgets_a_pause_of_the_past() -> None:
    """The rate is measured over the last outcomes, so an hour's pause does not spoil it."""
    progress = Progress(total=1000)
    progress.update(SAVED, now=0.0)
    for second in range(400):
        progress.update(SAVED, now=3600.0 + second)
    assert "60.0 images/min" in progress.line(3999.0)


def test_no_time_left_is_promised_while_the_user_has_paused_the_run() -> None:
    """Nobody knows when it goes on; then there is one again."""
    progress = Progress(total=40)
    for number in range(4):
        progress.update(SAVED, now=float(number))
    progress.held = "paused by fluxasync ctl"
    assert "ETA" not in progress.line(4.0)
    progress.held = None
    assert "ETA " in progress.line(4.0)


def test_the_last_image_is_never_promised_for_now() -> None:
    """While one is left the ETA is at least the silence since the last outcome, and not "0 s"."""
    progress = Progress(total=40)
    for number in range(39):
        progress.update(SAVED, now=number / 4)
    for silence in (0.0, 0.1, 5.0, 25.0, 80.0):
        expected = f"ETA {max(1, round(silence))} s"
        assert progress.line(38 / 4 + silence).endswith(expected)
    progress.update(SAVED, now=100.0)
    assert "ETA" not in progress.line(100.0)


def test_images_of_earlier_runs_are_shown_apart_from_this_runs_total() -> None:
    """The total is of what this run does: what it submits, and what it collects."""
    progress = Progress()
    plan = Plan(images=40, known={"done": 28, "submitted": 2, "failed": 1}, to_do=9)
    progress.expect(plan, recovered=JournalCounts(done=28, running=2, failed={"lost": 1}))
    assert progress.line(0.0) == "0/11 saved, 28 already there, 0 failed, 2 running"


def test_a_cap_ends_the_total() -> None:
    """Of 2,000 images of which the cap pays for 80, the line counts to 80."""
    whole = Estimate(images=2000, cost=Decimal(50), unpriced=0, seconds=600.0, in_flight=24)
    progress = Progress()
    progress.expect(Plan(images=2000, to_do=2000), estimate=whole.within(Decimal(2)))
    assert progress.line(0.0).startswith("0/80 saved")
    assert progress.view(0.0).projected == 2


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(-3.0, "0 s", id="more done than expected"),
        pytest.param(8.6, "9 s", id="seconds"),
        pytest.param(250.0, "4 min", id="minutes"),
        pytest.param(7500.0, "2 h 05 min", id="hours"),
    ],
)
def test_durations_have_whole_numbers_and_at_most_two_units(seconds: float, expected: str) -> None:
    """No fractions and no more than two units."""
    assert expected == duration(seconds)


@pytest.mark.parametrize(
    ("rewrites", "expected"),
    [
        pytest.param(True, 40, id="a terminal: four lines a second"),
        pytest.param(False, 2, id="a file: a line every ten seconds"),
    ],
)
def test_lines_come_as_often_as_the_screen_can_take(rewrites: bool, expected: int) -> None:
    """A log file is not filled with lines meant to be overwritten; none come after the block."""
    page = Page(rewrites=rewrites)

    async def ten_seconds() -> None:
        async with showing(Progress(), page):
            await asyncio.sleep(10.1 if rewrites else 20.1)
        await asyncio.sleep(60)

    run(ten_seconds())
    assert (expected, True) == (len(page.lines), page.is_clear)
