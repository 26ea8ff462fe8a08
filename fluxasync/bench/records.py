"""The values of a benchmark, and their files: report.json and requests.jsonl.

Durations are float seconds, money is US dollars, and an unknown value is None, never 0. Instants
are seconds since the run began, on this machine's clock; server times have been converted to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, field, fields, frozen

from .._core.errors import ConfigError
from .._store.files import disk_error, open_to_read

#: version of the fields of report.json and requests.jsonl
SCHEMA_VERSION = 1

REPORT_NAME = "report.json"
RECORDS_NAME = "requests.jsonl"
PAGE_NAME = "report.html"
IMAGES_NAME = "images"

#: the percentiles of every distribution in a report, by name
PERCENTILES: Mapping[str, float] = {
    "p50": 0.50, "p75": 0.75, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p99.9": 0.999,
}  # fmt: skip
#: the parts of an image's time, in the order in which they pass
PARTS = ("submit", "queue", "generate", "detection_lag", "download", "disk")

#: saved images per slot of a closed loop below which its throughput is not reported: the slots
#: have hardly been reused
TURNS = 2

SAVED = "saved"
UNFINISHED = "unfinished"  #: paid, and the run ended before the image arrived
IN_DOUBT = "in_doubt"


@frozen(kw_only=True)
class ImageRecord:
    """One image: a line of requests.jsonl. An instant that was not reached is None."""

    index: int  #: in the order of the run, warm-up included
    model: str
    stage: int  #: index into Report.stages
    warm_up: bool = False  #: made to warm up; excluded from every statistic
    outcome: str  #: "saved", "in_doubt", or the cause of the failure: "moderated", "timeout", …
    job_id: str | None = None

    intended_at: float  #: open loop: scheduled; closed loop: a worker became free
    began_at: float  #: the submission started
    accepted_at: float | None = None  #: the answer to the submission arrived
    generated_at: float | None = None  #: the server finished the image
    detected_at: float | None = None  #: a poll returned Ready
    downloaded_at: float | None = None  #: the last byte arrived
    stored_at: float | None = None  #: complete, verified and published

    submit: float | None = None  #: intended → accepted, waits for a slot and after a 429 included
    queue: float | None = None  #: accepted, not yet started by the server
    generate: float | None = None  #: the server's own work
    detection_lag: float | None = None  #: finished, not yet seen by a poll
    download: float | None = None  #: detected → last byte, wait for a download place included
    disk: float | None = None  #: checking, writing and publishing
    latency: float | None = None  #: intended → stored; None unless saved

    #: the server reported no end: `generated_at` is half way between two polls
    estimated: bool = False
    polls: int = 0
    bytes: int | None = None
    width: int | None = None  #: pixels
    height: int | None = None  #: pixels
    cost: float | None = None  #: as the provider reported it, else the catalogue's price
    why: str | None = None  #: the error of a failed image

    @property
    def is_saved(self) -> bool:
        """Whether its image was stored."""
        return self.outcome == SAVED


@frozen(kw_only=True)
class Distribution:
    """Statistics of some durations; all None when there were none.

    A percentile that needs more values than there are (p99 of 20) is the largest value; `count`
    shows it.
    """

    count: int = 0
    mean: float | None = None
    maximum: float | None = None
    percentiles: Mapping[str, float | None] = field(factory=dict)  #: by name: "p50" to "p99.9"

    def __getitem__(self, name: str) -> float | None:
        return self.percentiles.get(name)

    def is_few(self, name: str) -> bool:
        """Whether there are too few values for that percentile to differ from the largest."""
        return self.count * (1 - PERCENTILES[name]) < 1 - 1e-9


@frozen(kw_only=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


@frozen(kw_only=True)
class ScheduleDelay:
    """How late an open loop's submissions started; many milliseconds mean a slow client."""

    p50: float
    p99: float
    maximum: float


@frozen(kw_only=True)
class Machine:
    """Resources that this process used during a stage: separates a slow client from a slow API."""

    loop_lag_p99: float | None = None  #: how late the event loop's timers fired
    loop_lag_max: float | None = None
    cpu_seconds_per_image: float | None = None  #: of all threads of this process
    cpu_share: float | None = None  #: of one core; 1.0 is a full core
    #: share of the time in which the event loop was ready to run and other programs, other threads
    #: or a local simulator occupied the cores; Linux only
    cpu_wait_share: float | None = None
    disk_queue_max: int = 0  #: most images that had arrived and were not yet written
    memory_bytes: int | None = None  #: resident, the peak so far


@frozen(kw_only=True)
class Stage:
    """The numbers of one load on one model, warm-up excluded."""

    label: str  #: "24 in flight", "0.5/s", "ramp 0.1 to 2/s"
    model: str
    account: str = ""  #: name of the account, where several were measured
    in_flight: int | None = None  #: a closed loop's workers, an open loop's slots
    rate: float | None = None  #: offered submissions per second; None in a closed loop
    rate_to: float | None = None  #: where a ramp ends; None otherwise
    seconds: float  #: from the first measured image's turn until the last one was stored
    images: int  #: saved and measured
    attempts: int  #: started and measured, whatever their outcome

    #: sustained: the turns of a closed loop's slots (so draining at the end does not count), or the
    #: rate at which an open loop's images were stored
    images_per_minute: float
    images_per_minute_interval: Interval | None = None
    goodput: float | None = None  #: images per minute within the objective; None without one
    objective: float | None = None  #: the latency objective, in seconds
    latency: Distribution  #: of saved images, from the intended instant
    median_latency_interval: Interval | None = None
    parts: Mapping[str, Distribution]  #: by name, see PARTS
    schedule_lag: ScheduleDelay | None = None  #: open loop only

    slot_utilisation: float | None = None  #: share of the slots' time in which the server worked
    estimated: int = 0  #: images whose end at the server was estimated, see ImageRecord
    polls_per_image: float | None = None
    outcomes: Mapping[str, int]  #: images by outcome, "saved" included
    moderated_share: float  #: 0 to 1, of the attempts
    why: Mapping[str, str] = field(factory=dict)  #: by outcome: the most frequent error text
    push_backs: int = 0  #: answers that asked to wait (429 and similar)
    unanswered: float = 0.0  #: seconds in which no call was answered, from their start to their end
    bytes: int = 0
    megapixels: float = 0.0
    cost: float | None = None  #: of all attempts, warm-up excluded; None = unknown
    cost_per_image: float | None = None
    cost_per_1000: float | None = None
    machine: Machine = field(factory=Machine)

    @property
    def series(self) -> str:
        """What its loads are compared within: the model, of several accounts also the account."""
        return f"{self.model} at {self.account}" if self.account else self.model

    @property
    def has_few_images(self) -> bool:
        """Whether a closed loop saved too few images for its throughput to be meaningful."""
        return self.rate is None and self.images < TURNS * (self.in_flight or 0)


@frozen(kw_only=True)
class SlotSample:
    """Occupation of the slots at one instant."""

    at: float  #: seconds since the run's start
    in_flight: int  #: jobs not known to be terminal
    downloading: int  #: images between Ready and stored
    stage: int


@frozen(kw_only=True)
class Report:
    """A whole benchmark: report.json. The single images are in requests.jsonl beside it."""

    title: str
    began: str  #: UTC, ISO 8601
    environment: Mapping[str, Any]  #: versions, machine, provider, origin, options
    stages: tuple[Stage, ...]
    knee: str | None = None  #: saturation point: the stage after which more load adds little
    knees: Mapping[str, str] = field(factory=dict)  #: the saturation point of each series with one
    knee_why: str = ""  #: a sentence about it, also when there is none
    slots: tuple[SlotSample, ...] = ()  #: about ten per second, thinned out in long runs
    verdict: str = ""  #: the bottleneck, the API or this machine, and the evidence
    is_machine_slow: bool = False  #: whether this machine was the bottleneck
    spent: Decimal = Decimal(0)  #: warm-up included; catalogue price of a simulated run
    unpriced: int = 0  #: jobs of unknown price, not in `spent`
    simulated: bool = False
    note: str = ""  #: why the run ended early; empty when it did not
    clock_skew: float | None = None  #: seconds by which the server's clock is ahead
    clock_uncertainty: float | None = None  #: possible error of `clock_skew`, in seconds
    folder: Path | None = field(default=None, eq=False)  #: where its files are

    def saturates_at(self, stage: Stage) -> bool:
        """Whether that stage is the saturation point of its series."""
        return stage.label == self.knees.get(stage.series, None if self.knees else self.knee)

    def records(self) -> Iterator[ImageRecord]:
        """Yield each image, warm-up included, in the order in which they ended.

        The file is read line by line; an incomplete last line is skipped. Raises OSError when
        there is no file.
        """
        if self.folder is None:
            return
        with open_to_read(self.folder / RECORDS_NAME, follow=True) as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield ImageRecord(**json.loads(line))


# --- files ----------------------------------------------------------------------------------------


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
    """Write report.json atomically. Raises SinkError."""
    path = folder / REPORT_NAME
    row = {"schema": SCHEMA_VERSION} | asdict(
        report, filter=lambda attribute, _: attribute.name != "folder"
    )
    # a sample is four numbers: as objects they would be most of the file
    row["slots"] = [[s.at, s.in_flight, s.downloading, s.stage] for s in report.slots]
    text = json.dumps(row, indent=1, ensure_ascii=True, default=str)
    part = path.with_suffix(".part")
    try:
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise disk_error(path, error) from error


def load(folder: str | os.PathLike[str]) -> Report:
    """Read the report of a folder, or a report.json.

    Raises ConfigError when there is none that this version can read.
    """
    path = Path(folder)
    path = path if path.suffix == ".json" else path / REPORT_NAME
    try:
        with open_to_read(path, follow=True) as file:
            row = json.loads(file.read())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such report; make one with fluxasync bench") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a report ({_reason(error)})") from None
    if not isinstance(row, dict) or row.get("schema") != SCHEMA_VERSION:
        raise ConfigError(f"{path}: not a report of this version of fluxasync")
    try:
        return _report(row, path.parent)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"{path}: damaged report ({_reason(error)})") from None


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
    return evolve(
        Stage(**row),
        latency=Distribution(**row["latency"]),
        parts={part: Distribution(**values) for part, values in row["parts"].items()},
        machine=Machine(**row["machine"]),
        schedule_lag=None if row["schedule_lag"] is None else ScheduleDelay(**row["schedule_lag"]),
        images_per_minute_interval=_interval(row["images_per_minute_interval"]),
        median_latency_interval=_interval(row["median_latency_interval"]),
    )


def _interval(row: Mapping[str, float] | None) -> Interval | None:
    return None if row is None else Interval(**row)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:120]
