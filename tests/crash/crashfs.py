"""A model of a folder on a disk that loses unsynced data, for every possible power cut.

Its input is what a real run did (`recorder`). At a cut, a file's unsynced 4 KiB pages may be there,
be zeros or be missing with the file's length, and unsynced names may be there, be missing, or have
been written in another order. A file's sync does not cover its name, nor a folder's sync its files.
Images only: SQLite is trusted to keep a commit that it synced.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from attrs import define, field, frozen

from .recorder import Event

PAGE = 4096

#: chances that an unsynced change reached the disk: none, some, or all but a few
_LUCK = (0.0, 0.5, 0.95)


@define
class _File:
    """A file's bytes: the durable ones, and the writes after them."""

    durable: bytes = b""
    pending: list[tuple[int, int, bytes]] = field(factory=list)  #: when, offset, data

    def sync(self, began: int) -> None:
        for when, offset, written in self.pending:
            if when < began:
                self.durable = _laid(self.durable, offset, written)
        self.pending = [write for write in self.pending if write[0] >= began]

    def after_cut(self, rng: random.Random) -> bytes:
        """Return the bytes that a power cut leaves."""
        whole = self.durable
        for _, offset, written in self.pending:
            whole = _laid(whole, offset, written)
        if not self.pending:
            return whole
        luck = rng.choice(_LUCK)
        length = len(whole) if rng.random() < luck else len(self.durable)
        pages = []
        for start in range(0, length, PAGE):
            kept = whole if rng.random() < luck else self.durable
            pages.append(kept[start : start + PAGE].ljust(PAGE, b"\0"))
        return b"".join(pages)[:length]


@define
class Disk:
    """One folder as the operating system sees it, and as the disk does."""

    _durable: dict[str, _File] = field(factory=dict)
    _pending: list[tuple[int, str, _File | None]] = field(factory=list)  #: None = unlinked
    _live: dict[str, _File] = field(factory=dict)
    _clock: int = 0

    def apply(self, event: Event) -> None:
        match event.kind:
            case "create":
                self._name(event.name, _File())
            case "write":
                file = self._live[event.name]
                file.pending.append((self._clock, event.offset, event.data))
            case "fsync" if not event.name:
                self._sync_names(event.began)
            case "fsync":
                self._live[event.name].sync(event.began)
            case "link":
                self._name(event.target, self._live[event.name])
            case "rename":
                self._name(event.target, self._live[event.name])
                self._name(event.name, None)
            case "unlink" if event.name in self._live:
                self._name(event.name, None)
        self._clock += 1

    def after_cut(self, rng: random.Random) -> Mapping[str, bytes]:
        """Return the files that a power cut leaves, by name."""
        luck = rng.choice(_LUCK)
        happened = [change for change in self._pending if rng.random() < luck]
        rng.shuffle(happened)
        names = dict(self._durable)
        for _, name, file in happened:
            _rename(names, name, file)
        return {name: file.after_cut(rng) for name, file in names.items()}

    def _name(self, name: str, file: _File | None) -> None:
        self._pending.append((self._clock, name, file))
        _rename(self._live, name, file)

    def _sync_names(self, began: int) -> None:
        for when, name, file in self._pending:
            if when < began:
                _rename(self._durable, name, file)
        self._pending = [change for change in self._pending if change[0] >= began]


@frozen(kw_only=True)
class Loss:
    """A loss that must not happen."""

    cut: int  #: events before it
    name: str
    what: str


def losses(events: Sequence[Event], *, states: int, seed: int) -> Iterator[Loss]:
    """Cut the power `states` times, evenly over a run's events, and yield what was lost.

    Under a final name there is a whole image or none; an image whose done commit is durable is
    there, whole.
    """
    rng = random.Random(seed)
    images = _images(events)
    disk, done = Disk(), set[str]()
    for number, event in enumerate(events, start=1):
        disk.apply(event)
        if event.kind == "done":
            done.add(event.target)
        share = states * number // len(events) - states * (number - 1) // len(events)
        for _ in range(share):
            yield from _judged(number, disk.after_cut(rng), images, done)


def _judged(
    cut: int, left: Mapping[str, bytes], images: Mapping[str, bytes], done: set[str]
) -> Iterator[Loss]:
    for name, content in left.items():
        if name in images and content != images[name]:
            yield Loss(cut=cut, name=name, what="partial under its final name")
    for name in done - left.keys():
        yield Loss(cut=cut, name=name, what="recorded as done and gone")


def _images(events: Sequence[Event]) -> Mapping[str, bytes]:
    """Return the images as the run left them, by the names in the journal."""
    live: dict[str, _File] = {}
    for event in events:
        match event.kind:
            case "create":
                live[event.name] = _File()
            case "write":
                file = live[event.name]
                file.durable = _laid(file.durable, event.offset, event.data)
            case "link" | "rename":
                live[event.target] = live[event.name]
    return {event.target: live[event.target].durable for event in events if event.kind == "done"}


def _laid(content: bytes, offset: int, written: bytes) -> bytes:
    """Return a file's bytes with others written over them."""
    end = offset + len(written)
    return content[:offset].ljust(offset, b"\0") + written + content[end:]


def _rename(names: dict[str, _File], name: str, file: _File | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file
