"""The slots of accepted jobs: each is held until a poll sees the job's end, or until a timer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from attrs import frozen

from .._core.errors import ConfigError
from .._requests.catalog import find
from .._requests.pricing import UNKNOWN_MODEL_SECONDS
from .limiter import ACCOUNT, Lease, Limiter

if TYPE_CHECKING:
    from .._core.models import ImageRequest, Job

#: ratio of the p90 duration to the typical one (log-normal, sigma 0.35). An unwatched job keeps
#: its slot that long, because the server still counts it.
P90_SHARE = 1.6
#: job ids that are remembered
RECENT_IDS = 10_000


class RecentIds:
    """The latest job ids."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, job_id: str) -> bool:
        """Remember an id; return whether it is new."""
        is_new = job_id not in self._ids
        self._ids[job_id] = None
        if len(self._ids) > RECENT_IDS:
            self._ids.popitem(last=False)
        return is_new


@frozen
class _SlotHold:
    lease: Lease
    timer: asyncio.TimerHandle
    accepted: float | None  #: loop time; None for a job of an earlier process


class JobSlots:
    """Holds the slot of each accepted job; `release` is the one place that gives it back."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._held: dict[str, _SlotHold] = {}
        self._lost: dict[str, _SlotHold] = {}  # by the key of the request whose answer was lost
        self._recent = RecentIds()

    @property
    def in_flight(self) -> int:
        """Active jobs, as far as polls have shown, and POSTs under way."""
        return self._limiter.in_flight

    def is_new(self, job_id: str) -> bool:
        """Return whether no job of this session had this id, and remember it."""
        return job_id not in self._held and self._recent.add(job_id)

    def keep(self, job: Job, lease: Lease, *, seconds: float, accepted: float | None) -> None:
        """Hold a job's slot, at most for so many seconds."""
        timer = asyncio.get_running_loop().call_later(seconds, self.release, job)
        self._held[job.job_id] = _SlotHold(lease, timer, accepted)

    def keep_lost(self, request: ImageRequest, lease: Lease) -> None:
        """Hold the slot of a submission whose answer was lost, until its job is adopted, or as long
        as the server may be counting it."""
        key, seconds = _key_of(request), longest_seconds(request.model)
        timer = asyncio.get_running_loop().call_later(seconds, self._give_lost, key, lease)
        self._lost[key] = _SlotHold(lease, timer, None)

    def adopt(self, job: Job, *, seconds: float) -> None:
        """Count a job of an earlier process, or one that was found for a lost answer, as the server
        does, until a poll sees its end. The slot of the lost answer becomes the job's."""
        if job.job_id in self._held:
            return
        self._recent.add(job.job_id)
        lost = None if job.request is None else self._lost.pop(_key_of(job.request), None)
        if lost is None:
            lease = self._limiter.count(model_group(job.model or "")[0])
        else:
            lost.timer.cancel()
            lease = lost.lease
        self.keep(job, lease, seconds=seconds, accepted=None)

    def release(self, job: Job) -> None:
        """Give a job's slot back; a second time does nothing."""
        held = self._held.pop(job.job_id, None)
        if held is not None:
            held.timer.cancel()
            self._limiter.give(held.lease)

    def _give_lost(self, key: str, lease: Lease) -> None:
        self._limiter.give(lease)
        if (lost := self._lost.get(key)) is not None and lost.lease is lease:
            del self._lost[key]

    def unwatch(self, job: Job) -> None:
        """Keep an unwatched job's slot as long as the server may still be counting the job."""
        held = self._held.get(job.job_id)
        if held is not None:
            held.timer.cancel()
            self.keep(job, held.lease, seconds=longest_seconds(job.model), accepted=held.accepted)

    def accepted_at(self, job: Job) -> float | None:
        """Return the loop time at which this session's own job was accepted, while its slot is
        held."""
        held = self._held.get(job.job_id)
        return None if held is None else held.accepted


def _key_of(request: ImageRequest) -> str:
    try:
        return request.key
    except ConfigError:  # an image input that was not read: no other image is equal to it
        return ""


def typical_seconds(model: str | None) -> float:
    """Return the catalogue's usual duration of a model, or a guess for an unknown one."""
    known = None if model is None else find(model)
    return UNKNOWN_MODEL_SECONDS if known is None else known.typical_seconds


def longest_seconds(model: str | None) -> float:
    """Return the seconds after which nine of ten jobs of a model have ended."""
    return P90_SHARE * typical_seconds(model)


def model_group(model: str) -> tuple[str, int | None]:
    """Return the group that a model's jobs count for, and the group's own limit if it has one."""
    known = find(model)
    return (ACCOUNT, None) if known is None else (known.group, known.active_limit)
