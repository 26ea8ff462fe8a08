"""Case 3: what a row asks for is sent, or refused before spending, or named as not sent.

Other members of the kind: parameters outside an allow-list that were dropped without a word
(backblaze-labs/genblaze#133), extra parameters of image requests that never reached the provider
(maximhq/bifrost#3572, 0xPlaygrounds/rig#2264), a model without a price whose budget never ends
(BerriAI/litellm#39118, jakobdylanc/llmcord#51).
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Ended, command
from support.echo_server import EchoServer, echo_server
from support.simulator_sessions import fast_session

from fluxasync import Batch, Prompts

DATA = Path(__file__).parent / "data"
#: of no catalogue
NEW = "aurora-9/image"


def bodies(server: EchoServer) -> list[dict[str, Any]]:
    return [body for _, body in server.submitted]


async def run(folder: Path, server: EchoServer, rows: Any, *options: object) -> Ended:
    """Run a list of rows, or a text that is one, against a server."""
    text = rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows))
    name = "rows.csv" if isinstance(rows, str) else "rows.jsonl"
    (folder / name).write_text(text)
    line = ("run", name, "-o", "out", "--base-url", server.url)
    return await command(*line, *options, cwd=folder)


@pytest.mark.asyncio
@pytest.mark.parametrize("options", [(), ("--quiet",)])
async def test_disable_pup_of_the_case_is_sent(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Case 3: flux-2-pro takes disable_pup, so it reaches the provider as the list has it."""
    async with echo_server() as server:
        shutil.copy(DATA / "unsent.jsonl", tmp_path)
        line = ("run", "unsent.jsonl", "-o", "out", "--base-url", server.url)
        ended = await command(*line, *options, cwd=tmp_path)
        assert (ended.code, "metadata" in ended.said) == (0, False)
        assert bodies(server) == [{"prompt": "a boat shed in rain", "disable_pup": True}]


@pytest.mark.asyncio
@pytest.mark.parametrize("options", [(), ("--quiet",)])
async def test_what_is_not_sent_is_named_with_and_without_quiet(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """A key that no model has is metadata, and standard error says so once, with the option that
    sends it."""
    rows = [{"prompt": text, "transparent_sky": True} for text in "ab"]
    async with echo_server() as server:
        ended = await run(tmp_path, server, rows, *options)
        assert ended.code == 0
        assert ended.said.count("kept as metadata, not sent: transparent_sky") == 1
        option = "--map extra_body.transparent_sky=transparent_sky"
        assert option in ended.said
        assert all("transparent_sky" not in body for body in bodies(server))
        again = await run(tmp_path, server, rows, *option.split(), "--quiet")
        assert (again.code, again.err) == (0, [])
        assert [body["transparent_sky"] for body in bodies(server)[2:]] == [True, True]


@pytest.mark.asyncio
async def test_a_stream_names_what_is_not_sent_too(caplog: pytest.LogCaptureFixture) -> None:
    """Rows that come one by one have no plan: each new key is named when it is first seen."""
    rows = ({"prompt": f"{number}", "shelf": 1, **({"tone": 2} if number else {})} for number in
            range(3))  # fmt: skip
    async with echo_server() as server, fast_session(server.url) as flux:
        with caplog.at_level(logging.WARNING, "fluxasync"):
            await Batch(flux, rows).run()
    said = [text for text in caplog.messages if "kept as metadata" in text]
    assert [("shelf" in text, "tone" in text) for text in said] == [(True, False), (False, True)]


@pytest.mark.asyncio
async def test_every_key_of_an_unknown_model_reaches_the_provider(tmp_path: Path) -> None:
    """Values keep their JSON types, local images go as base64, and the plan names what was sent
    unchecked; what is named extras stays at home."""
    shutil.copy(DATA / "small.jpg", tmp_path)
    small = base64.b64encode((DATA / "small.jpg").read_bytes()).decode()
    row = {
        "prompt": "a", "model": NEW, "resolution": 2048, "grounding": False, "safety": {"level": 2},
        "guides": ["small.jpg", "https://example.com/b.jpg"], "base": "small.jpg",
        "seed": 2**63, "images": ["small.jpg"], "extras": {"shelf": 3},
    }  # fmt: skip
    async with echo_server() as server:
        ended = await run(tmp_path, server, [row])
        assert ended.code == 0, ended.said
        assert server.submitted[0][0].endswith(f"/v1/{NEW}")
    unchecked = "sent unchecked to a model that the catalogue lacks: grounding"
    assert unchecked not in ended.said  # a parameter of a known model
    assert "sent unchecked to a model that the catalogue lacks: safety, guides, base" in ended.said
    kept = {"resolution": 2048, "grounding": False, "safety": {"level": 2}, "seed": 2**63}
    images = {"guides": [small, "https://example.com/b.jpg"], "base": small, "images": [small]}
    assert bodies(server) == [{"prompt": "a", **kept, **images}]
    line = json.loads((tmp_path / "out" / "metadata.jsonl").read_text())
    assert (line["model"], line["extras"]) == (NEW, {"shelf": 3})
    assert small not in json.dumps(line)


@pytest.mark.asyncio
async def test_cells_of_a_table_are_sent_as_numbers_where_they_are_numbers(tmp_path: Path) -> None:
    """A table has only text: for an unknown model a cell is read as `--param` reads a value."""
    rows = f"prompt,model,tone,level,code,flag\na,{NEW},warm,2.5,007,true\nb,flux-dev,x,1,2,true\n"
    async with echo_server() as server:
        options = ("--map", "extras.code=code")
        ended = await run(tmp_path, server, rows, *options)
        assert ended.code == 0
        assert "not sent: tone, level, flag" in ended.said  # of flux-dev
        sent = {body["prompt"]: body for body in bodies(server)}
        assert sent["a"] == {"prompt": "a", "tone": "warm", "level": 2.5, "flag": True}
        assert sent["b"] == {"prompt": "b"}
    lines = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
    extras = {row["prompt"]: row["extras"] for row in map(json.loads, lines)}
    assert extras["a"] == {"code": "007"}


@pytest.mark.asyncio
async def test_a_mapped_cell_is_sent_with_its_type_to_a_known_model(tmp_path: Path) -> None:
    """`--map extra_body.NAME=COLUMN` reads a cell as `--param extra_body.NAME=V` reads V."""
    rows = "prompt,tone,soft,code\na,7,true,007\n"
    names = ("tone", "soft", "code")
    mapped = [word for name in names for word in ("--map", f"extra_body.{name}={name}")]
    async with echo_server() as server:
        assert (await run(tmp_path, server, rows, *mapped)).code == 0
        assert bodies(server) == [{"prompt": "a", "tone": 7, "soft": True, "code": "007"}]


@pytest.mark.asyncio
async def test_options_of_an_unknown_model_are_sent(tmp_path: Path) -> None:
    """`--param` and `--grid` take any name for a model that the catalogue lacks; a known model
    takes it as extra_body.NAME, which the refusal says."""
    shutil.copy(DATA / "small.jpg", tmp_path)
    small = base64.b64encode((DATA / "small.jpg").read_bytes()).decode()
    param = ("--param", "tone=7", "--param", "start=small.jpg")
    async with echo_server() as server:
        one = ("--base-url", server.url, "--model", NEW)
        ended = await command("generate", "a", "-o", "a.jpg", *one, *param, cwd=tmp_path)
        assert (ended.code, bodies(server)) == (0, [{"prompt": "a", "tone": 7, "start": small}])
        options = ("--model", NEW, "--param", "tone=7", "--grid", "level=1,high")
        assert (await run(tmp_path, server, [{"prompt": "b"}], *options)).code == 0
        sent = sorted((body["tone"], str(body["level"])) for body in bodies(server)[1:])
        assert sent == [(7, "1"), (7, "high")]
        ended = await command(
            "generate", "c", "-o", "c.jpg", "--base-url", server.url, *param[:2], cwd=tmp_path
        )
        assert (ended.code, len(server.submitted)) == (2, 3)
        assert "--param extra_body.tone=…" in ended.said
        known = ("--base-url", server.url, "--param", "extra_body.tone=7")
        assert (await command("generate", "c", "-o", "c.jpg", *known, cwd=tmp_path)).code == 0
        assert bodies(server)[3] == {"prompt": "c", "output_format": "jpeg", "tone": 7}


@pytest.mark.asyncio
async def test_a_picture_of_an_unknown_key_that_is_missing_is_refused_before_spending(
    tmp_path: Path,
) -> None:
    """The name of a file is never sent in the place of its content."""
    async with echo_server() as server:
        for picture in ("gone.png", "scan.tiff", "../out.jpg"):
            ended = await run(tmp_path, server, [{"prompt": "a", "model": NEW, "start": picture}])
            assert (ended.code, server.submitted) == (2, [])
            assert "start" in ended.said


@pytest.mark.asyncio
async def test_parameters_of_a_program_are_not_lost(tmp_path: Path) -> None:
    """Prompts(parameters=…) and rows of a program follow the same rule as a file."""
    async with echo_server() as server, fast_session(server.url) as flux:
        prompts = Prompts([{"prompt": "a"}], model=NEW, parameters={"tone": 7})
        await Batch(flux, prompts).run()
        await asyncio.sleep(0)
        assert bodies(server) == [{"prompt": "a", "tone": 7}]
