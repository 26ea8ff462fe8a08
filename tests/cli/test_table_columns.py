"""The command line's `--prompt`: prompts from the columns of a list."""

from __future__ import annotations

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
