"""Paid images that fail a check for good: their bytes stay until a person decides, nothing is paid
again meanwhile, and each decision holds."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
from attrs import evolve
from support.simulator_sessions import (
    FAST,
    SIDE,
    batch_of,
    end_jobs,
    fast_session,
    rows,
    run_out,
    tally,
    until,
)

from fluxasync import (
    ConfigError,
    DownloadError,
    Failed,
    ImageRequest,
    Job,
    JournalError,
    Limits,
    SinkError,
)
from fluxasync import Outcome as AnyOutcome
from fluxasync import audit as folders
from fluxasync._cli.app import main
from fluxasync._store.audit.folder_status import quarantined_rows
from fluxasync._store.audit.quarantine_files import kept_image, published
from fluxasync.extend import Stored
from fluxasync.gallery.cards import read
from fluxasync.simulator import Scenario, Simulator

PROMPTS = ["a small picture, number 0", "a small picture, number 1"]
SCENARIO = Scenario(latency=(0, 0), retry_after=0.02, repeats=10_000)
HASTY = evolve(FAST["timeouts"], job=0.2)
QUARANTINE = ".fluxasync/quarantine"

pytestmark = pytest.mark.asyncio


async def a_run(
    sim: Simulator,
    folder: Path,
    *,
    retry: str | tuple[str, ...] = (),
    limits: Limits | None = None,
    **options: Any,
) -> list[AnyOutcome]:
    limits = limits or Limits(in_flight=4)
    async with fast_session(sim.url, limits=limits, timeouts=HASTY) as flux:
        parameters = {"width": SIDE, "height": SIDE}
        batch = batch_of(
            flux, PROMPTS, out=folder / "out", parameters=parameters, retry=retry,
            finished="skip", **options,
        )  # fmt: skip
        outcomes, error = await run_out(batch)
        assert error is None
        assert batch.summary.quarantined == len(names(folder))
        return outcomes


def names(folder: Path) -> list[str]:
    home = folder / "out" / QUARANTINE
    return sorted(path.name for path in home.iterdir()) if home.exists() else []


def charges(sim: Simulator) -> int:
    return len(sim.world.charges)


def broken(fault: str, *, seed: int = 0) -> Simulator:
    return Simulator(evolve(SCENARIO, faults=[fault], seed=seed))


FAULTS = [
    pytest.param("html-as-image", "HTML", 0, id="F75 not an image"),
    pytest.param("wrong-bytes", "Content-MD5", 0, id="F77 checksum"),
    pytest.param("truncated", "", 0, id="F71 F72 incomplete"),
    pytest.param("truncated", "broke", 14, id="F71 shorter than its Content-Length"),
]


@pytest.mark.parametrize(("fault", "reason", "seed"), FAULTS)
async def test_the_bytes_are_kept_and_shown_everywhere(
    tmp_path: Path, fault: str, reason: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outcome, failures.jsonl, status, verify and gallery name the bytes and the reason."""
    async with broken(fault, seed=seed) as sim:
        outcomes = await a_run(sim, tmp_path)
    assert tally(outcomes) == {"download": 2}
    out = tmp_path / "out"
    listed = {row["key"]: row for row in rows(out / "failures.jsonl")}
    found = await folders.status(out)
    assert len(found.quarantined) == len(names(tmp_path)) == 2
    for entry in found.quarantined:
        line = listed[entry.key]["quarantine"]
        assert out / line["path"] == entry.path
        assert (line["bytes"], line["sha256"]) == (entry.size, entry.sha256)
        assert reason in line["reason"]
        assert reason in entry.reason
        assert entry.path.stat().st_size == entry.size > 0
        assert entry.cost is not None
    assert {card.status for card in read(out).cards} == {"quarantined"}
    assert (await folders.verify(out)).is_clean
    for outcome in outcomes:
        assert isinstance(outcome, Failed)
        assert outcome.quarantined is not None
        assert outcome.paid == "yes"


@pytest.mark.parametrize("retry", ["failed", "lost", "failed,lost,download,expired,timeout"])
async def test_no_retry_pays_for_quarantined_bytes(tmp_path: Path, retry: str) -> None:
    """Also where the provider has forgotten the job, so that collecting it fails as lost."""
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
        before = names(tmp_path)
    async with Simulator(SCENARIO) as forgetful:
        for _ in range(3):
            await a_run(forgetful, tmp_path, retry=retry)
        assert charges(forgetful) == 0
        assert names(tmp_path) == before
        assert len(await folders.quarantined(tmp_path / "out")) == 2


async def test_a_retry_collects_for_free_what_the_provider_still_has(tmp_path: Path) -> None:
    """A download that failed by a passing fault is fetched again, and its quarantine is emptied."""
    async with Simulator(evolve(SCENARIO, faults=["html-as-image"], repeats=40)) as sim:
        await a_run(sim, tmp_path)
        assert len(names(tmp_path)) == 2
        outcomes: list[AnyOutcome] = []
        for _ in range(20):
            outcomes += await a_run(sim, tmp_path, retry="download")
        assert tally(outcomes)["saved"] == 2
        assert charges(sim) == 2
    assert names(tmp_path) == []
    assert await folders.quarantined(tmp_path / "out") == []


async def test_a_named_retry_pays_again_and_replaces_the_bytes(tmp_path: Path) -> None:
    """`quarantined` buys again where the job is gone; the old bytes go once an image is saved."""
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
    async with broken("moderated-content") as strict:
        assert tally(await a_run(strict, tmp_path, retry="quarantined")) == {"moderated": 2}
        assert len(await folders.quarantined(tmp_path / "out")) == 2  # not lost by the new failure
    async with Simulator(SCENARIO) as sim:
        assert tally(await a_run(sim, tmp_path, retry="moderated,failed")) == {}
        assert tally(await a_run(sim, tmp_path, retry="quarantined")) == {"saved": 2}
        assert charges(sim) == 2
    assert names(tmp_path) == []
    assert (await folders.verify(tmp_path / "out")).is_clean


async def test_accepted_bytes_become_the_images(tmp_path: Path) -> None:
    """They get their final names and lines in metadata.jsonl, and nothing is submitted again."""
    out = tmp_path / "out"
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
        (first, second) = await folders.quarantined(out)
        content = first.path.read_bytes()
        (accepted,) = await folders.accept(out, [first.key[:12]])
        assert accepted.path.parent == out
        assert accepted.path.read_bytes() == content
        assert not first.path.exists()
        assert [row["file_name"] for row in rows(out / "metadata.jsonl")] == [accepted.path.name]
        assert [row["key"] for row in rows(out / "failures.jsonl")] == [second.key]
        with pytest.raises(ConfigError, match="in quarantine"):
            await folders.accept(out, [first.key])
        await folders.accept(out)
        assert (await folders.verify(out)).is_clean
        assert await a_run(sim, tmp_path, retry="failed,quarantined") == []
        assert charges(sim) == 2
    assert (await folders.status(out)).counts.done == 2


async def test_bytes_that_are_no_image_are_accepted_by_key_only(tmp_path: Path) -> None:
    """Without keys they stay; with one, they get the extension and the format of what they are."""
    out = tmp_path / "out"
    async with broken("html-as-image") as sim:
        await a_run(sim, tmp_path)
    assert await folders.accept(out) == await folders.accept(out, ["all"]) == []
    keys = [entry.key for entry in await folders.quarantined(out)]
    assert len(keys) == 2
    accepted = await folders.accept(out, keys)
    assert {entry.path.suffix for entry in accepted} == {".bin"}
    assert {row["format"] for row in rows(out / "metadata.jsonl")} == {"unknown"}


async def test_discarded_bytes_are_gone_and_may_be_bought_again(tmp_path: Path) -> None:
    """After --discard the image is an ordinary failure: paid again by a retry, and only by one."""
    out = tmp_path / "out"
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
        assert len(await folders.discard(out)) == 2
        assert names(tmp_path) == []
        assert (await folders.status(out)).counts.failed == {"discarded": 2}
        assert await a_run(sim, tmp_path) == []
        assert charges(sim) == 2
    async with Simulator(SCENARIO) as sim:
        assert tally(await a_run(sim, tmp_path, retry="failed")) == {"saved": 2}
        assert charges(sim) == 2


async def test_a_paid_image_over_the_cap_is_kept_whole(tmp_path: Path) -> None:
    """F79 All of its bytes are in quarantine; with a higher cap its job is collected for free."""
    async with Simulator(SCENARIO) as sim:
        small = Limits(in_flight=4, max_image_bytes=1_000)
        outcomes = await a_run(sim, tmp_path, limits=small)
        assert tally(outcomes) == {"download": 2}
        assert isinstance(outcomes[0], Failed)
        assert "higher limit" in str(outcomes[0].error)
        contents = {
            entry.path.read_bytes() for entry in await folders.quarantined(tmp_path / "out")
        }
        saved = await a_run(sim, tmp_path, retry="download")
        assert {outcome.path.read_bytes() for outcome in saved} == contents
        assert charges(sim) == 2
    assert names(tmp_path) == []


async def test_a_run_killed_before_it_recorded_the_failure_keeps_the_bytes(tmp_path: Path) -> None:
    """The job is collected again; where it is gone by then, the bytes are found by its id."""
    out = tmp_path / "out"
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = batch_of(flux, PROMPTS[:1], out=out, parameters={"width": SIDE})
        async with batch:
            ledger = batch._output.ledger  # type: ignore[union-attr]
            request = ImageRequest(prompt="lost", model="flux-dev")
            await ledger.intent(request, price=None)
            await ledger.answered(request, Job(job_id="gone-1", request=request))
    home = out / QUARANTINE
    home.mkdir(mode=0o700)
    (home / "gone-1.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    assert (await folders.verify(out)).is_clean  # of a job to collect
    async with Simulator(SCENARIO) as sim:
        await a_run(sim, tmp_path)
    (entry,) = await folders.quarantined(out)
    assert (entry.job_id, entry.cause, entry.path.name) == ("gone-1", "lost", "gone-1.png")


async def test_verify_names_what_differs_in_the_quarantine(tmp_path: Path) -> None:
    """A missing, a changed and a stray file are findings; nothing is repaired in silence."""
    out = tmp_path / "out"
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
    first, second = await folders.quarantined(out)
    first.path.unlink()
    second.path.write_bytes(b"edited")
    (out / QUARANTINE / "stranger.bin").write_bytes(b"?")
    found = (await folders.verify(out)).found
    assert found == {"quarantine missing": 1, "quarantine changed": 1, "quarantine stray": 1}
    await folders.discard(out, [first.key])  # a missing file can be given up
    assert len(await folders.quarantined(out)) == 1


async def test_an_image_in_memory_is_compared_with_the_servers_md5() -> None:
    """F77 The sink in memory takes no MD5, so the download compares the bytes itself."""
    async with broken("wrong-bytes") as sim, fast_session(sim.url, timeouts=HASTY) as flux:
        with pytest.raises(DownloadError, match="Content-MD5") as caught:
            await flux.generate("a fox", width=SIDE, height=SIDE)
        assert caught.value.quarantined is not None


async def test_a_users_own_sink_gets_the_bytes_in_the_error(tmp_path: Path) -> None:
    """Without a place of ours they travel in `error.quarantined.data`, as for images in memory."""

    class Own:
        async def store(self, request: Any, job: Job, chunks: AsyncIterator[bytes]) -> Stored:
            content = b"".join([chunk async for chunk in chunks])
            raise DownloadError(f"{len(content)} bytes, refused", job=job)

    async with broken("html-as-image") as sim, fast_session(sim.url, timeouts=HASTY) as flux:
        for sink in (Own(), None):
            with pytest.raises(DownloadError) as caught:
                await flux.generate("a fox", to=sink, width=SIDE, height=SIDE)
            kept = caught.value.quarantined
            assert kept is not None
            assert b"Sign in" in (kept.data or b"")


async def test_the_command_line_accepts_and_discards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """status and resolve list them and the next step; --accept KEY and --discard KEY settle one."""
    out = str(tmp_path / "out")
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
    first, second = await folders.quarantined(out)

    async def command(*words: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, list(words))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    code, text, steps = await command("status", out)
    assert code == 0
    assert first.key[:12] in text
    assert str(first.path) in text
    assert f"fluxasync resolve {out} --accept KEY or --discard KEY" in steps
    row = json.loads((await command("status", out, "--json"))[1])
    assert [entry["key"] for entry in row["quarantined"]] == [first.key, second.key]
    code, text, steps = await command("resolve", out, "--accept", first.key[:8])
    assert (code, first.key[:12] in text, second.key[:12] in text) == (0, False, True)
    code, text, _ = await command("resolve", out, "--discard", "all", "--json")
    assert json.loads(text) == {"settled": [second.key], "in_doubt": [], "quarantined": []}
    assert (await command("resolve", out, "--accept", "--discard"))[0] == 2
    counts = (await folders.status(out)).counts
    assert (counts.done, counts.failed) == (1, {"discarded": 1})


async def test_a_quarantine_that_cannot_be_written_costs_only_the_bytes(tmp_path: Path) -> None:
    """A link in its place is not followed; the failure stays, says so, and the run goes on."""
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    (outside / "notes.txt").write_text("mine")
    async with broken("html-as-image") as sim:
        async with fast_session(sim.url) as flux, batch_of(flux, [], out=out):
            pass
        (out / QUARANTINE).symlink_to(outside)
        async with fast_session(sim.url, timeouts=HASTY) as flux:
            outcomes, error = await run_out(batch_of(flux, PROMPTS, out=out))
    assert error is None
    for outcome in outcomes:
        assert isinstance(outcome, Failed)
        assert outcome.quarantined is None
        assert "HTML" in str(outcome.error)
        assert "could not be kept: is a link" in str(outcome.error)
    assert [path.name for path in outside.iterdir()] == ["notes.txt"]


async def test_a_hostile_journal_removes_no_file_elsewhere(tmp_path: Path) -> None:
    """Rows that name a file outside the quarantine, or one behind a link, are not acted on."""
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
    first, _ = await folders.quarantined(out)
    precious = outside / first.path.name
    precious.write_bytes(b"mine")
    with closing(sqlite3.connect(out / ".fluxasync" / "journal.db")) as journal, journal:
        journal.execute(
            "UPDATE image SET path = ? WHERE key = ?",
            (f"../outside/{precious.name}", bytes.fromhex(first.key)),
        )
    assert first.key not in {entry.key for entry in await folders.quarantined(out)}
    rmtree(out / QUARANTINE)
    (out / QUARANTINE).symlink_to(outside)
    for decide in (folders.accept, folders.discard):
        for keys in ((), [entry.key for entry in await folders.quarantined(out)]):
            with pytest.raises(SinkError, match="link"):
                await decide(out, keys)
    assert precious.read_bytes() == b"mine"


async def test_a_killed_decision_can_be_given_again(tmp_path: Path) -> None:
    """Killed after the file was copied: the same file is taken. Killed after it was recorded: the
    next start removes the rest."""
    out = tmp_path / "out"
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
    (key, (entry, row)), _ = quarantined_rows(out).items()
    copied = published(out, *kept_image(out, row))
    (accepted,) = await folders.accept(out, [key])
    assert accepted.path == copied
    assert len(list(out.glob("*.jpg"))) == 1
    entry.path.write_bytes(copied.read_bytes())  # as if it had not been removed
    with closing(sqlite3.connect(out / ".fluxasync" / "journal.db")) as journal, journal:
        journal.execute("UPDATE meta SET value = '0' WHERE name = 'clean'")
    await folders.discard(out)
    assert names(tmp_path) == []
    assert (await folders.verify(out)).is_clean


@pytest.mark.slow
async def test_a_run_killed_with_bytes_in_quarantine_pays_nothing_again(tmp_path: Path) -> None:
    """Killed between the quarantine and the record: the next run collects the jobs it paid for, and
    records the bytes with their reason."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    command = ["run", str(prompts), "-o", str(tmp_path / "out"), "--quiet"]
    async with broken("html-as-image") as sim:
        command += ["--base-url", sim.url, f"--param=width={SIDE}", f"--param=height={SIDE}"]
        killed = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fluxasync", *command, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await until(lambda: [name[-4:] for name in names(tmp_path)] == [".bin"] * 2)
        finally:
            killed.kill()
            await killed.wait()
        assert await folders.quarantined(tmp_path / "out") == []
        assert tally(await a_run(sim, tmp_path)) == {"download": 2}
        assert charges(sim) == 2
    assert len(await folders.quarantined(tmp_path / "out")) == 2
    assert (await folders.verify(tmp_path / "out")).is_clean


async def cut_off(sim: Simulator, folder: Path, *, retry: str, when: Callable[[], object]) -> None:
    """Begin a retry, and stop it while it collects its jobs, at a condition."""
    async with fast_session(sim.url) as flux:
        parameters = {"width": SIDE, "height": SIDE}
        batch = batch_of(
            flux, PROMPTS, out=folder / "out", parameters=parameters, retry=retry, grace=0
        )
        async with batch:
            running = asyncio.create_task(run_out_of(batch))
            await until(when)
            batch.stop()
            await running


async def run_out_of(batch: Any) -> None:
    async for _ in batch:
        pass


@pytest.mark.parametrize("decision", ["none", "accept", "discard"])
async def test_a_retry_that_is_cut_off_hides_nothing(tmp_path: Path, decision: str) -> None:
    """Jobs that a retry was collecting stay in quarantine with their reasons; each decision holds,
    and the next run that fails at them changes no reason."""
    out = tmp_path / "out"
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
        before = await folders.quarantined(out)
        enough = sim.world.downloads + 6
        await cut_off(sim, tmp_path, retry="download", when=lambda: sim.world.downloads >= enough)
    found = await folders.status(out)
    assert found.counts.running == 2
    assert list(found.quarantined) == await folders.quarantined(out) == before
    assert (await folders.verify(out)).is_clean
    if decision == "accept":
        assert len(await folders.accept(out)) == 2
        assert (await folders.status(out)).counts.done == 2
    elif decision == "discard":
        assert len(await folders.discard(out)) == 2
        assert (await folders.status(out)).counts.failed == {"discarded": 2}
    async with Simulator(SCENARIO) as forgetful:
        outcomes = await a_run(forgetful, tmp_path)
        assert charges(forgetful) == 0
    if decision == "none":
        assert tally(outcomes) == {"lost": 2}
        assert await folders.quarantined(out) == before
        reasons = {row["quarantine"]["reason"] for row in rows(out / "failures.jsonl")}
        assert reasons == {entry.reason for entry in before}
        assert len(await folders.accept(out)) == 2
    assert (await folders.verify(out)).is_clean
    assert names(tmp_path) == []


async def test_a_refused_second_payment_hides_nothing(tmp_path: Path) -> None:
    """Paid again without credit: the bytes stay, and once accepted are counted once."""
    out = tmp_path / "out"
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
    before, counts = await folders.quarantined(out), (await folders.status(out)).counts
    async with Simulator(evolve(SCENARIO, faults=["402"])) as poor, fast_session(poor.url) as flux:
        parameters = {"width": SIDE, "height": SIDE}
        _, error = await run_out(
            batch_of(flux, PROMPTS, out=out, parameters=parameters, retry="quarantined")
        )
        assert error is not None
    assert await folders.quarantined(out) == before
    assert len(await folders.accept(out)) == 2
    after = (await folders.status(out)).counts
    assert (after.done, after.spent, after.possible_cost) == (2, counts.possible_cost, 0)
    assert {row["job_id"] for row in rows(out / "metadata.jsonl")} == {e.job_id for e in before}
    assert names(tmp_path) == []


async def test_a_second_payment_that_is_cut_off_replaces_the_bytes_later(tmp_path: Path) -> None:
    """The run after it collects the new jobs, and removes the old bytes once they are saved."""
    out = tmp_path / "out"
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
    before = await folders.quarantined(out)
    async with Simulator(evolve(SCENARIO, latency=(600, 600))) as slow:
        await cut_off(slow, tmp_path, retry="quarantined", when=lambda: slow.world.polls >= 6)
        assert charges(slow) == 2
        assert await folders.quarantined(out) == before
        assert await folders.accept(out) == []  # the new jobs are paid and not collected
        end_jobs(slow)
        assert tally(await a_run(slow, tmp_path)) == {"saved": 2}
        assert charges(slow) == 2
    assert names(tmp_path) == []
    assert (await folders.verify(out)).is_clean


async def test_a_second_submission_in_doubt_is_settled_first(tmp_path: Path) -> None:
    """Its image is listed in quarantine, but accepted only when the doubt is settled."""
    out = tmp_path / "out"
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
    before = await folders.quarantined(out)
    async with Simulator(evolve(SCENARIO, faults=["lost-reply"])) as silent:
        await a_run(silent, tmp_path, retry="quarantined")
    assert await folders.quarantined(out) == before
    assert await folders.accept(out) == []
    with pytest.raises(ConfigError, match="submitted again"):
        await folders.accept(out, [before[0].key])
    await folders.drop(out)
    assert await folders.quarantined(out) == before
    assert len(await folders.accept(out)) == 2


async def test_an_accepted_image_has_its_seed(tmp_path: Path) -> None:
    """The seed that the provider reported is in failures.jsonl, and in metadata.jsonl later."""
    out = tmp_path / "out"
    async with broken("wrong-bytes") as sim:
        outcomes = await a_run(sim, tmp_path)
        seeds = {row["key"]: row["quarantine"]["seed"] for row in rows(out / "failures.jsonl")}
        assert all(isinstance(seed, int) for seed in seeds.values())
        kept = [one.quarantined for one in outcomes if isinstance(one, Failed)]
        assert {one.seed for one in kept if one is not None} == set(seeds.values())
    await folders.accept(out)
    lines = rows(out / "metadata.jsonl")
    assert {row["key"]: row["seed"] for row in lines} == seeds
    assert {row["prompt_used"] for row in lines} == {None}


@pytest.mark.parametrize("keys", [(), ("all",)])
async def test_all_accepts_whole_unchanged_images_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: tuple[str, ...]
) -> None:
    """Half an image and a changed file stay; a changed one that is named is accepted, and that is
    said."""
    out = str(tmp_path / "out")
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
    first, second = await folders.quarantined(out)
    second.path.write_bytes(first.path.read_bytes())

    async def command(*words: str) -> tuple[str, str]:
        assert await asyncio.to_thread(main, list(words)) in {0, 3}
        shown = capsys.readouterr()
        return shown.out, shown.err

    assert "2 in quarantine" in (await command("verify", out))[0]
    assert json.loads((await command("verify", out, "--json"))[0])["quarantined"] == 2
    _, text = await command("resolve", out, *keys, "--accept")
    assert "1 of 2 are no whole images as recorded" in text
    assert "by its KEY" in text
    assert [entry.key for entry in await folders.quarantined(out)] == [second.key]
    _, text = await command("resolve", out, second.key, "--accept")
    assert f"changed since the run recorded it ({second.key[:12]})" in text
    assert (await folders.verify(out)).is_clean


async def test_half_an_image_is_not_accepted_with_the_others(tmp_path: Path) -> None:
    """A file that begins like an image and is incomplete needs its key."""
    async with broken("truncated") as sim:
        await a_run(sim, tmp_path)
    assert await folders.accept(tmp_path / "out") == []


@pytest.mark.parametrize(
    "facts",
    ["7", '{"seed": "9"}', '{"cost": "NaN"}', '{"cost": "-1"}', '{"at": -1.0}', '{"at": 1e300}',
     '{"job_id": null}', '{"other": 1}'],
)  # fmt: skip
async def test_facts_that_were_changed_are_refused(tmp_path: Path, facts: str) -> None:
    """A journal may come from another person: invalid facts are an error that names the column."""
    out = tmp_path / "out"
    async with broken("wrong-bytes") as sim:
        await a_run(sim, tmp_path)
    with closing(sqlite3.connect(out / ".fluxasync" / "journal.db")) as journal, journal:
        journal.execute("UPDATE image SET result = ?", (f'{{"quarantine": {facts}}}',))
    for ask in (folders.status, folders.quarantined, folders.accept, folders.verify):
        with pytest.raises(JournalError, match="result"):
            await ask(out)  # type: ignore[operator]
