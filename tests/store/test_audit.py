"""A folder between runs: status, verification, decisions about images in doubt."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.known_states import known_state
from support.sample_images import jpeg

from fluxasync import (
    BudgetExceeded,
    ConfigError,
    Failed,
    ImageRequest,
    InDoubt,
    Job,
    JournalError,
    Moderated,
    Outcome,
    Saved,
    TransportError,
)
from fluxasync._cli.folder_commands import _ways_on
from fluxasync._store.journal.journal import Journal, Locked
from fluxasync._store.journal.retry_selection import RetrySelection
from fluxasync._store.metadata import METADATA, MetadataWriter
from fluxasync.audit import drop, give_jobs, in_doubt, resubmit, status, verify
from fluxasync.extend import Stored
from fluxasync.gallery.cards import read

PRICE = Decimal("0.025")
IMAGE = jpeg()
NO_ANSWER = TransportError("no answer", sent=True)


def journal(folder: Path) -> Journal:
    return Journal(folder, provider="bfl", origin="https://api.bfl.ai", simulated=False)


def image_request(number: int = 0, **fields: Any) -> ImageRequest:
    return ImageRequest(prompt=f"fox {number}", index=number, **fields)


async def submitted(ledger: Journal, request: ImageRequest) -> Job:
    await ledger.intent(request, price=PRICE)
    job = Job(job_id=f"job-{request.index}", request=request, provider="bfl", price=PRICE)
    await ledger.answered(request, job)
    return job


def saved(folder: Path, job: Job) -> Saved:
    assert job.request is not None
    path = folder / f"{job.request.index:06}.jpg"
    path.write_bytes(IMAGE)
    stored = Stored(
        path=path,
        size=len(IMAGE),
        sha256=hashlib.sha256(IMAGE).hexdigest(),
        format="jpeg",
        width=8,
        height=6,
    )
    index = job.request.index
    return Saved(request=job.request, job=job, stored=stored, index=index, cost=PRICE)


async def a_run(folder: Path, *, done: int = 0, doubts: int = 0, running: int = 0) -> None:
    """Write a folder as a run leaves it: this many images of each kind, in this order."""
    async with journal(folder) as ledger, MetadataWriter(folder, resumes=True) as manifest:

        async def settle(outcome: Outcome) -> None:
            await ledger.settle(outcome)
            await manifest.add(outcome)

        for number in range(done):
            await settle(saved(folder, await submitted(ledger, image_request(number))))
        for number in range(done, done + doubts):
            await ledger.intent(image_request(number), price=PRICE)
            await settle(InDoubt(request=image_request(number), error=NO_ANSWER, price=PRICE))
        for number in range(done + doubts, done + doubts + running):
            await submitted(ledger, image_request(number))


@pytest.fixture(scope="module")
def three_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three images, to be copied."""
    folder = tmp_path_factory.mktemp("three")
    asyncio.run(a_run(folder, done=3))
    return folder


async def states(folder: Path, *requests: ImageRequest) -> list[str | None]:
    async with journal(folder) as ledger:
        return [known_state(await ledger.known(request)) for request in requests]


# --- status ---------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_status_is_counts_and_money(tmp_path: Path) -> None:
    """The number of images in each state, their cost by model, first and last time."""
    await a_run(tmp_path, done=2, doubts=1, running=1)
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request(9, model="flux-pro"))
    found = await status(tmp_path)
    assert str(found.counts) == "2 done, 2 still running, 1 in doubt ($0.025), 0 failed"
    assert (found.counts.spent, found.counts.possible_cost) == (2 * PRICE, 2 * PRICE)
    dev, pro = found.by_model["flux-dev"], found.by_model["flux-pro"]
    assert (dev.images, dev.spent, dev.possible_cost, dev.in_doubt) == (2, 2 * PRICE, PRICE, PRICE)
    assert (pro.images, pro.spent, pro.possible_cost, pro.in_doubt) == (0, 0, PRICE, 0)
    assert found.since is not None
    assert found.until is not None
    assert found.since <= found.until
    assert (found.is_running, found.simulated) == (False, False)


@pytest.mark.asyncio
async def test_status_names_no_last_image_where_none_was_saved(tmp_path: Path) -> None:
    """An image that failed, or is in doubt, is not the last image."""
    await a_run(tmp_path, doubts=1)
    async with journal(tmp_path) as ledger:
        job = await submitted(ledger, image_request(7))
        error = Moderated("no", job=job)
        await ledger.settle(Failed(request=job.request, error=error, job=job))
    found = await status(tmp_path)
    assert (found.since is not None, found.until) == (True, None)


@pytest.mark.asyncio
async def test_status_beside_a_run_names_the_holder(tmp_path: Path) -> None:
    """The counts are the active run's own, with the instant at which it counted them."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
        ledger._writer._report()
        found = await status(tmp_path)
    assert found.is_running
    assert found.holder is not None
    assert os.getpid() == found.holder["pid"]
    assert (found.counts.running, found.by_model, found.simulated) == (1, {}, False)
    assert found.counted_at is not None


FUNCTIONS: dict[str, Callable[[Path], Any]] = {
    "status": status,
    "verify": verify,
    "in_doubt": in_doubt,
    "drop": drop,
    "give_jobs": lambda folder: give_jobs(folder, {"abcd": "x"}),
    "resubmit": lambda folder: resubmit(folder, max_cost=Decimal(1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.asyncio
async def test_a_folder_without_a_run_stays_unchanged(tmp_path: Path, name: str) -> None:
    """A mistyped folder is an error, and gets no journal."""
    with pytest.raises(ConfigError, match="has no journal: no run began there"):
        await FUNCTIONS[name](tmp_path / "imagse")
    (tmp_path / "metadata.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"and no journal: put its \.fluxasync back"):
        await FUNCTIONS[name](tmp_path)
    assert os.listdir(tmp_path) == ["metadata.jsonl"]


@pytest.mark.parametrize("name", list(FUNCTIONS)[1:])
@pytest.mark.asyncio
async def test_nothing_is_decided_beside_a_run(tmp_path: Path, name: str) -> None:
    """P16: while a run is active in the folder, all functions but status name its process."""
    await a_run(tmp_path, doubts=1)
    async with journal(tmp_path):
        with pytest.raises(Locked, match=f"in use by process {os.getpid()} on .* since 20"):
            await FUNCTIONS[name](tmp_path)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.asyncio
async def test_a_broken_journal_is_never_read_as_an_empty_one(tmp_path: Path, name: str) -> None:
    """P18, F115: every function raises for an empty journal file."""
    await a_run(tmp_path, done=1)
    (tmp_path / ".fluxasync" / "journal.db").write_bytes(b"")
    with pytest.raises(JournalError, match="empty"):
        await FUNCTIONS[name](tmp_path)


@pytest.mark.asyncio
async def test_unfinished_jobs_are_shown_with_the_next_step(tmp_path: Path) -> None:
    """P18: without an active run no job "runs": the next run collects it, and `resolve` settles a
    doubt."""
    await a_run(tmp_path, done=1, doubts=1, running=1)
    collect, settle = _ways_on(await status(tmp_path), tmp_path)
    assert collect.startswith("1 accepted and not collected: run the same command again")
    assert settle == f"1 in doubt; to settle them: fluxasync resolve {tmp_path}"
    *_, card = read(tmp_path).cards
    assert (card.status, "collects it for free" in card.facts["message"]) == ("running", True)


# --- verify ---------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_folder_as_recorded_is_clean(tmp_path: Path) -> None:
    """P5: every image is read and compared, and progress is reported."""
    await a_run(tmp_path, done=3, doubts=1)
    calls: list[tuple[int, int]] = []
    found = await verify(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert found.is_clean
    assert (3, 3 * len(IMAGE)) == (found.images, found.bytes)
    assert all(total == 3 for _, total in calls)
    assert (found.findings, found.unknown_images) == ((), 0)


def _truncate(folder: Path) -> None:
    (folder / "000001.jpg").write_bytes(IMAGE[:-2])


def _change(folder: Path) -> None:
    (folder / "000001.jpg").write_bytes(IMAGE[:-3] + b"x" + IMAGE[-2:])


def _lengthen(folder: Path) -> None:
    (folder / "000001.jpg").write_bytes(IMAGE * 2)


def _pipe(folder: Path) -> None:
    (folder / "000001.jpg").unlink()
    os.mkfifo(folder / "000001.jpg")


def _loop(folder: Path) -> None:
    (folder / "000001.jpg").unlink()
    (folder / "000001.jpg").symlink_to("000001.jpg")


def _rewrite(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        lines = (folder / METADATA).read_bytes().splitlines(keepends=True)
        (folder / METADATA).write_bytes(b"".join(change(lines)))

    return apply


def _other_sha(line: bytes) -> bytes:
    return json.dumps(json.loads(line) | {"sha256": "0" * 64}).encode() + b"\n"


STRANGE_LINE = b'{"key": ["no key"], "file_name": 1, "sha256": null, "bytes": 2}\n'


@pytest.mark.parametrize(
    ("damage", "words", "where"),
    [
        pytest.param(lambda f: (f / "000001.jpg").unlink(), "missing", "000001.jpg", id="F124"),
        pytest.param(_truncate, "truncated", "000001.jpg", id="F78 cut by two bytes"),
        pytest.param(_change, "changed", "000001.jpg", id="F77 one byte"),
        pytest.param(
            lambda f: (f / "000001.jpg").write_bytes(IMAGE * 2),
            "changed",
            "000001.jpg",
            id="longer",
        ),
        pytest.param(_pipe, "missing", "000001.jpg", id="a pipe in its place"),
        pytest.param(_loop, "unreadable", "000001.jpg", id="a link in a circle"),
        pytest.param(
            lambda f: (f / ".fluxasync-0a.part").write_bytes(b"half"),
            "unknown file",
            ".fluxasync-0a.part",
            id="F123 half an image",
        ),
        pytest.param(
            _rewrite(lambda lines: [lines[0], lines[2]]), "line missing", METADATA, id="a line gone"
        ),
        pytest.param(
            _rewrite(lambda lines: [*lines, lines[1]]),
            "line wrong",
            f"{METADATA} line 4",
            id="a line twice",
        ),
        pytest.param(
            _rewrite(lambda lines: [*lines, STRANGE_LINE]),
            "line wrong",
            f"{METADATA} line 4",
            id="a foreign line",
        ),
        pytest.param(
            _rewrite(lambda lines: [lines[0], _other_sha(lines[1]), lines[2]]),
            "line wrong",
            f"{METADATA} line 2",
            id="another sha256",
        ),
    ],
)
@pytest.mark.asyncio
async def test_each_kind_of_damage_has_its_word(
    three_done: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    words: str,
    where: str,
) -> None:
    """P5: exactly the damaged part is reported, with its place."""
    folder = shutil.copytree(three_done, tmp_path / "out")
    damage(folder)
    found = await verify(folder)
    assert [(words, where)] == [(one.kind, one.where) for one in found.findings]
    assert {words: 1} == found.found
    assert not found.is_clean


@pytest.mark.parametrize("is_absolute", [False, True], ids=["upwards", "absolute"])
@pytest.mark.asyncio
async def test_a_path_out_of_the_folder_is_not_read(
    three_done: Path, tmp_path: Path, is_absolute: bool
) -> None:
    """T17, T19: a journal from elsewhere cannot make `verify` read, or hash, another file."""
    folder, outside = shutil.copytree(three_done, tmp_path / "out"), tmp_path / "thesis.jpg"
    outside.write_bytes(IMAGE)
    path = str(outside) if is_absolute else "sub/../../thesis.jpg"
    with closing(sqlite3.connect(folder / ".fluxasync" / "journal.db")) as connection, connection:
        connection.execute("UPDATE image SET path = ? WHERE path = '000001.jpg'", (path,))
    found = await verify(folder)
    (finding,) = (one for one in found.findings if one.kind == "outside")
    assert (image_request(1).key, "../thesis.jpg") == (finding.key, finding.where)
    assert (found.images, found.bytes) == (3, 2 * len(IMAGE))


def _folder(folder: Path) -> None:
    (folder / "000001.jpg").unlink()
    (folder / "000001.jpg").mkdir()


def _link_to(content: bytes | None) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        target = folder.parent / "elsewhere.jpg"
        if content is not None:
            target.write_bytes(content)
        (folder / "000001.jpg").unlink()
        (folder / "000001.jpg").symlink_to(target)

    return apply


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(_pipe, "missing", id="a pipe"),
        pytest.param(_folder, "missing", id="a folder"),
        pytest.param(_link_to(None), "missing", id="a dangling link"),
        pytest.param(_link_to(b"short"), "truncated", id="a link to a short file"),
        pytest.param(_link_to(IMAGE), None, id="a link to the image, moved to another disk"),
    ],
)
@pytest.mark.asyncio
async def test_a_run_sees_the_damage_that_verify_sees(
    three_done: Path, tmp_path: Path, spoil: Callable[[Path], object], words: str | None
) -> None:
    """`verify` names `--retry damaged` as the remedy, so both find the same images."""
    folder = shutil.copytree(three_done, tmp_path / "out")
    spoil(folder)
    assert (await verify(folder)).found == ({words: 1} if words else {})
    assert RetrySelection(folder).damage("000001.jpg", len(IMAGE)) == words


@pytest.mark.asyncio
async def test_a_line_torn_by_a_crash_is_found_with_the_one_it_was(tmp_path: Path) -> None:
    """Half a line does not count as the image's line."""
    await a_run(tmp_path, done=2)
    (tmp_path / METADATA).write_bytes((tmp_path / METADATA).read_bytes()[:-9])
    found = await verify(tmp_path)
    assert found.found == {"line wrong": 1, "line missing": 1}
    (_, missing) = found.findings
    assert missing.key == image_request(1).key


@pytest.mark.asyncio
async def test_images_of_the_users_own_are_no_finding(tmp_path: Path) -> None:
    """They are listed, in subfolders too; other files are ignored."""
    await a_run(tmp_path, done=1)
    (tmp_path / "mine").mkdir()
    for name in ("mine/holiday.JPG", "cover.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = await verify(tmp_path)
    assert found.is_clean
    assert (2, {"mine/holiday.JPG", "cover.png"}) == (
        found.unknown_images,
        set(found.first_unknown_images),
    )


@pytest.mark.asyncio
async def test_a_file_whose_record_was_lost_is_its_jobs(tmp_path: Path) -> None:
    """A file that was published and not recorded is adopted by the next run, so it is not
    unknown."""
    ledger = Journal(
        tmp_path, provider="bfl", origin="x", simulated=False, stem_of=lambda r: f"{r.index:06}"
    )
    async with ledger:
        saved(tmp_path, await submitted(ledger, image_request()))
    found = await verify(tmp_path)
    assert (found.is_clean, found.unknown_images) == (True, 0)


@pytest.mark.asyncio
async def test_findings_without_end_take_bounded_memory(tmp_path: Path) -> None:
    """P20, F123: all are counted, the first thousand are kept."""
    await a_run(tmp_path, done=1)
    for number in range(1_100):
        (tmp_path / f".fluxasync-{number}.part").touch()
    found = await verify(tmp_path)
    assert found.found == {"unknown file": 1_100}
    assert len(found.findings) == 1_000


@pytest.mark.asyncio
async def test_a_verification_that_is_cancelled_ends(tmp_path: Path) -> None:
    """A cancelled verification leaves nothing open: the next one succeeds."""
    await a_run(tmp_path, done=1)
    task = asyncio.create_task(verify(tmp_path))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await verify(tmp_path)).is_clean


# --- doubts ---------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_doubts_are_listed_with_key_time_and_price(tmp_path: Path) -> None:
    """P3: submissions in progress when the run ended are listed too; the journal stays
    unchanged."""
    await a_run(tmp_path, done=1, doubts=1)
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(7), price=None)
    first, second = await in_doubt(tmp_path)
    assert (image_request(1).key, "fox 1", PRICE, "no answer") == (
        first.key, first.prompt, first.price, first.message,
    )  # fmt: skip
    assert (image_request(7).key, None) == (second.key, second.price)
    assert second.message == "the run ended before the answer came"
    assert first.begun_at < second.begun_at


@pytest.mark.asyncio
async def test_dropped_doubts_are_failures(tmp_path: Path) -> None:
    """One image is named by the start of its key; without keys all are meant."""
    await a_run(tmp_path, doubts=3)
    (one,) = await drop(tmp_path, [image_request(1).key[:8].upper()])
    assert image_request(1).key == one.key
    assert [image_request(0).key, image_request(2).key] == [
        doubt.key for doubt in await drop(tmp_path)
    ]
    assert await in_doubt(tmp_path) == []
    assert await states(tmp_path, image_request(0), image_request(1)) == ["dropped", "dropped"]


@pytest.mark.asyncio
async def test_a_doubt_is_given_its_job(tmp_path: Path) -> None:
    """The next run collects the job: nothing is submitted."""
    await a_run(tmp_path, doubts=2)
    with pytest.raises(ConfigError, match="one job id was given for two"):
        await give_jobs(tmp_path, {image_request(0).key: "x", image_request(1).key: "x"})
    await give_jobs(tmp_path, {image_request(1).key[:6]: "from-the-dashboard"})
    assert await states(tmp_path, image_request(0), image_request(1)) == [
        "InDoubt",
        "from-the-dashboard",
    ]
    with pytest.raises(ConfigError, match="belongs to another image"):
        await give_jobs(tmp_path, {image_request(0).key: "from-the-dashboard"})


@pytest.mark.asyncio
async def test_doubts_are_resubmitted_within_the_cap(tmp_path: Path) -> None:
    """The cost of the first attempt stays counted; the next run submits the images."""
    await a_run(tmp_path, doubts=2)
    with pytest.raises(BudgetExceeded, match=r"\$0\.05, more than \$0\.049"):
        await resubmit(tmp_path, max_cost=Decimal("0.049"))
    assert len(await in_doubt(tmp_path)) == 2
    assert len(await resubmit(tmp_path, max_cost=Decimal("0.05"))) == 2
    counts = (await status(tmp_path)).counts
    assert (counts.again, counts.in_doubt, counts.possible_cost) == (2, 0, 2 * PRICE)
    assert await states(tmp_path, image_request(0), image_request(1)) == [None, None]


@pytest.mark.asyncio
async def test_an_unknown_price_fits_no_cap(tmp_path: Path) -> None:
    """A cap cannot cover an unknown price; the error says what to do instead."""
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(model="flux-9"), price=None)
    with pytest.raises(ConfigError, match=r"price of flux-9 is unknown.*--retry dropped"):
        await resubmit(tmp_path, max_cost=Decimal(100))
    assert len(await in_doubt(tmp_path)) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param(["abc"], "first 4 digits or more", id="too short"),
        pytest.param(["fox 1"], "first 4 digits or more", id="no key"),
        pytest.param(["0" * 64], "no image in doubt has a key that begins", id="unknown"),
        pytest.param(
            [image_request(0).key, "0" * 64], "no image in doubt", id="one of two unknown"
        ),
    ],
)
@pytest.mark.asyncio
async def test_a_key_that_names_nothing_changes_nothing(
    tmp_path: Path, keys: list[str], message: str
) -> None:
    """All keys are checked before the first decision."""
    await a_run(tmp_path, doubts=1)
    with pytest.raises(ConfigError, match=message):
        await drop(tmp_path, keys)
    assert len(await in_doubt(tmp_path)) == 1


@pytest.mark.asyncio
async def test_a_key_that_names_two_is_refused(tmp_path: Path) -> None:
    """The start of a key must name one image only."""
    seen: dict[str, int] = {}
    for number in range(5_000):
        start = image_request(number).key[:4]
        if start in seen:
            break
        seen[start] = number
    async with journal(tmp_path) as ledger:
        for each in (seen[start], number):
            await ledger.intent(image_request(each), price=PRICE)
    with pytest.raises(ConfigError, match=f"2 images in doubt have keys that begin with {start}"):
        await drop(tmp_path, [start])


@pytest.mark.asyncio
async def test_a_decision_needs_no_provider(tmp_path: Path) -> None:
    """Unfinished jobs of any provider do not matter: the journal keeps its provider."""
    await a_run(tmp_path, doubts=1, running=2)
    await drop(tmp_path)
    async with journal(tmp_path) as ledger:
        assert ledger.recovered.running == 2


@pytest.mark.asyncio
async def test_the_lists_follow_a_decision(tmp_path: Path) -> None:
    """failures.jsonl no longer contains images to be submitted again."""
    await a_run(tmp_path, doubts=2)
    await resubmit(tmp_path, [image_request(0).key], max_cost=PRICE)
    (line,) = (tmp_path / "failures.jsonl").read_text().splitlines()
    assert image_request(1).key == json.loads(line)["key"]
