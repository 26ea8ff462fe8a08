"""The journal: paid work stays recorded, however the run ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sqlite3
import stat
import threading
import time
import zlib
from contextlib import closing, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.sample_images import jpeg

from fluxasync import (
    DeadlineExceeded,
    DownloadError,
    Failed,
    FluxError,
    ImageInput,
    ImageRequest,
    InDoubt,
    InvalidRequest,
    Job,
    JobLost,
    JournalError,
    Moderated,
    RateLimited,
    Saved,
    TransportError,
)
from fluxasync._store.journal.journal import Dropped, Journal, read_only
from fluxasync._store.journal.recovery import sweep
from fluxasync._store.journal.writer import StepKind
from fluxasync.extend import Refused, Secret, Stored, Verdict

pytestmark = pytest.mark.asyncio

PRICE = Decimal("0.025")
IMAGE = jpeg()
NO_ANSWER = TransportError("no answer", sent=True, evidence="<html> https://x.example/a?sig=SECRET")


def journal(folder: Path, **given: object) -> Journal:
    named = {"provider": "cometapi", "origin": "https://api.cometapi.com", "simulated": False}
    return Journal(folder, **{**named, **given})  # type: ignore[arg-type]


def image_request(number: int = 0, **fields: object) -> ImageRequest:
    return ImageRequest(prompt=f"fox {number}", index=number, **fields)  # type: ignore[arg-type]


def job_of(request: ImageRequest, **fields: object) -> Job:
    return Job(
        **{
            "job_id": f"job-{request.index}",
            "polling_url": "https://api.cometapi.com/poll?id=1",
            "request": request,
            "provider": "cometapi",
            "price": PRICE,
            **fields,
        }  # type: ignore[arg-type]
    )


def saved(folder: Path, job: Job, name: str | None = None) -> Saved:
    assert job.request is not None
    path = folder / (name or f"{job.request.index:06}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(IMAGE)
    stored = Stored(
        path=path,
        size=len(IMAGE),
        sha256=hashlib.sha256(IMAGE).hexdigest(),
        format="jpeg",
        width=8,
        height=6,
    )
    return Saved(
        request=job.request,
        job=job,
        stored=stored,
        index=job.request.index,
        seed=7,
        prompt=job.request.prompt,
        cost=PRICE,
        timings={"submit": 0.5, "polls": 3},
    )


async def submitted(ledger: Journal, request: ImageRequest) -> Job:
    await ledger.intent(request, price=PRICE)
    job = job_of(request)
    await ledger.answered(request, job)
    return job


async def test_a_saved_image_is_known_whole_to_the_next_run(tmp_path):
    """The outcome is read back as it was settled, with the path of its file."""
    request = image_request(width=512, extras={"style": "墨"})
    async with journal(tmp_path) as ledger:
        assert await ledger.known(request) is None
        outcome = saved(tmp_path, await submitted(ledger, request))
        await ledger.settle(outcome)
    async with journal(tmp_path) as ledger:
        known = await ledger.known(request)
        assert isinstance(known, Saved)
        assert known.stored == outcome.stored
        assert (known.seed, known.prompt, known.cost, known.timings) == (
            7, "fox 0", PRICE, {"submit": 0.5, "polls": 3},
        )  # fmt: skip
        assert ledger.recovered.done == 1
        assert ledger.recovered.spent == PRICE


async def test_an_accepted_job_is_watched_and_not_submitted_again(tmp_path):
    """P1: the next run gets the jobs, oldest first, with their polling URLs."""
    async with journal(tmp_path) as ledger:
        jobs = [await submitted(ledger, image_request(n)) for n in range(3)]
    async with journal(tmp_path) as ledger:
        assert str(ledger.recovered) == "0 done, 3 still running, 0 in doubt, 0 failed"
        found = [(request, job) async for request, job in ledger.unfinished()]
        assert [job.job_id for job in jobs] == [job.job_id for _, job in found]
        assert [job.polling_url for job in jobs] == [job.polling_url for _, job in found]
        known = await ledger.known(image_request(1))
        assert isinstance(known, Job)
        assert known.job_id == "job-1"
        assert known.price == PRICE
        with pytest.raises(JournalError, match="submitted: not submitted again"):
            await ledger.intent(image_request(1), price=PRICE)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        pytest.param(RateLimited("wait", status=429), Verdict.REFUSED, id="refused"),
        pytest.param(TransportError("no route", sent=False), Verdict.NOT_SENT, id="not sent"),
        pytest.param(InvalidRequest("no", status=422), Verdict.REJECTED, id="rejected"),
    ],
)
async def test_a_refusal_that_costs_nothing_takes_the_intent_back(tmp_path, error, verdict):
    """The request is as if it had never been sent."""
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE)
        await ledger.answered(image_request(), Refused(verdict=verdict, error=error))
        assert await ledger.known(image_request()) is None
        await ledger.intent(image_request(), price=PRICE)


async def test_a_submission_without_an_answer_stays_in_doubt(tmp_path):
    """P3: it is kept with its price and its evidence, without the signatures in it."""
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE)
        await ledger.answered(image_request(), Refused(verdict=Verdict.AMBIGUOUS, error=NO_ANSWER))
        await ledger.settle(InDoubt(request=image_request(), error=NO_ANSWER, price=PRICE))
    async with journal(tmp_path) as ledger:
        known = await ledger.known(image_request())
        assert isinstance(known, InDoubt)
        assert known.price == PRICE
        assert known.error.sent
        assert str(known.error) == "no answer"
        assert known.error.evidence == "<html> https://x.example/a?…"
        assert "1 in doubt ($0.025)" in str(ledger.recovered)
        with pytest.raises(JournalError, match="in-doubt: not submitted again"):
            await ledger.intent(image_request(), price=PRICE)


async def test_an_intent_without_an_answer_is_in_doubt_to_the_next_run(tmp_path):
    """P2: a submission in progress when the run ended may have been charged."""
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE)
        with pytest.raises(JournalError, match="by this run already"):
            await ledger.known(image_request())
    async with journal(tmp_path) as ledger:
        assert isinstance(await ledger.known(image_request()), InDoubt)
        assert (ledger.recovered.in_doubt, ledger.recovered.in_doubt_price) == (1, PRICE)


@pytest.mark.parametrize(
    ("error", "paid"),
    [
        pytest.param(
            lambda job: Moderated("no", job=job, reasons=("nsfw",)), "unknown", id="moderated"
        ),
        pytest.param(lambda job: JobLost("gone", job=job), "unknown", id="lost"),
        pytest.param(lambda job: DownloadError("not an image", job=job), "yes", id="download"),
        pytest.param(lambda job: TransportError("cut", sent=True), "yes", id="transport"),
        pytest.param(lambda job: InvalidRequest("bad", status=422), "no", id="rejected"),
    ],
)
async def test_a_failure_comes_back_as_the_error_it_was(tmp_path, error, paid):
    """Class, text, job and payment of a failure are kept."""
    async with journal(tmp_path) as ledger:
        job = None if paid == "no" else await submitted(ledger, image_request())
        await ledger.settle(Failed(request=image_request(), error=error(job), job=job))
    async with journal(tmp_path) as ledger:
        known = await ledger.known(image_request())
        assert isinstance(known, Failed)
        assert type(error(job)) is type(known.error)
        assert (str(error(job)), paid) == (str(known.error), known.paid)
        assert {known.cause: 1} == ledger.recovered.failed
        assert ledger.recovered.spent == 0
        assert ledger.recovered.possible_cost == (0 if paid == "no" else PRICE)


async def test_a_job_past_its_deadline_is_collected_later(tmp_path):
    """After a timeout the job stays submitted."""
    async with journal(tmp_path) as ledger:
        job = await submitted(ledger, image_request())
        late = DeadlineExceeded("still running", job=job)
        await ledger.settle(Failed(request=image_request(), error=late, job=job))
        assert isinstance(await ledger.known(image_request()), Job)
        await ledger.settle(saved(tmp_path, job))
        assert isinstance(await ledger.known(image_request()), Saved)


async def test_a_job_id_that_comes_twice_is_in_doubt(tmp_path):
    """F21: the second image never gets the picture of the first, whenever that was settled."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request(1))
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(2), price=PRICE)
        with pytest.raises(TransportError, match="id of another job"):
            await ledger.answered(image_request(2), job_of(image_request(2), job_id="job-1"))
        assert isinstance(await ledger.known(image_request(2)), InDoubt)
        assert isinstance(await ledger.known(image_request(1)), Job)


async def test_no_secret_is_in_the_files(tmp_path):
    """P22: webhook, base64 and signatures are not recorded; inputs are named by their digests."""
    secret = "canary" * 2_000
    request = image_request(
        webhook_url="https://hook.example/canary",
        webhook_secret=Secret("canary"),
        parameters={"input_image": secret, "aspect_ratio": "1:1"},
        extra_body={"webhook_secret": "canary"},
        image_prompt=b"canary",
    )
    async with journal(tmp_path) as ledger:
        await submitted(ledger, request)
        found = b"".join(p.read_bytes() for p in (tmp_path / ".fluxasync").iterdir())
        assert b"canary" not in found
        ((again, _),) = [pair async for pair in ledger.unfinished()]
    assert again.parameters["aspect_ratio"] == "1:1"
    assert again.parameters["input_image"].startswith("sha256:")
    assert again.image_prompt == again.image_prompt.of(again.image_prompt)
    assert again.image_prompt.identity == request.image_prompt.identity


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(ImageInput(url="https://images.example/fox.png"), id="URL"),
        pytest.param(ImageInput(path=Path("in/fox.png"), sha256="ab" * 32), id="file"),
    ],
)
async def test_the_next_run_has_the_image_inputs_of_a_request(tmp_path, image):
    """The own field and the parameters of other models return the same inputs."""
    given = {"input_image": image, "more": [image]}
    request = image_request(image_prompt=image, parameters=given, extra_body={"control": image})
    async with journal(tmp_path) as ledger:
        await submitted(ledger, request)
    async with journal(tmp_path) as ledger:
        ((again, _),) = [pair async for pair in ledger.unfinished()]
    assert again.image_prompt == image
    assert (again.parameters, again.extra_body) == (given, {"control": image})


@pytest.mark.parametrize("prompt", ["a\ud800b", "\0", "💥 " * 500, "'); DROP TABLE image; --"])
async def test_any_text_is_stored_unchanged(tmp_path, prompt):
    """T17: prompts are bound as values and are never SQL, also with lone surrogates."""
    async with journal(tmp_path) as ledger:
        request = ImageRequest(prompt=prompt)
        await submitted(ledger, request)
        ((again, _),) = [pair async for pair in ledger.unfinished()]
        assert prompt == again.prompt
        assert request.key == again.key


async def test_a_cancelled_caller_tears_no_write(tmp_path):
    """P26: the cancelled caller's step runs, and so do those beside it."""
    async with journal(tmp_path) as ledger:
        tasks = [
            asyncio.create_task(ledger.intent(image_request(n), price=PRICE)) for n in range(8)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    async with journal(tmp_path) as ledger:
        assert ledger.recovered.in_doubt == 8


async def test_ids_of_paid_jobs_are_written_before_all_that_waits(tmp_path):
    """P1: a job's id goes first in the next commit, however many steps are queued."""
    order: list[object] = []
    is_busy, go_on = threading.Event(), threading.Event()

    def hold(_connection: sqlite3.Connection) -> None:
        is_busy.set()
        go_on.wait(10)

    async with journal(tmp_path) as ledger:
        run = ledger._writer.run
        steps = [asyncio.create_task(run(hold))]
        await asyncio.to_thread(is_busy.wait, 10)
        steps += [asyncio.create_task(run(lambda _, n=n: order.append(n))) for n in range(600)]
        steps += [asyncio.create_task(run(lambda _: order.append("job"), kind=StepKind.JOB))]
        await asyncio.sleep(0)  # until each of them waits
        go_on.set()
        await asyncio.gather(*steps)
    assert order == ["job", *range(600)]


async def test_a_users_decision_about_a_doubt_is_durable(tmp_path):
    """Each decision is durable, and the money of the first attempt stays counted."""
    async with journal(tmp_path) as ledger:
        for n in range(3):
            await ledger.intent(image_request(n), price=PRICE)
    async with journal(tmp_path) as ledger:
        await ledger.decisions.drop(image_request(0).key)
        await ledger.decisions.give_job(image_request(1).key, "from-the-dashboard")
        assert await ledger.decisions.forget([image_request(2).key, "0" * 64]) == 1
        with pytest.raises(JournalError, match="is failed, not in-doubt"):
            await ledger.decisions.drop(image_request(0).key)
        for decision in (
            ledger.decisions.drop("0" * 64),
            ledger.decisions.give_job("0" * 64, "job"),
        ):
            with pytest.raises(JournalError, match="no image of this journal has the key 00000000"):
                await decision
    async with journal(tmp_path) as ledger:
        dropped = await ledger.known(image_request(0))
        assert isinstance(dropped, Failed)
        assert isinstance(dropped.error, Dropped)
        given = await ledger.known(image_request(1))
        assert isinstance(given, Job)
        assert given.job_id == "from-the-dashboard"
        assert await ledger.known(image_request(2)) is None
        # dropped, given a job to collect, and to be submitted again
        assert (ledger.recovered.again, ledger.recovered.possible_cost) == (1, 3 * PRICE)
        await submitted(ledger, image_request(2))
        assert ledger.counts.again == 0


async def test_a_refused_second_attempt_keeps_the_first_ones_record(tmp_path):
    """The row of an image that may have been charged once is never deleted."""
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE)
    async with journal(tmp_path) as ledger:
        await ledger.decisions.forget([image_request().key])
        await ledger.intent(image_request(), price=PRICE)
        no = Refused(verdict=Verdict.REFUSED, error=RateLimited("wait", status=429))
        await ledger.answered(image_request(), no)
        assert await ledger.known(image_request()) is None
        assert (ledger.counts.again, ledger.counts.possible_cost) == (1, PRICE)


async def test_counts_in_memory_agree_with_the_rows(tmp_path):
    """The counts during a run equal a count of the rows after it."""
    async with journal(tmp_path) as ledger:
        jobs = [await submitted(ledger, image_request(n)) for n in range(6)]
        await ledger.settle(saved(tmp_path, jobs[0]))
        await ledger.settle(
            Failed(request=image_request(1), error=JobLost("x", job=jobs[1]), job=jobs[1])
        )
        await ledger.settle(Failed(request=image_request(9), error=FluxError("odd")))
        await ledger.answered(image_request(8), job_of(image_request(8), cost=Decimal("0.5")))
        counts = ledger.counts
    with read_only(tmp_path) as view:
        assert counts == view.counts
        assert counts.running == 5


async def test_a_lookup_answers_from_any_thread(tmp_path):
    """Many keys at once, in their order, on a separate connection."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request(1))
        lookup = ledger.lookup()
        keys = [image_request(n).key for n in range(1_200)]
        found = await asyncio.to_thread(lookup, keys)
        assert found == [None, "submitted", *[None] * 1_198]
    with pytest.raises(JournalError, match="closed"):
        lookup(keys)


@pytest.mark.parametrize("order", ["as begun", "the other way round", "at random"])
async def test_a_lookup_answers_in_any_order(tmp_path, order):
    """Read-ahead never changes an answer: each key has its own row's state."""
    begun = list(range(2_500))
    async with journal(tmp_path) as ledger:
        for start in range(0, len(begun), 500):
            requests = [image_request(n) for n in begun[start : start + 500]]
            await asyncio.gather(*(ledger.intent(w, price=PRICE) for w in requests))
            odd = [w for w in requests if w.index % 2]
            await asyncio.gather(*(ledger.answered(w, job_of(w)) for w in odd))
        asked = begun if order == "as begun" else begun[::-1]
        if order == "at random":
            random.Random(3).shuffle(asked)
        expected = ["submitted" if n % 2 else "intent" for n in asked]
        lookup = ledger.lookup()
        found = []
        for start in range(0, len(asked), 400):
            keys = [image_request(n).key for n in asked[start : start + 400]]
            found += await asyncio.to_thread(lookup, [*keys, "00" * 32])
            assert found.pop() is None
        assert found == expected


async def test_commits_are_durable_and_files_private(tmp_path):
    """P6, T19: SQLite reports synchronous FULL, and no other user can read the journal."""
    mask = os.umask(0)
    try:
        async with journal(tmp_path) as ledger:
            assert ledger._connection.execute("PRAGMA synchronous").fetchone() == (2,)
            await submitted(ledger, image_request())
            home = tmp_path / ".fluxasync"
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in home.iterdir()}
            assert stat.S_IMODE(home.stat().st_mode) == 0o700
            assert {modes[name] for name in ("journal.db", "lock", "reserve")} == {0o600}
            reserve = (home / "reserve").stat()
            assert reserve.st_blocks * 512 >= reserve.st_size == 8 * 2**20
    finally:
        os.umask(mask)


async def test_where_no_blocks_are_given_the_reserve_is_random_bytes(tmp_path, monkeypatch):
    """F101: a file system that compresses would keep no space for bytes of one kind."""
    monkeypatch.delattr(os, "posix_fallocate")
    async with journal(tmp_path):
        body = (tmp_path / ".fluxasync/reserve").read_bytes()
    assert len(zlib.compress(body, 1)) >= len(body) == 8 * 2**20


async def test_a_reserve_of_holes_is_made_again(tmp_path):
    """F101: a run that died after the file had its size has left no space behind."""
    async with journal(tmp_path):
        pass
    reserve = tmp_path / ".fluxasync/reserve"
    reserve.unlink()
    with reserve.open("wb") as file:
        file.truncate(8 * 2**20)
    async with journal(tmp_path):
        assert reserve.stat().st_blocks * 512 >= 8 * 2**20


async def test_a_tool_that_changed_the_mode_does_no_harm(tmp_path):
    """The settings of a connection do not depend on what another program left."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
    with closing(sqlite3.connect(ledger.path)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    async with journal(tmp_path) as ledger:
        modes = [
            await ledger._writer.run(_pragma, name) for name in ("journal_mode", "synchronous")
        ]
        assert modes == ["wal", 2]
        assert ledger.recovered.running == 1


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


class _Hasty(sqlite3.Connection):
    """SQLite as on a platform where it does not wait for the disk."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        return super().execute(
            sql.replace("synchronous = FULL", "synchronous = NORMAL"), parameters
        )


async def test_commits_that_are_not_durable_are_refused(tmp_path, monkeypatch):
    """P6: the setting is read back before anything is recorded or submitted."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=_Hasty))
    with pytest.raises(JournalError, match="choose a folder on a local disk"):
        await journal(tmp_path).__aenter__()


async def test_an_unlinked_journal_stops_the_run(tmp_path):
    """F106: nothing is submitted under a record that the next run would not find."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
        ledger.path.unlink()
        with pytest.raises(JournalError, match="removed or replaced"):
            await ledger.intent(image_request(1), price=PRICE)
        with pytest.raises(JournalError, match="removed or replaced"):
            await ledger.known(image_request())


async def test_a_journal_that_cannot_be_reached_stops_the_run(tmp_path, caplog):
    """P17: where even `stat` fails (a disk pulled out, a network's away; here a link to itself)
    every caller gets an error, and a paid job's id goes to the log."""
    folder = tmp_path / "run"
    ledger = journal(folder)
    async with asyncio.timeout(60), ledger:
        await ledger.intent(image_request(), price=PRICE)
        folder.rename(tmp_path / "away")
        folder.symlink_to(folder)
        with pytest.raises(JournalError, match="cannot be reached any more"):
            await ledger.intent(image_request(1), price=PRICE)
        with suppress(JournalError):  # it may be in the file that was moved away
            await ledger.answered(image_request(), job_of(image_request()))
        with pytest.raises(JournalError):
            await ledger.known(image_request())
        assert f"job {job_of(image_request()).job_id}" in caplog.text
        assert not ledger.is_kept
        folder.unlink()
        (tmp_path / "away").rename(folder)


async def test_a_failing_commit_is_the_last_one(tmp_path, caplog):
    """P17, F102: nothing is tried again; a paid job's id goes to the log instead."""
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE)
        await ledger._writer.run(_spoil, kind=StepKind.READ)
        with pytest.raises(JournalError, match="check the disk"):
            await ledger.answered(image_request(), job_of(image_request()))
        with pytest.raises(JournalError, match="check the disk"):
            await ledger.intent(image_request(1), price=PRICE)
    assert "job job-0" in caplog.text
    assert image_request().key in caplog.text


def _spoil(connection: sqlite3.Connection) -> None:
    connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)


async def test_a_full_disk_still_records_the_ids_of_paid_jobs(tmp_path):
    """P17, F101: the reserve is freed for jobs in flight; all other steps fail."""
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(0), price=PRICE)
        await ledger.intent(image_request(1), price=PRICE)
        await ledger._writer.run(_fill)
        long = image_request(2, extras={"text": "x" * 100_000})
        with pytest.raises(JournalError, match="free some space, then run the same command again"):
            await ledger.intent(long, price=PRICE)
        assert not (tmp_path / ".fluxasync" / "reserve").exists()
        await ledger.answered(image_request(0), job_of(image_request(0)))
        await ledger.answered(image_request(1), job_of(image_request(1)))
        with pytest.raises(JournalError, match="free some space"):
            await ledger.settle(saved(tmp_path, job_of(image_request(0))))
    async with journal(tmp_path) as ledger:
        assert ledger.recovered.running == 2
        assert (tmp_path / ".fluxasync" / "reserve").exists()


async def test_a_disk_that_stays_full_names_every_later_job(tmp_path, caplog):
    """P17, F101: if not even the reserve helps, no further write is tried: each paid job's id goes
    to the log, and its image is in doubt."""
    requests = [image_request(number) for number in range(3)]
    async with journal(tmp_path) as ledger:
        for each in requests:
            await ledger.intent(each, price=PRICE)
        await ledger._writer.run(_fill)
        first, *later = map(job_of, requests)
        long = evolve(first, polling_url="https://api.example/" + "x" * 100_000)
        for each, job in zip(requests, (long, *later), strict=True):
            with pytest.raises(JournalError, match="the disk is full: free some space"):
                await ledger.answered(each, job)
    assert caplog.text.count("not even the ids of paid jobs could be recorded") == 1
    assert all(f"key {each.key}, job job-{each.index}," in caplog.text for each in requests)
    async with journal(tmp_path) as ledger:
        assert (ledger.recovered.running, ledger.recovered.in_doubt) == (0, 3)


def _fill(connection: sqlite3.Connection) -> None:
    """Leave SQLite no page for a long row: it reports a full disk, as a real one does."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 8}")


async def test_a_published_file_whose_record_was_lost_is_adopted(tmp_path, monkeypatch):
    """P5, P6: a whole file, newer than its job and of no other image, is adopted without a request
    to the server, once it and its name are durable."""
    synced, fsync = [], os.fsync

    def recorded(handle: int) -> None:
        fsync(handle)
        synced.append(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", recorded)
    async with journal(tmp_path, stem_of=lambda r: f"sub/{r.index:06}") as ledger:
        jobs = [await submitted(ledger, image_request(n)) for n in range(3)]
        saved(tmp_path, jobs[0], "sub/000000.jpg")
        (tmp_path / "sub/000001.jpg").write_bytes(IMAGE[:-2])
        (tmp_path / "sub/.fluxasync-00.part").write_bytes(b"half")
    _forget_the_clean_end(tmp_path)
    synced.clear()
    async with journal(tmp_path) as ledger:
        assert (ledger.recovered.done, ledger.recovered.running) == (1, 2)
        order = [(tmp_path / name).stat().st_ino for name in ("sub/000000.jpg", "sub")]
        assert order == [inode for inode in synced if inode in order]
        known = await ledger.known(image_request(0))
        assert isinstance(known, Saved)
        assert known.path == tmp_path / "sub/000000.jpg"
        assert known.stored.sha256 == hashlib.sha256(IMAGE).hexdigest()
    assert not (tmp_path / "sub/.fluxasync-00.part").exists()


async def test_only_files_of_earlier_runs_are_swept(tmp_path):
    """P4, F121: part files of a killed run are removed; those of this run stay."""
    async with journal(tmp_path, stem_of=lambda r: f"{r.index:06}") as ledger:
        await submitted(ledger, image_request(0))
        old, own = tmp_path / ".fluxasync-00.part", tmp_path / ".fluxasync-01.part"
        old.write_bytes(b"half")
        os.utime(old, (1, 1))
    _forget_the_clean_end(tmp_path)
    async with journal(tmp_path):
        own.write_bytes(b"half")
        os.utime(own, (2**32, 2**32))
    assert (old.exists(), own.exists()) == (False, True)


async def test_a_part_file_without_a_journal_is_swept(tmp_path):
    """P4: a run may be killed between its first look at a new folder and its journal."""
    left = tmp_path / ".fluxasync-00.part"
    left.touch()
    os.utime(left, (1, 1))
    async with journal(tmp_path):
        pass
    assert not left.exists()


async def test_strays_are_swept_while_other_files_come_and_go(tmp_path, monkeypatch):
    """P4, F123: a file that is published meanwhile does not end the sweep."""
    for number in range(5):
        (tmp_path / f".fluxasync-{number}.part").touch()
    unlink = os.unlink

    def unlink_two(path: str) -> None:
        unlink(path)
        unlink(next(tmp_path.iterdir()))
        monkeypatch.setattr(os, "unlink", unlink)

    monkeypatch.setattr(os, "unlink", unlink_two)
    sweep({tmp_path}, before=2**32)
    assert list(tmp_path.iterdir()) == []


async def test_another_images_file_is_never_adopted(tmp_path):
    """P14: a name that two images share does not prove whose picture the file is."""
    stems = ["done", "done", "running", "running"]
    async with journal(tmp_path, stem_of=lambda request: stems[request.index]) as ledger:
        jobs = [await submitted(ledger, image_request(number)) for number in range(4)]
        await ledger.settle(saved(tmp_path, jobs[0], "done.jpg"))
        saved(tmp_path, jobs[2], "running.jpg")
    _forget_the_clean_end(tmp_path)
    async with journal(tmp_path) as ledger:
        assert (ledger.recovered.done, ledger.recovered.running) == (1, 3)


async def test_an_older_file_is_never_adopted(tmp_path):
    """A file older than its job is not the job's image."""
    (tmp_path / "fox.jpg").write_bytes(IMAGE)
    os.utime(tmp_path / "fox.jpg", (1, 1))
    async with journal(tmp_path, stem_of=lambda r: "fox") as ledger:
        await submitted(ledger, image_request(0))
    _forget_the_clean_end(tmp_path)
    async with journal(tmp_path) as ledger:
        assert ledger.recovered.running == 1


def _forget_the_clean_end(folder: Path) -> None:
    with closing(sqlite3.connect(folder / ".fluxasync" / "journal.db")) as connection, connection:
        connection.execute("UPDATE meta SET value = '0' WHERE name = 'clean'")


async def test_the_log_beside_the_journal_stays_small(tmp_path):
    """F126: the log is checkpointed during the run."""
    async with journal(tmp_path) as ledger:
        for start in range(0, 2_400, 400):
            texts = [image_request(start + n, extras={"text": "x" * 8_000}) for n in range(400)]
            await asyncio.gather(*(ledger.intent(text, price=PRICE) for text in texts))
        await ledger.known(image_request(9_999))
        log = ledger.path.with_name("journal.db-wal").stat().st_size
        assert ledger.path.stat().st_size > 2_000 * 8_000
        assert log < 64 * 2**20


async def test_status_is_there_while_the_journal_is_open(tmp_path):
    """A reader beside the run gets its counts without opening the database."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
        await ledger.settle(saved(tmp_path, job_of(image_request())))
        ledger._writer._report()
        with read_only(tmp_path) as view:
            assert view.is_running
            assert view.holder["pid"] == os.getpid()
            assert view.counts.done == 1
            with pytest.raises(JournalError, match="a run is active"):
                list(view.entries())
    assert not (tmp_path / ".fluxasync" / "status.json").exists()
    with read_only(tmp_path) as view:
        assert not view.is_running
        ((entry),) = view.entries("done")
        assert (entry.key, entry.state) == (image_request().key, "done")
        assert not list(view.entries("failed"))


async def test_a_lost_list_is_made_again_line_for_line(tmp_path):
    """The list that the journal writes equals the one that the run wrote."""
    from fluxasync._store.metadata import FAILURES, METADATA, MetadataWriter

    async with MetadataWriter(tmp_path) as manifest, journal(tmp_path) as ledger:
        for n in range(4):
            job = await submitted(ledger, image_request(n, extras={"n": n}))
            lost = Failed(request=job.request, error=JobLost("gone", job=job), job=job, index=n)
            outcome = lost if n == 2 else saved(tmp_path, job)
            await ledger.settle(outcome)
            await manifest.add(outcome)
        bad = Failed(request=None, error=FluxError("no row"), index=-1, where="line 9")
        await manifest.add(bad)
    names = (METADATA, FAILURES)
    before = {name: (tmp_path / name).read_bytes() for name in names}
    async with journal(tmp_path) as ledger:
        assert await ledger.project(keep_bad_rows=True) == []
        (tmp_path / METADATA).write_bytes(before[METADATA][:-7])
        assert await ledger.project(keep_bad_rows=True) == [METADATA]
        (tmp_path / METADATA).unlink()
        (tmp_path / FAILURES).write_bytes(b"{}\n" + before[FAILURES])
        assert await ledger.project(keep_bad_rows=True) == [METADATA, FAILURES]
        assert before == {name: (tmp_path / name).read_bytes() for name in names}
        assert await ledger.project() == [FAILURES]
        (line,) = (tmp_path / FAILURES).read_text().splitlines()
        assert json.loads(line)["key"] == image_request(2, extras={"n": 2}).key


async def test_closing_waits_for_the_step_under_way(tmp_path):
    """P17: the connection is closed after the last step."""
    async with journal(tmp_path) as ledger:
        closer = threading.Thread(target=ledger._writer.close)

        def step(connection: sqlite3.Connection) -> bool:
            closer.start()
            closer.join(0.1)  # it cannot end before this step does
            return closer.is_alive()

        assert await ledger._writer.run(step, kind=StepKind.READ)
        await asyncio.to_thread(closer.join)


async def test_a_journal_that_waits_uses_no_processor(tmp_path):
    """The writer's thread sleeps while the run waits for images."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
        used = time.process_time()
        await asyncio.sleep(0.5)  # only time that passes shows a thread that spins
        assert time.process_time() - used < 0.1
