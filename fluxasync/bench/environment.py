"""Where a benchmark ran, so that two reports can be held against each other. Never the key."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .._core.version import __version__
from .._wire.providers import Provider

_PACKAGES = ("aiohttp", "aiofiles", "attrs", "uvloop", "orjson")


def environment(
    provider: Provider, *, simulated: bool, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the versions, the machine, the target and what was asked for, as JSON values."""
    loop = type(asyncio.get_running_loop())
    host = provider.origin[1]
    return {
        "fluxasync": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "loop": f"{loop.__module__.partition('.')[0]}.{loop.__name__}",
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "provider": provider.name,
        "origin": "simulated" if simulated else host,
        "options": dict(options),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
