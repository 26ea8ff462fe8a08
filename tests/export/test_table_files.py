"""Tables of an export: columns, inert texts, and who may overwrite them."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
from support.saved_runs import rows, save_images

from fluxasync import SinkError, export

pytestmark = pytest.mark.asyncio

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx")


def csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sheet_rows(path: Path) -> list[dict[str, Any]]:
    openpyxl = pytest.importorskip("openpyxl")
    head, *found = openpyxl.load_workbook(path).active.iter_rows()
    names = [cell.value for cell in head]
    return [dict(zip(names, row, strict=True)) for row in found]


async def test_a_table_has_the_path_of_each_image_and_a_column_for_each_extra(tmp_path):
    """Rows with and without extras, in other scripts, nested; the path leads to the file."""
    given = [
        {"index": 0, "prompt": "狐\nund ü"},
        {"index": 1, "extras": {"caption": 'a,"b"', "tags": ["x", "y"]}, "steps": 20},
    ]
    await save_images(tmp_path / "run", given)
    made = await export(tmp_path / "run", "csv")
    assert made.paths == (tmp_path / "run.csv",)
    first, second = csv_rows(made.paths[0])
    paths = [row["path"] for row in (first, second)]
    assert paths == [str(tmp_path / "run" / f"00000{n}.jpg") for n in range(2)]
    assert (first["prompt"], first["extras.caption"], first["seed"]) == ("狐\nund ü", "", "7")
    assert (second["extras.caption"], second["extras.tags"]) == ('a,"b"', '["x", "y"]')
    assert second["parameters.steps"] == "20"


@pytest.mark.parametrize("text", FORMULAS)
async def test_no_text_is_a_formula(tmp_path, text):
    """A CSV has an apostrophe before it; a sheet has a text cell with the text itself."""
    await save_images(tmp_path / "run", [{"index": 0, "prompt": text, "extras": {"note": text}}])
    (row,) = csv_rows((await export(tmp_path / "run", "csv")).paths[0])
    assert (row["prompt"], row["extras.note"]) == (f"'{text}", f"'{text}")
    (cells,) = sheet_rows((await export(tmp_path / "run", "xlsx")).paths[0])
    for cell in (cells["prompt"], cells["extras.note"]):
        assert cell.data_type == "s"
        assert cell.value.strip() == text.strip()


async def test_control_characters_and_long_texts_do_not_break_a_table(tmp_path):
    """XML has no place for them, and a cell of a sheet ends at 32,767 characters."""
    text = "a\x00\x1b[31m\x7f" + "b" * 40_000
    number = 2**60 + 1
    row = {"index": 0, "prompt": text, "extras": {"id": number}}
    await save_images(tmp_path / "run", [row])
    (found,) = csv_rows((await export(tmp_path / "run", "csv")).paths[0])
    assert found["prompt"].startswith("a··[31m·bbb")
    assert found["extras.id"] == str(number)
    (cells,) = sheet_rows((await export(tmp_path / "run", "xlsx")).paths[0])
    assert len(cells["prompt"].value) == 32_767
    assert cells["extras.id"].value == str(number)


@pytest.mark.parametrize("to", ["csv", "xlsx"])
async def test_a_table_is_written_again_unless_somebody_changed_it(tmp_path, to):
    """A grown run replaces its own table; notes that a user added stay."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 2))
    await export(run, to)
    await save_images(run, rows(2, 3))
    (run / "000000.jpg").unlink()
    made = await export(run, to)
    assert (made.images, made.left_out) == (2, {"missing": 1})
    found = csv_rows(made.out) if to == "csv" else sheet_rows(made.out)
    assert len(found) == 2
    changed = made.out.read_bytes() + b"\nmy note"
    made.out.write_bytes(changed)
    with pytest.raises(SinkError, match="move it away"):
        await export(run, to)
    assert made.out.read_bytes() == changed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", f"run.{to}"]


async def test_unfinished_files_of_others_stay_in_the_folder_of_a_table(tmp_path):
    """Another run or export may be writing them; one that has not grown for hours is removed."""
    await save_images(tmp_path / "run", rows(0, 1))
    theirs, left = (tmp_path / f".fluxasync-{digit * 16}.part" for digit in "ab")
    theirs.touch()
    left.touch()
    os.utime(left, (0, 0))
    await export(tmp_path / "run", "csv")
    assert (theirs.exists(), left.exists()) == (True, False)
