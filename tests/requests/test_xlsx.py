"""Lists in .xlsx files: what a person sees in the sheet is read, and what would be lost is named.

Public reports: a formula without a saved result reads as empty (onyx-dot-app/onyx#13354,
wecode-ai/Wegent#2655, felipe-prenholato/openpyxl#16, #69); the title above a table is taken for its
names (MarkPflug/Sylvan.Data.Excel#158, genonai/doc_parser#331, SciRuby/daru#516).
"""

from __future__ import annotations

import csv
import datetime
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.prompt_lists import complaint_of, plan_of, requests_of, rows_of, saved
from support.workbooks import SHARED, changed, shared_texts, with_shared_texts, workbook

from fluxasync import BadRow, ConfigError, ImageRequest

openpyxl = pytest.importorskip("openpyxl")

#: text that a cell can hold, without marks of other tools, which are refused
TEXTS = st.text("abé夜 ,;\n\"'0", min_size=1).filter(str.strip)


@pytest.mark.asyncio
async def test_cells_have_the_types_of_their_columns(tmp_path: Path) -> None:
    """Whole floats are whole numbers, dates are ISO 8601, gaps are "not given"; empty rows above
    the names and between rows are skipped and counted."""
    day = datetime.datetime(2024, 1, 5)
    rows = [
        [],
        ["Prompt", "Width", "seed", "taken", "at", "ok", "name", "", "mine"],
        ["fox", 512.0, 7, day.date(), day.replace(hour=3), True, 17, None, 1024.0],
        [],
        ["owl", None, None, None, None, False, None, None, 2.5],
        ["bat", "oops"],
    ]
    path = workbook(tmp_path / "p.xlsx", rows)
    assert await complaint_of(path) == "p.xlsx row 6: column 'Width': 'oops' is not a whole number"
    path = workbook(tmp_path / "p.xlsx", rows[:-1])
    fox, owl = await requests_of(path)
    assert fox.key == ImageRequest(prompt="fox", width=512, seed=7).key
    assert fox.name == "17"
    assert fox.extras == {
        "taken": "2024-01-05", "at": "2024-01-05T03:00:00", "ok": True, "mine": 1024,
    }  # fmt: skip
    assert isinstance(fox.extras["mine"], int)
    assert (owl.width, owl.extras) == (None, {"ok": False, "mine": 2.5})


@pytest.mark.asyncio
@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(TEXTS, st.none() | st.sampled_from([256, 512]), st.none() | st.booleans(),
                  st.none() | TEXTS),
        min_size=1, max_size=5,
    )
)  # fmt: skip
async def test_a_sheet_is_the_same_list_as_rows_of_a_program(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]
) -> None:
    """The same rows in a sheet and in a list of dicts have the same keys and metadata."""
    names = ("prompt", "width", "prompt_upsampling", "mine")
    path = workbook(tmp_path_factory.mktemp("sheets") / "p.xlsx", [names, *rows])
    expected = await requests_of([dict(zip(names, row, strict=True)) for row in rows])
    found = await requests_of(path)
    assert [(r.key, r.extras) for r in expected] == [(r.key, r.extras) for r in found]


@pytest.mark.asyncio
async def test_a_sheet_is_chosen_by_its_name(tmp_path: Path) -> None:
    """The first sheet is read, with a message about the others; a wrong name lists them."""
    path = workbook(
        tmp_path / "p.xlsx", [["prompt"], ["fox"]], [["text"], ["owl"]], titles=("A", "Zwei B")
    )
    assert [r.prompt for r in await requests_of(path)] == ["fox"]
    [note] = (await plan_of(path)).notes
    assert note == "p.xlsx: sheet 'A' is read; --sheet NAME reads another one ('Zwei B')"
    [owl] = await requests_of(path, sheet="Zwei B", columns={"prompt": "text"})
    assert owl.prompt == "owl"
    assert await complaint_of(path, sheet="C") == "p.xlsx: no sheet 'C' ('A', 'Zwei B')"
    other = saved(tmp_path, "p.csv", "prompt\nfox\n")
    assert "only an .xlsx file has sheets" in await complaint_of(other, sheet="A")


@pytest.mark.asyncio
async def test_what_a_reader_of_values_cannot_see_is_named(tmp_path: Path) -> None:
    """A formula without a saved result, an error, merged cells and cells outside of the columns are
    no empty cells."""
    path = workbook(tmp_path / "p.xlsx", [["prompt", "width"], ["fox", "=256*2"]])
    assert "p.xlsx row 2: column B has a formula without" in await complaint_of(path)
    result = b"<f>256*2</f><v>512</v>"
    changed(path, "xl/worksheets/sheet1.xml", lambda c: c.replace(b"<f>256*2</f><v />", result)
            .replace(b"<f>256*2</f><v></v>", result))  # fmt: skip
    [fox] = await requests_of(path)
    assert fox.width == 512
    path = workbook(tmp_path / "p.xlsx", [["prompt", "width"], ["fox", "#N/A"], ["owl", 512]])
    assert await complaint_of(path) == "p.xlsx row 2: cell B2 has the error #N/A"
    path = workbook(tmp_path / "p.xlsx", [["prompt"], ["fox", "what is this"]])
    assert "row 2: cell B2 has no column name above it" in await complaint_of(path)
    book = openpyxl.Workbook()
    for row in (["My list", None], ["prompt", "width"], ["fox", 512], ["owl", None]):
        book.active.append(row)
    book.active.merge_cells("B3:B4")
    book.save(path)
    columns = {"prompt": "My list"}
    assert "merged cells" in await complaint_of(path, columns=columns)


FAULTS = {
    "a formula": ("=1+1", "column C has a formula without a saved result"),
    "an error": ("#N/A", "cell C3 has the error #N/A"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("name", ["mine", "seed", "image_prompt", ""])
async def test_a_cell_without_a_value_is_a_bad_row_in_any_column(
    tmp_path: Path, kind: str, name: str
) -> None:
    """Also in metadata and in a column without a name; the other faults are listed, and --skip-bad
    makes the good rows."""
    cell, fault = FAULTS[kind]
    rows = [["prompt", "width", name, "x"], ["fox", 512], ["owl", 512, cell], [7, 512],
            ["elk", 7], ["hare", 512, None, None, "stray"], [None, None, cell],
            ["wolf"]]  # fmt: skip
    path = workbook(tmp_path / "p.xlsx", [[None], *rows])
    message = await complaint_of(path)
    assert fault.replace("C3", "C4") in message
    for where in ("row 5: a prompt is text", "row 6: width=7", "row 7: cell E7 has no column name"):
        assert f"p.xlsx {where}" in message
    entries = await rows_of(path, skip_bad=True)
    assert [each.prompt for each in entries if isinstance(each, ImageRequest)] == ["fox", "wolf"]
    bad = [each for each in entries if isinstance(each, BadRow)]
    assert [each.where for each in bad] == [f"p.xlsx row {row}" for row in (4, 5, 6, 7, 8)]


@pytest.mark.asyncio
async def test_formulas_of_a_whole_column_are_one_complaint(tmp_path: Path) -> None:
    """What no program calculated is named once with its rows; among names the list is refused."""
    path = workbook(
        tmp_path / "p.xlsx", [["prompt", "width"], *[["fox", "=256*2"] for _ in range(3_000)]]
    )
    message = await complaint_of(path)
    assert message.startswith("p.xlsx rows 2–3001: column B has a formula")
    assert "\n" not in message
    path = workbook(tmp_path / "p.xlsx", [["prompt", "=A1"], ["fox", 512]])
    assert (await complaint_of(path)).startswith("p.xlsx: column B has a formula")


TITLES = {
    "one cell": (["My prompts"],),
    "padded": (["My prompts", "", ""],),
    "not first": (["", "", "Spring, 2026", ""],),
    "a row between": (["My prompts"], ["", "", ""]),
    "and a subtitle": (["My prompts"], ["of this spring"]),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["xlsx", ",", ";", "\t"])
@pytest.mark.parametrize("kind", TITLES)
@pytest.mark.parametrize("columns", [None, {"prompt": "caption"}], ids=["prompt", "caption"])
async def test_a_title_above_the_names_is_named(
    tmp_path: Path, kind: str, form: str, columns: dict[str, str] | None
) -> None:
    """The message says which row to remove; --no-header would not help."""
    rows = [*TITLES[kind], [columns["prompt"] if columns else "prompt", "seed", "mine"]]
    rows += [["a fox", "1", "x"], ["an owl", "2", "y"]]
    if form == "xlsx":
        path = workbook(tmp_path / "p.xlsx", rows)
    else:
        path = tmp_path / "p.csv"
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter=form).writerows(rows)
    message = await complaint_of(path, columns=columns)
    assert "row 1 has one cell, " in message
    assert f"and row {len(rows) - 2} has 3: is row 1 a title?" in message
    assert "--no-header" not in message


@pytest.mark.asyncio
async def test_a_prompt_that_is_a_number_is_refused(tmp_path: Path) -> None:
    """A column of numbers is more likely the wrong column than the prompts."""
    path = workbook(tmp_path / "p.xlsx", [["id", "text"], [1984, "fox"]])
    assert "p.xlsx row 2" in await complaint_of(path, columns={"prompt": "id"})
    assert "--prompt-column text" in await complaint_of(path)


@pytest.mark.asyncio
async def test_a_sheet_without_names_is_read_by_place(tmp_path: Path) -> None:
    """Columns of a sheet are given by their place, as those of a .csv are."""
    path = workbook(tmp_path / "p.xlsx", [["a fox, in snow", 512], ["an owl", 256]])
    found = await requests_of(path, header=False, columns={"prompt": "1", "width": "2"})
    assert [(r.prompt, r.width) for r in found] == [("a fox, in snow", 512), ("an owl", 256)]
    assert "--no-header --prompt-column 1" in await complaint_of(path)


NO_WORKBOOKS = [
    pytest.param(b"prompt\nfox\n", "it looks like text: name it .csv", id="text"),
    pytest.param(b"<html>sign in</html>", "it looks like a web page: log in", id="a web page"),
    pytest.param(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), "without a password", id="OLE"),
    pytest.param(b"PK\x03\x04" + bytes(100), "not a whole .xlsx file", id="cut off"),
    pytest.param(b"", "not a whole .xlsx file", id="empty"),
]


@pytest.mark.asyncio
async def test_an_empty_first_sheet_names_the_others(tmp_path: Path) -> None:
    """A list on the second sheet is found by its name."""
    book = openpyxl.Workbook()
    book.create_sheet("Products").append(["prompt"])
    book.save(tmp_path / "p.xlsx")
    said = await complaint_of(tmp_path / "p.xlsx")
    assert said == "p.xlsx: the first sheet is empty; name another one: --sheet NAME ('Products')"


@pytest.mark.asyncio
@pytest.mark.parametrize(("content", "complaint"), NO_WORKBOOKS)
async def test_other_files_are_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    """A file that is no workbook is one line, with the way out."""
    assert complaint in await complaint_of(saved(tmp_path, "p.xlsx", content))


@pytest.mark.asyncio
async def test_another_zip_is_named(tmp_path: Path) -> None:
    """An .ods or an archive that was renamed is no workbook."""
    path = tmp_path / "p.xlsx"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("content.xml", "<x/>")
    assert "save it as .xlsx or CSV UTF-8" in await complaint_of(path)


LAUGHS = b'<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "part", ["xl/worksheets/sheet1.xml", "xl/workbook.xml", SHARED, "xl/styles.xml"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-7"])
async def test_entities_are_not_expanded(tmp_path: Path, part: str, encoding: str) -> None:
    """A document type is refused in every part, also where another encoding would hide it."""

    def laughing(content: bytes) -> bytes:
        root = content[content.index(b"?>") + 2 :] if content.startswith(b"<?") else content
        head = f'<?xml version="1.0" encoding="{encoding}"?>'.encode()
        text = head + LAUGHS + root
        return text if encoding == "utf-8" else text.decode().encode(encoding)

    path = workbook(tmp_path / "p.xlsx", [["prompt"], ["fox"]])
    with_shared_texts(path, shared_texts(["prompt", "owl"]))
    assert [r.prompt for r in await requests_of(path)] == ["owl"]
    changed(path, part, laughing)
    assert "not XML as spreadsheets write it" in await complaint_of(path)


@pytest.mark.asyncio
async def test_a_row_number_beyond_the_sheet_is_refused(tmp_path: Path) -> None:
    """A gap of a billion rows is not counted through."""
    path = workbook(tmp_path / "p.xlsx", [["prompt"], ["fox"]])
    changed(
        path, "xl/worksheets/sheet1.xml", lambda c: c.replace(b'<row r="2"', b'<row r="9999999"')
    )
    assert "a row beyond 1,048,576" in await complaint_of(path)


@pytest.mark.asyncio
async def test_without_openpyxl_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing extra is one line with the command that installs it."""
    path = workbook(tmp_path / "p.xlsx", [["prompt"], ["fox"]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    message = await complaint_of(path)
    assert message.startswith("p.xlsx needs openpyxl: ")
    assert "data" in message


@pytest.mark.asyncio
async def test_several_workbooks_are_one_list(tmp_path: Path) -> None:
    """Workbooks in a folder are shards; the lock file of an open one is passed over."""
    workbook(tmp_path / "1.xlsx", [["prompt"], ["fox"]])
    workbook(tmp_path / "2.xlsx", [["prompt"], ["owl"]])
    saved(tmp_path, "~$2.xlsx", "locked")
    assert [r.prompt for r in await requests_of(tmp_path)] == ["fox", "owl"]
    with pytest.raises(ConfigError, match="packed inside"):
        await plan_of(saved(tmp_path, "p.xlsx.gz", b""))
