"""What must not change the identity of requests, for any prompts."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections import Counter
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fluxasync._models import ImageRequest
from fluxasync._sources import open_source
from fluxasync._sources._lines import Splitter

# no line ends, no NUL (a text that starts with every second one looks like UTF-16), few different
# ones so that duplicates are common
characters = st.characters(exclude_categories=("Cs",), exclude_characters="\r\n\0\ufeff")
prompts = st.lists(
    st.one_of(st.sampled_from(["fox", "owl"]), st.text(characters, min_size=1).map(str.strip))
    .filter(str.strip),
    max_size=12,
)  # fmt: skip
line_ends = st.sampled_from(["\n", "\r\n", "\r"])


def keys_of(source: Any) -> list[str]:
    async def read() -> list[str]:
        opened = open_source(source)
        async with aclosing(opened.requests()) as requests:
            keys = [r.key async for r in requests if isinstance(r, ImageRequest)]
        await opened.aclose()
        return keys

    return asyncio.run(read())


def keys_of_file(name: str, content: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content.encode())
        return keys_of(path)


@settings(max_examples=40, deadline=None)
@given(prompts=prompts, line_end=line_ends, mark=st.sampled_from(["", "\ufeff"]))
def test_the_form_of_a_file_does_not_change_its_keys(
    prompts: list[str], line_end: str, mark: str
) -> None:
    """P27: text, JSON lines and a list of the same prompts are the same images, in order."""
    expected = keys_of(prompts)
    assert expected == keys_of_file("p.txt", mark + line_end.join(prompts))
    rows = [json.dumps({"prompt": prompt}) for prompt in prompts]
    assert expected == keys_of_file("p.jsonl", mark + line_end.join([*rows, "", ""]))


@settings(max_examples=40, deadline=None)
@given(prompts=prompts, seed=st.integers(0, 99))
def test_shuffling_a_file_keeps_its_images(prompts: list[str], seed: int) -> None:
    """P27: the same prompts in another order are the same images, each one different."""
    shuffled = random.Random(seed).sample(prompts, len(prompts))
    keys = keys_of(prompts)
    assert Counter(keys) == Counter(keys_of(shuffled))
    assert len(prompts) == len(set(keys))


@settings(max_examples=40, deadline=None)
@given(prompts=prompts, extra=prompts)
def test_growing_a_file_keeps_the_images_it_had(prompts: list[str], extra: list[str]) -> None:
    """P27: prompts added at the end change no key before them."""
    assert keys_of(prompts) == keys_of([*prompts, *extra])[: len(prompts)]


@given(
    content=st.text(st.sampled_from("ab\r\n")).map(str.encode),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
def test_lines_do_not_depend_on_how_bytes_arrive(content: bytes, cuts: list[int]) -> None:
    """Blocks may end anywhere, even between CR and LF."""
    places = [0, *sorted(cut for cut in cuts if cut < len(content)), len(content)]
    splitter = Splitter()
    blocks = [content[start:end] for start, end in pairwise(places)]
    lines = [line for block in blocks for line in splitter.feed(block)] + splitter.finish()
    assert content.splitlines() == lines
