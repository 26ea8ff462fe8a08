"""Control of a run while it lasts: over a real socket, from this program and from another terminal.

A pause loses nothing and submits nothing; a cap holds at once; nobody else gets in.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from support.patience import patient
from support.pseudo_terminal import Terminal
from support.simulated_accounts import QUICK, account, pool, simulators
from support.simulator_sessions import (
    audit,
    end_jobs,
    fast_session,
    outcomes_of,
    small_requests,
    until,
)

from fluxasync import Batch, BudgetExceeded, FluxPool, FluxSession, Saved
from fluxasync._batch.control_server import ControlServer
from fluxasync._batch.progress.counts import Progress
from fluxasync._batch.run_control import RunControl
from fluxasync._engine.pool import batch_engine_of
from fluxasync._store.control_socket import NAME, connected
from fluxasync._store.files import HOME
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._cli import ctl_command
from fluxasync._cli.app import main
from fluxasync._cli.findings import in_own_thread

SLOW = Scenario(latency=(3600, 3600))  #: jobs end when a test says so


async def ask(folder: Path, **request: Any) -> dict[str, Any]:
    """Ask the run of a folder, as `ctl` does."""

    def asked() -> dict[str, Any]:
        with closing(connected(folder / HOME, timeout=patient())) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline())
        return answer

    return await in_own_thread(asked)


@asynccontextmanager
async def controlled(
    flux: FluxSession | FluxPool, batch: Batch, folder: Path, **options: Any
) -> AsyncIterator[Progress]:
    """Run a batch under control, as the command does; yield its progress."""
    progress = Progress()
    stop = batch_engine_of(flux).observers.add(progress)
    async with batch:
        progress.expect(batch.plan or await batch.check(), estimate=batch.affordable)
        control = RunControl(flux, batch, progress, **options)
        stop_jobs = control.watch()
        async with ControlServer(folder / HOME, control.answer):
            yield progress
        stop_jobs()
        stop()


@pytest.mark.asyncio
async def test_a_pause_lets_paid_jobs_land_and_submits_nothing(tmp_path: Path) -> None:
    """P1: paused, the jobs in flight end and are saved, and no slot is taken; resumed, the rest is
    made, each once."""
    async with Simulator(SLOW) as sim, fast_session(sim.url, limits=3) as flux:
        batch = Batch(flux, small_requests(9), out=tmp_path)
        async with controlled(flux, batch, tmp_path) as progress:
            reading = asyncio.create_task(outcomes_of(batch))
            await until(lambda: progress.submitted == 3)
            paused = await ask(tmp_path, do="pause")
            assert paused == {
                "ok": True, "said": "paused: nothing more is submitted; 3 paid jobs may land",
            }  # fmt: skip
            end_jobs(sim)
            await until(lambda: progress.saved == 3 and not flux.in_flight)
            top = (await ask(tmp_path, do="top"))["top"]
            assert (top["state"], top["images"]["saved"], top["jobs"]) == ("paused", 3, [])
            assert sim.world.posts == 3
            assert "paused by fluxasync ctl" in progress.line(0)
            await ask(tmp_path, do="resume")
            for posts in (6, 9):
                await until(lambda posts=posts: progress.submitted == posts)
                end_jobs(sim)
            outcomes = await reading
    assert len(outcomes) == 9
    audit(sim.world, outcomes, folder=tmp_path)


@pytest.mark.asyncio
async def test_a_stop_ends_a_paused_run(tmp_path: Path) -> None:
    """A pause never holds the end of a run up."""
    async with Simulator(SLOW) as sim, fast_session(sim.url, limits=1) as flux:
        batch = Batch(flux, small_requests(5), out=tmp_path)
        async with controlled(flux, batch, tmp_path) as progress:
            reading = asyncio.create_task(outcomes_of(batch))
            await until(lambda: progress.submitted == 1)
            await ask(tmp_path, do="pause")
            batch.stop()
            end_jobs(sim)
            assert [type(each) for each in await reading] == [Saved]
    assert sim.world.posts == 1


@pytest.mark.asyncio
async def test_the_limit_changes_at_once(tmp_path: Path) -> None:
    """More slots are filled at once; wrong numbers are refused and change nothing."""
    async with Simulator(SLOW) as sim, fast_session(sim.url, limits=2) as flux:
        batch = Batch(flux, small_requests(8), out=tmp_path)
        async with controlled(flux, batch, tmp_path) as progress:
            reading = asyncio.create_task(outcomes_of(batch))
            await until(lambda: sim.world.posts == 2)
            for wrong in (0, -3, "many", True, None, 2.5):
                assert not (await ask(tmp_path, do="limit", in_flight=wrong))["ok"]
            assert not (await ask(tmp_path, do="limit", in_flight=3, account="b"))["ok"]
            assert flux.limits.in_flight == 2
            assert (await ask(tmp_path, do="limit", in_flight=8))["said"].startswith("8 slots")
            await until(lambda: sim.world.posts == 8)
            top = (await ask(tmp_path, do="top"))["top"]
            assert (top["slots"]["used"], top["slots"]["limit"]) == (8, 8)
            assert {job["state"] for job in top["jobs"]} == {"running"}
            assert progress.slots == 8
            assert (await ask(tmp_path, do="limit", in_flight="auto"))["ok"]
            end_jobs(sim)
            assert len(await reading) == 8


@pytest.mark.asyncio
async def test_the_cap_holds_at_once(tmp_path: Path) -> None:
    """A lowered cap is never passed, and a raised one lets the run go on to its end."""
    async with Simulator(SLOW) as sim, fast_session(sim.url, limits=2, budget="0.05") as flux:
        batch = Batch(flux, small_requests(6), out=tmp_path / "raised")
        async with controlled(flux, batch, tmp_path / "raised") as progress:
            reading = asyncio.create_task(outcomes_of(batch))
            await until(lambda: progress.submitted == 2)
            assert progress.total == 2
            for wrong in ("-1", "much", "nan"):
                assert not (await ask(tmp_path / "raised", do="budget", max_cost=wrong))["ok"]
            said = (await ask(tmp_path / "raised", do="budget", max_cost="0.15"))["said"]
            assert said == "a cap of $0.15, of which $0.10 are left"
            assert progress.total == 6
            for posts in (4, 6):
                end_jobs(sim)
                await until(lambda posts=posts: progress.submitted == posts)
            end_jobs(sim)
            assert len(await reading) == 6
    async with Simulator(SLOW) as sim, fast_session(sim.url, limits=2) as flux:
        batch = Batch(flux, small_requests(6), out=tmp_path / "lowered")
        async with controlled(flux, batch, tmp_path / "lowered") as progress:
            reading = asyncio.create_task(outcomes_of(batch))
            await until(lambda: progress.submitted == 2)
            said = (await ask(tmp_path / "lowered", do="budget", max_cost="0.04"))["said"]
            assert "the run ends when its paid jobs have landed" in said
            end_jobs(sim)
            with pytest.raises(BudgetExceeded):
                await reading
    assert len(sim.charges) == 2


@pytest.mark.asyncio
async def test_a_cap_is_refused_where_a_price_is_unknown(tmp_path: Path) -> None:
    """Under a cap an unknown price would end the run."""
    async with Simulator(SLOW) as sim, fast_session(sim.url, limits=1) as flux:
        requests = small_requests(2, model="my-own-model")
        batch = Batch(flux, requests, out=tmp_path, grace=0)
        async with controlled(flux, batch, tmp_path):
            answer = await ask(tmp_path, do="budget", max_cost="5")
    assert "unknown price" in answer["error"]


@pytest.mark.asyncio
async def test_each_account_has_its_own_limit(tmp_path: Path) -> None:
    """Of several accounts one is named; a pause holds all."""
    async with (
        simulators(Scenario(**QUICK), Scenario(**QUICK)) as (first, second),
        pool(account(first, "a", limits=1), account(second, "b", limits=1)) as flux,
    ):
        batch = Batch(flux, small_requests(6), out=tmp_path)
        async with controlled(flux, batch, tmp_path):
            await ask(tmp_path, do="pause")
            unnamed = await ask(tmp_path, do="limit", in_flight=4)
            assert unnamed["error"] == "which account? --account a or b"
            named = await ask(tmp_path, do="limit", in_flight=4, account="b")
            assert named["said"].startswith("4 slots of account b")
            assert (await ask(tmp_path, do="budget", max_cost="9", account="a"))["ok"]
            top = (await ask(tmp_path, do="top"))["top"]
            assert [each["limit"] for each in top["accounts"]] == [1, 4]
            assert [each["cap"] for each in top["accounts"]] == [9.0, None]
            await ask(tmp_path, do="resume")
            outcomes = await outcomes_of(batch)
    assert len(outcomes) == len(first.charges) + len(second.charges) == 6


@pytest.mark.asyncio
async def test_a_long_path_and_a_private_socket(tmp_path: Path) -> None:
    """A folder whose path no socket's address holds is controlled, too; the socket is the user's
    alone, replaces what lay in its place, and is gone after the run."""
    folder = tmp_path.joinpath(*(["a folder with a long name"] * 8))
    home = folder / HOME
    home.mkdir(parents=True, mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (home / NAME).symlink_to(victim)
    async with ControlServer(home, lambda request: {"ok": True, "said": request["do"]}):
        found = (home / NAME).lstat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert (await ask(folder, do="anything"))["said"] == "anything"
    assert list(home.iterdir()) == []
    assert victim.read_text() == "kept"


@pytest.mark.asyncio
async def test_nonsense_is_refused_and_the_run_goes_on(tmp_path: Path) -> None:
    """Lines that are no request, an endless line, many connections and a failing answer end
    nothing."""
    (tmp_path / HOME).mkdir()

    def failing(request: Any) -> dict[str, Any]:
        return {"ok": True} if request == {"do": "top"} else {}["broken"]

    def connect() -> socket.socket:
        return connected(tmp_path / HOME, timeout=patient())

    async with ControlServer(tmp_path / HOME, failing):
        reader, writer = await asyncio.open_unix_connection(sock=connect())
        for line in (b"pause\n", b"[]\n", b"[" * 4000 + b"\n", b"\xff\n", b'{"do": 1}\n'):
            writer.write(line)
            assert not json.loads(await reader.readline())["ok"]
        writer.write(b"x" * 10_000)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        idle = [connect() for _ in range(20)]
        await until(lambda: any(_is_closed(each) for each in idle))
        for each in idle:
            each.close()
        await asyncio.sleep(0)
        assert (await ask(tmp_path, do="top")) == {"ok": True}


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


@pytest.mark.asyncio
async def test_a_run_on_a_cluster_is_only_looked_at(tmp_path: Path) -> None:
    """What cannot be changed is refused with the way to change it; `top` answers."""
    async with Simulator(SLOW) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, small_requests(1), out=tmp_path, grace=0)
        async with controlled(flux, batch, tmp_path, refusal="stop it with Ctrl-C"):
            assert (await ask(tmp_path, do="pause"))["error"] == "stop it with Ctrl-C"
            assert (await ask(tmp_path, do="top"))["top"]["state"] == "running"


def test_why_there_is_nobody_to_ask(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a run, with a run of a program, without sockets, and with a stopped process, one
    line says what is the matter."""
    assert main(["ctl", str(tmp_path), "pause"]) == 2
    assert "is not the folder of a run" in capfd.readouterr().err
    assert main(["ctl", str(tmp_path), "limit"]) == 2
    assert main(["ctl", str(tmp_path), "limit", "many"]) == 2
    assert main(["ctl", str(tmp_path), "pause", "7"]) == 2
    assert main(["ctl", str(tmp_path), "halt"]) == 2
    capfd.readouterr()

    async def used(reason: str) -> str:
        async with (
            Simulator() as sim,
            fast_session(sim.url) as flux,
            Batch(flux, small_requests(1), out=tmp_path, grace=0),
        ):
            if reason:
                (tmp_path / HOME / NAME).write_text(reason)
            assert await in_own_thread(lambda: main(["ctl", str(tmp_path), "pause"])) == 2
        return capfd.readouterr().err

    assert "only fluxasync run listens" in asyncio.run(used(""))
    assert "cannot be controlled: no sockets here" in asyncio.run(used("no sockets here"))

    monkeypatch.setattr(ctl_command, "_PATIENCE", 0.1)
    (tmp_path / HOME / NAME).unlink()
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        monkeypatch.chdir(tmp_path / HOME)
        silent.bind(NAME)
        silent.listen()
        assert main(["ctl", str(tmp_path), "pause"]) == 9
    assert "does not answer" in capfd.readouterr().err
    assert main(["ctl", str(tmp_path), "pause"]) == 2  # as after a kill: nobody listens there
    assert "no run is active" in capfd.readouterr().err

    async def replaced() -> dict[str, Any]:
        async with ControlServer(tmp_path / HOME, lambda request: {"ok": True}):
            return await ask(tmp_path, do="top")

    assert asyncio.run(replaced()) == {"ok": True}


@pytest.mark.asyncio
async def test_a_file_system_without_sockets_stops_no_run() -> None:
    """A run without a socket goes on."""
    async with ControlServer(Path("/proc/self"), lambda request: {"ok": True}):
        pass


def test_from_another_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two terminals: the run shows its pause, `top` shows the run until it ends, and no socket is
    left."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"a small fox {number}\n" for number in range(60)))
    quick = ("--model", "flux-2-klein-4b", "--in-flight", "1")
    line = ("run", "prompts.txt", "-o", "out", "--simulate", *quick)
    run = Terminal(*line, cwd=tmp_path)
    run.read_until("running")
    control = ("ctl", str(tmp_path / "out"))
    assert main([*control, "pause"]) == 0
    run.read_until("paused by fluxasync ctl")
    top = Terminal("ctl", "out", "top", cwd=tmp_path)
    top.read_until("paused: fluxasync ctl DIR resume goes on")
    assert main([*control, "limit", "24", "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["ok"]
    assert main([*control, "resume"]) == 0
    top.read_until("of 24 in use")
    assert run.end() == 0
    top.read_until("the run has ended")
    assert top.end() == 0
    assert not os.path.lexists(tmp_path / "out" / HOME / NAME)
