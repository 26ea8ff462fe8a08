"""A power cut at any instant leaves whole images, and all recorded ones (P4, P6)."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from .children import Children
from .crashfs import PAGE, Disk, losses
from .evidence import recorded
from .recorder import Event

STATES = 1_000  #: in the long form, `make crash`, ten times as many

CONTENT = b"a" * PAGE + b"b" * PAGE
WRITTEN = [Event(kind="create", name="x.part"), Event(kind="write", name="x.part", data=CONTENT)]


def left_by(events: list[Event], *, cuts: int = 60) -> list[dict[str, bytes]]:
    """The folder after each of many cuts at the end of these events."""
    disk = Disk()
    for event in events:
        disk.apply(event)
    return [dict(disk.after_cut(random.Random(seed))) for seed in range(cuts)]


def synced(name: str, began: int) -> Event:
    return Event(kind="fsync", name=name, began=began)


def test_a_cut_keeps_synced_files():
    """A file and its name, both synced, exist after every cut."""
    events = [*WRITTEN, synced("x.part", 2), synced("", 3)]
    assert all(left == {"x.part": CONTENT} for left in left_by(events))


def test_a_cut_can_lose_and_tear_unsynced_files():
    """Without syncs the file may be missing, empty, have one page of two, or be whole."""
    contents = {left.get("x.part") for left in left_by(WRITTEN, cuts=400)}
    assert {None, b"", CONTENT, b"a" * PAGE + bytes(PAGE), bytes(PAGE) + b"b" * PAGE} <= contents


def test_a_sync_of_a_file_says_nothing_of_its_name():
    """The bytes are durable, and no name leads to them."""
    lefts = left_by([*WRITTEN, synced("x.part", 2)])
    assert {} in lefts
    assert {"x.part": CONTENT} in lefts
    assert all(left in ({}, {"x.part": CONTENT}) for left in lefts)


def test_a_sync_does_not_cover_names_given_after_it_began():
    """A name given while the folder was being synced may be missing."""
    link = Event(kind="link", name="x.part", target="x")
    lefts = left_by([*WRITTEN, synced("x.part", 2), link, synced("", 3)])
    assert {"x.part": CONTENT} in lefts


def test_unsynced_names_come_in_any_order():
    """The new name, the old one, both or none may exist."""
    moved = [Event(kind="link", name="x.part", target="x"), Event(kind="unlink", name="x.part")]
    names = {frozenset(left) for left in left_by([*WRITTEN, *moved])}
    assert {frozenset(), frozenset({"x"}), frozenset({"x", "x.part"})} <= names


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, id="in one hop"), pytest.param(True, id="streamed")],
)
def events(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    with Children() as children:
        home = tmp_path_factory.mktemp("recorded")
        return recorded(children, home, streamed=request.param)


def test_a_power_cut_leaves_no_partial_image_and_loses_none(events):
    """P4 P6 F122: in a thousand states of the disk, over every moment of a run."""
    assert list(losses(events, states=STATES, seed=1)) == []


def test_images_are_large_enough_to_be_torn(events):
    """An image of one page would be whole or absent in any case."""
    sizes: Counter[str] = Counter()
    for event in events:
        sizes[event.name] += len(event.data)
    assert sum(size > 2 * PAGE for size in sizes.values()) >= 12
