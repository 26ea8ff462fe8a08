"""Pages of figures in a real browser: they fit, can be read, and run only their own script."""

from __future__ import annotations

import asyncio
import io
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from attrs import evolve
from support import bench_samples, hostile_text, mixed_runs
from support.browser import Browser, browser

from fluxasync._report.run_page import RunPage
from fluxasync._store.audit.run_figures import read_figures
from fluxasync.bench.report.html_report import write_page

pytest.importorskip("jinja2", reason="the extra bench is not installed")
pytest.importorskip("matplotlib", reason="the extra bench is not installed")

pytestmark = pytest.mark.slow

CHARTS = """[...document.querySelectorAll(".chart img")].map(img => ({
    source: img.src,
    loaded: img.complete && img.naturalWidth > 0,
    width: img.getBoundingClientRect().width,
    natural: img.naturalWidth,
}))"""
#: in a chart opened on its own: the smallest letters in pixels, and texts that overlap or are cut
LETTERS = """Math.min(...[...document.querySelectorAll("text")].map(
    text => parseFloat(getComputedStyle(text).fontSize)
            * document.documentElement.getBoundingClientRect().width
            / document.documentElement.viewBox.baseVal.width))"""
OVERLAPS = """(() => {
    const boxes = [...document.querySelectorAll("text")].map(text => text.getBoundingClientRect());
    const outer = document.documentElement.getBoundingClientRect();
    return boxes.filter(box => box.width && (
        box.left < outer.left - 1 || box.right > outer.right + 1
        || boxes.some(other => other !== box && box.left < other.right - 1
            && other.left < box.right - 1 && box.top < other.bottom - 3
            && other.top < box.bottom - 3))).length;
})()"""
#: in the chart of throughput: the text of what is met in the middle of each area
MET_OVER_AREAS = """(() => {
    const card = [...document.querySelectorAll(".card")].find(
        card => card.querySelector("h3")?.textContent === "Throughput by load");
    card.scrollIntoView();
    return [...card.querySelectorAll("rect")].map(rect => {
        const box = rect.getBoundingClientRect();
        const met = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
        return met.querySelector("title")?.textContent;
    });
})()"""
INK = "getComputedStyle(document.body).color"
GROUND = 'getComputedStyle(document.querySelector(".card")).backgroundColor'
#: what is behind the letters of a chart, which are dark in both modes
CHART_GROUND = 'getComputedStyle(document.querySelector(".chart img")).backgroundColor'


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page with every part."""
    return write_page(bench_samples.report(folder=tmp_path_factory.mktemp("report")))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_fits_its_window_and_can_be_read(window, path, tmp_path, width, dark):
    """Nothing scrolls sideways; each chart is shown, with letters of at least 10 pixels, none over
    another, dark on a light ground; the page's text contrasts with its ground."""
    window.open(path.as_uri(), wide=width, dark=dark)
    assert window.run("document.documentElement.scrollWidth") <= width
    charts = window.run(CHARTS)
    assert len(charts) == 6
    assert all(chart["loaded"] for chart in charts)
    ink, ground = _lightness(window.run(INK)), _lightness(window.run(GROUND))
    assert (ink > 0.8 and ground < 0.2) if dark else (ink < 0.2 and ground > 0.8)
    assert _lightness(window.run(CHART_GROUND)) > 0.8
    assert [path.as_uri()] == _requests(window.events())
    assert window.console() == []
    for chart in charts:
        window.open(_saved(chart["source"], tmp_path).as_uri(), wide=width)
        assert 10 <= window.run(LETTERS) * chart["width"] / chart["natural"] < 30
        assert window.run(OVERLAPS) == 0


@pytest.mark.parametrize("width", [390, 1400, 2560])
def test_the_report_of_a_run_fits_its_window(window, tmp_path, width):
    """The page of a run has the same frame: nothing scrolls sideways, no error, no request."""
    asyncio.run(mixed_runs.write_run(tmp_path, [mixed_runs.Row(end=e) for e in mixed_runs.ENDS]))
    page = tmp_path / "report.html"
    shown = RunPage(read_figures(tmp_path), "images", {}, datetime.now(UTC))
    page.write_text(shown.text(), encoding="utf-8")
    window.open(page.as_uri(), wide=width, dark=True)
    assert window.run("document.documentElement.scrollWidth") <= width
    assert all(chart["loaded"] for chart in window.run(CHARTS))
    assert [page.as_uri()] == _requests(window.events())
    assert window.console() == []


def test_a_chart_is_painted(window, path):
    """The screen shows the colours of the lines, not only paper and ink."""
    image = pytest.importorskip("PIL.Image", reason="the extra image is not installed")
    window.open(path.as_uri(), wide=1400)
    shot = image.open(io.BytesIO(window.screenshot())).convert("RGB")
    blue = sum(n for n, colour in shot.getcolors(1 << 24) if colour == (0x0B, 0x63, 0xC5))
    assert blue > 1000


def test_the_button_copies_the_figures_as_markdown(window, path):
    """From file:// the clipboard gets the table; a click is enough."""
    window.allow_clipboard()
    window.open(path.as_uri())
    window.click("#copy")
    assert window.until("document.getElementById('copy').textContent === 'Copied'")
    copied = window.clipboard()
    assert window.run("document.getElementById('markdown').textContent") == copied
    assert "| 12 in flight | flux-dev | " in copied
    assert window.console() == []


def test_a_point_of_a_chart_tells_its_number_under_the_pointer(window, path):
    """What the pointer meets over each point of the throughput is that point's text, also where
    the chart is scaled down."""
    for width in (390, 1400):
        window.open(path.as_uri(), wide=width)
        met = window.run(MET_OVER_AREAS)
        assert len(met) == 4
        assert all(text.endswith("images per minute") for text in met)
        assert len(set(met)) == 4


def test_hostile_texts_run_nothing_in_a_browser(window, tmp_path):
    """The whole corpus in every place: no script, no request, no violation of the policy."""
    report = bench_samples.report(loads=[4] * len(hostile_text.CORPUS), images=6, folder=tmp_path)
    stages = tuple(
        evolve(stage, label=text, model=text, outcomes={text: 6})
        for stage, text in zip(report.stages, hostile_text.CORPUS, strict=True)
    )
    environment = dict(zip(hostile_text.CORPUS, reversed(hostile_text.CORPUS), strict=True))
    everything = " ".join(hostile_text.CORPUS)
    hostile = evolve(
        report, stages=stages, title=everything, verdict=everything, knee_why=everything,
        note=everything, began=everything, environment=environment,
    )  # fmt: skip
    bench_samples.write_records(
        [
            evolve(one, job_id=text)
            for one, text in zip(report.records(), hostile_text.CORPUS, strict=False)
        ],
        tmp_path,
    )
    page = write_page(hostile)
    window.open(page.as_uri(), wide=390)
    assert window.run("typeof window.owned") == "undefined"
    assert window.run("document.scripts.length") == 1
    assert window.run("document.querySelectorAll('main .card').length") > 20
    assert window.run("document.documentElement.scrollWidth") <= 390
    assert window.console() == []
    events = window.events()
    assert [page.as_uri()] == _requests(events)
    assert "Page.javascriptDialogOpening" not in dict(events)


def _saved(source, folder):
    """Write the chart of a data URL to a file."""
    path = folder / "chart.svg"
    path.write_bytes(b64decode(source.partition("base64,")[2]))
    return path


def _requests(events):
    sent = [event for method, event in events if method == "Network.requestWillBeSent"]
    urls = [event["request"]["url"] for event in sent]
    return [url for url in urls if not url.startswith("data:")]


def _lightness(colour):
    channels = colour[colour.index("(") + 1 : -1].split(",")[:3]
    return sum(float(channel) for channel in channels) / 3 / 255
