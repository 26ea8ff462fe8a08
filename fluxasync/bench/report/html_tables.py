"""The numbers of a report as HTML tables: every one with its unit, unknowns as a dash.

`shown` is the one door for text from outside: inert for a terminal's eyes and escaped for a
browser's. A percentile or a pace that so few images cannot tell is grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from ..records import PARTS, PERCENTILES, Distribution, ImageRecord, Machine, Report, Stage
from .charts import is_few, is_knee
from .svg import plain

_DASH = "–"
_SHORT = 60  #: characters of a label in a table
_JOB, _WHOLE = 9, 200  #: characters of a job's id: in a column that stays while others scroll; all


def shown(text: object, width: int | None = None) -> str:
    """Return any text as inert, escaped HTML, good for content and for quoted attributes."""
    return escape(plain(text, width), quote=True)


def amount(value: float | None, digits: int = 3) -> str:
    """Return a number for people: three digits that matter, thousands whole, never 1e+05."""
    if value is None or not math.isfinite(value):
        return _DASH
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(places, 0), 6)}f}"


def seconds(value: float | None) -> str:
    """Return a duration with its unit: milliseconds below a tenth of a second."""
    if value is None or not math.isfinite(value):
        return _DASH
    return f"{amount(1000 * value)} ms" if abs(value) < 0.1 else f"{amount(value)} s"


def percent(value: float | None) -> str:
    """Return a share of 1 as a percentage."""
    return _DASH if value is None else f"{amount(100 * value)} %"


def dollars(value: float | None, places: int = 4) -> str:
    return _DASH if value is None else f"${value:,.{places}f}"


def stage_table(report: Report) -> str:
    """Return one row a stage: what a reader compares first."""
    is_one = len({stage.model for stage in report.stages}) == 1
    heads = [
        ("Load", ""), ("Model", ""), ("Pace", "images/min"), ("", "95 %"), ("p50", "s"),
        ("p95", "s"), ("p99", "s"), ("Images", "saved"), ("Not saved", ""), ("Slots busy", "%"),
        ("Polls", "per image"), ("Cost", "$/1,000"),
    ]  # fmt: skip
    rows = [
        [
            shown(stage.label, _SHORT) + (" ◂ knee" if is_knee(stage, report) else ""),
            shown(stage.model, _SHORT),
            _marked(amount(stage.images_per_minute), stage.has_few_images),
            _marked(_between(stage), stage.has_few_images),
            *(_percentile(stage.latency, name) for name in ("p50", "p95", "p99")),
            f"{stage.images:,}",
            f"{stage.attempts - stage.images:,}",
            percent(stage.slot_utilisation).removesuffix(" %"),
            amount(stage.polls_per_image),
            dollars(stage.cost_per_1000, 2),
        ]
        for stage in report.stages
    ]
    if is_one:  # a column that says the same in every row only takes room
        del heads[1]
        for row in rows:
            del row[1]
    return _table("Stages", heads, rows, texts=set() if is_one else {1})


def stage_details(stage: Stage, *, is_open: bool) -> str:
    """Return everything known of a stage, folded."""
    name = f"{shown(stage.label, _SHORT)}, {shown(stage.model, _SHORT)}"
    few = " (too few images)" if stage.has_few_images else ""
    pace = f"{amount(stage.images_per_minute)} images/min{few}"
    lead = f"{pace}, median {seconds(stage.latency['p50'])}"
    return (
        f'<details class="card"{" open" if is_open else ""}><summary>{name} '
        f'<span class="quiet">· {lead}</span></summary>'
        f'<div class="pair"><div>{_plain(_figures(stage))}</div><div>'
        f"{_plain(_machine(stage.machine, stage))}</div><div>{_outcomes(stage)}</div></div>"
        f"{_times(stage)}</details>"
    )


def slowest(images: Iterable[ImageRecord], report: Report) -> str:
    """Return a row an image with where its time went."""
    heads = [("Job", ""), ("Load", ""), ("Latency", "s")]
    heads += [(part.replace("_", " ").capitalize(), "s") for part in PARTS]
    rows = [
        [
            _job(one),
            _label(one.stage, report),
            amount(one.latency),
            *(amount(getattr(one, part)) for part in PARTS),
        ]
        for one in images
    ]
    return _table("Slowest images", heads, rows, texts={1})


def _job(one: ImageRecord) -> str:
    """A job's id short enough for a phone, and the whole of it for those who point at it."""
    if not one.job_id:
        return f"image {one.index}"
    return f'<span title="{shown(one.job_id, _WHOLE)}">{shown(one.job_id, _JOB)}</span>'


def environment(report: Report) -> str:
    """Return versions, machine, origin and options as a list of words."""
    pairs = dict(_flat(report.environment))
    if report.clock_skew is not None:
        known = report.clock_uncertainty
        unsure = "" if known is None else f" ± {amount(1000 * known)}"
        pairs["server's clock ahead by"] = f"{amount(1000 * report.clock_skew)}{unsure} ms"
    return f'<div class="card">{_plain(pairs)}</div>'


def _flat(known: Mapping[str, Any], lead: str = "") -> Iterator[tuple[str, str]]:
    for name, value in known.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{lead}{name} · ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if value:
                yield f"{lead}{name}", ", ".join(map(str, value))
        elif value not in (None, ""):
            yield f"{lead}{name}", str(value)


def _figures(stage: Stage) -> dict[str, str]:
    pairs = {
        "images saved": f"{stage.images:,} of {stage.attempts:,}",
        "measured for": seconds(stage.seconds),
        "images/min": f"{amount(stage.images_per_minute)} ({_between(stage)})",
        "megapixels": amount(stage.megapixels),
        "bytes": _bytes(stage.bytes),
        "slots busy": percent(stage.slot_utilisation),
        "polls per image": amount(stage.polls_per_image),
        "asked to slow down": f"{stage.push_backs:,} times",
        "moderated": percent(stage.moderated_share),
        "cost": dollars(stage.cost),
        "cost per image saved": dollars(stage.cost_per_image),
        "cost per 1,000": dollars(stage.cost_per_1000, 2),
    }
    if stage.objective is not None:
        pairs[f"images/min within {seconds(stage.objective)}"] = amount(stage.goodput)
    return pairs


def _machine(machine: Machine, stage: Stage) -> dict[str, str]:
    pairs = {
        "event loop late, p99": seconds(machine.loop_lag_p99),
        "event loop late, most": seconds(machine.loop_lag_max),
        "CPU per image": seconds(machine.cpu_seconds_per_image),
        "CPU, of one core": percent(machine.cpu_share),
        "waited for a core": percent(machine.cpu_wait_share),
        "waiting for the disk, most": f"{machine.disk_queue_max:,} images",
        "memory, peak": _bytes(machine.memory_bytes),
    }
    if lag := stage.schedule_lag:
        pairs["submissions late, p50"] = seconds(lag.p50)
        pairs["submissions late, p99"] = seconds(lag.p99)
        pairs["submissions late, most"] = seconds(lag.maximum)
    return pairs


def _outcomes(stage: Stage) -> str:
    counted = sorted(stage.outcomes.items(), key=lambda item: -item[1])
    rows = [
        [shown(name.replace("_", " "), _SHORT), f"{count:,}", _share(count, stage.attempts)]
        for name, count in counted
    ]
    return _table("Outcomes", (("Outcome", ""), ("Images", ""), ("Share", "%")), rows)


def _times(stage: Stage) -> str:
    names = (*PERCENTILES,)
    heads = [("Time", ""), ("Mean", "s"), *((name, "s") for name in names), ("Most", "s")]
    heads.append(("Images", ""))
    rows = [_time_row("latency", stage.latency, names)]
    rows += [
        _time_row(part.replace("_", " "), stage.parts[part], names)
        for part in PARTS
        if part in stage.parts
    ]
    note = ""
    if stage.estimated:
        note = (
            f'<p class="quiet small">The server did not say when {stage.estimated:,} of these were '
            "done: queue, generate and detection lag take the middle between two polls there.</p>"
        )
    return _table("Times of this stage", heads, rows) + note


def _time_row(name: str, known: Distribution, percentiles: Sequence[str]) -> list[str]:
    return [
        name,
        amount(known.mean),
        *(_percentile(known, each) for each in percentiles),
        amount(known.maximum),
        f"{known.count:,}",
    ]


_TEXT = ' class="text"'
#: marks a cell of a figure that so few images cannot tell; no text from outside begins so
_FEW = "\0"


def _percentile(known: Distribution, name: str) -> str:
    return _marked(amount(known[name]), is_few(known, name))


def _marked(text: str, is_few: bool) -> str:
    return f"{_FEW}{text}" if is_few and text != _DASH else text


def _table(
    name: str,
    heads: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[str]],
    *,
    texts: frozenset[int] | set[int] = frozenset(),
) -> str:
    """A table that scrolls within itself; its cells are HTML already."""
    head = "".join(
        f'<th scope="col"{_TEXT if place in texts else ""}>{title or "&nbsp;"}'
        f"<small>{unit or '&nbsp;'}</small></th>"
        for place, (title, unit) in enumerate(heads)
    )
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(_cell(text, place in texts) for place, text in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{name}" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(text: str, is_text: bool) -> str:
    if text.startswith(_FEW):
        return f'<td class="few">{text.removeprefix(_FEW)}</td>'
    return f"<td{_TEXT if is_text else ''}>{text}</td>"


def _plain(pairs: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{shown(name)}</dt><dd>{shown(text)}</dd>" for name, text in pairs.items())
    return f'<dl class="plain">{rows}</dl>'


def _label(number: int, report: Report) -> str:
    return shown(report.stages[number].label, _SHORT) if 0 <= number < len(report.stages) else _DASH


def _between(stage: Stage) -> str:
    around = stage.images_per_minute_interval
    return _DASH if around is None else f"{amount(around.low)} to {amount(around.high)}"


def _share(count: int, total: int) -> str:
    return amount(100 * count / total) if total else _DASH


def _bytes(count: int | None) -> str:
    if count is None:
        return _DASH
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{amount(value)} {unit}"


def _words(pairs: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{shown(word)}</dt><dd>{shown(text)}</dd>" for word, text in pairs.items())
    return f'<dl class="words card">{rows}</dl>'


WORDS = _words(
    {
        "latency": "From the moment an image was wanted until it lay on disk, whole and verified. "
        "In an open loop that is the moment of the schedule, so an image that had to wait "
        "because others were slow counts its wait.",
        "submit": "Until the service had accepted the job: the wait for a slot, and for a pause "
        "that the service asked for, is in it.",
        "queue, generate": "Waiting at the service, and its own work, by its own clock where it "
        "tells the times.",
        "detection lag": "The image was ready, but no poll had seen it yet.",
        "download, disk": "Fetching the image, waiting for a place included; then checking, "
        "writing and publishing it.",
        "p50, p95, p99.9": "So many percent of the images were at most as slow. Grey: too few "
        "images to tell, so it is the slowest one.",
        "images/min": "How many were stored a minute. Grey: fewer than two for each slot, which is "
        "too few to tell a pace.",
        "95 %": "Where the figure would be in 95 of 100 runs like this one, if images were "
        "independent of one another.",
        "knee": "The load after which more of it buys next to no images, only waiting.",
        "slots busy": "The share of the slots' time in which the service worked on an image.",
        "event loop late": "How long after its moment a timer of this process ran. Some "
        "milliseconds are usual; more means that this machine, not the service, is slow.",
    }
)
