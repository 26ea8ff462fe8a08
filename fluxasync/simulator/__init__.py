"""Simulator: a server that speaks the vendors' HTTP, injects faults and records every charge.

For trying things out (`fluxasync simulate`, `python -m fluxasync.simulator`, `--simulate`) and for
tests::

    async with Simulator(Scenario(faults=["lost-reply:0.1"])) as sim:
        async with FluxSession(base_url=sim.url) as flux:
            ...
    assert len(sim.charges) == ...

It shares no code with the library, so client and simulator cannot share a mistake about the
protocol. `World` is the same server without sockets, on any clock.
"""

from .callback_sender import CallbackSender
from .charges import Charge
from .dialects import Answer
from .scenario import FAULTS, Fault, Scenario
from .server import Simulator, serve
from .webhook_forms import WebhookForm
from .webhooks import Callback
from .world import World

__all__ = [
    "FAULTS",
    "Answer",
    "Callback",
    "CallbackSender",
    "Charge",
    "Fault",
    "Scenario",
    "Simulator",
    "WebhookForm",
    "World",
    "serve",
]
