"""What holds for every table: its rows are the same as dicts, as .parquet and as .csv."""

from __future__ import annotations

import asyncio
import csv
import datetime
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxasync._requests.cells import plain
from tests.support.prompt_lists import requests_of

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff"))
NUMBERS = st.floats(width=64) | st.integers(-(2**53), 2**53).map(float)
WHEN = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))

#: kind of column → its Arrow type and its cells
KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (arrow.string(), TEXTS),
    "int": (arrow.int64(), st.integers(-(2**63), 2**63 - 1)),
    "float": (arrow.float64(), NUMBERS),
    "bool": (arrow.bool_(), st.booleans()),
    "date": (arrow.date32(), st.dates(datetime.date(1700, 1, 1), datetime.date(2200, 1, 1))),
    "datetime": (arrow.timestamp("us"), WHEN),
    "zoned": (arrow.timestamp("us", "UTC"), WHEN.map(lambda at: at.replace(tzinfo=datetime.UTC))),
    "time": (arrow.time64("us"), st.times()),
    "duration": (
        arrow.duration("us"),
        st.timedeltas(datetime.timedelta(-999), datetime.timedelta(999)),
    ),
    "decimal": (arrow.decimal128(20, 2), st.decimals(-9999, 9999, places=2)),
    "list": (arrow.list_(arrow.int64()), st.lists(st.integers(-9, 9), max_size=3)),
    "dates": (arrow.list_(arrow.date32()), st.lists(st.dates(), max_size=2)),
    "object": (
        arrow.struct([("a", arrow.string()), ("b", arrow.int64())]),
        st.fixed_dictionaries({"a": st.none() | TEXTS, "b": st.none() | st.integers(-9, 9)}),
    ),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[Any, list[dict[str, Any]]]:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=4, unique=True))
    fields = {"prompt": st.just("a kite"), "width": st.none() | st.sampled_from([256, 512])}
    fields |= {f"my {kind}": st.none() | KINDS[kind][1] for kind in kinds}
    rows = draw(st.lists(st.fixed_dictionaries(fields), min_size=1, max_size=4))
    types = [("prompt", arrow.string()), ("width", arrow.int64())]
    types += [(f"my {kind}", KINDS[kind][0]) for kind in kinds]
    return arrow.Table.from_pylist(rows, arrow.schema(types)), rows


def described(source: Any) -> list[tuple[str, dict[str, Any]]]:
    found = asyncio.run(requests_of(source))
    return [(request.key, dict(request.extras)) for request in found]


@given(tables())
@settings(deadline=None, max_examples=60)
def test_a_dict_and_a_row_of_parquet_are_the_same_request(
    drawn: tuple[Any, list[dict[str, Any]]],
) -> None:
    """One rule for a cell: gaps, dates, numbers, lists and objects, for the key and the extras."""
    table, rows = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.parquet")
        parquet.write_table(table, path)
        assert described(rows) == described(path)


@given(tables())
@settings(deadline=None, max_examples=30)
def test_a_frame_of_the_table_is_the_same_requests(drawn: tuple[Any, list[dict[str, Any]]]) -> None:
    """`to_dict("records")` brings pandas' and numpy's types; whole numbers with gaps are floats."""
    pytest.importorskip("pandas")
    table, rows = drawn
    frame = table.to_pandas(integer_object_nulls=True)
    for (key, extras), (wanted_key, wanted) in zip(
        described(frame.to_dict("records")), described(rows), strict=True
    ):
        assert key == wanted_key
        assert extras.keys() == wanted.keys()
        for name, value in wanted.items():
            assert extras[name] == value


def _as_csv(value: Any) -> str:
    return "" if value is None else str(value)


@given(st.lists(st.tuples(TEXTS, st.none() | st.sampled_from([256, 512])), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_a_csv_says_the_same_where_it_can(rows: list[tuple[str, int | None]]) -> None:
    """A text that is not blank, a number and a gap of a parameter are the same in a .csv."""
    dicts = [
        {"prompt": "a kite", "mine": mine, "width": width} for mine, width in rows if mine.strip()
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        with path.open("w", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerow(["prompt", "mine", "width"])
            writer.writerows([["a kite", row["mine"], _as_csv(row["width"])] for row in dicts])
        assert described(dicts) == described(path)


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | WHEN | st.decimals()
    | st.uuids() | st.dates() | st.timedeltas(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner) | st.tuples(inner, inner),
    max_leaves=8,
)  # fmt: skip


@given(CELLS)
def test_a_cell_that_was_read_is_read_again_as_it_is(cell: Any) -> None:
    """What the rule makes is JSON, so that a list which is made of a run's metadata is stable."""
    once = plain(cell)
    assert plain(once) == once


def test_a_decimal_keeps_its_digits() -> None:
    """A price of $0.10 stays 0.10, as in a .csv."""
    assert plain(Decimal("0.10")) == "0.10"
