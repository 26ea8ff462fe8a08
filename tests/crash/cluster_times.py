"""The ledger's waits in seconds instead of minutes, in whatever process they are imported.

The order of a run imports this module where it is unpickled: in the ledger's own process, which
Ray starts and which takes no other hook.
"""

from __future__ import annotations

from attrs import asdict, frozen

from fluxasync.cluster import cluster_batch, earlier_start, run_ledger
from fluxasync.cluster.messages import LedgerOrder

#: seconds: silence after which a worker is given up, and a run without a driver stops
SILENCE = 5.0

run_ledger.SILENCE = SILENCE
run_ledger.DRIVER_SILENCE = earlier_start.DRIVER_SILENCE = SILENCE
run_ledger.LEFT_BEHIND = 3.0
run_ledger.GATHERING = 10.0


@frozen(kw_only=True)
class HurriedOrder(LedgerOrder):
    """What the ledger is told, and with it the times of this module."""


class HurriedBatch(cluster_batch.ClusterBatch):
    """The batch whose ledger keeps these times."""

    @property
    def _ledger_order(self) -> LedgerOrder:
        return HurriedOrder(**asdict(super()._ledger_order, recurse=False))
