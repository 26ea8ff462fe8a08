"""Case 19: rows of a DataFrame are read like the same table as a .parquet file.

Reported for other tools as e2b-dev/E2B#510 (Timestamp), ijl/orjson#175 and mwouts/itables#112
(NaT), pandas-dev/pandas#11247 and #29824 (what `to_dict("records")` holds), Canner/wren-engine#746.
"""

from __future__ import annotations

import datetime
import sys
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from fluxasync import BadRow, ConfigError, ImageRequest
from tests.support.prompt_lists import complaint_of, plan_of, requests_of, rows_of

numpy = pytest.importorskip("numpy")
pandas = pytest.importorskip("pandas")

STAMP = "2026-01-05T06:07:08"


class Style(Enum):
    OIL = "oil"


#: a cell of the user's own, and what the metadata has for it
CELLS = [
    pytest.param(pandas.Timestamp(STAMP), STAMP, id="Timestamp"),
    pytest.param(pandas.Timestamp(STAMP, tz="Europe/Paris"), f"{STAMP}+01:00", id="with a zone"),
    pytest.param(numpy.datetime64(STAMP, "ns"), STAMP, id="datetime64 of nanoseconds"),
    pytest.param(numpy.datetime64("2026-01-05"), "2026-01-05", id="datetime64 of a day"),
    pytest.param(datetime.time(6, 7), "06:07:00", id="time"),
    pytest.param(pandas.Timedelta(hours=1), "1:00:00", id="Timedelta"),
    pytest.param(numpy.timedelta64(3600, "s"), "1:00:00", id="timedelta64"),
    pytest.param(numpy.int64(7), 7, id="int64"),
    pytest.param(numpy.float32(0.5), 0.5, id="float32"),
    pytest.param(numpy.longdouble(0.5), 0.5, id="longdouble"),
    pytest.param(numpy.bool_(True), True, id="bool_"),
    pytest.param(numpy.str_("x"), "x", id="str_"),
    pytest.param(numpy.array([1, 2]), [1, 2], id="array"),
    pytest.param(numpy.array(7), 7, id="array of no dimension"),
    pytest.param(numpy.array([STAMP, "NaT"], "datetime64[ns]"), [STAMP, None], id="array of dates"),
    pytest.param(numpy.array([[0.5, numpy.nan]]), [[0.5, None]], id="array of arrays"),
    pytest.param(pandas.array([1, None], dtype="Int64"), [1, None], id="array with NA"),
    pytest.param(pandas.Period("2026-01"), "2026-01", id="Period"),
    pytest.param(Decimal("0.10"), "0.10", id="Decimal"),
    pytest.param(UUID(int=7), "00000000-0000-0000-0000-000000000007", id="UUID"),
    pytest.param(Style.OIL, "oil", id="Enum"),
    pytest.param(Path("a/b.txt"), "a/b.txt", id="Path"),
    pytest.param({"b", "a"}, ["a", "b"], id="set"),
    pytest.param(("a", 1), ["a", 1], id="tuple"),
    pytest.param({"at": {1: numpy.int8(2)}}, {"at": {"1": 2}}, id="nested"),
    pytest.param(10**30, 10**30, id="a huge number"),
    pytest.param([float("inf")], [None], id="an infinity in a list"),
    pytest.param("", "", id="empty text"),
]

GAPS = [
    pytest.param(pandas.NaT, id="NaT"),
    pytest.param(pandas.NA, id="NA"),
    pytest.param(float("nan"), id="NaN"),
    pytest.param(numpy.float32("nan"), id="float32 NaN"),
    pytest.param(numpy.datetime64("NaT", "ns"), id="datetime64 NaT"),
    pytest.param(Decimal("NaN"), id="Decimal NaN"),
    pytest.param(None, id="None"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("cell", "value"), CELLS)
async def test_a_cell_of_ones_own_is_metadata_as_json_has_it(cell: Any, value: Any) -> None:
    """One rule for a cell, as a column, in `extras`, and in the extras of an ImageRequest."""
    rows = [
        {"prompt": "a kite", "mine": cell},
        {"prompt": "a kite", "extras": {"mine": cell}},
        ImageRequest(prompt="a kite", extras={"mine": cell}),
    ]
    for request in await requests_of(rows):
        assert request.extras == {"mine": value}
        assert type(request.extras["mine"]) is type(value)


@pytest.mark.asyncio
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("name", ["mine", "width", "name", "output_format", "image_prompt", "n"])
async def test_a_gap_of_any_kind_is_not_given(gap: Any, name: str) -> None:
    """NaT, NA and NaN are gaps, in parameters and in columns of one's own."""
    [request] = await requests_of([{"prompt": "a kite", name: gap}])
    assert request == ImageRequest(prompt="a kite")


@pytest.mark.asyncio
async def test_parameters_may_be_numpys() -> None:
    """A parameter of numpy's kind has the key of the plain one."""
    row = {
        "prompt": numpy.str_("a kite"),
        "width": numpy.float64(512),
        "guidance": numpy.float32(2.5),
        "prompt_upsampling": numpy.bool_(True),
        "seed": numpy.uint32(7),
        "n": numpy.int64(1),
    }
    plain = {
        "prompt": "a kite", "width": 512, "guidance": 2.5, "prompt_upsampling": True, "seed": 7,
    }  # fmt: skip
    given, wanted = await requests_of([row, plain])
    assert given.content_key == wanted.content_key


@pytest.mark.asyncio
async def test_the_rows_of_a_frame_and_its_parquet_file_are_the_same_requests(
    tmp_path: Path,
) -> None:
    """Dates, gaps, arrays and categories come alike, row by row."""
    frame = pandas.DataFrame(
        {
            "prompt": ["a kite", "a bell"],
            "made": pandas.to_datetime([STAMP, None]),
            "there": pandas.to_datetime([STAMP, None]).tz_localize("UTC"),
            "tags": [numpy.array([1, 2]), numpy.array([3])],
            "width": [512, None],
            "kind": pandas.Categorical(["x", None]),
            "whole": pandas.array([1, None], dtype="Int64"),
            "yes": pandas.array([True, None], dtype="boolean"),
            "lasts": pandas.to_timedelta(["1h", None]),
            "costs": [Decimal("0.10"), None],
            "note": ["", "x"],
        }
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    from_frame = await requests_of(frame.to_dict("records"))
    assert from_frame == await requests_of(tmp_path / "rows.parquet")
    assert set(from_frame[0].extras) == set(frame) - {"prompt", "width"}
    assert from_frame[1].extras == {"tags": [3], "note": "x"}


@pytest.mark.asyncio
async def test_pictures_are_left_out_of_the_metadata_with_a_note() -> None:
    """As in a .parquet file, bytes are no metadata, and a run of such rows goes on."""
    image = pytest.importorskip("PIL.Image").new("RGB", (8, 8))
    rows = [
        {"prompt": "a kite", "photo": b"\xff\xd8", "thumb": {"bytes": b"x", "path": None}, "a": 1},
        {"prompt": "a bell", "picture": image, "extras": {"raw": bytearray(b"x"), "b": 2}},
    ]
    plan = await plan_of(rows)
    assert plan.notes == tuple(
        f"left out, because bytes are no metadata: {name}"
        for name in ("photo", "thumb", "picture", "raw")
    )
    assert [request.extras for request in await requests_of(rows)] == [{"a": 1}, {"b": 2}]


@pytest.mark.asyncio
async def test_bytes_for_a_model_that_the_catalogue_lacks_are_not_left_out() -> None:
    """They may be the picture to edit, without which the image would be paid for in vain."""
    for row, options in (
        ({"prompt": "at night", "picture": b"\xff\xd8", "model": "flux-of-tomorrow"}, {}),
        ({"prompt": "at night", "picture": b"\xff\xd8"}, {"model": "flux-of-tomorrow"}),
    ):
        complaint = await complaint_of([row], **options)
        assert "picture: bytes are not sent to flux-of-tomorrow" in complaint


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        pytest.param(object(), "a value of type object is no metadata", id="object"),
        pytest.param(1j, "a value of type complex is no metadata", id="complex"),
        pytest.param({1: "a", "1": "b"}, "two keys that are the same as text", id="equal keys"),
    ],
)
async def test_another_type_is_refused_with_its_column(cell: Any, reason: str) -> None:
    """A cell that metadata cannot hold is an error before anything is spent."""
    complaint = await complaint_of([{"prompt": "a kite", "mine": cell}])
    assert complaint.startswith("item 1: 'mine': ")
    assert reason in complaint


@pytest.mark.asyncio
async def test_a_cell_that_holds_itself_is_refused() -> None:
    """A cycle has no JSON text; it is an error of its row, not a crash."""
    loop: list[Any] = []
    loop.append(loop)
    [row] = await rows_of({"prompt": "a kite", "mine": each} for each in [loop])
    assert isinstance(row, BadRow)
    assert "nested deeper than 64 levels" in str(row)
    with pytest.raises(ConfigError, match="nested deeper"):
        await requests_of([ImageRequest(prompt="a kite", extras={"mine": loop})])


def test_reading_a_dict_imports_neither_numpy_nor_pandas() -> None:
    """Cells are recognized by what they can do: a program without pandas does not pay for it."""
    import subprocess

    code = (
        "import sys, datetime\n"
        "from fluxasync._requests.cells import plain\n"
        "plain({'a': datetime.date(2026, 1, 5), 'b': [1.5, {2}]})\n"
        "assert not {'numpy', 'pandas', 'pyarrow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
