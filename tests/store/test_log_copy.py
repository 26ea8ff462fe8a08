"""A journal whose record is a log: the folder has a copy, which any machine makes again."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.object_stores import BUCKET, SmallS3, moto_s3, options_of
from test_journal import IMAGE, NO_ANSWER, PRICE, image_request, job_of, journal

from fluxasync import ImageRequest, InDoubt, Job, JournalError, Saved
from fluxasync._core.attempts import Attempt
from fluxasync._store import lease, object_log
from fluxasync._store.audit.resolution import OfflineJournal
from fluxasync._store.journal import log_copy
from fluxasync._store.journal.journal import Journal, Locked, read_only
from fluxasync._store.journal.log_copy import LogCopy
from fluxasync._store.object_log import Fenced, ObjectLog
from fluxasync._store.objects import Objects
from fluxasync.extend import Refused, Stored, Verdict

pytest.importorskip("obstore", reason="the extra `store` is not installed")
pytestmark = pytest.mark.asyncio

#: where a run is; its options
Place = tuple[str, dict[str, str]]


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("moto.server")
    with moto_s3(tmp_path_factory.mktemp("moto")) as address:
        yield address


@pytest.fixture(params=["memory", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a run is, in each kind of store that runs here."""
    match request.param:
        case "memory":
            return f"memory://{tmp_path.name}/run", {}
        case "file":
            return f"file://{tmp_path}/bucket/run", {}
    return f"s3://{BUCKET}/{tmp_path.name}", options_of(request.getfixturevalue("moto"))


@pytest.fixture
def run(tmp_path: Path) -> Place:
    return f"memory://{tmp_path.name}/run", {}


def on(folder: Path, place: Place, **given: object) -> Journal:
    """The journal of a run, on the machine with this folder."""
    log = ObjectLog(Objects(*place))
    return journal(folder, url=place[0], log=log, stem_of=lambda r: f"{r.index:06}", **given)


def stored(ledger: Journal, request: ImageRequest) -> Saved:
    digest = hashlib.sha256(IMAGE).hexdigest()
    where = f"{ledger.root.url}/{request.index:06}.jpg"
    image = Stored(place=where, size=len(IMAGE), sha256=digest, format="jpeg", width=8, height=6)
    return Saved(request=request, job=job_of(request), stored=image, index=request.index,
                 seed=7, prompt=request.prompt, cost=PRICE, timings={})  # fmt: skip


async def saved_on(ledger: Journal, number: int) -> None:
    request = image_request(number)
    await ledger.intent(request, price=PRICE, attempt=Attempt())
    await ledger.answered(request, job_of(request))
    await ledger.settle(stored(ledger, request))


def database(folder: Path) -> Path:
    return folder / ".fluxasync" / "journal.db"


def states(folder: Path) -> dict[str, str]:
    with read_only(folder) as view:
        return {entry.key: entry.state for entry in view.entries()}


# --- the record and its copies --------------------------------------------------------------------


async def test_what_a_call_recorded_is_in_the_log_when_it_returns(place: Place, tmp_path: Path):
    """P2: an intent is there before the POST, so another machine never submits it again."""
    request, seen = image_request(), []
    async with on(tmp_path / "one", place) as ledger:
        for step in (
            lambda: ledger.intent(request, price=PRICE),
            lambda: ledger.answered(request, job_of(request)),
            lambda: ledger.settle(stored(ledger, request)),
        ):
            await step()
            stranger = tmp_path / f"stranger-{len(seen)}"
            (stranger / ".fluxasync").mkdir(parents=True)
            assert LogCopy(database(stranger), ObjectLog(Objects(*place))).refresh()
            seen += states(stranger).values()
    assert seen == ["intent", "submitted", "done"]


async def test_another_machine_continues_the_run(place: Place, tmp_path: Path):
    """P1: saved images are known, jobs are collected, and what was being submitted is in doubt."""
    async with on(tmp_path / "one", place) as ledger:
        await saved_on(ledger, 0)
        await ledger.intent(image_request(1), price=PRICE)
        await ledger.answered(image_request(1), job_of(image_request(1)))
        await ledger.intent(image_request(2), price=PRICE)
    async with on(tmp_path / "other", place) as ledger:
        known = [await ledger.known(image_request(n)) for n in range(4)]
        assert [type(each) for each in known] == [Saved, Job, InDoubt, type(None)]
        assert known[0].place == f"{place[0]}/000000.jpg"
        assert [job.job_id async for _, job in ledger.unfinished()] == ["job-1"]
        await saved_on(ledger, 3)
    async with on(tmp_path / "one", place) as ledger:
        assert isinstance(await ledger.known(image_request(3)), Saved)
        assert ledger.recovered.done == 2


def _removed(folder: Path, _: Path) -> None:
    shutil.rmtree(folder)


def _torn(folder: Path, _: Path) -> None:
    with database(folder).open("r+b") as file:
        file.truncate(5_000)


def _garbage(folder: Path, _: Path) -> None:
    database(folder).write_bytes(b"no database" * 1_000)


def _old(folder: Path, old: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(old, folder)


def _of_another_run(folder: Path, _: Path) -> None:
    with closing(sqlite3.connect(database(folder), isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = '2 ffffffffffffffff 0' WHERE name = 'log'")
        connection.execute("DELETE FROM image")


def _changed(folder: Path, _: Path) -> None:
    with closing(sqlite3.connect(database(folder), isolation_level=None)) as connection:
        connection.execute("UPDATE image SET state = 77")


@pytest.mark.parametrize("harm", [_removed, _torn, _garbage, _old, _of_another_run, _changed])
async def test_a_copy_that_is_lost_or_harmed_is_made_again(
    run: Place, tmp_path: Path, harm: Callable[[Path, Path], None]
):
    """Nothing depends on the folder in the cache."""
    folder, old = tmp_path / "one", tmp_path / "old"
    async with on(folder, run) as ledger:
        await saved_on(ledger, 0)
    shutil.copytree(folder, old)
    async with on(folder, run) as ledger:
        await saved_on(ledger, 1)
    async with on(tmp_path / "other", run) as ledger:
        await saved_on(ledger, 2)
    harm(folder, old)
    async with on(folder, run) as ledger:
        known = [await ledger.known(image_request(n)) for n in range(3)]
        assert all(isinstance(each, Saved) for each in known)
        assert ledger.counts.spent == 3 * PRICE
        await ledger.project()
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2]


async def test_lists_show_what_another_machine_edited(run: Place, tmp_path: Path):
    """A line of an image whose metadata was edited elsewhere is written again."""
    async with on(tmp_path / "one", run) as ledger:
        await saved_on(ledger, 0)
        await ledger.project()
    async with on(tmp_path / "other", run) as ledger:
        await ledger.known(image_request(extras={"style": "墨"}))
        await ledger.project()
    for folder in ("one", "other"):
        async with on(tmp_path / folder, run) as ledger:
            await ledger.project()
        (line,) = (tmp_path / folder / "metadata.jsonl").read_text("utf-8").splitlines()
        assert json.loads(line)["extras"] == {"style": "墨"}


async def test_a_long_log_is_sealed_while_it_is_written(
    run: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A start reads few objects, however long the run was."""
    monkeypatch.setattr(object_log, "SEAL", 10)
    monkeypatch.setattr(log_copy, "_BATCH", 10)
    async with on(tmp_path / "one", run) as ledger:
        for number in range(12):
            await saved_on(ledger, number)
    assert len(list(Objects(*run).names(".fluxasync/log/sealed"))) == 3
    async with on(tmp_path / "other", run) as ledger:
        assert ledger.recovered.done == 12


# --- refused --------------------------------------------------------------------------------------


async def test_a_log_that_was_removed_is_refused(run: Place, tmp_path: Path):
    """A new record would pay for every image again."""
    async with on(tmp_path / "one", run) as ledger:
        await saved_on(ledger, 0)
    objects = Objects(*run)
    for name in list(objects.names(".fluxasync/log")):
        await objects.remove(name)
    with pytest.raises(JournalError, match="restore it from a copy of the bucket"):
        await on(tmp_path / "one", run).__aenter__()
    assert database(tmp_path / "one").exists()


async def test_a_record_of_a_newer_version_is_refused(run: Place, tmp_path: Path):
    """The run stops before it submits what it cannot know of."""
    async with on(tmp_path / "one", run) as ledger:
        await saved_on(ledger, 0)
    log = ObjectLog(Objects(*run))
    list(log.groups())
    log.append(['{"verb":"from the future","at":1}'])
    for folder in ("one", "other"):
        with pytest.raises(JournalError, match="install the newest fluxasync"):
            await on(tmp_path / folder, run).__aenter__()


async def test_a_copy_is_not_taken_for_the_record(run: Place, tmp_path: Path):
    """What would be recorded in it alone would be unknown to the next machine."""
    async with on(tmp_path, run) as ledger:
        await saved_on(ledger, 0)
    with pytest.raises(JournalError, match="without --state"):
        await journal(tmp_path, url=run[0]).__aenter__()
    with pytest.raises(JournalError, match="without --state"):
        await OfflineJournal(tmp_path).__aenter__()


async def test_a_record_of_its_own_is_not_taken_for_a_copy(run: Place, tmp_path: Path):
    """It is the only one, so it is never removed."""
    async with journal(tmp_path, url=run[0]) as ledger:
        await saved_on(ledger, 0)
    with pytest.raises(JournalError, match="is no copy"):
        await on(tmp_path, run).__aenter__()
    assert set(states(tmp_path).values()) == {"done"}


async def test_a_cache_on_a_network_file_system_is_refused(run: Place, tmp_path: Path):
    """F120: the folder is our choice, so the error says how to choose another one."""
    ledger = on(tmp_path, run)
    ledger.mounts = tmp_path / "mountinfo"
    ledger.mounts.write_text("22 1 8:1 / / rw shared:1 - nfs4 server:/home rw\n")
    with pytest.raises(JournalError, match="set XDG_CACHE_HOME to a folder on a local disk"):
        await ledger.__aenter__()


async def test_decisions_are_recorded_in_the_log(run: Place, tmp_path: Path):
    """What a person decides on one machine is known on another."""
    async with on(tmp_path / "one", run) as ledger:
        await ledger.intent(image_request(), price=PRICE)
        ambiguous = Refused(verdict=Verdict.AMBIGUOUS, error=NO_ANSWER)
        await ledger.answered(image_request(), ambiguous)
    async with OfflineJournal(tmp_path / "one", log=ObjectLog(Objects(*run))) as ledger:
        await ledger.decisions.drop(image_request().key)
    async with on(tmp_path / "other", run) as ledger:
        assert ledger.recovered.failed == {"dropped": 1}


# --- two machines at once, and a store that cannot be reached -------------------------------------


async def test_a_run_that_was_taken_over_submits_nothing_more(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """P16: its next intent is refused, so its POST never starts."""
    monkeypatch.setattr(lease, "BEAT", 0.05)  # a take-over waits until the other one knows
    async with on(tmp_path / "one", place) as old:
        await old.intent(image_request(1), price=PRICE)
        await old.answered(image_request(1), job_of(image_request(1)))
        async with on(tmp_path / "other", place, take_over=True) as new:
            with pytest.raises(Fenced, match="another run has taken over"):
                await _reraised(old.intent(image_request(2), price=PRICE))
            assert [job.job_id async for _, job in new.unfinished()] == ["job-1"]
            await saved_on(new, 2)
            assert not old.is_kept


async def test_a_second_run_is_refused_while_the_first_one_is_active(run: Place, tmp_path: Path):
    """P16: the error names the process, and how to take the run over; then the folder is free."""
    async with on(tmp_path / "one", run) as first:
        await saved_on(first, 0)
        with pytest.raises(Locked, match=r"in use by process \d+ on .*--take-over"):
            await on(tmp_path / "other", run).__aenter__()
        await saved_on(first, 1)
    async with on(tmp_path / "other", run) as second:
        assert second.recovered.done == 2


async def _reraised(work: object) -> None:
    """Raise what ended the writer, which callers get as the cause of their error."""
    try:
        await work  # type: ignore[misc]
    except JournalError as error:
        raise (error.__cause__ or error) from None


async def test_a_paid_job_is_kept_when_the_log_cannot_be_reached(
    s3: SmallS3, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """P17: the next start on this machine records it, and its image is collected."""
    place = f"s3://{BUCKET}/run", options_of(s3.url)
    async with on(tmp_path, place) as ledger:
        await ledger.intent(image_request(), price=PRICE, attempt=(attempt := Attempt()))
        s3.refusals = {"PUT": 403}
        await ledger.answered(image_request(), job_of(image_request()), attempt=attempt)
        with pytest.raises(JournalError, match="access is refused"):
            await ledger.settle(stored(ledger, image_request()))
    assert "job-0" not in caplog.text
    s3.refusals = {}
    async with on(tmp_path, place) as ledger:
        known = await ledger.known(image_request())
        assert isinstance(known, Job)
        assert (known.job_id, ledger.counts.in_doubt) == ("job-0", 0)
    assert not (tmp_path / ".fluxasync/unsent.jsonl").exists()


async def test_a_paid_job_that_was_kept_is_the_answer_to_its_attempt_later(
    s3: SmallS3, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """P3: where another machine has it in doubt the job ends the doubt; where it was submitted
    again by a decision, the job is said."""
    place = f"s3://{BUCKET}/run", options_of(s3.url)
    async with on(tmp_path / "one", place) as ledger:
        requests = [image_request(n) for n in range(2)]
        attempts = [Attempt(), Attempt()]
        for request, attempt in zip(requests, attempts, strict=True):
            await ledger.intent(request, price=PRICE, attempt=attempt)
        s3.refusals = {"PUT": 403}
        for request, attempt in zip(requests, attempts, strict=True):
            await ledger.answered(request, job_of(request), attempt=attempt)
    s3.refusals = {}
    async with on(tmp_path / "other", place) as ledger:  # the refused release is no obstacle
        assert ledger.counts.in_doubt == 2
        await ledger.decisions.forget([requests[1].key])
        await ledger.intent(requests[1], price=PRICE, attempt=Attempt())
        await ledger.answered(requests[1], job_of(requests[1], job_id="again"))
    async with on(tmp_path / "one", place) as ledger:
        known = [await ledger.known(request) for request in requests]
        assert [job.job_id for job in known] == ["job-0", "again"]
        assert "paid, and cannot be recorded: job job-1" in caplog.text
    async with on(tmp_path / "other", place) as ledger:
        assert [job.job_id async for _, job in ledger.unfinished()] == ["job-0", "again"]


async def test_a_paid_job_in_the_log_whose_answer_was_lost_is_not_recorded_twice(
    s3: SmallS3, tmp_path: Path
):
    """The log had it; what was kept of it changes nothing."""
    place = f"s3://{BUCKET}/run", options_of(s3.url)
    async with on(tmp_path, place) as ledger:
        await ledger.intent(image_request(), price=PRICE, attempt=(attempt := Attempt()))
        append = ledger._copy._log.append

        def lost(lines: list[str]) -> int:
            append(lines)
            raise JournalError("no answer")

        ledger._copy._log.append = lost  # type: ignore[method-assign]
        await ledger.answered(image_request(), job_of(image_request()), attempt=attempt)
    assert (tmp_path / ".fluxasync/unsent.jsonl").exists()
    async with on(tmp_path, place) as ledger:
        assert ledger.counts.running == 1
        await ledger.settle(stored(ledger, image_request()))
    async with on(tmp_path, place) as ledger:
        assert (ledger.counts.done, ledger.counts.spent) == (1, PRICE)
