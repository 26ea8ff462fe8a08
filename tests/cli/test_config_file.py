"""`fluxasync.toml` and `--env-file`: options and keys that a user repeats; the line wins."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._cli.app import main
from fluxasync._cli.config_file import OPTIONS, read_config
from fluxasync._cli.options import Options, RunOptions

Line = Callable[..., tuple[int, str]]

FILE = """
provider = "bfl"
model = "flux-pro-1.1"
max_cost = 2.5
in-flight = 3
allow-private-network = false
allow-files = ["pictures"]

[param]
width = 512
safety_tolerance = 3
output_format = "png"

[price]
"flux-pro-1.1" = 0.02
flux-dev = 0.01
"""
SHOWN = (
    "from fluxasync.toml: provider bfl, model flux-pro-1.1, max-cost 2.5, in-flight 3, "
    "allow-files pictures, param width=512 safety_tolerance=3 output_format=\"png\", "
    "price flux-pro-1.1=0.02 flux-dev=0.01"
)  # fmt: skip


@pytest.fixture
def line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Line]:
    """Run `fluxasync …` below a folder with a fluxasync.toml: exit code, and all that it prints."""
    (tmp_path / "fluxasync.toml").write_text(FILE, encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "p.txt").write_text("a fox\nan owl\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        code = main(words)
        shown = capfd.readouterr()
        return code, shown.err + shown.out

    before = dict(os.environ)
    yield run
    os.environ.clear()
    os.environ.update(before)


def test_a_file_gives_what_the_line_lacks(line: Line, tmp_path: Path) -> None:
    """The first line says what came from the file; prices of other models do no harm."""
    code, said = line("run", "p.txt", "--dry-run")
    assert said.splitlines()[0] == SHOWN.replace("allow-files ", f"allow-files {tmp_path}/")
    assert (code, "2 images, $0.04 at the given price" in said, "with 3 jobs" in said) == (
        0, True, True,
    )  # fmt: skip


def test_the_line_wins_over_the_file(line: Line) -> None:
    """An option of the line replaces the file's; a parameter of it only that parameter."""
    code, said = line(
        "run", "p.txt", "--dry-run", "--model", "flux-dev", "--param", "width=768", "--max-cost",
        "9", "--grid", "output_format=png,jpeg",
    )  # fmt: skip
    assert code == 0, said
    assert "from fluxasync.toml: provider bfl, in-flight 3, allow-files" in said
    assert "param width=768 safety_tolerance=3, price" in said
    assert "4 images, $0.04" in said


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (("--provider", "cometapi"), "base-url|key-file|accounts"),
        (("--base-url", "http://127.0.0.1:1"), "provider|key-file"),
        (("--simulate",), "base-url|key-file|proxy"),
        (("--models", "flux-dev,flux-pro"), r"\bmodel"),
    ],
)
def test_another_place_on_the_line_takes_nothing_of_the_files_place(
    line: Line, words: tuple[str, ...], unused: str
) -> None:
    """P22 A key of the file's provider is not sent to the line's."""
    Path("fluxasync.toml").write_text(
        'provider = "bfl"\nmodel = "flux-dev"\nbase-url = "https://gateway.example"\n'
        'key-file = "key"\nproxy = "http://127.0.0.1:9"\nmax-cost = 3\n'
    )
    code, said = line("run", "p.txt", "--dry-run", *words)
    assert code == 0, said
    first = said.splitlines()[0]
    assert first.startswith("from fluxasync.toml: ")
    assert "max-cost 3" in first
    assert not re.search(unused, first), first


def test_a_file_is_found_up_to_the_root_of_the_project(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder, or above it until a folder has .git; its paths are relative to itself."""
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (below / "p.txt").write_text("a fox\n")
    monkeypatch.chdir(below)
    assert "from ../../fluxasync.toml" not in line("run", "p.txt", "--dry-run")[1]
    assert f"from {tmp_path}/fluxasync.toml" in line("run", "p.txt", "--dry-run")[1]
    assert "from" not in line("run", "p.txt", "--dry-run", "--no-config")[1]
    (tmp_path / "a" / ".git").mkdir()
    assert "from" not in line("run", "p.txt", "--dry-run")[1]
    code, said = line("run", "p.txt", "--dry-run", "--config", "../../fluxasync.toml")
    assert (code, "provider bfl" in said) == (0, True)
    code, said = line("run", "p.txt", "--config", "x.toml", "--no-config", "--dry-run")
    assert (code, "give one of them" in said) == (2, True)
    code, said = line("run", "p.txt", "--config", "x.toml", "--dry-run")
    assert (code, "x.toml: No such file" in said) == (2, True)


def test_a_file_that_others_can_write_is_not_read(line: Line) -> None:
    """P22 It could send the key to another address."""
    Path("fluxasync.toml").chmod(0o666)
    code, said = line("run", "p.txt", "--dry-run")
    assert (code, "may have been written by another user" in said) == (2, True)
    assert line("run", "p.txt", "--dry-run", "--config", "fluxasync.toml")[0] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('modle = "x"', "unknown key modle; did you mean model?"),
        ("limits = 3", "unknown key limits; did you mean in-flight?"),
        ("cap = 3", "did you mean max-cost?"),
        ('zzz = "x"', "unknown key zzz; known: model, param"),
        ('api_key = "sk-123"', "api_key is a secret"),
        ('[storage-option]\naws_secret_access_key = "sk-123"', "is a secret"),
        ('proxy = "http://me:sk-123@host"', "proxy has a password"),
        ("max-cost = 1\nmax_cost = 2", "given twice"),
        ("[model]\na = 1", "model is no table"),
        ("param = 3", "param is a table"),
        ("max-cost = true", ""),
        ("in-flight = 1979-05-27", "in-flight cannot be a date"),
        ("[param]\nwidth = 1979-05-27", "param cannot hold a date"),
        ("model = sk-123", "cannot be read as TOML"),
        ('in-flight = "many"', "fluxasync.toml: --in-flight many: must be a whole number"),
        ("grace = -1", "fluxasync.toml: --grace"),
    ],
)
def test_a_wrong_file_is_an_error_that_shows_no_secret(line: Line, text: str, said: str) -> None:
    """P22 P30 One line, exit code 2, nothing done."""
    Path("fluxasync.toml").write_text(text)
    code, shown = line("run", "p.txt", "-o", "out", "--simulate")
    assert (code, said in shown) == (2, True), shown
    assert "sk-123" not in shown
    assert not Path("out").exists()


def test_the_options_of_the_file_are_options_of_the_command() -> None:
    """Each name of the file is that of an option, so `--help` explains both."""
    names: set[str] = set()

    def collect(kind: type) -> None:
        for each in kind.__attrs_attrs__:  # type: ignore[attr-defined]
            inner = type(each.default.factory()) if hasattr(each.default, "factory") else None
            if inner is not None and hasattr(inner, "__attrs_attrs__"):
                collect(inner)
            names.add(each.name.replace("_", "-"))

    collect(RunOptions)
    collect(Options)
    assert set(OPTIONS) <= names


def test_values_keep_their_types(tmp_path: Path) -> None:
    """A text that looks like a number stays text, a number keeps its digits."""
    path = tmp_path / "f.toml"
    path.write_text('max-cost = 0.10\n[param]\na = "7"\nb = 7\nc = 2.5\nd = true\ne = ["x"]\n')
    assert read_config(path).options == {
        "--max-cost": ("0.10",),
        "--param": ('a="7"', "b=7", "c=2.5", "d=true", 'e=["x"]'),
    }


# --- .env -----------------------------------------------------------------------------------------


def test_keys_are_read_from_a_file_of_variables(line: Line) -> None:
    """Comments, export, quotes and references; a variable of the environment wins."""
    Path(".env").write_text(
        "# keys\nexport BFL_API_KEY='sk-one two'\nCOMETAPI_KEY=sk-two # no\nA=${BFL_API_KEY}!\n"
    )
    Path(".env").chmod(0o600)
    os.environ["COMETAPI_KEY"] = "sk-three"
    os.environ.pop("BFL_API_KEY", None)
    code, said = line("run", "p.txt", "--dry-run", "--env-file", ".env")
    assert code == 0
    assert os.environ["BFL_API_KEY"] == "sk-one two"
    assert os.environ["A"] == "sk-one two!"
    assert os.environ["COMETAPI_KEY"] == "sk-three"
    assert "COMETAPI_KEY is set in the environment, which wins over .env" in said
    assert "sk-" not in said


@pytest.mark.parametrize(
    ("content", "mode", "code", "said"),
    [
        (b"BFL_API_KEY=sk-1\n", 0o644, 0, "warning: .env can be read by every user"),
        (b"BFL_API_KEY=sk-1\n", 0o640, 0, "read by every user of its group; chmod 600 .env"),
        (b"BFL_API_KEY=sk-1\nsk-2 sk-3\n", 0o600, 2, "line 2 is not NAME=VALUE"),
        (b"\xff\xfes\0k\0-\0", 0o600, 2, "not a file of variables in UTF-8"),
        (None, 0o600, 2, "No such file"),
    ],
)
def test_what_is_wrong_with_a_file_of_keys_shows_no_value(
    line: Line, content: bytes | None, mode: int, code: int, said: str
) -> None:
    """P22 A warning or an error names the file and the line, never what is in it."""
    if content is not None:
        Path(".env").write_bytes(content)
        Path(".env").chmod(mode)
    ended, shown = line("run", "p.txt", "--dry-run", "--no-config", "--env-file", ".env")
    assert (ended, said in shown) == (code, True), shown
    assert "sk-" not in shown
