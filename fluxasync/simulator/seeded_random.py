"""Chance that can be repeated: every roll is a pure function of the seed and the roll's name.

No generator state is kept, so one job's luck does not depend on how many dice other jobs rolled
before it. Knows nothing of jobs or faults. A hash is used because seeding a `random.Random` for
every roll costs ten times as much.
"""

from __future__ import annotations

from hashlib import blake2b
from statistics import NormalDist

_NORMAL = NormalDist()


class SeededRandom:
    """Named rolls of one seed."""

    def __init__(self, seed: object) -> None:
        self._seed = str(seed)

    def __repr__(self) -> str:
        return f"<Dice {self._seed}>"

    def roll(self, *name: object) -> float:
        """A number in [0, 1), the same whenever the name is the same."""
        return int.from_bytes(self._digest(name, 8)[:7]) / 2**56

    def whole(self, *name: object, below: int) -> int:
        """A whole number in [0, below)."""
        return int.from_bytes(self._digest(name, 8)) % below

    def normal(self, *name: object) -> float:
        """A number from the standard normal distribution."""
        return _NORMAL.inv_cdf(max(self.roll(*name), 2**-56))

    def hex(self, *name: object, digits: int) -> str:
        """So many hexadecimal digits, at most 64."""
        return self._digest(name, (digits + 1) // 2).hex()[:digits]

    def _digest(self, name: tuple[object, ...], size: int) -> bytes:
        text = "\x1f".join((self._seed, *map(str, name)))
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
