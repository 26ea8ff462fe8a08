"""`--install-completion`: the shell completes commands and options, and nothing else is changed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.patience import patient

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._cli.app import main

#: asks bash what it would complete, for the words after the script
ASK = """
source "$1"; shift
complete -p fluxasync >/dev/null
function="$(complete -p fluxasync | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "$function"; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/usr/bin/bash")
    for name in ("ZSH", "ZSH_CUSTOM", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_values(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The script of this terminal's shell completes; hidden options are not offered."""
    script = tmp_path / "script"
    assert main(["--install-completion", "-o", str(script)]) == 0
    assert capfd.readouterr().out.strip() == str(script)

    def completed(*words: str) -> set[str]:
        asked = subprocess.run(
            ["bash", "-c", ASK, "bash", str(script), *words], capture_output=True, text=True,
            check=True, timeout=patient(),
        )  # fmt: skip
        return set(asked.stdout.split())

    assert {"run", "resolve"} <= completed("fluxasync", "r")
    assert "doctor" in completed("fluxasync", "doc")
    assert "--max-cost" in completed("fluxasync", "run", "--max")
    assert {"never", "auto", "always"} <= completed("fluxasync", "run", "--reconcile", "")
    assert "--with-parent" not in script.read_text("utf-8")


@pytest.mark.parametrize(("shell", "startup"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_the_shell_finds_its_script(
    shell: str, startup: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The start-up file names the script once, however often it is installed, and is kept."""
    (tmp_path / startup).write_text("alias ll='ls -l'\n")
    for _ in range(2):
        assert main(["--install-completion", "--shell", shell]) == 0
    script = Path(capfd.readouterr().out.splitlines()[-1])
    assert script.is_relative_to(tmp_path)
    text = (tmp_path / startup).read_text("utf-8")
    assert "alias ll='ls -l'\n" in text
    assert text.count(f"{script.parent}") in (1, 2)  # bash: tested, then read, on one line


def test_a_shell_that_is_not_known_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nothing is written for a shell that has no script, or to a place that takes none."""
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert main(["--install-completion"]) == 2
    assert "--shell bash" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    line = ["--install-completion", "--shell", "fish", "-o", str(tmp_path / "file/script")]
    assert main(line) == 2
    assert "say where: -o FILE" in capfd.readouterr().err
