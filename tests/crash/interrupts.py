"""Ctrl-C and SIGTERM at random instants: the real command on a terminal, up to three signals (P15).

After every run the oracle of the kills checks that nothing is paid twice and nothing paid is
unknown. The time limits of the promise are checked too.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

from attrs import evolve, field, frozen
from support.pseudo_terminal import CTRL_C, Terminal

from .children import SLOTS, Children, Place
from .harness import prepared, prompt_rows
from .oracle import Observation, Violation, losses, observe, violations

#: ranges of seconds: from the start of the command, while Python starts and rows are read; and from
#: its first charge
_FIRST, _AT_WORK = (0.0, 1.5), (0.0, 1.0)
#: seconds until the second signal, and until the third: after two a run ends at once
_GAP = (0.0, 0.6)
_HASTE = (0.0, 0.05)
#: seconds a job takes: some are always running, and all of them end within the grace
_LATENCY = (0.2, 1.5)
#: seconds after the first signal until which a POST may still go out
_PROMPT = 0.1
#: seconds between two reads of the charge log
_MOMENT = 0.02
#: seconds after `--grace`, and after a second and third signal, at which a run counts as hanging
_HANGING = 60.0

#: characters of a terminal that a violation quotes
_SHOWN = 2_000

_WAYS = (signal.SIGINT, signal.SIGTERM)
#: exit codes of an interrupted command
_CODES = {130, 143}
#: exit codes of Python before and after the command, with or without a traceback
_BY_SIGNAL = {-signal.SIGINT, -signal.SIGTERM}
#: what Python prints, with exit code 1, after a Ctrl-C before the first line of the package
_UNSTARTED = "Could not import runpy module"
#: exit codes of a run without a signal: images left, or all done
_OVER = {0, 4}


@frozen(kw_only=True)
class Interrupted:
    """The result of one or more seeds of interrupted runs."""

    runs: Counter[int] = field(factory=Counter)  #: by number of signals that were met
    at_work: int = 0  #: runs that had submitted something when the first signal came
    charged_late: int = 0  #: charges later than a tenth of a second after the first signal
    slowest: dict[int, float] = field(factory=dict)  #: seconds from the last signal to the end
    images: int = 0
    done: int = 0
    charges: int = 0
    in_doubt: int = 0
    violations: tuple[Violation, ...] = ()

    def __add__(self, other: Interrupted) -> Interrupted:
        counts = self.slowest.keys() | other.slowest.keys()
        return Interrupted(
            runs=self.runs + other.runs,
            at_work=self.at_work + other.at_work,
            charged_late=self.charged_late + other.charged_late,
            slowest={n: max(self.slowest.get(n, 0), other.slowest.get(n, 0)) for n in counts},
            images=self.images + other.images,
            done=self.done + other.done,
            charges=self.charges + other.charges,
            in_doubt=self.in_doubt + other.in_doubt,
            violations=self.violations + other.violations,
        )


@frozen(kw_only=True)
class _Run:
    """One run of the command, and its reaction to signals."""

    code: int
    signals: int  #: that it lived to see
    charged: tuple[int, int, int]  #: before the first signal, a tenth of a second later, at the end
    seconds: float  #: from the last signal to the end
    shown: str


def interrupted(
    children: Children, home: Path, *, seed: int, runs: int, images: int = 400
) -> Interrupted:
    """Interrupt runs of one prompt file, checking after each, and then let the last one end."""
    rng = random.Random(seed)
    rows = prompt_rows(images, seed=seed)
    place = prepared(children, home, rows, seed=seed, latency=_LATENCY)
    result = Interrupted(images=images)
    before = observe(place)
    while result.runs.total() < runs and before.done + before.in_doubt < images:
        run = _interrupted(place, rng)
        after = observe(place)
        found = [*_broken(run), *violations(before, after, rows, slots=SLOTS)]
        if run.signals == 1 and after.in_doubt > before.in_doubt:
            found.append(Violation(kind="other", what="in doubt after one signal"))
        result = _with(result, run)
        before = after
        if found:
            return _ended(result, after, found)
    code, shown = _in_peace(place)
    after = observe(place)
    found = [*violations(before, after, rows, slots=SLOTS), *losses(place, after, rows)]
    if code not in _OVER:
        found.append(Violation(kind="refused run", what=shown))
    return _ended(result, after, found)


def _with(result: Interrupted, run: _Run) -> Interrupted:
    first, soon, last = run.charged
    slowest = {run.signals: run.seconds} if run.signals else {}
    return result + Interrupted(
        runs=Counter([run.signals]),
        at_work=int(bool(run.signals) and first > 0),
        charged_late=last - soon,
        slowest=slowest,
    )


def _ended(result: Interrupted, after: Observation, found: list[Violation]) -> Interrupted:
    return evolve(
        result,
        done=after.done,
        charges=len(after.charges),
        in_doubt=after.in_doubt,
        violations=tuple(found),
    )


def _command(place: Place) -> Terminal:
    return Terminal(
        *("run", str(place.source), "-o", str(place.folder), "--base-url", place.url),
        *("--in-flight", str(SLOTS)),
        cwd=place.home,
    )


def _interrupted(place: Place, rng: random.Random) -> _Run:
    """Run the command and send it one to three signals at random instants."""
    first = rng.choice((_FIRST, _AT_WORK))
    gaps = [rng.uniform(*span) for span in (first, _GAP, _HASTE)[: rng.randint(1, 3)]]
    at_start = _charges(place)
    terminal = _command(place)
    if first is _AT_WORK:
        _watch_until_charged(terminal, place, at_start)
    met, charged, at = 0, (0, 0), time.monotonic()
    for gap in gaps:
        if not terminal.watch(gap):
            break
        way = rng.choice(_WAYS)
        if not met:
            charged = (_charges(place), 0)
        at = time.monotonic()
        if way is signal.SIGINT:
            terminal.press(CTRL_C)
        else:
            terminal.send(way)
        met += 1
        if met == 1:
            terminal.watch(_PROMPT)
            charged = (charged[0], _charges(place))
    hangs = terminal.watch(_HANGING)
    if hangs:
        terminal.send(signal.SIGKILL)
    seconds = time.monotonic() - at
    code = terminal.end()
    last = _charges(place)
    first, soon = charged if met else (last, last)
    return _Run(
        code=code,
        signals=met,
        charged=(first - at_start, soon - at_start, last - at_start),
        seconds=seconds,
        shown=terminal.shown,
    )


def _watch_until_charged(terminal: Terminal, place: Place, at_start: int) -> None:
    until = time.monotonic() + _HANGING
    while _charges(place) == at_start and time.monotonic() < until and terminal.watch(_MOMENT):
        pass


def _in_peace(place: Place) -> tuple[int, str]:
    terminal = _command(place)
    if terminal.watch(2 * _HANGING):
        terminal.send(signal.SIGKILL)
    return terminal.end(), terminal.shown[-_SHOWN:]


def _charges(place: Place) -> int:
    if not place.charges.exists():
        return 0
    return place.charges.read_bytes().count(b'"charged"')


def _broken(run: _Run) -> list[Violation]:
    """Yield the violations of one run: only what was being sent may be in doubt."""
    first, _, last = run.charged
    found: list[Violation] = []
    if not last and (run.code in _BY_SIGNAL or _UNSTARTED in run.shown):
        return found
    leaving = _BY_SIGNAL if run.signals > 1 else set()
    if run.code not in _CODES | _OVER | leaving:
        found.append(
            Violation(kind="refused run", what=f"exit code {run.code}: {run.shown[-_SHOWN:]}")
        )
    if "Traceback" in run.shown:
        found.append(Violation(kind="other", what=run.shown[-_SHOWN:]))
    if run.signals and last - first > SLOTS:
        found.append(Violation(kind="other", what=f"{last - first} charges after a signal"))
    return found
