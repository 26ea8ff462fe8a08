"""A benchmark's folder: fresh before it, whole after it, gone where nothing was sent."""

from __future__ import annotations

import shutil
from contextlib import suppress
from itertools import islice
from pathlib import Path

from .._core.errors import ConfigError
from .._store.files import disk_error, make_folder
from .record_files import write_report
from .records import IMAGES_NAME, RECORDS_NAME, REPORT_NAME, Report


def check_unused(folder: Path) -> None:
    """Refuse a folder that holds a report, or anything else: it stays as it is."""
    if (folder / REPORT_NAME).exists():
        raise ConfigError(f"{folder} holds a report already: choose another folder with -o")
    if folder.is_dir() and any(islice(folder.iterdir(), 1)):
        raise ConfigError(f"{folder} is not empty: choose another folder with -o")


def make(folder: Path) -> None:
    """Make the folder. A place where none can be is a slip of the caller's, not a broken disk."""
    try:
        make_folder(folder)
    except OSError as error:
        raise ConfigError(str(disk_error(folder, error))) from error


def write(report: Report) -> None:
    """Write the numbers, then the page: a page that cannot be drawn loses nothing."""
    from .report.html_report import write_page

    assert report.folder is not None  # noqa: S101 — the order's; for the type checker
    write_report(report.folder, report)
    try:
        write_page(report)
    except OSError as error:
        raise disk_error(report.folder, error) from error


def remove(folder: Path) -> None:
    """Remove what a run that sent nothing has made."""
    shutil.rmtree(folder / IMAGES_NAME, ignore_errors=True)
    (folder / RECORDS_NAME).unlink(missing_ok=True)
    with suppress(OSError):  # it holds something else by now
        folder.rmdir()
