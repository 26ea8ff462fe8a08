"""The page of a run: its figures are those of the journal, and its texts stay texts."""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import hostile_text
from support.mixed_runs import ENDS, Row, write_run
from support.page_tree import Tree

pytest.importorskip("jinja2", reason="the extra bench is not installed")
pytest.importorskip("matplotlib", reason="the extra bench is not installed")
pytest.importorskip("cyclopts", reason="the extra cli is not installed")

from fluxasync._cli.app import main
from fluxasync._core.amounts import dollars
from fluxasync._report.run_page import PAGE, RunPage
from fluxasync._store.audit.folder_status import read_status
from fluxasync._store.audit.run_figures import SLOWEST, RunFigures, read_figures
from fluxasync._store.journal.journal import Journal

NOON = 1_767_268_800.0  # 1 January 2026, 12:00 UTC
DAY = 86_400
NOW = datetime(2026, 1, 4, tzinfo=UTC)
MIXED = [
    Row(end="saved", at=NOON, took=3),
    Row(end="saved", at=NOON + 5, took=9, prompt="the slow one"),
    Row(end="saved", at=NOON + DAY, model="flux-pro-1.1", price="0.04"),
    Row(end="moderated", at=NOON + DAY, prompt="a <b>bold</b> one"),
    Row(end="failed", at=NOON + DAY),
    Row(end="in doubt", at=NOON + 2 * DAY, prompt="perhaps charged"),
    Row(end="found", at=NOON + 2 * DAY, prompt="found in the account"),
    Row(end="running", at=NOON + 2 * DAY + 60),
    Row(end="again", at=NOON + 2 * DAY + 90),
]


def page(figures: RunFigures, name: str = "images") -> str:
    return RunPage(figures, name, {}, NOW).text()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every kind of outcome on three days."""
    folder = tmp_path_factory.mktemp("mixed")
    asyncio.run(write_run(folder, MIXED))
    return folder


@pytest.fixture(scope="module")
def mixed_page(mixed: Path) -> str:
    return page(read_figures(mixed))


ROWS = st.builds(
    Row,
    end=st.sampled_from(ENDS),
    model=st.sampled_from(("flux-dev", "flux-pro-1.1", "flux-2-pro")),
    price=st.sampled_from(("0.014", "0.025", "0.04")),
    at=st.floats(NOON, NOON + 40 * DAY).map(float.__trunc__).map(float),
    took=st.sampled_from((0.6, 4.0, 700.0)),
)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(ROWS, max_size=12))
def test_the_figures_add_up_to_those_of_the_status(
    rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For any run, days, models, causes and columns have the totals of `status`, to the cent; what
    earlier attempts cost is a line of its own."""
    folder = tmp_path_factory.mktemp("run")
    asyncio.run(write_run(folder, rows))
    status, figures = read_status(folder), read_figures(folder)
    counts = status.counts
    assert figures.counts == counts
    shown = RunPage(figures, "images", {}, NOW)
    total = shown.total()
    for table in (list(shown.days()), list(shown.models())):
        assert sum(row.images or 0 for row in table) == counts.done == total.images
        assert sum(row.failed or 0 for row in table) == sum(counts.failed.values()) == total.failed
        assert sum((row.spent for row in table), Decimal(0)) == counts.spent
        assert sum((row.possible_cost for row in table), Decimal(0)) == counts.possible_cost
        assert sum((row.in_doubt for row in table), Decimal(0)) == counts.in_doubt_price
    assert {row.name: row.images for row in shown.models() if row.images is not None} == {
        name: share.images for name, share in status.by_model.items()
    }
    assert {each.cause: each.images for each in figures.causes} == dict(counts.failed)
    assert sum(column.saved for column in figures.columns) == counts.done
    assert sum(column.failed for column in figures.columns) == sum(counts.failed.values())
    assert len(figures.columns) <= 500
    assert sum(sum(found.values()) for found in figures.times.values()) == counts.done
    assert len(figures.doubts) == counts.in_doubt
    assert figures.found_count == sum(row.end == "found" for row in rows)
    # each settled job was in flight from its submission until a poll saw its end
    expected = sum(
        row.took if row.end in ("moderated", "failed") else row.took - 0.5
        for row in rows
        if row.end in ("saved", "late", "found", "moderated", "failed")
    )
    in_flight = sum(column.in_flight * column.seconds for column in figures.columns)
    assert in_flight == pytest.approx(expected, rel=0.01, abs=0.01)


def test_the_page_has_the_figures(mixed: Path, mixed_page: str) -> None:
    """Verdict, money, causes, doubts and what was found are on the page."""
    counts, words = read_status(mixed).counts, "\n".join(Tree(mixed_page).words)
    for text in (
        f"4 of 9 images saved for {dollars(counts.spent)} in",
        "2 not saved: 1 failed, 1 moderated.",
        "1 in doubt ($0.025): may have been charged. To settle them: fluxasync resolve images",
        "1 had been in doubt, and their jobs were found ($0.025, not paid twice).",
        "1 accepted and not collected: run the same command again",
        "1 to be submitted again by the next run.",
        "2026-01-02", "flux-pro-1.1", "perhaps charged", "found in the account",
        "no image for a <b>bold</b> one", "earlier attempts of images submitted again",
    ):  # fmt: skip
        assert text in words


def test_the_slowest_come_first(mixed: Path, mixed_page: str) -> None:
    """Ten at most, by the time of their own steps, with their prompts."""
    slowest = read_figures(mixed).slowest
    assert [each.took for each in slowest] == [9.0, 4.0, 4.0, 3.0]
    assert len(slowest) <= SLOWEST
    rows = mixed_page.split("slowest images</h2>")[1].split("</tr>")
    assert "the slow one" in rows[1]
    assert '<th scope="row">9.00</th>' in rows[1]


def test_a_pause_between_two_starts_is_no_activity(mixed: Path) -> None:
    """Three days with a minute of work each: no column, no pace and no slots of the nights."""
    figures = read_figures(mixed)
    assert sum(column.is_after_pause for column in figures.columns) == 2
    assert figures.active_seconds < 300
    assert all(column.in_flight < 3 for column in figures.columns)


def test_every_chart_is_drawn_and_described(mixed_page: str) -> None:
    """Pace, slots, cost by day, failures and times, with numbers under the pointer."""
    tree = Tree(mixed_page)
    assert list(tree.charts) == [
        "Pace", "Slots in use", "Cost by day", "Failures by cause", "Time of an image",
    ]  # fmt: skip
    assert all(tree.charts.values())
    assert "1 Jan 2026, flux-dev: $0.05" in tree.hovers
    assert "moderated: 1 images, $0.025 perhaps charged" in tree.hovers


def test_a_run_of_one_day_has_no_chart_and_no_table_of_days(tmp_path: Path) -> None:
    """A single bar says nothing that the total does not; nor does a single cause."""
    asyncio.run(write_run(tmp_path, [Row(at=NOON), Row(at=NOON + 9, end="failed")]))
    made = page(read_figures(tmp_path))
    assert not {"Cost by day", "Failures by cause", "Time of an image"} & set(Tree(made).charts)
    assert "<h2>Cost by day" not in made


def test_a_run_without_images_is_a_page(tmp_path: Path) -> None:
    """Nothing was submitted, and the page says so."""
    asyncio.run(write_run(tmp_path, []))
    made = page(read_figures(tmp_path))
    assert "0 images saved for $0.00." in made
    assert 'class="card verdict bad"' in made
    assert not Tree(made).charts


def test_large_amounts_fit_their_tile(tmp_path: Path) -> None:
    """From $100 the tile shows cents, with a comma for thousands; the tables are exact."""
    asyncio.run(write_run(tmp_path, [Row(price="12345.0625"), Row(price="2000.5")]))
    made = page(read_figures(tmp_path))
    assert '<dd class="figure long">$14,345.56</dd>' in made
    assert "<td>$14,345.5625</td>" in made


def test_a_simulated_run_cost_nothing(tmp_path: Path) -> None:
    """The list price is shown beside it."""
    asyncio.run(write_run(tmp_path, [Row()], simulated=True))
    words = "\n".join(Tree(page(read_figures(tmp_path))).words)
    assert "1 image saved at no cost ($0.025 at list price)" in words
    assert "Spent\n$0.00\nsimulated; $0.025 at list price" in words


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """No prompt, model or message adds a tag, an attribute or an address."""
    ends = ("saved", "failed", "in doubt", "found")
    rows = [
        Row(end=ends[number % 4], prompt=text[:500] or "x", at=NOON + DAY * number)
        for number, text in enumerate((*hostile_text.CORPUS, *hostile_text.CORPUS[::-1]))
    ]
    asyncio.run(write_run(tmp_path, rows))
    made = page(read_figures(tmp_path), name="; ".join(hostile_text.CORPUS))
    made.encode("utf-8")
    assert Tree(made).strays() == []
    assert not re.search("[\x00-\x08\x0b\x1b\x7f-\x9f\u202e\u2066\ufffe\uffff]", made)
    assert made.count("<script") == 1


# --- the command ----------------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["report", *map(str, words)])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_the_command_writes_the_page_and_nothing_else(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its path is printed; the journal is as it was; the slowest images are inside the page."""
    before = _contents(mixed)
    code, out, err = said(capsys, mixed, "-o", tmp_path / "page.html")
    assert (code, out, err) == (0, f"{tmp_path / 'page.html'}\n", "")
    assert _contents(mixed) == before
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert Tree((tmp_path / "page.html").read_text()).strays() == []


def test_the_page_is_in_the_folder_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --out it lies beside the images, and the same command renews it."""
    asyncio.run(write_run(tmp_path, [Row()]))
    for _ in range(2):
        assert said(capsys, tmp_path)[:2] == (0, f"{tmp_path / PAGE}\n")
    assert "1 image saved" in (tmp_path / PAGE).read_text()


def test_json_has_the_totals_of_status(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`report --json` prints one object with the counts and the cost of `status --json`, and
    writes no page."""
    code, out, _ = said(capsys, mixed, "--json")
    found = json.loads(out)
    assert code == 0
    assert main(["status", str(mixed), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    for name in ("done", "still_running", "in_doubt", "failed", "to_submit_again"):
        assert found[name] == status[name]
    assert {name: found["cost"][name] for name in status["cost"]} == status["cost"]
    assert [each["day"] for each in found["days"]] == [
        "2026-01-01", "2026-01-02", "2026-01-02", "2026-01-03",
    ]  # fmt: skip
    assert found["found"]["images"] == 1
    assert not (mixed / PAGE).exists()


@pytest.mark.asyncio
async def test_an_active_run_is_reported_beside_itself(tmp_path: Path) -> None:
    """While a run holds the folder its journal is read; what it submits now is not in doubt."""
    await write_run(tmp_path, [Row(), Row(end="in doubt")])
    async with Journal(
        tmp_path, provider="bfl", origin="https://api.bfl.ai", simulated=False
    ) as journal:
        from fluxasync import ImageRequest

        await journal.intent(ImageRequest(prompt="now", index=9), price=Decimal("0.025"))
        figures = await asyncio.to_thread(read_figures, tmp_path)
    assert figures.is_running
    assert (figures.counts.done, figures.counts.in_doubt, figures.submitting) == (1, 2, 1)
    assert [each.prompt for each in figures.doubts] == ["a fox"]
    words = "\n".join(Tree(page(figures)).words)
    assert "running, as of 2026-01-04 00:00 UTC" in words
    assert "1 in doubt: may have been charged" in words


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        pytest.param(("-o", "000000.jpg"), "name a file that ends in .html", id="an image"),
        pytest.param(("-o", "missing/page.html"), "No such file", id="no folder"),
    ],
)
def test_no_paid_image_is_overwritten(
    mixed: Path, words: Any, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """--out names a page: another suffix is refused."""
    before = _contents(mixed)
    code, out, err = said(capsys, mixed, words[0], mixed / words[1])
    assert (code != 0, out) == (True, "")
    assert problem in err
    assert _contents(mixed) == before


def test_a_folder_without_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next step is named, and no page is written."""
    code, _, err = said(capsys, tmp_path)
    assert code == 2
    assert "Name the folder of a run" in err
    assert os.listdir(tmp_path) == []


def test_a_page_tells_how_to_settle_doubts(mixed_page: str) -> None:
    """The command is there as it is typed."""
    assert "<code>fluxasync resolve images</code>" in html.unescape(mixed_page)


def _contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder but SQLite's, which a reader may touch."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }
