"""report.html: one page that contains all it shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..._core.errors import ConfigError
from ..._core.text import counted
from ..._report import markdown, page_parts
from ..._report.drawing import Chart
from ..._report.formatting import DASH, TimeUnit, amount, dollars, seconds, unit_of
from ..bottleneck import is_sound
from ..records import PAGE_NAME, PARTS, PERCENTILES, Distribution, ImageRecord, Report, Stage
from .charts import draw_charts
from .image_selection import slowest, strip

if TYPE_CHECKING:
    from ..._report.embedded_pictures import Picture

#: the single images by job id
Shown: TypeAlias = "Mapping[str, Picture]"

#: most records that are read for the page: the page of a million images must not take minutes
_MOST_READ = 200_000


def write_page(
    report: Report,
    records: Sequence[ImageRecord] | None = None,
    shown: Shown | None = None,
) -> Path:
    """Write report.html into the report's folder and return its path.

    `records` are those of the folder, if they were read; `shown` are the single images. Without
    matplotlib the page has no charts and names the command that installs it. Raises ConfigError
    when jinja2 is missing or the report has no folder, OSError when the page cannot be written.
    """
    if report.folder is None:
        raise ConfigError("the report has no folder: load it with fluxasync.bench.load(folder)")
    path = report.folder / PAGE_NAME
    known = read_records(report) if records is None else records
    page_parts.write_page(path, page(report, known, shown))
    return path


def page(report: Report, records: Sequence[ImageRecord] = (), shown: Shown | None = None) -> str:
    """Return the page as text; `records` are for the charts of single images and the slowest."""
    missing, pictures = "", shown or {}
    charts: tuple[Chart, ...] = ()
    try:
        charts = draw_charts(report, records)
    except ConfigError as exc:
        missing = str(exc)
    headline, reasons = _verdict(report)
    last = slowest(records)
    values = {
        "title": report.title,
        "simulated": report.simulated,
        "subtitle": _subtitle(report),
        "headline": headline,
        "reasons": reasons,
        "verdict_class": _verdict_class(report),
        "tiles": list(_tiles(report)),
        "charts": charts,
        "missing_charts": missing,
        "report": report,
        "strip_pictures": [
            picture
            for image in strip(records)
            if (picture := pictures.get(image.job_id or "")) and picture.source
        ],
        "pictures": pictures,
        "has_series": len({stage.series for stage in report.stages}) > 1,
        "series_head": "Account" if any(stage.account for stage in report.stages) else "Model",
        "latency_unit": unit_of(
            stage.latency[name] for stage in report.stages for name in ("p50", "p95", "p99")
        ),
        "time_rows": _time_rows,
        "slowest": last,
        "slowest_units": {
            part: unit_of(getattr(image, part) for image in last) for part in ("latency", *PARTS)
        },
        "stage_label": lambda image: _label(report, image.stage),
        "environment": list(_environment(report)),
        "parts": PARTS,
        "percentile_names": tuple(PERCENTILES),
        "markdown": list(_markdown(report)),
    }
    return page_parts.rendered(__package__, "template.html", values)


def read_records(report: Report) -> list[ImageRecord]:
    """Return the records that a page is made of; none if there is no file."""
    try:
        return [one for one, _ in zip(report.records(), range(_MOST_READ), strict=False)]
    except OSError:
        return []


def _verdict(report: Report) -> tuple[str, list[str]]:
    """Return the first sentence of the verdict, and what explains it."""
    headline, end, rest = (report.verdict or "No verdict.").partition(". ")
    return headline + end.rstrip(), [text for text in (rest, report.knee_why, report.note) if text]


def _markdown(report: Report) -> Iterator[str]:
    """Yield the lines of the same figures as Markdown."""
    headline, reasons = _verdict(report)
    yield from markdown.heading(report.title)
    yield from markdown.paragraph(_subtitle(report))
    for text in (headline, *reasons):
        yield from markdown.paragraph(text)
    if report.simulated:
        yield from markdown.paragraph("Simulated: nothing was paid.")
    heads = ("Load", "Model", "Images/min", "p50", "p95", "p99", "Saved", "Not saved", "$/1,000")
    rows = (
        (
            stage.label,
            stage.series,
            f"{amount(stage.images_per_minute)}{' (few images)' if stage.has_few_images else ''}",
            *(seconds(stage.latency[name]) for name in ("p50", "p95", "p99")),
            f"{stage.images:,}",
            f"{stage.attempts - stage.images:,}",
            dollars(stage.cost_per_1000, 2),
        )
        for stage in report.stages
    )
    yield from markdown.table(heads, rows)
    yield from (f"- {markdown.escaped(f'{name}: {text}')}" for name, text in _environment(report))


def _subtitle(report: Report) -> str:
    origin = ", ".join(
        str(report.environment[name])
        for name in ("provider", "origin")
        if report.environment.get(name)
    )
    return " · ".join(filter(None, (_when(report.began), origin)))


def _when(began: str) -> str:
    try:
        return f"{datetime.fromisoformat(began).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return began


def _verdict_class(report: Report) -> str:
    """Return "" (green) only for a run without outages in which every series has a throughput."""
    if report.is_machine_slow or not any(stage.images for stage in report.stages):
        return " bad"
    series = {stage.series for stage in report.stages}
    reliable = {s.series for s in report.stages if s.images and not s.has_few_images}
    return "" if series == reliable and is_sound(report.stages) else " unsure"


def _tiles(report: Report) -> Iterator[dict[str, Any]]:
    """The arguments of the template's `tile`: the figures to remember."""
    measured = [stage for stage in report.stages if stage.images]
    if not measured:
        return
    reliable = [stage for stage in measured if not stage.has_few_images]
    best = max(reliable or measured, key=lambda stage: stage.images_per_minute)
    chosen = next((stage for stage in measured if report.saturates_at(stage)), best)
    where, latency = _name(chosen, report), chosen.latency
    rate = f"{amount(best.images_per_minute)} / min"
    yield _tile("Max throughput", rate, _name(best, report), is_few=not reliable)
    yield _tile("Median latency", seconds(latency["p50"]), where, is_few=latency.is_few("p50"))
    yield _tile("p95 latency", seconds(latency["p95"]), where, is_few=latency.is_few("p95"))
    per_image = "unknown" if chosen.cost_per_image is None else dollars(chosen.cost_per_image)
    yield _tile("Cost per image", per_image, where)
    images, stages = sum(stage.images for stage in report.stages), len(report.stages)
    yield _tile("Images measured", f"{images:,}", counted(stages, "stage"))
    unpriced = f" and {report.unpriced} of unknown price" if report.unpriced else ""
    if report.simulated:
        detail = f"simulated; ${report.spent:.2f} at list price"
        yield _tile("Spent", "$0.00", f"{detail}{unpriced}")
    else:
        yield _tile("Spent", f"${report.spent:.2f}", f"warm-up included{unpriced}")


def _tile(name: str, text: str, detail: str, *, is_few: bool = False) -> dict[str, Any]:
    return {"name": name, "text": text, "detail": detail, "is_few": is_few}


def _name(stage: Stage, report: Report) -> str:
    is_one = len({other.series for other in report.stages}) == 1
    return stage.label if is_one else f"{stage.label}, {stage.series}"


def _label(report: Report, number: int) -> str:
    return report.stages[number].label if 0 <= number < len(report.stages) else DASH


def _time_rows(stage: Stage) -> Iterator[tuple[str, Distribution, TimeUnit]]:
    """Yield the name, the statistics and the unit of an image's time and of each part of it."""
    named = {"latency": stage.latency} | {
        part.replace("_", " "): stage.parts[part] for part in PARTS if part in stage.parts
    }
    for name, times in named.items():
        yield name, times, unit_of([times.maximum])


def _environment(report: Report) -> Iterator[tuple[str, str]]:
    yield from _flat(report.environment)
    if report.clock_skew is not None:
        known = report.clock_uncertainty
        uncertainty = "" if known is None else f" ± {amount(1000 * known)}"
        yield "server's clock ahead by", f"{amount(1000 * report.clock_skew)}{uncertainty} ms"


def _flat(known: Mapping[str, Any], lead: str = "") -> Iterator[tuple[str, str]]:
    for name, value in known.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{lead}{name} · ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if value:
                yield f"{lead}{name}", ", ".join(map(str, value))
        elif value not in (None, ""):
            yield f"{lead}{name}", str(value)
