"""What the command's child processes are given: our code, no code of the working folder, no key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gallery_folders import Folder
from test_cli import SimulatorCommand, running_simulator

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")
pytest.importorskip("PIL", reason="the extra `image` is not installed")

from support.patience import patient

import fluxasync
from fluxasync._core.isolated_process import start

#: what Python puts first on the path for a `-P` command is what it puts there for `fluxasync`
COMMAND = (sys.executable, "-P", "-m", "fluxasync")
KEY = "sk-canary-5d20e1"
#: where a key may stand: the providers' variables, and one that a user's script made up
KEYED = {"COMETAPI_KEY": KEY, "BFL_API_KEY": KEY, "MY_FLUX_KEY": KEY,
         "COMETAPI_ACCESS_TOKEN": KEY}  # fmt: skip

#: modules that a child imports, or that hide one of ours
PLANTED = (
    "json.py", "resource.py", "types.py", "random.py", "sitecustomize.py", "PIL/__init__.py",
    "attr/__init__.py", "fluxasync/__init__.py", "fluxasync.py",
)  # fmt: skip
PLANT = """
import os
with open(os.path.join({folder!r}, "RAN"), "a") as file:
    file.write({name!r} + "\\n")
"""

#: read by every Python that starts with this on its path
REPORTS = """
import json, os, sys
with open(os.path.join({folder!r}, f"{{os.getpid()}}.json"), "w") as file:
    json.dump([sys.orig_argv, dict(os.environ), sys.path], file)
"""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A working folder with planted modules, and a prompt file."""
    folder = tmp_path / "received"
    for name in PLANTED:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PLANT.format(folder=str(folder), name=name))
    (folder / "prompts.txt").write_text("a fox\na lamp\n")
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorCommand]:
    with running_simulator("--latency", "0..0") as server:
        yield server


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """An environment with keys, in which every Python leaves a report in `reports`."""
    site = tmp_path / "site"
    (tmp_path / "reports").mkdir()
    site.mkdir()
    (site / "sitecustomize.py").write_text(REPORTS.format(folder=str(tmp_path / "reports")))
    inherited = os.environ.get("PYTHONPATH", "")
    paths = os.pathsep.join(filter(None, [str(site), inherited]))
    return os.environ | KEYED | {"PYTHONPATH": paths} | more


def children(tmp_path: Path, word: str) -> list[tuple[dict[str, str], list[str]]]:
    """The environments and module paths of the Pythons that were started with this word."""
    reports = [json.loads(path.read_text()) for path in (tmp_path / "reports").iterdir()]
    return [(environ, path) for argv, environ, path in reports if word in argv]


def run(*arguments: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd, env=env, capture_output=True, text=True, timeout=patient(120),
    )  # fmt: skip


#: what stands on the command line of the child, and a command that starts it
STARTERS = [
    pytest.param(
        "fluxasync.simulator", ("generate", "a fox", "--simulate", "-o", "fox.jpg"), id="generate"
    ),
    pytest.param(
        "fluxasync.simulator", ("run", "prompts.txt", "--simulate", "-o", "o"), id="run --simulate"
    ),
    pytest.param(
        "--with-parent",
        ("run", "prompts.txt", "--watch", "-o", "o", "--model", "flux-2-klein-4b"),
        id="run --watch",
    ),
    pytest.param("fluxasync.gallery.thumbnail_worker", ("gallery", "o"), id="gallery"),
    pytest.param(
        "fluxasync.simulator",
        ("bench", "--simulate", "--images", "2", "--in-flight", "1", "-o", "b"),
        id="bench",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("word", "arguments"), STARTERS)
@pytest.mark.slow
def test_no_child_runs_code_of_the_working_folder_or_has_a_key(
    tmp_path, planted, server, word, arguments
):
    """Modules beside the prompts are data: no child imports them, and none is given a key."""
    if arguments[0] == "gallery":
        Folder(planted / "o").saved()
    if "--watch" in arguments:
        arguments = (*arguments, "--base-url", server.url)
    if arguments[0] == "bench":
        pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    found = run(*arguments, cwd=planted, env=environment(tmp_path))
    assert found.returncode == 0, found.stderr
    assert not (planted / "RAN").exists(), (planted / "RAN").read_text()
    started = children(tmp_path, word)
    assert started != []
    for environ, path in started:
        assert KEY not in json.dumps(environ)
        assert not {"", ".", str(planted)} & set(path)


def test_a_child_keeps_what_its_user_set_for_python_and_the_machine(tmp_path, server):
    """Locale, temporary files, home and Python's own switches hold in a child too."""
    given = {
        "LC_ALL": "C.UTF-8", "TMPDIR": str(tmp_path), "HOME": str(tmp_path), "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "7", "PYTHONUTF8": "1", "COVERAGE_PROCESS_START": str(tmp_path / "rc"),
        "LD_LIBRARY_PATH": "/opt/lib",
    }  # fmt: skip
    Folder(tmp_path / "o").saved()
    found = run("gallery", "o", cwd=tmp_path, env=environment(tmp_path, **given))
    assert found.returncode == 0, found.stderr
    ((environ, _), *_) = children(tmp_path, "fluxasync.gallery.thumbnail_worker")
    assert given == {name: environ.get(name) for name in given}


@pytest.mark.asyncio
async def test_a_child_starts_from_a_working_folder_that_is_gone(tmp_path, monkeypatch):
    """A removed working folder ends no child, and is on no path."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    child = await start("fluxasync.gallery.thumbnail_worker")
    said, _ = await child.communicate(b'["missing.png", "thumb.webp"]\n')
    assert said == b'"missing"\n'


def copied_package(to: Path) -> Path:
    """A clone: the package in a folder that is not installed anywhere."""
    source = Path(fluxasync.__file__).parent
    shutil.copytree(source, to / "fluxasync", ignore=shutil.ignore_patterns("__pycache__"))
    init = to / "fluxasync" / "__init__.py"
    init.write_text(init.read_text() + '\nopen(__file__ + ".ran", "a").write("x\\n")\n')
    return to


@pytest.mark.parametrize(
    ("options", "python_path"),
    [
        pytest.param((), ".", id="PYTHONPATH=."),
        pytest.param((), "", id="python -m in the clone"),
        pytest.param(("-P",), "{clone}", id="PYTHONPATH, absolute"),
    ],
)
def test_a_clone_starts_its_own_children(tmp_path, options: tuple[str, ...], python_path: str):
    """A copy that is only on the path, beside an installed one, is what its child runs too."""
    clone = copied_package(tmp_path / "clone")
    Folder(tmp_path / "o").saved()
    env = environment(tmp_path)
    own = python_path.format(clone=clone)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [own, env["PYTHONPATH"]]))
    found = subprocess.run(
        [sys.executable, *options, "-m", "fluxasync", "gallery", str(tmp_path / "o")],
        cwd=clone, env=env, capture_output=True, text=True, timeout=patient(120),
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    ran = (clone / "fluxasync" / "__init__.py.ran").read_text().splitlines()
    assert len(ran) >= 2, "the child ran another copy"


#: imports without what lies beside it, and only then has its folder first on the path
SCRIPT = """
import sys
beside = sys.path.pop(0)
import asyncio
from fluxasync._core.simulator_process import simulator_process
sys.path.insert(0, beside)

async def main():
    async with simulator_process() as url:
        print(url)

asyncio.run(main())
"""


def test_a_script_with_a_module_beside_it_starts_its_children_all_the_same(tmp_path, planted):
    """The folder of a user's script, first on its own path, is not on the child's."""
    script = planted / "mine.py"
    script.write_text(SCRIPT)
    found = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=patient(),
    )  # fmt: skip
    assert found.stdout.startswith("http://127.0.0.1:"), found.stderr
    assert not (planted / "RAN").exists(), (planted / "RAN").read_text()


def test_one_function_starts_every_child() -> None:
    """No other file starts a process of the package's code. The install hint only names the
    interpreter, and a hook starts a user's command, which is no code of ours."""
    words: dict[str, Any] = {}
    package = Path(fluxasync.__file__).parent
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        hits = [w for w in ("sys.executable", "subprocess_exec", "subprocess_shell", "Popen",
                            "import subprocess", "multiprocessing", "os.system", "os.exec",
                            "os.spawn", "os.posix_spawn", "os.fork(") if w in text]  # fmt: skip
        if hits:
            words[path.relative_to(package).as_posix()] = hits
    assert words.pop("_core/extras.py") == ["sys.executable"]
    assert words.pop("_batch/hooks/commands.py") == ["subprocess_exec", "import subprocess"]
    assert list(words) == ["_core/isolated_process.py"], words
