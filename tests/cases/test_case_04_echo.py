"""Case 4: the prompt that a provider reports is a remark; the job id is the image's identity.

Gateways normalise, escape, translate and rewrite prompts and report the prompt that was run
(docs.comfy.org, BFL nodes; pollinations/pollinations#3920). A rewritten prompt, or an empty one, is
returned to be seen (VincentGourbin/flux-2-swift-mlx#18, nextcloud/integration_openai#365), and
long ones are cut (black-forest-labs/flux#495).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.echo_server import EchoServer, echo_server
from support.simulator_sessions import fast_session, until

from fluxasync import Batch, Failed, FluxSession, Polling, Saved, audit
from fluxasync._core.images import inspect

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


async def test_a_swapped_image_stays_in_quarantine_until_a_person_decides(tmp_path: Path) -> None:
    """Its bytes are kept whole, no retry pays again unless it names them, and it is never saved
    without a decision, not even by a session that does not know the other prompt."""
    prompts = ["a red fox in the snow", "a lamp [other]"]
    async with echo_server() as server:
        async with session(server) as flux, Batch(flux, prompts, out=tmp_path) as batch:
            failed = [outcome async for outcome in batch if isinstance(outcome, Failed)]
        assert failed[0].quarantined is not None
        assert failed[0].paid == "yes"
        (entry,) = await audit.quarantined(tmp_path)
        assert entry.path == failed[0].quarantined.path
        assert inspect(entry.path.read_bytes()).format == "jpeg"
        for retry in ("failed", "download,lost"):
            async with session(server) as flux:
                assert (await Batch(flux, prompts, out=tmp_path, retry=retry).run()).saved == 0
        assert len(server.submitted) == 2
        assert await audit.accept(tmp_path) == []  # a whole image, but another request's
        (accepted,) = await audit.accept(tmp_path, [entry.key])
        assert accepted.path.parent == tmp_path
        assert len(lines(tmp_path)) == 2
        async with session(server) as flux:
            await Batch(flux, prompts, out=tmp_path, retry="failed,quarantined").run()
        assert len(server.submitted) == 2


async def test_a_swapped_image_is_bought_again_where_that_is_asked_for(tmp_path: Path) -> None:
    """`--retry quarantined` submits the prompt again; the swapped job is not taken as its image."""
    prompts = ["a red fox in the snow", "a lamp [other]"]
    async with echo_server() as server:
        async with session(server) as flux:
            await Batch(flux, prompts, out=tmp_path).run()
        async with session(server) as flux:
            summary = await Batch(flux, prompts[1:], out=tmp_path, retry="quarantined").run()
        assert (summary.saved, len(server.submitted)) == (1, 3)
    assert await audit.quarantined(tmp_path) == []
    assert (await audit.verify(tmp_path)).is_clean


async def test_a_swap_that_cannot_be_kept_ends_no_run(tmp_path: Path) -> None:
    """A link in the place of the quarantine is not followed; the failure says what was lost."""
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    prompts = ["a red fox in the snow", "a lamp [other]", "a gull"]
    async with echo_server() as server:
        async with session(server) as flux:
            await Batch(flux, ["a start"], out=out).run()
        (out / ".fluxasync" / "quarantine").symlink_to(outside)
        async with session(server) as flux, Batch(flux, prompts, out=out) as batch:
            outcomes = [outcome async for outcome in batch]
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    assert len(outcomes) == 3
    assert "could not be kept" in str(failed.error)
    assert "is a link" in str(failed.error)
    assert list(outside.iterdir()) == []


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
