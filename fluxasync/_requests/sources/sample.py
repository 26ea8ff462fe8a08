"""Which rows of a list are in a sample: the same ones in every run.

Rows are ranked by a digest of what they say and the sample's seed, and the lowest are taken. So a
list that was shuffled, or grew at its end, keeps nearly all of its sample, and a run that carries
on makes the images that it began with. Memory grows with the sample, not with the list.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable

from attrs import frozen

from ..._core.errors import ConfigError


@frozen
class Sample:
    """How many rows to take, and from which draw of the lot."""

    rows: int
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        for name, value in (("sample", self.rows), ("sample_seed", self.seed)):
            if type(value) is not int:
                raise ConfigError(f"{name}: a whole number, not {type(value).__name__}")
        if self.rows < 1:
            raise ConfigError(f"sample={self.rows}: 1 or more rows")


class Draw:
    """Takes the rows one by one, and keeps the places of those that are in the sample."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._key = hashlib.blake2b(str(sample.seed).encode(), digest_size=16).digest()
        self._kept: list[tuple[int, int]] = []  #: the highest rank first, as negative numbers
        self._place = 0

    def take(self, contents: Iterable[bytes]) -> None:
        """Take the next rows; b"" is a blank one, which is in no sample."""
        for place, content in enumerate(contents, start=self._place):
            self._place = place + 1
            if not content:
                continue
            digest = hashlib.blake2b(content, digest_size=8, key=self._key).digest()
            ranked = (-int.from_bytes(digest), -place)
            if len(self._kept) < self._sample.rows:
                heapq.heappush(self._kept, ranked)
            elif ranked > self._kept[0]:
                heapq.heapreplace(self._kept, ranked)

    @property
    def places(self) -> frozenset[int]:
        """The places of the sample's rows, counted from 0 over all rows."""
        return frozenset(-place for _, place in self._kept)
