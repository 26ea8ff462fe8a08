"""What a folder holds, between runs: its status, whether its files agree, decisions about doubts.

No function here uses the network or needs a key. While a run is active in the folder only `status`
answers. Everything that blocks runs in a thread.
"""

from __future__ import annotations

from .folder_status import InDoubtEntry, ModelTotals, Status, status
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
