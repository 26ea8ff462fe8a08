"""Journals of version 1: read as they are, migrated by the next run; what version 2 adds."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from test_journal import PRICE, image_request, job_of, journal

from fluxasync import InDoubt, audit
from fluxasync._core.attempts import Attempt
from fluxasync._store.journal import schema
from fluxasync._store.journal.reader import read_only
from fluxasync._store.journal.samples import BalanceSample, samples

FIXTURE = Path(__file__).parent.parent / "fixtures" / "journal-v1.db"
ROWS = (
    "SELECT id, key, state, attempt, idx, model, request, begun_at, price, money, job_id, path "
    "FROM image ORDER BY id"
)


pytestmark = pytest.mark.asyncio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the journal of an earlier version."""
    (tmp_path / ".fluxasync").mkdir(mode=0o700)
    shutil.copy(FIXTURE, _db(tmp_path))
    return tmp_path


def _db(folder: Path) -> Path:
    return folder / ".fluxasync" / "journal.db"


def _rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


async def test_readers_read_a_journal_of_version_1_and_leave_it_as_it_is(folder):
    """P28: `status` and `resolve` need no migration, so an older fluxasync can still go on."""
    before = _db(folder).read_bytes()
    with read_only(folder) as view:
        assert view.counts.done == 2
    assert len(await audit.in_doubt(folder)) == 1
    assert (_db(folder).read_bytes(), _rows(_db(folder), "PRAGMA user_version")) == (before, [(1,)])


async def test_a_run_migrates_a_journal_of_version_1_and_keeps_every_row(folder):
    """P28: the rows are the same before and after; only the new columns are added."""
    before = _rows(_db(folder), ROWS)
    async with journal(folder, take_over=True) as ledger:
        assert isinstance(await ledger.known(image_request(4)), InDoubt)
    assert _rows(_db(folder), ROWS) == before
    new = _rows(_db(folder), "SELECT DISTINCT token, owner, account FROM image")
    assert (_rows(_db(folder), "PRAGMA user_version"), new) == ([(2,)], [(None, None, None)])


async def test_a_migrated_journal_has_the_schema_of_a_new_one(folder, tmp_path_factory):
    """The two cannot drift apart."""
    fresh = tmp_path_factory.mktemp("fresh")
    for place in (folder, fresh):
        async with journal(place, take_over=True):
            pass
    assert _schema(folder) == _schema(fresh) == schema._expected_schema(2)


def _schema(folder: Path) -> dict[tuple[str, str], str]:
    with closing(sqlite3.connect(_db(folder))) as connection:
        return schema._schema(connection)


async def test_an_attempt_is_found_by_its_token_until_its_image_has_an_outcome(tmp_path):
    """A late answer names its attempt only; a token of an earlier attempt finds nothing."""
    first, second = Attempt(owner="one"), Attempt(owner="two", account="cheap")
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE, attempt=first)
        found = await ledger.decisions.attempt(first.token)
        assert found is not None
        assert (found.key, found.state) == (image_request().key, "intent")
        assert await ledger.decisions.attempt(second.token) is None
        await ledger.answered(image_request(), job_of(image_request()), attempt=first)
        found = await ledger.decisions.attempt(first.token)
        assert found is not None
        assert (found.state, found.job_id) == ("submitted", job_of(image_request()).job_id)
        await ledger.decisions.forget([image_request().key])
        assert await ledger.decisions.attempt(first.token) is None
        await ledger.intent(image_request(), price=PRICE, attempt=second)
        assert await ledger.decisions.attempt(first.token) is None
    row = _rows(_db(tmp_path), "SELECT token, owner, account FROM image")
    assert row == [(bytes.fromhex(second.token), "two", "cheap")]


async def test_samples_of_the_balance_are_kept(tmp_path):
    """In order, exact to a millionth of a dollar; a balance may be below 0, or not told."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    kept = [
        BalanceSample(at=at, event="start", provider="bfl", left=Decimal("3.2"), used=None),
        BalanceSample(
            at=at, event="end", provider="bfl", account="b", left=Decimal("-1"), used=Decimal(7)
        ),
    ]
    async with journal(tmp_path) as ledger:
        for sample in kept:
            await ledger.sample(sample)
    with closing(sqlite3.connect(_db(tmp_path))) as connection:
        assert samples(connection) == kept


async def test_a_journal_of_version_1_has_no_samples(folder):
    """The bill of an older folder is made without them."""
    with closing(sqlite3.connect(_db(folder))) as connection:
        assert samples(connection) == []


async def test_the_repr_of_an_attempt_leaves_its_token_out():
    """A webhook's address has it."""
    attempt = Attempt(owner="me")
    assert attempt.token not in repr(attempt)
