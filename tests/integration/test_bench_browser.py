"""report.html in a real browser: it fits the window, can be read, and runs nothing."""

from __future__ import annotations

import io
from base64 import b64decode

import pytest
from attrs import evolve
from support import bench_samples, hostile_text
from support.browser_tab import browser

from fluxasync.bench.report.html_report import write_page

pytest.importorskip("jinja2", reason="the extra bench is not installed")
pytest.importorskip("matplotlib", reason="the extra bench is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

CHARTS = """[...document.querySelectorAll("figure img")].map(img => ({
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
INK = "getComputedStyle(document.body).color"
GROUND = 'getComputedStyle(document.querySelector(".card")).backgroundColor'
#: what is behind the letters of a chart, which are dark in both modes
CHART_GROUND = 'getComputedStyle(document.querySelector("figure img")).backgroundColor'


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page with every part."""
    return write_page(bench_samples.report(folder=tmp_path_factory.mktemp("report")))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
async def test_the_page_fits_its_window_and_can_be_read(path, tmp_path, width, dark):
    """Nothing scrolls sideways; each chart is shown, with letters of at least 10 pixels, none over
    another, dark on a light ground; the page's text contrasts with its ground."""
    async with browser() as tab:
        await tab.open(path, width=width, dark=dark)
        assert await tab.value("document.documentElement.scrollWidth") <= width
        charts = await tab.value(CHARTS)
        assert len(charts) == 6
        assert all(chart["loaded"] for chart in charts)
        ink, ground = _lightness(await tab.value(INK)), _lightness(await tab.value(GROUND))
        assert (ink > 0.8 and ground < 0.2) if dark else (ink < 0.2 and ground > 0.8)
        assert _lightness(await tab.value(CHART_GROUND)) > 0.8
        assert [path.as_uri()] == [url for url in _requests(tab) if not url.startswith("data:")]
        assert not tab.told("Log.entryAdded")
        for chart in charts:
            tab.events.clear()  # so that `open` waits for the chart
            await tab.open(_saved(chart["source"], tmp_path), width=width)
            assert 10 <= await tab.value(LETTERS) * chart["width"] / chart["natural"] < 30
            assert await tab.value(OVERLAPS) == 0


async def test_a_chart_is_painted(path):
    """The screen shows the colours of the lines, not only paper and ink."""
    image = pytest.importorskip("PIL.Image", reason="the extra image is not installed")
    async with browser() as tab:
        await tab.open(path, width=1400)
        shot = image.open(io.BytesIO(await tab.picture())).convert("RGB")
    blue = sum(n for n, colour in shot.getcolors(1 << 24) if colour == (0x0B, 0x63, 0xC5))
    assert blue > 1000


async def test_hostile_texts_run_nothing_in_a_browser(tmp_path):
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
    async with browser() as tab:
        await tab.open(page, width=390)
        assert await tab.value("typeof window.owned") == "undefined"
        assert await tab.value("document.scripts.length") == 0
        assert await tab.value("document.querySelectorAll('main .card').length") > 20
        assert await tab.value("document.documentElement.scrollWidth") <= 390
        assert [page.as_uri()] == [url for url in _requests(tab) if not url.startswith("data:")]
        assert not tab.told("Log.entryAdded")
        assert not tab.told("Page.javascriptDialogOpening")


def _saved(source, folder):
    """The chart of a data URL as a file of its own."""
    path = folder / "chart.svg"
    path.write_bytes(b64decode(source.partition("base64,")[2]))
    return path


def _requests(tab):
    return [event["request"]["url"] for event in tab.told("Network.requestWillBeSent")]


def _lightness(colour):
    channels = colour[colour.index("(") + 1 : -1].split(",")[:3]
    return sum(float(channel) for channel in channels) / 3 / 255
