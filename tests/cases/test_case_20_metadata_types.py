"""Case 20: metadata.jsonl is read by `load_dataset("imagefolder")`, whatever the rows held.

Other members of the kind: a column that changes from a number to a text
(huggingface/datasets#7222), a list of several types (huggingface/datasets#6460), an object that
becomes a list (huggingface/datasets#7322), and keys named `*_file_name`, which the loader takes for
files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.patience import patient
from support.simulator_sessions import fast_session, outcomes_of, rows

from fluxasync import Batch, Limits
from fluxasync._store.column_types import ColumnTypes, line_of, settle_types
from fluxasync.simulator import Scenario, Simulator

DATA = Path(__file__).parent / "data"
QUICK = Scenario(latency=(0, 0.01))

#: prints the features and the rows of each folder, without the images
LOAD = """
import json, sys, warnings
warnings.simplefilter("ignore")
import datasets
datasets.disable_progress_bars()
found = []
for folder in sys.argv[1:]:
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=folder, split="train", cache_dir=folder + "-cache"
    )
    sizes = [image.size for image in loaded["image"]]
    lines = loaded.remove_columns("image").to_list()
    more = datasets.Dataset.from_json(
        folder + "/metadata.jsonl", cache_dir=folder + "-cache"
    )
    assert len(more) == len(lines) == len(sizes)
    found.append(lines)
json.dump(found, sys.stdout, default=str)
"""


def loaded(*folders: Path) -> list[list[dict[str, Any]]]:
    """Load folders with the `datasets` library, in another process and without a network."""
    pytest.importorskip("datasets")
    command = [sys.executable, "-c", LOAD, *map(str, folders)]
    home = str(folders[0].parent / "hf")
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": home}
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=patient(240), check=False, env=env
    )
    assert not ended.returncode, ended.stderr[-2_000:]
    found: list[list[dict[str, Any]]] = json.loads(ended.stdout)
    return found


async def run(out: Path, source: Any, **options: Any) -> None:
    async with (
        Simulator(QUICK) as sim,
        fast_session(sim.url) as flux,
        Batch(flux, source, out=out, **options) as batch,
    ):
        await outcomes_of(batch)


def with_extras(*values: Any, name: str = "mine") -> list[dict[str, Any]]:
    return [
        {"prompt": f"a fox {number}", "width": 256, "height": 256, "extras": {name: value}}
        for number, value in enumerate(values)
    ]


def extras_of(lines: list[dict[str, Any]], name: str = "mine") -> list[Any]:
    return [line["extras"].get(name) for line in sorted(lines, key=lambda line: line["index"])]


#: values of one column → what the library reads
COLUMNS: dict[str, tuple[list[Any], list[Any]]] = {
    "numbers": ([1, 2], [1, 2]),
    "a number and a text": ([4, "four"], ["4", "four"]),
    "a text and a number": (["four", 4], ["four", "4"]),
    "whole, then not": ([1, 1.5], [1.0, 1.5]),
    "a boolean and a number": ([True, 1], ["true", "1"]),
    "nothing, then a text": ([None, "x"], [None, "x"]),
    "nothing, then an object": ([None, {"a": 1}], [None, {"a": 1}]),
    "an object and a text": ([{"a": 1}, "x"], ['{"a": 1}', "x"]),
    "a list and a number": ([[1, 2], 3], ["[1, 2]", "3"]),
    "a list of several types": ([[1, "x", None], [2]], [["1", "x", None], ["2"]]),
    "lists of objects": ([[{"a": 1}], [{"a": "x"}]], [[{"a": "1"}], [{"a": "x"}]]),
    "objects of other keys": ([{"a": 1}, {"b": 2}], [{"a": 1, "b": None}, {"a": None, "b": 2}]),
    "types within objects": ([{"a": 1}, {"a": [1]}], [{"a": "1"}, {"a": "[1]"}]),
    "empty lists and objects": ([[], [1]], [[], [1]]),
    "huge numbers": ([1, 10**30], ["1", str(10**30)]),
    "huge numbers only": ([2**64 - 1, 2**70], [str(2**64 - 1), str(2**70)]),
    "dates, then a word": (["2026-01-05", "soon"], ["2026-01-05", "soon"]),
}


@pytest.mark.slow
@pytest.mark.asyncio
async def test_columns_of_several_types_are_read_by_datasets(tmp_path: Path) -> None:
    """Case 20: each of these columns loads, and says the same in every row, as text if it must."""
    folders = []
    for number, (values, _) in enumerate(COLUMNS.values()):
        await run(tmp_path / str(number), with_extras(*values))
        folders.append(tmp_path / str(number))
    await run(tmp_path / "case", DATA / "mixed.jsonl")
    found = dict(zip(COLUMNS, loaded(*folders, tmp_path / "case"), strict=False))
    assert {name: extras_of(lines) for name, lines in found.items()} == {
        name: wanted for name, (_, wanted) in COLUMNS.items()
    }


@pytest.mark.slow
@pytest.mark.asyncio
async def test_names_that_the_library_takes_for_files_are_read(tmp_path: Path) -> None:
    """Columns named like ours or like a file of another data set, and images in subfolders with
    odd names."""
    keys = ["file_name", "file_names", "old_file_name", "key", "image", "a.b", "prompt", "x y"]
    source = [
        {"prompt": f"a fox {n}", "name": name, "extras": dict.fromkeys(keys, "x.png")}
        for n, name in enumerate(["cats/a b", "cats/é雪", "dogs/1", "plain"])
    ]
    await run(tmp_path / "out", source, name="{name}.{ext}")
    [lines] = loaded(tmp_path / "out")
    renamed = {"file_name": "file_name_", "file_names": "file_names_",
               "old_file_name": "old_file_name_"}  # fmt: skip
    for line in lines:
        assert line["extras"] == {renamed.get(key, key): "x.png" for key in keys}


@pytest.mark.slow
def test_the_odd_row_may_be_the_last_of_ten_thousand(tmp_path: Path) -> None:
    """The library reads blocks: a type that changes in a later one breaks it too."""
    from support.sample_images import png

    types = ColumnTypes()
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(8))
    with (folder / "metadata.jsonl").open("wb") as file:
        for number in range(10_000):
            mine = {"a": number, "b": None} if number < 9_999 else {"a": "last", "b": [1, "x"]}
            row = {"file_name": "a.png", "prompt": "a fox", "extras": mine}
            assert types.observe(row) == (number == 9_999)
            file.write(line_of(row))
    settle_types(folder / "metadata.jsonl")
    [lines] = loaded(folder)
    assert lines[0]["extras"] == {"a": "0", "b": None}
    assert lines[-1]["extras"] == {"a": "last", "b": ["1", "x"]}


# --- without the library --------------------------------------------------------------------------


def kinds_of(lines: list[dict[str, Any]]) -> dict[tuple[str, ...], set[type]]:
    """Return the types of the values at each place of the lines."""
    found: dict[tuple[str, ...], set[type]] = {}

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if value is None:
            return
        found.setdefault(path, set()).add(float if type(value) is int else type(value))
        if isinstance(value, dict):
            for name, inner in value.items():
                visit(inner, (*path, name))
        if isinstance(value, list):
            for inner in value:
                visit(inner, (*path, "[]"))

    for line in lines:
        visit(line["extras"], ())
    return found


@pytest.mark.asyncio
async def test_every_line_is_settled_as_soon_as_it_is_written(tmp_path: Path) -> None:
    """A run that is killed leaves a readable list: the odd line is added after the retyping."""
    async with Simulator(QUICK) as sim, fast_session(sim.url, limits=Limits(in_flight=1)) as flux:
        values = [1, 2, "x", 3, True, [1], None]
        async with Batch(flux, with_extras(*values), out=tmp_path, ordered=True) as batch:
            async for outcome in batch:
                lines = rows(tmp_path / "metadata.jsonl")
                assert len(lines) > outcome.index
                assert all(len(kinds) == 1 for kinds in kinds_of(lines).values())
    assert extras_of(lines) == ["1", "2", "x", "3", "true", "[1]", None]


@pytest.mark.asyncio
async def test_a_later_run_keeps_the_types(tmp_path: Path) -> None:
    """Lines of an earlier run become text when a later row needs it, and stay so."""
    await run(tmp_path, with_extras(1, 2))
    await run(tmp_path, with_extras(1, 2, "x"))
    assert extras_of(rows(tmp_path / "metadata.jsonl")) == ["1", "2", "x"]
    await run(tmp_path, with_extras(1, 2, "x", 4))
    assert extras_of(rows(tmp_path / "metadata.jsonl")) == ["1", "2", "x", "4"]


@pytest.mark.asyncio
async def test_lines_that_are_made_from_the_journal_are_settled(tmp_path: Path) -> None:
    """After a list was lost or cut, the next run writes it again with settled types."""
    await run(tmp_path, with_extras(1, "x", [2]))
    whole = (tmp_path / "metadata.jsonl").read_bytes()
    for content in (b"", whole[: len(whole) // 2]):
        (tmp_path / "metadata.jsonl").write_bytes(content)
        await run(tmp_path, with_extras(1, "x", [2]))
        assert extras_of(rows(tmp_path / "metadata.jsonl")) == ["1", "x", "[2]"]


@pytest.mark.asyncio
async def test_failures_have_one_type_in_each_column(tmp_path: Path) -> None:
    """failures.jsonl is read like metadata.jsonl."""
    scenario = Scenario(latency=(0, 0.01), faults={"moderated-request": 1.0})
    async with (
        Simulator(scenario) as sim,
        fast_session(sim.url) as flux,
        Batch(flux, with_extras(1, "x", {"a": 2}), out=tmp_path) as batch,
    ):
        await outcomes_of(batch)
    assert set(extras_of(rows(tmp_path / "failures.jsonl"))) == {"1", "x", '{"a": 2}'}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["a", "b", "file_name", "x_file_names"]), inner, max_size=3
    ),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "file_name"]), VALUES), max_size=6))
@settings(deadline=None)
def test_any_rows_have_one_type_in_each_column(
    tmp_path_factory: pytest.TempPathFactory, extras: list[dict[str, Any]]
) -> None:
    """Whatever the rows hold: one type a column, nothing lost, and no name of a file."""
    path = tmp_path_factory.mktemp("list") / "metadata.jsonl"
    path.write_bytes(b"".join(line_of({"key": "x", "extras": each}) for each in extras))
    settle_types(path)
    lines = rows(path)
    kinds = kinds_of(lines)
    assert all(len(found) == 1 for found in kinds.values())
    assert not [part for place in kinds for part in place if part.endswith(("file_name", "names"))]
    assert [len(line["extras"]) for line in lines] == [len(each) for each in extras]
    settled = path.read_bytes()
    settle_types(path)
    assert settled == path.read_bytes()
