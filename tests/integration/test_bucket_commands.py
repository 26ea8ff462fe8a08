"""Commands that take the URL of a run whose record is in its bucket, on machines that have seen
nothing of the run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from attrs import evolve
from support.command_line import command
from support.gallery_folders import cards_of
from support.object_stores import BUCKET, SECRET, moto_s3
from support.patience import patient
from support.simulator_sessions import FAST, fast_session, rows, run_out, small_requests, tally
from support.watched_runs import watched_run

import fluxasync
from fluxasync import Batch, ConfigError, Credentials, Failed, JournalError, audit, gallery
from fluxasync._store import lease
from fluxasync._store.bucket_state import located
from fluxasync._store.object_log import ObjectLog
from fluxasync._store.objects import Objects
from fluxasync.gallery import server
from fluxasync.gallery.server import GalleryServer
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("obstore", reason="the extra `store` is not installed")
pytest.importorskip("PIL", reason="the extra `image` is not installed")

pytestmark = pytest.mark.asyncio

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
LOST = Scenario(latency=(0, 0), faults=["lost-reply:1.0"], access_token="t", seed=5)

Move = Callable[[str], None]


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """Moves to another machine: a call gives this process an empty cache of this name."""

    def move(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machines" / name))

    move("first")
    return move


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket/run"


async def run(sim: Simulator, url: str, count: int = 3, **options: Any) -> list[Any]:
    credentials = Credentials(api_key="k", access_token="t")
    async with fast_session(sim.url, api_key=credentials) as flux:
        given = {"out": url, "reconcile": "never"} | options
        outcomes, error = await run_out(Batch(flux, small_requests(count), **given))
    assert error is None
    return outcomes


async def in_doubt(url: str, count: int = 3) -> list[audit.InDoubtEntry]:
    """Lose the answers of a run."""
    async with Simulator(LOST) as sim:
        assert tally(await run(sim, url, count)) == {"in doubt": count}
    return await audit.in_doubt(url)


async def in_quarantine(url: str) -> list[audit.QuarantinedEntry]:
    """Make a run whose images end in quarantine."""
    broken = Scenario(latency=(0, 0), faults={"truncated": 1.0}, repeats=10_000)
    hasty = evolve(FAST["timeouts"], job=0.2)
    async with Simulator(broken) as sim, fast_session(sim.url, timeouts=hasty) as flux:
        outcomes, _ = await run_out(Batch(flux, small_requests(2), out=url))
    assert all(isinstance(each, Failed) for each in outcomes)
    return await audit.quarantined(url)


# --- what only reads ------------------------------------------------------------------------------


async def test_status_verify_and_bill_read_the_record_of_the_bucket(url: str, machine: Move):
    """Their figures are those of the machine that made the images, and nothing is changed there."""
    async with Simulator(SCENARIO) as sim:
        await run(sim, url)
    before = {name for name, _ in Objects(url).sizes()}
    machine("second")
    found = await audit.status(url)
    assert (found.counts.done, found.output, found.is_running) == (3, url, False)
    checked = await audit.verify(url, deep=True)
    assert (checked.images, checked.is_clean, checked.unknown_images) == (3, True, 0)
    assert sum(line.jobs for line in (await fluxasync.bill(None, url)).lines) == 3
    assert await audit.in_doubt(url) == await audit.quarantined(url) == []
    assert {name for name, _ in Objects(url).sizes()} == before


async def test_a_page_is_written_on_another_machine(url: str, machine: Move, tmp_path: Path):
    """Into this machine's copy with thumbnails only, and with `out` with the images."""
    async with Simulator(SCENARIO) as sim:
        await run(sim, url)
    machine("second")
    written = await gallery.write(url)
    assert written.path.is_relative_to(tmp_path / "machines" / "second")
    assert (written.saved, written.output) == (3, url)
    written = await gallery.write(url, out=tmp_path / "page")
    for card in cards_of(written.path.read_bytes()):
        assert (tmp_path / "page" / card["file"]).stat().st_size == card["bytes"]


async def test_a_page_follows_a_run_on_another_machine(
    url: str, machine: Move, monkeypatch: pytest.MonkeyPatch
):
    """An open page shows what that run saves: the copy of the record is renewed."""
    monkeypatch.setattr(server, "_REFRESH_INTERVAL", 0.05)
    async with Simulator(SCENARIO) as sim:
        await run(sim, url, 1)
        machine("second")
        place = await located(url)
        async with GalleryServer(place.folder, refresh=place.refresh) as page:
            async with (
                aiohttp.ClientSession() as web,
                web.get(f"{page.url}events?from=1") as events,
                asyncio.timeout(patient()),
            ):
                machine("first")
                await run(sim, url, 2)
                while not (line := await events.content.readline()).startswith(b"data: "):
                    pass
            (card,) = json.loads(line[6:])
    assert (card["index"], card["status"]) == (1, "saved")


# --- what decides ---------------------------------------------------------------------------------


async def test_decisions_about_doubts_are_in_the_record(url: str, machine: Move):
    """`drop`, `give_jobs` and `resubmit` on one machine count on every other."""
    first, second, third = await in_doubt(url)
    machine("second")
    assert [each.key for each in await audit.drop(url, [first.key])] == [first.key]
    await audit.resubmit(url, [second.key], max_cost=Decimal(1))
    machine("third")
    await audit.give_jobs(url, {third.key: "job-of-the-third"})
    machine("fourth")
    counts = (await audit.status(url)).counts
    assert (counts.in_doubt, counts.failed["dropped"], counts.running, counts.again) == (0, 1, 1, 1)
    assert rows_of(url, "failures.jsonl") == [first.key]


def rows_of(url: str, name: str) -> list[str]:
    """The keys of a list in the bucket."""
    return [line["key"] for line in rows(Path(url.removeprefix("file://"), name))]


async def test_reconcile_collects_into_the_bucket(url: str, machine: Move):
    """On another machine the account's tasks are found and their images stored; the lists in the
    bucket have them."""
    async with Simulator(LOST) as sim:
        assert tally(await run(sim, url)) == {"in doubt": 3}
        machine("second")
        given = Credentials(api_key="k", access_token="t")
        async with fast_session(sim.url, api_key=given) as flux:
            found = await fluxasync.reconcile(flux, url, patience=5)
    assert tally(found.outcomes) == {"saved": 3}
    machine("third")
    assert (await audit.verify(url, deep=True)).is_clean
    assert len(rows_of(url, "metadata.jsonl")) == 3


async def test_quarantined_bytes_are_accepted_or_discarded_anywhere(url: str, machine: Move):
    """They come with the record; afterwards the bucket has no copy of them, and its lists say what
    became of them."""
    first, second = await in_quarantine(url)
    machine("second")
    assert [each.key for each in await audit.quarantined(url)] == [first.key, second.key]
    (accepted,) = await audit.accept(url, [first.key])
    assert accepted.place.startswith(f"{url}/00000")
    await audit.discard(url, [second.key])
    machine("third")
    assert await audit.quarantined(url) == []
    assert rows_of(url, "metadata.jsonl") == [first.key]
    assert not [name for name, _ in Objects(url).sizes() if "quarantine/" in name]


async def test_an_active_run_elsewhere_is_read_and_not_disturbed(url: str, machine: Move):
    """Figures and pages are of what is recorded so far; a change of the record is refused, and the
    error names the process of the run."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        async with Batch(flux, small_requests(3), out=url) as batch:
            saved = [await anext(batch)]
            machine("second")
            assert (await audit.status(url)).counts.done >= 1
            assert (await gallery.write(url)).saved >= 1
            for change in (audit.drop(url), audit.discard(url), fluxasync.export(url)):
                with pytest.raises(JournalError, match=str(os.getpid())):
                    await change
            machine("first")
            saved += [outcome async for outcome in batch]
        assert tally(saved) == {"saved": 3}
    machine("third")
    assert (await audit.verify(url, deep=True)).images == 3


async def test_a_run_on_another_machine_is_named(url: str, machine: Move, tmp_path: Path):
    """`status`, `verify` and `bill` say in one line where the run is active, for how long, and when
    it was last heard of, also as JSON; when it has ended they say nothing of it."""
    who = f"active on {socket.gethostname()} (process {os.getpid()}) since 20"
    second = {"XDG_CACHE_HOME": str(tmp_path / "machines" / "second")}
    async with (
        Simulator(SCENARIO) as sim,
        fast_session(sim.url) as flux,
        Batch(flux, small_requests(1), out=url) as batch,
    ):
        assert tally([outcome async for outcome in batch]) == {"saved": 1}
        for verb in ("status", "verify", "bill"):
            ended = await command(verb, url, cwd=tmp_path, **second)
            (line,) = [each for each in ended.out + ended.err if each.startswith(who)]
            assert re.search(r"UTC, last sign \d+ s ago", line)
            (row,) = (await command(verb, url, "--json", cwd=tmp_path, **second)).out
            holder = json.loads(row)["holder"]
            assert (holder["pid"], holder["host"]) == (os.getpid(), socket.gethostname())
            assert 0 <= holder["silence"] < lease.SILENCE
    for verb in ("status", "verify", "bill"):
        ended = await command(verb, url, cwd=tmp_path, **second)
        assert "active on" not in "\n".join(ended.out + ended.err)


# --- exports --------------------------------------------------------------------------------------


async def test_an_export_is_recorded_in_the_bucket(url: str, machine: Move, tmp_path: Path):
    """Another machine with the same paths knows the shards; the images that they hold are deleted
    from the bucket, and are missed nowhere."""
    async with Simulator(SCENARIO) as sim:
        await run(sim, url)
        machine("second")
        made = await fluxasync.export(url, out=tmp_path / "shards", delete_images=True)
        assert (made.images, made.deleted, made.output) == (3, 3, url)
        machine("third")
        again = await fluxasync.export(url, out=tmp_path / "shards")
        assert (again.made, again.images) == (0, 3)
        checked = await audit.verify(url)
        assert (checked.is_clean, checked.exported) == (True, 3)
        assert await run(sim, url, finished="skip") == []
        assert len(sim.world.charges) == 3
    with pytest.raises(ConfigError, match="has no record of a run"):
        await fluxasync.export(f"{url}2", out=tmp_path / "more")


async def test_images_that_the_bucket_lost_are_made_again_anywhere(
    url: str, machine: Move, tmp_path: Path
):
    """`retry="damaged"` lists the bucket, and the record has what it made, for every machine."""
    async with Simulator(SCENARIO) as sim:
        await run(sim, url, 4)
    gone, short, *_ = sorted((tmp_path / "bucket" / "run").glob("0*"))
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-1])
    machine("second")
    assert (await audit.verify(url)).found == {"missing": 1, "truncated": 1}
    async with Simulator(SCENARIO) as sim:
        again = await run(sim, url, 4, retry="damaged", finished="skip")
        assert (tally(again), len(sim.world.charges)) == ({"saved": 2}, 2)
    machine("third")
    assert (await audit.verify(url, deep=True)).is_clean


# --- the commands ---------------------------------------------------------------------------------

COMMANDS = (
    pytest.param(["status"], id="status"),
    pytest.param(["verify"], id="verify"),
    pytest.param(["resolve"], id="resolve"),
    pytest.param(["resolve", "--drop"], id="resolve --drop"),
    pytest.param(["gallery"], id="gallery"),
    pytest.param(["gallery", "--watch"], id="gallery --watch"),
    pytest.param(["bill"], id="bill"),
    pytest.param(["export", "--to", "csv"], id="export"),
)


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS)
async def test_a_url_without_a_record_is_an_error_of_one_line(words: list[str], tmp_path: Path):
    """It says what a record may be named by; nothing is made."""
    (tmp_path / "bucket").mkdir()
    ended = await command(*words, f"file://{tmp_path}/bucket/run", cwd=tmp_path)
    assert (ended.code, ended.out) == (2, [])
    assert "has no record of a run: check the URL" in ended.said
    assert "name the folder" in ended.said


@pytest.mark.slow
async def test_every_command_against_a_real_server(tmp_path: Path):
    """Each on a machine of its own, with moto's S3 and credentials from the environment; what they
    say names the URL, and never a secret."""
    pytest.importorskip("moto.server")
    url = f"s3://{BUCKET}/runs/first"
    (tmp_path / "prompts.txt").write_text("a fox\na lamp\n")
    (tmp_path / "one.txt").write_text("a boat\n")
    http = ["--storage-option", "allow_http=true"]
    with moto_s3(tmp_path) as address:
        own = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

        async def on_a_machine(*words: object) -> list[str]:
            elsewhere = str(tmp_path / f"machine-{words[0]}")
            ended = await command(*words, *http, cwd=tmp_path, XDG_CACHE_HOME=elsewhere, **own)
            # a balance that comes after the first charge is an unexplained part of the bill
            assert ended.code in ((0, 3) if words[0] == "bill" else (0,)), ended.said
            assert SECRET not in "\n".join((*ended.out, *ended.err))
            return ended.out + ended.err

        await on_a_machine("run", "prompts.txt", "--simulate", "-o", url)
        assert f"images at {url}" in await on_a_machine("status", url)
        assert json.loads((await on_a_machine("status", url, "--json"))[0])["folder"] == url
        said = await on_a_machine("verify", url, "--deep")
        assert "2 images checked" in said[-1]
        assert "nothing is in doubt or in quarantine" in await on_a_machine("resolve", url)
        await on_a_machine("gallery", url, "-o", "page")
        assert len(list((tmp_path / "page" / "images").iterdir())) == 2
        await on_a_machine("bill", url)
        await on_a_machine("export", url, "--to", "webdataset")
        assert (tmp_path / "first-webdataset" / "run-00000.tar").is_file()


async def test_a_simulated_run_is_refused_where_its_jobs_are_unknown(tmp_path: Path):
    """A simulator has its jobs on one machine: elsewhere run and dry run say so and submit nothing;
    there the run collects them, and then goes on anywhere."""
    url, prompts = f"file://{tmp_path}/bucket/run", tmp_path / "prompts.txt"
    prompts.write_text("a fox\na lamp\n")
    line = ("run", "prompts.txt", "--simulate", "-o", url)
    first, second = ({"XDG_CACHE_HOME": str(tmp_path / name)} for name in ("first", "second"))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fluxasync", *line, "--json", cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=os.environ | first,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(patient(60)):
        for _ in range(2):
            while b'"submitted"' not in (text := await child.stdout.readline()):
                assert text
        child.kill()
        await child.communicate()
    for words in (line, (*line, "--dry-run")):
        ended = await command(*words, cwd=tmp_path, **second)
        assert (ended.code, ended.out) == (2, [])
        (said,) = ended.err
        assert f"{url} has 2 simulated jobs to collect, which no simulator on this machine" in said
    ended = await command(*line, cwd=tmp_path, **first)
    assert (ended.code, len(ended.out)) == (0, 2)
    prompts.write_text("a fox\na lamp\na boat\n")
    ended = await command(*line, cwd=tmp_path, **second)
    assert (ended.code, len(ended.out)) == (0, 1)


async def test_a_run_that_is_taken_over_says_so_once(tmp_path: Path):
    """The error that ended it is one line, and nothing else repeats it."""
    url = f"file://{tmp_path}/bucket/run"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fluxasync", "run", "-", "--simulate", "-o", url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    async with asyncio.timeout(patient(60)):
        child.stdin.write(b"a red fox\n")
        assert await child.stdout.readline()
        other = ObjectLog(Objects(url))
        assert list(other.groups())
        other.append(["{}"])
        _, err = await child.communicate(b"a boat\n")
    assert child.returncode == 7
    assert err.count(b"another run has taken over") == 1
    assert b"lists" not in err


@pytest.mark.slow
async def test_a_run_without_a_folder_is_watched(tmp_path: Path):
    """`run --watch` with only a URL: the page has the images, and the last line names the URL."""
    url = f"file://{tmp_path}/bucket/run"
    _, said = await watched_run("-o", url)
    assert f"for a page of the images: fluxasync gallery {url}\n".encode() in said
