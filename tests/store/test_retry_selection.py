"""Retries: failures are chosen by class, count as still to do, and change with their new intent."""

from __future__ import annotations

import asyncio
import hashlib
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
    ConfigError,
    DeadlineExceeded,
    DownloadError,
    Failed,
    FluxError,
    ImageRequest,
    InDoubt,
    InvalidRequest,
    Job,
    JobLost,
    JournalCounts,
    JournalError,
    Moderated,
    RateLimited,
    Saved,
    TransportError,
)
from fluxasync._store.journal.journal import Journal, classes_of, open_lookup
from fluxasync._store.journal.reader import expected, read_only
from fluxasync.extend import Refused, Stored, Verdict

PRICE = Decimal("0.025")
IMAGE = jpeg()
ORIGIN = "https://api.bfl.ai"


def journal(folder: Path, classes: str | tuple[()] = (), **given: Any) -> Journal:
    run: dict[str, Any] = {"provider": "bfl", "origin": ORIGIN, "simulated": False}
    return Journal(folder, retry=classes_of(classes), **(run | given))


def image_request(number: int) -> ImageRequest:
    return ImageRequest(prompt=f"fox {number}", index=number)


REQUESTS = [image_request(number) for number in range(6)]
KEYS = [request.key for request in REQUESTS]


async def submitted(ledger: Journal, request: ImageRequest, job_id: str | None = None) -> Job:
    await ledger.intent(request, price=PRICE)
    name = job_id or f"job-{request.index}"
    job = Job(job_id=name, request=request, provider="bfl", price=PRICE)
    await ledger.answered(request, job)
    return job


def saved(folder: Path, job: Job) -> Saved:
    assert job.request is not None
    path = folder / f"{job.request.index:06}.jpg"
    path.write_bytes(IMAGE)
    digest = hashlib.sha256(IMAGE).hexdigest()
    stored = Stored(path=path, size=len(IMAGE), sha256=digest, format="jpeg", width=8, height=6)
    return Saved(request=job.request, job=job, stored=stored, index=job.request.index, cost=PRICE)


async def failures(folder: Path) -> None:
    """A failure of each kind: dropped, lost, moderated, not downloaded, late; one saved image."""
    async with journal(folder) as ledger:
        no_answer = TransportError("no answer", sent=True)
        await ledger.intent(image_request(0), price=PRICE)
        await ledger.settle(InDoubt(request=image_request(0), error=no_answer, price=PRICE))
        await ledger.decisions.drop(image_request(0).key)
        kinds: list[Callable[[Job], FluxError]] = [
            lambda job: JobLost("gone", job=job),
            lambda job: Moderated("no", job=job),
            lambda job: DownloadError("short", job=job),
            lambda job: DeadlineExceeded("late", job=job),
        ]
        for number, kind in enumerate(kinds, 1):
            job = await submitted(ledger, image_request(number))
            await ledger.settle(Failed(request=job.request, error=kind(job), job=job))
        await ledger.settle(saved(folder, await submitted(ledger, image_request(5))))


@pytest.fixture(scope="module")
def all_failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `failures`, to be copied."""
    folder = tmp_path_factory.mktemp("failures")
    asyncio.run(failures(folder))
    return folder


@pytest.fixture
def folder(all_failed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(all_failed, tmp_path / "out")


def table(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / ".fluxasync" / "journal.db")) as connection:
        return connection.execute("SELECT * FROM image ORDER BY id").fetchall()


def total(counts: JournalCounts) -> Decimal:
    """The amount that counts against a cap."""
    return counts.spent + counts.possible_cost


async def states(ledger: Journal) -> list[str | None]:
    return [known_state(await ledger.known(request)) for request in REQUESTS]


BEFORE = ["dropped", "lost", "moderated", "download", "job-4", "Saved"]
_WORDS = {"job-3": "to-collect", "job-4": "submitted", "Saved": "done", None: "again"}


@pytest.mark.parametrize(
    ("classes", "after"),
    [
        pytest.param(
            "failed",
            ["dropped", None, "moderated", "job-3", "job-4", "Saved"],
            id="all but decided ones",
        ),
        pytest.param("lost", ["dropped", None, *BEFORE[2:]], id="one cause"),
        pytest.param(
            "moderated, dropped", [None, "lost", None, *BEFORE[3:]], id="decided, and named"
        ),
        pytest.param("timeout", [*BEFORE[:4], None, "Saved"], id="paid again while it runs"),
        pytest.param("download", [*BEFORE[:3], "job-3", *BEFORE[4:]], id="F71 paid, fetched anew"),
        pytest.param("missing", BEFORE, id="no file is missing"),
        pytest.param("expired", BEFORE, id="none of these"),
    ],
)
@pytest.mark.asyncio
async def test_a_retry_selection_changes_no_row(
    folder: Path, classes: str, after: list[str | None]
) -> None:
    """Named failures count as still to do, before and after entry; the rows stay unchanged until a
    job is polled or submitted."""
    rows = table(folder)
    words = [_WORDS.get(state, "failed") for state in after]
    with open_lookup(folder, retry=classes_of(classes)) as lookup:
        assert lookup is not None
        assert lookup(KEYS) == words
    async with journal(folder, classes) as ledger:
        assert await asyncio.to_thread(ledger.lookup(), [*KEYS[::-1], "00"]) == [*words[::-1], None]
        assert ledger.recovered.again == after.count(None)
        assert ledger.recovered.running == ("job-3" in after) + ("job-4" in after)
        assert total(ledger.recovered) == 6 * PRICE
        unfinished = [job.job_id async for _, job in ledger.unfinished()]
        assert unfinished == ["job-4"] * ("job-4" in after)
        assert table(folder) == rows
        assert await states(ledger) == after
    changed = [old for old, new in zip(rows, table(folder), strict=True) if old != new]
    assert len(changed) == (BEFORE[3] != after[3])  # asked for again, which costs nothing
    async with journal(folder) as ledger:
        still = [old if new is None else new for old, new in zip(BEFORE, after, strict=True)]
        assert await states(ledger) == still


@pytest.mark.parametrize("classes", [(), "failed", "lost", "timeout"])
@pytest.mark.asyncio
async def test_a_plan_without_a_run_has_the_counts_of_the_run(
    folder: Path, classes: str | tuple[()]
) -> None:
    """F160: the counts shown before a run, which the cap is held against, are the run's own."""
    retry, place = classes_of(classes), {"provider": "bfl", "origin": ORIGIN}
    planned = expected(folder, simulated=False, retry=retry, **place)
    with read_only(folder) as view:
        assert view.recovered(retry) == planned
        assert view.counted_at is None
    async with journal(folder, classes) as ledger:
        assert ledger.recovered == planned
    assert expected(folder / "new", simulated=False, retry=retry, **place) is None
    with pytest.raises(JournalError, match="holds paid images"):
        expected(folder, simulated=True, retry=retry, **place)


@pytest.mark.asyncio
async def test_an_intent_retries_a_named_failure_once(folder: Path) -> None:
    """P1: one more submission of this image, not two, and none of the others."""
    async with journal(folder, "failed") as ledger:
        job = await submitted(ledger, image_request(1), "job-7")
        await ledger.settle(
            Failed(request=image_request(1), error=JobLost("gone", job=job), job=job)
        )
        assert known_state(await ledger.known(image_request(1))) == "lost"
        with pytest.raises(JournalError, match="recorded as failed: not submitted again"):
            await ledger.intent(image_request(1), price=PRICE)
        with pytest.raises(JournalError, match="recorded as failed: not submitted again"):
            await ledger.intent(image_request(2), price=PRICE)
        assert total(ledger.counts) == 7 * PRICE
    async with journal(folder, "failed") as ledger:  # named once more, by the next run
        assert await ledger.known(image_request(1)) is None


@pytest.mark.asyncio
async def test_a_refused_retry_is_still_to_be_submitted(folder: Path) -> None:
    """A refused retry stays to be done."""
    async with journal(folder, "lost") as ledger:
        await ledger.intent(image_request(1), price=PRICE)
        error = RateLimited("slower", status=429)
        await ledger.answered(image_request(1), Refused(verdict=Verdict.REFUSED, error=error))
    async with journal(folder) as ledger:
        assert await ledger.known(image_request(1)) is None
        await ledger.intent(image_request(1), price=PRICE)


@pytest.mark.asyncio
async def test_money_of_earlier_attempts_stays_counted(folder: Path) -> None:
    """P7: also if the second attempt costs nothing, because it never left this machine."""
    async with journal(folder, "failed,moderated") as ledger:
        for number in (1, 2):
            error = InvalidRequest("no such input", status=0)
            await ledger.settle(Failed(request=image_request(number), error=error))
        assert total(ledger.counts) == 6 * PRICE
        assert await states(ledger) == [
            "dropped",
            "rejected",
            "rejected",
            "job-3",
            "job-4",
            "Saved",
        ]
    async with journal(folder) as ledger:
        assert total(ledger.recovered) == 6 * PRICE


@pytest.mark.asyncio
async def test_a_removed_image_is_made_again_on_request(folder: Path) -> None:
    """F124: only when named, and only images whose file is missing."""
    (folder / "000005.jpg").unlink()
    async with journal(folder, "failed") as ledger:
        assert known_state(await ledger.known(image_request(5))) == "Saved"
    async with journal(folder, "missing") as ledger:
        assert (ledger.recovered.done, ledger.recovered.again) == (0, 1)
        await ledger.settle(saved(folder, await submitted(ledger, image_request(5), "job-8")))
        assert ledger.counts.done == 1
        assert total(ledger.counts) == 7 * PRICE
        assert ledger.counts.spent == 2 * PRICE  # both images were here


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("damage", "classes"),
    [
        pytest.param("unlink", "missing", id="gone, missing"),
        pytest.param("unlink", "damaged", id="gone, damaged"),
        pytest.param("truncate", "damaged", id="cut short"),
    ],
)
async def test_a_damaged_image_is_counted_and_made_again_on_request(
    folder: Path, damage: str, classes: str
) -> None:
    """F124: every run reports the number of damaged files; only a named class makes them again."""
    image = folder / "000005.jpg"
    if damage == "unlink":
        image.unlink()
    else:
        os.truncate(image, 10)
    async with journal(folder, "failed") as ledger:
        assert known_state(await ledger.known(image_request(5))) == "Saved"
        assert await ledger.damaged() == 1
    async with journal(folder, classes) as ledger:
        assert await ledger.damaged() == 0
        assert (ledger.recovered.done, ledger.recovered.again) == (0, 1)
        assert await ledger.known(image_request(5)) is None


@pytest.mark.asyncio
async def test_an_image_that_was_edited_is_not_made_again(folder: Path) -> None:
    """A larger file may be the owner's edit, so `damaged` leaves it."""
    with (folder / "000005.jpg").open("ab") as file:
        file.write(b"more")
    async with journal(folder, "damaged") as ledger:
        assert known_state(await ledger.known(image_request(5))) == "Saved"
        assert await ledger.damaged() == 0


@pytest.mark.asyncio
async def test_a_simulated_retry_of_paid_failures_is_refused(folder: Path) -> None:
    """P18: the same command with --simulate is refused, and changes nothing."""
    rows = table(folder)
    with pytest.raises(JournalError, match="holds paid images"):
        await journal(folder, "failed", simulated=True).__aenter__()
    assert table(folder) == rows


@pytest.mark.asyncio
async def test_a_retried_job_is_polled_at_its_own_provider(folder: Path) -> None:
    """Another provider does not know the job; a late job that is given up restricts nothing."""
    elsewhere = {"provider": "cometapi", "origin": "https://api.cometapi.com"}
    with pytest.raises(JournalError, match="unfinished jobs at bfl"):
        await journal(folder, "timeout,download", **elsewhere).__aenter__()
    async with journal(folder, "timeout", **elsewhere) as ledger:
        await submitted(ledger, image_request(4), "job-9")


@pytest.mark.parametrize("given", ["", " , ", "nonsense", "failed,expird", ["lost", "expird"]])
def test_classes_are_known_words(given: str | list[str]) -> None:
    """An unknown class is reported with all the valid ones."""
    with pytest.raises(ConfigError, match="failed, auth, damaged, download"):
        classes_of(given)


def test_classes_are_a_text_or_words() -> None:
    """Text of the command line, or an iterable; no words mean no classes."""
    assert classes_of("failed, lost,") == classes_of(["lost", "failed"]) == {"failed", "lost"}
    assert classes_of(()) == frozenset()
