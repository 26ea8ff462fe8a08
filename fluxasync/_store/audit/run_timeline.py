"""When a run saved images and used its slots, in columns of time, counted by the database.

A run that was continued after a pause has no columns for the pause. The number of columns does not
grow with the number of images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, evolve, frozen

from ..journal.checked_row import damaged, is_instant

#: columns that a chart can show; fewer of a short run, for some images in each
_COLUMNS, _FEWEST, _IMAGES = 240, 12, 6
#: seconds without any event that are left out, and columns with nothing in flight either
_PAUSE, _QUIET = 1_800.0, 20
#: seconds of a column; longer ones are multiples of the last
_WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400)

#: when a job gave its slot back: when a poll saw its end, or with its failure
_END = (
    "max(submitted_at, CASE WHEN state = 2 THEN min(finished_at, coalesce(submitted_at + "
    "json_extract(result, '$.timings.watch'), finished_at)) ELSE finished_at END)"
)
_HAS_JOB = "job_id IS NOT NULL AND submitted_at IS NOT NULL"

#: asks the database
Query = Callable[..., list[tuple[Any, ...]]]


@frozen(kw_only=True)
class TimeColumn:
    """What happened in some seconds of a run."""

    at: float  #: seconds since 1970 at its start
    seconds: float
    saved: int = 0
    failed: int = 0
    in_flight: float = 0.0  #: mean number of accepted jobs that had not ended
    is_after_pause: bool = False


@define
class _Events:
    """What happened in one column; sums are of seconds since the first column began."""

    saved: int = 0
    failed: int = 0
    begun: int = 0
    begun_sum: float = 0.0
    ended: int = 0
    ended_sum: float = 0.0


def time_columns(query: Query, *, is_running: bool) -> list[TimeColumn]:
    """Return the columns of a run, in order. Images that wait for a later run are not in flight.

    Raises JournalError for an invalid time.
    """
    ((first, last),) = query(
        "SELECT min(begun_at), max(max(begun_at, coalesce(finished_at, 0))) FROM image"
    )
    if first is None:
        return []
    if not (is_instant(first) and is_instant(last)):
        raise damaged("begun_at", first if is_instant(last) else last)
    width = _width(query, first, last)
    events = _events(query, first, last, width, is_running=is_running)
    columns = list(_columns(events, first, width))
    while len(columns) > 2 * _COLUMNS and any(not each.is_after_pause for each in columns[1:]):
        columns = list(_in_pairs(columns))
    return columns


def _columns(events: Mapping[int, _Events], first: float, width: float) -> Iterator[TimeColumn]:
    in_flight, previous = 0, min(events, default=0) - 1
    for number in sorted(events):
        gap = number - previous - 1
        is_pause = gap * width > _PAUSE or (gap > _QUIET and not in_flight)
        for empty in range(previous + 1, number) if not is_pause else ():
            yield TimeColumn(at=first + empty * width, seconds=width, in_flight=in_flight)
        found, end = events[number], (number + 1) * width
        begun = found.begun * end - found.begun_sum
        ended = found.ended * end - found.ended_sum
        yield TimeColumn(
            at=first + number * width, seconds=width, saved=found.saved, failed=found.failed,
            in_flight=max(in_flight + (begun - ended) / width, 0.0), is_after_pause=is_pause,
        )  # fmt: skip
        in_flight += found.begun - found.ended
        previous = number


def _in_pairs(columns: Sequence[TimeColumn]) -> Iterator[TimeColumn]:
    """Yield half as many columns; none spans a pause."""
    waiting: TimeColumn | None = None
    for each in columns:
        if waiting is None or each.is_after_pause:
            if waiting is not None:
                yield waiting
            waiting = each
            continue
        seconds = waiting.seconds + each.seconds
        in_flight = waiting.in_flight * waiting.seconds + each.in_flight * each.seconds
        yield evolve(
            waiting, seconds=seconds, saved=waiting.saved + each.saved,
            failed=waiting.failed + each.failed, in_flight=in_flight / seconds,
        )  # fmt: skip
        waiting = None
    if waiting is not None:
        yield waiting


def _width(query: Query, first: float, last: float) -> float:
    """Return the seconds of a column, so that the active time has as many as can be shown."""
    coarse = max(60.0, (last - first) / 20_000)
    ((active,),) = query(
        "SELECT count(*) FROM (SELECT CAST((begun_at - ?1) / ?2 AS INTEGER) FROM image UNION "
        "SELECT CAST((finished_at - ?1) / ?2 AS INTEGER) FROM image WHERE finished_at IS NOT NULL)",
        first,
        coarse,
    )
    ((images,),) = query("SELECT count(*) FROM image")
    columns = min(max(images / _IMAGES, _FEWEST), _COLUMNS)
    wanted = min(active * coarse, last - first) / columns
    known = next((width for width in _WIDTHS if width >= wanted), None)
    return float(known if known is not None else _WIDTHS[-1] * -(-wanted // _WIDTHS[-1]))


def _events(
    query: Query, first: float, last: float, width: float, *, is_running: bool
) -> dict[int, _Events]:
    found: defaultdict[int, _Events] = defaultdict(_Events)
    end = int((last - first) / width)

    def grouped(instant: str, which: str) -> Iterator[tuple[_Events, int, float]]:
        """Yield the column, the number and the sum of the instants in it."""
        rows = query(
            "SELECT CAST(at / ?2 AS INTEGER), count(*), sum(at) FROM "  # noqa: S608 — our own texts
            f"(SELECT {instant} - ?1 AS at FROM image WHERE {which} LIMIT -1) GROUP BY 1",
            first, width,
        )  # fmt: skip
        for number, count, total in rows:
            if isinstance(number, int) and 0 <= number <= end:  # a clock was changed
                yield found[number], count, total

    for events, count, _ in grouped("finished_at", "state = 2"):
        events.saved += count
    for events, count, _ in grouped("finished_at", "state = 3"):
        events.failed += count
    settled = f"state IN (2, 3) AND {_HAS_JOB}"
    for events, count, total in grouped("submitted_at", settled):
        events.begun, events.begun_sum = count, total
    for events, count, total in grouped(_END, settled):
        events.ended, events.ended_sum = count, total
    if is_running:
        for events, count, total in grouped("submitted_at", f"state = 1 AND {_HAS_JOB}"):
            events.begun += count
            events.begun_sum += total
    return found
