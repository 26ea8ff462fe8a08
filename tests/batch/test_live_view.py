"""The live view of a run: its content, on screens of any size, with any prompt."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.hostile_text import ESCAPES

from fluxasync import AccountState, Estimate, ImageRequest, Job, Moderated, Plan, Saved
from fluxasync._batch.progress.accounts import AccountProgress
from fluxasync._batch.progress.counts import Progress, ProgressSnapshot
from fluxasync._core.text import columns as width_of
from fluxasync.events import (
    DownloadsFailing,
    JobEnded,
    JobReady,
    JobSubmitted,
    Paused,
    WorkersReported,
)
from fluxasync.extend import Stored

pytest.importorskip("rich", reason="the extra `cli` is not installed")

from fluxasync._batch.progress.live_view import LiveView, drawn

COLOUR = re.compile(r"\x1b\[[\d;]*m")
BUSY = ProgressSnapshot(
    total=1000,
    saved=412,
    failed=Counter(moderated=3, download=2),
    in_doubt=1,
    under_way=27,
    downloading=3,
    slots=24,
    rate=1.5,
    cost=Decimal("10.30"),
    projected=Decimal("25.00"),
    push_backs=7,
    pause="paused for 12 s: 429, asked for 12 s",
    latest=(("000410.jpg", "a red fox"), ("000411.jpg", "赤い狐 👩\u200d🚀 in the snow")),
)


def plain(view: ProgressSnapshot, columns: int = 79, rows: int = 23) -> list[str]:
    return [COLOUR.sub("", line) for line in drawn(view, columns=columns, rows=rows)]


def a_saved(number: int, **parameters: Any) -> Saved:
    request = ImageRequest(prompt=f"fox {number}", **parameters)
    path = Path(f"/images/{number:06}.jpg")
    return Saved(
        request=request,
        job=Job(job_id=f"j{number}", request=request),
        stored=Stored(path=path, size=1, sha256="0" * 64, format="jpeg", width=1, height=1),
        cost=Decimal("0.025"),
    )


def test_all_that_a_person_asks_is_there() -> None:
    """Counts by stage and cause, pace, money, push-back and the latest images, in 80 columns."""
    bar, *lines = plain(BUSY)
    assert bar.endswith("  418/1,000  41 %")
    assert lines == [
        "412 saved · 5 failed: 3 moderated, 2 download · 1 in doubt",
        "555 waiting · 24 running of 24 slots · 3 downloading",
        "90.0 images/min · ETA 6 min · $10.30 of about $25.00 · 7 × 429",
        "paused for 12 s: 429, asked for 12 s",
        "000410.jpg  a red fox",
        "000411.jpg  赤い狐 👩\u200d🚀 in the snow",
    ]


@pytest.mark.parametrize("columns", [1, 5, 12, 20, 39, 49, 50, 79, 300])
def test_the_view_fits_every_width(columns: int) -> None:
    """No line is wider than the screen; on a narrow one more lines say the same."""
    lines = plain(BUSY, columns)
    assert max(map(width_of, lines)) <= columns
    if columns >= 20:
        assert any("3 downloading" in line for line in lines)


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_on_a_low_screen_the_last_lines_are_left_out(rows: int) -> None:
    """A picture that is higher than the screen could not be replaced."""
    assert plain(BUSY)[:rows] == plain(BUSY, rows=rows)


def test_without_a_total_there_is_no_bar_and_no_end() -> None:
    """The length of a stream is unknown, so no number of waiting images is shown."""
    lines = plain(evolve(BUSY, total=None, projected=None))
    assert lines[0].startswith("412 saved")
    assert lines[1] == "24 running of 24 slots · 3 downloading"
    assert "ETA" not in lines[2]


def test_nothing_is_made_up_at_the_beginning() -> None:
    """Before the first outcome the view shows neither rate nor ETA."""
    assert plain(ProgressSnapshot()) == ["0 saved", "0 running"]


@pytest.mark.parametrize("text", ESCAPES, ids=[f"T6 {text!a}" for text in ESCAPES])
def test_t6_text_from_prompts_and_the_server_is_shown_inert(text: str) -> None:
    """T6: names, prompts and the server's words are only read: no escape but our colours."""
    view = ProgressSnapshot(latest=((f"n{text}.jpg", f"p {text} q"),), pause=f"r {text}")
    shown = drawn(view, columns=79, rows=23)
    assert len(shown) == 4
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "".join(plain(view)))


def test_t6_markup_is_text() -> None:
    """Brackets and colons that rich would act on are shown as they are."""
    view = ProgressSnapshot(latest=(("[red]x.jpg", "[bold]fox[/bold] [link=http://x]:smile: 7"),))
    assert plain(view)[-1] == "[red]x.jpg  [bold]fox[/bold] [link=http://x]:smile: 7"


def test_t7_a_notebook_shows_text_not_markup() -> None:
    """T7: a prompt adds no element to the page; frontends without HTML get plain text."""
    view = evolve(BUSY, latest=(("x.jpg", "<script>alert(1)</script><img src=x onerror=1>"),))
    shown = LiveView(view)._repr_mimebundle_(include=None, exclude=None)
    assert not {"<script", "<img"} & set(re.findall(r"<\w+", shown["text/html"]))
    assert "&lt;script&gt;" in shown["text/html"]
    assert "412 saved" in shown["text/plain"]
    assert "\x1b" not in shown["text/plain"]


def test_each_of_several_accounts_has_a_line() -> None:
    """Jobs of its slots, images, money; why one is out, or that it waits. An account without them
    is not invented, and a hostile name is text."""
    accounts = (
        AccountProgress(
            name="main", in_flight=12, slots=24, saved=1_300, cost=Decimal("32.5"),
            is_waiting=False, out=None,
        ),
        AccountProgress(
            name="eu\x1b[31m", in_flight=0, slots=6, saved=4, cost=None, is_waiting=True,
            out="402: no credit",
        ),
        AccountProgress(
            name="us", in_flight=1, slots=2, saved=0, cost=None, is_waiting=True, out=None
        ),
    )  # fmt: skip
    view = evolve(BUSY, accounts=accounts, latest=(), pause=None)
    assert plain(view)[-3:] == [
        "main     12 of 24 slots · 1,300 saved · $32.50",
        "eu·[31m  4 saved · out: 402: no credit",
        "us       1 of 2 slots · 0 saved · waits",
    ]
    assert "main 12/24 eu\x1b[31m out us 1/2" in view.line()
    assert not any("slots" in line for line in plain(evolve(BUSY, slots=None)))


def test_the_images_of_each_account_are_counted_with_their_cost() -> None:
    """From the outcomes; images of a session without accounts count for none."""
    progress = Progress()
    progress.states = lambda: {
        "a": AccountState(in_flight=3, slots=4, is_waiting=False, error=None)
    }
    for number, account in enumerate(("a", "a", None)):
        saved = a_saved(number)
        progress.update(evolve(saved, job=evolve(saved.job, account=account)), now=number)
    [shown] = progress.view(3).accounts
    assert (shown.saved, shown.cost, shown.in_flight) == (2, Decimal("0.05"), 3)


def test_failing_downloads_have_a_line_of_their_own() -> None:
    """Number, reason, end and way out are whole at 80 columns, beside a pause of submissions."""
    event = DownloadsFailing(count=2, reason="Content-MD5 differs", until=datetime.now(UTC))
    view = evolve(BUSY, failing=2, trouble=event.text, pause="paused: 429", latest=())
    shown = plain(view)
    assert shown[-1] == "paused: 429"
    assert event.text.split("; ") == " · ".join(shown[-3:-1]).split(" · ")


def test_stages_follow_a_job() -> None:
    """An image is waiting, running, downloading and saved, in one place at a time."""
    saved, progress, seen = a_saved(1), Progress(total=2), []
    steps = [
        JobSubmitted(job=saved.job, in_flight=1),
        JobReady(job=saved.job, polls=1, in_flight=0),
        JobEnded(job=saved.job, saved=saved),
    ]
    for step in steps:
        progress(step)
        view = progress.view(0)
        seen.append((view.waiting, view.running, view.downloading))
    progress.update(saved, now=1)
    view = progress.view(1)
    seen.append((view.waiting, view.running, view.downloading))
    assert seen == [(1, 1, 0), (1, 0, 1), (1, 0, 1), (1, 0, 0)]


def test_the_projected_cost_adds_remaining_images_to_actual_costs() -> None:
    """The projection follows real costs: a dearer image is no surprise at the end, a refused one
    is not counted on any more."""
    progress = Progress()
    plan = Plan(images=4, known={})
    estimate = Estimate(images=4, cost=Decimal("0.10"), unpriced=0, seconds=1, in_flight=1)
    progress.expect(plan, estimate=estimate, slots=24)
    dear = evolve(a_saved(1), cost=Decimal("0.05"))
    progress(JobSubmitted(job=dear.job, in_flight=1))
    progress.update(dear, now=0)
    assert progress.view(0).projected == Decimal("0.125")


def test_only_429s_are_counted_as_429s() -> None:
    """A dead network is a pause, and no push-back."""
    progress = Progress()
    progress(Paused(seconds=1, reason="no network"))
    progress(Paused(seconds=1, reason="429", status=429))
    assert progress.view(0).push_backs == 1


def test_the_last_three_images_are_named() -> None:
    """Older ones give way; what failed is not among them."""
    progress = Progress()
    for number in range(5):
        progress.update(a_saved(number), now=number)
    assert [name for name, _ in progress.view(5).latest] == [
        "000002.jpg",
        "000003.jpg",
        "000004.jpg",
    ]


def test_a_moderated_job_is_under_way_no_longer() -> None:
    """What ended badly frees its place in the picture."""
    job = Job(job_id="j")
    progress = Progress()
    progress(JobSubmitted(job=job, in_flight=1))
    progress(JobReady(job=job, polls=1, in_flight=0))
    progress(JobEnded(job=job, error=Moderated("no", job=job)))
    assert progress.view(0).downloading == 0


def test_the_workers_of_a_cluster_are_counted() -> None:
    """A cluster with too few free CPUs shows by fewer workers than asked for."""
    progress = Progress()
    progress.total, progress.slots = 50, 24
    progress(WorkersReported(workers=2, in_flight=20, paid=23))
    view = progress.view(0.0)
    assert "27 waiting · 20 running of 24 slots on 2 workers · 3 downloading" in plain(view)
    assert "2 workers" not in "".join(plain(BUSY))
