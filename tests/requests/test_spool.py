"""A checked list on disk: the same keys in every run, the remaining rows, no files left behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from support.patience import patient
from support.prompt_lists import open_list, saved
from support.sample_images import png

from fluxasync import BadRow, ImageRequest, JournalError, Plan
from fluxasync._requests.sources import Lookup, Source
from fluxasync._requests.sources.numbering import Occurrences
from fluxasync._requests.sources.spool import Spool

SETTLED = frozenset({"done", "failed", "in_doubt"})


async def numbered(source: Source, **options: Any) -> list[ImageRequest | BadRow]:
    async with aclosing(source.requests(**options)) as requests:
        return [request async for request in requests]


async def key_list(given: Any, **options: Any) -> list[str]:
    source = open_list(given, **options)
    rows = await numbered(source)
    await source.aclose()
    return [row.key for row in rows if isinstance(row, ImageRequest)]


async def resumed(
    given: Any, lookup: Lookup, **options: Any
) -> tuple[Plan, list[ImageRequest | BadRow]]:
    source = open_list(given, **options)
    try:
        plan = await source.check(lookup=lookup)
        return plan, await numbered(source, skip=SETTLED)
    finally:
        await source.aclose()


def known(states: dict[str, str]) -> Lookup:
    return lambda keys: [states.get(key) for key in keys]


def all_done(keys: Sequence[str]) -> list[str | None]:
    return ["done"] * len(keys)


def places(rows: list[ImageRequest | BadRow]) -> list[tuple[int, int, str]]:
    return [(r.index, r.occurrence, r.prompt) for r in rows if isinstance(r, ImageRequest)]


def list_of_words(folder: Path) -> Any:
    return [f"fox {number % 37}" for number in range(200)]


def list_of_rows(folder: Path) -> Any:
    return [
        {"prompt": f"owl {n % 11}", "seed": n % 3 or None, "n": n % 4 + 1, "width": 512}
        for n in range(60)
    ]


def lines(folder: Path) -> Any:
    return saved(folder, "p.txt", "\n\n".join(list_of_words(folder)))


def objects(folder: Path) -> Any:
    return saved(folder, "p.jsonl", "\n".join(map(json.dumps, list_of_rows(folder))))


def one_json_list(folder: Path) -> Any:
    return saved(folder, "p.json", json.dumps(list_of_rows(folder)))


def cells(folder: Path) -> Any:
    rows = [f"owl {n % 11};{n % 3 or ''};{n % 4 + 1};512" for n in range(60)]
    return saved(folder, "p.csv", "\n".join(["prompt;seed;n;width", *rows]))


def captions(folder: Path) -> Any:
    for number in range(40):
        saved(folder, f"{number:03}.txt", f"bat {number % 7}\n")
    return folder


def choices(folder: Path) -> Any:
    return [f"{{red|grey}} elk {number % 5}" for number in range(20)]


def photographs(folder: Path) -> Any:
    rows = [
        {"prompt": f"fox {n % 4}", "model": "flux-pro-1.1", "image_prompt": f"{n % 3}.png"}
        for n in range(12)
    ]
    for number in range(3):
        saved(folder, f"{number}.png", png(128, 128 + 16 * number))
    return saved(folder, "p.jsonl", "\n".join(map(json.dumps, rows)))


#: list, options → digest of the keys in order, as version 0.1.0 made them
RECORDED = [
    (list_of_words, {}, "1ffb4e37cdd098a3"),
    (list_of_words, {"limit": 57}, "bdd66b5445a9072e"),
    (list_of_words, {"sample": 20}, "c0590c124d34e3f9"),
    (list_of_words, {"n": 3}, "57541e766860f99d"),
    (list_of_rows, {}, "167eefa9a08eb709"),
    (list_of_rows, {"limit": 31}, "bbc4dda814c1e945"),
    (list_of_rows, {"sample": 9, "sample_seed": 4}, "44eec606bf7055fc"),
    (lines, {}, "1ffb4e37cdd098a3"),
    (lines, {"limit": 57}, "bdd66b5445a9072e"),
    (lines, {"sample": 20}, "83b41fb8c9792e69"),
    (lines, {"sample": 20, "sample_seed": 7}, "10db881f25e695ec"),
    (lines, {"sample": 20, "limit": 11}, "3c6fa66d21f97256"),
    (
        lines,
        {"seeds": (1, 2), "models": ("flux-dev", "flux-pro-1.1"), "grid": {"steps": [20, 30]}},
        "bd04d7014ac4dbea",
    ),
    (objects, {}, "167eefa9a08eb709"),
    (objects, {"sample": 9, "sample_seed": 4}, "7514ce1f0fd247fd"),
    (one_json_list, {}, "167eefa9a08eb709"),
    (one_json_list, {"sample": 9}, "3c19083918924e21"),
    (cells, {}, "167eefa9a08eb709"),
    (cells, {"sample": 9}, "b6108893fb0b628b"),
    (captions, {}, "7908e9264ef392f6"),
    (captions, {"sample": 9}, "783b639cfba715d7"),
    (choices, {"wildcards": True, "sample": 7}, "10535d90edab1c12"),
    (photographs, {}, "89e9a4fcad4e3062"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("make", "options", "recorded"), RECORDED)
async def test_p27_keys_are_those_that_earlier_versions_made(
    tmp_path: Path, make: Callable[[Path], Any], options: dict[str, Any], recorded: str
) -> None:
    """P27: a folder that an earlier version began is carried on, its sample and limit included."""
    keys = await key_list(make(tmp_path), **options)
    assert hashlib.sha256("".join(keys).encode()).hexdigest()[:16] == recorded


@pytest.mark.asyncio
async def test_p27_a_list_that_grew_keeps_the_keys_of_its_rows(tmp_path: Path) -> None:
    """P27: rows added at the end change no key above them, repeats included."""
    path = lines(tmp_path)
    before = await key_list(path)
    path.write_text(path.read_text() + "\nfox 1\nelk\n")
    after = await key_list(path)
    assert (after[:200], len(set(after))) == (before, 202)


PROMPTS = ["fox", "owl", "fox", "bat", "fox", "elk"]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [pytest.param("file", id="P27 file"), pytest.param("list")])
async def test_settled_images_are_left_out_and_the_others_keep_their_numbers(
    tmp_path: Path, kind: str
) -> None:
    """Every run gives an image the index, occurrence and key that it has in the whole source."""
    path = saved(tmp_path, "prompts.txt", "\n\n".join(PROMPTS))
    given: Any = path if kind == "file" else PROMPTS
    keys = await key_list(given)
    states = {keys[0]: "done", keys[2]: "failed", keys[3]: "submitted", keys[5]: "in_doubt"}
    plan, rows = await resumed(given, known(states))
    assert plan.known == {"done": 1, "failed": 1, "submitted": 1, "in_doubt": 1}
    assert (plan.images, plan.to_do, plan.estimator.estimate(1).images) == (6, 2, 2)
    assert places(rows) == [(1, 0, "owl"), (3, 0, "bat"), (4, 2, "fox")]
    assert [keys[1], keys[3], keys[4]] == [r.key for r in rows if isinstance(r, ImageRequest)]


@pytest.mark.asyncio
@pytest.mark.parametrize("given", [pytest.param(PROMPTS, id="list"), pytest.param(None, id="file")])
async def test_nothing_is_left_out_by_default(tmp_path: Path, given: list[str] | None) -> None:
    """Without `skip` every request is yielded, known or not."""
    source = open_list(given or saved(tmp_path, "prompts.txt", "\n".join(PROMPTS)))
    await source.check(lookup=all_done)
    rows = await numbered(source)
    await source.aclose()
    assert list(zip(range(6), [0, 0, 1, 0, 2, 0], PROMPTS, strict=True)) == places(rows)


@pytest.mark.asyncio
async def test_without_a_lookup_everything_is_to_do() -> None:
    """A plan made without one says so in the same words."""
    source = open_list(PROMPTS)
    plan = await source.check()
    assert (dict(plan.known), plan.to_do) == ({}, 6)
    assert len(await numbered(source, skip=SETTLED)) == 6
    await source.aclose()


@pytest.mark.asyncio
async def test_a_stream_leaves_nothing_out() -> None:
    """What comes once cannot be asked about before it is run."""
    source = open_list(iter(PROMPTS))
    plan = await source.check(lookup=all_done)
    assert (plan.images, dict(plan.known), plan.to_do) == (None, {}, None)
    assert len(await numbered(source, skip=SETTLED)) == 6
    await source.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["file", "list"])
async def test_images_of_one_row_are_settled_one_by_one(tmp_path: Path, kind: str) -> None:
    """A row of several images is read again for those that are to do, seeds and all."""
    row = {"prompt": "fox", "seed": 7, "n": 4}
    path = saved(tmp_path, "prompts.jsonl", '{"prompt": "fox", "seed": 7, "n": 4}\n')
    given: Any = path if kind == "file" else [row]
    keys = await key_list(given)
    plan, rows = await resumed(given, known({keys[1]: "done", keys[2]: "done"}))
    assert (plan.to_do, plan.estimator.estimate(1).images) == (2, 2)
    assert [(r.index, r.seed, r.n) for r in rows if isinstance(r, ImageRequest)] == [
        (0, 7, 1),
        (3, 10, 1),
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["file", "list"])
async def test_a_lookup_is_asked_in_blocks_off_the_loop(tmp_path: Path, kind: str) -> None:
    """P21: a question may read a disk, so it is short and never stops the loop."""
    asked: list[tuple[int, str]] = []

    def lookup(keys: Sequence[str]) -> list[str | None]:
        asked.append((len(keys), threading.current_thread().name))
        return ["done"] * len(keys)

    rows = ['{"prompt": "fox", "n": 5000}', *(f'{{"prompt": "owl {i}"}}' for i in range(900))]
    path = saved(tmp_path, "prompts.jsonl", "\n".join(rows))
    owls = [f"owl {i}" for i in range(900)]
    given: Any = path if kind == "file" else [{"prompt": "fox", "n": 5000}, *owls]
    plan, left = await resumed(given, lookup)
    assert (dict(plan.known), left) == ({"done": 5900}, [])
    assert sum(count for count, _ in asked) == 5900
    assert max(count for count, _ in asked) <= 500
    [thread] = {name for _, name in asked}
    assert thread.startswith("fluxasync-source")


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["file", "list"])
async def test_settled_rows_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A photograph that is gone spoils only the rows that still need it."""
    monkeypatch.chdir(tmp_path)
    image = saved(tmp_path, "a.png", png(128, 128))
    rows = [
        {"prompt": p, "model": "flux-pro-1.1", "image_prompt": str(image)} for p in ("fox", "owl")
    ]
    lines = "\n".join(str(row).replace("'", '"') for row in rows)
    given: Any = saved(tmp_path, "prompts.jsonl", lines) if kind == "file" else rows
    keys = await key_list(given)
    source = open_list(given)
    await source.check(lookup=known({keys[0]: "done"}))
    image.unlink()
    [missing] = await numbered(source, skip=SETTLED)
    await source.aclose()
    assert isinstance(missing, BadRow)
    assert missing.where in ("prompts.jsonl line 2", "item 2")


@pytest.mark.asyncio
async def test_an_image_allowed_again_is_held_to_the_list_s_folder(tmp_path: Path) -> None:
    """S6: an image that `resolve --resubmit` allowed is read again, and a link out is refused."""
    (tmp_path / "list").mkdir()
    image = saved(tmp_path / "list", "a.png", png(128, 128))
    row = '{"prompt": "fox", "model": "flux-pro-1.1", "image_prompt": "a.png"}\n'
    path = saved(tmp_path / "list", "prompts.jsonl", row)
    [key] = await key_list(path)
    source = open_list(path)
    await source.check(lookup=known({key: "again"}))
    image.rename(tmp_path / "private.png")  # the same bytes, now elsewhere
    image.symlink_to(tmp_path / "private.png")
    [refused] = await numbered(source, skip=SETTLED)
    await source.aclose()
    assert isinstance(refused, BadRow)
    assert "outside the list's folder" in str(refused)


@pytest.mark.asyncio
async def test_an_image_that_changed_after_the_check_is_a_bad_row(tmp_path: Path) -> None:
    """Its occurrence was counted for other content, so that it may be another image's key."""
    image = saved(tmp_path, "a.png", png(128, 128))
    row = '{"prompt": "fox", "model": "flux-pro-1.1", "image_prompt": "a.png"}\n'
    source = open_list(saved(tmp_path, "prompts.jsonl", row + '{"prompt": "owl"}\n'))
    await source.check(lookup=known({}))
    image.write_bytes(png(160, 160))
    changed, owl = await numbered(source, skip=SETTLED)
    await source.aclose()
    assert str(changed).startswith("prompts.jsonl line 1: an image input changed")
    assert isinstance(owl, ImageRequest)
    assert owl.index == 1


@pytest.mark.asyncio
async def test_bad_rows_stay_in_their_places(tmp_path: Path) -> None:
    """Rows that were skipped as bad come again, between the images that are to do."""
    path = saved(tmp_path, "prompts.jsonl", '{"prompt":"fox"}\noops\n{"prompt":"owl"}\noops\n')
    keys = await key_list(path, skip_bad=True)
    plan, rows = await resumed(path, known({keys[0]: "done"}), skip_bad=True)
    assert (plan.images, plan.bad, plan.to_do) == (2, 2, 1)
    wheres = [row.where if isinstance(row, BadRow) else row.index for row in rows]
    assert wheres == ["prompts.jsonl line 2", 1, "prompts.jsonl line 4"]


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [1023, 1024, 1025, 3000, 9000])
async def test_a_limit_counts_known_images(tmp_path: Path, limit: int) -> None:
    """The limit is of the whole source, wherever it falls in the blocks of a file."""
    lines = (f"{number:05}".ljust(1023, "x") + "\n" for number in range(3000))  # 1,024 a block
    path = saved(tmp_path, "prompts.txt", "".join(lines))
    keys = await key_list(path, limit=limit)
    states = dict.fromkeys(keys[:-2], "done")
    plan, rows = await resumed(path, known(states), limit=limit)
    images = min(limit, 3000)
    assert (plan.images, plan.to_do) == (images, 2)
    assert [index for index, _, _ in places(rows)] == [images - 2, images - 1]
    assert (await resumed(path, all_done, limit=limit))[1] == []


@pytest.mark.asyncio
async def test_a_limit_ends_within_a_row(tmp_path: Path) -> None:
    """Images beyond the limit are neither asked for nor yielded."""
    path = saved(tmp_path, "prompts.jsonl", '{"prompt":"owl"}\n{"prompt":"fox","n":9}\noops\n')
    plan, rows = await resumed(path, known({}), limit=3)
    assert (plan.images, plan.to_do, plan.estimator.estimate(1).images) == (3, 3, 3)
    assert places(rows) == [(0, 0, "owl"), (1, 0, "fox"), (2, 1, "fox")]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["file", "list"])
async def test_a_lookup_that_fails_ends_the_check(tmp_path: Path, kind: str) -> None:
    """A journal that cannot be read is not taken for an empty one; a new check starts afresh."""

    def broken(keys: Sequence[str]) -> list[str | None]:
        raise JournalError("cannot be read")

    given: Any = saved(tmp_path, "p.txt", "fox\nowl\n") if kind == "file" else ["fox", "owl"]
    source = open_list(given)
    with pytest.raises(JournalError, match="cannot be read"):
        await source.check(lookup=broken)
    assert len(await numbered(source, skip=SETTLED)) == 2
    assert (await source.check(lookup=all_done)).to_do == 0
    assert await numbered(source, skip=SETTLED) == []
    await source.aclose()


@pytest.mark.asyncio
async def test_two_readers_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A run that was left in the middle can be begun again beside it."""
    path = saved(tmp_path, "prompts.txt", "fox\nowl\nfox\nbat\n" * 1_500)
    source = open_list(path)
    await source.check(lookup=known({}))
    expected = await numbered(source)
    async with aclosing(source.requests()) as first, aclosing(source.requests()) as second:
        for _ in range(4_500):
            await anext(first)
        assert expected[0] == await anext(second)
        assert expected[4_500] == await anext(first)
    await source.aclose()


@pytest.mark.asyncio
async def test_a_cancelled_check_leaves_nothing_to_run(tmp_path: Path) -> None:
    """A cancelled check leaves nothing that a run could use."""
    source = open_list(saved(tmp_path, "prompts.txt", "fox\n" * 5_000))
    with pytest.raises(asyncio.CancelledError):
        await source.check(
            lookup=all_done,
            progress=lambda rows: asyncio.current_task().cancel(),  # type: ignore[union-attr]
        )
    assert len(await numbered(source, skip=SETTLED)) == 5_000
    await source.aclose()


@pytest.mark.asyncio
async def test_a_full_temporary_folder_is_named(tmp_path: Path) -> None:
    """The run's own folder may be fine: the message names the other one."""
    path = saved(tmp_path, "p.txt", ("fox " * 1_000 + "\n") * 10_000)
    source = open_list(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(JournalError, match="set TMPDIR"):
            await source.check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (await source.check()).images == 10_000
    await source.aclose()


CHECK = """
import asyncio, os, signal, sys
from pathlib import Path
from fluxasync._requests.sources import open_source

def peak():
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1]) // 1024

async def main(path, end):
    source = open_source(path)
    before = peak()
    plan = await source.check()
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    spooled = [path for path in links if os.readlink(path).startswith(os.environ["TMPDIR"])]
    print(plan.images, len(spooled), len(os.listdir(os.environ["TMPDIR"])), peak() - before)
    sys.stdout.flush()
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    await source.aclose()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("end", "count"), [("close", 100_000), ("kill", 40_000)])
def test_a_long_list_is_neither_in_memory_nor_left_on_the_disk(
    tmp_path: Path, end: str, count: int
) -> None:
    """60 MB of prompts take half of that in memory; their table has no name, and ends with us."""
    prompts = (f"fox {number} ".ljust(600, "x") for number in range(count))
    path = saved(tmp_path, "p.txt", "\n".join(prompts))
    (tmp_path / "tmp").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", CHECK, str(path), end],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "SQLITE_TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        timeout=patient(60),
    )
    assert not ended.stderr
    images, tables, names, grown = map(int, ended.stdout.split())
    assert (images, tables, names) == (count, 1, 0)
    assert grown < 35
    assert list((tmp_path / "tmp").iterdir()) == []
    assert ended.returncode == (0 if end == "close" else -signal.SIGKILL)


def test_occurrences_are_exact_beyond_their_memory() -> None:
    """What no longer fits is counted on the disk, with the same answers."""
    with closing(Occurrences(room=3)) as occurrences:
        keys = [f"{number % 7:064x}" for number in range(70)]
        assert [number // 7 for number in range(70)] == [occurrences.count(key) for key in keys]


def test_a_full_bucket_takes_nothing_from_the_next() -> None:
    """Overflow of one bucket is counted on disk, and other buckets keep their contents."""
    neighbour = "00" * 16 + "aa" + "1" + "0" * 29
    crowd = ["00" * 16 + "aa" + f"{number:030x}" for number in range(30)]
    with closing(Occurrences(room=40)) as occurrences:
        for times in range(3):
            assert [occurrences.count(key) for key in (neighbour, *crowd)] == [times] * 31


def test_contents_are_distinguished_within_a_bucket() -> None:
    """The end of one and the start of the next are not a third."""
    tails = ["ab" + "ac" + "cd" * 13, "ab" + "ef" * 14]
    across = ("".join(tails))[2:32]
    keys = ["00" * 16 + "aa" + tail for tail in (*tails, across, tails[1])]
    with closing(Occurrences()) as occurrences:
        assert [occurrences.count(key) for key in keys] == [0, 0, 0, 1]


def test_a_spool_that_is_never_closed_closes_its_table() -> None:
    """S5 A batch that was checked and dropped leaves no open database behind."""
    spool = Spool()
    table = spool._table
    del spool
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        table.execute("SELECT 1")
