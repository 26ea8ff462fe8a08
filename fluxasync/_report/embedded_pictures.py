"""Thumbnails inside a page, made by the gallery's decoding process in a temporary folder."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections.abc import Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

from .._core.errors import SinkError
from ..gallery.cards import Card
from ..gallery.pictures import Pictures
from ..gallery.thumbnails import Thumbnails, thumb_of


@frozen(kw_only=True)
class Picture:
    """An image as a page shows it."""

    prompt: str = ""
    time: str = ""  #: how long it took
    source: str = ""  #: the thumbnail as a data URL; "" = none


async def embedded(cards: Iterable[Card], pictures: Pictures) -> dict[str, str]:
    """Return the thumbnails of some cards as data URLs, by key; without pillow there are none.

    An image that is missing or cannot be read or decoded is left out.
    """
    made: dict[str, str] = {}
    if find_spec("PIL") is None:
        return made
    with tempfile.TemporaryDirectory(prefix="fluxasync-") as folder:
        async with Thumbnails(Path(folder), processes=1) as thumbnails:
            await thumbnails.prepare()
            for card in cards:
                try:
                    image = await _thumbnail(card, pictures, thumbnails)
                except SinkError:  # of a bucket: the figures are worth a page without it
                    continue
                if image is not None:
                    made[card.key] = f"data:image/webp;base64,{b64encode(image).decode()}"
    return made


async def _thumbnail(card: Card, pictures: Pictures, thumbnails: Thumbnails) -> bytes | None:
    identity = await pictures.identity(card)
    if identity is None:
        return None
    thumb = thumb_of(identity)
    if await thumbnails.ensure(thumb, partial(pictures.source, card)):
        return None
    return await thumbnails.image(thumb)
