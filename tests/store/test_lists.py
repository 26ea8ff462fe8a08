"""The lists beside the images after a kill: completed at their end, not rewritten."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from fluxasync import ImageRequest, Job, Saved
from fluxasync._store.journal.journal import Journal
from fluxasync._store.journal.lists import _LISTS, _settled
from fluxasync._store.metadata import METADATA
from fluxasync.extend import Stored

COUNT = 5


def saved(folder: Path, number: int) -> Saved:
    image_request = ImageRequest(prompt=f"fox {number}", index=number)
    job = Job(job_id=f"job-{number}", request=image_request, price=Decimal("0.025"))
    path = folder / f"{number}.png"
    stored = Stored(path=path, size=1, sha256="00" * 32, format="png", width=1, height=1)
    return Saved(request=image_request, job=job, stored=stored, index=number)


def journal(folder: Path) -> Journal:
    return Journal(folder, provider="cometapi", origin="https://x.example", simulated=False)


async def filled(folder: Path) -> bytes:
    """Make a journal of five images; return its list."""
    async with journal(folder) as ledger:
        for number in range(COUNT):
            outcome = saved(folder, number)
            await ledger.intent(outcome.request, price=None)
            await ledger.answered(outcome.request, outcome.job)
            await ledger.settle(outcome)
        assert await ledger.project() == [METADATA]
    return (folder / METADATA).read_bytes()


def lines(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("damage", "is_mended"),
    [
        pytest.param(lambda text: b"".join(lines(text)[:3]), True, id="lines missing"),
        pytest.param(lambda text: text[:-9], True, id="a torn line"),
        pytest.param(lambda text: text + b'{"file_', True, id="half a line too many"),
        pytest.param(lambda text: b"".join(lines(text)[1:]), False, id="the first line missing"),
        pytest.param(lambda text: text + lines(text)[0], False, id="a line twice"),
        pytest.param(lambda text: b"not ours\n", False, id="another file"),
        pytest.param(lambda text: b"", False, id="an empty file"),
    ],
)
@pytest.mark.asyncio
async def test_a_list_is_made_whole(
    damage: Callable[[bytes], bytes], is_mended: bool, tmp_path: Path
):
    """F121: lines that a kill left out are appended; any other difference rewrites the list."""
    whole = await filled(tmp_path)
    path = tmp_path / METADATA
    path.write_bytes(damage(whole))
    file = path.stat().st_ino
    async with journal(tmp_path) as ledger:
        assert await ledger.project() == [METADATA]
        assert await ledger.project() == []
    assert path.read_bytes() == whole
    assert (path.stat().st_ino == file) is is_mended


@pytest.mark.asyncio
async def test_a_long_list_is_read_in_the_order_of_its_index(tmp_path: Path):
    """P21: a page of a million rows is found by its index; sorting all of them takes minutes."""
    await filled(tmp_path)
    asked: list[str] = []
    with closing(sqlite3.connect(tmp_path / ".fluxasync" / "journal.db")) as connection:
        metadata, failures = (shown.in_order(1_000_000) for shown in _LISTS)
        for rows in (metadata, failures):
            query = f"EXPLAIN QUERY PLAN SELECT * FROM image WHERE seq > 9 AND {rows} ORDER BY seq"  # noqa: S608
            asked += [row[3] for row in connection.execute(query)]
        assert asked == ["SEARCH image USING INDEX image_settled (seq>?)"] * 2
        assert len(list(_settled(connection, _LISTS[0]))) == COUNT
