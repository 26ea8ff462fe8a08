"""Case 13: several files of one kind, or a folder of them, are one list.

Other members of the kind: several files named at once (duckdb/duckdb#773, GlareDB/glaredb#1396),
`_SUCCESS` among shards (ray-project/ray#57704, apache/parquet-java#1688), a folder of several kinds
(pola-rs/polars#17436), columns that only some files have (huggingface/datasets#3093), captions in
.txt beside pictures and their metadata (bmaltais/kohya_ss#988).
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.prompt_lists import complaint_of, plan_of, requests_of, rows_of, saved
from support.sample_images import png
from support.simulator_sessions import fast_session, outcomes_of

from fluxasync import BadRow, Batch, ConfigError, ImageRequest, Prompts
from fluxasync.simulator import Scenario, Simulator

DATA = Path(__file__).parent / "data"

#: rows of a list: some equal, some with a seed and metadata
ROWS = st.lists(
    st.fixed_dictionaries(
        {"prompt": st.sampled_from(["fox", "owl", "bat"])},
        optional={"seed": st.sampled_from([1, 2]), "note": st.sampled_from(["x", "y"])},
    ),
    max_size=12,
)


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows in the form that the name says."""
    suffix = path.suffixes[0]
    if suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "seed", "note"])
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".txt":
        path.write_text("".join(row["prompt"] + "\n" for row in rows))
    elif suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        types = {"prompt": "string", "seed": "int64", "note": "string"}
        schema = pyarrow.schema(list(types.items()))
        parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), path)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.asyncio
async def test_the_shards_of_the_case_are_one_list() -> None:
    """Case 13: the folder and its files by name are the same four images."""
    pytest.importorskip("pyarrow")
    files = sorted((DATA / "shards").glob("*.parquet"))
    whole = await requests_of(DATA / "shards")
    named = await requests_of(files)
    assert len(whole) == 4
    assert [(r.key, r.index) for r in whole] == [(r.key, r.index) for r in named]


@pytest.mark.asyncio
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet", ".txt"])
@settings(max_examples=25)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 12), max_size=3))
async def test_shards_have_the_keys_of_the_whole_list(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    rows: list[dict[str, Any]],
    cuts: list[int],
) -> None:
    """Case 13: wherever a list is cut, its images, their numbers and occurrences are the same, so
    a run over the parts pays for nothing that the whole has made."""
    folder = tmp_path_factory.mktemp("shards")
    whole = await requests_of(written(folder / f"whole{suffix}", rows))
    bounds = [0, *sorted(cuts), len(rows)]
    parts = [
        written(folder / f"part-{place}{suffix}", rows[start:end])
        for place, (start, end) in enumerate(pairwise(bounds))
    ]
    split = await requests_of(parts)
    assert [(r.key, r.index, r.extras) for r in whole] == [
        (r.key, r.index, r.extras) for r in split
    ]
    sampled = [await requests_of(each, sample=3) for each in (folder / f"whole{suffix}", parts)]
    assert len({tuple(r.prompt for r in each) for each in sampled}) == 1


@pytest.mark.asyncio
async def test_a_run_over_shards_continues_the_run_of_the_whole(tmp_path: Path) -> None:
    """Case 13: splitting a list that was run, and running it again, submits what is new only."""
    rows = [{"prompt": "fox"}, {"prompt": "owl"}, {"prompt": "fox"}]
    whole = written(tmp_path / "whole.jsonl", rows)
    folder = tmp_path / "parts"
    folder.mkdir()
    written(folder / "1.jsonl", rows[:2])
    written(folder / "2.jsonl", [*rows[2:], {"prompt": "bat"}])
    async with Simulator(Scenario(latency=(0, 0.01))) as sim:
        for source, submitted in (
            (whole, 3),
            (folder, 4),
            ([folder / "2.jsonl", folder / "1.jsonl"], 4),
        ):
            out = tmp_path / "out"
            async with fast_session(sim.url) as flux, Batch(flux, source, out=out) as batch:
                await outcomes_of(batch)
            assert sim.world.posts == submitted


@pytest.mark.asyncio
async def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    """Case 13: part-2 comes before part-10; what others leave in the folder is named."""
    for number in (10, 2, 1):
        written(tmp_path / f"part-{number}.jsonl", [{"prompt": f"fox {number}"}])
    written(tmp_path / "part-3.jsonl.gz", [{"prompt": "fox 3"}])
    written(tmp_path / "part-4.ndjson", [{"prompt": "fox 4"}])
    for name in ("_SUCCESS", "README.md", "dataset_info.json", "._part-1.jsonl", "notes.txt"):
        saved(tmp_path, name, "{}")
    (tmp_path / "more").mkdir()
    found = await requests_of(tmp_path)
    assert [r.prompt for r in found] == [f"fox {number}" for number in (1, 2, 3, 4, 10)]
    [note] = (await plan_of(tmp_path)).notes
    for name in ("_SUCCESS", "README.md", "dataset_info.json", "._part-1.jsonl", "notes.txt"):
        assert name in note
    with pytest.raises(ConfigError, match=r"more/ holds no \.txt file and no list"):
        await plan_of(tmp_path / "more")
    names = [name for name in os.listdir(tmp_path) if name not in ("more", "notes.txt")]
    assert len(await requests_of([tmp_path / name for name in names])) == 5


@pytest.mark.asyncio
async def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    """Case 13: of two kinds only one may be meant, so both are named with their counts."""
    a, b = saved(tmp_path, "a.jsonl", '{"prompt": "fox"}'), saved(tmp_path, "b.csv", "prompt\nowl")
    saved(tmp_path, "c.csv", "prompt\nowl")
    assert f"{tmp_path.name}/ holds 2 .csv and 1 .jsonl" in await complaint_of(tmp_path)
    assert "the list has 1 .jsonl and 1 .csv" in await complaint_of([a, b])
    saved(tmp_path, "d.txt", "a caption")
    assert "1 .txt" in await complaint_of(tmp_path)
    with pytest.raises(ConfigError, match="paths only"):
        Prompts([a, "a red fox"])


@pytest.mark.asyncio
async def test_captions_keep_their_folder(tmp_path: Path) -> None:
    """Case 13: pictures' metadata and a run's own lists do not change a folder of captions."""
    saved(tmp_path, "001.txt", "a fox")
    saved(tmp_path, "001.json", '{"rating": 5}')
    saved(tmp_path, "metadata.jsonl", '{"file_name": "001.png"}')
    [fox] = await requests_of(tmp_path)
    assert (fox.prompt, fox.name) == ("a fox", "001")
    assert (await plan_of(tmp_path)).notes == (
        f"not read in {tmp_path.name}/: 001.json, metadata.jsonl",
    )
    (tmp_path / ".fluxasync").mkdir()
    saved(tmp_path, "failures.jsonl", '{"prompt": "a failure"}')
    assert len(await requests_of(tmp_path)) == 1


@pytest.mark.asyncio
async def test_folders_of_captions_are_one_list(tmp_path: Path) -> None:
    """Case 13: each folder's files are opened as its own, and their errors name the folder."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        saved(tmp_path / folder, "1.txt", f"a fox of {folder}")
    folders = [tmp_path / "a", tmp_path / "b"]
    assert [r.prompt for r in await requests_of(folders)] == ["a fox of a", "a fox of b"]
    saved(tmp_path / "b", "2.txt", b"caf\xe9")
    assert (await complaint_of(folders)).startswith("b/2.txt: byte 0xe9")
    (tmp_path / "b" / "2.txt").unlink()
    (tmp_path / "b" / "2.txt").symlink_to(tmp_path / "a" / "1.txt")
    assert (await complaint_of(folders)).startswith("b/2.txt: ")


@pytest.mark.asyncio
async def test_a_file_is_not_paid_twice(tmp_path: Path) -> None:
    """Case 13: a file that is named twice, by another path or a link too, is refused."""
    a = saved(tmp_path, "a.jsonl", '{"prompt": "fox"}')
    (tmp_path / "b.jsonl").symlink_to(a)
    for paths in (
        [a, a],
        [a, tmp_path / "." / "a.jsonl"],
        [a, tmp_path / "b.jsonl"],
        [a, tmp_path],
    ):
        assert "is named twice" in await complaint_of(paths)


@pytest.mark.asyncio
async def test_errors_name_the_file_and_its_row(tmp_path: Path) -> None:
    """Case 13: rows are counted in their file; files of one name are told apart."""
    for folder, row in (("a", "fox,512"), ("b", "owl,oops")):
        (tmp_path / folder).mkdir()
        saved(tmp_path / folder, "p.csv", f"prompt,width\n\n{row}\n")
    paths = [tmp_path / "a" / "p.csv", tmp_path / "b" / "p.csv"]
    assert (await complaint_of(paths)).startswith("b/p.csv row 3: column 'width': 'oops'")
    fox, bad = await rows_of(paths, skip_bad=True)
    assert isinstance(fox, ImageRequest)
    assert isinstance(bad, BadRow)
    assert bad.where == "b/p.csv row 3"
    other = saved(tmp_path, "q.csv", "Titel\nx\n")
    assert (await complaint_of([paths[0], other])).startswith("q.csv: no column is named prompt")


@pytest.mark.asyncio
async def test_columns_of_all_files_are_joined(tmp_path: Path) -> None:
    """Case 13: a file may lack a column, mapped or not; a mapped one that all lack is refused."""
    a = saved(tmp_path, "a.csv", "text,wide,mine\nfox,512,1\n")
    b = saved(tmp_path, "b.csv", "yours,text\n2,owl\n")
    columns = {"prompt": "text", "width": "wide"}
    fox, owl = await requests_of([a, b], columns=columns)
    assert (fox.width, fox.extras, owl.width, owl.extras) == (
        512, {"mine": "1"}, None, {"yours": "2"},
    )  # fmt: skip
    message = await complaint_of([a, b], columns={"prompt": "text", "width": "breite"})
    assert message == "columns: no row has 'breite', which width was to come from"
    other = saved(tmp_path, "c.csv", "prompt\nbat\n")
    assert "c.csv: no column 'text' for prompt" in await complaint_of([a, other], columns=columns)


@pytest.mark.asyncio
async def test_images_are_beside_their_own_file(tmp_path: Path) -> None:
    """Case 13: a relative path means the folder of the file that names it, and stays in it."""
    columns = {"model": "flux-pro-1.1"}
    rows = '{"prompt": "fox", "image_prompt": "a.png"}\n'
    digests = []
    for folder, side in (("a", 64), ("b", 128)):
        (tmp_path / folder).mkdir()
        saved(tmp_path / folder, "p.jsonl", rows)
        saved(tmp_path / folder, "a.png", png(side, side))
    paths = [tmp_path / "a" / "p.jsonl", tmp_path / "b" / "p.jsonl"]
    for request in await requests_of(paths, parameters=columns):
        assert request.image_prompt is not None
        digests.append(request.image_prompt.sha256)
    assert len(set(digests)) == 2
    saved(tmp_path / "b", "p.jsonl", '{"prompt": "fox", "image_prompt": "../a/a.png"}\n')
    assert "b/p.jsonl line 1" in await complaint_of(paths, parameters=columns)


def test_several_files_on_the_command_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Case 13: the shell's files are one list; standard input and an unexpanded pattern are named;
    options are still checked."""
    pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")
    from fluxasync._cli.app import main

    files = [str(written(tmp_path / f"{n}.jsonl", [{"prompt": f"fox {n}"}])) for n in range(3)]
    saved(tmp_path, "_SUCCESS", "")
    for words, code, said in (
        (files, 0, "3 images"),
        ([*files, str(tmp_path / "_SUCCESS")], 0, "not read: _SUCCESS"),
        ([*files, "--limit", "2"], 0, "2 images"),
        (["-", *files], 2, "leave the files out"),
        ([str(tmp_path / "*.jsonl")], 2, "write it without quotes"),
        ([*files, "--bogus"], 2, "Unknown option: --bogus"),
    ):
        assert main(["run", *words, "-o", str(tmp_path / "out"), "--dry-run"]) == code
        captured = capfd.readouterr()
        assert said in captured.out + captured.err
