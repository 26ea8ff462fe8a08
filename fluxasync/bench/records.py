"""The values of a benchmark: what happened to each image, a stage in numbers, the whole report.

All of them are frozen and plain: times are float seconds, money is US dollars, an unknown is None
and never 0. An image's instants are seconds since the run's start on our own clock; what the server
said about its clock has been moved to ours by then. Nothing here measures, computes or draws.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import field, frozen

from .._store.files import open_to_read

#: of report.json and requests.jsonl; another number means that their fields mean something else
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

#: images saved for each slot of a closed loop, below which its pace is no claim: the slots have
#: hardly turned round
TURNS = 2

SAVED = "saved"
UNFINISHED = "unfinished"  #: paid, and the run ended before its image was here
IN_DOUBT = "in_doubt"


@frozen(kw_only=True)
class ImageRecord:
    """One image's story: a line of requests.jsonl. Instants that were not reached are None."""

    index: int  #: in the order of the run, warm-up included
    model: str
    stage: int  #: index into Report.stages
    warm_up: bool = False  #: made to warm up: in no statistic
    outcome: str  #: "saved", "in_doubt", or the failure's cause: "moderated", "timeout", …
    job_id: str | None = None

    intended_at: float  #: when the schedule wanted it; in a closed loop, when its turn came
    began_at: float  #: when we began with it
    accepted_at: float | None = None  #: the submit's answer was here
    generated_at: float | None = None  #: the server had it ready, moved to our clock
    detected_at: float | None = None  #: a poll told us so
    downloaded_at: float | None = None  #: the last byte was here
    stored_at: float | None = None  #: whole, verified and published

    submit: float | None = None  #: from the intended instant until accepted: slots and 429s too
    queue: float | None = None  #: accepted, but not yet begun by the server
    generate: float | None = None  #: the server's own work
    detection_lag: float | None = None  #: ready, but not yet known to us
    download: float | None = None  #: from detected until the last byte: download places too
    disk: float | None = None  #: checking, writing and publishing
    latency: float | None = None  #: from the intended instant until stored; None unless saved

    #: the server did not say when it was done: `generated_at` is half way between two polls
    estimated: bool = False
    polls: int = 0
    bytes: int | None = None
    width: int | None = None  #: pixels
    height: int | None = None  #: pixels
    cost: float | None = None  #: as the provider said, else the catalogue's price
    why: str | None = None  #: of one that failed: what was said of it

    @property
    def is_saved(self) -> bool:
        """Whether its image was stored."""
        return self.outcome == SAVED


@frozen(kw_only=True)
class Distribution:
    """Some durations in numbers; all None when there were none. Percentiles that so few values
    cannot tell (p99 of 20) are the largest value, and `count` says so."""

    count: int = 0
    mean: float | None = None
    maximum: float | None = None
    percentiles: Mapping[str, float | None] = field(factory=dict)  #: by name: "p50" to "p99.9"

    def __getitem__(self, name: str) -> float | None:
        return self.percentiles.get(name)


@frozen(kw_only=True)
class Interval:
    """What a figure may be by chance: 95 of 100 such runs would be within."""

    low: float
    high: float


@frozen(kw_only=True)
class ScheduleDelay:
    """How late an open loop's submissions began: above some milliseconds our machine is slow."""

    p50: float
    p99: float
    maximum: float


@frozen(kw_only=True)
class Machine:
    """What this process did to itself during a stage: tells a slow machine from a slow API."""

    loop_lag_p99: float | None = None  #: how late the event loop's timers were
    loop_lag_max: float | None = None
    cpu_seconds_per_image: float | None = None  #: of all threads of this process
    cpu_share: float | None = None  #: of one core; 1.0 is a full one
    #: share of the time in which our loop could have run and something else had the cores: other
    #: programs, our own threads, a practice server on this machine; Linux
    cpu_wait_share: float | None = None
    disk_queue_max: int = 0  #: images that had arrived and waited for the disk, at most
    memory_bytes: int | None = None  #: resident, the peak so far


@frozen(kw_only=True)
class Stage:
    """One load on one model, in numbers; the warm-up is in none of them."""

    label: str  #: "24 in flight", "0.5/s", "ramp to 2/s"
    model: str
    in_flight: int | None = None  #: jobs at once: a closed loop's workers, an open loop's slots
    rate: float | None = None  #: submissions a second wanted; None in a closed loop
    rate_to: float | None = None  #: where a ramp ends; None otherwise
    seconds: float  #: measured: from the first measured image's turn until the last was stored
    images: int  #: saved and measured
    attempts: int  #: begun and measured, whatever became of them

    #: sustained: a closed loop's slots turned round so often a minute (so the slow end, when slots
    #: run empty, counts for nothing); an open loop's pace of arriving images
    images_per_minute: float
    images_per_minute_interval: Interval | None = None
    goodput: float | None = None  #: images a minute within the objective; None without one
    objective: float | None = None  #: the latency that counts as good, in seconds
    latency: Distribution  #: of saved images, from the intended instant
    median_latency_interval: Interval | None = None
    parts: Mapping[str, Distribution]  #: by name, see PARTS
    schedule_lag: ScheduleDelay | None = None  #: open loop only

    slot_utilisation: float | None = None  #: share of the slots' time in which the server worked
    estimated: int = 0  #: images whose end at the server was estimated, see ImageRecord
    polls_per_image: float | None = None
    outcomes: Mapping[str, int]  #: how many ended how, "saved" included
    moderated_share: float  #: 0 to 1, of the attempts
    why: Mapping[str, str] = field(factory=dict)  #: of failures: by outcome, what was said most
    push_backs: int = 0  #: times the server said to wait (429 and its like)
    unanswered: float = 0.0  #: seconds in which nothing answered, from its begin to its end
    bytes: int = 0
    megapixels: float = 0.0
    cost: float | None = None  #: of everything in it, warm-up excluded; None = unknown
    cost_per_image: float | None = None
    cost_per_1000: float | None = None
    machine: Machine = field(factory=Machine)

    @property
    def has_few_images(self) -> bool:
        """Whether a closed loop saved too few images for its pace to be a claim."""
        return self.rate is None and self.images < TURNS * (self.in_flight or 0)


@frozen(kw_only=True)
class SlotSample:
    """How full the slots were at one instant."""

    at: float  #: seconds since the run's start
    in_flight: int  #: jobs not yet known to be terminal
    downloading: int  #: images between Ready and stored
    stage: int


@frozen(kw_only=True)
class Report:
    """A whole benchmark: report.json. The single images are in requests.jsonl beside it."""

    title: str
    began: str  #: UTC, ISO 8601
    environment: Mapping[str, Any]  #: versions, machine, provider, origin, options
    stages: tuple[Stage, ...]
    knee: str | None = None  #: label of the stage after which more load buys next to nothing
    knees: Mapping[str, str] = field(factory=dict)  #: as above by model, for those that have one
    knee_why: str = ""  #: a sentence, also when there is no knee
    slots: tuple[SlotSample, ...] = ()  #: about ten a second, thinned for long runs
    verdict: str = ""  #: who is in the way, the API or this machine, and why
    is_machine_slow: bool = False  #: the verdict in one bit
    spent: Decimal = Decimal(0)  #: warm-up included; simulated where the origin is
    unpriced: int = 0  #: jobs of unknown price, not in `spent`
    simulated: bool = False
    note: str = ""  #: why the run ended early, if it did
    clock_skew: float | None = None  #: seconds that the server's clock is ahead of ours
    clock_uncertainty: float | None = None  #: seconds that may be wrong about it, either way
    folder: Path | None = field(default=None, eq=False)  #: where it lies

    def records(self) -> Iterator[ImageRecord]:
        """Every image in the order in which it ended, warm-up included, read line by line.

        A last line that a crash cut short is left out. Raises OSError when there is no file.
        """
        if self.folder is None:
            return
        with open_to_read(self.folder / RECORDS_NAME, follow=True) as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield ImageRecord(**json.loads(line))
