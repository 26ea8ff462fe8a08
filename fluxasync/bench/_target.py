"""What a benchmark measures: the order's own target, or a practice server started for it.

The practice server is measured when nobody has a key. That is said loudly, because a figure of it
is no figure of the API.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from attrs import evolve

from .._practice import practice_server
from .._providers import PROVIDERS, Provider, known
from ._order import Order

#: of the practice server's one picture: drawing one for each prompt takes 70 ms of a core, which
#: would be measured instead of the client
_IMAGE_BYTES = 256 * 1024


@asynccontextmanager
async def targeted(order: Order, *, say: Callable[[str], None]) -> AsyncIterator[Order]:
    """The order with its target: a practice server where it is to be simulated, or no key is set.

    `say` hears of the second, before anything is begun. The server ends with the block.
    """
    if order.base_url is not None or not (order.simulate or _lacks_key(order)):
        yield order
        return
    if not order.simulate:
        say("NO KEY IS SET: a practice server is measured, not the API (as --simulate)")
    async with practice_server(image_bytes=_IMAGE_BYTES) as url:
        # a made-up key, so that the real one does not even reach our own practice server
        yield evolve(order, base_url=url, api_key="practice", simulate=True)


def _lacks_key(order: Order) -> bool:
    """Whether nobody gave a key; a Provider of one's own is a target that somebody chose."""
    if order.api_key or isinstance(order.provider, Provider):
        return False
    candidates = PROVIDERS.values() if order.provider is None else [known(order.provider)]
    return not any(os.environ.get(each.key_variable or "", "").strip() for each in candidates)
