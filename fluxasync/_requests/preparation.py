"""`prepare()`: numbers a prompt list once, so that parts of it can run anywhere."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from attrs import evolve

from .._core.errors import ConfigError
from .._core.models import ImageInput, ImageRequest
from .image_inputs import with_inputs
from .sources import Prompts, open_source
from .sources.plan import metadata_message

logger = logging.getLogger("fluxasync")


async def prepare(prompts: Prompts | Any) -> AsyncGenerator[ImageRequest, None]:
    """Number a prompt list once: yield one ImageRequest for each image, as a run would make it.

    `prompts` is Prompts, or a bare path or iterable. Each request has its index, its occurrence
    and the digests of its image inputs, so its `key` is the one of a run of the whole list. Send
    the requests anywhere, by pickle or `to_dict`, and run any part of them, in any order:
    `Batch(flux, Prompts(part, prepared=True), …)`. Spends nothing and needs no session.

    A file or list is checked whole before the first request. Raises ConfigError that names the
    first bad rows, JournalError when the temporary folder is full. `skip_bad` leaves bad rows out
    and logs their number.
    """
    given = prompts if isinstance(prompts, Prompts) else Prompts(prompts)
    source = open_source(given)
    first_bad, bad = "", 0
    try:
        plan = await source.check()
        if plan.unknown_keys:
            logger.warning("%s", metadata_message(plan.unknown_keys))
        async with aclosing(source.requests()) as rows:
            async for row in rows:
                if isinstance(row, ImageRequest):
                    yield anywhere(row)
                    continue
                if not given.skip_bad:
                    raise ConfigError(str(row))
                first_bad, bad = first_bad or str(row), bad + 1
    finally:
        await source.aclose()
    if bad:
        logger.warning("bad rows left out: %d; the first is %s", bad, first_bad)


def anywhere(request: ImageRequest) -> ImageRequest:
    """Return a request whose image files have absolute paths, for a process in another folder."""
    return with_inputs(request, _absolute)


def _absolute(name: str, image: ImageInput) -> ImageInput:
    return image if image.path is None else evolve(image, path=image.path.absolute())
