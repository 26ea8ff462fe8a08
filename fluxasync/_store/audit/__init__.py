"""What a folder's journal says, whether its files agree, and what people decide about it.

No network, no key, and no run: while one goes on only `status` answers. The journal is read and
changed through its own room; files are only read. Everything blocking happens in a thread.
"""

from __future__ import annotations

from .folder_status import Status, status
from .offline_journal import InDoubtEntry, ModelTotals
from .resolution import drop, give_jobs, in_doubt, resubmit
from .verification import Finding, Verification, verify

__all__ = [
    "Finding",
    "InDoubtEntry",
    "ModelTotals",
    "Status",
    "Verification",
    "drop",
    "give_jobs",
    "in_doubt",
    "resubmit",
    "status",
    "verify",
]
