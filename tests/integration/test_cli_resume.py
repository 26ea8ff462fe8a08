"""A folder keeps the line of its run: `resume DIR` and a bare `run` continue it; nothing is paid
twice, and what differs is said before anything is spent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from support.patience import patient
from test_cli import FAST, SimulatorCommand, running_simulator, started

from fluxasync._cli.app import main
from fluxasync._store.output_root import cache_folder

Line = Callable[..., tuple[int, str]]
FILE = ".fluxasync/project.json"


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorCommand]:
    with running_simulator("--latency", "0..0") as running:
        yield running


@pytest.fixture
def line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Line:
    """Run `fluxasync …` in a folder with a table: exit code, and all that it prints."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    Path("p.csv").write_text("sku,colour\nA1,red\nA2,blue\nA3,green\n", encoding="utf-8")

    def run(*words: object) -> tuple[int, str]:
        code = main([str(word) for word in words])
        shown = capfd.readouterr()
        return code, shown.err + shown.out

    return run


def first_line(server: SimulatorCommand, *more: str) -> tuple[str, ...]:
    template = ("--prompt", "{colour} fox", "--name", "{sku}.{ext}")
    return ("run", "p.csv", "-o", "out", "--base-url", server.url, *FAST, *template, *more)


def names() -> list[str]:
    return sorted(path.name for path in Path("out").glob("*.jpg"))


def test_a_run_is_continued_by_its_folder_alone(line: Line, server: SimulatorCommand) -> None:
    """P1 `resume DIR` is the same line again: nothing is paid twice, and the rest is made."""
    before = server.charges()
    assert line(*first_line(server, "--limit", "2"))[0] == 0
    code, said = line("resume", "out", "--limit", "3")
    assert code == 0, said
    assert said.startswith("continuing: fluxasync run p.csv -o out --model"), said
    assert "options changed since the last run: --limit 2 → 3" in said
    assert names() == ["A1.jpg", "A2.jpg", "A3.jpg"]
    code, said = line("run")
    assert (code, "0 new" in said, "changed" in said) == (0, True, False), said
    assert server.charges() == before + 3


def test_a_changed_list_is_said_before_anything_is_spent(
    line: Line, server: SimulatorCommand
) -> None:
    """P27 The list that the folder knew and today's are compared by their content."""
    assert line(*first_line(server))[0] == 0
    with Path("p.csv").open("a", encoding="utf-8") as file:
        file.write("A4,grey\n")
    code, said = line("resume", "out", "--dry-run")
    assert code == 0
    assert "the list changed since the last run: p.csv" in said
    code, said = line(*first_line(server, "--seeds", "7"))
    assert "options changed since the last run: --seeds (not given) → 7" in said
    shutil.copy("p.csv", "q.csv")
    other = tuple(word.replace("p.csv", "q.csv") for word in first_line(server, "--seeds", "7"))
    code, said = line(*other)
    assert "another list than in the last run: q.csv, and not p.csv" in said
    assert "options changed" not in said


def test_a_run_is_resumed_from_its_folder_and_is_no_list(
    line: Line, server: SimulatorCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside the folder no name is needed; the files of a run are not taken for prompts."""
    assert line(*first_line(server, "--limit", "1"))[0] == 0
    Path("out/picks.jsonl").touch()
    code, said = line("run", "out", "-o", "other", "--dry-run")
    assert (code, "out is the folder of a run and has no list" in said) == (2, True), said
    monkeypatch.chdir("out")
    code, said = line("resume", "--dry-run")
    assert (code, said.startswith("continuing: fluxasync run")) == (0, True), said


def test_a_run_is_not_continued_in_another_folder(line: Line, server: SimulatorCommand) -> None:
    """Every image would be paid again there. An empty path is the folder one is in."""
    assert line(*first_line(server, "--limit", "1"))[0] == 0
    code, said = line("resume", "out", "-o", "other", "--dry-run")
    assert (code, "out cannot be continued in other" in said) == (2, True), said
    assert line("resume", "out", "-o", "out/", "--dry-run")[0] == 0
    for words in (("run", "p.csv", "-o", ""), ("export", "out", "--to", "csv", "-o", "")):
        code, said = line(*words)
        assert (code, "--out: the path is empty" in said) == (2, True), said


def test_a_path_that_is_not_utf8_is_kept(line: Line, server: SimulatorCommand) -> None:
    """A name in Latin-1, as older archives have them, makes no damaged record."""
    name = os.fsdecode(b"caf\xe9.txt")
    Path(name).write_text("a fox\n", encoding="utf-8")
    code, said = line("run", name, "-o", "out", "--base-url", server.url, *FAST)
    assert code == 0, said
    code, said = line("resume", "out", "--dry-run")
    assert (code, "damaged" in said) == (0, False), said


def test_a_secret_that_was_never_written_is_made_again(
    line: Line, server: SimulatorCommand
) -> None:
    """A full disk may leave an empty file, with which no line would ever be resumed."""
    secret = cache_folder() / "line-secret"
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_bytes(b"")
    assert line(*first_line(server, "--limit", "1"))[0] == 0
    assert line("resume", "out", "--dry-run")[0] == 0


def test_a_project_is_moved_as_a_whole(
    line: Line, server: SimulatorCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths are kept from the folder, so list and images go elsewhere together."""
    assert line(*first_line(server, "--limit", "1", "--allow-files", "."))[0] == 0
    (tmp_path / "project").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    code, said = line("resume", "moved/out", "--limit", "3")
    assert code == 0, said
    assert "fluxasync run moved/p.csv -o moved/out" in said
    assert len([*(tmp_path / "moved/out").glob("*.jpg")]) == 3
    monkeypatch.chdir(tmp_path / "moved/out")
    code, said = line("run")
    assert (code, "0 new" in said) == (0, True), said


def test_secrets_and_decisions_are_not_kept(
    line: Line, server: SimulatorCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P22 The record has no key, no password and nothing that pays again."""
    monkeypatch.setenv("COMETAPI_KEY", "sk-not-in-the-folder")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    proxy = "http://me:a-password@127.0.0.1:9"
    code, said = line(
        *first_line(server, "--proxy", proxy, "--retry", "failed", "--yes", "--param", "seed=20")
    )
    assert code in (0, 9), said
    text = Path("out", FILE).read_text()
    assert "a-password" not in text
    assert "sk-not" not in text
    kept = json.loads(text)
    assert kept["left_out"] == ["--proxy"]
    assert {"--retry", "--yes"}.isdisjoint(kept["options"])
    assert kept["options"]["--param"] == ["seed=20"]
    code, said = line("resume", "out", "--dry-run")
    assert "--proxy is not kept, because it has a secret: give it again" in said


def test_a_run_into_a_bucket_is_continued_where_it_began(
    line: Line, server: SimulatorCommand, tmp_path: Path
) -> None:
    """P1 The URL alone continues it on this machine, and so does the folder of its record."""
    pytest.importorskip("obstore", reason="the extra `store` is not installed")
    before = server.charges()
    url = f"file://{tmp_path}/bucket/run"
    words = tuple(url if word == "out" else word for word in first_line(server, "--limit", "1"))
    assert line(*words)[0] == 0
    code, said = line("resume", url, "--limit", "2")
    assert (code, "options changed since the last run: --limit 1 → 2" in said) == (0, True), said
    assert server.charges() == before + 2
    words = tuple(word.replace("bucket", "other") for word in words)
    assert line(*words, "--state", "record")[0] == 0
    code, said = line("resume", "record", "--limit", "2")
    assert (code, "1 new, 1 already there" in said) == (0, True), said
    assert server.charges() == before + 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("resume", "nowhere"), "nowhere is not the folder of a run; one begins with fluxasync"),
        (("resume", "s3://bucket/run"), "fluxasync run LIST -o s3://bucket/run"),
        (("run",), "no prompt list: fluxasync run LIST -o DIR"),
    ],
)
def test_what_cannot_be_continued_names_the_line(line: Line, words: tuple[str, ...], said: str):
    """Exit code 2, and the line that would do it."""
    code, shown = line(*words)
    assert (code, said in shown) == (2, True), shown


def test_odd_records_are_refused(line: Line, server: SimulatorCommand) -> None:
    """P22 A damaged, newer or foreign record stops `resume`; the whole line replaces it."""
    assert line(*first_line(server, "--limit", "1"))[0] == 0
    kept = json.loads(Path("out", FILE).read_text())
    for odd, said in (
        ("{", "is damaged"),
        (json.dumps(kept | {"version": 9}), "of a newer version"),
        (json.dumps(kept | {"source": ["-"]}), "pipe it in again: … | fluxasync run -"),
        (
            json.dumps(kept | {"options": {"--base-url": ["https://evil.example"]}}),
            "was not written by you on this machine; check it, then give it whole: fluxasync run "
            "p.csv -o out --base-url https://evil.example",
        ),
    ):
        Path("out", FILE).write_text(odd)
        code, shown = line("resume", "out")
        assert (code, said in shown) == (2, True), shown
    assert line(*first_line(server, "--limit", "1"))[0] == 0
    assert json.loads(Path("out", FILE).read_text())["options"] == kept["options"]
    shutil.copytree("out", "again")
    code, shown = line("run")
    assert (code, "several runs here (again, out)" in shown) == (2, True), shown


def test_a_killed_run_is_resumed(line: Line, tmp_path: Path) -> None:
    """P1 F151 After kill -9 the folder alone continues the run: each prompt is charged once."""
    with running_simulator("--latency", "0.2..0.4") as server:
        child = started(
            *first_line(server, "--seeds", "1..4", "--in-flight", "2"),
            cwd=Path.cwd(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while server.charges() < 3:
            assert child.poll() is None, child.communicate()[1]
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=patient())
        code, said = line("resume", "out")
        doubts = 2 if code == 4 else 0  # what was being sent, with the answer not recorded
        assert code in (0, 4), said
        assert 12 - doubts <= len(names()) <= server.charges() <= 12
        assert line("resume", "out")[0] == code
        assert server.charges() <= 12
