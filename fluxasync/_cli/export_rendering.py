"""An export as text and as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from .._core.text import counted

if TYPE_CHECKING:
    from .. import ExportResult
    from .._batch.progress.terminal import Terminal

#: seconds between two lines about the progress
_PATIENCE = 2.0


def counting(terminal: Terminal) -> Callable[[int, int], None]:
    """Return what shows the images exported so far, every two seconds."""
    due = time.monotonic() + _PATIENCE

    def show(images: int, total: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _PATIENCE
            terminal.status(f"{images:,} of {total:,} images exported")

    return show


def row_of(made: ExportResult, run: Path | str | None = None) -> dict[str, object]:
    """Return the object that `--json` prints; `run` is what was exported (default: its folder)."""
    return {
        "folder": str(run or made.folder),
        "to": made.to,
        "out": str(made.out),
        "paths": [str(path) for path in made.paths],
        "made": made.made,
        "images": made.images,
        "bytes": made.size,
        "left_out": made.left_out,
        "deleted": made.deleted,
        "unknown": list(made.unknown),
    }


def lines_of(made: ExportResult, run: Path | str) -> Iterator[str]:
    """Yield what the command says at its end about the export of a run."""
    if made.unknown:
        keys = counted(len(made.unknown), "picked key")
        yield f"warning: {keys} without a saved image in {run}, such as {made.unknown[0]}"
    if made.left_out:
        kinds = ", ".join(f"{count} {kind}" for kind, count in made.left_out.items())
        total = sum(made.left_out.values())
        yield f"{total} left out ({kinds}); see fluxasync verify {quote(str(run))}"
    if made.deleted:
        place = made.output or run
        yield f"{counted(made.deleted, 'image')} deleted from {place}: the shards have them"
    kept = len(made.paths) - made.made
    yield files_of(made, f" ({kept} as before)" if kept else "")


def files_of(made: ExportResult, about_files: str = "") -> str:
    """Return what an export holds, as one line."""
    files = f"{counted(len(made.paths), 'file')}{about_files}"
    return f"{counted(made.images, 'image')} in {files}, {made.size / 1e6:,.1f} MB → {made.out}"
