"""Rows that give one file name: counted before anything is spent, and each image keeps a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxasync import Batch, FluxSession, ImageRequest, Prompts
from fluxasync._requests.sources.repeated_names import RepeatedNames

ROWS = [
    {"sku": sku, "prompt": f"a fox {n}"} for n, sku in enumerate(["A1", "B2", "a1", "A1", "A1"])
]
NOTE = (
    "2 rows give a file name that an earlier row gave (item 4: {name}); the images get -2, -3, … "
    "in the order in which they are saved. With {{index}} in the name each has its own"
)


async def notes_of(rows: Any, out: Path, *, name: str, **options: Any) -> Sequence[str]:
    async with FluxSession(simulate=True) as flux:
        batch = Batch(flux, Prompts(rows, **options), out=out, name=name)
        return (await batch.check()).notes


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("{sku}.{ext}", {}, [NOTE.format(name="'A1'")]),
        ("{sku}-{index}.{ext}", {}, []),
        ("{sku}/{key:.8}.{ext}", {}, []),
        ("{sku}-{prompt}.{ext}", {}, []),
        ("{index:06}.{ext}", {}, []),
        (
            "{sku}-{seed}.{ext}",
            {"seeds": [1, 2]},
            [NOTE.format(name="'A1-1'")],
        ),  # each row has two names of its own
        ("{sku}.{ext}", {"limit": 2, "n": 3}, []),  # images of one row share a name by choice
    ],
)
@pytest.mark.asyncio
async def test_the_check_tells_of_rows_that_share_a_file_name(
    name: str, options: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    assert list(await notes_of(ROWS, tmp_path / "out", name=name, **options)) == expected


@given(names=st.lists(st.text("aAbé", min_size=1, max_size=2), max_size=30))
def test_every_row_but_the_first_of_a_name_is_counted(names: list[str]) -> None:
    found = RepeatedNames(lambda request: request.prompt)
    for number, name in enumerate(names, start=1):
        found.add(f"row {number}", [ImageRequest(prompt=name)])
    repeated = len(names) - len(set(names))
    found.close()
    note = next(found.notes(), "0 rows")
    assert note.split()[0] == str(repeated)


def test_without_room_fewer_are_told_of_and_none_is_wrong() -> None:
    found = RepeatedNames(lambda request: request.prompt, room=2)
    for name in ["a", "b", "c", "c", "a"]:
        found.add("row", [ImageRequest(prompt=name)])
    found.close()
    assert next(found.notes()).startswith("1 row gives")
