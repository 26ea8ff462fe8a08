"""`fluxasync models --check` against the simulator, files and servers that answer otherwise."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from support.command_line import command

from fluxasync.simulator import Simulator

CHECK = ("models", "--check")


@asynccontextmanager
async def answering(body: bytes, status: int = 200) -> AsyncIterator[str]:
    """A server with one answer to everything; it takes no key."""

    async def answer(request: web.Request) -> web.Response:
        has_key = {"x-key", "authorization"} & {name.lower() for name in request.headers}
        return web.Response(body=body, status=500 if has_key else status)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.asyncio
async def test_the_catalogue_is_what_the_simulator_serves(tmp_path: Path) -> None:
    """The simulator has its own list of models, so this compares two readings of the sources."""
    async with Simulator() as sim:
        ended = await command(*CHECK, "--base-url", sim.url, cwd=tmp_path)
    assert (ended.code, ended.out) == (0, []), ended.out
    assert ended.said.startswith("0 differences from http://127.0.0.1:")


@pytest.mark.asyncio
async def test_differences_are_a_table_or_objects_and_exit_code_3(tmp_path: Path) -> None:
    """A changed document is found, from a server, to which no key is sent, and from a file."""
    async with Simulator() as sim, aiohttp.ClientSession() as client:
        document = await (await client.get(f"{sim.url}/openapi.json")).json()
    schema = document["components"]["schemas"]["FluxDevInputs"]
    schema["properties"]["width"]["maximum"] = 2048
    schema["properties"]["tone"] = {"type": "string"}
    del document["paths"]["/v1/flux-tools/erase-v1"]
    text = json.dumps(document)
    (tmp_path / "openapi.json").write_text(text)
    expected = [
        ["flux-tools/erase-v1", "model", "has", "it", "–"],
        ["flux-dev", "width", "maximum", "1440", "2048"],
        ["flux-dev", "tone", "parameter", "–", "has", "it"],
    ]
    async with answering(text.encode()) as url:
        for place in (("--base-url", url), ("openapi.json",)):
            ended = await command(*CHECK, *place, cwd=tmp_path, BFL_API_KEY="canary")
            assert ended.code == 3
            assert [line.split() for line in ended.out[1:]] == expected
    ended = await command(*CHECK, "openapi.json", "--json", cwd=tmp_path)
    assert (ended.code, ended.err) == (3, [])
    rows = [json.loads(line) for line in ended.out]
    assert rows[1] == {
        "model": "flux-dev", "parameter": "width", "what": "maximum", "catalogue": 1440,
        "provider": 2048,
    }  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"<html><title>Sign in</title></html>", 200, "not JSON, so no OpenAPI document: '<html>"),
        (b"", 200, "not JSON, so no OpenAPI document: it is empty"),
        (b"[1, 2]", 200, "not JSON"),
        (b'{"paths": 7}', 200, "not an OpenAPI document with models under /v1/"),
        (b'{"detail": "Not Found"}', 404, "status 404"),
        (b'{"paths": "' + b"x" * 2**21 + b'"}', 200, "more than 1 MB"),
        (b"\x1b[31mred\xff\x00", 200, "not JSON"),
    ],
    ids=["html", "empty", "a list", "no paths", "404", "huge", "binary"],
)
async def test_an_answer_that_is_no_document_is_one_line(
    body: bytes, status: int, said: str, tmp_path: Path
) -> None:
    """A wrong address, a login page or an endless answer ends with its name and exit code 2."""
    async with answering(body, status) as url:
        ended = await command(*CHECK, "--base-url", url, cwd=tmp_path)
        assert (ended.code, ended.out, len(ended.err)) == (2, [], 1)
        assert said in ended.said
        assert "\x1b" not in ended.said


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("models", "x.json"), "need --check"),
        (("models", "--base-url", "http://127.0.0.1:9"), "need --check"),
        ((*CHECK, "gone.json"), "gone.json: No such file"),
        ((*CHECK, "--provider", "cometapi"), "publishes no OpenAPI document"),
        ((*CHECK, "--provider", "nobody"), "must be cometapi or bfl"),
        ((*CHECK, "a.json", "--base-url", "http://127.0.0.1:9"), "not both"),
    ],
)
async def test_options_that_do_not_fit_are_refused(
    options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """Nothing is fetched for a command line that makes no sense."""
    ended = await command(*options, cwd=tmp_path)
    assert (ended.code, ended.out) == (2, [])
    assert said in ended.said
