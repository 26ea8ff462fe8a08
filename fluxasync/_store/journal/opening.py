"""How a run begins in a journal: what it says of itself, the checks, and its first step."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from ..object_log import Fenced
from .decision_transitions import DecisionTransitions
from .doubts import open_owners
from .integrity import NO_ACCOUNTS, JournalHeader, check_output, check_run, run_id
from .recovery import recover
from .row_changes import RowChanges, RowSelection
from .serialization import storable
from .steps import OpenedStep
from .transitions import Transitions

if TYPE_CHECKING:
    from .log_copy import Apply, LogCopy

#: times that a run tries to take over a log to which another one appends
_TRIES = 20


@frozen(kw_only=True)
class RunFacts:
    """What a run says of itself when it opens a journal; see Journal."""

    provider: str
    origin: str
    simulated: bool
    accounts: Mapping[str, tuple[str, str]] = NO_ACCOUNTS
    template: str = ""
    url: str = ""
    living: Collection[str] | None = ()  #: None = every owner of an open submission

    def check(self, folder: Path, header: JournalHeader, *, is_copy: bool) -> None:
        """Raise JournalError for a journal in which this run has no place."""
        check_run(
            folder, header, simulated=self.simulated, provider=self.provider,
            origin=self.origin, accounts=self.accounts,
        )  # fmt: skip
        check_output(folder, header, self.url, is_copy=is_copy)

    def step(self, connection: sqlite3.Connection) -> OpenedStep:
        """Return the step that opens this journal."""
        living = open_owners(connection) if self.living is None else self.living
        return OpenedStep(
            at=time.time(),
            run=run_id(connection),
            provider=self.provider,
            origin=self.origin,
            simulated=self.simulated,
            template=storable(self.template) or None,
            output=self.url or None,
            living=living,
        )


def begin(
    connection: sqlite3.Connection,
    facts: RunFacts,
    again: RowSelection,
    folder: Path,
    *,
    copy: LogCopy | None,
    is_clean: bool,
) -> tuple[Transitions, Apply, set[Path]]:
    """Begin a transaction and in it a run: settle what the last one left. The caller commits.

    Return the transitions, what applies the steps of the run, and the folders to `sweep`.
    """
    for left in reversed(range(_TRIES)):
        connection.execute("BEGIN IMMEDIATE")
        home = (facts.provider, facts.origin)
        rows = RowChanges(connection, home=home, again=again, folder=folder)
        transitions = Transitions(rows, DecisionTransitions(rows).methods)
        opened = facts.step(connection)
        if copy is None:
            apply: Apply = transitions.apply
            apply(connection, opened)
            break
        try:
            apply = copy.begin(connection, transitions, opened)
            break
        except Fenced:  # the run that is to be taken over appended meanwhile
            connection.execute("ROLLBACK")
            if not (left and copy.start_again()):
                raise
    has_files = not facts.url
    unswept = recover(connection, transitions, folder, is_clean=is_clean, has_files=has_files)
    return transitions, apply, unswept
