"""report.html: one page that holds all it shows, and runs nothing.

The verdict first, then pictures, then every number with its unit. Whatever came from outside
(titles, model names, errors, the environment) passes `shown`, which leaves it inert; and the page
forbids itself scripts, requests and styles other than its own, should that ever fail.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from heapq import nlargest
from pathlib import Path

from ..._core.errors import ConfigError
from ..._store.files import create_own
from ..bottleneck import is_sound
from ..records import PAGE_NAME, ImageRecord, Report, Stage
from .canvas import Plot
from .charts import is_few, is_knee, plots
from .html_tables import (
    WORDS,
    amount,
    environment,
    seconds,
    shown,
    slowest,
    stage_details,
    stage_table,
)
from .style import sheet

_SLOWEST = 10
#: images that are read for the page at most: a page of a million must not take minutes
_READ = 200_000


def write_page(report: Report) -> Path:
    """Write report.html into the report's folder and return its path.

    Without matplotlib the page has no pictures and says how to have them. Raises ConfigError for a
    report that lies in no folder, OSError when it cannot be written.
    """
    if report.folder is None:
        raise ConfigError("the report lies in no folder: load it with fluxasync.bench.load(folder)")
    path = report.folder / PAGE_NAME
    part = path.with_name(f".{PAGE_NAME}.{os.getpid()}")
    try:
        with create_own(part, mode=0o666) as file:
            file.write(page(report, _records(report)).encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def page(report: Report, records: Sequence[ImageRecord] = ()) -> str:
    """Return the page as text; `records` are for the plot of every image and the slowest ones."""
    missing = ""
    drawn: tuple[Plot, ...] = ()
    try:
        drawn = plots(report, records)
    except ConfigError as exc:
        missing = str(exc)
    style = sheet()
    body = "\n".join(_body(report, records, drawn, missing))
    return _FRAME.format(title=shown(report.title), policy=_policy(style), style=style, body=body)


_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _policy(style: str) -> str:
    """Nothing but the one style sheet, told by its fingerprint."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _records(report: Report) -> list[ImageRecord]:
    try:
        return [one for one, _ in zip(report.records(), range(_READ), strict=False)]
    except OSError:
        return []


def _body(
    report: Report, records: Sequence[ImageRecord], drawn: Sequence[Plot], missing: str
) -> Iterator[str]:
    yield from _head(report)
    yield from _tiles(report)
    if drawn:
        yield '<h2>In pictures</h2>\n<div class="plots">'
        yield from map(_figure, drawn)
        yield "</div>"
    elif missing:
        yield f'<p class="card quiet">No pictures: {shown(missing)}</p>'
    yield "<h2>Stages</h2>"
    if not report.stages:
        yield "<p>Nothing was measured.</p>"
    else:
        yield stage_table(report)
        yield "<h2>Each stage in numbers</h2>"
        is_short = len(report.stages) <= 2
        for stage in report.stages:
            yield stage_details(stage, is_open=is_short or is_knee(stage, report))
    saved = [one for one in records if one.latency is not None and not one.warm_up]
    if saved:
        yield f"<h2>The {min(_SLOWEST, len(saved))} slowest images</h2>"
        yield slowest(nlargest(_SLOWEST, saved, key=lambda one: one.latency or 0.0), report)
    yield "<h2>Measured with</h2>"
    yield environment(report)
    yield "<h2>What the words mean</h2>"
    yield WORDS


def _head(report: Report) -> Iterator[str]:
    badge = ' <span class="badge">simulated</span>' if report.simulated else ""
    yield f"<header><h1>{shown(report.title)}{badge}</h1>"
    origin = ", ".join(
        str(report.environment[name])
        for name in ("provider", "origin")
        if report.environment.get(name)
    )
    where = " · ".join(filter(None, (_when(report.began), origin)))
    yield f'<p class="quiet">{shown(where)}</p>'
    yield "</header>"
    yield f'<section class="card verdict{_colour(report)}">'
    yield f"<p>{shown(report.verdict or 'No verdict.')}</p>"
    if report.knee_why:
        yield f"<p>{shown(report.knee_why)}</p>"
    if report.note:
        yield f"<p><b>{shown(report.note)}</b></p>"
    if report.simulated:
        yield (
            '<p class="quiet">Simulated: this tells how fast this machine and this library are. It '
            "tells nothing about a real service, and nothing was paid.</p>"
        )
    yield "</section>"


def _colour(report: Report) -> str:
    """Green is for a run in which all went well and every model has a pace."""
    if report.is_machine_slow or not any(stage.images for stage in report.stages):
        return " bad"
    models = {stage.model for stage in report.stages}
    told = {one.model for one in report.stages if one.images and not one.has_few_images}
    return "" if models == told and is_sound(report.stages) else " unsure"


def _when(began: str) -> str:
    try:
        return f"{datetime.fromisoformat(began).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return began


def _tiles(report: Report) -> Iterator[str]:
    measured = [stage for stage in report.stages if stage.images]
    if not measured:
        return
    told = [stage for stage in measured if not stage.has_few_images]
    best = max(told or measured, key=lambda stage: stage.images_per_minute)
    chosen = next((stage for stage in measured if is_knee(stage, report)), best)
    per_image = "unknown" if chosen.cost_per_image is None else f"${chosen.cost_per_image:.4f}"
    unpriced = f" and {report.unpriced} of unknown price" if report.unpriced else ""
    images = sum(stage.images for stage in report.stages)
    stages = len(report.stages)
    spent, of_what = f"${report.spent:.2f}", "warm-up included"
    if report.simulated:
        spent, of_what = "$0.00", f"simulated; {spent} by the catalogue"
    few = {name: is_few(chosen.latency, name) for name in ("p50", "p95")}
    rows = (
        ("Fastest", f"{amount(best.images_per_minute)} / min", _of(best, report), not told),
        ("Median latency", seconds(chosen.latency["p50"]), _of(chosen, report), few["p50"]),
        ("p95 latency", seconds(chosen.latency["p95"]), _of(chosen, report), few["p95"]),
        ("Per image", per_image, _of(chosen, report), False),
        ("Images measured", f"{images:,}", f"{stages} stage{'' if stages == 1 else 's'}", False),
        ("Spent", spent, of_what + unpriced, False),
    )
    yield '<dl class="tiles">'
    for name, figure, where, is_grey in rows:
        mark, more = (" few", "; too few images to tell") if is_grey else ("", "")
        yield (
            f'<div class="card"><dt>{name}</dt><dd class="figure{mark}">{shown(figure)}</dd>'
            f'<dd class="quiet small">{shown(where + more)}</dd></div>'
        )
    yield "</dl>"


def _of(stage: Stage, report: Report) -> str:
    is_one = len({other.model for other in report.stages}) == 1
    return stage.label if is_one else f"{stage.label}, {stage.model}"


def _figure(plot: Plot) -> str:
    if not plot.svg:
        return f'<div class="card"><h3>{shown(plot.title)}</h3><p>{shown(plot.caption)}</p></div>'
    return (
        f'<div class="card"><h3>{shown(plot.title)}</h3><figure>{plot.svg}'
        f"<figcaption>{shown(plot.caption)}</figcaption></figure></div>"
    )
