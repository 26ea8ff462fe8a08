"""Runs a command that spends money: signals, the screen, and the exit code.

Every way in which the command can end (done, an error, Ctrl-C once or more) becomes lines on
stderr and an exit code. Paid jobs that were not fetched are not listed here: the session warns of
each with its id, and the command shows the library's warnings.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .._batch.progress.counts import Progress
from .._batch.progress.terminal import Terminal
from .._core.errors import BudgetExceeded, ConfigError, FluxError, JournalError, SinkError
from .._core.events import Event
from .._core.models import Outcome, Saved
from .._core.text import display
from .._requests.pricing import Estimate
from .._requests.sources.plan import Plan
from .._store.journal.totals import JournalCounts
from .advice import with_advice
from .exit_codes import exit_code
from .rendering import as_json, closing, complaint, event_row, outcome_row
from .signals import Interrupts

if TYPE_CHECKING:  # imported by the stories, after the options were judged
    from .._batch.batch import Batch

#: complaints printed; more would scroll the first ones away, and failures.jsonl has them all
_COMPLAINTS = 10

#: what the disk says of a folder that was badly chosen, rather than of a disk that fails
_MISPLACED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
)  # fmt: skip


@frozen(kw_only=True)
class ExitCounts:
    """Where a folder stands after a run: what the run left, and what earlier ones had left."""

    failed: Counter[str]
    in_doubt: int


class CommandRun:
    """One command's dealings: `run(story)` performs it."""

    def __init__(
        self, terminal: Terminal, *, json: bool, simulated: bool, folder: Path | None = None
    ) -> None:
        self.terminal = terminal
        self.progress = Progress(priced=not simulated)
        self.interrupts = Interrupts(leave=self._leave)
        self.batch: Batch | None = None  #: once it has started
        self._json = json
        self._folder = folder or Path()
        self._complaints = 0
        self._doubts_before = 0
        self._is_at_cap = False
        self._is_ended_by_error = False
        self._is_simulated = simulated

    async def run(self, story: Callable[[], Coroutine[Any, Any, None]]) -> int:
        """Await the story; say how it ended and return the exit code."""
        error: FluxError | None = None
        try:
            with self.interrupts:
                await story()
        except asyncio.CancelledError:
            if self.interrupts.first is None:
                raise
        except FluxError as caught:
            error = self._judged(caught)
            self._is_at_cap = isinstance(error, BudgetExceeded)
            self._is_ended_by_error = True
            self.terminal.say(f"fluxasync: {with_advice(error)}")
        finally:
            self._close()
        return exit_code(self._standing(), error, self.interrupts.first)

    def expect(
        self,
        plan: Plan,
        *,
        recovered: JournalCounts | None,
        estimate: Estimate | None,
        slots: int,
    ) -> None:
        """Take note of what is to come, and of what earlier runs left."""
        self.progress.expect(plan, recovered=recovered, estimate=estimate, slots=slots)
        self._doubts_before = 0 if recovered is None else recovered.in_doubt

    def simulate(self) -> None:
        """Show no money from now on: nothing is paid."""
        self._is_simulated = True
        self.progress.priced = False

    def watch(self, event: Event) -> None:
        """Take note of what a session does; print it where a run's events were asked for."""
        self.progress(event)
        if self._json and self.batch is not None and (row := event_row(event)) is not None:
            self.terminal.out(as_json(row))

    def show(self, outcome: Outcome) -> None:
        """Print an image's end: its path or its row as data, or what went wrong. A person who sees
        the picture of a run sees the latest paths in it."""
        self.progress.update(outcome, now=asyncio.get_running_loop().time())
        self.show_row(outcome)
        if isinstance(outcome, Saved):
            if not self._json and not (self.batch is not None and self.terminal.shows_view):
                self.terminal.out(str(outcome.path))
        else:
            self._complain(complaint(outcome))

    def show_row(self, outcome: Outcome) -> None:
        """Print an image's end as one JSON object, if those were asked for."""
        if self._json:
            self.terminal.out(as_json(outcome_row(outcome, self._folder)))

    def stop_with(self, stop: Callable[[], None], *, grace: float) -> None:
        """From now on the first signal calls `stop`, and says what that means."""

        def say_and_stop() -> None:
            stop()
            self.terminal.say(f"stopping: {self._under_way(grace)}")

        self.interrupts.stop = say_and_stop

    def _under_way(self, grace: float) -> str:
        paid = self.progress.under_way
        if not paid:
            return "nothing more is submitted; Ctrl-C again to leave at once"
        jobs = "1 job is" if paid == 1 else f"{paid} jobs are"
        return f"{jobs} paid and may land for {grace:g} s; Ctrl-C again to leave at once"

    def _standing(self) -> ExitCounts | None:
        if self.batch is None:
            return None
        summary = self.batch.summary
        return ExitCounts(
            failed=summary.failed + summary.failed_earlier,
            in_doubt=summary.in_doubt + max(self._doubts_before, summary.in_doubt_earlier),
        )

    def _judged(self, error: FluxError) -> FluxError:
        """A folder that cannot be used before anything was submitted is bad input, not a loss."""
        if self.progress.submitted:
            return error
        cause = error.__cause__
        misplaced = isinstance(cause, OSError) and cause.errno in _MISPLACED
        if isinstance(error, SinkError) or (isinstance(error, JournalError) and misplaced):
            return ConfigError(str(error))
        return error

    def _complain(self, line: str) -> None:
        self._complaints += 1
        if self._complaints <= _COMPLAINTS:
            self.terminal.say(display(line))  # a prompt of many lines is one line here
        elif self._complaints == _COMPLAINTS + 1:
            self.terminal.say(f"more went wrong: see {self._folder / 'failures.jsonl'}")

    def _close(self) -> None:
        standing = self._standing()
        if self.batch is None or standing is None:
            return
        lines = list(
            closing(
                self.batch.summary,
                self._folder,
                in_doubt=standing.in_doubt,
                at_cap=self._is_at_cap,
                by_error=self._is_ended_by_error,
                simulated=self._is_simulated,
            )
        )
        for line in lines[:-1]:
            self.terminal.say(line)
        self.terminal.note(lines[-1])

    def _leave(self) -> None:
        self._close()
        self.terminal.close(timeout=0.2)
