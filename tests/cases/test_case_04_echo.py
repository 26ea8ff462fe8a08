"""Case 4: the prompt that a provider reports is a remark; the job id is the image's identity.

Gateways normalise, escape, translate and rewrite prompts and report the prompt that was run
(docs.comfy.org, BFL nodes; pollinations/pollinations#3920).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.echo_server import EchoServer, echo_server
from support.simulator_sessions import fast_session, until

from fluxasync import Batch, Failed, FluxSession, Polling, Saved

pytestmark = pytest.mark.asyncio

DATA = Path(__file__).parent / "data"
LONG = "a harbour at dusk, " * 8

ROWS = [
    *map(json.loads, (DATA / "echo.jsonl").read_text("utf-8").splitlines()),
    {"prompt": f"{LONG}[cut]"},
    {"prompt": 'a sign with "5 < 6 & 7" [html]'},
    {"prompt": "ein Fuchs im Schnee [other]"},
]


def session(server: EchoServer, **options: Any) -> FluxSession:
    return fast_session(server.url, **options)


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metadata.jsonl"
    return list(map(json.loads, path.read_text("utf-8").splitlines() if path.exists() else ()))


async def test_a_changed_prompt_keeps_the_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """P14: each image is saved and paid once, its line says which prompt was used, and one warning
    for the model says that they differ."""
    async with echo_server() as server, session(server) as flux:
        batch = Batch(flux, [row | {"model": "flux-pro-1.1"} for row in ROWS], out=tmp_path)
        async with batch:
            saved = [outcome async for outcome in batch]
    assert all(isinstance(each, Saved) for each in saved)
    assert len(ROWS) == len(server.submitted) == len(lines(tmp_path))
    used = {line["prompt"]: line["prompt_used"] for line in lines(tmp_path)}
    assert used["a  quiet   harbour [spaces]"] == "a quiet harbour [spaces]"
    assert LONG[:77] == used[f"{LONG}[cut]"]
    assert used["ein Fuchs im Schnee [other]"] == "a red fox in the snow"
    assert set(used.values()) == {each.prompt_used for each in saved if isinstance(each, Saved)}
    assert caplog.text.count("flux-pro-1.1: the provider reports another prompt") == 1


async def test_the_prompt_of_another_request_is_a_swap(tmp_path: Path) -> None:
    """P14: a picture that another request of this session asked for is not kept as this one's."""
    prompts = ["a red fox in the snow", "a lamp [other]"]
    async with (
        echo_server() as server,
        session(server) as flux,
        Batch(flux, prompts, out=tmp_path, ordered=True) as batch,
    ):
        first, second = [outcome async for outcome in batch]
    assert isinstance(first, Saved)
    assert isinstance(second, Failed)
    assert second.job is not None
    assert "of another request of this run" in str(second.error)


async def test_a_job_of_an_earlier_run_keeps_its_image(tmp_path: Path) -> None:
    """P14: a resumed run collects the paid job, whatever prompt is reported."""
    row = {"prompt": "a  lamp [spaces]", "model": "flux-dev"}
    async with echo_server() as server:
        async with (
            session(server, polling=Polling(interval=60)) as flux,
            Batch(flux, [row], out=tmp_path) as first,
        ):
            await until(lambda: server.submitted)
            first.stop(grace=0)
        assert (len(server.submitted), lines(tmp_path)) == (1, [])
        async with session(server) as flux:
            summary = await Batch(flux, [row], out=tmp_path).run()
    assert (len(server.submitted), summary.saved) == (1, 1)
    assert [line["prompt_used"] for line in lines(tmp_path)] == ["a lamp [spaces]"]
