"""Kills the processes of runs on a Ray cluster: workers, the ledger, the driver, whole nodes.

The simulator in its own process is the judge. After every kill its charges are compared with the
record in the bucket, while the run goes on; the full comparison follows when the run is over.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from attrs import define, evolve, field, frozen

from .children import Broken, Children, Place, _environment
from .cluster_driver import AT_CAP
from .cluster_nodes import ENVIRONMENT, Actor, Nodes, actors
from .cluster_times import SILENCE
from .harness import _NOTHING, Result, _refused, _stopped, prepared, prompt_rows
from .oracle import Observation, Violation, charges, losses, observe, unaccounted, violations

#: active jobs of all workers together, and the workers
SLOTS, WORKERS = 24, 3
#: seconds of a job
_LATENCY = (0.5, 2.5)
#: seconds between two kills
_PAUSE = (2.0, 5.0)
#: seconds of a seed after which it counts as hanging
_HANGING = 420.0
#: US dollars of an image by the list
PRICE = Decimal("0.025")

#: kinds of kill, and how many there are of each among twelve
KINDS: Mapping[str, int] = {
    "worker": 5,
    "ledger": 3,
    "worker stopped, and continued": 1,
    "worker and ledger together": 1,
    "node": 1,
    "driver": 1,
}


@frozen
class Folder:
    """A bucket in a folder, which every node of this machine reaches."""

    path: Path
    options: Mapping[str, str] = field(factory=dict)

    def url(self, name: str) -> str:
        """Return the URL of a run."""
        return (self.path / name).as_uri()

    def opened(self, name: str) -> Any:
        """Return obstore's store of a run."""
        from obstore.store import LocalStore

        return LocalStore(self.path / name)


@define
class Driver:
    """The command of a run, started again after each of its deaths."""

    order: Mapping[str, Any]
    log: IO[bytes]
    process: subprocess.Popen[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start the command."""
        words = [sys.executable, "-m", "crash.cluster_driver", json.dumps(self.order)]
        environment = _environment() | ENVIRONMENT
        self.process = subprocess.Popen(
            words, env=environment, stdout=self.log, stderr=subprocess.STDOUT
        )

    def say(self, text: str) -> None:
        """Write a line into the log."""
        self.log.write(f"{datetime.now()} {text}\n".encode())
        self.log.flush()

    def ends_within(self, seconds: float) -> bool:
        """Return whether the command ends in so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


@define
class Killer:
    """Kills what a seed says; a worker that was stopped continues after it was given up."""

    cluster: Nodes
    driver: Driver
    rng: random.Random
    _stopped: list[tuple[float, Actor]] = field(factory=list)

    def kill(self, kind: str) -> bool:
        """Kill, and return whether there was something to kill."""
        ways: dict[str, Callable[[], bool]] = {
            "worker": lambda: self._signalled("Worker"),
            "ledger": lambda: self._signalled("Ledger"),
            "worker stopped, and continued": self._stop,
            "worker and ledger together": lambda: (
                self._signalled("Ledger") and self._signalled("Worker")
            ),
            "node": self._lose_node,
            "driver": self._kill_driver,
        }
        return ways[kind]()

    def wake(self, *, everyone: bool = False) -> None:
        """Continue the workers whose time has come."""
        now = time.monotonic()
        for at, actor in self._stopped[:]:
            if everyone or now >= at:
                actor.send(signal.SIGCONT)
                self._stopped.remove((at, actor))

    def _signalled(self, kind: str, number: int = signal.SIGKILL) -> bool:
        stopped = [actor for _, actor in self._stopped]
        found = [actor for actor in actors(kind) if actor not in stopped]
        if found:
            actor = self.rng.choice(found)
            actor.send(number)
            if number == signal.SIGSTOP:
                self._stopped.append((time.monotonic() + 1.5 * SILENCE, actor))
        return bool(found)

    def _stop(self) -> bool:
        return self._signalled("Worker", signal.SIGSTOP)

    def _lose_node(self) -> bool:
        self.cluster.lose(self.rng.randrange(len(self.cluster.others)))
        return True

    def _kill_driver(self) -> bool:
        self.driver.process.kill()
        self.driver.process.wait()
        self.driver.start()
        return True


def kinds(rng: random.Random) -> Iterator[str]:
    """Yield kinds of kill without end, each as often as KINDS says."""
    while True:
        turn = [kind for kind, times in KINDS.items() for _ in range(times)]
        rng.shuffle(turn)
        yield from turn


def play_cluster(
    children: Children, cluster: Nodes, home: Path, *, seed: int, images: int, kills: int
) -> Result:
    """Kill one seed's run up to `kills` times, and let it end. Every third one has a cap, of four
    fifths of its images. Stops at the first violation."""
    rows = prompt_rows(images, seed=seed)
    place = prepared(children, home, rows, seed=seed, latency=_LATENCY)
    place = evolve(place, store=Folder(home / "bucket"))
    capped = images * 4 // 5 if seed % 3 == 0 else None
    cap = None if capped is None else str(capped * PRICE)
    bucket = place.bucket
    assert bucket is not None
    (home / "bucket" / home.name).mkdir(parents=True)
    order = {
        "url": place.url, "source": str(place.source), "out": bucket["url"], "cap": cap,
        "address": cluster.address, "workers": WORKERS, "slots": SLOTS,
    }  # fmt: skip
    result = Result(images=images)
    with place.log.open("ab") as log:
        driver = Driver(order, log)
        try:
            result = _killed(children, cluster, place, driver, result, kills=kills, seed=seed)
            after = observe(place, children.look(place))
        except Broken as broken:
            return _stopped(result, _NOTHING, [_refused(broken)])
        finally:
            driver.process.kill()
            driver.process.wait()
    found = [*result.violations, *violations(_NOTHING, after, rows, slots=images)]
    if capped is None:
        found += losses(place, after, rows)
    else:
        found += _over_cap(after, capped)
    return _stopped(result, after, found)


def _killed(
    children: Children,
    cluster: Nodes,
    place: Place,
    driver: Driver,
    result: Result,
    *,
    kills: int,
    seed: int,
) -> Result:
    """Kill a run in its turn and wait for its end. Raises Broken when it fails or hangs."""
    rng = random.Random(seed)
    killer, plan = Killer(cluster, driver, rng), kinds(rng)
    until, charged = time.monotonic() + _HANGING, 0
    found: list[Violation] = []
    try:
        while not driver.ends_within(rng.uniform(*_PAUSE)):
            killer.wake()
            if time.monotonic() > until:
                raise Broken(f"the run hangs\n{_end_of(place.log)}")
            charged, before = len(charges(place.charges)), charged
            if result.kills.total() >= kills or charged in (0, before) or found:
                continue  # a process that has nothing to do proves nothing
            kind = next(plan)
            if killer.kill(kind):
                driver.say(f"killed: {kind}")
                result.kills[kind] += 1
                found = _charged(children, place)
    finally:
        killer.wake(everyone=True)
    if driver.process.returncode not in (0, AT_CAP):
        raise Broken(f"the driver ended with {driver.process.returncode}\n{_end_of(place.log)}")
    return evolve(result, violations=tuple(found))


def _charged(children: Children, place: Place) -> list[Violation]:
    """Compare charges and record while a run goes on: an intent is recorded before its charge."""
    charged = charges(place.charges)
    seen = observe(place, children.look(place))
    found = unaccounted(evolve(seen, charges=charged))
    return [violation for violation in found if violation.kind != "other"]  # of later charges


def _over_cap(after: Observation, capped: int) -> Iterator[Violation]:
    """Each image in the record counts for the cap, which is not passed. The images that had an
    intent when the cap ended the run, and were not sent, are left to the next run."""
    if len(after.rows) > capped or len(after.rows) <= capped - SLOTS:
        what = f"{len(after.charges)} charges, {len(after.rows)} recorded, cap {capped}"
        yield Violation(kind="other", what=what)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]
