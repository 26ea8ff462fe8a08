"""Runs a command that spends money: signals, output, and the exit code.

Paid jobs that were not fetched are not listed: the session warns of each with its id, and the
command shows the library's warnings.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .._batch.progress.counts import Progress, wait_for_doubts
from .._batch.progress.terminal import Terminal
from .._core.errors import BudgetExceeded, ConfigError, FluxError, JournalError, SinkError
from .._core.events import DoubtsSought, Event
from .._core.models import Outcome, Saved
from .._core.text import display
from .._requests.estimate import Estimate
from .._requests.sources.plan import Plan
from .._store.journal.totals import JournalCounts
from .._store.output_root import OutputRoot
from .advice import with_advice
from .exit_codes import exit_code
from .rendering import as_json, closing, event_row, failure_line, outcome_row
from .signals import Interrupts

if TYPE_CHECKING:  # heavy
    from .._batch.batch import Batch
    from .run_exports import ShownExport

#: failures printed, so that the first stay visible; failures.jsonl has all
_MOST_FAILURES_SHOWN = 10

#: errors of a badly chosen folder, not of a failing disk
_MISPLACED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
)  # fmt: skip


@frozen(kw_only=True)
class ExitCounts:
    """The counts that decide the exit code, those of earlier runs in the folder included."""

    failed: Counter[str]
    in_doubt: int


class CommandRun:
    """The output and the signals of one command; `run(start)` runs it."""

    def __init__(
        self, terminal: Terminal, *, json: bool, simulated: bool, root: OutputRoot | None = None
    ) -> None:
        self.terminal = terminal
        self.progress = Progress(priced=not simulated)
        self.interrupts = Interrupts(leave=self._leave)
        self.batch: Batch | None = None  #: once it has started
        self.export: ShownExport | None = None  #: beside the batch
        self.about_doubts: str | None = None  #: said once if images are left in doubt
        self.cap = "--max-cost"  #: what raises the cap
        self._json = json
        self._root = root or OutputRoot(Path())
        self._failures_shown = 0
        self._doubts_before = 0
        self._is_search_shown = False
        self._is_at_cap = False
        self._is_ended_by_error = False
        self.is_simulated = simulated  #: nothing is charged

    async def run(self, start: Callable[[], Coroutine[Any, Any, None]]) -> int:
        """Await what `start` returns, print how it ended, and return the exit code."""
        error: FluxError | None = None
        try:
            with self.interrupts:
                await start()
        except asyncio.CancelledError:
            if self.interrupts.first is None:
                raise
        except FluxError as caught:
            error = self._as_usage_error(caught)
            self._is_at_cap = isinstance(error, BudgetExceeded)
            self._is_ended_by_error = True
            self.terminal.say(f"fluxasync: {with_advice(error)}")
        finally:
            self._close()
        if self._json and self.export is not None and (row := self.export.row) is not None:
            self.terminal.out(as_json(row))
        return exit_code(self._counts(), error, self.interrupts.first)

    def expect(
        self,
        plan: Plan,
        *,
        recovered: JournalCounts | None,
        estimate: Estimate | None,
        slots: int,
    ) -> None:
        """Set the totals from the plan and from what earlier runs left."""
        self.progress.expect(plan, recovered=recovered, estimate=estimate, slots=slots)
        self._doubts_before = 0 if recovered is None else recovered.in_doubt

    def simulate(self) -> None:
        """Show no cost from now on: nothing is charged."""
        self.is_simulated = True
        self.progress.priced = False

    def watch(self, event: Event) -> None:
        """Count an event of the session; print it under `run --json`."""
        self.progress(event)
        if self.batch is None and not self._is_search_shown and isinstance(event, DoubtsSought):
            self._is_search_shown = True
            self.terminal.status(wait_for_doubts(event))  # before the live view, which shows it
        if self._json and self.batch is not None and (row := event_row(event)) is not None:
            self.terminal.out(as_json(row))

    def show(self, outcome: Outcome) -> None:
        """Print an outcome: its path or its row as data, or what went wrong. A live view shows the
        latest paths itself."""
        self.progress.update(outcome, now=asyncio.get_running_loop().time())
        self.show_row(outcome)
        if isinstance(outcome, Saved):
            if not self._json and not (self.batch is not None and self.terminal.shows_view):
                self.terminal.out(outcome.place)
        else:
            self._print_failure(failure_line(outcome))

    def show_row(self, outcome: Outcome) -> None:
        """Print an outcome as one JSON object under `--json`."""
        if self._json:
            self.terminal.out(as_json(outcome_row(outcome, self._root)))

    def stop_before_start(self) -> None:
        """Make the first signal cancel this task, and print that nothing was submitted."""
        task = asyncio.current_task()

        def stop_and_report() -> None:
            self.terminal.say("stopping: nothing was submitted; Ctrl-C again to leave at once")
            if task is not None:
                task.cancel()

        self.interrupts.stop = stop_and_report

    def stop_with(self, stop: Callable[[], None], *, grace: float) -> None:
        """Make the first signal call `stop` and print what that means."""

        def stop_and_report() -> None:
            stop()
            self.terminal.say(f"stopping: {self._under_way(grace)}")

        self.interrupts.stop = stop_and_report

    def _under_way(self, grace: float) -> str:
        paid = self.progress.under_way
        if not paid:
            return "nothing more is submitted; Ctrl-C again to leave at once"
        jobs = "1 job is" if paid == 1 else f"{paid} jobs are"
        what = f"{jobs} paid: waiting up to {grace:g} s for them"
        return f"{what}; Ctrl-C again to leave at once"

    def _counts(self) -> ExitCounts | None:
        if self.batch is None:
            return None
        summary = self.batch.summary
        return ExitCounts(
            failed=summary.failed + summary.failed_earlier + Counter(damaged=summary.damaged),
            in_doubt=summary.in_doubt
            + max(self._doubts_before - summary.found_earlier, summary.in_doubt_earlier),
        )

    def _as_usage_error(self, error: FluxError) -> FluxError:
        """Return a ConfigError for a folder that cannot be used, if nothing was submitted yet."""
        if self.progress.submitted:
            return error
        cause = error.__cause__
        misplaced = isinstance(cause, OSError) and cause.errno in _MISPLACED
        if isinstance(error, SinkError) or (isinstance(error, JournalError) and misplaced):
            return ConfigError(str(error))
        return error

    def _print_failure(self, line: str) -> None:
        self._failures_shown += 1
        if self._failures_shown <= _MOST_FAILURES_SHOWN:
            self.terminal.say(display(line))  # a prompt of many lines is one line here
        elif self._failures_shown == _MOST_FAILURES_SHOWN + 1:
            self.terminal.say(
                f"more failures: see {os.path.join(self._root.record, 'failures.jsonl')}"
            )

    def _close(self) -> None:
        counts = self._counts()
        if self.batch is None or counts is None:
            return
        lines = list(
            closing(
                self.batch.summary,
                self._root,
                in_doubt=counts.in_doubt,
                at_cap=self._is_at_cap,
                cap=self.cap,
                by_error=self._is_ended_by_error,
                simulated=self.is_simulated,
            )
        )
        if counts.in_doubt and self.about_doubts is not None:
            lines.insert(1, self.about_doubts)
        for line in lines[:-1]:
            self.terminal.say(line)
        saved = sorted(self.progress.by_account.saved.items())
        parts = ", ".join(f"{name} {count:,}" for name, count in saved)
        exported = "" if self.export is None else self.export.clause
        self.terminal.note("; ".join(filter(None, (lines[-1], parts, exported))))
        if self.terminal.rewrites and not self._root.url and self.batch.summary.saved:
            # a terminal opens it with a click
            self.terminal.note(Path(os.path.abspath(self._root.folder)).as_uri())

    def _leave(self) -> None:
        self._close()
        self.terminal.close(timeout=0.2)
