"""The command and its journal, among real processes: ended in every way, it carries on.

The oracle is the simulator's charge log: its process outlives every run.
Where all prompts differ, as many charges as images means that none was paid twice.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.pseudo_terminal import CTRL_C, MODULE, Terminal

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from support.patience import patient
from test_cli import FAST, SimulatorCommand, running_simulator, started

from fluxasync._cli.app import main

COUNT = 12
MADE_AGAIN = (
    f"to make again: {COUNT} (at most $0.168; what the provider still has is collected for free "
    "unless it was discarded)"
)
#: keeps three jobs long enough for a signal to meet them, and little longer
BRIEF = ("--latency", "0.2..0.4")
#: accepts and charges, and keeps the answer to itself
SILENT = """
import asyncio, sys
from fluxasync.simulator import Scenario, Simulator

async def main():
    async with Simulator(Scenario(submit_delay=60)) as simulator:
        print(simulator.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"a lamp, number {number}\n" for number in range(COUNT)))
    return path


@pytest.fixture
def cli(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Run a command in this process: exit code, lines of stdout, lines of stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        code = main([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        return code, shown.out.splitlines(), shown.err.splitlines()

    return run


class Silent(SimulatorCommand):
    """A simulator that never answers submissions."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", SILENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._child.stdout is not None
        self.url = self._child.stdout.readline().strip()

    def end(self) -> str:
        """Close its input, which ends it even while a client waits for an answer."""
        self._child.kill()
        return self._child.communicate(timeout=patient())[1]


@contextmanager
def silent() -> Iterator[Silent]:
    server = Silent()
    try:
        yield server
    finally:
        server.end()


def line_for(server: SimulatorCommand, *more: str) -> tuple[str, ...]:
    """The one command line that starts a run and carries it on."""
    return ("run", "prompts.txt", "-o", "out", "--base-url", server.url, *FAST, *more)


def a_run(server: SimulatorCommand, folder: Path, *more: str, until: int) -> subprocess.Popen[str]:
    """Start a run; return it once `until` images were charged."""
    child = started(
        *line_for(server, *more), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while server.charges() < until:
        assert child.poll() is None, child.communicate()[1]
    return child


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    said = child.communicate(timeout=patient())[1]
    return child.returncode, said


def assert_whole(cli: Any, server: SimulatorCommand, folder: Path) -> None:
    """The run is over: every prompt has its image or is in doubt, and none was charged twice."""
    code, doubts, _ = cli("resolve", "out")
    assert code == (4 if doubts else 0)
    code, _, err = cli(*line_for(server))  # nothing is left to do
    assert (code, ", 0 to do" in err[0]) == (4 if doubts else 0, True)
    images = len(list((folder / "out").glob("*.jpg")))
    assert images + len(doubts) == COUNT
    assert images <= server.charges() <= COUNT
    code, out, _ = cli("verify", "out")
    assert (code, out[-1].split(",")[0]) == (0, f"{images} images checked")


# --- ended, and carried on ------------------------------------------------------------------------


@pytest.mark.slow
def test_p1_p15_a_run_ended_in_every_way_is_paid_once(cli: Any, prompts: Path) -> None:
    """P1 P15 F151: SIGTERM, kill -9, Ctrl-C, SIGHUP, then in peace: each prompt is charged once."""
    folder, codes = prompts.parent, []
    with running_simulator(*BRIEF) as server:
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP):
            child = a_run(server, folder, "--in-flight", "2", until=server.charges() + 2)
            child.send_signal(number)  # two POSTs are answered at this moment, or were just now
            codes.append(ended(child)[0])
        _, _, err = cli(*line_for(server))
        assert codes == [143, -9, 130, 129]
        assert re.match(r"[1-9]\d* done, \d+ still running, [012] in doubt\D.*, \d+ to do$", err[0])
        assert_whole(cli, server, folder)


@pytest.mark.slow
def test_p15_once_no_new_submission_and_paid_jobs_land(cli: Any, prompts: Path) -> None:
    """P15 F150: after Ctrl-C at most what was being sent is charged; all of it lands."""
    folder = prompts.parent
    with running_simulator(*BRIEF) as server:
        terminal = Terminal(*line_for(server, "--in-flight", "3"), cwd=folder)
        terminal.read_until("running")
        posts = server.ledger()["posts"]
        terminal.press(CTRL_C)
        assert terminal.end() == 130
        ledger = server.ledger()
        assert ledger["posts"] <= posts + 3
        assert ledger["charges"] == ledger["delivered"]
        assert "run the same command again to continue" in terminal.shown
        assert cli("verify", "out")[0] == 0
        assert cli(*line_for(server))[0] == 0
        assert server.charges() == COUNT
        assert_whole(cli, server, folder)


@pytest.mark.slow
def test_p15_twice_running_jobs_are_left_to_the_next_run(cli: Any, prompts: Path) -> None:
    """P15 F150: the command does not wait for long jobs; the same command collects them."""
    folder = prompts.parent
    with running_simulator("--latency", "4..4") as server:
        terminal = Terminal(*line_for(server, "--in-flight", str(COUNT)), cwd=folder)
        terminal.read_until(f"{COUNT} running")
        terminal.press(CTRL_C)
        terminal.read_until(f"{COUNT} jobs are paid: waiting up to")
        terminal.press(CTRL_C)
        assert terminal.end() == 130
        assert server.ledger()["delivered"] == 0
        code, _, err = cli(*line_for(server))
        assert code == 0
        assert f"0 done, {COUNT} still running, 0 in doubt, 0 failed, 0 to do" == err[0]
        assert_whole(cli, server, folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "presses",
    [pytest.param(2, id="P15 F150 twice"), pytest.param(3, id="P15 F150 thrice")],
)
def test_p15_intents_without_an_answer_become_in_doubt(
    cli: Any, prompts: Path, presses: int
) -> None:
    """P2 P3: a run that ends during POSTs reports their cost, and nothing is paid twice."""
    folder = prompts.parent
    with silent() as server:
        terminal = Terminal(*line_for(server, "--in-flight", str(COUNT)), cwd=folder)
        terminal.read_until("$")
        while server.charges() < COUNT:
            pass
        terminal.press(CTRL_C)
        terminal.read_until("Ctrl-C again to leave at once")
        for _ in range(presses - 1):
            terminal.press(CTRL_C)
        assert terminal.end() == 130
        code, out, err = cli("resolve", "out")
        assert (code, len(out)) == (4, COUNT)
        assert f"{COUNT} ($0.168) in doubt" in err[-1]
        code, out, err = cli(*line_for(server))
        assert (code, out) == (4, [])
        assert f"0 done, 0 still running, {COUNT} in doubt ($0.168), 0 failed, 0 to do" == err[0]
        assert any("fluxasync resolve out" in line for line in err)
        assert server.ledger()["posts"] == COUNT


@pytest.mark.slow
def test_p27_an_edited_prompt_file_pays_for_new_prompts_only(cli: Any, prompts: Path) -> None:
    """P27 F132 F139: shuffled, re-encoded, one line less and two more: two are charged."""
    with running_simulator("--latency", "0..0") as server:
        assert cli(*line_for(server))[0] == 0
        lines = [*prompts.read_text().splitlines()[:0:-1], "a new lamp", "another"]
        prompts.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
        code, out, err = cli(*line_for(server))
        assert (code, len(out), server.charges()) == (0, 2, COUNT + 2)
        assert f"{COUNT} done, 0 still running, 0 in doubt, 0 failed, 2 to do" == err[0]
        assert err[1] == "1 image of earlier runs not among these prompts: kept as they are"
        assert cli("verify", "out")[0] == 0


# --- simulated runs, interrupted and continued ----------------------------------------------------


#: images of a simulated run
FEW = 6


def a_practised_run(prompts: Path, line: tuple[str, ...], number: signal.Signals) -> None:
    """Start a run that practises, and end it when its first job is ready: all are submitted."""
    prompts.write_text("".join(prompts.read_text().splitlines(keepends=True)[:FEW]))
    child = started(
        *line, "--grace", "0", "--json", cwd=prompts.parent,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert child.stdout is not None
    while '"ready"' not in child.stdout.readline():
        pass
    child.send_signal(number)
    child.communicate(timeout=patient())


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["cometapi", "bfl"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_p1_the_same_command_continues_a_simulated_run(
    cli: Any, prompts: Path, number: signal.Signals, provider: str
) -> None:
    """P1: the simulator of a folder keeps its jobs there, so nothing of a run that broke off is
    lost; the second run collects them and ends well."""
    line = ("run", "prompts.txt", "-o", "out", "--simulate", "--provider", provider)
    a_practised_run(prompts, line, number)
    code, _, err = cli(*line)
    assert code == 0, err
    assert re.match(r"[01] done, [56] still running, 0 in doubt, 0 failed, 0 to do$", err[0])
    assert len(list((prompts.parent / "out").glob("*.jpg"))) == FEW
    assert cli("verify", "out")[0] == 0


@pytest.mark.slow
def test_p1_a_simulated_run_continues_after_its_urls_expired(cli: Any, prompts: Path) -> None:
    """P1: a day later the simulator still knows its jobs, and mints URLs that live."""
    line = ("run", "prompts.txt", "-o", "out", "--simulate")
    a_practised_run(prompts, line, signal.SIGKILL)
    log = prompts.parent / "out" / ".fluxasync" / "simulator.jsonl"
    rows = [json.loads(text) for text in log.read_text().splitlines()]
    for row in rows:
        row |= {name: row[name] - 86_400 for name in ("started_at", "ends_at") if name in row}
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = cli(*line)
    assert code == 0, err
    assert len(list((prompts.parent / "out").glob("*.jpg"))) == FEW


@pytest.mark.slow
def test_p18_dry_run_status_and_run_agree_about_a_simulated_folder(cli: Any, prompts: Path) -> None:
    """P18: what a run refuses its dry run refuses, with the same sentence; otherwise the same
    counts; and simulated images cost nothing, in the summary and in `status`."""
    line = ("run", "prompts.txt", "-o", "out", *FAST)
    with running_simulator("--latency", "0..0", "--fault", "moderated-content:0.5") as server:
        code, _, err = cli(*line, "--base-url", server.url)
        assert code == 3
        failed = int(re.search(r"(\d+) failed \(", err[-1])[1])  # type: ignore[index]
        assert "spent $0.00 (simulated)" in err[-1]
        assert "spent $0.00 (simulated)" in cli("status", "out")[1]
    refusal = "out holds simulated images: choose another folder for paid ones, or the simulator"
    code, out, err = cli(*line, "--dry-run")
    assert (code, out, err) == (7, [], [f"fluxasync: {refusal}"])
    counts = (
        f"{COUNT - failed} done, 0 still running, 0 in doubt, {failed} failed ({failed} moderated)"
    )
    code, _, err = cli(*line, "--dry-run", "--simulate")
    assert (code, err[0]) == (0, f"{counts}, 0 to do")
    code, _, err = cli(*line, "--simulate")
    assert (code, err[0]) == (3, f"{counts}, 0 to do")
    assert f"0 new, {COUNT - failed} already there, 0 failed, {failed} failed earlier" in err[-1]
    assert cli("status", "out")[1][0] == counts


# --- two at once ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_p16_a_second_run_in_the_folder_is_refused(cli: Any, prompts: Path) -> None:
    """P16 F118 F119: exit 8, nothing sent, the holder named; free again when it is dead."""
    folder = prompts.parent
    with running_simulator(*BRIEF) as server:
        child = a_run(server, folder, "--in-flight", "2", until=2)
        child.send_signal(signal.SIGSTOP)  # it holds the folder and does nothing
        try:
            posts = server.ledger()["posts"]
            code, out, err = cli(*line_for(server))
            assert (code, out) == (8, [])
            assert f"in use by process {child.pid} on {os.uname().nodename} since 20" in err[-1]
            assert server.ledger()["posts"] == posts
            assert [cli(verb, "out")[0] for verb in ("verify", "resolve")] == [8, 8]
            assert cli(*line_for(server, "--retry", "failed"))[0] == 8
            code, out, _ = cli("status", "out")
            assert code == 0
            where = f"active on {os.uname().nodename} (process {child.pid}) since 20"
            assert out[-1].startswith(where)
        finally:
            child.kill()
            ended(child)
        assert cli(*line_for(server))[0] in (0, 4)
        assert_whole(cli, server, folder)


# --- status, verify, resolve ----------------------------------------------------------------------


@pytest.mark.slow
def test_p3_doubts_are_settled_and_then_run(cli: Any, prompts: Path) -> None:
    """Dropped, given its job, submitted again within the cap: exit 4 until none is left."""
    with running_simulator("--latency", "0..0", "--fault", "lost-reply:1") as server:
        for _ in range(COUNT):  # six losses in a row end a run that has not submitted all: code 9
            if (code := cli(*line_for(server))[0]) != 9:
                break
        assert code == 4
    _, out, _ = cli("resolve", "out", "--json")
    first, second, *rest = [row["key"] for row in json.loads(out[0])["in_doubt"]]
    assert (len(rest), json.loads(out[0])["in_doubt"][0]["price"]) == (COUNT - 2, 0.014)
    assert cli("resolve", "out", first[:8], "--drop")[0] == 4
    assert cli("resolve", "out", "--job-id", f"{second[:8]}=made-up")[0] == 4
    code, _, err = cli("resolve", "out", "--resubmit", "--max-cost", "0.13")
    assert (code, err[-1].split(":")[0]) == (5, "fluxasync")
    assert "$0.14, more than $0.13" in err[-1]
    code, out, err = cli("resolve", "out", "--resubmit", "--max-cost", "0.14")
    assert (code, out) == (0, [])
    assert err == [f"{COUNT - 2} ($0.14) to do again: run the same command again to submit them"]
    row = json.loads(cli("status", "out", "--json")[1][0])
    assert (row["still_running"], row["failed"], row["to_submit_again"]) == (
        1, {"dropped": 1}, COUNT - 2,
    )  # fmt: skip
    line = ("run", "prompts.txt", "-o", "out", "--dry-run", "--simulate", *FAST)
    said = started(*line, cwd=prompts.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out, _ = said.communicate(timeout=patient())
    assert out.startswith(
        f"0 done, 1 still running, 0 in doubt, 1 failed (1 dropped), {COUNT - 2} to do\n"
    )
    assert f"\n{COUNT - 2} images, $0.14 at list price" in out


@pytest.mark.slow
def test_retry_makes_named_failures_again(cli: Any, prompts: Path) -> None:
    """P30: the code stays 3 while failures are left; moderated ones only when named."""
    with running_simulator("--latency", "0..0", "--fault", "error:1") as server:
        assert cli(*line_for(server))[0] == 3
    with running_simulator("--latency", "0..0") as server:
        code, out, err = cli(*line_for(server))
        assert (code, out, server.charges()) == (3, [], 0)
        assert err[0] == f"0 done, 0 still running, 0 in doubt, {COUNT} failed, 0 to do"
        assert err[-2] == "to try failures again: the same command with --retry failed"
        assert err[-1].startswith(
            f"0 new, 0 failed, {COUNT} failed earlier ({COUNT} failed), spent"
        )
        _, _, err = cli(*line_for(server, "--retry", "moderated"))
        assert "no image has an outcome that --retry names" in err[0]
        code, _, err = cli(*line_for(server, "--retry", "failed"))
        assert code == 0
        assert err[0] == MADE_AGAIN
        assert f"0 done, 0 still running, 0 in doubt, 0 failed, {COUNT} to do" == err[1]
        assert_whole(cli, server, prompts.parent)


@pytest.fixture
def failed(cli: Any, prompts: Path) -> Iterator[tuple[SimulatorCommand, Path]]:
    """A server where nothing goes wrong, and a folder of nothing but failures."""
    with running_simulator("--latency", "0..0", "--fault", "error:1") as broken:
        assert cli(*line_for(broken))[0] == 3
    with running_simulator("--latency", "0..0") as server:
        yield server, prompts.parent


def table(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "out" / ".fluxasync" / "journal.db")) as connection:
        return connection.execute("SELECT * FROM image ORDER BY id").fetchall()


@pytest.mark.slow
def test_a_no_at_the_price_decides_nothing_about_failures(
    cli: Any, failed: tuple[SimulatorCommand, Path]
) -> None:
    """A "no", Ctrl-C or a refused run changes no failure; a "yes" pays for each once."""
    server, folder = failed
    before = table(folder)
    for typed in (b"n\n", CTRL_C):
        line = line_for(server, "--retry", "failed", "--confirm-above", "0.1")
        terminal = Terminal(*line, cwd=folder)
        terminal.read_until("This may cost $0.168. Go on? [y/N]")
        assert MADE_AGAIN in terminal.shown
        terminal.press(typed)
        assert terminal.end() == (2 if typed == b"n\n" else 130)
        assert table(folder) == before
    code, out, err = cli(*line_for(server, "--retry", "failed", "--dry-run"))
    assert (code, out[0].split(",")[:2]) == (0, [f"{COUNT} images", " $0.168 at list price"])
    assert err[0] == MADE_AGAIN
    (folder / "bad.jsonl").write_text('{"prompt": "a lamp", "widht": 3}\n')
    refused = [
        ("run", "bad.jsonl", *line_for(server)[2:], "--retry", "failed"),
        line_for(server, "--retry", "failed", "--key-file", "none"),
    ]
    for arguments in refused:
        assert cli(*arguments)[0] == 2
    assert (cli(*line_for(server))[0], server.charges()) == (3, 0)
    assert table(folder) == before
    terminal = Terminal(
        *line_for(server, "--retry", "failed", "--confirm-above", "0.1"), cwd=folder
    )
    terminal.read_until("Go on? [y/N]")
    terminal.press(b"y\n")
    assert (terminal.end(), server.charges()) == (0, COUNT)
    assert_whole(cli, server, folder)


@pytest.mark.slow
def test_f124_a_removed_image_is_reported_and_made_again_on_request(
    cli: Any, prompts: Path
) -> None:
    """`verify` finds what is gone or cut short, exit 3, and says what to type; the same line leaves
    it, and says the same; --retry damaged fetches it from its job, which is free, and overwrites
    nothing."""
    folder = prompts.parent
    with running_simulator("--latency", "0..0") as server:
        assert cli(*line_for(server))[0] == 0
        gone, cut = sorted((folder / "out").glob("*.jpg"))[3:5]
        gone.unlink()
        os.truncate(cut, 100)
        remedy = (
            "2 damaged: repeat the run command with --retry damaged, which fetches them again, or "
            "pays again where the job is gone"
        )
        code, out, err = cli("verify", "out")
        assert code == 3
        assert out[0].startswith(f"missing: {gone.name} ")
        assert out[1].startswith(f"truncated: {cut.name} ")
        assert err == [remedy]
        code, _, err = cli(*line_for(server))
        assert (code, err[-2]) == (3, remedy)
        assert f"0 new, {COUNT} already there, 0 failed, 2 damaged, spent" in err[-1]
        assert server.charges() == COUNT
        code, _, err = cli(*line_for(server, "--retry", "damaged"))
        assert (code, err[0]) == (
            0,
            "to make again: 2 (at most $0.028; what the provider still has is collected for free)",
        )
        assert f"2 new, {COUNT - 2} already there, 0 failed, spent" in err[-1]
        assert (server.charges(), gone.exists(), cut.stat().st_size) == (COUNT, True, 100)
        assert json.loads(cli("verify", "out", "--json")[1][0])["clean"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("status", "nowhere"), "no journal", id="status of no run"),
        pytest.param(("verify", "nowhere"), "no journal", id="verify no run"),
        pytest.param(("resolve", "nowhere"), "no journal", id="resolve no run"),
        pytest.param(("resolve", "x", "--resubmit"), "--max-cost X", id="no cap"),
        pytest.param(("resolve", "x", "--max-cost", "1"), "--resubmit", id="only a cap"),
        pytest.param(("resolve", "x", "--resubmit", "--max-cost", "much"), "much", id="no amount"),
        pytest.param(("resolve", "x", "beef"), "--drop", id="keys without a decision"),
        pytest.param(("resolve", "x", "--drop", "--job-id", "a=b"), "one thing", id="two at once"),
        pytest.param(("resolve", "x", "--job-id", "beef"), "KEY=ID", id="no id"),
    ],
)
def test_a_wrong_argument_of_a_folder_command_is_one_error_line(
    cli: Any, arguments: tuple[str, ...], said: str
) -> None:
    """P30: exit code 2, nothing on standard output, nothing made."""
    code, out, err = cli(*arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("fluxasync: ")
    assert said in err[0]
    assert os.listdir() == []


def test_an_unknown_class_of_failures_is_refused(cli: Any, prompts: Path) -> None:
    """Before a server is asked for anything, with the words there are."""
    code, out, err = cli(
        "run", prompts, "-o", "out", "--retry", "expird", "--base-url", "http://127.0.0.1:9"
    )
    assert (code, out) == (2, [])
    assert "expird" in err[-1]
    assert "expired" in err[-1]


@pytest.mark.slow
def test_t6_prompts_in_doubt_cannot_paint_on_the_terminal(cli: Any, prompts: Path) -> None:
    """T6 F136: what a prompt carries is shown and not obeyed."""
    rows = prompts.with_name("prompts.txt")
    rows.write_text("a \x1b[2J fox \u202e\x9b31m\n")
    with running_simulator("--latency", "0..0", "--fault", "lost-reply:1") as server:
        assert cli(*line_for(server))[0] == 4
    _, out, _ = cli("resolve", "out")
    assert "[2J fox" in out[0]
    assert not set(out[0]) & {"\x1b", "\x9b", "\u202e"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four simulated images, to be copied."""
    home = tmp_path_factory.mktemp("finished")
    (home / "prompts.txt").write_text("".join(f"a lamp, number {n}\n" for n in range(4)))
    child = started("run", "prompts.txt", "-o", "out", "--simulate", *FAST, cwd=home)
    assert child.wait(60) == 0
    return home


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param("UPDATE image SET money = '-1000'", "row 1, column money", id="negative"),
        pytest.param("UPDATE image SET money = '1E+99999999'", "column money", id="endless digits"),
        pytest.param("UPDATE image SET state = 9", "row 1, column state", id="unknown state"),
        pytest.param(
            "UPDATE image SET message = zeroblob(200000000) WHERE id = 2",
            "more than 16 MiB",
            id="200 MB",
        ),
        pytest.param(
            "CREATE TRIGGER t AFTER INSERT ON image BEGIN DELETE FROM image; END",
            "schema differs at 'trigger t'",
            id="trigger",
        ),
        pytest.param(
            "DROP TABLE image; CREATE VIEW image AS WITH RECURSIVE n AS "
            "(SELECT 1 UNION ALL SELECT 1 FROM n) SELECT * FROM n",
            "schema differs at",
            id="endless view",
        ),
    ],
)
def test_t17_every_command_refuses_an_edited_journal(
    cli: Any, finished: Path, tmp_path: Path, change: str, said: str
) -> None:
    """One sentence and exit code 7; nothing is submitted, whatever the cap."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    with closing(sqlite3.connect(tmp_path / "out/.fluxasync/journal.db")) as connection:
        connection.executescript(change)
        connection.commit()
    run = ("run", "prompts.txt", "-o", "out", "--simulate", *FAST, "--max-cost", "0.15")
    for line in (run, *((word, "out") for word in ("status", "verify", "resolve", "gallery"))):
        code, _, errors = cli(*line)
        if "16 MiB" in said and line[0] in {"run", "status", "resolve"}:
            assert code == 0  # they read no row that is done: only the others meet the value
            continue
        assert (line[0], code) == (line[0], 7)
        assert said in errors[-1]
        assert not any("Traceback" in error for error in errors)


def test_the_journals_commands_do_not_import_aiohttp() -> None:
    """No network and no key: what they do not load they cannot use."""
    code = (
        "import sys; from fluxasync._cli.app import main;"
        "main(['status', 'nowhere']); main(['verify', 'nowhere']); main(['resolve', 'nowhere']);"
        "sys.exit('aiohttp' in sys.modules)"
    )
    done = subprocess.run(
        [*MODULE[:1], "-c", code], capture_output=True, timeout=patient(), check=False
    )
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "value"),
    [
        pytest.param("size", "'many'", id="a size that is text"),
        pytest.param("path", "x'00'", id="a path that is bytes"),
        pytest.param("path", "'a' || char(0)", id="a path with a NUL"),
    ],
)
def test_t17_a_run_in_a_folder_with_an_edited_image_ends_with_one_error(
    cli: Any, prompts: Path, column: str, value: str
) -> None:
    """T17: earlier images are looked at beside the run, which ends with their error."""
    with running_simulator("--latency", "0..0") as server:
        assert cli(*line_for(server))[0] == 0
        with closing(sqlite3.connect(prompts.parent / "out/.fluxasync/journal.db")) as journal:
            journal.execute(f"UPDATE image SET {column} = {value} WHERE id = 1")  # noqa: S608
            journal.commit()
        code, _, err = cli(*line_for(server))
    assert code == 7
    assert any(f"was changed (row 1, column {column}" in line for line in err)
