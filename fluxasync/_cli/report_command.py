"""The command `report`: one page of a run's figures."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._batch.progress.terminal import Terminal
from .._core.errors import ConfigError
from .event_loop import run_async
from .exit_codes import DONE
from .key_files import OutPath, RunPlace
from .options import read_storage_options

if TYPE_CHECKING:
    from .._store.audit.run_figures import RunFigures

_PAGES = (".html", ".htm")


def report(
    folder: RunPlace,
    /,
    *,
    out: OutPath | None = None,
    storage_option: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Write report.html, a page of a run's figures, into its folder. Needs no key.

    Cost by model and day, failures by cause, pace and slots over time, submissions in doubt, and
    the slowest images. The journal is only read, also while the run is active.

    Parameters
    ----------
    folder
        Folder of a run, or the URL of a run into a bucket. The run may be active.
    out
        File of the page (default: report.html in FOLDER). The same command renews it.
    storage_option
        Option of the run's bucket, as K=V. May be given more than once.
    json
        Print one JSON object. The page is then written only with --out.
    """
    terminal = Terminal()

    def start() -> Coroutine[None, None, int]:
        if out is not None and out.suffix.lower() not in _PAGES:
            raise ConfigError(f"--out {out}: name a file that ends in .html")
        return _report(terminal, folder, out, read_storage_options(storage_option), json=json)

    return run_async(start, terminal)


async def _report(
    terminal: Terminal,
    run: Path | str,
    out: Path | None,
    options: Mapping[str, str],
    *,
    json: bool,
) -> int:
    """Print the path of the page, or with `json` one object."""
    from .._store.audit.run_figures import read_figures
    from .._store.bucket_state import located
    from .rendering import as_json

    place = await located(run, options)
    figures = await asyncio.to_thread(read_figures, place.folder)
    if json:
        terminal.out(as_json(figures_row(figures, run)))
        if out is None:
            return DONE
    path = await _written(figures, place.name, out, options)
    if not json:
        terminal.out(str(path))
    return DONE


async def _written(
    figures: RunFigures, name: str, out: Path | None, options: Mapping[str, str]
) -> Path:
    from .._report.page_parts import write_page
    from .._report.run_page import PAGE, RunPage
    from .._report.slowest_pictures import slowest_pictures
    from .._store.files import disk_error

    path = figures.folder / PAGE if out is None else out
    shown = await slowest_pictures(figures, options)
    page = RunPage(figures, name, shown, datetime.now(UTC))
    text = await asyncio.to_thread(page.text)
    try:
        await asyncio.to_thread(write_page, path, text)
    except OSError as error:
        raise disk_error(path, error) from error
    return path


def figures_row(figures: RunFigures, run: Path | str) -> dict[str, Any]:
    """Return a run's figures as JSON values; the totals are those of `status`."""
    counts = figures.counts
    return {
        "folder": str(run),
        **({"output": figures.root.url} if figures.root.url else {}),
        "running": figures.is_running,
        "simulated": figures.simulated,
        "since": figures.since and figures.since.isoformat(),
        "until": figures.until and figures.until.isoformat(),
        "active_seconds": figures.active_seconds,
        "done": counts.done,
        "still_running": counts.running,
        "in_doubt": counts.in_doubt,
        "failed": dict(counts.failed),
        "to_submit_again": counts.again,
        "quarantined": figures.quarantined,
        "cost": {
            "spent": float(counts.spent),
            "perhaps": float(counts.possible_cost),
            "in_doubt": float(counts.in_doubt_price),
            "earlier_attempts": float(figures.earlier_cost),
        },
        "days": _days(figures),
        "failures": _failures(figures),
        "pace": _pace(figures),
        "doubts": _doubts(figures),
        "found": {
            "images": figures.found_count,
            "cost": float(figures.found_cost),
            "keys": [each.key for each in figures.found],
        },
        "slowest": _slowest(figures),
    }


def _days(figures: RunFigures) -> list[dict[str, Any]]:
    return [
        {
            "day": each.day.isoformat(),
            "model": each.model,
            "images": each.images,
            "failed": each.failed,
            "spent": float(each.spent),
            "perhaps": float(each.possible_cost),
            "in_doubt": float(each.in_doubt),
        }
        for each in figures.days
    ]


def _failures(figures: RunFigures) -> list[dict[str, Any]]:
    return [
        {
            "cause": each.cause,
            "images": each.images,
            "perhaps": float(each.possible_cost),
            "message": each.message,
        }
        for each in figures.causes
    ]


def _pace(figures: RunFigures) -> list[dict[str, Any]]:
    return [
        {
            "at": datetime.fromtimestamp(each.at, UTC).isoformat(),
            "seconds": each.seconds,
            "saved": each.saved,
            "failed": each.failed,
            "in_flight": round(each.in_flight, 3),
        }
        for each in figures.columns
    ]


def _doubts(figures: RunFigures) -> list[dict[str, Any]]:
    return [
        {
            "key": each.key,
            "prompt": each.prompt,
            "model": each.model,
            "begun_at": each.begun_at.isoformat(),
            "price": None if each.price is None else float(each.price),
            "message": each.message,
        }
        for each in figures.doubts
    ]


def _slowest(figures: RunFigures) -> list[dict[str, Any]]:
    return [
        {
            "key": each.key,
            "index": each.index,
            "prompt": each.prompt,
            "model": each.model,
            "job_id": each.job_id,
            "file_name": each.name,
            "seconds": round(each.took, 4),
            "submit": each.submit,
            "watch": each.watch,
            "download": each.download,
            "polls": each.polls,
        }
        for each in figures.slowest
    ]
