"""What holds for every template and every grid: counts are products, keys are stable."""

from __future__ import annotations

import asyncio
import csv
import json
import math
import random
import re
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fluxasync import ConfigError, ImageRequest, Prompts
from fluxasync._requests.sources import open_source
from fluxasync._requests.sources.wildcards import Wildcards

plain = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\r\n\0\ufeff"), max_size=6
)

AXES: dict[str, list[Any]] = {
    "guidance": [2, 2.5, 3, 4.5], "steps": [10, 20, 50], "width": [256, 512],
    "output_format": ["jpeg", "png"], "prompt_upsampling": [True, False],
}  # fmt: skip
grids = st.dictionaries(st.sampled_from(sorted(AXES)), st.integers(1, 4)).map(
    lambda sizes: {name: AXES[name][:size] for name, size in sizes.items()}
)
seeds = st.none() | st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4, unique=True)


def requests_of(source: Any, **options: Any) -> list[ImageRequest]:
    async def main() -> list[ImageRequest]:
        opened = open_source(Prompts(source, **options))
        try:
            plan = await opened.check()
            async with aclosing(opened.requests()) as requests:
                rows = [row async for row in requests if isinstance(row, ImageRequest)]
        finally:
            await opened.aclose()
        assert plan.images == len(rows)
        return rows

    return asyncio.run(main())


def escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "{|}_\\$~@!#:%<>[]()/*" else c for c in text)


#: templates as nested lists: text, or a choice of templates
trees = st.recursive(
    plain,
    lambda inner: st.lists(st.lists(inner, max_size=3), min_size=1, max_size=3),
    max_leaves=12,
)


def written(tree: Any) -> str:
    if isinstance(tree, str):
        return escaped(tree)
    return "{" + "|".join("".join(map(written, alternative)) for alternative in tree) + "}"


def meant(tree: Any) -> list[str]:
    """The texts of a template, computed by another method than the library's."""
    if isinstance(tree, str):
        return [tree]
    made: list[str] = []
    for alternative in tree:
        texts = [""]
        for part in alternative:
            texts = [before + after for before in texts for after in meant(part)]
        made += texts
    return made


@settings(max_examples=150)
@given(tree=trees)
def test_a_template_stands_for_all_its_texts(tree: Any) -> None:
    """A template with escapes yields the expected texts, and counts them without expanding."""
    assume(
        not re.search(r"\{\{[\w.]+\}\}|\{\{\s[^{}|]*\}\}", written(tree))
    )  # refused: placeholders
    template = Wildcards().template(written(tree))
    assert meant(tree) == list(template.texts())
    assert template.count == len(meant(tree))


@settings(max_examples=60)
@given(text=st.text(alphabet="{}|\\_ab", max_size=25))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text hangs the parser or breaks it; what it takes, it can make."""
    try:
        template = Wildcards().template(text)
    except ConfigError:
        return
    assert sum(1 for _ in template.texts()) == template.count


@settings(max_examples=25)
@given(grid=grids, chosen=seeds, rows=st.integers(1, 4), n=st.integers(1, 2))
def test_images_are_the_product(
    grid: dict[str, list[Any]], chosen: list[int] | None, rows: int, n: int
) -> None:
    """Rows × values × seeds × n, each content once a copy, in the order of the product."""
    n = 1 if chosen is not None else n
    got = requests_of([f"fox {row}" for row in range(rows)], grid=grid, seeds=chosen, n=n)
    product = math.prod(map(len, grid.values())) * len(chosen or [None])
    assert rows * product * n == len(got)
    assert list(range(len(got))) == [r.index for r in got]
    assert len({r.key for r in got}) == len(got)
    assert len({r.content_key for r in got}) == rows * product


@settings(max_examples=25)
@given(grid=grids, chosen=seeds, shuffle=st.randoms(use_true_random=False))
def test_keys_do_not_depend_on_how_a_grid_is_written(
    grid: dict[str, list[Any]], chosen: list[int] | None, shuffle: random.Random
) -> None:
    """P27: the order of axes, values and rows changes the order of images, not which they are."""
    rows = ["a {red|grey} fox", "owl", "owl"]
    options: dict[str, Any] = {"seeds": chosen, "wildcards": True}
    expected = {r.key for r in requests_of(rows, grid=grid, **options)}
    names = shuffle.sample(sorted(grid), len(grid))
    other = {name: shuffle.sample(grid[name], len(grid[name])) for name in names}
    shuffle.shuffle(rows)
    assert expected == {r.key for r in requests_of(rows, grid=other, **options)}


cells = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\r\0\ufeff"), min_size=1
)
row_dicts = st.fixed_dictionaries(
    {"prompt": cells.filter(lambda text: bool(text.strip()))},
    optional={
        "width": st.sampled_from([256, 512]),
        "guidance": st.floats(1.5, 5) | st.integers(2, 5),
        "prompt_upsampling": st.booleans(),
        "seed": st.integers(0, 2**64 - 1),
    },
)


@settings(max_examples=30)
@given(rows=st.lists(row_dicts, min_size=1, max_size=6), separator=st.sampled_from(",;\t"))
def test_p27_a_table_and_lines_of_equal_content_have_equal_keys(
    rows: list[dict[str, Any]], separator: str
) -> None:
    """P27: whatever a prompt holds, saving the list as a table does not pay for it again."""
    with tempfile.TemporaryDirectory() as folder:
        lines, table = Path(folder, "p.jsonl"), Path(folder, "p.csv")
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
        names = ["prompt", "width", "guidance", "prompt_upsampling", "seed"]
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
        assert [r.key for r in requests_of(lines)] == [r.key for r in requests_of(table)]


pieces = st.sampled_from(
    [b"prompt", b"seed", b",", b";", b"\t", b'"', b'""', b"\n", b"\r\n", b"\r", b"fox", b"7", b"{",
     b"}", b"[", b"]", b":", b'{"prompt": "fox"}', b"\xe9", b"\xc3\xa9", b"\0", b"\xef\xbb\xbf",
     b" ", b"sep=", b"\\", b"\xff\xfe", b"1e999", b"NaN", b"null", b"\\ud800"]
)  # fmt: skip
contents = st.binary(max_size=40) | st.lists(pieces, max_size=25).map(b"".join)
suffixes = st.sampled_from(
    [".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".csv.gz", ".json.gz"]
)


@pytest.mark.slow
@settings(max_examples=150)
@given(content=contents, suffix=suffixes, sample=st.none() | st.just(2))
def test_any_bytes_are_a_list_or_are_refused(
    content: bytes, suffix: str, sample: int | None
) -> None:
    """Whatever a file holds, the check ends with a plan or with lines that say what is wrong, and
    both passes find the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"p{suffix}")
        path.write_bytes(content)
        first = requests_or_refusal(path, sample)
        assert first == requests_or_refusal(path, sample)
        if isinstance(first, str):
            assert len(first.splitlines()[0]) < 400
        else:
            assert all(request.prompt.strip() for request in first)


def requests_or_refusal(path: Path, sample: int | None) -> list[ImageRequest] | str:
    try:
        return requests_of(path, skip_bad=True, sample=sample)
    except ConfigError as error:
        return str(error)
