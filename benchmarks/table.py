"""Compares fluxasync with the usual alternatives: throughput, CPU, losses and double charges.

    make bench        (python -m benchmarks.table [--rounds 5] [--write])

Every contender runs three workloads, each in a new process, in alternating order:

- *fast*: jobs are ready at once and polls do not pause, so the client is the limit;
- *slots*: 24 active jobs of 2 s (log-normal, cv 0.2), default polling;
- *faults*: 5 % of the submissions lose their reply after they were charged, 5 % of the polls
  answer 502, 5 % of the downloads are cut off halfway, 5 % of the callbacks arrive only at the
  second try.

Afterwards the folder is compared with the server's records: a file counts when it is complete.
`--write` puts the figures into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from attrs import evolve, frozen

from benchmarks import _page
from benchmarks._contenders import PACKAGES, Figures, Task, emptied, measure, versions
from benchmarks._fast_server import Books, Server, fast_server
from benchmarks.slots import bound
from fluxasync.simulator.durations import lognormal
from fluxasync.simulator.scenario import SeededRandom

SLOTS = 24
IN_FLIGHT = 64  #: in *fast*
MEAN, CV = 2.0, 0.2
FAULTS = 0.05

ROWS = (
    "ours",
    "ours, task list",
    "ours, webhooks",
    "ours, uvloop",
    "aiohttp loop",
    "aiohttp loop, 3 tries",
    "httpx loop",
    "replicate",
    "fal-client",
    "blackforest",
    "bare",
)
WORDS = {
    "ours": "**fluxasync**",
    "ours, task list": "**fluxasync**, with the task list",
    "ours, webhooks": "**fluxasync**, with webhooks",
    "ours, uvloop": "fluxasync on uvloop",
    "aiohttp loop": "semaphore + aiohttp",
    "aiohttp loop, 3 tries": "semaphore + aiohttp, 3 tries",
    "httpx loop": "semaphore + httpx",
    "replicate": "`replicate`",
    "fal-client": "`fal-client`",
    "blackforest": "`blackforest`",
    "bare": "*bare loop*",
}
#: the rows of the short table
SHORT = tuple(name for name in ROWS if name not in ("ours, uvloop", "bare"))
#: rows with the speed of the row above, because they differ only under faults
AS_ABOVE = {"ours, task list", "aiohttp loop, 3 tries"}
#: rows that equal another one, or that a workload is not meant for
LEFT_OUT = {
    "fast": AS_ABOVE,
    "slots": {*AS_ABOVE, "ours, uvloop", "bare"},
    "faults": {"ours, uvloop", "bare"},
}


@frozen(kw_only=True)
class Run:
    """One contender's run of one workload."""

    images: int
    figures: Figures
    books: Books
    workers: int
    broken: int  #: incomplete files
    whole: int
    share: float = 0.0  #: of the usable slot time

    @property
    def load(self) -> float:
        """CPU of the server's processes, as a share of the available CPU."""
        return self.books.cpu / self.figures.wall / self.workers

    @property
    def lost(self) -> int:
        """Images that are neither complete nor reported as in doubt."""
        return self.images - self.whole - self.figures.losses.in_doubt


Runs = dict[str, list[Run]]


def fast(name: str, turn: int, given: argparse.Namespace) -> Run:
    return _run(name, given.fast, given.scratch, workers=2, slots=IN_FLIGHT, interval=0)


def slots(name: str, turn: int, given: argparse.Namespace) -> Run:
    # one process, so each job's end is counted once
    law: dict[str, Any] = {"mean": MEAN, "cv": CV, "seed": turn}
    run = _run(name, given.slots, given.scratch, workers=1, slots=SLOTS, **law)
    rng = SeededRandom(turn)
    durations = [lognormal(rng, n, mean=MEAN, cv=CV) for n in range(given.slots)]
    used = run.books.work / (SLOTS * (run.books.ended - run.books.began))
    return evolve(run, share=used / bound(durations, SLOTS))


def faults(name: str, turn: int, given: argparse.Namespace) -> Run:
    law: dict[str, Any] = {"mean": 0.3, "faults": FAULTS, "seed": turn, "has_tasks": True}
    return _run(name, given.faults, given.scratch, workers=1, slots=SLOTS, **law)


WORKS: dict[str, Callable[[str, int, argparse.Namespace], Run]] = {
    "fast": fast,
    "slots": slots,
    "faults": faults,
}


def _run(
    name: str,
    images: int,
    scratch: str,
    *,
    workers: int,
    slots: int,
    interval: float | None = None,
    **scenario: Any,
) -> Run:
    scenario |= {"images": images, "workers": workers, "tls": name == "fal-client"}
    home = Path(tempfile.mkdtemp(dir=scratch))
    with fast_server(**scenario) as server:
        task = _task(server, home / "images", images, slots, interval)
        if name == "ours, uvloop":
            figures = measure("ours", evolve(task, loop="uvloop"))
        else:
            figures = measure(name, task)
        files = [path.read_bytes() for path in Path(task.folder).glob("*.jpg")]
    emptied(home)
    whole = sum(file == server.image for file in files)
    return Run(
        images=images,
        figures=figures,
        books=server.books,
        workers=workers,
        whole=whole,
        broken=len(files) - whole,
    )


def _task(server: Server, folder: Path, images: int, slots: int, interval: float | None) -> Task:
    return Task(
        url=server.url,
        folder=str(folder),
        images=images,
        slots=slots,
        interval=interval,
        tls_url=server.tls_url,
        certificate=server.certificate,
    )


# --- the table ------------------------------------------------------------------------------------


def spread(values: list[float], form: str = ".0f") -> str:
    """Return the median, and the range if its ends differ as written."""
    low, middle, high = (format(v, form) for v in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"


def speed_rows(runs: Runs) -> str:
    head = ["", "images/s", "CPU ms/image", "CPU ÷ fluxasync", "peak RSS MB", "server's load"]
    ours = median(run.figures.cpu / run.images for run in runs["ours"])
    body = []
    for name, found in runs.items():
        cpu = [1000 * run.figures.cpu / run.images for run in found]
        body.append(
            [
                WORDS[name],
                spread([run.images / run.figures.wall for run in found]),
                spread(cpu, ".2f"),
                f"{median(cpu) / 1000 / ours:.2f}",
                spread([run.figures.rss for run in found]),
                f"{max(run.load for run in found):.0%}",
            ]
        )
    return _page.rows(head, body)


def slot_rows(runs: Runs) -> str:
    head = ["", "slots used", "polls/image", "detection lag, ms"]
    body = [
        [
            WORDS[name],
            spread([100 * run.share for run in found], ".1f") + " %",
            spread([run.books.polls / run.images for run in found], ".1f"),
            spread([1000 * run.books.lag / run.images for run in found]),
        ]
        for name, found in runs.items()
    ]
    return _page.rows(head, body)


def fault_rows(runs: Runs) -> str:
    head = ["", "whole", "lost", "in doubt", "broken files kept", "paid twice"]
    body = []
    for name, found in runs.items():
        images = sum(run.images for run in found)
        counts = (
            sum(run.whole for run in found),
            sum(run.lost for run in found),
            sum(run.figures.losses.in_doubt for run in found),
            sum(run.broken for run in found),
            sum(run.books.twice for run in found),
        )
        body.append([WORDS[name], *(f"{100 * count / images:.1f} %" for count in counts)])
    return _page.rows(head, body)


def short_rows(all_runs: dict[str, Runs]) -> str:
    """Return the short table, which the README has too: what matters most comes first."""
    head = ["", "whole", "paid twice", "in doubt", "lost", "slots used", "images/s", "CPU/image"]
    body = []
    for name in SHORT:
        quick, paced, hurt = (all_runs[work].get(name, []) for work in WORKS)
        if hurt and (name in AS_ABOVE or (quick and paced)):
            speed = ["as above"] * 3 if name in AS_ABOVE else _speed(quick, paced)
            body.append([WORDS[name], *_shares(hurt), *speed])
    return _page.rows(head, body)


def _speed(quick: list[Run], paced: list[Run]) -> list[str]:
    return [
        f"{median(100 * run.share for run in paced):.0f} %",
        f"{median(run.images / run.figures.wall for run in quick):.0f}",
        f"{median(1000 * run.figures.cpu / run.images for run in quick):.1f} ms",
    ]


def _shares(hurt: list[Run]) -> list[str]:
    """Return the shares under faults: complete, paid twice, in doubt, lost."""
    images = sum(run.images for run in hurt)
    counts = (
        sum(run.whole for run in hurt),
        sum(run.books.twice for run in hurt),
        sum(run.figures.losses.in_doubt for run in hurt),
        sum(run.lost for run in hurt),
    )
    return [f"{100 * count / images:.1f} %" for count in counts]


SHOWN = {"fast": speed_rows, "slots": slot_rows, "faults": fault_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of the workload `fast`")
    parser.add_argument("--other-rounds", type=int, default=3)
    parser.add_argument("--fast", type=int, default=500, metavar="IMAGES")
    parser.add_argument("--slots", type=int, default=192, metavar="IMAGES")
    parser.add_argument("--faults", type=int, default=400, metavar="IMAGES")
    parser.add_argument("--work", nargs="*", choices=WORKS, default=list(WORKS))
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--write", action="store_true", help=f"into {_page.PAGE.name}")
    given = parser.parse_args()
    before = _page.load()
    names = [name for name in given.only if versions(_package(name))]
    for name in set(given.only) - set(names):
        packages = " ".join(PACKAGES[_package(name)])
        print(f"{name}: omitted, not installed (pip install {packages})", file=sys.stderr)
    all_runs: dict[str, Runs] = {}
    text = _page.machine(before) + "\n\n" + _made_of(names)
    print(text)
    with tempfile.TemporaryDirectory() as given.scratch:
        for work in given.work:
            rounds = given.rounds if work == "fast" else given.other_rounds
            all_runs[work] = _rounds(work, names, rounds, given)
            table = SHOWN[work](all_runs[work])
            print(f"\n{work}\n{table}", flush=True)
            if given.write:
                _page.write(work, table)
    if given.write:
        _page.write("machine", text)
        if len(all_runs) == len(WORKS):
            for page in (_page.PAGE, _page.README):
                _page.write("short", short_rows(all_runs), page=page)


def _rounds(work: str, names: list[str], rounds: int, given: argparse.Namespace) -> Runs:
    runs: Runs = defaultdict(list)
    taking_part = [name for name in names if name not in LEFT_OUT[work]]
    for turn in range(rounds):
        for name in taking_part if turn % 2 else taking_part[::-1]:
            print(f"\r{work} {turn + 1}/{rounds} {name:24}", end="", file=sys.stderr, flush=True)
            runs[name].append(WORKS[work](name, turn + 1, given))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return {name: runs[name] for name in taking_part}


def _package(name: str) -> str:
    return "ours" if name == "ours, uvloop" else name


def _made_of(names: list[str]) -> str:
    parts = {part for name in names for part in (versions(_package(name)) or "").split(", ")}
    return f"Versions: {', '.join(sorted(parts))}."


if __name__ == "__main__":
    main()
