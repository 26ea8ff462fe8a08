"""report.html in a real browser: it shows what it should, fits its window, and runs nothing."""

from __future__ import annotations

import io

import pytest
from attrs import evolve
from support import bench_samples as benches
from support import hostile_text as evil
from support.browser_tab import browser

from fluxasync.bench.report.html_report import write_page

pytest.importorskip("matplotlib", reason="the extra bench is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

#: of every picture: is it seen, how wide it is, how small its smallest letters are
PICTURES = """[...document.querySelectorAll("svg.plot")].map(svg => ({
    kind: svg.classList[1],
    width: svg.getBoundingClientRect().width,
    letters: Math.min(...[...svg.querySelectorAll("text")].map(
        text => parseFloat(getComputedStyle(text).fontSize)
                * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)),
}))"""
#: lightness, 0 to 1, of the letters of a picture and of what they stand on
INK = 'getComputedStyle(document.querySelector("svg.plot .f-ink")).fill'
GROUND = 'getComputedStyle(document.querySelector(".card")).backgroundColor'
OVERLAPS = """[...document.querySelectorAll("svg.plot")].flatMap(svg => {
    const boxes = [...svg.querySelectorAll("text")].map(text => text.getBoundingClientRect());
    const outer = svg.getBoundingClientRect();
    return boxes.filter(box => box.width && (
        box.left < outer.left - 1 || box.right > outer.right + 1
        || boxes.some(other => other !== box && box.left < other.right - 1
            && other.left < box.right - 1 && box.top < other.bottom - 3
            && other.top < box.bottom - 3)));
}).length"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page with all there is."""
    return write_page(benches.report(folder=tmp_path_factory.mktemp("report")))


@pytest.mark.parametrize("dark", [False, True], ids=["day", "night"])
@pytest.mark.parametrize(("width", "kind"), [(390, "narrow"), (1400, "wide")])
async def test_the_page_fits_its_window_and_can_be_read(path, width, kind, dark):
    """No sideways scrolling; each picture once, its letters large enough, none over another, and
    dark on light or light on dark."""
    async with browser() as tab:
        await tab.open(path, width=width, dark=dark)
        assert await tab.value("document.documentElement.scrollWidth") <= width
        seen = [one for one in await tab.value(PICTURES) if one["width"]]
        assert [kind] * 6 == [one["kind"] for one in seen]
        assert min(one["letters"] for one in seen) >= 10
        assert await tab.value(OVERLAPS) == 0
        ink, ground = _lightness(await tab.value(INK)), _lightness(await tab.value(GROUND))
        assert (ink > 0.8 and ground < 0.2) if dark else (ink < 0.2 and ground > 0.8)
        assert _requests(tab) == [path.as_uri()]
        assert not tab.told("Log.entryAdded")


async def test_a_picture_is_painted(path):
    """What reaches the screen has the colours of the lines, not only of paper and ink."""
    image = pytest.importorskip("PIL.Image", reason="the extra image is not installed")
    async with browser() as tab:
        await tab.open(path, width=1400)
        shot = image.open(io.BytesIO(await tab.picture())).convert("RGB")
    blue = sum(n for n, colour in shot.getcolors(1 << 24) if colour == (0x0B, 0x63, 0xC5))
    assert blue > 1000


async def test_hostile_texts_run_nothing_in_a_browser(tmp_path):
    """The whole corpus at once, in every place: no script, no request, no broken policy."""
    report = benches.report(loads=[4] * len(evil.CORPUS), images=6, folder=tmp_path)
    stages = tuple(
        evolve(stage, label=text, model=text, outcomes={text: 6})
        for stage, text in zip(report.stages, evil.CORPUS, strict=True)
    )
    environment = dict(zip(evil.CORPUS, reversed(evil.CORPUS), strict=True))
    everything = " ".join(evil.CORPUS)
    hostile = evolve(
        report, stages=stages, title=everything, verdict=everything, knee_why=everything,
        note=everything, began=everything, environment=environment,
    )  # fmt: skip
    benches.write_records(
        [
            evolve(one, job_id=text)
            for one, text in zip(report.records(), evil.CORPUS, strict=False)
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
        assert _requests(tab) == [page.as_uri()]
        assert not tab.told("Log.entryAdded")
        assert not tab.told("Page.javascriptDialogOpening")


def _requests(tab):
    return [told["request"]["url"] for told in tab.told("Network.requestWillBeSent")]


def _lightness(colour):
    channels = colour[colour.index("(") + 1 : -1].split(",")[:3]
    return sum(float(channel) for channel in channels) / 3 / 255
