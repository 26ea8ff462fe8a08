"""The counts of a checked source, and the numbering of its images.

A row with `n` 4 is four images.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat

from attrs import evolve, field, frozen

from ..._core.errors import ConfigError
from ..._core.models import ImageRequest, placed
from ..._core.prices import NO_PRICES, Prices
from ..catalog import find
from ..copies import expand_copies
from ..estimate import Estimator
from .nesting import ENVELOPE_NAMES
from .numbering import Occurrences

#: bad rows that are kept, and different complaints that are shown
SHOWN_BAD_ROWS = 10
#: bad rows after which a check stops that will refuse the list anyway
_MOST_BAD = 10_000
#: runs of rows that one complaint names
_SHOWN_RANGES = 5

#: different names that a plan lists
SHOWN_NAMES = 20

#: state of an image that is submitted once more: it is to do, as if it were unknown
AGAIN = "again"
#: state of a saved image
DONE = "done"

#: hex keys → the state that earlier runs left of each image, for example "done" or "submitted";
#: "again" = to be submitted once more, None = unknown. Called in the source's own thread with up to
#: 500 keys
Lookup = Callable[[Sequence[str]], Sequence[str | None]]

#: state of a saved image whose row has other extras now: it is handed out, to have them recorded
EDITED = "edited"

#: a row's images, each as content key, occurrence and index in the run
Numbers = Sequence[tuple[str, int, int]]


@frozen(kw_only=True)
class BadRow:
    """A row that is no request, and why."""

    where: str  #: "prompts.jsonl line 17"
    error: ConfigError

    def __str__(self) -> str:
        return f"{self.where}: {self.error}"


@frozen(kw_only=True)
class Plan:
    """The counts of a source, made before anything is spent."""

    images: int | None  #: None for a stream, which is read only once
    rows: int = 0  #: that are not blank, bad ones included
    blank: int = 0
    bad: int = 0
    first_bad: tuple[BadRow, ...] = ()  #: up to 10
    unknown_keys: tuple[str, ...] = ()  #: names that only the metadata will carry; the first 20
    #: names sent unchecked, to models that the catalogue lacks; the first 20
    unchecked_keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()  #: the first 20 seen
    unknown_models: tuple[str, ...] = ()  #: that the catalogue lacks; the first 20
    known: Mapping[str, int] = field(factory=dict)  #: images by what earlier runs left of them
    notes: tuple[str, ...] = ()  #: remarks about how the source was read, for people
    to_do: int | None = None  #: images that are to be submitted; None for a stream
    edited: int = 0  #: saved images whose metadata changes; their rows have other extras now
    estimator: Estimator = field(factory=Estimator, repr=False)  #: of the images to do
    again: Estimator = field(factory=Estimator, repr=False)  #: of those among them not new


@frozen
class ExpandedRow:
    """The requests of one row, each with its own `n`."""

    requests: tuple[ImageRequest, ...]


def requests_of(parsed: ImageRequest | ExpandedRow) -> tuple[ImageRequest, ...]:
    """Return the requests of a row, in order."""
    return parsed.requests if isinstance(parsed, ExpandedRow) else (parsed,)


def images_of(parsed: ImageRequest | ExpandedRow) -> Iterator[ImageRequest]:
    """Yield every image of a row, in order."""
    return chain.from_iterable(map(expand_copies, requests_of(parsed)))


class FirstNames:
    """The first few different names, in the order they came."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}

    def add(self, name: str) -> None:
        if len(self._seen) < SHOWN_NAMES:
            self._seen[name] = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen)


def metadata_message(names: Sequence[str]) -> str:
    """Return the line about keys that a list has and that no provider gets."""
    shown = [name if len(name) <= 40 else f"{name[:40]}…" for name in names]
    line = f"kept as metadata, not sent: {', '.join(shown)}"
    wishes = [name for name in shown if name not in ENVELOPE_NAMES]
    if not wishes:
        return line
    return f"{line} (to send one: --map {shlex.quote(f'extra_body.{wishes[0]}={wishes[0]}')})"


class Complaints:
    """The errors of bad rows, each once with its places: "p.csv rows 2–11, 14: …"."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], _Places] = {}
        self._rows = 0  #: of complaints beyond those that are shown

    def add(self, row: BadRow) -> None:
        stem, _, number = row.where.rpartition(" ")
        if not number.isdecimal():  # a file of a folder
            stem, number = "", ""
        group = self._groups.get((stem, text := str(row.error)))
        if group is None:
            if len(self._groups) == SHOWN_BAD_ROWS:
                self._rows += 1
                return
            group = self._groups[stem, text] = _Places(row.where, stem)
        group.add(int(number) if number else None)

    def __str__(self) -> str:
        lines = [f"{places}: {text}" for (_, text), places in self._groups.items()]
        return "\n".join([*lines, f"and {self._rows:,} more"] if self._rows else lines)


class _Places:
    """The places of one complaint, neighbours as a range."""

    def __init__(self, first: str, stem: str) -> None:
        self._first, self._stem = first, stem
        self._ranges: list[list[int]] = []
        self._rows = 0
        self._left_out = 0

    def add(self, number: int | None) -> None:
        self._rows += 1
        if number is None:
            self._left_out += self._rows > 1
        elif self._ranges and not self._left_out and self._ranges[-1][1] == number - 1:
            self._ranges[-1][1] = number
        elif len(self._ranges) < _SHOWN_RANGES:
            self._ranges.append([number, number])
        else:
            self._left_out += 1

    def __str__(self) -> str:
        more = f" and {self._left_out:,} more" if self._left_out else ""
        if self._rows == 1 or not self._ranges:
            return self._first + more
        shown = (f"{low}" if low == high else f"{low}–{high}" for low, high in self._ranges)
        return f"{self._stem}s {', '.join(shown)}{more}"


class PlanCounts:
    """Counts entries into a Plan, up to `limit` images."""

    def __init__(
        self,
        *,
        limit: int | None,
        unknown_keys: FirstNames,
        unchecked_keys: FirstNames,
        skip_bad: bool = False,
        prices: Prices = NO_PRICES,
    ) -> None:
        self.rows = 0
        self.images = 0
        self._skip_bad = skip_bad
        self._limit = limit
        self._blank = 0
        self._bad = 0
        self._first_bad: list[BadRow] = []
        self._complaints = Complaints()
        self._unknown_keys = unknown_keys
        self._unchecked_keys = unchecked_keys
        self._known: dict[str, int] = {}
        self._edited = 0
        self._models = FirstNames()
        self._unknown_models = FirstNames()
        self._estimator = Estimator(prices)
        self._again = Estimator(prices)

    @property
    def is_hopeless(self) -> bool:
        """Whether so many rows are bad that the rest need not be read."""
        return self._bad >= _MOST_BAD and not self._skip_bad

    @property
    def read(self) -> int:
        """The rows so far, blank ones included, for a progress line."""
        return self.rows + self._blank

    def take(
        self, entry: ImageRequest | ExpandedRow | BadRow | None, states: Sequence[str | None] = ()
    ) -> None:
        """Count a row: one or more requests, a bad one, or None for a blank one.

        `states` are those of the requests' images, in order.
        """
        if entry is None:
            self._blank += 1
            return
        self.rows += 1
        if isinstance(entry, BadRow):
            self._bad += 1
            if len(self._first_bad) < SHOWN_BAD_ROWS:
                self._first_bad.append(entry)
            self._complaints.add(entry)
            return
        if isinstance(entry, ImageRequest):
            self._request(entry, states)
            return
        for request in entry.requests:
            images = self._request(request, states[: request.n])
            states = states[images:]

    def pass_over(self, rows: int) -> None:
        """Count rows that are not in the sample as blank ones."""
        self._blank += rows

    def _request(self, request: ImageRequest, states: Sequence[str | None]) -> int:
        """Count a request and return its images up to the limit."""
        self._models.add(request.model)
        if find(request.model) is None:
            self._unknown_models.add(request.model)
        images = request.n if self._limit is None else min(request.n, self._limit - self.images)
        self.images += images
        self._estimate(self._estimator, request, images - self._count_known(states))
        if again := states.count(AGAIN):
            self._estimate(self._again, request, again)
        return images

    def _count_known(self, states: Sequence[str | None]) -> int:
        known = 0
        for state in states:
            if state == EDITED:
                self._edited += 1
                state = DONE
            if state is not None and state != AGAIN:
                self._known[state] = self._known.get(state, 0) + 1
                known += 1
        return known

    @staticmethod
    def _estimate(estimator: Estimator, request: ImageRequest, images: int) -> None:
        if images:
            estimator.add(request if images == request.n else evolve(request, n=images))

    def plan(self, *, notes: Iterable[str] = ()) -> Plan:
        """Return what was counted. Raises ConfigError for bad rows that are not to be skipped."""
        if self._bad and not self._skip_bad:
            stopped = f"\nnot read further after {self._bad:,} bad rows" * self.is_hopeless
            raise ConfigError(f"{self._complaints}{stopped}")
        return Plan(
            images=self.images,
            rows=self.rows,
            blank=self._blank,
            bad=self._bad,
            first_bad=tuple(self._first_bad),
            unknown_keys=tuple(self._unknown_keys),
            unchecked_keys=tuple(self._unchecked_keys),
            models=tuple(self._models),
            unknown_models=tuple(self._unknown_models),
            known=dict(self._known),
            edited=self._edited,
            notes=tuple(notes),
            to_do=self.images - sum(self._known.values()),
            estimator=self._estimator,
            again=self._again,
        )


class Numbering:
    """Gives each image its place in the run and its occurrence, up to `limit` images.

    Belongs to the thread that made it, which also closes it.
    """

    def __init__(self, *, limit: int | None) -> None:
        self._limit = limit
        self._index = 0
        self._occurrences = Occurrences()

    @property
    def full(self) -> bool:
        return self._index == self._limit

    def numbers(self, parsed: ImageRequest | ExpandedRow) -> Numbers:
        """Return content key, occurrence and index of each of the row's images."""
        count, first = self._occurrences.count, self._index
        if self._limit is None and isinstance(parsed, ImageRequest) and parsed.n == 1:
            # nearly every row there is: the general way takes twice as long
            self._index += 1
            key = parsed.content_key
            return ((key, count(key), first),)
        if isinstance(parsed, ImageRequest):
            keys = _content_keys(parsed)
        else:
            keys = chain.from_iterable(map(_content_keys, parsed.requests))
        if self._limit is not None:
            keys = islice(keys, self._limit - first)
        numbers = [(key, count(key), index) for index, key in enumerate(keys, start=first)]
        self._index += len(numbers)
        return numbers

    def images(self, parsed: ImageRequest | ExpandedRow) -> Iterator[ImageRequest]:
        """Yield the row's images, with index and occurrence set."""
        numbers = self.numbers(parsed)
        images = zip(numbers, images_of(parsed), strict=False)  # a limit leaves some out
        for (_, occurrence, index), image in images:
            yield placed(image, index=index, occurrence=occurrence)

    def close(self) -> None:
        self._occurrences.close()


class GivenNumbers(Numbering):
    """Takes index and occurrence of each prepared request as they are, and each key once."""

    def numbers(self, parsed: ImageRequest | ExpandedRow) -> Numbers:
        """Return the request's own numbers. Raises ConfigError for a key that came before: both
        would be the same image, and it would be paid once or twice depending on the ledger."""
        [request] = requests_of(parsed)
        if self._occurrences.count(request.key):
            raise ConfigError(
                "an earlier prepared request has the same key (equal content and occurrence); "
                "remove one, or number the whole list once: fluxasync.prepare()"
            )
        self._index += 1
        return ((request.content_key, request.occurrence, request.index),)


def _content_keys(request: ImageRequest) -> Iterable[str]:
    """Return the content key of each image; copies without a seed are alike."""
    if request.n == 1:
        return (request.content_key,)
    if request.seed is None:
        return repeat(request.content_key, request.n)
    return (image.content_key for image in expand_copies(request))
