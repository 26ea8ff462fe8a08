"""The command over real sockets: what it prints, what it costs, and how it ends.

One simulator, in its own process, serves the whole file; charges are read from its
ledger. Commands that must meet signals or broken pipes are started as processes too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.patience import patient
from support.pseudo_terminal import CTRL_C, MODULE, Terminal

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._cli.app import main

#: the model with the shortest usual duration, so that the first poll comes soonest
FAST = ("--model", "flux-2-klein-4b")
CANARY = "sk-canary-8c1f40"


class SimulatorCommand:
    """A simulator in a child process: its URL, and what its ledger says."""

    def __init__(self, *options: str) -> None:
        self._child = subprocess.Popen(
            [*MODULE, "simulate", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._child.stdout is not None
        self.url = self._child.stdout.readline().strip()

    def ledger(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/simulator/ledger") as answer:  # noqa: S310
            return dict(json.load(answer))

    def charges(self) -> int:
        return int(self.ledger()["charges"])

    def end(self) -> str:
        """Press Ctrl-C and return what it said last."""
        self._child.send_signal(signal.SIGINT)
        _, said = self._child.communicate(timeout=patient())
        return said


@contextlib.contextmanager
def running_simulator(*options: str) -> Iterator[SimulatorCommand]:
    server = SimulatorCommand(*options)
    try:
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorCommand]:
    with running_simulator("--latency", "0..0") as running:
        yield running


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a red fox in snow\nein “stiller” See\n夜の灯台\n", encoding="utf-8")
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


def test_run_prints_paths_as_data_and_the_rest_for_people(
    cli: Any, server: SimulatorCommand, prompts: Path
) -> None:
    """Standard output is the saved files; stderr starts with the price and ends with the sum."""
    code, out, err = cli("run", prompts, "-o", "images", "--base-url", server.url, *FAST)
    assert code == 0
    assert {Path(line) for line in out} == set(Path("images").glob("*.jpg"))
    assert err[0] == "3 images, $0.042 at list price, about 2 s with 24 jobs at once"
    assert re.fullmatch(
        r"3 new, 0 failed, spent \$0\.00 \(simulated\), \d+\.\d s → images/", err[-1]
    )


@pytest.mark.slow
def test_run_with_json_prints_an_object_for_each_outcome_and_event(
    cli: Any, server: SimulatorCommand, prompts: Path
) -> None:
    """A program reads line by line what happens, and outcomes in the columns of metadata.jsonl."""
    code, out, _ = cli("run", prompts, "-o", "images", "--base-url", server.url, "--json", *FAST)
    printed = [json.loads(line) for line in out]
    rows = sorted((row for row in printed if "outcome" in row), key=lambda row: row["index"])
    events = Counter(row["event"] for row in printed if "event" in row)
    assert (code, events) == (0, {"submitted": 3, "ready": 3})
    assert {row["job_id"] for row in printed if "event" in row} == {row["job_id"] for row in rows}
    assert [row["prompt"] for row in rows] == prompts.read_text(encoding="utf-8").splitlines()
    assert all(row["outcome"] == "saved" and Path(row["path"]).is_file() for row in rows)


@pytest.mark.slow
def test_a_quiet_run_without_problems_prints_only_data(
    cli: Any, server: SimulatorCommand, prompts: Path
) -> None:
    """For cron: data only, unless something went wrong."""
    code, out, err = cli("run", prompts, "-o", "images", "--base-url", server.url, "--quiet", *FAST)
    assert (code, len(out), err) == (0, 3, [])


@pytest.mark.slow
def test_simulate_needs_no_key_and_says_that_it_costs_nothing(cli: Any, prompts: Path) -> None:
    """The first thing a new user tries works, and its cost is marked as simulated."""
    code, out, err = cli("run", prompts, "-o", "images", "--simulate", *FAST)
    assert (code, len(out)) == (0, 3)
    assert err[0].endswith("; simulated: costs nothing")
    assert "$0.00 (simulated)" in err[-1]


def test_generate_makes_the_requested_file(cli: Any, server: SimulatorCommand) -> None:
    """One prompt, one file, its parameters as given."""
    code, out, _ = cli(
        "generate", "a fox", "-o", "fox.png", "--base-url", server.url,
        "--param", "width=512", "--param", "height=256", "--param", "output_format=png",
        "--json", *FAST,
    )  # fmt: skip
    row = json.loads(out[0])
    assert code == 0
    assert (row["path"], row["width"], row["height"]) == ("fox.png", 512, 256)
    assert Path("fox.png").stat().st_size == row["bytes"]


def test_dry_run_needs_no_key_and_sends_nothing(
    cli: Any, server: SimulatorCommand, prompts: Path
) -> None:
    """The price is known before there is an account, and nothing is written."""
    charged = server.charges()
    code, out, err = cli("run", prompts, "--n", "4", "--in-flight", "2", "--dry-run")
    assert (code, err) == (0, ["3 rows for 12 images"])
    assert out[0].startswith("12 images, $0.30 at list price, about")
    assert out[0].endswith("with 2 jobs at once")
    assert server.charges() == charged


def test_a_misspelt_model_is_named_while_nothing_is_spent(cli: Any, prompts: Path) -> None:
    """A name that resembles one of the catalogue is refused, and the flag to insist is named."""
    again = ("run", prompts, "--models", "flux-dve,flux-dev", "--dry-run")
    code, out, err = cli(*again)
    assert (code, out) == (2, [])
    assert "did you mean flux-dev? To send it as it is: --allow-unknown-models" in err[-1]
    code, out, err = cli(*again, "--allow-unknown-models")
    assert code == 0
    said = [line for line in err if "flux-dve" in line]
    assert said == [
        "warning: unknown model 'flux-dve': passed on unchecked, no price known; "
        "fluxasync models lists the catalogue"
    ]
    assert "of unknown price" in out[0]


def test_a_run_names_an_unknown_model_once(
    cli: Any, server: SimulatorCommand, prompts: Path
) -> None:
    """The warning is printed before the price, and the first submission does not repeat it."""
    line = ("run", prompts, "-o", "x", "--model", "sdxl", "--base-url", server.url)
    code, _, err = cli(*line)
    assert code == 3
    (warned,) = [number for number, text in enumerate(err) if "unknown model" in text]
    (priced,) = [number for number, text in enumerate(err) if "price unknown" in text]
    assert warned < priced


def test_metadata_keys_are_named_once(cli: Any, tmp_path: Path) -> None:
    """A key of a row that no model has is reported before anything is spent; it is not sent."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "shelf": 3}\n{"prompt": "b", "shelf": 4}\n')
    code, _, err = cli("run", rows, "--dry-run")
    line = "kept as metadata, not sent: shelf (to send one: --map extra_body.shelf=shelf)"
    assert (code, err) == (0, [f"warning: {line}"])


FILES = {
    "good.txt": b"a fox\n",
    "bad.jsonl": b'{"prompt": "a fox"}\n{"prompt": \n',
    "empty-prompt.jsonl": b'{"prompt": "a fox"}\n\n{"prompt": ""}\n',
    "latin.txt": b"a fox\nein B\xe4r\n",
    "misspelt.jsonl": b'{"prompt": "a fox", "widht": 512}\n',
    "size.jsonl": b'{"prompt": "a fox", "width": 1023}\n',
    "taken": b"",
}

URL = "the simulator's"
TO = ("--base-url", URL)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("run", "good.txt", "-o", "x"), ("COMETAPI_KEY", "--simulate"), id="no key"),
        pytest.param(("run", "bad.jsonl", "-o", "x", *TO), ("bad.jsonl line 2",), id="F130 JSON"),
        pytest.param(
            ("run", "empty-prompt.jsonl", "-o", "x", *TO),
            ("empty-prompt.jsonl line 3", "empty"),
            id="F130 empty prompt",
        ),
        pytest.param(("run", "latin.txt", "-o", "x", *TO), ("latin.txt line 2",), id="F133"),
        pytest.param(("run", "misspelt.jsonl", "-o", "x", *TO), ("width?",), id="misspelt key"),
        pytest.param(("run", "size.jsonl", "-o", "x", *TO), ("1023", "1024"), id="wrong size"),
        pytest.param(("run", "none.txt", "-o", "x", *TO), ("none.txt",), id="no such file"),
        pytest.param(("run", "good.txt", *TO), ("-o",), id="no folder"),
        pytest.param(("run", "good.txt", "-o", "taken", *TO), ("taken",), id="folder is a file"),
        pytest.param(
            ("run", "good.txt", "-o", "/proc/images", *TO),
            ("/proc/images",),
            id="unwritable",
        ),
        pytest.param(
            ("run", "good.txt", "-o", "x", "--name", "{sku}.{ext}", *TO),
            ("no column 'sku'", "slug, ext"),
            id="unknown template field",
        ),
        pytest.param(
            ("run", "good.txt", "-o", "x", "--param", "widht=512", *TO),
            ("width?",),
            id="param",
        ),
        pytest.param(
            ("run", "good.txt", "-o", "x", "--max-cost", "much", *TO), ("much",), id="not an amount"
        ),
        pytest.param(
            ("run", "good.txt", "-o", "x", "--provider", "acme", *TO), ("acme",), id="provider"
        ),
        pytest.param(("generate", "", "-o", "x.png", *TO), ("empty",), id="no prompt"),
        pytest.param(("generate", "a fox", "-o", "taken", *TO), ("taken",), id="file is there"),
        pytest.param(
            ("generate", "a fox", "-o", "x.png", "--simulate", *TO),
            ("--base-url",),
            id="servers",
        ),
        pytest.param(
            ("generate", "a fox", "-o", "x.png", "--base-url", "http://example.com"),
            ("http",),
            id="a key over plain http",
        ),
    ],
)
def test_bad_input_is_one_error_line_and_costs_nothing(
    cli: Any,
    server: SimulatorCommand,
    tmp_path: Path,
    arguments: tuple[str, ...],
    said: tuple[str, ...],
) -> None:
    """P19, P30: exit code 2, a line with the next step, no traceback, no charge, no image."""
    if "/proc/images" in arguments and sys.platform != "linux":
        pytest.skip("no /proc here")
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    charged = server.charges()
    code, out, err = cli(*(server.url if word == URL else word for word in arguments))
    assert (code, out) == (2, [])
    assert [line for line in err if not line.startswith("1 image, $")] == [err[-1]]
    assert err[-1].startswith("fluxasync: ")
    assert [words for words in said if words not in err[-1]] == []
    assert server.charges() == charged


@pytest.mark.slow
def test_bad_lines_are_left_out_when_asked(
    cli: Any, server: SimulatorCommand, tmp_path: Path
) -> None:
    """The good lines run; each bad one is a failure with its line number."""
    rows = tmp_path / "bad.jsonl"
    rows.write_bytes(FILES["bad.jsonl"])
    code, out, err = cli("run", rows, "-o", "x", "--base-url", server.url, "--skip-bad", *FAST)
    assert (code, len(out)) == (3, 1)
    assert err[0] == "1 bad line is left out"
    assert any("bad.jsonl line 2" in line for line in err)
    assert "1 new, 1 failed (1 invalid)" in err[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "expected", "said"),
    [
        pytest.param("moderated-request:1", 3, "3 failed (3 moderated)", id="P30 F50 moderated"),
        pytest.param("lost-reply:1", 4, "3 in doubt", id="P3 P30 lost reply"),
        pytest.param("402:1", 6, "0 new", id="P30 no credit"),
        pytest.param("401-after:0", 6, "0 new", id="P30 bad key"),
    ],
)
def test_how_a_run_went_is_its_exit_code(
    cli: Any, prompts: Path, fault: str, expected: int, said: str
) -> None:
    """A script learns from the number what a person reads in the last line."""
    with running_simulator("--latency", "0..0", "--fault", fault) as faulty:
        code, out, err = cli("run", prompts, "-o", "x", "--base-url", faulty.url, *FAST)
    assert (code, out) == (expected, [])
    assert said in err[-1]


@pytest.mark.slow
def test_f164_prompts_cannot_paint_on_the_terminal(cli: Any, tmp_path: Path) -> None:
    """F164, T6: what a prompt carries is shown and not obeyed, whatever markup or escape it is."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a \x1b[2J[/bold] fox \u202e\x9b31m"}) + "\n")
    with running_simulator("--latency", "0..0", "--fault", "moderated-request:1") as faulty:
        code, _, err = cli("run", rows, "-o", "x", "--base-url", faulty.url, *FAST)
    shown = "\n".join(err)
    assert (code, "[/bold] fox" in shown) == (3, True)
    assert not set(shown) & {"\x1b", "\x9b", "\u202e"}


@pytest.mark.slow
def test_max_cost_stops_a_run_in_time(cli: Any, server: SimulatorCommand, prompts: Path) -> None:
    """P7, P30: with money for two of three images, two are charged and the code says why."""
    charged = server.charges()
    code, out, err = cli(
        "run", prompts, "-o", "x", "--base-url", server.url, "--max-cost", "0.03", *FAST
    )
    assert (code, len(out)) == (5, 2)
    assert server.charges() - charged == 2
    assert "1 not started" in err[-1]


@pytest.mark.slow
def test_the_key_is_nowhere_but_in_its_file(server: SimulatorCommand, prompts: Path) -> None:
    """P22, T1: no output and no file of a run holds the key, whatever goes wrong."""
    folder = prompts.parent
    key_file = folder / "key"
    key_file.write_text(f"{CANARY}\n")
    key_file.chmod(0o604)
    with running_simulator(
        "--latency", "0..0", "--fault", "500:0.5", "--fault", "error:0.5"
    ) as faulty:
        ended = subprocess.run(
            [*MODULE, "run", str(prompts), "-o", "x", "--n", "4", "--base-url", faulty.url,
             "--key-file", "key"],
            cwd=folder, capture_output=True, text=True, timeout=patient(), check=False,
            env={**os.environ, "COMETAPI_KEY": CANARY, "PYTHONASYNCIODEBUG": "1"},
        )  # fmt: skip
        report = faulty.end()
    key_file.unlink()
    assert "chmod 600 key" in ended.stderr
    texts = [ended.stdout, ended.stderr, report]
    texts += [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
    assert not [text for text in texts if CANARY in text]


def started(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([*MODULE, *arguments], text=True, **options)


@pytest.mark.slow
def test_closed_output_does_not_stop_a_paid_run(server: SimulatorCommand, prompts: Path) -> None:
    """F153: when the reader of the paths goes away, the images still land."""
    reader, writer = os.pipe()
    os.close(reader)
    command = ("run", str(prompts), "-o", "x", "--base-url", server.url, *FAST)
    child = started(*command, cwd=prompts.parent, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, err = child.communicate(timeout=patient())
    assert child.returncode == 0
    assert "3 new" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_closed_stderr_does_not_stop_a_paid_run(server: SimulatorCommand, prompts: Path) -> None:
    """F153: a run continues when its messages are no longer read."""
    reader, writer = os.pipe()
    os.close(reader)
    command = ("run", str(prompts), "-o", "x", "--base-url", server.url, *FAST)
    child = started(*command, cwd=prompts.parent, stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    out, _ = child.communicate(timeout=patient())
    assert (child.returncode, len(out.splitlines())) == (0, 3)


@pytest.mark.slow
def test_p15_first_ctrl_c_lets_paid_jobs_land(prompts: Path) -> None:
    """P15 F150: nothing more is submitted, what is paid lands, and the code is 130."""
    with running_simulator("--latency", "0.3..0.3", "--limit", "4") as slow:
        command = ("run", "prompts.txt", "-o", "x", "--n", "20", "--in-flight", "4")
        terminal = Terminal(*command, "--base-url", slow.url, cwd=prompts.parent)
        terminal.read_until("running")
        terminal.press(CTRL_C)
        assert terminal.end() == 130
        ledger = slow.ledger()
    assert "paid: waiting up to 10 s for them; Ctrl-C again to leave at once" in terminal.shown
    assert "Traceback" not in terminal.shown
    images = list((prompts.parent / "x").glob("*.jpg"))
    assert ledger["charges"] == ledger["delivered"] == len(images) < 60


@pytest.mark.slow
def test_p15_second_ctrl_c_exits_at_once_and_lists_paid_jobs(prompts: Path) -> None:
    """P15 F150: the command leaves jobs that never end; the next run finds them in the journal."""
    with running_simulator("--fault", "pending-forever:1", "--latency", "0..0") as stuck:
        command = ("run", "prompts.txt", "-o", "x", "--base-url", stuck.url, *FAST)
        terminal = Terminal(*command, cwd=prompts.parent)
        terminal.read_until("3 running")
        terminal.press(CTRL_C)
        terminal.read_until("3 jobs are paid: waiting up to 10 s")
        terminal.press(CTRL_C)
        assert terminal.end() == 130
    assert "3 paid but not fetched" in terminal.shown
    assert "run the same command again to continue" in terminal.shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        pytest.param(signal.SIGTERM, 143, id="P30 F151 SIGTERM"),
        pytest.param(signal.SIGHUP, 129, id="P30 F151 SIGHUP"),
    ],
)
def test_other_signals_are_as_polite_as_ctrl_c(
    prompts: Path, number: signal.Signals, expected: int
) -> None:
    """A stopped container or a closed terminal loses no paid job silently."""
    with running_simulator("--fault", "pending-forever:1", "--latency", "0..0") as stuck:
        command = ("run", "prompts.txt", "-o", "x", "--grace", "0", "--base-url", stuck.url)
        child = started(*command, cwd=prompts.parent, stderr=subprocess.PIPE)
        assert child.stderr is not None
        said = child.stderr.readline()
        while stuck.charges() < 3:
            assert child.poll() is None
        child.send_signal(number)
        said += child.stderr.read()
        child.stderr.close()
        assert child.wait(timeout=patient()) == expected
    assert "3 paid but not fetched" in said
    assert "run the same command again to continue" in said


def test_an_empty_list_is_an_error_that_a_scheduler_notices(
    cli: Any, server: SimulatorCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P30: exit code 2 and one sentence, from a file, blank lines and standard input alike."""
    for content in ("", "\n \n"):
        (tmp_path / "empty.txt").write_text(content)
        for more in (("--dry-run",), ("-o", "x", "--base-url", server.url)):
            code, out, err = cli("run", "empty.txt", *more)
            assert (code, out) == (2, [])
            assert err == [
                "fluxasync: empty.txt holds no prompts, so there is nothing to do: check it"
            ]
    assert not (tmp_path / "x").exists()
    child = started(
        "run", "-", "-o", "x", "--base-url", server.url, cwd=tmp_path,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, said = child.communicate(timeout=patient())
    assert child.returncode == 2
    assert "fluxasync: standard input held no prompts, so nothing was done" in said


def test_a_cap_is_in_the_plan_and_in_the_next_step(
    cli: Any, server: SimulatorCommand, tmp_path: Path
) -> None:
    """P7: the plan says how many images the cap pays for, dry or not; at the end one sentence says
    how to continue, and the same command with a higher cap does."""
    (tmp_path / "many.txt").write_text("".join(f"a fox, {number}\n" for number in range(20)))
    line = ("run", "many.txt", "-o", "out", "--base-url", server.url, *FAST)
    expected = (
        "20 images, $0.28 at list price, about 2 s with 24 jobs at once; "
        "the cap pays for 3 images, $0.042 at list price, about 1 s with 24 jobs at once"
    )
    code, out, _ = cli(*line, "--max-cost", "0.05", "--dry-run")
    assert (code, out) == (0, [expected])
    code, out, err = cli(*line, "--max-cost", "0.05")
    assert (code, len(out)) == (5, 3)
    assert err[0] == expected
    assert [text for text in err if "to continue" in text] == [
        "to continue: the same command with a higher --max-cost"
    ]
    assert "3 new, 0 failed, 17 not started" in err[-1]
    code, out, _ = cli(*line, "--max-cost", "0.07", "--dry-run")
    assert out[0].endswith(
        "; the cap pays for 2 images, $0.028 at list price, about 1 s with 24 jobs at once"
    )
    code, out, err = cli(*line, "--max-cost", "1")
    assert (code, len(out)) == (0, 17)
    assert "17 new, 3 already there, 0 failed, spent" in err[-1]


def test_simulate_prints_its_url_and_a_command_and_ends_with_its_ledger() -> None:
    """The simulator prints a command to copy, and its charges at the end."""
    server = SimulatorCommand("--latency", "0.1..0.2")
    with urllib.request.urlopen(f"{server.url}/simulator/ledger"):  # noqa: S310
        said = server.end()
    assert server.url.startswith("http://127.0.0.1:")
    assert f"--base-url {server.url}" in said
    assert "0 charges" in said.splitlines()[-1]


def test_simulate_says_which_webhooks_it_did_not_call() -> None:
    """A real application is not called, and its user learns why."""
    server = SimulatorCommand("--latency", "0..0")
    body = {"prompt": "a fox", "webhook_url": "https://hooks.example.com/"}
    request = urllib.request.Request(  # noqa: S310
        f"{server.url}/flux/v1/flux-dev", data=json.dumps(body).encode()
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        assert answer.status == 200
    assert "webhooks outside this network not called: 1" in server.end().splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        pytest.param(("--fault", "flood:1"), "lost-reply", id="unknown fault"),
        pytest.param(("--latency", "fast"), "0.5..2", id="latency"),
        pytest.param(("--webhooks", "sha1"), "signatures: hmac, header", id="webhooks"),
    ],
)
def test_simulate_refuses_unknown_words(cli: Any, option: tuple[str, str], said: str) -> None:
    """The known words are listed, in one line, exit code 2."""
    code, out, err = cli("simulate", "--port", "0", *option)
    assert (code, out, len(err)) == (2, [], 1)
    assert said in err[0]
