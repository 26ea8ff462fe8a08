"""What the first pass found of each row, kept for the second in temporary files.

One byte a row: blank, bad, or one image of which the ledger knew this or that. Only rows of several
images, of repeated contents and of image inputs have more: 20 bytes and 5 an image. So the second
pass goes over a block of settled rows with two searches for a byte, without reading what they say.
Knows nothing of files of prompts; its own files are in memory up to 1 MB.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Container, Iterator, Sequence
from tempfile import SpooledTemporaryFile

from attrs import evolve, frozen

from ..._core.errors import ConfigError
from ..._core.models import ImageRequest
from .numbering import no_room
from .plan import BadRow, ExpandedRow, Numbers, images_of, requests_of
from .row_reader import Entry, image_inputs

_BLANK, _BAD, _DETAILED = 0, 1, 2
_FIRST = 3  #: code of the first state; a row of this code or above is one image that came first

_SINGLES = bytes(_FIRST) + b"\1" * (256 - _FIRST)  #: translates a code to its images, if single

_HEAD = struct.Struct("<16sI")  #: digest of the content where image inputs may change; images
_UNCHECKED = bytes(16)

_IN_MEMORY = 2**20  #: bytes of each file


@frozen(kw_only=True)
class Mark:
    """A row that has something to do."""

    row: int  #: its place in the source, from 0, blank ones included
    index: int  #: of its first image
    occurrences: Sequence[int] = ()  #: of each image; none for a bad row
    wanted: Sequence[bool] = ()  #: whether each image is to do
    content: bytes = _UNCHECKED

    def images(self, where: str, row: Entry) -> Iterator[ImageRequest | BadRow]:
        """Yield the images of the row, read again, that are to do."""
        if isinstance(row, BadRow):
            yield row
        elif row is not None:
            if self.content not in (_UNCHECKED, _digest(row)):
                error = ConfigError("an image input changed since it was checked; start again")
                yield BadRow(where=where, error=error)
                return
            numbers = zip(images_of(row), self.occurrences, self.wanted, strict=False)  # a limit
            for index, (image, occurrence, wanted) in enumerate(numbers, start=self.index):
                if wanted:
                    yield evolve(image, index=index, occurrence=occurrence)


class Marks:
    """Written row by row in the first pass, read by `ToDo` in the second."""

    def __init__(self) -> None:
        self._states: dict[str | None, int] = {None: _FIRST}
        self._waiting = bytearray()  #: codes on their way to the file
        self._codes = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 — closed by `close`
        self._details = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 — closed by `close`

    def add(self, entry: Entry, numbers: Numbers, states: Sequence[str | None]) -> None:
        """Note a row and what is known of each of its images."""
        if entry is None or isinstance(entry, BadRow):
            code = _BLANK if entry is None else _BAD
        else:
            code = self._wish(entry, numbers, states)
        self._waiting.append(code)
        if len(self._waiting) == _IN_MEMORY // 16:
            self._flush()

    def _wish(
        self, wish: ImageRequest | ExpandedRow, numbers: Numbers, states: Sequence[str | None]
    ) -> int:
        inputs = image_inputs(wish)
        if len(numbers) == 1 and not numbers[0][1] and not inputs:
            return self._code(states[0])
        codes = bytes(map(self._code, states))
        occurrences = array("I", (occurrence for _, occurrence in numbers))
        head = _HEAD.pack(_digest(wish) if inputs else _UNCHECKED, len(codes))
        self._write(self._details, head + codes + occurrences.tobytes())
        return _DETAILED

    def close(self) -> None:
        self._codes.close()
        self._details.close()

    def to_do(self, skip: Container[str]) -> ToDo:
        """Start to read, leaving out images whose state is in `skip`; nothing is added then."""
        self._flush()
        settled = {code for word, code in self._states.items() if word is not None and word in skip}
        return ToDo(self._codes, self._details, settled)

    def _code(self, state: str | None) -> int:
        return self._states.setdefault(state, _FIRST + len(self._states))

    def _flush(self) -> None:
        self._write(self._codes, self._waiting)
        self._waiting.clear()

    @staticmethod
    def _write(file: SpooledTemporaryFile[bytes], content: bytes | bytearray) -> None:
        try:
            file.write(content)
        except OSError as exc:
            raise no_room(exc) from exc


class ToDo:
    """Finds the rows that have something to do, in order."""

    def __init__(
        self,
        codes: SpooledTemporaryFile[bytes],
        details: SpooledTemporaryFile[bytes],
        settled: set[int],
    ) -> None:
        self.images = 0  #: in the rows passed so far, whatever their state
        self._codes, self._details = codes, details
        self._settled = settled
        self._wanted = bytes(code != _BLANK and code not in settled for code in range(256))
        self._row = 0
        self._detail = 0  #: offset

    def rows(self, count: int) -> Iterator[Mark]:
        """Yield the marks of those among the next `count` rows; run to its end before the next."""
        self._codes.seek(self._row)  # each reader has its own place
        codes = self._codes.read(count)
        wanted, singles = codes.translate(self._wanted), codes.translate(_SINGLES)
        begun, start = self._row, 0
        while (place := wanted.find(1, start)) >= 0:
            self.images += singles.count(1, start, place)
            mark = self._mark(begun + place, codes[place])
            if mark is not None:
                yield mark
            start = place + 1
        self.images += singles.count(1, start)
        self._row = begun + len(codes)

    def _mark(self, row: int, code: int) -> Mark | None:
        index = self.images
        if code == _BAD:
            return Mark(row=row, index=index)
        if code != _DETAILED:
            self.images += 1
            return Mark(row=row, index=index, occurrences=(0,), wanted=(True,))
        self._details.seek(self._detail)
        content, images = _HEAD.unpack(self._details.read(_HEAD.size))
        wanted = [code not in self._settled for code in self._details.read(images)]
        occurrences = array("I")
        occurrences.frombytes(self._details.read(images * occurrences.itemsize))
        self._detail = self._details.tell()
        self.images += images
        if not any(wanted):
            return None
        return Mark(row=row, index=index, occurrences=occurrences, wanted=wanted, content=content)


def _digest(wish: ImageRequest | ExpandedRow) -> bytes:
    """Return what tells whether the row's image inputs are those that were checked."""
    if isinstance(wish, ImageRequest):
        return bytes.fromhex(wish.content_key[:32])
    keys = "".join(request.content_key for request in requests_of(wish))
    return hashlib.sha256(keys.encode()).digest()[:16]
