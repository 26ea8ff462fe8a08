"""The results page of the long form."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from .children import SLOTS
from .crashfs import Loss
from .harness import Result
from .interrupts import Interrupted
from .oracle import KINDS
from .points import MID_CHECKPOINT, POINTS
from .trials import Finding

_PAGE = """\
# Killed {kills:,} times

`kill -9` at {places} kill points of a run and by the clock, with real processes, real SQLite and
real files, against a simulator in another process that logs its charges. After every kill charges,
journal and files were compared; then the same command was run again, until nothing was left to do.
A submission in progress at a kill is in doubt: it is listed, and submitted again only on request.

`{command}` · {date} · {machine}

| | |
|---|---|
| seeds | {seeds} |
| kills | {kills:,} |
| images requested | {images:,} |
| images saved at the end | {done:,} |
| charges of the server | {charges:,} |
| in doubt at the end | {in_doubt:,} ({in_doubt_charged:,} of them charged) |
| maximum in doubt after one kill, with {slots} slots | {most_doubts} |

## Violations, after every kill and at the end

{violations}

## Kills by point

{points}

## Signals

The real command on its own terminal, with one to three signals (Ctrl-C or SIGTERM) at random
instants; after every run the same comparison.

{signals}

## An interrupted checkpoint

Killed at the write that extends the journal's file, and run again: {checkpoint}

## Power cuts

A model of the disk drops or tears unsynced data, at every step of recorded runs:
**{states:,} states, {losses} losses** (a partial image under its final name, or a recorded
image that is missing).

## Safeguards removed on purpose

Each removal must be detected, or the numbers above prove nothing; {caught} of {mutants} were.

{trials}
"""


def page(
    command: str,
    result: Result,
    signals: Interrupted,
    checkpoint: Result,
    losses: Sequence[Loss],
    states: int,
    trials: Mapping[tuple[str, str], Finding],
) -> str:
    """Return the page as Markdown."""
    caught = {mutant for (mutant, _), found in trials.items() if found.kinds}
    return _PAGE.format(
        places=len(POINTS),
        command=command,
        date=datetime.now(UTC).date(),
        machine=_machine(),
        seeds=result.seeds,
        kills=result.kills.total(),
        images=result.images,
        done=result.done,
        charges=result.charges,
        in_doubt=result.in_doubt,
        in_doubt_charged=result.in_doubt_charged,
        slots=SLOTS,
        most_doubts=result.most_doubts,
        violations=_violations(result),
        points=_table("place", "kills", _by_place(result)),
        signals=_signals(signals),
        checkpoint=_checkpoint(checkpoint),
        states=states,
        losses=len(losses),
        caught=len(caught),
        mutants=len({mutant for mutant, _ in trials}),
        trials=_trials(trials),
    )


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}"
    )


def _violations(result: Result) -> str:
    names = {kind: f"{kind}s" for kind in KINDS} | {"other": "rows, files and lists that disagree"}
    return _table("", "", ((names[kind], f"**{n}**") for kind, n in result.broken().items()))


def _signals(result: Interrupted) -> str:
    rows = [
        ("runs", result.runs.total()),
        *((f"with {n} signals", result.runs[n]) for n in sorted(result.runs)),
        ("with a submission before the signal", result.at_work),
        ("requested images, saved at the end", f"{result.images:,}, {result.done:,}"),
        ("charges, in doubt", f"{result.charges:,}, {result.in_doubt:,}"),
        ("charges later than 0.1 s after the first signal", result.charged_late),
        *(
            (f"slowest end after {n} signals, seconds", f"{seconds:.2f}")
            for n, seconds in sorted(result.slowest.items())
        ),
        ("violations", f"**{len(result.violations)}**"),
    ]
    return _table("", "", rows)


def _checkpoint(result: Result) -> str:
    if not result.kills[MID_CHECKPOINT]:
        return "**not killed there**."
    broken = [f"{count} {kind}" for kind, count in result.broken().items() if count]
    return f"**{', '.join(broken) or 'carried on, no violation'}**."


def _by_place(result: Result) -> Iterable[tuple[str, int]]:
    return ((point, result.kills[point]) for point in (*POINTS, "timer"))


def _trials(trials: Mapping[tuple[str, str], Finding]) -> str:
    rows = [
        f"| {mutant} | {method} | {'; '.join(sorted(found.kinds)) or '**not noticed**'} "
        f"| {found.kills or ''} |"
        for (mutant, method), found in trials.items()
    ]
    return "\n".join(
        ["| removed safeguard | method | detected as | kills |", "|---|---|---|---|", *rows]
    )


def _table(left: str, right: str, rows: Iterable[tuple[str, object]]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join([f"| {left} | {right} |", "|---|---|", *lines])
