"""The parent's side: starts a worker that forks runs and servers, and reads the results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Self

from attrs import field, frozen
from support.object_servers import ObjectServer

#: jobs in flight
SLOTS = 8

_TESTS = Path(__file__).resolve().parent.parent


class Broken(AssertionError):
    """A run failed, or hung, where it should have ended or been killed."""


@frozen(kw_only=True)
class Plan:
    """How a run ends: at a kill point, after a time, or normally."""

    point: str | None = None
    passes: int = 1  #: the kill comes when the place is passed for the n-th time
    kill_after: float | None = None  #: seconds


@frozen(kw_only=True)
class Place:
    """The folder, the prompts and the server of a run."""

    home: Path
    url: str
    store: ObjectServer | None = None  #: of images and record, if they do not go into the folder
    _numbers: Iterator[int] = field(factory=count)

    @property
    def folder(self) -> Path:
        return self.home / "images"

    @property
    def bucket(self) -> dict[str, Any] | None:
        """The URL of the run and its options."""
        if self.store is None:
            return None
        return {"url": self.store.url(self.home.name), "options": self.store.options}

    def machine(self, *, may_return: bool = False) -> Path | None:
        """Return the home of a machine that knows nothing of the run, if its record is in a bucket;
        every third time of the machine that began it, whose copy of the record is old."""
        if self.store is None:
            return None
        number = next(self._numbers)
        return self.home / "machines" / ("0" if may_return and number % 3 == 2 else f"{number}")

    @property
    def source(self) -> Path:
        return self.home / "prompts.jsonl"

    @property
    def charges(self) -> Path:
        return self.home / "charges.jsonl"

    @property
    def log(self) -> Path:
        return self.home / "log.txt"


class Children:
    """Forks on order, for as long as its `with` lasts; for one thread at a time.

    `under` is a command that runs the whole of it, like a tracer.
    """

    def __init__(self, *, under: Sequence[str] = ()) -> None:
        self._under = under

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._process = subprocess.Popen(
            [*self._under, sys.executable, "-m", "crash.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        assert self._process.stdin is not None
        self._stack.enter_context(self._process)
        self._stack.callback(self._process.stdin.close)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def serve(
        self,
        home: Path,
        *,
        seed: int,
        latency: tuple[float, float] = (0.01, 0.08),
        faults: Sequence[str] = (),
        access_token: str | None = None,
    ) -> Place:
        """Start a simulator that outlives every run and logs its charges to a file."""
        answer = self._ask(
            do="serve",
            seed=seed,
            latency=latency,
            faults=list(faults),
            access_token=access_token,
            charges=str(home / "charges.jsonl"),
            log=str(home / "server.txt"),
        )
        if not answer["url"]:
            raise Broken(f"no server: {(home / 'server.txt').read_text()}")
        return Place(home=home, url=answer["url"])

    def run(
        self,
        place: Place,
        plan: Plan | None = None,
        *,
        in_flight: int = SLOTS,
        streamed: bool = False,
        mutant: str | None = None,
        record: Path | None = None,
        access_token: str | None = None,
        resubmits_after: float | None = None,
        waits: bool = False,
    ) -> str | None:
        """Run the remaining images; return the kill point, "timer" for the clock, or None for a run
        that ended. `streamed` stores images piece by piece, as large ones are. With an access token
        the run looks into the account; `resubmits_after` takes a task that is not listed after so
        many seconds, instead of ten minutes, as not charged, and submits its image again. `waits`
        has the account's balance recorded before the first submission.

        Raises Broken when it ended otherwise.
        """
        plan = plan or Plan()
        answer = self._ask(
            do="run",
            url=place.url,
            source=str(place.source),
            folder=str(place.folder),
            bucket=place.bucket,
            machine=str(machine) if (machine := place.machine(may_return=True)) else None,
            log=str(place.log),
            point=plan.point,
            passes=plan.passes,
            kill_after=plan.kill_after,
            in_flight=in_flight,
            streamed=streamed,
            access_token=access_token,
            resubmits_after=resubmits_after,
            waits=waits,
            mutant=mutant,
            record=None if record is None else str(record),
        )
        is_hung = not answer["in_time"] and plan.kill_after is None
        if is_hung or answer["code"] not in (0, -signal.SIGKILL, -signal.SIGXFSZ):
            log = place.log.read_text()[-3000:]
            raise Broken(f"{plan}: {answer}\n{log}")
        if not answer["code"]:
            return None
        return plan.point if answer["in_time"] else "timer"

    def look(self, place: Place) -> Path:
        """Return the folder of the run: its own, or what a machine that never saw it makes of the
        record in its bucket. Raises Broken."""
        machine = place.machine()
        if machine is None:
            return place.folder
        answer = self._ask(do="look", bucket=place.bucket, machine=str(machine), log=str(place.log))
        if answer["code"]:
            raise Broken(f"no look from elsewhere: {place.log.read_text()[-3000:]}")
        return next((machine / "fluxasync" / "runs").glob("*"), machine)

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Broken(f"the worker ended ({self._process.wait()}) at {order}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _environment() -> dict[str, str]:
    """The environment without API keys: none may reach even a simulator."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("API_KEY")}
    return kept | {"PYTHONPATH": str(_TESTS)}
