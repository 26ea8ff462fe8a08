"""Which single images a report shows: some of every speed, and the slowest."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest

from ..records import ImageRecord

SLOWEST, STRIP = 10, 12


def slowest(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Return the slowest of the measured images, the slowest first."""
    return nlargest(SLOWEST, _measured(records), key=lambda image: image.latency or 0.0)


def strip(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Return measured images of every speed, the fastest first."""
    ranked = sorted(_measured(records), key=lambda image: image.latency or 0.0)
    count = min(len(ranked), STRIP)
    return [ranked[round(place * (len(ranked) - 1) / max(count - 1, 1))] for place in range(count)]


def _measured(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    return [image for image in records if image.latency is not None and not image.warm_up]
