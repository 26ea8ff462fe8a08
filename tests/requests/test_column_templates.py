"""Prompts that are filled in from the columns of a list: `Prompts(template=…)`, `--prompt`."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.prompt_lists import complaint_of, plan_of, requests_of, rows_of, saved
from support.workbooks import workbook

from fluxasync import BadRow, ConfigError, ImageRequest, Prompts

pytestmark = pytest.mark.asyncio

TEMPLATE = "{colour} {product} on marble, {{50mm}}"
FILLED = ["red mug on marble, {50mm}", "light blue 7 on marble, {50mm}"]
NAMES = ("sku", "colour", "product", "width")
ROWS: list[tuple[Any, ...]] = [("A-1", "red", "mug", 512), ("A-2", " light blue ", 7, None)]


def objects() -> list[dict[str, Any]]:
    return [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def table(folder: Path, name: str, mark: str) -> Path:
    lines = [NAMES, *ROWS]
    cells = (("" if cell is None else str(cell) for cell in row) for row in lines)
    return saved(folder, name, "".join(mark.join(row) + "\n" for row in cells))


def data_set(folder: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{**row, "product": str(row["product"])} for row in objects()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "p.parquet")
    return folder / "p.parquet"


def sheet(folder: Path) -> Path:
    pytest.importorskip("openpyxl")
    return workbook(folder / "p.xlsx", [NAMES, *ROWS])


LISTS: dict[str, Callable[[Path], Any]] = {
    "csv": lambda folder: table(folder, "p.csv", ","),
    "csv with semicolons": lambda folder: table(folder, "p.csv", ";"),
    "tsv": lambda folder: table(folder, "p.tsv", "\t"),
    "jsonl": lambda folder: saved(folder, "p.jsonl", "\n".join(map(json.dumps, objects()))),
    "json": lambda folder: saved(folder, "p.json", json.dumps(objects())),
    "xlsx": sheet,
    "parquet": data_set,
    "list": lambda _: objects(),
    "stream": lambda _: iter(objects()),
    "files": lambda folder: [
        saved(folder, f"{place}.jsonl", json.dumps(row)) for place, row in enumerate(objects())
    ],
}


@pytest.mark.parametrize("kind", LISTS)
async def test_each_kind_of_list_fills_a_template_in(kind: str, tmp_path: Path) -> None:
    """The same table makes the same prompts in every format; its own columns are metadata."""
    got = await requests_of(LISTS[kind](tmp_path), template=TEMPLATE)
    assert [request.prompt for request in got] == FILLED
    assert [request.width for request in got] == [512, None]
    assert [str(request.extras["sku"]) for request in got] == ["A-1", "A-2"]
    assert got[0].extras["colour"] == "red"
    assert got[0].key == ImageRequest(prompt=FILLED[0], width=512).key


@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet", "jsonl", "json", "list"])
async def test_an_unknown_column_is_named_with_the_columns(kind: str, tmp_path: Path) -> None:
    """A misspelt column is found by the check, and the message has what there is."""
    said = await complaint_of(LISTS[kind](tmp_path), template="{color} {product}")
    assert "no column 'color', which the template names (columns: 'sku', 'colour'," in said
    assert "did you mean {colour}?" in said


async def test_the_columns_are_listed_once_and_found_by_a_part(tmp_path: Path) -> None:
    """Several unknown columns do not repeat the list; a part of a name finds the column."""
    path = tmp_path / "p.csv"
    path.write_text("SKU,Product Name\nA-1,mug\n")
    said = await complaint_of(path, template="{shade} {product}")
    assert said.count("columns: ") == 1
    assert said.endswith("no column 'product', which the template names; did you mean"
                         " {Product Name}?")  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet", "jsonl", "list"])
async def test_an_empty_cell_is_a_bad_row(kind: str, tmp_path: Path) -> None:
    """No prompt has a gap where a value was meant; the other rows can be made."""
    made = LISTS[kind](tmp_path)
    said = await complaint_of(made, template="{product}, {width} px")
    assert "column 'width' is empty, and the template needs it" in said
    rows = await rows_of(made, template="{product}, {width} px", skip_bad=True)
    assert [type(row) for row in rows] == [ImageRequest, BadRow]


async def test_the_filled_prompt_is_keyed_like_a_written_one(tmp_path: Path) -> None:
    """P27 A list whose prompts were written out is the same list."""
    written = [{"prompt": FILLED[0], "width": 512}, {"prompt": FILLED[1]}]
    by_template = await requests_of(LISTS["csv"](tmp_path), template=TEMPLATE, seeds=[1, 2])
    assert [r.key for r in by_template] == [r.key for r in await requests_of(written, seeds=[1, 2])]


async def test_a_template_is_multiplied_by_grids_and_choices(tmp_path: Path) -> None:
    """Columns are filled in first, also inside of choices; cells with choices are expanded."""
    saved(tmp_path, "light.txt", "dawn\ndusk\n")
    rows = [{"colour": "red", "product": "{mug|cup}"}]
    got = await requests_of(
        rows,
        template="{{{colour}}} {product} {in {colour} light|at __light__} ${x={product}}${x} \\{",
        wildcards=tmp_path,
        models=["flux-dev", "flux-pro-1.1"],
    )
    texts = [request.prompt for request in got[::2]]
    assert len(texts) == len(set(texts)) == 2 * 3 * 2
    assert texts[0] == "{red} mug in red light mug {"
    assert texts[-1] == "{red} cup at dusk cup {"


async def test_lines_of_text_have_one_column(tmp_path: Path) -> None:
    """A style is added to each prompt of a text file; comments are still found."""
    path = saved(tmp_path, "p.txt", "a fox\nan owl\n")
    got = await requests_of(path, template="{prompt}, 50mm")
    assert [request.prompt for request in got] == ["a fox, 50mm", "an owl, 50mm"]
    marked = saved(tmp_path, "c.txt", "# day\na fox\n")
    assert "comments" in await complaint_of(marked, template="photo of {prompt}")
    assert "options" in await complaint_of(path, template="photo of {prompt} --ar 16:9")


async def test_a_table_without_names_is_filled_in_by_places(tmp_path: Path) -> None:
    """`--no-header` names the columns column_1, column_2."""
    path = saved(tmp_path, "p.csv", "red,mug\nblue,cup\n")
    got = await requests_of(path, template="{column_1} {column_2}", header=False)
    assert [request.prompt for request in got] == ["red mug", "blue cup"]


async def test_columns_of_a_template_are_no_misspelt_parameters() -> None:
    """`size` is another tool's name of a parameter; what a template uses is plainly meant."""
    rows = [{"size": "30 cm", "product": "mug", "when": dt.date(2026, 1, 2), "seed": "7"}]
    [got] = await requests_of(rows, template="{product}, {size}, {when}, {seed}")
    assert got.prompt == "mug, 30 cm, 2026-01-02, 7"
    assert (got.seed, dict(got.extras)) == (
        7, {"size": "30 cm", "product": "mug", "when": "2026-01-02"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "template", "said"),
    [
        ({"a": "x", "prompt": "y"}, "{a}", "a column 'prompt', which the template leaves out"),
        ({"a": "x {b}", "b": "y"}, "{a}", "still has {b}, the name of a column"),
        ({"a": "x"}, "{{a}} {a}", "still has {a}, the name of a column"),
        ({"a": ["x"]}, "{a}", "holds no text or number"),
        ({"a": b"x"}, "{a}", "holds bytes"),
        ({"a": float("nan")}, "{a}", "is empty"),
        ({"a": "red"}, "{a|b}", "choices need --wildcards"),
    ],
)
async def test_what_a_template_cannot_mean_is_refused(
    row: dict[str, Any], template: str, said: str
) -> None:
    """A prompt with a hole, or a prompt that is not used, would be paid like any other."""
    assert said in await complaint_of([row], template=template)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"template": "a {b"}, "never closed"),
        ({"template": "a }"}, "closes nothing"),
        ({"template": "a {}"}, "names no column"),
        ({"template": " "}, "no prompt"),
        ({"template": "{a}", "columns": {"prompt": "b"}}, "leave the other out"),
        ({"template": "{a}", "parameters": {"prompt": "b"}}, "leave one out"),
        ({"template": "{a|b", "wildcards": True}, "never closed"),
    ],
)
async def test_a_template_is_checked_where_it_is_given(options: Any, said: str) -> None:
    """Before any file is opened."""
    with pytest.raises(ConfigError, match=said):
        Prompts("p.csv", **options)


async def test_an_image_request_is_no_row() -> None:
    """Its prompt is there already."""
    assert "fills rows" in await complaint_of([ImageRequest(prompt="x")], template="{a}")


async def test_a_prompt_that_was_to_be_filled_in_is_no_prompt(tmp_path: Path) -> None:
    """`{colour}` beside a column `colour` is another tool's placeholder, not a prompt."""
    path = saved(tmp_path, "p.jsonl", '{"prompt": "a {colour} fox", "colour": "red"}\n')
    assert "placeholders" in await complaint_of(path)
    assert (await plan_of(path, syntax="as-written")).images == 1
