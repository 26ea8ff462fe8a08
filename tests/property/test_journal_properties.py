"""A journal with any value in any cell: every command succeeds, or says what is wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.sample_images import jpeg
from support.sweeps import share

from fluxasync import (
    Failed,
    ImageInput,
    ImageRequest,
    InDoubt,
    Job,
    JobLost,
    JournalError,
    Moderated,
    Saved,
    TransportError,
)
from fluxasync._engine.budget import SpendingAccount
from fluxasync._store.journal import journal as journal_module
from fluxasync._store.journal import schema
from fluxasync._store.journal.journal import Journal, classes_of, open_lookup
from fluxasync._store.journal.retry_selection import CLASSES
from fluxasync.audit import Candidate, in_doubt, status, verify
from fluxasync.extend import Stored
from fluxasync.gallery.cards import read

PRICE = Decimal("0.025")
#: thousands of small journals: where there is a file system in memory, no disk is waited for
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
REQUESTS = [
    ImageRequest(
        prompt=f"fox {number}",
        index=number,
        extras={"style": "ink"},
        image_prompt=ImageInput(url="https://images.example/fox.png") if number == 2 else None,
    )
    for number in range(8)
]


def journal(folder: Path, **given: Any) -> Journal:
    return Journal(
        folder,
        provider="bfl",
        origin="https://api.bfl.ai",
        simulated=False,
        stem_of=lambda request: f"{request.index:06}",
        **given,
    )


async def _submitted(ledger: Journal, request: ImageRequest) -> Job:
    await ledger.intent(request, price=PRICE)
    job = Job(job_id=f"job-{request.index}", request=request, provider="bfl", price=PRICE)
    await ledger.answered(request, job)
    return job


def _saved(folder: Path, job: Job) -> Saved:
    assert job.request is not None
    path, image = folder / f"{job.request.index:06}.jpg", jpeg()
    path.write_bytes(image)
    stored = Stored(path=path, size=len(image), sha256="11" * 32, format="jpeg", width=8, height=6)
    return Saved(
        request=job.request, job=job, stored=stored, seed=7, cost=PRICE, timings={"submit": 0.5}
    )


async def _fill(folder: Path) -> None:
    """Write rows of every state."""
    async with journal(folder) as ledger:
        jobs = [await _submitted(ledger, request) for request in REQUESTS[:6]]
        for job in jobs[:2]:
            await ledger.settle(_saved(folder, job))
        no = Moderated("no", job=jobs[2], reasons=("nsfw",))
        await ledger.settle(Failed(request=REQUESTS[2], error=no, job=jobs[2]))
        lost = JobLost("gone", job=jobs[3])
        await ledger.settle(Failed(request=REQUESTS[3], error=lost, job=jobs[3]))
        for request in REQUESTS[6:]:
            await ledger.intent(request, price=PRICE)
            none = TransportError("no answer", sent=True, evidence="<html>")
            await ledger.settle(InDoubt(request=request, error=none, price=PRICE))
    async with journal(folder) as ledger:
        await ledger.decisions.forget([REQUESTS[7].key])
        named = Candidate(job_id="job-x", status="moderated", submitted_at=datetime.now(UTC))
        await ledger.decisions.mark(REQUESTS[6].key, is_unlisted=False, candidates=[named])
        await ledger.project(keep_bad_rows=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run, without a reserve, because writing it is slow."""
    home = tmp_path_factory.mktemp("tampered")
    with patch.object(journal_module, "RESERVE", 0):
        asyncio.run(_fill(home))
        yield home


def _columns(table: str) -> list[str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema.TABLES)
        return [found[1] for found in connection.execute(f"PRAGMA table_info({table})")]


CELLS = [
    (table, name)
    for table in ("image", "place", "meta", "sample", "candidate")
    for name in _columns(table)
]

#: what a reader may stumble over
ODD = [
    "-1000", "1E+99999999", "NaN", "Infinity", "lots", "0." + "3" * 5_000, "9" * 400, "",
    "../../outside", "/dev/zero", "a\0b", "[" * 5_000, "{" * 5_000, '{"prompt": 5}', "[]", "null",
    '{"prompt": "a", "unknown": 1}', '{"timings": [1]}', '{"timings": {"a": "b"}}',
    '{"image_prompt": {"$image": 5}}', '{"image_prompt": {"$image": {"path": 5}}}',
    '{"parameters": [1], "extras": "x"}', '{"seed": 1e999}', '{"seed": ' + "9" * 400 + "}",
    '{"extras": ' + '{"a":' * 300 + "1" + "}" * 301, '{"reasons": 5}', '{"status": "x"}',
    '"' * 1_000, '{"prompt": "\\ud800"}', "\x1b[31m", "done", "x" * 100_000,
    b"", b"\xff" * 32, b"\xff\xfe", 0, -1, 9, 2**62, 2**63 - 1, -(2**63), 1e300, -1e300,
    float("inf"), 2.5, 253_402_300_800.0, None,
]  # fmt: skip

#: those that show the missing check of a column, in the third row, whose image failed
WORST = ("-1000", "1E+99999999", "a\0b", 253_402_300_800.0)

VALUES = st.one_of(
    st.sampled_from(ODD),
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.binary(max_size=40),
)


Cell = tuple[tuple[str, str], int, object]


def _tamper(path: Path, cells: list[Cell]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for (table, column), number, value in cells:
            key = "name" if table == "meta" else "rowid"
            rows = f"SELECT {key} FROM {table} LIMIT 1 OFFSET {number}"  # noqa: S608 — our names
            change = f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {key} IN ({rows})"  # noqa: S608
            with suppress(sqlite3.IntegrityError):  # SQLite itself keeps some columns' types
                connection.execute(change, (value,))


async def _run(folder: Path, classes: frozenset[str]) -> None:
    """What a run does with a journal before it asks a server."""
    with open_lookup(folder, retry=classes) as lookup:
        assert lookup is not None
        lookup([request.key for request in REQUESTS])
    async with journal(folder, retry=classes) as ledger:
        recovered = ledger.recovered
        account = SpendingAccount(Decimal("0.10"))
        account.restore(
            spent=recovered.spent, in_doubt=recovered.in_doubt_price + recovered.possible_cost
        )
        assert min(recovered.spent, recovered.in_doubt_price, recovered.possible_cost) >= 0
        str(recovered)
        await ledger.project(keep_bad_rows=True, rewrite=True)
        [pair async for pair in ledger.unfinished()]
        for request in REQUESTS:
            await ledger.known(request)


@contextmanager
def _distrusted() -> Iterator[None]:
    """Accept the errors that a command may raise for this journal."""
    message = ""
    try:
        yield
    except JournalError as error:
        message = str(error)
    assert len(message) < 1_000
    assert message.isprintable()


def _read_all(folder: Path) -> None:
    for command in (status, verify, in_doubt):
        with _distrusted():
            asyncio.run(command(folder))  # type: ignore[operator]
    with _distrusted():
        for card in read(folder).cards:
            card.as_json(file=None, thumb=None)
    for classes in (frozenset[str](), classes_of(CLASSES)):
        copy = folder.with_name(f"{folder.name}-{len(classes)}")
        shutil.copytree(folder, copy)
        with _distrusted():
            asyncio.run(_run(copy, classes))


@pytest.mark.slow
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    cells=st.lists(
        st.tuples(st.sampled_from(CELLS), st.integers(0, 7), VALUES), min_size=1, max_size=3
    )
)
@example(cells=[(("image", "money"), 0, "-1000"), (("image", "cost"), 1, "-1000")])
def test_any_value_in_any_cell_ends_in_a_journal_error_at_worst(folder, cells):
    """T17: no command ends in a traceback or returns a negative sum, whatever a journal holds."""
    _check(folder, cells)


@pytest.mark.slow
@pytest.mark.parametrize(("table", "column"), CELLS)
def test_every_column_takes_every_odd_value(folder, table, column):
    """T17: each value of the list above, in a row of each state. A value meets every 18th column,
    and those of WORST every one; `make sweep` tries each value in each column."""
    taken = share(enumerate(ODD), CELLS.index((table, column)), of=18)
    for number, value in [*taken, *((2, value) for value in WORST)]:
        _check(folder, [((table, column), number % 8, value)])


def _check(folder: Path, cells: list[Cell]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        copy = Path(name) / "images"
        shutil.copytree(folder, copy)
        _tamper(copy / ".fluxasync" / "journal.db", cells)
        _read_all(copy)
