"""report.html: one page that contains all it shows and runs no script.

Texts from outside (titles, model names, errors, the environment) are made inert and escaped in one
place, the template's environment. A content policy forbids scripts and requests as well.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from heapq import nlargest
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._core.errors import ConfigError
from ..._core.extras import install_command
from ..._core.text import counted
from ..._store.files import create_own
from ..bottleneck import is_sound
from ..records import PAGE_NAME, PARTS, PERCENTILES, Distribution, ImageRecord, Report, Stage
from .charts import draw_charts
from .drawing import Chart
from .formatting import DASH, amount, data_size, dollars, inert, percent, seconds

if TYPE_CHECKING:
    from jinja2 import Template

_SLOWEST = 10
#: most records that are read for the page: the page of a million images must not take minutes
_MOST_READ = 200_000


def write_page(report: Report) -> Path:
    """Write report.html into the report's folder and return its path.

    Without matplotlib the page has no charts and names the command that installs it. Raises
    ConfigError when jinja2 is missing or the report has no folder, OSError when the page cannot be
    written.
    """
    if report.folder is None:
        raise ConfigError("the report has no folder: load it with fluxasync.bench.load(folder)")
    text = page(report, _records(report))
    path = report.folder / PAGE_NAME
    part = path.with_name(f".{PAGE_NAME}.{os.getpid()}")
    try:
        with create_own(part, mode=0o666) as file:
            file.write(text.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def page(report: Report, records: Sequence[ImageRecord] = ()) -> str:
    """Return the page as text; `records` are for the charts of single images and the slowest."""
    template, missing = _template(), ""
    charts: tuple[Chart, ...] = ()
    try:
        charts = draw_charts(report, records)
    except ConfigError as exc:
        missing = str(exc)
    style = _file("style.css")
    measured = [image for image in records if image.latency is not None and not image.warm_up]
    return template.render(
        report=report,
        style=_trusted(style),
        policy=_policy(style),
        subtitle=_subtitle(report),
        verdict_class=_verdict_class(report),
        tiles=list(_tiles(report)),
        charts=charts,
        missing_charts=missing,
        has_series=len({stage.series for stage in report.stages}) > 1,
        series_head="Account" if any(stage.account for stage in report.stages) else "Model",
        time_rows=_time_rows,
        slowest=nlargest(_SLOWEST, measured, key=lambda image: image.latency or 0.0),
        stage_label=lambda image: _label(report, image.stage),
        environment=list(_environment(report)),
        parts=PARTS,
        percentile_names=tuple(PERCENTILES),
    )


def _template() -> Template:
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise ConfigError(f"report.html needs jinja2: {install_command('bench')}") from None

    def finalize(value: object) -> object:
        return value if isinstance(value, Markup) else inert(value)

    environment = Environment(
        autoescape=True, finalize=finalize, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "amount": amount, "seconds": seconds, "percent": percent, "dollars": dollars,
        "data_size": data_size, "cut": inert,
    }  # fmt: skip
    environment.globals |= {"dash": DASH, "nbsp": Markup("&nbsp;")}
    return environment.from_string(_file("template.html"))


def _trusted(text: str) -> object:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 — our own file


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _policy(style: str) -> str:
    """Allow the page's own style sheet, by its hash, and images inside the page; nothing else."""
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _records(report: Report) -> list[ImageRecord]:
    try:
        return [one for one, _ in zip(report.records(), range(_MOST_READ), strict=False)]
    except OSError:
        return []


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


def _time_rows(stage: Stage) -> Iterator[tuple[str, Distribution]]:
    yield "latency", stage.latency
    yield from ((p.replace("_", " "), stage.parts[p]) for p in PARTS if p in stage.parts)


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
