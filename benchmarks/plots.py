"""Draw the plots of docs/pacing.md (needs matplotlib).

    python -m benchmarks.plots

All data is simulated with fixed seeds, so the plots depend only on the version of matplotlib.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.schedule_gain import theory
from fluxasync import Polling
from fluxasync._engine.polling import PollSchedule
from tests.support.job_fleet import Seen, knowing, lag, lognormal, polls, run

FOLDER = Path(__file__).parent.parent / "docs" / "plots"
INK, GREY, BLUE, ORANGE, GREEN = "#222222", "#9a9a9a", "#2f6fb3", "#d9772b", "#3d8f5a"


def where_polls_lie() -> None:
    """The durations of one class of jobs, and the polls of 4,000 jobs."""
    mean, cv = 2.0, 0.2
    schedule, rng, draw = knowing(mean, cv), random.Random(5), lognormal(mean, cv)
    asked: list[float] = []
    ends: list[float] = []
    for number in range(4000):
        end, age = draw(number, rng), schedule.first(Polling(), jitter=rng.random())
        ends.append(end)
        asked.append(age)
        while age < end:
            age = schedule.next(age, Polling())
            asked.append(age)
    bins = [0.05 * i for i in range(81)]
    figure, axes = _axes(
        "seconds since a job was accepted", "share of the jobs per 50 ms", (7, 3.2)
    )
    axes.hist(ends, bins, weights=[1 / 4000] * len(ends), color=GREY, alpha=0.5, label="jobs end")
    axes.hist(
        asked, bins, weights=[1 / 4000] * len(asked), histtype="step", color=BLUE, lw=1.6,
        label=f"learned schedule: {len(asked) / 4000:.1f} polls, {_late(asked, ends)} late",
    )  # fmt: skip
    fixed = [0.5 * i for i in range(1, 9)]
    alive = [fmean(end > at - 0.5 for end in ends) for at in fixed]
    axes.vlines(
        fixed, 0, [0.3 * part for part in alive], color=ORANGE, lw=1.4,
        label=f"every 0.5 s: {sum(alive):.1f} polls, {_late_fixed(ends)} late "
        "(bars: share of the jobs polled, × 0.3)",
    )  # fmt: skip
    axes.set_xlim(0, 4)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.set_ylim(0, 0.48)
    _save(figure, "where-polls-lie")


def _late_fixed(ends: list[float]) -> str:
    return f"{1000 * fmean(0.5 - end % 0.5 for end in ends):.0f} ms"


def _late(asked: list[float], ends: list[float]) -> str:
    """Return the mean detection lag; both lists are in order of jobs."""
    late, polls = [], iter(asked)
    for end in ends:
        age = next(polls)
        while age < end:
            age = next(polls)
        late.append(age - end)
    return f"{1000 * fmean(late):.0f} ms"


def what_a_lag_costs() -> None:
    """Polls per image by mean lag: learned, theoretical optimum, fixed."""
    figure, axes = _axes("mean detection lag, % of the mean duration", "polls per image", (7, 3.8))
    shares = [0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08]
    line = [0.8 * 1.1**i for i in range(26)]
    axes.plot(line, [50 / x + 0.5 for x in line], color=ORANGE, lw=1.6, label="fixed interval")
    for cv, colour in ((0.1, BLUE), (0.3, GREEN), (0.6, INK)):
        axes.plot(
            line, [50 / x / theory(cv) for x in line], color=colour, lw=0.9, ls="--",
            label="√h, the optimum" if cv == 0.1 else None,
        )  # fmt: skip
        points = []
        for share in shares:
            seen = run(PollSchedule(2.5), lognormal(2.0, cv), 2000, polling=Polling(lag=share))
            points.append((100 * lag(seen) / 2.0, polls(seen)))
        axes.plot(*zip(*points, strict=True), "o", color=colour, ms=4.5, label=f"learned, cv {cv}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.8, 9)
    axes.set_ylim(1.5, 70)
    axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axes.set_yticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8, ncols=2)
    _save(figure, "what-a-lag-costs")


def how_drift_is_followed() -> None:
    """Durations double and halve; each job reads the schedule."""
    slow, fast = lognormal(4.0, 0.2), lognormal(2.0, 0.2)
    schedule = PollSchedule(2.5)
    firsts: list[float] = []

    def draw(number: int, rng: random.Random) -> float:
        firsts.append(schedule.first(Polling()))
        return (slow if 300 <= number < 600 else fast)(number, rng)

    seen = run(schedule, draw, 900)
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 4.2), sharex=True)
    _style(above, "", "seconds")
    _style(below, "job", "polls")
    above.plot([one.duration for one in seen], ".", color=GREY, ms=2.5, label="duration")
    above.plot(firsts, color=BLUE, lw=1.4, label="first poll (the middle of its range)")
    above.set_ylim(0, 8)
    above.legend(frameon=False, fontsize=8, loc="upper left", ncols=2, markerscale=3)
    below.plot(_rolled(seen, lambda one: one.polls), color=INK, lw=1.4, label="polls")
    below.set_ylim(0, 22)
    right = below.twinx()
    right.plot(
        _rolled(seen, lambda one: 100 * one.lag / one.duration), color=ORANGE, lw=1.4,
        label="lag, % of the duration",
    )  # fmt: skip
    right.axhline(4, color=ORANGE, lw=0.7, ls=":")
    right.set_ylim(0, 55)
    right.set_ylabel("lag, %", color=ORANGE, fontsize=9)
    right.tick_params(labelsize=8, colors=ORANGE)
    right.spines[["top", "left"]].set_visible(False)
    below.set_xlim(0, 900)
    _save(figure, "how-drift-is-followed")


def _rolled(seen: list[Seen], value: Callable[[Seen], float]) -> list[float]:
    """A running mean over 24 jobs, one per slot."""
    values = [value(one) for one in seen]
    return [fmean(values[max(i - 23, 0) : i + 1]) for i in range(len(values))]


def _axes(across: str, up: str, size: tuple[float, float]) -> tuple[Any, Any]:
    figure, axes = plt.subplots(figsize=size)
    _style(axes, across, up)
    return figure, axes


def _style(axes: Any, across: str, up: str) -> None:
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee", lw=0.8)
    axes.set_axisbelow(True)


def _save(figure: Any, name: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None}, facecolor="white")
    plt.close(figure)


def main() -> None:
    mpl.rcParams |= {"svg.hashsalt": "fluxasync", "font.family": "DejaVu Sans"}
    where_polls_lie()
    what_a_lag_costs()
    how_drift_is_followed()
    print(f"drawn into {FOLDER}")


if __name__ == "__main__":
    main()
