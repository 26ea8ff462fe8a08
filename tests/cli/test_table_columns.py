"""Prompts and file names from the columns of a list: `--prompt` and `--name`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._cli.app import main

Line = Callable[..., tuple[int, str]]


@pytest.fixture
def line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Line:
    """Run `fluxasync …` in a folder with a table: exit code, and all that it prints."""
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("sku,colour,product\nA-1,red,mug\nA/2,blue,\n", encoding="utf-8")

    def run(*words: str) -> tuple[int, str]:
        code = main(words)
        shown = capfd.readouterr()
        return code, shown.out + shown.err

    return run


def test_a_template_is_filled_in_before_the_price_is_shown(line: Line) -> None:
    """`--prompt` with a grid: the images of the plan are those of the filled prompts."""
    code, said = line("run", "p.csv", "--dry-run", "--prompt", "{colour} {sku}", "--seeds", "1..3")
    assert (code, "6 images" in said) == (0, True)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{color}", "no column 'color', which the template names (columns: 'sku', 'colour'"),
        ("{product}", "p.csv row 3: column 'product' is empty"),
        ("{product", "never closed"),
    ],
)
def test_what_cannot_be_filled_in_leaves_no_folder(line: Line, template: str, said: str) -> None:
    """The mistake is said with exit code 2 before a simulator starts or a folder is made."""
    code, shown = line("run", "p.csv", "-o", "out", "--simulate", "--prompt", template)
    assert (code, said in shown) == (2, True)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{skew}.{ext}", "no column 'skew', which the file name names (columns: 'sku', 'colour'"),
        ("{indx}.{ext}", "fields of every image: index, occurrence, seed, key, model"),
        ("{product}.{ext}", "p.csv row 3: column 'product' is empty, and the file name needs it"),
        ("../{sku}.{ext}", "between slashes"),
    ],
)
def test_a_name_without_its_column_leaves_no_folder(line: Line, name: str, said: str) -> None:
    """P24 What a name lacks is said before anything is spent."""
    words = ("--prompt", "{colour} fox", "--name", name)
    code, shown = line("run", "p.csv", "-o", "out", "--simulate", *words)
    assert (code, said in shown) == (2, True)
    assert not Path("out").exists()


def test_files_are_named_by_columns_and_the_columns_stay_in_the_metadata(line: Line) -> None:
    """P24 Each image has its SKU as name, also with a slash in it; two of one name are both kept,
    and the same command again finds them."""
    words = ("--prompt", "{colour} fox", "--name", "{guidance}/{sku}.{ext}")
    command = (
        "run", "p.csv", "-o", "out", "--simulate", *words, "--grid", "guidance=2,3", "--seeds",
        "1,2",
    )  # fmt: skip
    code, _ = line(*command)
    assert code == 0
    files = sorted(str(path.relative_to("out")) for path in Path("out").glob("[0-9]*/*"))
    assert files == [
        f"{guidance}/{name}.jpg" for guidance in (2, 3)
        for name in ("A-1-2", "A-1", "A-2-2", "A-2")
    ]  # fmt: skip
    rows = [json.loads(text) for text in Path("out/metadata.jsonl").read_text().splitlines()]
    assert sorted(row["file_name"] for row in rows) == files
    assert {row["extras"]["sku"] for row in rows} == {"A-1", "A/2"}
    code, said = line(*command)
    assert (code, "0 new" in said) == (0, True), said
