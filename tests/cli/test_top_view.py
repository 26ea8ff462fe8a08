"""`ctl DIR top`: its lines fit the terminal, and no text of a run obeys it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.hostile_text import CORPUS

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._cli.top_view import TopView
from fluxasync._core.text import columns as width_of

_COLOURS = re.compile(r"\x1b\[\d*m")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def state(text: str, jobs: int) -> dict[str, Any]:
    """The state of a busy run, with a text wherever a run has one."""
    job = {"job_id": text, "model": text, "account": None, "seconds": 61.25, "state": "running"}
    return {
        "state": "paused",
        "waits_for": text,
        "trouble": text,
        "images": {
            "total": 2000, "already_there": 3, "saved": 412, "failed": {"moderated": 2, text: 1},
            "in_doubt": 1, "running": 24, "downloading": 2, "waiting": 1558,
        },
        "slots": {"used": 24, "limit": 24, "waiting": 16, "workers": None},
        "pace": {"images_per_minute": 58.2, "eta": "27 min", "push_backs": 4},
        "spend": {
            "images": 10.3, "spent": 10.3, "reserved": 0.6, "in_doubt": 0.03, "cap": 50.0,
            "left": 39.07,
        },
        "accounts": [
            {"name": text, "used": 1, "limit": 2, "waits": True, "spent": 1.5, "cap": None}
        ],
        "jobs": [{**job, "prompt": text}] * jobs,
        "more_jobs": 7,
    }  # fmt: skip


@pytest.mark.parametrize("text", CORPUS)
@pytest.mark.parametrize(("columns", "rows"), [(20, 3), (40, 12), (80, 24), (200, 60)])
def test_lines_fit_and_are_inert(text: str, columns: int, rows: int) -> None:
    """Every size of a terminal, every text that a provider or a list may bring."""
    lines = TopView(state(text, jobs=30))(columns, rows)
    assert 1 <= len(lines) <= rows
    for line in lines:
        plain = _COLOURS.sub("", line)
        assert width_of(plain) <= columns
        assert not _CONTROLS.search(plain)


def test_the_figures_are_there() -> None:
    """A terminal of usual size shows images, slots, pace, money and the oldest jobs."""
    shown = "\n".join(_COLOURS.sub("", line) for line in TopView(state("x", jobs=30))(100, 24))
    for words in (
        "412/2,000 saved · 3 already there · 3 failed: 2 moderated, 1 x · 1 in doubt",
        "24 of 24 in use · 16 in the queue",
        "58.2 images/min · ETA 27 min · 4 × 429",
        "$10.30 spent · $0.60 reserved · $0.03 in doubt · $39.07 of $50.00 left",
        "paused: fluxasync ctl DIR resume goes on",
        "61.2 running",
        "more",
    ):
        assert words in shown
