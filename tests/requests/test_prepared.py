"""Prepared requests: numbered once, then run as they are, in any batch."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.prompt_lists import everything, open_list, plan_of, requests_of, rows_of, saved
from support.sample_images import jpeg

from fluxasync import BadRow, ConfigError, ImageInput, ImageRequest, Prompts, prepare

FOX = ImageRequest(prompt="a red fox", index=7, occurrence=2)
OWL = ImageRequest(prompt="an owl", index=3)
PICTURE = jpeg(96, 64)


async def prepared(rows: Any, **options: Any) -> list[ImageRequest]:
    async with aclosing(prepare(Prompts(rows, **options))) as requests:
        return [request async for request in requests]


async def streamed(requests: Iterable[object]) -> AsyncIterator[object]:
    for request in requests:
        yield request


FORMS = pytest.mark.parametrize("form", [list, streamed], ids=["list", "stream"])


@FORMS
@pytest.mark.asyncio
async def test_prepared_requests_are_run_as_they_are(form: Any):
    """P27 Index and occurrence are kept, in any order and with gaps; nothing is added."""
    assert await requests_of(form([FOX, OWL]), prepared=True) == [FOX, OWL]


@pytest.mark.asyncio
async def test_a_list_of_prepared_requests_is_counted_before_it_runs():
    """Pre-flight counts images and price, and looks each image up by its own key."""
    source = open_list([FOX, OWL, evolve(FOX, occurrence=0)], prepared=True)
    asked: list[str] = []

    def lookup(keys: Any) -> list[str | None]:
        asked.extend(keys)
        return ["done" if key == FOX.key else None for key in keys]

    plan = await source.check(lookup=lookup)
    assert asked == [FOX.key, OWL.key, evolve(FOX, occurrence=0).key]
    assert (plan.images, plan.to_do, plan.known) == (3, 2, {"done": 1})
    assert plan.estimator.estimate(1).cost > 0
    async with aclosing(source.requests(skip={"done"})) as requests:
        assert [request async for request in requests] == [OWL, evolve(FOX, occurrence=0)]
    await source.aclose()


BAD = [
    pytest.param("a red fox", "an ImageRequest, not str", id="text"),
    pytest.param({"prompt": "a red fox"}, "an ImageRequest, not dict", id="a dict"),
    pytest.param(evolve(FOX, n=3), r"n=3: .*\.prepare\(\)", id="several images"),
    pytest.param(evolve(FOX, index=-1), "index=-1: a whole number", id="a negative index"),
    pytest.param(evolve(FOX, index=2**63), "index=9223372036854775808", id="an endless index"),
    pytest.param(evolve(FOX, occurrence=True), "occurrence=True", id="no number"),
    pytest.param(evolve(FOX, width=7), "width", id="a wrong parameter"),
    pytest.param(
        evolve(FOX, image_prompt=ImageInput.of("gone.jpg")), "no such file", id="a missing file"
    ),
    pytest.param(OWL, "has the same key", id="the same image again"),
    pytest.param(evolve(OWL, index=9, name="o"), "has the same key", id="under another index"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
@pytest.mark.asyncio
async def test_a_request_that_cannot_be_run_is_a_bad_row(bad: object, reason: str):
    """In a list it is an error before anything is spent, in a stream a row of its own."""
    rows = [OWL, bad, FOX]
    with pytest.raises(ConfigError, match=f"^item 2: .*{reason}"):
        await plan_of(rows, prepared=True)
    for found in (
        await rows_of(streamed(rows), prepared=True),
        await rows_of(rows, prepared=True, skip_bad=True),
    ):
        first, refused, last = found
        assert (first, last) == (OWL, FOX)
        assert isinstance(refused, BadRow)
        assert refused.where == "item 2"


@pytest.mark.asyncio
async def test_the_limit_counts_prepared_requests():
    """The first of the list are taken, whatever their index is."""
    assert await requests_of([FOX, OWL], prepared=True, limit=1) == [FOX]
    assert await requests_of(streamed([FOX, OWL]), prepared=True, limit=1) == [FOX]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "flux-pro"), ("parameters", {"width": 512}), ("n", 2), ("seeds", [1, 2]),
        ("models", ["flux-dev"]), ("grid", {"guidance": [2]}), ("wildcards", True), ("sample", 1),
        ("sample_seed", 1), ("columns", {"prompt": "caption"}), ("allow_files", "."),
        ("syntax", "as-written"),
    ],
)  # fmt: skip
def test_what_would_change_prepared_requests_is_refused(option: str, value: Any):
    """An option that had no effect would be a wrong image; the error says where it belongs."""
    with pytest.raises(ConfigError, match=rf"^{option}: .*prepare\(Prompts\(…, {option}="):
        Prompts([FOX], prepared=True, **{option: value})


def test_a_file_is_not_prepared():
    """A file has no numbers; the error says how to number it."""
    for source in ("prompts.csv", Path("prompts.csv"), [Path("prompts.csv")], "-"):
        with pytest.raises(ConfigError, match=r"prepare\(\) makes them"):
            Prompts(source, prepared=True)
    with pytest.raises(ConfigError, match="True or False"):
        Prompts([FOX], prepared="yes")  # type: ignore[arg-type]


# --- prepare() -----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_preparing_a_list_numbers_it_as_a_run_would():
    """P27 Grids, copies and equal rows: the same requests as of a run of the whole list."""
    rows, options = ["fox", {"prompt": "owl", "n": 2}, "fox"], {"grid": {"guidance": [2, 3]}}
    whole = await requests_of(rows, **options)
    assert await prepared(rows, **options) == whole
    assert [request.index for request in whole] == list(range(8))
    assert await prepared(streamed(rows), **options) == whole
    assert await prepared(await prepared(whole, prepared=True), prepared=True) == whole


@pytest.mark.asyncio
async def test_a_bad_list_is_refused_before_its_first_request(tmp_path: Path):
    """The complete list is checked first; a stream ends at its bad row."""
    bad = saved(tmp_path, "p.jsonl", '{"prompt": "fox"}\n{"prompt": "fox", "widht": 5}\n')
    async with aclosing(prepare(bad)) as requests:
        with pytest.raises(ConfigError, match=r"p\.jsonl line 2: widht"):
            await anext(requests)
    async with aclosing(prepare(iter(["fox", 7, "owl"]))) as requests:
        assert (await anext(requests)).prompt == "fox"
        with pytest.raises(ConfigError, match="item 2"):
            await anext(requests)


@pytest.mark.asyncio
async def test_bad_rows_that_are_left_out_are_counted(caplog: pytest.LogCaptureFixture):
    """With skip_bad the good rows keep the numbers that a run with skip_bad gives them."""
    rows = ["fox", 7, {"prompt": "owl", "artist": "Ana"}, 8]
    with caplog.at_level(logging.WARNING, "fluxasync"):
        found = await prepared(rows, skip_bad=True)
    assert [(request.prompt, request.index) for request in found] == [("fox", 0), ("owl", 1)]
    assert "bad rows left out: 2; the first is item 2" in caplog.text
    assert "kept as metadata, not sent: artist" in caplog.text


@pytest.mark.asyncio
async def test_image_inputs_keep_their_digest_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The key of a request with pictures survives pickle and JSON, in another folder too; a
    picture that has changed since is never sent under the old key."""
    (tmp_path / "a.jpg").write_bytes(PICTURE)
    row = {"prompt": "fox", "image_prompt": "a.jpg"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    monkeypatch.chdir(tmp_path)
    here = await prepared(Path("p.jsonl"))
    here += await prepared([ImageRequest(prompt="owl", image_prompt=ImageInput.of(PICTURE))])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for sent in (
        [pickle.loads(pickle.dumps(request)) for request in here],  # noqa: S301 — made here
        [ImageRequest.from_dict(json.loads(json.dumps(each.to_dict()))) for each in here],
    ):
        assert sent == here
        assert [request.key for request in sent] == [request.key for request in here]
        for mine, given in zip(sent, here, strict=True):
            assert mine.image_prompt is not None
            assert given.image_prompt is not None
            # the size is part of some prices, and a list's file stays confined to its folder
            assert mine.image_prompt.pixels == given.image_prompt.pixels == 96 * 64
            assert mine.image_prompt.within == given.image_prompt.within
            assert mine.image_prompt.data == given.image_prompt.data
        assert await requests_of(sent, prepared=True) == here


# --- JSON ----------------------------------------------------------------------------------------


def test_a_request_as_json_keeps_its_webhook_and_no_secret():
    """P22 A secret is written nowhere; the webhook's address is the row's own."""
    request = evolve(FOX, webhook_url="https://example.com/hook", extras={"size": Decimal("2.5")})
    kept = ImageRequest.from_dict(request.to_dict())
    assert kept == evolve(request, extras={"size": 2.5})
    with pytest.raises(ConfigError, match="webhook_secret is not kept") as caught:
        evolve(request, webhook_secret="hush").to_dict()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param({"color": "red"}, id="an unknown field"),
        pytest.param({"prompt": 7}, id="no prompt"),
        pytest.param({"image_prompt": {"$image": {"data": "_"}}}, id="no base64"),
        pytest.param(["a fox"], id="a list"),
        pytest.param(7, id="a number"),
    ],
)
def test_other_content_is_no_request(kept: Any):
    """A dict that is not from `to_dict` is a ConfigError with the reason."""
    with pytest.raises(ConfigError, match="not a request that"):
        ImageRequest.from_dict(kept)


@pytest.mark.asyncio
async def test_a_stream_of_prepared_requests_is_read_once():
    """As every stream."""
    source = open_list(streamed([FOX]), prepared=True)
    assert not source.re_readable
    assert await everything(source) == [FOX]
