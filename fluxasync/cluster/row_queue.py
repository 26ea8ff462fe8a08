"""The images of a run that no worker has begun, and those that each worker has.

What a worker has comes back to the queue when the worker is lost. A ledger that was restarted has
an empty queue: the rows are fed again from the start, and the workers name what they have.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from .._core.models import ImageRequest

#: images that a worker takes at once
BLOCK = 64


class RowQueue:
    """Hands images out in blocks, each image to one worker at a time."""

    def __init__(self) -> None:
        self._waiting: dict[str, ImageRequest] = {}  # by key, in the order of the list
        #: worker → key → its image; None = named by the worker, and not fed yet
        self._held: dict[str, dict[str, ImageRequest | None]] = {}
        self._last: dict[str, tuple[int, list[ImageRequest]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_empty(self) -> bool:
        """Whether no image waits and no worker has one."""
        return not self._waiting and not any(self._held.values())

    def feed(self, requests: Iterable[ImageRequest]) -> None:
        """Add images; one that a worker has already is only remembered."""
        for request in requests:
            holder = self.holder(request.key)
            if holder is None:
                self._waiting[request.key] = request
            else:
                self._held[holder][request.key] = request

    def take(self, worker: str, number: int, *, workers: int) -> list[ImageRequest]:
        """Return the next block for a worker; the same number again gives the same block. Blocks
        are smaller near the end, so that all workers end together."""
        last, block = self._last.get(worker, (-1, []))
        if number == last:
            return block
        size = min(BLOCK, ceil(len(self._waiting) / (2 * max(1, workers))))
        keys = [key for key, _ in zip(self._waiting, range(size), strict=False)]
        block = [self._waiting.pop(key) for key in keys]
        self._held.setdefault(worker, {}).update({request.key: request for request in block})
        if block:
            self._last[worker] = number, block
        return block

    def holder(self, key: str) -> str | None:
        """Return the worker that has an image."""
        return next((worker for worker, held in self._held.items() if key in held), None)

    def hold(self, worker: str, keys: Iterable[str]) -> None:
        """Note the images that a worker says it has: a ledger that was restarted knows none. What
        was only named counts until the worker names others."""
        before, named = self._held.get(worker, {}), set(keys)
        held = {key: row for key, row in before.items() if row is not None or key in named}
        self._held[worker] = held
        for key in named:
            if self.holder(key) is None:
                held[key] = self._waiting.pop(key, None)

    def end(self, key: str) -> None:
        """Note that an image has its outcome."""
        self._waiting.pop(key, None)
        for held in self._held.values():
            held.pop(key, None)

    def drop(self, worker: str, key: str) -> None:
        """Note that a worker does nothing about an image, which another one has."""
        self._held.get(worker, {}).pop(key, None)

    def give_back(self, worker: str) -> set[str]:
        """Put what a lost worker had first in the queue; return the keys that it had."""
        held = self._held.pop(worker, {})
        self._last.pop(worker, None)
        again = {key: request for key, request in held.items() if request is not None}
        self._waiting = again | self._waiting
        return {*held}
