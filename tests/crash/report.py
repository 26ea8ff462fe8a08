"""The results page of the long form."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from attrs import frozen

from .children import SLOTS
from .cluster_kills import KINDS as CLUSTER_KINDS
from .crashfs import Loss
from .harness import Result
from .interrupts import Interrupted
from .oracle import KINDS
from .points import BUCKET_POINTS, MID_CHECKPOINT, POINTS, SETTLING
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


_PART = """
## {title}

{intro}

`{command}` · {date} · {machine}

{summary}

{violations}

{points}
"""


@frozen(eq=False)
class Part:
    """A part of the page that is measured by itself."""

    title: str
    option: str  #: of the command that measures it
    intro: str
    points: Mapping[str, int]

    @property
    def head(self) -> str:
        return f"\n## {self.title}\n"


ACCOUNT = Part(
    "With the account's list of tasks",
    "--settling",
    """\
The same with 5 % lost answers and the access token of the account: each run looks for its images in
doubt among the account's tasks, and was killed there too. What was not charged was submitted again
at the end, with `--resubmit-unlisted`.""",
    POINTS | SETTLING,
)
BUCKET = Part(
    "Into a bucket",
    "--bucket",
    """\
The same with images and record in an object store, a real one (SeaweedFS). A run continues on a
machine that knows only the bucket, with an empty cache; now and then it returns to the first one,
whose copy of the record is old. After every kill another such machine read the record from the
bucket, and charges, record and objects were compared.""",
    BUCKET_POINTS,
)
CLUSTER = Part(
    "On a Ray cluster",
    "--cluster",
    """\
One run on a cluster of three nodes, which are processes of one machine: three workers with 24 slots
together, images and record in a bucket. Killed with SIGKILL: workers, the ledger, the driver (which
was started again with the same arguments), and whole nodes. Workers were also stopped until they
were given up, and then continued. Every third seed has a cap, which ends it at four fifths of its
images. After every kill the charges were compared with the record while the run went on; at the end
charges, record, objects and lists were compared.""",
    CLUSTER_KINDS,
)
#: in the order of the page, after what the long form measures
_PARTS = (ACCOUNT, BUCKET, CLUSTER)


def parts_of(page: str) -> str:
    """Return the parts of the page that are measured by themselves."""
    starts = [page.index(part.head) for part in _PARTS if part.head in page]
    return page[min(starts) :] if starts else ""


def with_part(page: str, part: Part, command: str, result: Result) -> str:
    """Return the page with the new results of a part."""
    old = parts_of(page)
    texts = {part: _part(part, command, result)}
    for each in _PARTS:
        if each.head in old:
            text = old.partition(each.head)[2].partition("\n## ")[0]
            texts.setdefault(each, each.head + text)
    return page.removesuffix(old) + "".join(texts[each] for each in _PARTS if each in texts)


def _part(part: Part, command: str, result: Result) -> str:
    summary = [
        ("seeds", result.seeds),
        ("kills", f"{result.kills.total():,}"),
        ("images requested", f"{result.images:,}"),
        ("images saved at the end", f"{result.done:,}"),
        ("charges of the server", f"{result.charges:,}"),
        (
            "in doubt at the end",
            f"{result.in_doubt:,} ({result.in_doubt_charged:,} of them charged)",
        ),
    ]
    if result.most_doubts:
        summary.append((f"maximum in doubt after one kill, with {SLOTS} slots", result.most_doubts))
    if result.uncharged:
        summary.append(("not charged, and submitted again", f"{result.uncharged:,}"))
    return _PART.format(
        title=part.title,
        intro=part.intro,
        command=command,
        date=datetime.now(UTC).date(),
        machine=_machine(),
        summary=_table("", "", summary),
        violations=_violations(result),
        points=_table("place", "kills", _by_place(result, part.points)),
    )


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
        points=_table("place", "kills", _by_place(result, POINTS)),
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


def _by_place(result: Result, points: Iterable[str]) -> Iterable[tuple[str, int]]:
    timed = ("timer",) if result.kills["timer"] else ()
    return ((point, result.kills[point]) for point in (*points, *timed))


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
