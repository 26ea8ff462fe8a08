"""report.html: whole, inert, and true to the report's numbers."""

from __future__ import annotations

import builtins
import hashlib
import html
import re
from base64 import b64encode
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from attrs import evolve
from support import bench_samples as benches
from support import hostile_text as evil

from fluxasync import ConfigError
from fluxasync._core.extras import install_command
from fluxasync.bench import SlotSample
from fluxasync.bench.report.charts import plots
from fluxasync.bench.report.html_report import page, write_page
from fluxasync.bench.report.html_tables import amount, seconds

pytest.importorskip("matplotlib", reason="the extra bench is not installed")

pytestmark = pytest.mark.slow  # a page has two dozen drawings

#: what the page is made of
TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "h1", "h2",
    "h3", "p", "b", "small", "span", "div", "dl", "dt", "dd", "figure", "figcaption", "table",
    "thead", "tbody", "tr", "th", "td", "details", "summary",
    "svg", "desc", "defs", "g", "path", "text", "tspan", "use", "clippath", "rect",
}  # fmt: skip


class Tree(HTMLParser):
    """Tags, attributes and ids of a page, as a browser would take them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.ids, self.links = set(), set(), [], set()
        self.words = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "action"):
                self.links.add(value)

    def handle_data(self, text):
        self.words.append(text)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A report with all there is, and its page."""
    report = benches.report(folder=tmp_path_factory.mktemp("report"))
    return report, write_page(report).read_text(encoding="utf-8")


def evil_report(texts, **changed):
    """A report with each of those texts wherever a text can be."""
    every, loads = "".join(texts), tuple(range(1, len(texts) + 1))
    made = benches.report(loads=loads, images=12, title=every, verdict=every, **changed)
    stages = tuple(
        evolve(stage, label=f"{text}{number}", model=text, outcomes={"saved": 11, text: 1})
        for number, (stage, text) in enumerate(zip(made.stages, texts, strict=True))
    )
    images = [evolve(one, job_id=text, model=text) for text in texts for one in benches.records(2)]
    environment = {text: text for text in texts}
    environment |= {"origin": every, "options": {text: [text, {text: text}] for text in texts}}
    return evolve(
        made, stages=stages, began=every, knee=stages[0].label, knee_why=every, note=every,
        environment=environment,
    ), images  # fmt: skip


def test_the_page_asks_for_nothing_and_runs_nothing(drawn):
    """No script, no link, no style attribute, no address of another server."""
    tree = Tree(drawn[1])
    assert tree.tags <= TAGS
    assert all(link.startswith("#") for link in tree.links)
    assert not {name for name in tree.attributes if name.startswith("on") or name == "style"}
    assert "http" not in drawn[1].replace("http-equiv", "").replace("https://api.example.com", "")


def test_its_policy_allows_its_own_style_sheet_only(drawn):
    """The fingerprint in the policy is the style sheet's."""
    style = re.search(r"<style>(.*?)</style>", drawn[1], re.DOTALL)
    assert style is not None
    digest = b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'; " in drawn[1]


def test_ids_are_unique_and_every_reference_has_its_target(drawn):
    """Twelve drawings in one page share no id, and none points into another."""
    ids = Tree(drawn[1]).ids
    assert len(set(ids)) == len(ids) > 40
    pointed = re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', drawn[1])
    assert {name for names in pointed for name in names.split()} <= set(ids)


def test_every_picture_is_there_twice_and_says_what_it_shows(drawn):
    """A wide and a narrow drawing each, with a title and the numbers in words."""
    for name in ("latency", "throughput", "split", "slots", "spread", "images"):
        for kind in ("wide", "narrow"):
            assert f'id="{name}-{kind}-title"' in drawn[1]
    p50 = drawn[0].stages[0].latency["p50"]
    assert f"1 in flight: median {p50:.3g} s" in drawn[1]


def test_no_colour_is_left_that_the_night_cannot_change(drawn):
    """Every fill and stroke is a class of the palette, or none."""
    painted = set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawn[1]))
    assert painted <= {"none"}


def test_the_numbers_are_on_the_page(drawn):
    """Verdict, knee, each stage's pace and latency, the environment."""
    report, words = drawn[0], "\n".join(Tree(drawn[1]).words)
    for stage in report.stages:
        assert amount(stage.images_per_minute) in words
        assert amount(stage.latency["p95"]) in words
    for text in (report.verdict, report.knee_why, "uvloop", "12 in flight ◂ knee"):
        assert text in words


def test_a_simulated_run_has_cost_nothing():
    """The catalogue's price is told beside it; settings that were not made are left out."""
    made = benches.report(loads=(4,), images=12, simulated=True, spent=Decimal("2.22"))
    made = evolve(made, environment={"options": {"rate": [], "title": "", "seed": 0}})
    words = "\n".join(Tree(page(made)).words)
    assert "Spent\n$0.00\nsimulated; $2.22 by the catalogue" in words
    assert "\n1 stage\n" in words
    assert "seed" in words
    assert "rate" not in words.split("Measured with")[1].split("What the words mean")[0]


def test_a_ramp_shows_where_what_is_stored_falls_behind():
    """One stage has no load to be set beside: its own time is the axis, and the numbers agree."""
    report = benches.report(loads=(4,), images=48)
    ramp = evolve(report.stages[0], label="ramp", rate=1.0, rate_to=4.0)
    images = [
        evolve(one, intended_at=number / 4, stored_at=number / 2 + 1)
        for number, one in enumerate(benches.records(48))
    ]
    made = page(evolve(report, stages=(ramp,), knee=None), images)
    assert 'id="ramp0-wide-title"' in made
    assert "wanted from 1 to 4 images a second; at most 2.2 a second were stored" in made
    assert 'id="latency-wide-title"' not in made
    assert 'id="latency-wide-title"' in page(evolve(report, stages=(ramp,), knee=None))


def test_the_same_report_gives_the_same_page():
    """Nothing of the hour or of chance is in it."""
    report = benches.report(loads=(4,), images=12, slots=())
    assert page(report) == page(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    "texts", [evil.CORPUS[at::3] for at in range(3)], ids=["one", "two", "three"]
)
def test_whatever_a_text_holds_it_stays_text(texts):
    """No title, label, model, cause, job id or setting adds a tag or an attribute."""
    made = page(*evil_report(texts))
    made.encode("utf-8")
    tree = Tree(made)
    assert tree.tags <= TAGS
    assert all(link.startswith("#") for link in tree.links)
    assert not {name for name in tree.attributes if name.startswith("on") or name == "style"}
    assert not re.search("[\x00-\x08\x0b\x1b\x7f-\x9f\u202e\u2066\ufffe\uffff]", made)


def test_without_matplotlib_the_page_says_how_to_have_pictures(tmp_path, monkeypatch):
    """A run that was paid for is not lost to a missing extra: all numbers are there."""
    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    report = benches.report(loads=(1, 4), folder=tmp_path)
    monkeypatch.setattr(builtins, "__import__", without)
    text = write_page(report).read_text(encoding="utf-8")
    assert html.escape(install_command("bench")) in text
    assert amount(report.stages[1].images_per_minute) in text


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"stages": (), "slots": ()}, id="nothing measured"),
        pytest.param({"slots": ()}, id="no samples"),
        pytest.param({"loads": (4,), "images": 1}, id="one image"),
    ],
)
def test_a_report_of_next_to_nothing_is_a_page_too(changed):
    """A run that ended early shows what it has."""
    assert "</html>" in page(benches.report(**({"loads": (1, 4)} | changed)))


def test_what_so_few_images_cannot_tell_is_grey_everywhere():
    """Twelve images through twelve slots tell no p95, no p99 and no pace: in the first table and
    the tiles as in the details."""
    report = benches.report(loads=(12,), images=12, knee=None)
    (stage,) = report.stages
    made = page(report)
    first = made.split("Each stage in numbers")[0]
    for figure in (stage.images_per_minute, stage.latency["p95"], stage.latency["p99"]):
        assert f'<td class="few">{amount(figure)}</td>' in first
    assert f"<td>{amount(stage.latency['p50'])}</td>" in first
    assert f'<dd class="figure few">{seconds(stage.latency["p95"])}</dd>' in first
    assert f'<dd class="figure few">{amount(stage.images_per_minute)} / min</dd>' in first
    assert "too few images to tell" in first
    enough = page(benches.report(loads=(12,), images=120, knee=None))
    assert 'class="figure few"' not in enough


def test_the_fastest_stage_is_one_whose_pace_is_told():
    """A stage with a slot or two filled by chance is not the record."""
    report = benches.report(loads=(4, 24), images=30, knee=None)
    told, few = report.stages
    made = page(evolve(report, stages=(told, evolve(few, images_per_minute=1_285_292.2))))
    assert f'<dd class="figure">{amount(told.images_per_minute)} / min</dd>' in made
    assert "Left out, because so few images tell no pace: 24 in flight." in made


def test_a_caption_explains_the_lines_that_are_drawn():
    """Twelve images draw no p95, so nothing explains it; a line that is missing is named."""
    captions = {one.name: one.caption for one in plots(benches.report(loads=(4,), images=12))}
    assert "slower than p95" not in captions["latency"]
    assert "too few images to tell it: p95, p99" in captions["latency"]
    captions = {one.name: one.caption for one in plots(benches.report(loads=(4,), images=120))}
    assert "one in twenty slower than p95, one in a hundred slower than p99" in captions["latency"]
    assert "Left out" not in captions["latency"]


def test_a_picture_without_lines_says_why():
    """One image tells neither a median nor a pace: words stand in the place of empty axes."""
    made = page(benches.report(loads=(4,), images=1, knee=None))
    assert "Too few images to tell even a median" in made
    assert "Too few images to tell a pace" in made
    assert 'id="latency-wide-title"' not in made
    assert 'id="throughput-wide-title"' not in made


@pytest.mark.parametrize(
    ("changed", "colour"),
    [
        pytest.param({}, "", id="all has a pace"),
        pytest.param({"images": 0, "attempts": 60}, " bad", id="nothing saved"),
        pytest.param({"images": 5}, " unsure", id="too few to tell"),
        pytest.param({"unanswered": 20.0}, " unsure", id="an outage"),
    ],
)
def test_green_is_for_what_was_measured(changed, colour):
    """A run that saved nothing, or too little to tell, does not look as if all were well."""
    report = benches.report(loads=(4,), images=60, knee=None)
    made = page(evolve(report, stages=tuple(evolve(s, **changed) for s in report.stages)))
    assert f'<section class="card verdict{colour}">' in made


def test_a_model_of_which_nothing_was_saved_is_not_green():
    """Two models, one of them refused whole."""
    report = benches.report(loads=(4, 4), images=60, knee=None)
    first, second = report.stages
    lost = evolve(second, model="flux-pro", images=0)
    assert 'class="card verdict unsure"' in page(evolve(report, stages=(first, lost)))


def test_slots_that_were_never_filled_are_on_the_picture():
    """Forty slots of which five were used: the axis reaches the dashed line at forty."""
    report = benches.report(loads=(4,), images=12, knee=None)
    slots = tuple(evolve(one, in_flight=min(one.in_flight, 5)) for one in report.slots)
    stages = tuple(evolve(stage, in_flight=40) for stage in report.stages)
    drawn = {one.name: one for one in plots(evolve(report, stages=stages, slots=slots))}
    numbers = re.findall(r">(\d+)</text>", drawn["slots"].svg)
    assert "40" in numbers
    assert "at most 4 at once" in drawn["slots"].svg


def test_a_short_stage_is_named_by_its_number():
    """Where "1 in flight" does not fit beside a long stage, "1" does."""
    report = benches.report(loads=(9, 7), images=12, knee=None, slots=())
    at = [(0, 0), (50, 0), (100, 0), (103, 1), (105, 1)]
    slots = tuple(SlotSample(at=x, in_flight=2, downloading=0, stage=n) for x, n in at)
    drawn = {one.name: one for one in plots(evolve(report, slots=slots))}
    assert ">9 in flight</text>" in drawn["slots"].svg
    assert ">7</text>" in drawn["slots"].svg
    assert "A number alone is a short stage's jobs in flight." in drawn["slots"].caption
    even = {one.name: one for one in plots(benches.report(loads=(9,), images=12, knee=None))}
    assert "A number alone" not in even["slots"].caption


def test_a_long_job_id_leaves_room_for_the_numbers():
    """The column that stays while others scroll is narrow on a phone; the whole id is its title."""
    job = "0f8fad5b-d9cb-469f-a165-70867728950e"
    images = [evolve(one, job_id=job) for one in benches.records(1)]
    made = page(benches.report(loads=(4,), images=12), images)
    assert f'<th scope="row"><span title="{job}">0f8fad5b' in made
    assert f">{job}" not in made


@pytest.mark.parametrize(
    ("rates", "axis"),
    [
        pytest.param([(None, None), (None, None)], "images in flight", id="closed loops"),
        pytest.param([(0.5, None), (2, None)], "submissions a second wanted", id="open loops"),
        pytest.param([(0.5, 2), (None, None)], "load", id="a ramp and a closed loop"),
    ],
)
def test_load_is_drawn_as_what_it_is(rates, axis):
    """An open loop has slots too, but its load is its rate."""
    report = benches.report(loads=(4, 12), images=12, slots=())
    stages = tuple(
        evolve(stage, rate=rate, rate_to=end)
        for stage, (rate, end) in zip(report.stages, rates, strict=True)
    )
    assert f">{axis}</text>" in page(evolve(report, stages=stages))


def test_a_stage_that_saved_nothing_has_dashes():
    """Unknown is not zero."""
    (stage,) = benches.report(loads=(4,)).stages
    empty = evolve(
        stage, images=0, images_per_minute=0.0, images_per_minute_interval=None,
        median_latency_interval=None, latency=benches.distribution([]), cost_per_image=None,
        cost_per_1000=None, parts={}, polls_per_image=None, slot_utilisation=None,
        outcomes={"timeout": 60},
    )  # fmt: skip
    text = page(evolve(benches.report(loads=(4,)), stages=(empty,)))
    assert "timeout" in text
    assert "<td>–</td>" in text
    assert "nan" not in text.lower().replace("finance", "")


def test_a_report_in_no_folder_cannot_be_written():
    """One line, with the next step."""
    with pytest.raises(ConfigError, match="load it with"):
        write_page(benches.report(loads=(1,)))


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    """Where a folder has its name, the folder stays and no temporary file does."""
    report = benches.report(loads=(1,), images=4, folder=tmp_path)
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
def test_numbers_have_three_digits_that_matter(value, expected):
    """Never 1e+05, never ten decimals."""
    assert expected == amount(value)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0021, "2.10 ms"), (0.1, "0.100 s"), (4, "4.00 s"), (None, "–")]
)
def test_short_times_are_milliseconds(value, expected):
    """0.0021 s is hard to read."""
    assert expected == seconds(value)
