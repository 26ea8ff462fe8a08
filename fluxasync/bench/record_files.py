"""A report as files: report.json, and requests.jsonl with a line for every image.

Plain JSON with the values' own field names, so that other programs read it without us. A file of
another schema is refused in one line, not guessed at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, fields

from .._core.errors import ConfigError
from .._store.files import disk_error, open_to_read
from .records import (
    RECORDS_NAME,
    REPORT_NAME,
    SCHEMA_VERSION,
    Distribution,
    ImageRecord,
    Interval,
    Machine,
    Report,
    ScheduleDelay,
    SlotSample,
    Stage,
)


def append_records(folder: Path, records: Iterable[ImageRecord]) -> None:
    """Add lines to requests.jsonl. Raises SinkError."""
    path = folder / RECORDS_NAME
    lines = [json.dumps(asdict(record), separators=(",", ":")) + "\n" for record in records]
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise disk_error(path, error) from error


def write_report(folder: Path, report: Report) -> None:
    """Write report.json whole or not at all. Raises SinkError."""
    path = folder / REPORT_NAME
    row = {"schema": SCHEMA_VERSION} | asdict(
        report, filter=lambda attribute, _: attribute.name != "folder"
    )
    # a sample is four numbers: in rows of their own they would be most of the file
    row["slots"] = [[s.at, s.in_flight, s.downloading, s.stage] for s in report.slots]
    text = json.dumps(row, indent=1, ensure_ascii=True, default=_plain)
    part = path.with_suffix(".part")
    try:
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise disk_error(path, error) from error


def load(folder: str | os.PathLike[str]) -> Report:
    """Read the report of a folder (or its report.json). Raises ConfigError when there is none that
    this version can read."""
    path = Path(folder)
    path = path if path.suffix == ".json" else path / REPORT_NAME
    try:
        with open_to_read(path, follow=True) as file:
            row = json.loads(file.read())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such report; make one with fluxasync bench") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a report ({_why(error)})") from None
    if not isinstance(row, dict) or row.get("schema") != SCHEMA_VERSION:
        raise ConfigError(f"{path}: not a report of this version of fluxasync")
    try:
        return _report(row, path.parent)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"{path}: a damaged report ({_why(error)})") from None


def _report(row: Mapping[str, Any], folder: Path) -> Report:
    known = {field.name for field in fields(Report)}
    given = {name: value for name, value in row.items() if name in known}
    return Report(
        **given
        | {
            "stages": tuple(_stage(stage) for stage in row["stages"]),
            "slots": tuple(
                SlotSample(at=at, in_flight=in_flight, downloading=downloading, stage=stage)
                for at, in_flight, downloading, stage in row["slots"]
            ),
            "spent": Decimal(row["spent"]),
            "folder": folder,
        }
    )


def _stage(row: Mapping[str, Any]) -> Stage:
    stage = Stage(**row)
    return evolve(
        stage,
        latency=Distribution(**row["latency"]),
        parts={part: Distribution(**values) for part, values in row["parts"].items()},
        machine=Machine(**row["machine"]),
        schedule_lag=None if row["schedule_lag"] is None else ScheduleDelay(**row["schedule_lag"]),
        images_per_minute_interval=_interval(row["images_per_minute_interval"]),
        median_latency_interval=_interval(row["median_latency_interval"]),
    )


def _interval(row: Mapping[str, float] | None) -> Interval | None:
    return None if row is None else Interval(**row)


def _plain(value: Any) -> Any:
    return str(value)


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:120]
