"""Prompt lists: open one from `Prompts` arguments, check it, read it to its end."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from fluxasync import BadRow, ConfigError, ImageRequest, Plan, Prompts
from fluxasync._requests.sources import Source, open_source


def open_list(given: Any, *, is_local: bool = False, **options: Any) -> Source:
    return open_source(Prompts(given, **options), is_local=is_local)


async def everything(source: Source) -> list[ImageRequest | BadRow]:
    """Read a source to its end, and close it."""
    try:
        async with aclosing(source.requests()) as requests:
            return [request async for request in requests]
    finally:
        await source.aclose()


async def rows_of(given: Any, **options: Any) -> list[ImageRequest | BadRow]:
    return await everything(open_list(given, **options))


async def requests_of(given: Any, **options: Any) -> list[ImageRequest]:
    rows = await rows_of(given, **options)
    assert not [str(row) for row in rows if isinstance(row, BadRow)]
    return [row for row in rows if isinstance(row, ImageRequest)]


async def plan_of(given: Any, **options: Any) -> Plan:
    source = open_list(given, **options)
    try:
        return await source.check()
    finally:
        await source.aclose()


async def complaint_of(given: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        await plan_of(given, **options)
    return str(caught.value)


def saved(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
