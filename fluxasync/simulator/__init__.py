"""A practice server that speaks the vendors' wire, with faults on order and a ledger of charges.

For trying things out (`fluxasync simulate`, `--simulate`) and for tests::

    async with Simulator(Scenario(faults=["lost-reply:0.1"])) as sim:
        async with FluxSession(base_url=sim.url) as flux:
            ...
    assert len(sim.charges) == ...

Nothing of the library is imported here: the wire is written down a second time, so that client
and simulator cannot share a mistake. `World` is the same server without sockets, on any clock.
"""

from .answers import Answer
from .charges import Charge
from .scenario import FAULTS, Fault, Scenario
from .server import Simulator, serve
from .world import World

__all__ = ["FAULTS", "Answer", "Charge", "Fault", "Scenario", "Simulator", "World", "serve"]
