"""report.html: complete, inert, and true to the report's numbers."""

from __future__ import annotations

import builtins
import hashlib
import html
import re
from base64 import b64encode
from decimal import Decimal
from xml.etree import ElementTree

import pytest
from attrs import evolve
from support import bench_samples, gallery_folders, hostile_text
from support.page_tree import CHART, SVG_TAGS, TAGS, Tree

from fluxasync import ConfigError
from fluxasync._core.extras import install_command
from fluxasync._report.formatting import amount, seconds
from fluxasync.bench import SlotSample
from fluxasync.bench.report.charts import draw_charts
from fluxasync.bench.report.html_report import page, write_page
from fluxasync.bench.report.image_selection import SLOWEST, STRIP
from fluxasync.bench.report.shown_images import shown_images

pytest.importorskip("jinja2", reason="the extra bench is not installed")
pytest.importorskip("matplotlib", reason="the extra bench is not installed")

pytestmark = pytest.mark.slow  # a page has half a dozen drawings


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A report with every part, and its page."""
    report = bench_samples.report(folder=tmp_path_factory.mktemp("report"))
    return report, write_page(report).read_text(encoding="utf-8")


def hostile_report(texts, **changed):
    """A report with each of the texts in every place for text."""
    every, loads = "".join(texts), tuple(range(1, len(texts) + 1))
    made = bench_samples.report(loads=loads, images=12, title=every, verdict=every, **changed)
    stages = tuple(
        evolve(stage, label=f"{text}{number}", model=text, outcomes={"saved": 11, text: 1})
        for number, (stage, text) in enumerate(zip(made.stages, texts, strict=True))
    )
    images = [
        evolve(one, job_id=text, model=text) for text in texts for one in bench_samples.records(2)
    ]
    environment = {text: text for text in texts}
    environment |= {"origin": every, "options": {text: [text, {text: text}] for text in texts}}
    return evolve(
        made, stages=stages, began=every, knee=stages[0].label, knee_why=every, note=every,
        environment=environment,
    ), images  # fmt: skip


def test_the_page_requests_nothing_and_runs_one_script(drawn):
    """No link, no style attribute, no other address, and only the script that copies."""
    tree = Tree(drawn[1])
    assert tree.tags <= TAGS
    assert all(link.startswith(CHART) for link in tree.links)
    assert not {name for name in tree.attributes if name.startswith("on") or name == "style"}
    assert "http" not in drawn[1].replace("http-equiv", "").replace("https://api.example.com", "")
    assert drawn[1].count("<script") == 1


def test_the_policy_allows_only_the_style_sheet_the_script_and_inline_images(drawn):
    """The hashes in the policy are those of the page's own parts; images come from data URLs."""
    hashes = {}
    for part in ("style", "script"):
        text = re.search(f"<{part}>(.*?)</{part}>", drawn[1], re.DOTALL)
        assert text is not None
        digest = b64encode(hashlib.sha256(text[1].encode()).digest()).decode()
        hashes[part] = f"{part}-src 'sha256-{digest}'; "
    policy = f"default-src 'none'; {hashes['style']}{hashes['script']}img-src data:; base-uri"
    assert html.escape(policy).replace("&#x27;", "&#39;") in drawn[1]


def test_each_chart_is_drawn_once_and_described(drawn):
    """Every chart is one image whose alternative text has the numbers in words."""
    charts = Tree(drawn[1]).charts
    assert list(charts) == [
        "Latency by load", "Throughput by load", "Time breakdown", "Slots over time",
        "Latency distribution", "Each image",
    ]  # fmt: skip
    p50 = drawn[0].stages[0].latency["p50"]
    assert charts["Latency by load"].startswith(f"1 in flight: median {amount(p50)} s")
    assert all(charts.values())


def test_a_chart_is_an_image_of_shapes_and_text(drawn):
    """A chart has no script, no external link and no background."""
    for svg in Tree(drawn[1]).svgs():
        tree = Tree(svg)
        assert tree.tags <= SVG_TAGS
        assert all(link.startswith("#") for link in tree.links)
        assert "prefers-color-scheme" not in svg


def test_the_numbers_are_on_the_page(drawn):
    """Verdict, saturation point, throughput and latency of each stage, environment."""
    report, words = drawn[0], "\n".join(Tree(drawn[1]).words)
    for stage in report.stages:
        assert amount(stage.images_per_minute) in words
        assert amount(stage.latency["p95"]) in words
    for text in (report.verdict, report.knee_why, "uvloop", "12 in flight ◂ saturation"):
        assert text in words


def test_a_simulated_run_cost_nothing():
    """The catalogue's price is shown beside it; empty settings are omitted."""
    made = bench_samples.report(loads=(4,), images=12, simulated=True, spent=Decimal("2.22"))
    made = evolve(made, environment={"options": {"rate": [], "title": "", "seed": 0}})
    words = "\n".join(Tree(page(made)).words)
    assert "Spent\n$0.00\nsimulated; $2.22 at list price" in words
    assert "\n1 stage\n" in words
    assert "seed" in words
    assert "rate" not in words.split("Environment")[1].split("Glossary")[0]


def test_a_ramp_shows_offered_and_completed_load_over_time():
    """A ramp is a single load, so its charts have a time axis."""
    report = bench_samples.report(loads=(4,), images=48)
    ramp = evolve(report.stages[0], label="ramp", rate=1.0, rate_to=4.0)
    images = [
        evolve(one, intended_at=number / 4, stored_at=number / 2 + 1)
        for number, one in enumerate(bench_samples.records(48))
    ]
    charts = Tree(page(evolve(report, stages=(ramp,), knee=None), images)).charts
    assert charts["Offered and completed load"] == (
        "offered load from 1 to 4 images per second; at most 2.2 per second were completed"
    )
    assert "Latency by load" not in charts


def test_the_same_report_gives_the_same_page():
    """The page depends on neither the time nor a random number."""
    report = bench_samples.report(loads=(4,), images=12, slots=())
    assert page(report) == page(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    "texts", [hostile_text.CORPUS[at::3] for at in range(3)], ids=["one", "two", "three"]
)
def test_hostile_text_stays_text(texts):
    """No title, label, model, cause, job id or setting adds a tag or an attribute."""
    made = page(*hostile_report(texts))
    made.encode("utf-8")
    tree = Tree(made)
    assert tree.tags <= TAGS
    assert all(link.startswith(CHART) for link in tree.links)
    assert not {name for name in tree.attributes if name.startswith("on") or name == "style"}
    unsafe = "[\x00-\x08\x0b\x1b\x7f-\x9f\u202e\u2066\ufffe\uffff]"
    assert not re.search(unsafe, made)
    for svg in tree.svgs():
        ElementTree.fromstring(svg)  # noqa: S314 — drawn by this package
        inside = Tree(svg)
        assert inside.tags <= SVG_TAGS
        assert all(link.startswith("#") for link in inside.links)
        assert not {name for name in inside.attributes if name.startswith("on")}
        assert not re.search(unsafe, svg)


def hide(package, monkeypatch):
    """Let imports of the package fail, as if it were not installed."""
    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith(package):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


def test_without_jinja2_the_error_names_the_install_command(tmp_path, monkeypatch):
    """No half-written page is left."""
    report = bench_samples.report(loads=(1,), folder=tmp_path)
    hide("jinja2", monkeypatch)
    with pytest.raises(ConfigError, match=re.escape(install_command("bench"))):
        write_page(report)
    assert [path.name for path in tmp_path.iterdir()] == ["requests.jsonl"]


def test_without_matplotlib_the_page_names_the_install_command(tmp_path, monkeypatch):
    """A missing extra does not lose the numbers of a paid run."""
    report = bench_samples.report(loads=(1, 4), folder=tmp_path)
    hide("matplotlib", monkeypatch)
    text = write_page(report).read_text(encoding="utf-8")
    assert html.escape(install_command("bench")).replace("&#x27;", "&#39;") in text
    assert amount(report.stages[1].images_per_minute) in text


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"stages": (), "slots": ()}, id="nothing measured"),
        pytest.param({"slots": ()}, id="no samples"),
        pytest.param({"loads": (4,), "images": 1}, id="one image"),
    ],
)
def test_an_almost_empty_report_is_a_page(changed):
    """A run that ended early shows what it measured."""
    assert "</html>" in page(bench_samples.report(**({"loads": (1, 4)} | changed)))


def test_figures_from_too_few_images_are_grey_everywhere():
    """Twelve images in twelve slots give no p95, no p99 and no throughput: grey in the first table
    and in the tiles."""
    report = bench_samples.report(loads=(12,), images=12, knee=None)
    (stage,) = report.stages
    made = page(report)
    first = made.split("Stages in detail")[0]
    for figure in (stage.images_per_minute, stage.latency["p95"], stage.latency["p99"]):
        assert f'<td class="few">{amount(figure)}</td>' in first
    assert f"<td>{amount(stage.latency['p50'])}</td>" in first
    assert f'<dd class="figure few">{seconds(stage.latency["p95"])}</dd>' in first
    assert f'<dd class="figure few">{amount(stage.images_per_minute)} / min</dd>' in first
    assert "; too few images" in first
    enough = page(bench_samples.report(loads=(12,), images=120, knee=None))
    assert 'class="figure few"' not in enough


def test_the_highest_throughput_is_that_of_a_stage_with_enough_images():
    """A stage whose slots were hardly reused does not set the record."""
    report = bench_samples.report(loads=(4, 24), images=30, knee=None)
    full, few = report.stages
    made = page(evolve(report, stages=(full, evolve(few, images_per_minute=1_285_292.2))))
    assert f'<dd class="figure">{amount(full.images_per_minute)} / min</dd>' in made
    assert "Omitted, too few images for a throughput: 24 in flight." in made


def drawn_of(report, images=()):
    return {one.name: one for one in draw_charts(report, images)}


def test_a_caption_explains_only_the_lines_that_are_drawn():
    """Twelve images have no p95 line, so the caption does not explain it and names it."""
    caption = drawn_of(bench_samples.report(loads=(4, 12), images=12))["latency"].caption
    assert "slower than p95" not in caption
    assert "too few images: p95, p99" in caption
    caption = drawn_of(bench_samples.report(loads=(4, 12), images=120))["latency"].caption
    assert "one in twenty slower than p95, one in a hundred slower than p99" in caption
    assert "Omitted" not in caption


def test_one_load_has_no_chart_by_load():
    """A single dot shows nothing that the tiles do not; nor does a single image."""
    report = bench_samples.report(loads=(4,), images=30, knee=None)
    assert not {"latency", "throughput"} & set(drawn_of(report))
    one = bench_samples.records(1)
    assert not {"distribution", "images"} & set(drawn_of(report, one))
    assert {"distribution", "images"} <= set(drawn_of(report, bench_samples.records(2)))


def test_a_chart_without_lines_is_replaced_by_its_reason():
    """Single images have neither a median nor a throughput: a sentence replaces the empty axes."""
    made = page(bench_samples.report(loads=(4, 12), images=1, knee=None))
    assert "Too few images for a median" in made
    assert "Too few images for a throughput" in made
    assert not {"Latency by load", "Throughput by load"} & set(Tree(made).charts)


def test_one_slow_image_does_not_flatten_the_others():
    """One image of ten minutes among images of four seconds: the axis is logarithmic, and says so;
    without it the axis is linear."""
    report, images = bench_samples.report(loads=(4,), images=30), bench_samples.records(30)
    slow = evolve(images[-1], latency=600.0, stored_at=images[-1].intended_at + 600)
    for name in ("distribution", "images"):
        assert "Logarithmic" not in drawn_of(report, images)[name].caption
        chart = drawn_of(report, [*images[:-1], slow])[name]
        assert "Logarithmic" in chart.caption
        assert {"10", "100"} <= set(re.findall(r">(\d+)</text>", chart.svg))


def test_short_latencies_are_drawn_and_listed_in_milliseconds():
    """A server that needs 4 ms is not drawn at 0.004 s."""
    images = bench_samples.records(40, latency=0.004)
    stages = tuple(bench_samples.stage(images, load) for load in (1, 4))
    report = bench_samples.report(loads=(1, 4), stages=stages, slots=())
    charts = drawn_of(report, images)
    for name in ("latency", "distribution", "images"):
        assert ">milliseconds until stored</text>" in charts[name].svg
    p50 = amount(1000 * (stages[0].latency["p50"] or 0))
    assert f"<td>{p50}</td>" in page(report, images).split("Stages in detail")[0]
    assert "<small>ms</small>" in page(report, images)


def test_every_point_tells_its_number_under_the_pointer(drawn):
    """Latency, throughput and single images have their figures as hover texts."""
    report, hovers = drawn[0], Tree(drawn[1]).hovers
    for stage in report.stages:
        assert f"{stage.label}: p50 {seconds(stage.latency['p50'])}" in hovers
        assert f"{stage.label}: {amount(stage.images_per_minute)} images per minute" in hovers
    slow = max((one for one in report.records() if one.latency), key=lambda one: one.latency)
    assert f"image {slow.index}, flux-dev: {seconds(slow.latency)}" in hovers


def test_a_hover_area_is_where_its_point_is(drawn):
    """The areas lie inside the picture, and the growing loads from left to right."""
    chart = drawn_of(drawn[0])["throughput"]
    assert all(a.x >= 0 and a.x + a.width <= chart.width for a in chart.areas)
    assert all(a.y >= 0 and a.y + a.height <= chart.height for a in chart.areas)
    assert [a.x for a in chart.areas] == sorted(a.x for a in chart.areas)
    by_pace = sorted(zip(drawn[0].stages, chart.areas, strict=True), key=lambda p: -p[1].y)
    assert [s for s, _ in by_pace] == sorted(drawn[0].stages, key=lambda s: s.images_per_minute)


def test_one_sentence_is_the_verdict():
    """The first sentence is the headline; the saturation point and an early end explain it."""
    made = page(bench_samples.report(loads=(1, 4), verdict="It is slow. Why: 3.5 s.", note="ended"))
    assert made.count('class="headline"') == 1
    assert '<p class="headline">It is slow.</p>\n<p>Why: 3.5 s.</p>' in made
    assert "<p>ended</p>" in made
    assert "<b>" not in made.split('class="tiles"')[0]


def test_the_markdown_has_the_figures_of_the_table(drawn):
    """Every load is a row of a table, and no label breaks it."""
    text = drawn[1].split('<pre id="markdown">')[1].split("</pre>")[0]
    for stage in drawn[0].stages:
        assert f"| {stage.label} | flux-dev | {amount(stage.images_per_minute)} |" in text
    report, _ = hostile_report(["a|b", "`x`\n# y"])
    text = html.unescape(page(report).split('<pre id="markdown">')[1].split("</pre>")[0])
    assert "| a\\|b0 | a\\|b |" in text
    assert not re.search(r"^# y", text, re.MULTILINE)


@pytest.mark.asyncio
async def test_the_slowest_images_are_shown_with_their_prompts(tmp_path):
    """Ten thumbnails and prompts in the table, twelve in the strip, all inside the page."""
    pytest.importorskip("PIL", reason="the extra image is not installed")
    report = bench_samples.report(loads=(4,), images=30, folder=tmp_path, knee=None)
    images = gallery_folders.Folder(tmp_path / "images")
    records = list(report.records())
    for one in records:
        images.saved(job_id=one.job_id, prompt=f"<b>fox</b> {one.index}")
    made = page(report, records, await shown_images(tmp_path, records))
    tree = Tree(made)
    assert tree.tags - {"b"} <= TAGS
    assert made.count("data:image/webp;base64,") == SLOWEST + STRIP
    slow = max((one for one in records if one.latency), key=lambda one: one.latency)
    rows = made.split("slowest images</h2>")[1]
    assert f"&lt;b&gt;fox&lt;/b&gt; {slow.index}<" in rows.split("</tr>")[1]


@pytest.mark.parametrize(
    ("changed", "colour"),
    [
        pytest.param({}, "", id="every model has a throughput"),
        pytest.param({"images": 0, "attempts": 60}, " bad", id="nothing saved"),
        pytest.param({"images": 5}, " unsure", id="too few images"),
        pytest.param({"unanswered": 20.0}, " unsure", id="an outage"),
    ],
)
def test_the_verdict_is_green_only_for_a_sound_measurement(changed, colour):
    """A run that saved nothing, or too few images, is not marked green."""
    report = bench_samples.report(loads=(4,), images=60, knee=None)
    made = page(evolve(report, stages=tuple(evolve(s, **changed) for s in report.stages)))
    assert f'<section class="card verdict{colour}">' in made


def test_a_model_without_saved_images_is_not_green():
    """Every image of the second model was refused."""
    report = bench_samples.report(loads=(4, 4), images=60, knee=None)
    first, second = report.stages
    lost = evolve(second, model="flux-pro", images=0)
    assert 'class="card verdict unsure"' in page(evolve(report, stages=(first, lost)))


def test_unused_slots_are_on_the_chart():
    """Five of forty slots were used: the axis reaches the dashed line at forty."""
    report = bench_samples.report(loads=(4,), images=12, knee=None)
    slots = tuple(evolve(one, in_flight=min(one.in_flight, 5)) for one in report.slots)
    stages = tuple(evolve(stage, in_flight=40) for stage in report.stages)
    drawn = {one.name: one for one in draw_charts(evolve(report, stages=stages, slots=slots))}
    numbers = re.findall(r">(\d+)</text>", drawn["slots"].svg)
    assert "40" in numbers
    assert "at most 4 at once" in drawn["slots"].description


def test_a_short_stage_is_labelled_with_its_number():
    """Where "7 in flight" does not fit, the label is "7"."""
    report = bench_samples.report(loads=(9, 7), images=12, knee=None, slots=())
    at = [(0, 0), (50, 0), (100, 0), (103, 1), (105, 1)]
    slots = tuple(SlotSample(at=x, in_flight=2, downloading=0, stage=n) for x, n in at)
    drawn = {one.name: one for one in draw_charts(evolve(report, slots=slots))}
    assert ">9 in flight</text>" in drawn["slots"].svg
    assert ">7</text>" in drawn["slots"].svg
    assert "A number alone is the number of slots of a short stage." in drawn["slots"].caption
    even = {
        one.name: one for one in draw_charts(bench_samples.report(loads=(9,), images=12, knee=None))
    }
    assert "A number alone" not in even["slots"].caption


def test_a_long_job_id_leaves_room_for_the_numbers():
    """The fixed column is narrow on a phone; the title attribute has the whole id."""
    job = "0f8fad5b-d9cb-469f-a165-70867728950e"
    images = [evolve(one, job_id=job) for one in bench_samples.records(1)]
    made = page(bench_samples.report(loads=(4,), images=12), images)
    assert f'<th scope="row"><span title="{job}">0f8fad5b' in made
    assert f">{job}" not in made


@pytest.mark.parametrize(
    ("rates", "axis"),
    [
        pytest.param([(None, None), (None, None)], "images in flight", id="closed loops"),
        pytest.param([(0.5, None), (2, None)], "offered load, images per second", id="open loops"),
        pytest.param([(0.5, 2), (None, None)], "load", id="a ramp and a closed loop"),
    ],
)
def test_the_axis_names_the_kind_of_load(rates, axis):
    """An open loop has slots too, but its load is its rate."""
    report = bench_samples.report(loads=(4, 12), images=12, slots=())
    stages = tuple(
        evolve(stage, rate=rate, rate_to=end)
        for stage, (rate, end) in zip(report.stages, rates, strict=True)
    )
    (latency,) = [
        one for one in draw_charts(evolve(report, stages=stages)) if one.name == "latency"
    ]
    assert f">{axis}</text>" in latency.svg


def test_unknown_figures_are_dashes():
    """A stage that saved nothing has unknown figures, not zeros."""
    (stage,) = bench_samples.report(loads=(4,)).stages
    empty = evolve(
        stage, images=0, images_per_minute=0.0, images_per_minute_interval=None,
        median_latency_interval=None, latency=bench_samples.distribution([]), cost_per_image=None,
        cost_per_1000=None, parts={}, polls_per_image=None, slot_utilisation=None,
        outcomes={"timeout": 60},
    )  # fmt: skip
    text = page(evolve(bench_samples.report(loads=(4,)), stages=(empty,)))
    assert "timeout" in text
    assert "<td>–</td>" in text
    assert "nan" not in text.lower().replace("finance", "")


def test_a_report_without_a_folder_is_not_written():
    """The error names the next step."""
    with pytest.raises(ConfigError, match="load it with"):
        write_page(bench_samples.report(loads=(1,)))


def test_a_page_that_cannot_be_written_leaves_no_temporary_file(tmp_path):
    """A folder with the page's name stays unchanged."""
    report = bench_samples.report(loads=(1,), images=4, folder=tmp_path)
    (tmp_path / "report.html" / "x").mkdir(parents=True)
    with pytest.raises(OSError, match="report"):
        write_page(report)
    assert {"report.html", "requests.jsonl"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"), (float("nan"), "–"), (0, "0"), (0.00123456, "0.00123"), (1.5, "1.50"),
        (26.04, "26.0"), (161.3, "161"), (123456.7, "123,457"), (-0.5, "-0.500"),
        (1e-9, "0.000000"),
    ],
)  # fmt: skip
def test_numbers_have_three_significant_digits(value, expected):
    """Neither 1e+05 nor ten decimals."""
    assert expected == amount(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0021, "2.10 ms"), (0.1, "100 ms"), (4, "4.00 s"), (None, "–")],
)
def test_short_times_are_milliseconds(value, expected):
    """2.10 ms is easier to read than 0.0021 s."""
    assert expected == seconds(value)
