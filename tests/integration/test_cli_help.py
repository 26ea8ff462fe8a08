"""Help is instant, and every way to start the command works or names what is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.patience import patient

import fluxasync
from fluxasync._core.extras import install_command

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

MODULE = (sys.executable, "-m", "fluxasync")
QUICK = ("--model", "flux-2-klein-4b")

#: what few runs need
RARE = (
    "fluxasync.simulator", "fluxasync.gallery", "fluxasync._cli.account_pool", "fluxasync.cluster",
    "aiohttp.web", "PIL", "pyarrow", "openpyxl", "obstore", "rich",
)  # fmt: skip


def started(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=patient(),
        env=os.environ | variables,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--help",), id="the command"),
        pytest.param(("run", "--help"), id="a verb"),
        pytest.param(("--version",), id="the version"),
    ],
)
def test_help_does_not_import_aiohttp(arguments: tuple[str, ...]) -> None:
    """`--help` imports no heavy package."""
    ended = started(sys.executable, "-X", "importtime", "-m", "fluxasync", *arguments)
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert ended.returncode == 0
    assert "cyclopts" in imported
    assert not imported & {"aiohttp", "aiofiles", "uvloop", "PIL", "fluxasync._engine.session"}


def test_version_is_the_packages() -> None:
    """`--version` says what `fluxasync.__version__` says, and nothing else."""
    ended = started(*MODULE, "--version")
    assert (0, fluxasync.__version__) == (ended.returncode, ended.stdout.strip())


def test_help_names_every_verb() -> None:
    """The name alone prints the list of commands."""
    ended = started(*MODULE)
    assert ended.returncode == 0
    assert not {"generate", "run", "simulate", "models"} - set(ended.stdout.split())


def test_help_has_no_line_breaks_of_its_own() -> None:
    """A terminal breaks lines; those of the code would break them twice."""
    wide = started(*MODULE, "resolve", "--help", COLUMNS="300").stdout
    assert "3: with --reconcile, a job ended without an image. 4: some of the printed" in wide
    assert "among the account's tasks and collect their images. Free; needs the key and" in wide
    narrow = started(*MODULE, "bill", "--help", COLUMNS="60").stdout.splitlines()
    assert max(map(len, narrow)) <= 60
    exit_codes = next(n for n, line in enumerate(narrow) if line.startswith("Exit code 0"))
    assert narrow[exit_codes - 1].strip() == ""  # paragraphs stay apart


def test_help_offers_no_flag_for_the_key() -> None:
    """Arguments are seen by every user of the machine, so a key is never one."""
    ended = started(*MODULE, "run", "--help")
    assert "--key-file" in ended.stdout
    assert "--api-key" not in ended.stdout
    assert "--with-parent" not in started(*MODULE, "simulate", "--help").stdout


def test_a_core_install_names_the_missing_extra() -> None:
    """Without the extra there is one line with the next step, not a traceback."""
    code = (
        "import sys; sys.modules['cyclopts'] = None; sys.argv[1:] = ['models'];"
        "from fluxasync.__main__ import main; sys.exit(main())"
    )
    ended = started(sys.executable, "-c", code)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert install_command("cli") in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_run_loads_only_what_it_uses(tmp_path: Path) -> None:
    """A start is quick: the parts of other commands and of rare options are not imported."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\n")
    line = ("run", str(prompts), "-o", str(tmp_path / "out"), "--simulate", "--quiet", *QUICK)
    code = (
        f"import sys; from fluxasync._cli.app import main; code = main({line}); rare = {RARE};"
        "sys.exit(code or ' '.join(name for name in rare if name in sys.modules) or 0)"
    )
    ended = started(sys.executable, "-c", code)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_command_collects_garbage_once_it_runs() -> None:
    """Only a start does without garbage collections: a run may last for days."""
    code = (
        "import gc, sys; from fluxasync.__main__ import main; sys.argv[1:] = ['status', 'nowhere'];"
        "main(); sys.exit(0 if gc.isenabled() and gc.get_freeze_count() else 1)"
    )
    assert started(sys.executable, "-c", code).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("paint",), 'Unknown command "paint"', id="unknown verb"),
        pytest.param(("run", "p.txt", "--outt", "x"), "Did you mean --out", id="unknown option"),
        pytest.param(
            ("run", "p.txt", "--template", "x"), "Did you mean --prompt?", id="another tool's name"
        ),
        pytest.param(("run", "p.txt", "--n", "0"), "Must be >= 1", id="out of range"),
        pytest.param(
            ("run", "p", "--bogus"), "--bogus. See fluxasync run --help", id="no likeness"
        ),
        pytest.param(("generate", "a fox"), "--out", id="missing option"),
        pytest.param(
            ("generate", "a", "red", "fox", "-o", "f"),
            "unexpected red fox: put a prompt of several words in quotes",
            id="prompt without quotes",
        ),
        pytest.param(("run", "a.txt", "b.txt"), "add -o DIR", id="two files, no folder"),
        pytest.param(
            ("run", "p", "--in-flight", "many"),
            "--in-flight many: must be a whole number or auto",
            id="not a limit",
        ),
        pytest.param(("run", "p", "--n", "x"), "--n x: must be a whole number", id="not whole"),
        pytest.param(("run", "p", "--grace", "x"), "--grace x: must be a number", id="no number"),
        pytest.param(
            ("bench", "--arrivals", "x"), "--arrivals x: must be constant or poisson", id="choice"
        ),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(
    arguments: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """P30: usage errors exit with 2 and print one line, with nothing on standard output."""
    from fluxasync._cli.app import main

    assert main(arguments) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1


URL = "s3://bucket/run"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("generate", "a fox", "-o", URL), id="generate"),
        pytest.param(("run", "p.txt", "-o", "out", "--state", URL), id="state"),
        pytest.param(("run", URL, "-o", "out", "--dry-run"), id="a list"),
        pytest.param(("run", "p.txt", "-o", "out", "--wildcards", URL), id="wildcards"),
        pytest.param(("run", "p.txt", "-o", "out", "--key-file", URL), id="key file"),
        pytest.param(("bench", "-o", URL, "--simulate"), id="bench"),
        pytest.param(("bench", "compare", URL, "out"), id="compare"),
        pytest.param(("bench", "--prompts", URL, "--simulate"), id="a benchmark's list"),
    ],
)
def test_a_url_is_not_taken_for_a_folder(
    arguments: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every verb refuses `scheme://` as typed, and makes no folder that is named `s3:`."""
    from fluxasync._cli.app import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a fox")
    assert main(arguments) == 2
    assert f"{URL} is a URL: give a local path" in capfd.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["p.txt"]


def test_models_lists_the_catalogue_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    """A program gets each model on a line, with money and seconds as numbers."""
    from fluxasync._cli.app import main

    assert main(["models", "--json"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [model.name for model in fluxasync.models()] == [row["name"] for row in rows]
    assert all(row["price"] > 0 and row["typical_seconds"] > 0 for row in rows)


def test_models_table_has_a_line_for_each_model(capfd: pytest.CaptureFixture[str]) -> None:
    """A person sees every model's name and price."""
    from fluxasync._cli.app import main

    assert main(["models"]) == 0
    shown = capfd.readouterr().out
    assert all(model.name in shown for model in fluxasync.models())
    assert "$0.025" in shown


@pytest.mark.parametrize("columns", [40, 80, 100, 139, 140, 200])
def test_models_fit_the_screen_and_no_name_is_cut(columns: int) -> None:
    """At every width each model's name, sizes and own parameters are there whole."""
    from fluxasync._cli.models_command import table

    lines = table(columns)
    assert all(len(line) <= max(columns, 80) for line in lines)
    words = {word.strip(",") for line in lines for word in line.split()}
    for model in fluxasync.models():
        assert model.name in words
        own = {"steps", "guidance", "canny_low_threshold"} & set(model.parameters)
        assert own <= words
    assert any("256–1440, step 32" in line for line in lines)
    assert any("64+, step 16, ≤4 MP" in line for line in lines)


LONG = "w" * 500
MANY = "word " * 100
DEEP = "w/" * 3_000

OPTIONS = (
    "--model", "--map", "--param", "--grid", "--seeds", "--models", "--name", "--retry", "--n",
    "--max-cost", "--price", "--in-flight", "--base-url", "--key-file", "--prompt-column", "--rows",
    "--proxy", "--provider", "--syntax", "--wildcards", "--allow-files", "--out", "--limit",
)  # fmt: skip


@pytest.mark.parametrize("value", [LONG, MANY, DEEP], ids=["a run", "words", "a path"])
@pytest.mark.parametrize(
    "arguments",
    [pytest.param(("run", "p.txt", "--dry-run", name), id=name) for name in OPTIONS]
    + [
        pytest.param(("run", "--dry-run"), id="run LIST"),
        pytest.param(("gallery",), id="gallery FOLDER"),
        pytest.param(("status",), id="status FOLDER"),
        pytest.param(("resolve", "x", "--job-id"), id="resolve --job-id"),
        pytest.param(("bench", "--simulate", "-o"), id="bench -o"),
        pytest.param(("models", "--check"), id="models --check FILE"),
    ],
)
def test_no_message_shows_more_than_120_characters_of_an_argument(
    arguments: tuple[str, ...],
    value: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Case 16: an argument may be an image in base64. No argument ends in a traceback."""
    from fluxasync._cli.app import main

    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a fox\n")
    main((*arguments, value))
    shown = capfd.readouterr().err
    runs = re.findall(r"(?:word ?)+|(?:w/?)+", shown)
    assert max(map(len, runs), default=0) <= 120, shown[:400]
