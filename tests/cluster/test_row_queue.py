"""The images that no worker has begun, and those that each worker has."""

from __future__ import annotations

import asyncio

import pytest
from support.simulator_sessions import small_requests

from fluxasync import ImageRequest, prepare
from fluxasync.cluster.row_queue import BLOCK, RowQueue


@pytest.fixture(scope="module")
def rows() -> list[ImageRequest]:
    async def prepared() -> list[ImageRequest]:
        return [row async for row in prepare(small_requests(200))]

    return asyncio.run(prepared())


@pytest.fixture
def queue(rows: list[ImageRequest]) -> RowQueue:
    queue = RowQueue()
    queue.feed(rows)
    return queue


def keys(rows: list[ImageRequest]) -> list[str]:
    return [row.key for row in rows]


def test_each_image_goes_to_one_worker(queue: RowQueue, rows: list[ImageRequest]):
    """P1 Blocks do not overlap, and together they are the list in its order."""
    taken: list[ImageRequest] = []
    for number in range(100):
        for worker in ("a", "b"):
            block = queue.take(worker, number, workers=2)
            assert len(block) <= BLOCK
            assert all(queue.holder(row.key) == worker for row in block)
            taken += block
    assert taken == rows
    assert not len(queue)
    assert not queue.is_empty


def test_the_same_number_again_gives_the_same_block(queue: RowQueue):
    """P2 The answer to a call was lost: its images are not left out."""
    first = queue.take("a", 0, workers=1)
    assert queue.take("a", 0, workers=1) == first
    assert not {*keys(queue.take("a", 1, workers=1))} & {*keys(first)}


def test_a_worker_with_an_empty_block_asks_with_the_same_number(rows: list[ImageRequest]):
    """P2 A block that was empty does not stand for the images that come later."""
    queue = RowQueue()
    assert queue.take("a", 0, workers=1) == []
    queue.feed(rows[:1])
    assert queue.take("a", 0, workers=1) == rows[:1]


def test_what_a_lost_worker_had_comes_first(queue: RowQueue, rows: list[ImageRequest]):
    """P2 Images without an outcome go to another worker, and those with one do not."""
    block = queue.take("a", 0, workers=1)
    queue.end(block[0].key)
    queue.drop("a", block[1].key)
    queue.give_back("a")
    assert queue.take("b", 0, workers=1) == block[2:] + rows[64:66]
    assert queue.holder(block[0].key) is None


def test_images_that_a_worker_names_are_its_own(rows: list[ImageRequest]):
    """P1 A ledger that was restarted hands out nothing that a worker names, whether the list came
    before or after."""
    queue = RowQueue()
    queue.feed(rows[:2])
    queue.hold("a", keys([rows[0], rows[3]]))
    queue.feed(rows[:4])
    assert queue.take("b", 0, workers=1) == [rows[1]]
    assert queue.take("b", 1, workers=1) == [rows[2]]
    assert not len(queue)
    queue.give_back("a")
    assert {*keys(queue.take("c", 0, workers=1)), *keys(queue.take("c", 1, workers=1))} == {
        *keys([rows[0], rows[3]])
    }


def test_a_block_under_way_is_kept(queue: RowQueue):
    """P2 A worker names what it has before a block arrives: the block stays its own."""
    block = queue.take("a", 0, workers=1)
    queue.hold("a", ())
    assert queue.holder(block[0].key) == "a"


def test_what_was_only_named_ends_with_its_name(rows: list[ImageRequest]):
    """P2 An image with an outcome that a worker still named does not keep the run from its end."""
    queue = RowQueue()
    queue.hold("a", keys(rows[:1]))
    assert not queue.is_empty
    queue.hold("a", ())
    assert queue.is_empty


def test_an_image_named_by_two_has_one_holder(queue: RowQueue):
    """P1 The first worker that has an image keeps it."""
    block = queue.take("a", 0, workers=1)
    queue.hold("b", keys(block))
    assert {queue.holder(row.key) for row in block} == {"a"}
