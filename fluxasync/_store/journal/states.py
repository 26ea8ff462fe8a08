"""The states of a row, and the journal's file name."""

from __future__ import annotations

from enum import IntEnum

FILE = "journal.db"

#: the next step where a journal cannot be trusted
RESTORE = "restore it from a backup, or choose another folder"


class State(IntEnum):
    """The state of a row. The numbers are stored in files and never change."""

    INTENT = 0
    SUBMITTED = 1
    DONE = 2
    FAILED = 3
    IN_DOUBT = 4
    AGAIN = 5  # to be submitted again, by the user's decision

    @property
    def word(self) -> str:
        return self.name.lower().replace("_", "-")
