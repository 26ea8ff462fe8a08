"""Whatever happens to a journal whose record is a log, every machine makes the same copy of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.sample_images import jpeg

from fluxasync import (
    DeadlineExceeded,
    DownloadError,
    Failed,
    FluxError,
    ImageRequest,
    InDoubt,
    InvalidRequest,
    Job,
    JobLost,
    Moderated,
    RateLimited,
    Saved,
    TransportError,
)
from fluxasync._core.account import Candidate
from fluxasync._core.attempts import Attempt
from fluxasync._core.models import NOT_LISTED, Quarantined
from fluxasync._store.journal.exports import ExportedFile
from fluxasync._store.journal.journal import Journal
from fluxasync._store.journal.log_copy import LogCopy
from fluxasync._store.journal.samples import BalanceSample
from fluxasync._store.object_log import ObjectLog
from fluxasync._store.objects import Objects
from fluxasync.extend import Refused, Stored, Verdict

pytest.importorskip("obstore", reason="the extra `store` is not installed")

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
PRICE = Decimal("0.025")
IMAGE = jpeg()
NO_ANSWER = TransportError("no answer", sent=True, evidence="<html>")
SHARD = ExportedFile(
    format="webdataset", place="../out", number=0, first=1, last=9, images=3, size=10_240,
    sha256="ab" * 32, is_closed=False,
)  # fmt: skip

#: facts of a copy, which are no part of the record
OF_THE_COPY = ("clean", "inode", "machine", "stale_copy")

#: verbs that no state of an image refuses
OF_THE_RUN = ("again", "elsewhere", "torn")

_runs = count()


class Machine:
    """One machine after another works on one run. `verb` is a method; `n` names an image."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.objects = Objects(f"memory://log-{next(_runs)}/run")
        self.folder = home / "one"
        self.ledger: Journal | None = None
        self.attempts: dict[int, Attempt] = {}
        self.jobs: dict[int, Job] = {}
        self._numbers = count()

    @property
    def now(self) -> Journal:
        assert self.ledger is not None
        return self.ledger

    async def open(self, *, retry: tuple[str, ...] = (), living: tuple[str, ...] = ()) -> None:
        url, log = self.objects.url, ObjectLog(self.objects)
        ledger = Journal(
            self.folder, provider="bfl", origin="https://api.bfl.ai", simulated=False, url=url,
            retry=retry, living=living, log=log, stem_of=lambda request: f"{request.index:06}",
            template="{index:06}.{ext}",
        )  # fmt: skip
        self.ledger = await ledger.__aenter__()

    async def close(self) -> None:
        ledger, self.ledger = self.ledger, None
        if ledger is not None:
            await ledger.__aexit__()

    def _job(self, n: int) -> Job:
        if n not in self.jobs:
            self.next_job(n)
        return self.jobs[n]

    def next_job(self, n: int) -> None:
        self.jobs[n] = Job(
            job_id=f"job-{n}-{next(self._numbers)}",
            polling_url="https://api.bfl.ai/v1/get_result?id=1",
            request=request(n),
            provider="bfl",
            price=PRICE,
        )

    # --- what may happen to image `n` -----------------------------------------------------------

    async def intent(self, n: int) -> None:
        self.attempts[n] = Attempt(owner="living" if n else "")
        self.next_job(n)
        await self.now.intent(request(n), price=PRICE, attempt=self.attempts[n])

    async def accepted(self, n: int) -> None:
        await self.now.answered(request(n), self._job(n), attempt=self.attempts.get(n))

    async def stolen_id(self, n: int) -> None:
        other = self._job((n + 1) % 3)
        await self.now.answered(
            request(n),
            Job(job_id=other.job_id, request=request(n), provider="bfl", price=PRICE),
            attempt=self.attempts.get(n),
        )

    async def refused(self, n: int) -> None:
        error = RateLimited("wait", status=429)
        await self.now.answered(
            request(n), Refused(verdict=Verdict.REFUSED, error=error), attempt=self.attempts.get(n)
        )

    async def lost(self, n: int) -> None:
        answer = Refused(verdict=Verdict.AMBIGUOUS, error=NO_ANSWER)
        await self.now.answered(request(n), answer, attempt=self.attempts.get(n))

    async def saved(self, n: int) -> None:
        stored = Stored(
            place=f"{self.now.root.url}/{n:06}.jpg", size=len(IMAGE), width=8, height=6,
            sha256=hashlib.sha256(IMAGE).hexdigest(), format="jpeg",
        )  # fmt: skip
        await self.now.settle(
            Saved(
                request=request(n), job=self._job(n), stored=stored, index=n, seed=7,
                prompt="fox", cost=Decimal("0.03"), timings={},
            )
        )  # fmt: skip

    async def _failed(self, n: int, error: FluxError, *, has_job: bool = True) -> None:
        job = self._job(n) if has_job else None
        await self.now.settle(Failed(request=request(n), error=error, job=job))

    async def gone(self, n: int) -> None:
        await self._failed(n, JobLost("gone", job=self._job(n)))

    async def moderated(self, n: int) -> None:
        await self._failed(n, Moderated("no", job=self._job(n), reasons=("x",)))

    async def late(self, n: int) -> None:
        await self._failed(n, DeadlineExceeded("late", job=self._job(n)))

    async def invalid(self, n: int) -> None:
        await self._failed(n, InvalidRequest("no", status=422), has_job=False)

    async def quarantined(self, n: int) -> None:
        path = self.folder / f".fluxasync/quarantine/job-{n}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(IMAGE)
        error = DownloadError("cut", job=self._job(n))
        digest = hashlib.sha256(IMAGE).hexdigest()
        error.quarantined = Quarantined(path=path, size=len(IMAGE), sha256=digest)
        await self._failed(n, error)

    async def doubt(self, n: int) -> None:
        await self.now.settle(InDoubt(request=request(n), error=NO_ANSWER, price=PRICE))

    async def drop(self, n: int) -> None:
        await self.now.decisions.drop(request(n).key)

    async def forget(self, n: int) -> None:
        await self.now.decisions.forget([request(n).key])

    async def give_job(self, n: int) -> None:
        await self.now.decisions.give_job(request(n).key, self._job(n).job_id)

    async def adopt(self, n: int) -> None:
        await self.now.decisions.adopt(request(n).key, self._job(n).job_id)

    async def disown(self, n: int) -> None:
        await self.now.decisions.disown(request(n).key, self._job(n).job_id, "not known")

    async def refunded(self, n: int) -> None:
        await self.now.decisions.refunded(request(n).key, self._job(n).job_id)

    async def unlisted(self, n: int) -> None:
        found = Candidate(job_id="x", status="Ready", submitted_at=None, prompt="fox")
        candidates = (found,) * n
        await self.now.decisions.mark(request(n).key, is_unlisted=n > 0, candidates=candidates)

    async def accept(self, n: int) -> None:
        columns = ("0.03", "0.03", 1.5, f"{n}.jpg", bytes(32), 9, "jpeg", 8, 6, "{}")
        await self.now.decisions.release(request(n).key, columns)

    async def discard(self, n: int) -> None:
        await self.now.decisions.release(request(n).key, None)

    async def known(self, n: int) -> None:
        """Edits the extras of a saved image, and collects a failed one that is selected."""
        await self.now.known(request(n, style="墨"))

    async def collect_again(self, n: int) -> None:
        await self.now.collect_again(request(n), self._job(n))

    async def abandon(self, n: int) -> None:
        await self.now.decisions.abandon("living" if n else "")

    async def sample(self, n: int) -> None:
        at = datetime(2026, 11, 30, tzinfo=UTC)
        left = Decimal(n)
        await self.now.sample(
            BalanceSample(at=at, event="start", provider="bfl", left=left, used=None)
        )

    async def export(self, n: int) -> None:
        await self.now.exports.add(SHARD)
        await self.now.exports.delete([request(n).key], SHARD)

    async def project(self, n: int) -> None:
        await self.now.project(rewrite=n > 0)

    # --- what may happen to the run -------------------------------------------------------------

    async def again(self, n: int) -> None:
        """The run ends, and begins again on this machine with a selection."""
        await self.close()
        await self.open(
            retry=((), ("failed", "timeout", "quarantined", "moderated"), (NOT_LISTED,))[n],
            living=("living",) * (n == 1),
        )

    async def elsewhere(self, n: int) -> None:
        """The run continues on another machine, which may have an old copy."""
        await self.close()
        self.folder = self.home / f"machine-{n}"
        await self.open()

    async def torn(self, n: int) -> None:
        """The process is killed between the append of a group and its commit."""
        kept = self.home / "kept"
        database = self.folder / ".fluxasync"
        shutil.copytree(database, kept, ignore=shutil.ignore_patterns("reserve", "status.json*"))
        try:
            with suppress(FluxError):
                await (self.intent, self.accepted, self.gone)[n](n)
            await self.close()
            for path in database.glob("journal.db*"):
                path.unlink()
            for path in kept.glob("journal.db*"):
                shutil.copyfile(path, database / path.name)
        finally:
            shutil.rmtree(kept)
        await self.open()


def request(n: int, **extras: str) -> ImageRequest:
    return ImageRequest(prompt=f"fox {n}", index=n, extras=extras)


VERBS = [
    name for name, value in vars(Machine).items()
    if callable(value) and not name.startswith("_") and name not in ("open", "close", "next_job")
]  # fmt: skip


def tables(folder: Path) -> dict[str, list[Any]]:
    """All rows of all tables of a copy, without the copy's own facts."""
    with closing(sqlite3.connect(folder / ".fluxasync/journal.db")) as connection:
        names = ("image", "place", "sample", "export", "candidate", "meta")
        found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}  # noqa: S608
    found["meta"] = [row for row in found["meta"] if row[0] not in OF_THE_COPY]
    return found


@pytest.mark.slow
@pytest.mark.asyncio
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 2)), max_size=30))
@example([("intent", 1), ("accepted", 1), ("quarantined", 1), ("again", 1), ("intent", 1)])
@example([("intent", 0), ("intent", 2), ("torn", 1), ("elsewhere", 1), ("elsewhere", 2)])
@example([("intent", 2), ("accepted", 2), ("saved", 2), ("known", 2), ("export", 2)])
@example([("intent", 1), ("lost", 1), ("unlisted", 1), ("again", 2), ("invalid", 1)])
@example([("intent", 1), ("accepted", 1), ("discard", 1), ("gone", 1)])
@example([("accepted", 0), ("gone", 0), ("forget", 0), ("intent", 2), ("accepted", 2), ("torn", 2)])
async def test_every_machine_makes_the_same_copy_of_a_record(
    actions: list[tuple[str, int]],
) -> None:
    """P2: all tables of a copy are equal on the machine that wrote the record, and on one that
    never saw the run, also after kills between the log and the copy."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        machine = Machine(Path(name))
        try:
            await machine.open()
            for verb, n in actions:
                step: Callable[[int], Awaitable[None]] = getattr(machine, verb)
                with suppress(*() if verb in OF_THE_RUN else (FluxError,)):
                    await step(n)
            counts = machine.now.counts
            own = tables(machine.folder)
            stranger = Path(name, "stranger")
            (stranger / ".fluxasync").mkdir(parents=True)
            copy = LogCopy(stranger / ".fluxasync/journal.db", ObjectLog(machine.objects))
            assert copy.refresh()
            assert own == tables(stranger)
        finally:
            await machine.close()
        machine.folder = stranger
        try:
            await machine.open(living=("", "living"))
            assert machine.now.counts == counts
        finally:
            await machine.close()
