"""Finds rows whose images get a file name that an earlier row gives, in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from ..._core.errors import cut
from ..._core.models import ImageRequest
from .numbering import ROOM, Seen


class RepeatedNames:
    """Counts these rows, as far as there is room to remember names. `name_of` returns a request's
    file name without its extension; None = no two images can have the same.

    Images of one row share a name by the user's choice, and are not counted.
    """

    def __init__(self, name_of: Callable[[ImageRequest], str] | None, *, room: int = ROOM) -> None:
        self._name_of = name_of
        self._seen = None if name_of is None else Seen(room)
        self._rows = 0
        self._first = ""  #: the first of them, and its name

    def add(self, where: str, requests: Iterable[ImageRequest]) -> None:
        """Count a row."""
        if self._name_of is None or self._seen is None:
            return
        repeated = ""
        for name in dict.fromkeys(map(self._name_of, requests)):
            if self._seen.add(hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()):
                repeated = repeated or name
        if repeated:
            self._rows += 1
            self._first = self._first or f"{where}: {cut(repr(repeated))}"

    def notes(self) -> Iterator[str]:
        """Yield a sentence, if there are any."""
        if self._rows:
            rows = "1 row gives" if self._rows == 1 else f"{self._rows:,} rows give"
            yield (
                f"{rows} a file name that an earlier row gave ({self._first}); the images get -2, "
                "-3, … in the order in which they are saved. With {index} in the name each has its "
                "own"
            )

    def close(self) -> None:
        if self._seen is not None:
            self._seen.close()
