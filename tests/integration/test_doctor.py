"""`doctor` finds what would stop a run, names the next step, sends no submission and never hangs;
`credits` shows each balance."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command_line import command
from support.object_stores import SECRET, SmallS3, options_of
from support.patience import HANGING
from support.raw_servers import answer, hangs, peer, says
from support.simulator_sessions import fast_session, small_requests

from fluxasync import Batch, ConfigError
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._batch.progress.terminal import Terminal
from fluxasync._cli.app import app
from fluxasync._cli.credits_command import show_credits
from fluxasync._cli.doctor_command import doctor
from fluxasync._cli.findings import CheckResult, bounded, in_own_thread
from fluxasync._cli.machine_checks import output_findings
from fluxasync._cli.options import AccountOptions

KEY = "canary-key-of-the-doctor"
TOKEN = "canary-token-of-the-doctor"
Found = tuple[int, dict[str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # has no copy of another run
    (tmp_path / "two.txt").write_text("a fox\na lamp\n")


def parsed(line: str) -> dict[str, Any]:
    """The arguments that a command line becomes."""
    _, bound, _ = app.parse_args(line.split(), print_error=False, exit_on_error=False)
    return {"sources": (), **bound.arguments}


async def examined(
    line: str, capfd: pytest.CaptureFixture[str], *, patience: float = HANGING
) -> Found:
    """Run `doctor … --json` in this process; return the exit code and the checks by name.

    A busy disk may take longer for a megabyte than the command waits: a check ends by `patience`
    only where that is what is tried.
    """
    given = parsed(f"doctor {line} --json")
    terminal = Terminal()
    try:
        options = given["options"]
        code, _ = await doctor(terminal, given["sources"], options, patience=patience)
    finally:
        terminal.close()
    out = capfd.readouterr()
    assert KEY not in out.out + out.err
    assert TOKEN not in out.out + out.err
    row = json.loads(out.out)
    assert row["exit_code"] == code
    assert row["ok"] is (code == 0)
    for check in row["checks"]:
        assert check["status"] == "ok" or check["next"], "a line without a next step"
    return code, {check["check"]: check for check in row["checks"]}


def problems(checks: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the checks that found a problem."""
    return [check for check in checks.values() if check["status"] not in ("ok", "skipped")]


@pytest.mark.asyncio
async def test_nothing_stands_in_the_way(capfd: pytest.CaptureFixture[str]) -> None:
    """Key, address, clock, balance, list, folder, room and limits are named; nothing is submitted
    and nothing is left behind."""
    async with Simulator(Scenario(key=KEY, credits=100)) as sim:
        code, checks = await examined(
            f"two.txt -o out --base-url {sim.url} --provider cometapi", capfd
        )
        assert not sim.world.posts
    assert code == 0
    assert "COMETAPI_KEY is accepted" in checks["key"]["text"]
    assert checks["balance"]["left"] == 1.0
    assert checks["balance"]["cost"] == 0.05
    assert checks["list"]["to_do"] == 2
    assert checks["output"]["free_bytes"] > checks["output"]["needed_bytes"] > 100_000
    assert abs(checks["clock"]["ahead_seconds"]) < 5
    assert {"versions", "address", "room", "limits"} <= set(checks)
    assert os.listdir() == ["two.txt"]


@pytest.mark.parametrize(
    ("scenario", "line", "code", "check", "words"),
    [
        pytest.param({"key": "another"}, "", 6, "key", "is refused", id="wrong key"),
        pytest.param(
            {"credits": 3}, "", 6, "balance", "$0.03 left; the list costs $0.05", id="poor"
        ),
        pytest.param({"credits": 3}, " --max-cost 0.03", 0, "balance", "$0.03 left", id="capped"),
        pytest.param({"clock_skew": 3600}, "", 0, "clock", "60 min behind", id="clock"),
        pytest.param({}, " --model flux-deev", 2, "list", "did you mean flux-dev", id="misspelt"),
        pytest.param({}, " --in-flight 30000", 0, "limits", "open files", id="files"),
    ],
)
@pytest.mark.asyncio
async def test_what_stands_in_the_way_has_a_next_step(
    scenario: dict[str, Any],
    line: str,
    code: int,
    check: str,
    words: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Each problem has its own line and the exit code with which the run would end."""
    async with Simulator(Scenario(**scenario)) as sim:
        ended, checks = await examined(f"two.txt -o out --base-url {sim.url}{line}", capfd)
        assert not sim.world.posts
    assert (code, True) == (ended, words in checks[check]["text"]), checks[check]


@pytest.mark.parametrize(
    ("cap", "code", "status"), [("0.01", 5, "failed"), ("0.03", 0, "warning"), ("0.05", 0, "ok")]
)
@pytest.mark.asyncio
async def test_a_cap_that_pays_for_less_is_told(
    cap: str, code: int, status: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run whose cap pays for no image makes none, and ends with 5."""
    async with Simulator(Scenario(key=KEY)) as sim:
        line = f"two.txt -o out --base-url {sim.url} --max-cost {cap}"
        ended, checks = await examined(line, capfd)
    assert (ended, checks["list"]["status"]) == (code, status), checks["list"]


@pytest.mark.asyncio
async def test_a_refused_access_token_is_not_called_a_refused_key(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The key and the token are two lines."""
    token = tmp_path / "token.txt"
    token.write_text(TOKEN)
    token.chmod(0o600)
    async with Simulator(Scenario(access_token="another")) as sim:
        line = f"--base-url {sim.url} --access-token-file {token}"
        code, checks = await examined(line, capfd)
    assert code == 6
    assert (checks["key"]["status"], checks["access token"]["status"]) == ("ok", "failed")
    assert checks["list"]["status"] == checks["output"]["status"] == "skipped"


@pytest.mark.asyncio
async def test_without_a_key_the_address_is_still_tried(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing key is named, and the provider is asked without one."""
    monkeypatch.delenv("COMETAPI_KEY")
    monkeypatch.delenv("BFL_API_KEY", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    code, checks = await examined("--provider bfl", capfd)
    assert code == 2
    assert "BFL_API_KEY" in checks["key"]["text"]
    assert checks["address"]["status"] == "failed"
    assert "127.0.0.1:9" in checks["address"]["text"]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        pytest.param(says(answer(b"<html>Sign in", 200)), "answers with a web page", id="portal"),
        pytest.param(
            says(answer(b"", 302, {"Location": "https://login.invalid/"})),
            "redirects to https://login.invalid/",
            id="redirect",
        ),
        pytest.param(hangs, "s", id="never answers"),
    ],
)
@pytest.mark.asyncio
async def test_what_answers_is_not_the_provider(
    behaviour: Callable[..., Any], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A sign-in page, a redirect and a silent server are named, and the key is not sent there."""
    async with peer(behaviour) as server:
        # the check itself would take ten seconds; the call ends before it
        line = f"--base-url {server.url}"
        code, checks = await examined(line, capfd, patience=1 if behaviour is hangs else HANGING)
        assert KEY.encode() not in b"".join(server.received)
    assert code == 9
    assert words in checks["address"]["text"]
    assert "key" not in checks


@pytest.mark.asyncio
async def test_each_account_has_its_lines(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several accounts each has its key and its address; the balances are one sum."""
    monkeypatch.setenv("FIRST", "first-key")
    monkeypatch.setenv("SECOND", "second-key")
    async with (
        Simulator(Scenario(key="first-key", credits=2)) as first,
        Simulator(Scenario(key="second-key", credits=4)) as second,
    ):
        (tmp_path / "accounts.toml").write_text(
            f'[[account]]\nname = "a"\nbase_url = "{first.url}"\nkey_variable = "FIRST"\n'
            f'[[account]]\nname = "b"\nbase_url = "{second.url}"\nkey_variable = "SECOND"\n'
        )
        code, checks = await examined("two.txt -o out --accounts accounts.toml", capfd)
        assert (code, checks["balance"]["left"]) == (0, 0.06)
        assert checks["key"]["account"] == "b"
        given = parsed("credits --accounts accounts.toml --json")
        terminal = Terminal()
        assert await show_credits(terminal, given["options"], json=True) == 0
        monkeypatch.setenv("SECOND", "revoked")
        given = parsed("credits --accounts accounts.toml")
        assert await show_credits(terminal, given["options"], json=False) == 6
        terminal.close()
    shown = capfd.readouterr()
    assert "account b: the key was refused" in shown.err
    assert "check COMETAPI_KEY, BFL_API_KEY or --key-file" in shown.err
    balances = json.loads(shown.out.splitlines()[0])["accounts"]
    assert {name: row["left"] for name, row in balances.items()} == {"a": 0.02, "b": 0.04}


@pytest.mark.asyncio
async def test_credits_of_the_simulator_need_no_key(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`credits --simulate` shows what the built-in simulator says, and takes no other account."""
    monkeypatch.delenv("COMETAPI_KEY")
    terminal = Terminal()
    assert await show_credits(terminal, AccountOptions(), simulate=True, json=True) == 0
    with pytest.raises(ConfigError, match="leave out"):
        await show_credits(terminal, AccountOptions(provider="bfl"), simulate=True, json=True)
    terminal.close()
    assert json.loads(capfd.readouterr().out)["left"] > 0


@pytest.mark.asyncio
async def test_folders_that_cannot_take_the_run(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file in the place of the folder, a folder with an active run and a disk that is too small
    are found before anything is paid."""
    (tmp_path / "file").write_text("")
    async with Simulator() as sim:
        there = f"--base-url {sim.url}"
        code, checks = await examined(f"two.txt -o file/out {there}", capfd)
        assert (code, checks["output"]["status"]) == (7, "failed")
        options = parsed("doctor -o out")["options"]
        _, room = await output_findings(options, 1_000, 10**12, patience=HANGING)
        assert (room.code, room.status) == (7, "failed")
        assert "1,000 images need about 1000.0 TB" in room.text
        async with fast_session(sim.url) as flux, Batch(flux, small_requests(1), out="busy"):
            code, checks = await examined(f"two.txt -o busy {there}", capfd)
            assert code == 8
            assert checks["output"]["status"] == "ok"  # the last of its two lines


@pytest.mark.asyncio
async def test_a_bucket_is_tried_with_an_object(
    capfd: pytest.CaptureFixture[str], s3: SmallS3
) -> None:
    """An object is created, not replaced, read and deleted; a bucket that replaces is refused."""
    options = " ".join(
        f"--storage-option {name}={value}" for name, value in options_of(s3.url).items()
    )
    async with Simulator() as sim:
        line = f"two.txt -o s3://pictures/run --base-url {sim.url} {options}"
        code, checks = await examined(line, capfd)
        assert (code, checks["bucket"]["status"]) == (0, "ok"), problems(checks)
        assert not s3.objects
        s3.honours_conditions = False
        code, replaced = await examined(line, capfd)
    assert (code, replaced["bucket"]["status"]) == (7, "failed")
    assert "the store overwrites an object" in replaced["bucket"]["text"]
    assert SECRET not in f"{checks}{replaced}"


@pytest.mark.asyncio
async def test_lines_for_people_and_credits(tmp_path: Path) -> None:
    """The command: a line for each check, the next step below it, and the exit code; `credits` is
    one line, and its errors have their codes."""
    async with Simulator(Scenario(key=KEY, credits=3)) as sim:
        at = ("--base-url", sim.url, "--provider", "cometapi")
        keys = {"COMETAPI_KEY": KEY}
        found = await command("doctor", "two.txt", "-o", "out", *at, cwd=tmp_path, **keys)
        assert (found.code, found.err) == (6, ["1 problem: the run would not begin well"])
        (poor,) = (n for n, line in enumerate(found.out) if line.startswith("failed   balance"))
        assert (
            "→ top up the account, or make a part of the list: --max-cost 0.03"
            in found.out[poor + 1]
        )
        shown = await command("credits", *at, cwd=tmp_path, **keys)
        assert (shown.code, shown.out) == (
            0,
            ["account at cometapi: $0.03 left, $0.00 used by everybody"],
        )


@pytest.mark.asyncio
async def test_a_disk_that_hangs_ends_the_check() -> None:
    """A call that never returns costs its check, not the command."""
    returned = threading.Event()
    found = await bounded("output", in_own_thread(returned.wait), code=7, seconds=0.05)
    returned.set()
    assert isinstance(found, CheckResult)
    assert (found.status, found.code, found.text) == ("failed", 7, "no end after 0.05 s")
