"""The options of a run on several machines."""

from __future__ import annotations

import os
from typing import Annotated

from attrs import frozen
from cyclopts import Group, Parameter


@Parameter(name="*", group=Group("Cluster", sort_key=7))
@frozen(kw_only=True)
class ClusterOptions:
    """Options of a run whose images several machines make. See docs/cluster.md.

    Parameters
    ----------
    ray
        Make the images on a Ray cluster: auto (RAY_ADDRESS, or the cluster of this machine),
        HOST:PORT, ray://HOST:PORT, or local, which starts one on this machine.
    workers
        Processes that make images (default: one for each 150 slots).
    """

    ray: str | None = None
    workers: Annotated[int | None, Parameter()] = None


def start_line(address: str) -> str:
    """Return what the run does next, which takes seconds."""
    if address == "local":
        return "starting Ray on this machine, which takes 5 to 20 s"
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "of this machine"
    return f"connecting to the Ray cluster {address}"
