"""A run is started again while the ledger of its earlier start is on the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import define

from fluxasync import ConfigError
from fluxasync.cluster import earlier_start
from fluxasync.cluster.earlier_start import wait_for_end
from fluxasync.cluster.remote_ledger import Unreachable


@define
class Cluster:
    """A cluster with a ledger that answers in its own way."""

    answer: Callable[[], bool]
    looks: int = 2  #: after so many the ledger is gone

    def find_ledger(self, _name: str) -> Callable[..., Awaitable[bool]] | None:
        self.looks -= 1
        return self._ask if self.looks >= 0 else None

    async def _ask(self, _method: str) -> bool:
        return self.answer()


def lost() -> bool:
    raise Unreachable("its machine is gone")


def wait(cluster: Any) -> None:
    asyncio.run(wait_for_end(cluster, "ledger"))


@pytest.mark.parametrize("answer", [lambda: False, lambda: True, lost])
def test_a_ledger_that_ends_is_waited_for(answer: Callable[[], bool]):
    """P16 The earlier driver is gone, perhaps a moment ago: the run is continued."""
    cluster = Cluster(answer)
    wait(cluster)
    assert cluster.looks < 0


def test_a_driver_that_is_there_is_not_disturbed(monkeypatch: pytest.MonkeyPatch):
    """P16 Two drivers do not share a run."""
    monkeypatch.setattr(earlier_start, "DRIVER_SILENCE", -6.0)
    with pytest.raises(ConfigError, match="active on the cluster already"):
        wait(Cluster(lambda: True))


def test_a_ledger_that_never_ends_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch):
    """P16 A ledger that Ray can start nowhere ends the command with a line that says so."""
    monkeypatch.setattr(earlier_start, "_PATIENCE", -1.0)
    with pytest.raises(ConfigError, match="did not end on the cluster"):
        wait(Cluster(lost))
