"""Progress on each screen: a terminal of any size, a program, a log, a notebook."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hostile_text import ESCAPES
from support.pseudo_terminal import CTRL_C, MODULE, Terminal
from support.simulator_sessions import SIDE

import fluxasync
from fluxasync import Polling, Summary
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")
pytest.importorskip("pyte", reason="a terminal that is read by tests")

import pyte
from test_cli import FAST, SimulatorCommand, running_simulator

#: what we send to a terminal: colours, up, erase to the end of the line or of the screen
OURS = re.compile(r"\x1b\[(?:[\d;]*m|\d+A|K|J)|\r\n|\r")

PROGRAM = """
import asyncio, sys, fluxasync
async def main():
    rows = [{"prompt": f"fox {number}", "width": 256, "height": 256} for number in range(12)]
    summary = await fluxasync.run(
        rows, out="images", base_url=sys.argv[1], polling=0.1, limits=3, progress=True
    )
    print("the program says:", len(summary.saved))
asyncio.run(main())
"""

PRINTING = """
import asyncio, itertools, sys, fluxasync
from fluxasync.events import Settled
numbers = itertools.count()
def show(event):
    if isinstance(event, Settled):
        number = next(numbers)
        print("printed", number)
        if number == 11:
            print("an unfinished line", end="")
async def main():
    rows = [{"prompt": f"fox {number}", "width": 256, "height": 256} for number in range(12)]
    await fluxasync.run(
        rows, out="images", base_url=sys.argv[1], polling=0.1, progress=True, on_event=show
    )
    print("over")
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorCommand]:
    with running_simulator("--latency", "0.2..0.4", "--fault", "moderated-content:0.2") as running:
        yield running


def listed(folder: Path, texts: list[str]) -> Path:
    path = folder / "prompts.jsonl"
    size = {"width": SIDE, "height": SIDE}
    rows = [{"prompt": f"a {text} [bold]fox", **size} for text in texts if "\ud83d" not in text]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def screens(shown: str, *, columns: int, rows: int) -> Iterator[list[str]]:
    """What a person sees after each picture that was sent."""
    screen = pyte.Screen(columns, rows)
    stream = pyte.Stream(screen)
    for part in re.split(r"(?<=\x1b\[J)", shown):
        stream.feed(part)
        yield [line.rstrip() for line in screen.display]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [pytest.param(80, id="T6 80"), pytest.param(40, id="T6 40")])
def test_t6_hostile_prompts_do_not_disturb_the_live_view(
    server: SimulatorCommand, tmp_path: Path, columns: int
) -> None:
    """T6: the terminal obeys no escape in 60 hostile prompts; the live view stays below all lines
    and is removed at the end."""
    path = listed(tmp_path, ESCAPES)
    terminal = Terminal(
        *("run", path.name, "-o", "x", "--base-url", server.url, "--in-flight", "8", *FAST),
        cwd=tmp_path,
        size=(40, columns),
    )
    assert terminal.end() == 3
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", OURS.sub("", terminal.shown)
    )
    seen = list(screens(terminal.shown.removeprefix("ready"), columns=columns, rows=40))
    bars = [sum(re.search(r"━.*/66 ", line) is not None for line in lines) for lines in seen]
    assert max(bars) == 1
    assert any("downloading" in line or "running" in line for lines in seen for line in lines)
    assert any("000" in line and ".jpg" in line for lines in seen for line in lines)
    assert bars[-1] == 0
    last = "".join(seen[-1])
    assert " new, " in last
    assert " failed (" in last.replace("\n", "")


@pytest.mark.slow
def test_ctrl_c_does_not_break_the_live_view(server: SimulatorCommand, tmp_path: Path) -> None:
    """P15: a terminal echoes `^C` at the cursor; the live view stays whole."""
    path = listed(tmp_path, [f"{number} {'long ' * 20}" for number in range(40)])
    line = ("run", path.name, "-o", "x", "--base-url", server.url, "--in-flight", "3", *FAST)
    terminal = Terminal(*line, cwd=tmp_path)
    terminal.read_until(".jpg")  # from now on the last line is as wide as the terminal
    terminal.press(CTRL_C)
    assert terminal.end() == 130
    assert "^C" in terminal.shown
    seen = list(screens(terminal.shown.removeprefix("ready"), columns=80, rows=24))
    bars = [sum("━" in line for line in lines) for lines in seen]
    assert max(bars) == 1
    assert bars[-1] == 0


@pytest.mark.slow
def test_the_live_view_has_a_line_for_each_account(tmp_path: Path) -> None:
    """Two accounts of one run, one without credit after a few images: their jobs, slots and images
    while they work, and why one is out."""
    path = listed(tmp_path, [str(number) for number in range(40)])
    quick = ("--latency", "0.3..0.4", "--image-bytes", "1")
    with running_simulator(*quick) as main, running_simulator(*quick, "--fault", "402") as poor:
        table = '[[account]]\nname = "{}"\nprovider = "bfl"\nbase_url = "{}"\nin_flight = {}\n'
        text = table.format("main", main.url, 4) + table.format("poor", poor.url, 2)
        (tmp_path / "accounts.toml").write_text(text)
        line = ("run", path.name, "-o", "x", "--accounts", "accounts.toml", *FAST)
        terminal = Terminal(*line, cwd=tmp_path, size=(30, 100))
        assert terminal.end() == 0
    seen = list(screens(terminal.shown.removeprefix("ready"), columns=100, rows=30))
    lines = [line for screen in seen for line in screen]
    assert any(re.match(r"main  [1-4] of 4 slots · \d+ saved", line) for line in lines)
    assert any(line.startswith("poor  0 saved · out: ") for line in lines)
    assert "; main 40" in "".join(seen[-1])


@pytest.mark.slow
def test_paths_are_not_printed_beside_a_live_view(server: SimulatorCommand, tmp_path: Path) -> None:
    """At a terminal the latest names are in the picture; with --json or --quiet data is data."""
    path = listed(tmp_path, ["1", "2"])
    line = ("run", path.name, "--base-url", server.url, *FAST)
    terminal = Terminal(*line, "-o", "x", cwd=tmp_path)
    assert terminal.end() in (0, 3)
    assert "x/0000" not in terminal.shown
    terminal = Terminal(*line, "-o", "y", "--json", cwd=tmp_path)
    assert terminal.end() in (0, 3)
    assert terminal.shown.count('{"outcome"') == 2
    terminal = Terminal(*line, "-o", "z", "--quiet", cwd=tmp_path)
    assert terminal.end() in (0, 3)
    assert terminal.shown.count("z/0000") == len(list((tmp_path / "z").glob("*.jpg")))
    assert "\x1b" not in terminal.shown


@pytest.mark.slow
def test_an_address_that_never_answers_is_reported_at_once(tmp_path: Path) -> None:
    """F31: in the picture, which is updated in place, and as one line in a log."""
    path = listed(tmp_path, ["1", "2"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    line = ("run", path.name, "-o", "x", "--base-url", url)
    terminal = Terminal(*line, cwd=tmp_path, size=(30, 120))
    terminal.read_until("connection refused; still trying until ")
    terminal.press(CTRL_C)
    assert terminal.end() == 130
    with subprocess.Popen(
        [sys.executable, *MODULE[1:], *line], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as logged:
        assert logged.stderr is not None
        lines = iter(logged.stderr.readline, "")
        said = next(line for line in lines if "still trying" in line)
        logged.send_signal(signal.SIGINT)
        rest = [*lines]
    assert logged.returncode == 130
    assert "cannot connect: connection refused; still trying until " in said
    assert not any("cannot connect" in line for line in rest)


@pytest.mark.slow
def test_a_dumb_terminal_gets_lines(server: SimulatorCommand, tmp_path: Path) -> None:
    """Where nothing can be rewritten, nothing tries to."""
    path = listed(tmp_path, ["1", "2"])
    program = ("-c", "import os; os.environ['TERM'] = 'dumb'\nimport fluxasync.__main__ as m, sys\n"
               "sys.exit(m.main())")  # fmt: skip
    terminal = Terminal(
        *("run", path.name, "-o", "x", "--base-url", server.url, *FAST),
        cwd=tmp_path,
        program=program,
    )
    assert terminal.end() in (0, 3)
    assert "\x1b" not in terminal.shown


@pytest.mark.slow
def test_a_stopped_terminal_stops_no_run(server: SimulatorCommand, tmp_path: Path) -> None:
    """P26: while the terminal is stopped by Ctrl-S all images are made; Ctrl-Q shows the result."""
    path = listed(tmp_path, [str(number) for number in range(20)])
    line = ("run", path.name, "-o", "x", "--base-url", server.url, "--in-flight", "8", *FAST)
    terminal = Terminal(*line, cwd=tmp_path)
    terminal.read_until("running")
    terminal.press(b"\x13")
    terminal.watch(0.2)  # what was on its way before the key
    shown, settled = terminal.shown, 0
    while settled < 20:
        assert terminal.watch(0.1), "ended before its message could be read"
        lists = [tmp_path / "x" / f"{name}.jsonl" for name in ("metadata", "failures")]
        settled = sum(len(path.read_text().splitlines()) for path in lists if path.exists())
    assert terminal.shown == shown
    terminal.press(b"\x11")
    assert terminal.end() in (0, 3)
    assert " new, " in terminal.shown.removeprefix(shown)


@pytest.mark.slow
def test_a_program_shows_its_run_in_a_terminal(server: SimulatorCommand, tmp_path: Path) -> None:
    """`progress=True` shows the same live view, and removes it at the end."""
    terminal = Terminal(server.url, cwd=tmp_path, program=("-c", PROGRAM), size=(30, 80))
    assert terminal.end() == 0
    assert "/12 " in terminal.shown
    assert " of 3 slots" in terminal.shown
    *_, last = screens(terminal.shown + "\x1b[J", columns=80, rows=30)
    assert not any("━" in line for line in last)
    assert any(line.startswith("the program says:") for line in last)


@pytest.mark.slow
def test_a_program_prints_above_its_live_view(server: SimulatorCommand, tmp_path: Path) -> None:
    """What the program prints while it runs keeps its order and its line; no view is torn."""
    terminal = Terminal(server.url, cwd=tmp_path, program=("-c", PRINTING), size=(40, 80))
    assert terminal.end() == 0
    shown = terminal.shown.removeprefix("ready") + "\x1b[J"
    seen = list(screens(shown, columns=80, rows=40))
    assert max(sum("━" in line for line in lines) for lines in seen) == 1
    printed = [line for line in seen[-1] if line]
    expected = [*(f"printed {number}" for number in range(12)), "an unfinished line", "over"]
    assert expected == printed


@pytest.mark.slow
def test_a_program_in_a_stopped_terminal_continues(
    server: SimulatorCommand, tmp_path: Path
) -> None:
    """P26: Ctrl-S stops no run of a program that shows its progress."""
    terminal = Terminal(server.url, cwd=tmp_path, program=("-c", PROGRAM), size=(30, 80))
    terminal.read_until("running")
    terminal.press(b"\x13")
    lists = [tmp_path / "images" / f"{name}.jsonl" for name in ("metadata", "failures")]
    settled = 0
    while settled < 12:
        assert terminal.watch(0.1)
        settled = sum(len(path.read_text().splitlines()) for path in lists if path.exists())
    terminal.press(b"\x11")
    assert terminal.end() == 0


@pytest.mark.slow
def test_a_program_without_a_terminal_leaves_lines(
    server: SimulatorCommand, tmp_path: Path
) -> None:
    """In a log the run is a line now and then, and one at its end; standard output is untouched."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.url],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ,
    )  # fmt: skip
    saved = len(list((tmp_path / "images").glob("*.jpg")))
    assert done.stdout == f"the program says: {saved}\n"
    assert done.stderr.splitlines()[-1].startswith(f"{saved}/12 saved, ")


@pytest.mark.asyncio
async def test_progress_changes_nothing_of_a_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The helper returns the same Summary; a second run, with nothing to do, is shown too."""
    rows = [{"prompt": f"fox {number}", "width": SIDE, "height": SIDE} for number in range(3)]
    async with Simulator(Scenario(latency=(0, 0.01))) as sim:
        for expected in ((3, 0, "3/3 saved"), (0, 3, "0/0 saved")):
            result = await fluxasync.run(
                rows, out=tmp_path, base_url=sim.url, polling=Polling(interval=0.01),
                progress=True,
            )  # fmt: skip
            summary = result.summary
            assert isinstance(summary, Summary)
            last = capfd.readouterr().err.splitlines()[-1]
            assert (summary.saved, summary.skipped, last.split(",")[0]) == expected


def test_without_rich_the_extra_is_named(tmp_path: Path) -> None:
    """Without the extra, a program in a terminal gets an error that names it, before any cost."""
    program = "import sys; sys.modules['rich'] = None\n" + PROGRAM
    terminal = Terminal("http://127.0.0.1:9", cwd=tmp_path, program=("-c", program))
    assert terminal.end() == 1
    assert "the live view needs rich:" in terminal.shown
    assert "[cli]" in terminal.shown
    assert not (tmp_path / "images").exists()


@pytest.mark.slow
def test_a_notebook_shows_its_run(server: SimulatorCommand, tmp_path: Path) -> None:
    """`await fluxasync.run(…, progress=True)` in a cell shows the run there, and its end stays."""
    nbclient = pytest.importorskip("nbclient", reason="runs notebooks")
    nbformat = pytest.importorskip("nbformat", reason="runs notebooks")
    code = PROGRAM.split("asyncio.run")[0].replace("sys.argv[1]", repr(server.url))
    cells = [nbformat.v4.new_code_cell(f"{code}\nawait main()")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client: Any = nbclient.NotebookClient(notebook, resources={"metadata": {"path": tmp_path}})
    client.execute()
    (cell,) = notebook.cells
    shown = [output.data for output in cell.outputs if output.output_type == "display_data"]
    assert len(shown) == 1
    saved = len(list((tmp_path / "images").glob("*.jpg")))
    assert f"{saved} saved" in shown[0]["text/plain"]
    assert "12/12  100 %" in shown[0]["text/html"]
