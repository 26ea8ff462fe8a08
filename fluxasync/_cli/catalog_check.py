"""`models --check`: the catalogue against a provider's own OpenAPI document."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._batch.progress.terminal import Terminal
from .._core.config import Timeouts
from .._core.errors import ConfigError
from .._core.protocols import Call
from .._core.strict_json import read_object
from .._core.text import counted, display
from .._requests.catalog.openapi import CatalogDifference, differences
from .._wire.network import Network
from .._wire.providers import BFL, Provider, provider_by_name
from .exit_codes import DONE, FAILED
from .rendering import as_json

#: bytes of a file; BFL's had 49 KB in April 2026
_LARGEST = 2**20
#: characters of a value in the table
_VALUE = 40


async def check(
    terminal: Terminal, file: Path | None, *, provider: str | None, base_url: str | None, json: bool
) -> int:
    """Print the differences; return 0 for none, 3 for some. Needs no key."""
    known = BFL if provider is None else provider_by_name(provider)
    if file is not None and base_url is not None:
        raise ConfigError("--check takes a file or --base-url, not both")
    name = str(file) if file is not None else known.at(base_url).openapi_url()
    if name is None:
        raise ConfigError(
            f"{known.name} publishes no OpenAPI document; name a file, or its address by --base-url"
        )
    body = _read(file) if file is not None else await _fetched(known.at(base_url), name)
    document = read_object(body)
    if document is None:
        raise ConfigError(f"{name}: not JSON, so no OpenAPI document: {_start_of(body)}")
    try:
        found = differences(document, known.name)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    for line in map(_row, found) if json else _table(found):
        terminal.out(line)
    if not json:
        terminal.note(f"{counted(len(found), 'difference')} from {name}")
    return FAILED if found else DONE


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            body = opened.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    if len(body) > _LARGEST:
        raise ConfigError(f"{file}: more than 1 MB, so no OpenAPI document of models")
    return body


async def _fetched(provider: Provider, url: str) -> bytes:
    """Return the document at a URL; no key is sent, because it is public."""
    timeouts = Timeouts()
    async with Network().transport(provider, timeouts, os.environ) as transport:
        reply = await transport.send(
            Call(method="GET", url=url, headers={}, body=None, timeout=timeouts.poll)
        )
    if reply.status != 200:
        raise ConfigError(f"{url}: status {reply.status}: {_start_of(reply.body)}")
    if not reply.is_whole:
        raise ConfigError(f"{url}: more than 1 MB, so no OpenAPI document of models")
    return reply.body


def _start_of(body: bytes) -> str:
    text = display(" ".join(body[:200].decode(errors="replace").split()))
    return repr(text[:80]) if text else "it is empty"


def _row(difference: CatalogDifference) -> str:
    return as_json(
        {
            "model": difference.model,
            "parameter": difference.parameter,
            "what": difference.what,
            "catalogue": difference.catalogue,
            "provider": difference.provider,
        }
    )


def _table(found: list[CatalogDifference]) -> Iterator[str]:
    rows = [("model", "parameter", "what", "catalogue", "provider")] if found else []
    rows += [
        (each.model, each.parameter or "", each.what, _text(each.catalogue), _text(each.provider))
        for each in found
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(5)] if rows else []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _text(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            text = str(value).lower()
        case list():
            text = ", ".join(map(str, value))
        case int() | float():
            text = f"{value:g}" if abs(value) < 2**53 else str(value)
        case _:
            text = str(value)
    return display(text if len(text) <= _VALUE else f"{text[:_VALUE]}…")
