"""What a benchmark measures: the order's own target, or a practice server started for it.

The practice server is measured when nobody has a key. That is said loudly, because a figure of it
is no figure of the API.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from attrs import evolve

from .._wire.providers import PROVIDERS, Provider, provider_by_name
from ..simulator.child_process import practice_server
from .bench_config import BenchConfig

#: of the practice server's one picture: drawing one for each prompt takes 70 ms of a core, which
#: would be measured instead of the client
_IMAGE_BYTES = 256 * 1024
#: seconds a practice server has to say that it is one
_ASKING = 5.0


@asynccontextmanager
async def targeted(order: BenchConfig, *, say: Callable[[str], None]) -> AsyncIterator[BenchConfig]:
    """The order with its target: a practice server where it is to be simulated, or no key is set.

    `say` hears of the second, before anything is begun. The server ends with the block.
    """
    missing = "" if order.simulate else _missing(order)
    if order.base_url is not None or not (order.simulate or missing):
        yield order
        return
    if missing:
        say(f"NO KEY IS SET: a practice server is measured, not the API; for that set {missing}")
    async with practice_server(image_bytes=_IMAGE_BYTES) as url:
        # a made-up key, so that the real one does not even reach our own practice server
        yield evolve(order, base_url=url, api_key="practice", simulate=True)


def _missing(order: BenchConfig) -> str:
    """The variables that could hold a key where nobody gave one, else "".

    A Provider of one's own is a target that somebody chose: its key is the session's to miss.
    """
    if order.api_key or isinstance(order.provider, Provider):
        return ""
    candidates = (
        PROVIDERS.values() if order.provider is None else [provider_by_name(order.provider)]
    )
    variables = [each.key_variable for each in candidates if each.key_variable is not None]
    is_set = any(os.environ.get(variable, "").strip() for variable in variables)
    return "" if is_set else " or ".join(variables)


async def is_practice(provider: Provider) -> bool:
    """Whether the provider is a practice server of ours; asked of this machine only, without the
    key."""
    if not provider.is_loopback:
        return False
    import aiohttp

    parts = urlsplit(provider.base_url)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASKING)) as client,
            client.get(f"{parts.scheme}://{parts.netloc}/simulator/ledger") as answer,
        ):
            told = await answer.json() if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    return isinstance(told, dict) and "charges" in told and "spent_usd" in told
