"""Case 21: closed standard descriptors, and a full device, end in the documented exit codes.

Reported of libuv, which aborts when it closes the descriptors 0 to 2 (libuv/libuv#4558, #2962).
Other members of the kind: daemons whose children die at their start because descriptor 0 is gone
(Anantys-oss/koan#273), log files that got the number 0 and are overwritten by /dev/null
(getdango/dango#339), and a standard output without room.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.interrupted_tasks import simulator_thread
from support.patience import patient

from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

pytestmark = pytest.mark.slow  # each test starts processes

CLOSED = {"stdin": "0<&-", "stdout": "1>&-", "stderr": "2>&-", "all": "0<&- 1>&- 2>&-"}
MODULE = ("-m", "fluxasync")
#: the command as it is without the extra `speed`
WITHOUT_UVLOOP = (
    "-c",
    "import sys; sys.modules['uvloop'] = None; "
    "from fluxasync.__main__ import main; sys.exit(main())",
)
FAST = ("--model", "flux-2-klein-4b")

every_closed = pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with simulator_thread(Scenario(latency=(0, 0))) as running:
        yield running


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a kite\na stone bridge\n")
    return path


def command(
    *arguments: object, redirected: str, start: tuple[str, ...] = MODULE, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command with redirections of the shell."""
    line = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirected}', "sh", *line],
        cwd=folder, capture_output=True, text=True, timeout=patient(), check=False,
    )  # fmt: skip


@every_closed
@pytest.mark.parametrize("start", [MODULE, WITHOUT_UVLOOP], ids=["fastest loop", "asyncio"])
def test_a_run_with_closed_descriptors_saves_its_images(
    closed: str, start: tuple[str, ...], simulator: Simulator, prompts: Path
):
    """Case 21: exit code 0, both images, one charge each; what is still open says so."""
    before = len(simulator.charges)
    done = command(
        "run", prompts.name, "-o", "out", "--base-url", simulator.url, *FAST,
        redirected=closed, start=start, folder=prompts.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    images = {path.name for path in (prompts.parent / "out").glob("*.jpg")}
    assert len(images) == len(simulator.charges) - before == 2
    if "1>" not in closed:
        assert {Path(line).name for line in done.stdout.splitlines()} == images
    if "2>" not in closed:
        assert "2 new, 0 failed" in done.stderr


@every_closed
def test_one_image_with_closed_descriptors(closed: str, simulator: Simulator, tmp_path: Path):
    """`generate` saves its file, which is no descriptor's number."""
    done = command(
        "generate", "a kite", "-o", "kite.jpg", "--base-url", simulator.url, *FAST,
        redirected=closed, folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kite.jpg").read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize("closed", [CLOSED["stdin"], CLOSED["all"]], ids=["stdin", "all"])
def test_the_simulator_as_a_child_process(closed: str, prompts: Path):
    """`--simulate` starts a process with pipes: none of them gets a standard number."""
    done = command(
        "run", prompts.name, "-o", "out", "--simulate", *FAST,
        redirected=closed, folder=prompts.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((prompts.parent / "out").glob("*.jpg"))) == 2


@pytest.fixture(scope="module")
def finished(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished run `out`."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "prompts.txt").write_text("a kite\n")
    command("run", "prompts.txt", "-o", "out", "--base-url", simulator.url, *FAST,
            redirected="", folder=folder)  # fmt: skip
    return folder


@pytest.mark.parametrize("closed", [CLOSED["stdin"], CLOSED["all"]], ids=["stdin", "all"])
@pytest.mark.parametrize(
    "arguments",
    [["status", "out"], ["verify", "out"], ["gallery", "out"], ["models"], ["--help"]],
    ids=lambda arguments: arguments[0],
)
def test_commands_that_only_read(closed: str, arguments: list[str], finished: Path):
    """Exit code 0, with the thumbnail process of `gallery`; no traceback on what is open."""
    done = command(*arguments, redirected=closed, folder=finished)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == ("1>" not in closed)


@every_closed
def test_a_wrong_command_line_keeps_its_code(closed: str, tmp_path: Path):
    """P30: 2, also where the message has no place to go."""
    done = command("run", "--nonsense", redirected=closed, folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_standard_input_that_is_closed_has_no_prompts(tmp_path: Path):
    """`run -` reads nothing from it, and no other file that took its number."""
    done = command("run", "-", "-o", "out", "--simulate", redirected="0<&-", folder=tmp_path)
    assert done.returncode == 2
    assert "prompt" in done.stderr


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_a_simulator_serves_without_its_output(closed: str, tmp_path: Path):
    """`python -m fluxasync.simulator --with-parent` ends with its standard input, code 0."""
    done = command(
        "--port", 0, "--with-parent", redirected=f"</dev/null {closed}",
        start=("-m", "fluxasync.simulator"), folder=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("redirected", ["0<&-", "2>&-"])
def test_a_thumbnail_worker_without_a_descriptor(redirected: str, tmp_path: Path):
    """The process that decodes images ends at the end of its input."""
    pytest.importorskip("PIL", reason="the extra `image` is not installed")
    done = command(
        redirected=f"</dev/null {redirected}",
        start=("-m", "fluxasync.gallery.thumbnail_worker"), folder=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


@full_device
@pytest.mark.parametrize("option", [(), ("--json",)], ids=["paths", "json"])
def test_a_full_standard_output_is_a_disk_error(
    option: tuple[str, ...], simulator: Simulator, prompts: Path
):
    """P17 P30: the images are made and recorded; the lost lines are reported, with code 7."""
    done = command(
        "run", prompts.name, "-o", "out", "--base-url", simulator.url, *FAST, *option,
        redirected=">/dev/full", folder=prompts.parent,
    )  # fmt: skip
    assert done.returncode == 7
    assert "standard output: No space left on device" in done.stderr
    assert "2 new, 0 failed" in done.stderr
    again = command("status", "out", "--json", redirected="", folder=prompts.parent)
    assert json.loads(again.stdout)["done"] == 2


@full_device
@pytest.mark.parametrize(
    "arguments", [["models", "--json"], ["--help"], ["run", "--help"], ["--version"]]
)
def test_a_full_standard_output_causes_no_traceback(arguments: list[str], tmp_path: Path):
    """Code 7 for data and for help alike."""
    done = command(*arguments, redirected=">/dev/full", folder=tmp_path)
    assert done.returncode == 7
    assert "Traceback" not in done.stderr


@full_device
def test_a_full_standard_error_stops_nothing(simulator: Simulator, prompts: Path):
    """Messages are dropped; the data and the code are as always."""
    done = command(
        "run", prompts.name, "-o", "out", "--base-url", simulator.url, *FAST,
        redirected="2>/dev/full", folder=prompts.parent,
    )  # fmt: skip
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["models", "--json"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(arguments: list[str], tmp_path: Path):
    """`| true` and `| head -1` end with code 0 and without a message."""
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, *MODULE, *arguments]
    done = subprocess.run(
        line, stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, timeout=patient(), check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
