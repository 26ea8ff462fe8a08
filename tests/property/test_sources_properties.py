"""What must not change the identity of requests, for any prompts."""

from __future__ import annotations

import asyncio
import hashlib
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

from fluxasync import BadRow, ImageRequest, Plan, Prompts
from fluxasync._requests.sources import open_source
from fluxasync._requests.sources.lines import Splitter
from fluxasync._requests.sources.numbering import Occurrences

# no line ends, no NUL (a text that starts with every second one looks like UTF-16), few different
# ones so that duplicates are common
characters = st.characters(exclude_categories=("Cs",), exclude_characters="\r\n\0\ufeff")
prompts = st.lists(
    st.one_of(st.sampled_from(["fox", "owl"]), st.text(characters, min_size=1).map(str.strip))
    .filter(str.strip),
    max_size=12,
)  # fmt: skip
line_ends = st.sampled_from(["\n", "\r\n", "\r"])
states = st.lists(st.sampled_from([None, "done", "failed", "submitted"]), min_size=1, max_size=9)
rows = st.lists(
    st.one_of(
        st.builds(
            lambda prompt, seed, n: json.dumps({"prompt": prompt, "seed": seed, "n": n}),
            st.sampled_from(["fox", "owl"]),
            st.sampled_from([None, 1, 2]),
            st.integers(1, 4),
        ),
        st.sampled_from(["", "oops", '{"prompt": "elk"}', '{"prompt": "elk", "model": "flux-9"}']),
    ),
    max_size=12,
)  # fmt: skip


def keys_of(source: Any) -> list[str]:
    async def read() -> list[str]:
        opened = open_source(Prompts(source, syntax="as-written"))  # the subject is the form
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


Rows = list[ImageRequest | BadRow]


def resumed(
    folder: str, content: str, known: dict[str, str], limit: int | None = None
) -> tuple[Plan, Rows, Rows]:
    """The plan of a prompt file, what a run of it leaves to do, and all that there is."""
    path = Path(folder) / "p.jsonl"
    path.write_bytes(content.encode())

    async def read() -> tuple[Plan, Rows, Rows]:
        source = open_source(Prompts(path, skip_bad=True, limit=limit))
        async with aclosing(source.requests()) as requests:
            whole = [row async for row in requests]
        plan = await source.check(lookup=lambda keys: [known.get(key) for key in keys])
        async with aclosing(source.requests(skip={"done", "failed"})) as requests:
            left = [row async for row in requests]
        await source.aclose()
        return plan, left, whole

    return asyncio.run(read())


def in_short(rows: Rows) -> list[object]:
    return [row.where if isinstance(row, BadRow) else row for row in rows]


def images(rows: Rows) -> list[ImageRequest]:
    return [row for row in rows if isinstance(row, ImageRequest)]


@settings(max_examples=40, deadline=None)
@given(rows=rows, found=states, limit=st.one_of(st.none(), st.integers(1, 20)))
def test_a_resumed_source_is_the_whole_one_without_settled_images(
    rows: list[str], found: list[str | None], limit: int | None
) -> None:
    """P27: a resumed list yields what numbering everything again would, and no more."""
    with tempfile.TemporaryDirectory() as folder:
        whole = images(resumed(folder, "\n".join(rows), {}, limit)[2])
        known = {
            request.key: state
            for number, request in enumerate(whole)
            if (state := found[number % len(found)]) is not None
        }
        plan, left, everything = resumed(folder, "\n".join(rows), known, limit)
    expected = [
        row
        for row in everything
        if isinstance(row, BadRow) or known.get(row.key) not in ("done", "failed")
    ]
    assert in_short(expected) == in_short(left)
    assert Counter(known.values()) == plan.known
    assert len(whole) - len(known) == plan.to_do == plan.estimator.estimate(1).images


def edited(prompts: list[str], edit: str, extra: list[str], rng: random.Random) -> list[str]:
    if edit == "shuffle":
        return rng.sample(prompts, len(prompts))
    if edit == "delete":
        return [prompt for prompt in prompts if rng.random() < 0.6]
    if edit == "insert":
        mixed = list(prompts)
        for prompt in extra:
            mixed.insert(rng.randrange(len(mixed) + 1), prompt)
        return mixed
    return prompts


@settings(max_examples=40, deadline=None)
@given(
    prompts=prompts,
    edit=st.sampled_from(["shuffle", "delete", "insert", "re-encode"]),
    extra=prompts,
    line_end=line_ends,
    mark=st.sampled_from(["", "\ufeff"]),
    seed=st.integers(0, 99),
)
def test_an_edited_file_runs_only_new_prompts(
    prompts: list[str], edit: str, extra: list[str], line_end: str, mark: str, seed: int
) -> None:
    """P27, F139: finished images of each prompt stay finished after any edit of the file."""
    done = dict.fromkeys(keys_of(prompts), "done")
    now = edited(prompts, edit, extra, random.Random(seed))
    content = mark + line_end.join(json.dumps({"prompt": prompt}) for prompt in now)
    with tempfile.TemporaryDirectory() as folder:
        plan, left, _ = resumed(folder, content, done)
    new = Counter(now) - Counter(prompts)
    assert new == Counter(request.prompt for request in images(left))
    assert (len(now) - new.total(), new.total()) == (plan.known.get("done", 0), plan.to_do)


@settings(max_examples=40, deadline=None)
@given(prompts=prompts, cut=st.integers(0, 12))
def test_the_parts_of_a_split_file_have_no_new_images(prompts: list[str], cut: int) -> None:
    """P27: a part of a file has no image that the whole does not have."""
    whole = set(keys_of(prompts))
    parts = prompts[:cut], prompts[cut:]
    assert all(set(keys_of(part)) <= whole for part in parts)
    shared = Counter(parts[0]) & Counter(parts[1])
    assert len(prompts) - shared.total() == len({key for part in parts for key in keys_of(part)})


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(
    prompt=st.text(),
    model=st.text(),
    seed=st.one_of(st.none(), st.integers()),
    guidance=st.one_of(st.none(), st.integers(), st.floats(), st.booleans()),
    parameters=st.dictionaries(st.text(), json_values, max_size=2),
    extra_body=st.dictionaries(st.text(), json_values, max_size=4),
)
def test_a_key_is_the_digest_of_one_sorted_object(
    prompt: str, model: str, seed: int | None, guidance: Any, parameters: Any, extra_body: Any
) -> None:
    """P27: the key can be computed by anyone with JSON and SHA-256; guidance is a decimal."""
    given: dict[str, Any] = {"prompt": prompt, "model": model, "seed": seed, "guidance": guidance}
    request = ImageRequest(**given, parameters=parameters, extra_body=extra_body)
    decimal = float(guidance) if type(guidance) is int else guidance
    typed = {"prompt": prompt or None, "seed": seed, "guidance": decimal}
    sent = {k: v for each in (typed, parameters) for k, v in each.items() if v is not None}
    content = {"version": 1, "model": model, "parameters": sent, "extra_body": extra_body}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == request.content_key


@settings(max_examples=40, deadline=None)
@given(numbers=st.lists(st.integers(0, 9), max_size=60), room=st.integers(0, 10))
def test_occurrences_do_not_depend_on_memory(numbers: list[int], room: int) -> None:
    """Contents that fit in memory and those that do not are counted alike."""
    seen: Counter[int] = Counter()
    occurrences = Occurrences(room=room)
    for number in numbers:
        digest = hashlib.sha256(bytes([number])).hexdigest()
        assert seen[number] == occurrences.count(digest)
        seen[number] += 1
    occurrences.close()
