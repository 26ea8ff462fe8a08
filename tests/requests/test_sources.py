"""Prompt files and iterables become requests, or are refused before anything is spent."""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from support.patience import patient
from support.prompt_lists import everything, open_list, plan_of, requests_of, saved

from fluxasync import BadRow, ConfigError, ImageInput, ImageRequest, Plan
from fluxasync._requests.sources.lines import LINE_CAP, Splitter
from fluxasync._requests.sources.numbering import Occurrences
from fluxasync._requests.sources.parquet_pages import NotPages, pages_of
from fluxasync._requests.sources.stream import lines_of

FOX = '{"prompt": "a red fox"}'


BAD_LINES = [
    pytest.param(b'{"prompt": "fox"', "not JSON", id="F130 cut off"),
    pytest.param(b"{'prompt': 'fox'}", "column 2: not JSON", id="F130 single quotes"),
    pytest.param(b'{"prompt": "fox"} {}', "column 18: not JSON", id="F130 two objects"),
    pytest.param(b'{"prompt": "a", "prompt": "b"}', "duplicate key 'prompt'", id="F130 same key"),
    pytest.param(b'["fox"]', "not a JSON object", id="F130 a list"),
    pytest.param(b'"fox"', "not a JSON object", id="F130 bare text"),
    pytest.param(b'{"width": 512}', "the prompt is empty", id="F130 no prompt"),
    pytest.param(b'{"prompt": null, "sku": 2}', "the prompt is empty", id="F130 null"),
    pytest.param(b'{"prompt": " "}', "the prompt is empty", id="F134 only spaces"),
    pytest.param(b'{"prompt": 7}', "a prompt is text", id="F130 a number as prompt"),
    pytest.param(b'{"prompt": "caf\xe9"}', "column 16: byte 0xe9", id="F133 Latin-1"),
    pytest.param(
        b'{"prompt": "' + b"x" * LINE_CAP + b'"}', "longer than 1,000,000 bytes", id="F135 long"
    ),
    pytest.param(b'{"prompt": "fox", "guidance": NaN}', "NaN is not a number", id="F137 NaN"),
    pytest.param(b'{"prompt": "fox", "mine": -Infinity}', "-Infinity is not", id="F137 infinity"),
    pytest.param(b'{"prompt": "fox", "guidance": 1e999}', "1e999 is too large", id="F137 1e999"),
    pytest.param(
        b'{"prompt": "fox", "seed": ' + b"9" * 5000 + b"}",
        "thousands of digits",
        id="F137 5,000 digits",
    ),
    pytest.param(
        b'{"prompt": "fox", "mine": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        "nested deeper than 64",
        id="F130 200,000 levels",
    ),
    pytest.param(
        b'{"prompt": "fox", "mine": ' + b"[" * 64 + b"]" * 64 + b"}",
        "nested deeper than 64",
        id="F130 65 levels",
    ),
    pytest.param(b'{"prompt": "\\ud83e"}', "surrogate", id="F130 half a surrogate pair"),
    pytest.param(b'{"prompt": "a", "my": ["\\uD83E"]}', "surrogate", id="F130 half a pair inside"),
    pytest.param(b'{"prompt": "fox", "width": 1023}', "width=1023", id="F137 width 1023"),
    pytest.param(b'{"prompt": "fox", "widht": 1024}', "widht", id="F137 misspelt"),
    pytest.param(
        b'{"prompt": "fox", "aspect_ratio": "1:1"}', "aspect_ratio", id="F137 another model's"
    ),
    pytest.param(b'{"prompt": "fox", "seed": %d}' % 2**70, "seed=", id="F137 seed 2^70"),
    pytest.param(b'{"prompt": "fox", "n": 0}', "n=0", id="F137 no images"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
async def test_bad_line_is_named_before_anything_is_yielded(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    """The whole file is checked first, and the error says file, line and reason on one line."""
    path = saved(tmp_path, "prompts.jsonl", f"{FOX}\n\n".encode() + line + b"\n")
    source = open_list(path)
    async with aclosing(source.requests()) as requests:
        with pytest.raises(ConfigError) as caught:
            await anext(requests)
    await source.aclose()
    assert str(caught.value).startswith("prompts.jsonl line 3: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.asyncio
async def test_bad_line_far_down_is_found_with_its_number(tmp_path: Path) -> None:
    """F130: line 7,312 of many blocks of rows is found by the check."""
    path = saved(tmp_path, "prompts.jsonl", f"{FOX}\n" * 7311 + "{oops}\n" + f"{FOX}\n" * 700)
    with pytest.raises(ConfigError, match=r"^prompts\.jsonl line 7312: "):
        await plan_of(path)


@pytest.mark.asyncio
async def test_first_ten_bad_lines_are_listed(tmp_path: Path) -> None:
    """A file of another kind does not fill the screen: ten different complaints, then a count."""
    path = saved(tmp_path, "prompts.jsonl", "".join(f'{{"seed": "x{n}"}}\n' for n in range(1234)))
    with pytest.raises(ConfigError) as caught:
        await plan_of(path)
    lines = str(caught.value).splitlines()
    assert [f"prompts.jsonl line {n}" for n in range(1, 11)] == [
        x.split(":")[0] for x in lines[:10]
    ]
    assert lines[10:] == ["and 1,224 more"]


@pytest.mark.asyncio
async def test_skip_bad_yields_bad_rows_in_their_places(tmp_path: Path) -> None:
    """A bad row becomes a value with its place, and takes no number."""
    path = saved(tmp_path, "prompts.jsonl", f"{FOX}\noops\n{FOX}\n")
    plan = await plan_of(path, skip_bad=True)
    assert (plan.images, plan.rows, plan.bad) == (2, 3, 1)
    first, bad, second = await everything(open_list(path, skip_bad=True))
    assert isinstance(first, ImageRequest)
    assert isinstance(second, ImageRequest)
    assert isinstance(bad, BadRow)
    assert bad.where == "prompts.jsonl line 2"
    assert bad.where == plan.first_bad[0].where
    assert [(r.index, r.occurrence) for r in (first, second)] == [(0, 0), (1, 1)]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbfa red fox\nein Schlo\xc3\x9f\n", id="F131 byte order mark"),
        pytest.param(b"a red fox\r\nein Schlo\xc3\x9f\r\n", id="F132 CRLF"),
        pytest.param(b"a red fox\rein Schlo\xc3\x9f\r", id="F132 lone CR"),
        pytest.param(b"a red fox\nein Schlo\xc3\x9f", id="F132 no last newline"),
        pytest.param(b"a red fox\n\n \t\n\xef\xbb\xbfein Schlo\xc3\x9f\n\n", id="F134 blank lines"),
    ],
)
async def test_line_ends_and_encoding_marks_do_not_change_keys(
    tmp_path: Path, content: bytes
) -> None:
    """Another editor's line ends, mark or blank lines do not make a run pay again."""
    expected = [r.key for r in await requests_of(["a red fox", "ein Schloß"])]
    got = await requests_of(saved(tmp_path, "prompts.txt", content))
    assert expected == [r.key for r in got]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "encoding",
    [
        pytest.param("utf-16", id="F131 with its mark"),
        pytest.param("utf-16-le", id="F131 little endian, unmarked"),
        pytest.param("utf-16-be", id="F131 big endian, unmarked"),
        pytest.param("utf-32", id="F131 UTF-32"),
    ],
)
@pytest.mark.parametrize("name", ["prompts.txt", "prompts.jsonl"])
async def test_utf_16_is_named(tmp_path: Path, encoding: str, name: str) -> None:
    """The error says what the file is instead of complaining about each line."""
    path = saved(tmp_path, name, f"{FOX}\n{FOX}\n".encode(encoding))
    with pytest.raises(ConfigError, match=f"^{name} is UTF-16 or UTF-32; save it as UTF-8$"):
        await plan_of(path, skip_bad=True)


@pytest.mark.asyncio
async def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    """F134: empty prompts are not paid for, and the plan counts them apart from rows."""
    plan = await plan_of(saved(tmp_path, "prompts.txt", "a fox\n\n   \n\t\nan owl\n"))
    assert (plan.images, plan.rows, plan.blank) == (2, 2, 3)


@pytest.mark.asyncio
async def test_odd_characters_are_kept_as_data(tmp_path: Path) -> None:
    """F136: NUL, ESC, bidi controls, line separators, quotes and emoji reach the request."""
    prompts = ["a\0b", "red \x1b[31mfox", "\u202efox", "two\u2028lines", '"the" 🦊\'s den', "{fox}"]
    path = saved(tmp_path, "prompts.txt", "\n".join(prompts))
    assert prompts == [r.prompt for r in await requests_of(path)]
    rows = "\n".join(json.dumps({"prompt": prompt}) for prompt in prompts)
    path = saved(tmp_path, "prompts.jsonl", rows)
    assert prompts == [r.prompt for r in await requests_of(path)]


@pytest.mark.asyncio
async def test_many_brackets_are_not_depth(tmp_path: Path) -> None:
    """What counts is the nesting, not how many lists there are or what a prompt says."""
    row = {"prompt": "[" * 100 + "{fox}", "mine": [[number] for number in range(100)]}
    [request] = await requests_of(saved(tmp_path, "prompts.jsonl", json.dumps(row)))
    assert row == {"prompt": request.prompt, **request.extras}


@pytest.mark.asyncio
async def test_images_of_a_stream_are_read_as_they_come(tmp_path: Path) -> None:
    """A stream's image that is missing spoils its own item only."""
    image = saved(tmp_path, "a.png", png(128))
    rows = [
        {"prompt": "fox", "model": "flux-pro-1.1", "image_prompt": path}
        for path in (image, tmp_path / "gone.png")
    ]
    found, missing = await everything(open_list(iter(rows)))
    assert isinstance(found, ImageRequest)
    assert found.key
    assert isinstance(missing, BadRow)
    assert missing.where == "item 2"


@pytest.mark.asyncio
async def test_long_lines_do_not_stop_the_rows_after_them(tmp_path: Path) -> None:
    """F135: a line of 10 MB is one bad row, held only up to the cap."""
    path = saved(tmp_path, "prompts.txt", b"fox\n" + b"x" * 10_000_000 + b"\nowl\n")
    plan = await plan_of(path, skip_bad=True)
    assert (plan.images, plan.bad) == (2, 1)
    splitter = Splitter()
    assert [line for _ in range(10) for line in splitter.feed(b"x" * 2**20)] == []
    assert [len(line) for line in splitter.finish()] == [LINE_CAP + 1]


@pytest.mark.asyncio
async def test_duplicates_are_images_of_their_own(tmp_path: Path) -> None:
    """F138: equal rows differ by their occurrence, the same in every run."""
    path = saved(tmp_path, "prompts.txt", "fox\nowl\nfox\nfox\n")
    first, second = await requests_of(path), await requests_of(path)
    assert [(r.index, r.occurrence) for r in first] == [(0, 0), (1, 0), (2, 1), (3, 2)]
    assert len({r.key for r in first}) == 4
    assert first == second


@pytest.mark.asyncio
async def test_n_makes_images_of_their_own(tmp_path: Path) -> None:
    """Copies count as occurrences after grids; a row's own n comes before the source's."""
    path = saved(
        tmp_path, "p.jsonl", '{"prompt":"fox"}\n{"prompt":"owl","n":1}\n{"prompt":"fox"}\n'
    )
    assert (await plan_of(path, n=2)).images == 5
    got = await requests_of(path, n=2)
    assert list(range(5)) == [r.index for r in got]
    assert [r.occurrence for r in got] == [0, 1, 0, 2, 3]
    assert {1} == {r.n for r in got}


@pytest.mark.asyncio
async def test_given_numbers_are_overwritten() -> None:
    """An ImageRequest that was used before gets its place in this run."""
    used = ImageRequest(prompt="fox", index=7, occurrence=3)
    got = await requests_of([used, used, ImageRequest(prompt="fox", n=2)])
    assert [(r.index, r.occurrence) for r in got] == [(0, 0), (1, 1), (2, 2), (3, 3)]


@pytest.mark.asyncio
async def test_limit_ends_within_a_row(tmp_path: Path) -> None:
    """The limit counts images, and rows after it are neither read nor checked."""
    path = saved(tmp_path, "prompts.jsonl", f"{FOX}\n{FOX}\noops\n")
    assert (await plan_of(path, n=2, limit=3)).images == 3
    assert len(await requests_of(path, n=2, limit=3)) == 3
    assert len(await requests_of(["fox", "owl", 7], n=2, limit=3)) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: path.write_text("fox\nbat\n"), id="F139 other text"),
        pytest.param(lambda path: path.open("a").write("elk\n"), id="F139 longer"),
        pytest.param(lambda path: os.truncate(path, 4), id="F139 shorter"),
        pytest.param(
            lambda path: (path.rename(path.parent / "old"), path.write_text("fox\nowl\n")),
            id="F139 replaced",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the one-line changes leave files to gc
async def test_a_file_that_changed_after_its_check_is_run_as_checked(
    tmp_path: Path, change: Any
) -> None:
    """Nothing is made from rows that were not checked, and nothing that was is lost."""
    path = saved(tmp_path, "prompts.txt", "fox\nowl\n")
    source = open_list(path)
    await source.check()
    change(path)
    rows = await everything(source)
    assert [r.prompt for r in rows if isinstance(r, ImageRequest)] == ["fox", "owl"]


@pytest.mark.asyncio
async def test_a_list_is_checked_whole_before_anything_is_yielded() -> None:
    """The last item of a list is checked before the first is paid."""
    given = ["fox", {"prompt": "owl", "width": 1023}, object(), ImageRequest(prompt="")]
    with pytest.raises(ConfigError) as caught:
        await everything(open_list(given))
    places = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert places == ["item 2", "item 3", "item 4"]


@pytest.mark.asyncio
async def test_a_stream_yields_bad_items_as_values() -> None:
    """A stream continues after a bad item."""
    source = open_list(item for item in ["fox", 7, "owl"])
    assert not source.re_readable
    assert Plan(images=None).images is (await source.check()).images
    fox, bad, owl = await everything(source)
    assert isinstance(bad, BadRow)
    assert str(bad) == "item 2: a request is text, a dict or an ImageRequest, not int"
    assert [r.index for r in (fox, owl) if isinstance(r, ImageRequest)] == [0, 1]


@pytest.mark.asyncio
async def test_a_stream_is_read_once() -> None:
    """A second reading would silently be empty."""
    source = open_list(iter(["fox"]))
    await everything(source)
    with pytest.raises(ConfigError, match="read once"):
        await everything(source)


@pytest.mark.asyncio
async def test_leaving_early_closes_the_generator() -> None:
    """The program's generator ends when its source does, and no item too many is taken from it."""
    seen: list[str] = []

    def endless() -> Iterator[str]:
        try:
            while True:
                seen.append("taken")
                yield "fox"
        finally:
            seen.append("closed")

    assert len(await requests_of(endless(), limit=2)) == 2
    assert seen == ["taken", "taken", "closed"]


@pytest.mark.asyncio
async def test_async_iterables_are_streams() -> None:
    """Requests come as the program makes them, and its generator is closed."""
    ended = asyncio.Event()

    async def prompts() -> AsyncIterator[str]:
        try:
            for prompt in ("fox", "owl", "bat"):
                await asyncio.sleep(0)
                yield prompt
        finally:
            ended.set()

    assert [r.prompt for r in await requests_of(prompts(), limit=2)] == ["fox", "owl"]
    assert ended.is_set()


@pytest.mark.asyncio
async def test_a_long_list_leaves_turns_to_the_loop() -> None:
    """Other tasks run while thousands of rows are checked."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await plan_of(["fox"] * 2_000)
    task.cancel()
    assert turns >= 20


@pytest.mark.asyncio
async def test_the_plan_names_metadata_keys_and_unknown_models(tmp_path: Path) -> None:
    """The plan names own keys once, except those inside "extras", and unknown models."""
    rows = [
        {"prompt": "fox", "animal": "fox", "shelf": 3},
        {"prompt": "owl", "shelf": 4, "extras": {"quiet": True}},
        {"prompt": "bat", "model": "flux-9-dream"},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    plan = await plan_of(saved(tmp_path, "prompts.jsonl", text))
    assert plan.unknown_keys == ("animal", "shelf")
    assert plan.models == ("flux-dev", "flux-9-dream")
    assert plan.unknown_models == ("flux-9-dream",)


@pytest.mark.asyncio
async def test_defaults_are_for_rows_that_lack_them(tmp_path: Path) -> None:
    """A row's own value comes first; an ImageRequest is complete as it is."""
    path = saved(tmp_path, "prompts.jsonl", '{"prompt":"fox"}\n{"prompt":"owl","width":512}\n')
    got = await requests_of(path, parameters={"width": 768})
    assert [r.width for r in got] == [768, 512]
    got = await requests_of([ImageRequest(prompt="fox"), "owl"], parameters={"width": 768})
    assert [r.width for r in got] == [None, 768]


def png(side: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x80" * side) * side)
    ends = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + ends


@pytest.mark.asyncio
async def test_images_are_relative_to_the_prompt_file(tmp_path: Path) -> None:
    """A folder with prompts and their images works from anywhere, and content is the identity."""
    for name in ("a.png", "b.png"):
        saved(tmp_path, name, png(128))
    row = '{"prompt": "fox", "model": "flux-pro-1.1", "image_prompt": "%s"}\n'
    path = saved(tmp_path, "prompts.jsonl", row % "a.png" + row % "b.png")
    got = await requests_of(path)
    assert [r.occurrence for r in got] == [0, 1]
    image = ImageInput.of(tmp_path / "a.png")
    [same] = await requests_of(
        [ImageRequest(prompt="fox", model="flux-pro-1.1", image_prompt=image)]
    )
    assert same.key == got[0].key


@pytest.mark.asyncio
async def test_a_missing_image_is_a_bad_row(tmp_path: Path) -> None:
    """An image input is read before anything is spent."""
    row = '{"prompt": "fox", "model": "flux-pro-1.1", "image_prompt": "gone.png"}\n'
    path = saved(tmp_path, "prompts.jsonl", row)
    with pytest.raises(ConfigError, match=r"^prompts\.jsonl line 1: .*gone\.png"):
        await plan_of(path)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param("a red fox in snow", "no such file; for one prompt use generate", id="prompt"),
        pytest.param("fox " * 2_000, "for one prompt use generate", id="long prompt"),
        pytest.param("a\0b", "for one prompt use generate", id="NUL in a name"),
        pytest.param("missing.txt", "missing.txt: no such file", id="missing file"),
        pytest.param({"prompt": "fox"}, "put this one into a list", id="one row"),
        pytest.param(ImageRequest(prompt="fox"), "put this one into a list", id="one request"),
        pytest.param(b"fox", "not bytes", id="bytes"),
        pytest.param(7, "not int", id="number"),
        pytest.param(None, "not NoneType", id="nothing"),
    ],
)
def test_an_invalid_source_is_refused(given: Any, reason: str) -> None:
    """One line says what to do instead."""
    with pytest.raises(ConfigError, match=reason) as caught:
        open_list(given)
    assert len(str(caught.value)) < 200


def test_an_unsupported_prompt_file_is_refused(tmp_path: Path) -> None:
    """The errors for other suffixes and pipes say what works."""
    with pytest.raises(ConfigError, match=r"\.txt .* or a folder of \.txt"):
        open_list(saved(tmp_path, "prompts.md", "fox"))
    for name in ("prompts.xls", "prompts.ods", "prompts.numbers"):
        with pytest.raises(ConfigError, match=r"save it as \.xlsx, or as CSV in UTF-8"):
            open_list(saved(tmp_path, name, "fox"))
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ConfigError, match="can be read only once"):
        open_list(tmp_path / "pipe.txt")


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 10_001}, {"limit": 0}])
def test_counts_out_of_range_are_refused(options: dict[str, int]) -> None:
    """A slip in a count is an error, not an empty or ruinous run."""
    with pytest.raises(ConfigError, match=r"=\d+: "):
        open_list(["fox"], **options)


@pytest.mark.asyncio
async def test_a_file_that_vanished_is_a_config_error(tmp_path: Path) -> None:
    """The reading thread's errors reach the caller as ours."""
    path = saved(tmp_path, "prompts.txt", "fox\n")
    source = open_list(path)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        await everything(source)


@pytest.mark.asyncio
async def test_progress_counts_rows(tmp_path: Path) -> None:
    """A long check can say how far it is."""
    path = saved(tmp_path, "prompts.txt", "fox\n" * 4_500)
    source = open_list(path)
    seen: list[int] = []
    await source.check(progress=seen.append)
    await source.aclose()
    assert seen == list(range(500, 4_501, 500))


@pytest.mark.asyncio
async def test_a_file_may_be_left_in_the_middle(tmp_path: Path) -> None:
    """Leaving after one row ends the thread's work; the source can then be run again."""
    source = open_list(saved(tmp_path, "prompts.txt", "fox\n" * 5_000))
    async with aclosing(source.requests()) as requests:
        assert (await anext(requests)).index == 0  # type: ignore[union-attr]
    assert len(await everything(source)) == 5_000


@pytest.mark.asyncio
async def test_a_cancelled_check_can_be_made_again(tmp_path: Path) -> None:
    """Cancelling leaves nothing half read: the next check counts everything."""
    source = open_list(saved(tmp_path, "prompts.txt", "fox\n" * 5_000))
    with pytest.raises(asyncio.CancelledError):
        await source.check(progress=lambda rows: asyncio.current_task().cancel())  # type: ignore[union-attr]
    assert (await source.check()).images == 5_000
    await source.aclose()


@pytest.mark.asyncio
async def test_prompts_of_a_pipe_come_as_they_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is ready as soon as its line is, while the writer still holds the pipe open."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as stdin, os.fdopen(write_end, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", stdin)
        source = open_list("-")
        async with aclosing(source.requests()) as requests:
            writer.write(b"a fox\n")
            assert ImageRequest(prompt="a fox") == await anext(requests)
            writer.write(b'{"prompt": "an owl", "width": 512}\r\noops}\n{oops}\n')
            assert ImageRequest(prompt="an owl", width=512, index=1) == await anext(requests)
            assert ImageRequest(prompt="oops}", index=2) == await anext(requests)
            assert str(await anext(requests)).startswith("standard input line 4: column 2")
            writer.close()
            with pytest.raises(StopAsyncIteration):
                await anext(requests)
        await source.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(b"", [], id="F140 no prompts"),
        pytest.param(b"fox\nan ow", [b"fox", b"an ow"], id="F140 closed in a line"),
    ],
)
async def test_a_pipe_yields_all_rows_before_its_end(sent: bytes, expected: list[bytes]) -> None:
    """The end of input is the end of the source, never a hang."""
    read_end, write_end = os.pipe()
    os.write(write_end, sent)
    os.close(write_end)
    with os.fdopen(read_end):
        assert expected == [line async for _, line in lines_of(read_end)]


def test_a_quiet_pipe_does_not_hold_the_process() -> None:
    """A run that is cancelled while it waits for standard input ends at once."""
    code = """
import asyncio
from fluxasync._requests.sources import open_source
async def main():
    try:
        async with asyncio.timeout(0.05):
            async for request in open_source("-").requests():
                raise AssertionError(request)
    except TimeoutError:
        print("left")
asyncio.run(main())
"""
    read_end, write_end = os.pipe()
    with open(read_end) as stdin, open(write_end, "w"):
        command = [sys.executable, "-c", code]
        ended = subprocess.run(
            command, stdin=stdin, capture_output=True, timeout=patient(), check=True
        )
    assert (ended.stdout, ended.stderr) == (b"left\n", b"")


def test_without_standard_input_there_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service without one gets one line, not an AttributeError."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="no standard input"):
        open_list("-")


def test_occurrences_are_exact() -> None:
    """Every count is one more than the last of the same key."""
    with closing(Occurrences()) as occurrences:
        keys = [f"{number % 7:064x}" for number in range(70)]
        assert [number // 7 for number in range(70)] == [occurrences.count(key) for key in keys]


UNUSED = [
    pytest.param({"parameters": {"width": 9999}}, "width", id="a column wins over a bad value"),
    pytest.param({"parameters": {"width": 512}}, "width", id="a column wins over a good value"),
    pytest.param({"parameters": {"height": 512, "width": 512}}, "width", id="one of two"),
    pytest.param({"n": 3}, "n", id="n"),
    pytest.param({"parameters": {"extra_body": {"a": 1}}}, "extra_body", id="extra_body"),
]


@pytest.mark.parametrize(("options", "name"), UNUSED)
@pytest.mark.parametrize("form", ["list", "csv", "jsonl"])
@pytest.mark.asyncio
async def test_a_value_for_all_rows_that_no_row_takes_is_an_error(
    tmp_path: Path, options: dict[str, Any], name: str, form: str
) -> None:
    """Columns win over values for all rows; a value that never counts is a slip, and is named."""
    rows = [
        {"prompt": f"fox {size}", "width": size, "n": 1, "extra_body": {"b": size}}
        for size in (256, 512)
    ]
    source: Any = rows
    if form == "jsonl":
        source = saved(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)))
    elif form == "csv":
        lines = [f'fox,{row["width"]},1,"{{""b"": 1}}"' for row in rows]
        source = saved(tmp_path, "p.csv", "\n".join(["prompt,width,n,extra_body", *lines]))
    with pytest.raises(ConfigError, match=f"{name}: given for all rows, but no row takes it"):
        await plan_of(source, **options)


@pytest.mark.parametrize(
    ("rows", "defaults"),
    [
        pytest.param([{"prompt": "a"}, {"prompt": "b", "width": 256}], {"width": 512}, id="one"),
        pytest.param([], {"width": 512}, id="no rows"),
        pytest.param(
            [{"prompt": "a", "model": "flux-kontext-pro"}, {"prompt": "b"}],
            {"width": 512},
            id="one whose model has it",
        ),
        pytest.param([{"prompt": "a", "width": None}], {"width": 512}, id="an empty cell"),
        pytest.param([{"prompt": "a", "width": 256}], {"width": None}, id="not given"),
    ],
)
@pytest.mark.asyncio
async def test_a_value_for_all_rows_counts_where_a_row_leaves_it_open(
    rows: list[Any], defaults: dict[str, Any]
) -> None:
    """One row that takes it is enough; rows of a model without it are passed over."""
    plan = await plan_of(rows, parameters=defaults)
    assert plan.rows == len(rows)


@pytest.mark.parametrize("options", [{"limit": 1}, {"sample": 1}], ids=["limit", "sample"])
@pytest.mark.asyncio
async def test_a_part_of_a_list_may_leave_a_value_for_all_rows_open(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """A trial of the first rows says nothing about those that were not read."""
    rows = [{"prompt": "a fox", "width": 256}] * 3
    text = "\n".join(map(json.dumps, rows))
    for source in (rows, saved(tmp_path, "p.jsonl", text)):
        plan = await plan_of(source, parameters={"width": 512}, **options)
        assert plan.images == 1


@pytest.mark.asyncio
async def test_values_for_all_rows_are_nothing_to_complete_requests() -> None:
    """An ImageRequest is complete, so parameters beside a list of them are an error."""
    with pytest.raises(ConfigError, match="width: given for all rows"):
        await plan_of([ImageRequest(prompt="a fox")], parameters={"width": 512})
    plan = await plan_of([ImageRequest(prompt="a fox")], n=3)
    assert plan.images == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("skip_bad", [False, True])
async def test_a_hopeless_list_is_not_read_to_its_end(tmp_path: Path, skip_bad: bool) -> None:
    """10,000 bad rows are enough to refuse a list; where they are skipped, all of it is read."""
    path = saved(tmp_path, "prompts.jsonl", "oops\n" * 30_000 + f"{FOX}\n")
    if skip_bad:
        plan = await plan_of(path, skip_bad=True)
        assert (plan.bad, plan.images) == (30_000, 1)
        return
    for lookup in (None, lambda keys: [None] * len(keys)):
        source = open_list(path)
        with pytest.raises(ConfigError, match="not read further after 10,000 bad rows"):
            await source.check(lookup=lookup)
        await source.aclose()


@pytest.mark.asyncio
async def test_progress_of_a_check_counts_blank_lines(tmp_path: Path) -> None:
    """A file of nothing but blank lines is seen to be read on."""
    seen: list[int] = []
    source = open_list(saved(tmp_path, "prompts.txt", "\n" * 5_000))
    await source.check(progress=seen.append)
    await source.aclose()
    assert seen == list(range(500, 5_001, 500))


def test_pages_of_any_bytes_are_read_or_refused(tmp_path: Path) -> None:
    """S5: a page header is a stranger's bytes too; nothing but NotPages is raised."""
    path = tmp_path / "pages"
    chance = random.Random(7)
    for _ in range(2_000):
        path.write_bytes(chance.randbytes(chance.randrange(60)))
        with path.open("rb") as file, suppress(NotPages):
            for page in pages_of(file, 0, 60):
                assert page.size >= 0
