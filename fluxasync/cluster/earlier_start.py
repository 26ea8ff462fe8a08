"""Waits for the ledger of an earlier start of the same run, whose driver is gone."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from .._core.errors import ConfigError
from .messages import DRIVER_SILENCE, LANDING
from .remote_ledger import Unreachable

if TYPE_CHECKING:
    from .actors import RayConnection

logger = logging.getLogger("fluxasync")

#: seconds after which a ledger whose driver is gone has ended: it may have to be started again by
#: Ray first, and read the record from the bucket
_PATIENCE = LANDING + 300.0


async def wait_for_end(cluster: RayConnection, name: str) -> None:
    """Wait until an earlier driver's ledger of the run has ended: its paid jobs are landing. Raises
    ConfigError if the driver is still there, or the ledger does not end."""
    loop = asyncio.get_running_loop()
    began, is_told = loop.time(), False
    while (earlier := cluster.find_ledger(name)) is not None:
        try:
            is_attended = await earlier("is_attended")
        except Unreachable:
            is_attended = False
        waited = loop.time() - began
        if is_attended and waited > DRIVER_SILENCE + 5:
            raise ConfigError(
                "this run is active on the cluster already: stop the command that started it, or "
                "choose another output"
            )
        if waited > _PATIENCE:
            raise ConfigError(
                f"an earlier start of this run did not end on the cluster in {waited:.0f} s: look "
                "at `ray status`, and start the command again once its machines are back"
            )
        if not is_told:
            logger.warning("an earlier start of this run is ending on the cluster; waiting for it")
            is_told = True
        await asyncio.sleep(1)
