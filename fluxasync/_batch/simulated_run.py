"""The simulator of one run, which keeps its jobs in the run's folder: a later run collects them."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from .._store.files import HOME


def job_log(folder: Path | None, account: str = "") -> Path | None:
    """Return the file of the simulator of a run in a folder, or of one of its accounts. A name may
    hold any printable character, so its digest names the file."""
    digest = blake2b(account.encode(), digest_size=6).hexdigest()
    name = f"simulator-{digest}.jsonl" if account else "simulator.jsonl"
    return None if folder is None else folder / HOME / name
