"""The examples run: real servers, real clients that hang up, a real kernel, a real process."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.asgi_server import serving
from support.patience import patient
from support.simulator_sessions import FAST, until

from fluxasync import Batch, FluxSession
from fluxasync._engine.session import engine_of
from fluxasync.simulator import Scenario, Simulator, WebhookForm

from .simulated import running_simulator

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
PNG_OR_JPEG = (b"\x89PNG", b"\xff\xd8\xff")
#: the model with the shortest usual duration, so that the first poll comes soonest
MODEL = "flux-2-klein-4b"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Import an example as a reader's own module; its images go to a fresh folder."""

    def imported(name: str, sim: Simulator) -> ModuleType:
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.setenv("FLUX_BASE_URL", sim.url)
        monkeypatch.setenv("IMAGES", str(tmp_path / "images"))
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
        monkeypatch.delitem(sys.modules, name)
        return module

    return imported


@pytest.mark.slow
@pytest.mark.asyncio
async def test_fastapi_returns_an_image_and_streams_a_batch(example: Any) -> None:
    """A visitor gets one image as bytes, another one a line for each image of a batch."""
    async with Simulator(Scenario(latency="0..0")) as sim:
        app = example("fastapi_app", sim).app
        async with serving(app) as url, aiohttp.ClientSession(url) as client:
            async with client.get("/image", params={"prompt": "fox", "model": MODEL}) as answer:
                assert answer.status == 200
                assert (await answer.read()).startswith(PNG_OR_JPEG)
            two = client.post("/batches/two", json=["a", "b"], params={"model": MODEL})
            async with two as answer:
                lines = [line async for line in answer.content]
            assert len(lines) == 3
            assert b"2 new" in lines[-1]
            async with client.get("/image", params={"prompt": ""}) as answer:
                assert answer.status == 422
        assert len(sim.charges) == 3


@pytest.mark.slow
@pytest.mark.asyncio
async def test_fastapi_stops_spending_when_the_client_hangs_up(
    example: Any, tmp_path: Path
) -> None:
    """A batch whose listener leaves submits nothing more, and the same call collects what is
    paid; a lone image whose visitor leaves is kept when the app ends."""
    async with Simulator(Scenario(latency="1..1", active_limit=4)) as sim:
        app = example("fastapi_app", sim).app
        prompts = [f"fox {number}" for number in range(40)]
        async with serving(app) as url:
            async with aiohttp.ClientSession(url) as client:
                many = client.post("/batches/many", json=prompts, params={"model": MODEL})
                async with many as answer:
                    await answer.content.readline()
                asking = asyncio.create_task(client.get("/image", params={"prompt": "gone"}))
                await until(lambda: any(c.prompt == "gone" for c in sim.charges))
                asking.cancel()
            flux = app.state.flux
            await until(lambda: any(job.request.prompt == "gone" for job in flux.unclaimed))
            await engine_of(flux).drain()
            paid = len(sim.charges)
            assert paid < 30
        kept = list((tmp_path / "images").glob("unclaimed-*"))
        assert any(path.read_bytes().startswith(PNG_OR_JPEG) for path in kept)
        assert len(sim.charges) == paid


@pytest.mark.slow
@pytest.mark.asyncio
async def test_aiohttp_app_shares_one_session(example: Any, monkeypatch: Any) -> None:
    """The stock is made in the background, a visitor's image beside it, over one session."""
    async with Simulator(Scenario(latency="0..0")) as sim:
        monkeypatch.setenv("STOCK", "a lamp\na boat")
        module = example("aiohttp_app", sim)
        runner = web.AppRunner(module.make_app(), handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
                async with client.get("/image", params={"prompt": "fox"}) as answer:
                    assert answer.status == 200
                    assert (await answer.read()).startswith(PNG_OR_JPEG)
                async with client.get("/image", params={"prompt": ""}) as answer:
                    assert answer.status == 400
                async with client.get("/status") as answer:
                    assert "new" in (await answer.json())["stock"]
        finally:
            await runner.cleanup()
        assert {charge.prompt for charge in sim.charges} == {"fox", "a lamp", "a boat"}


@asynccontextmanager
async def webhook_fastapi(module: Any, port: int) -> AsyncIterator[str]:
    async with serving(module.app, port=port) as url:
        yield url


@asynccontextmanager
async def webhook_aiohttp(module: Any, port: int) -> AsyncIterator[str]:
    runner = web.AppRunner(module.make_app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize("served", [webhook_fastapi, webhook_aiohttp])
@pytest.mark.parametrize("form", ["hmac/id", "header/task_id", "field/progress"])
async def test_an_app_with_a_webhook_hears_when_its_images_are_ready(
    example: Any, served: Any, form: str, monkeypatch: Any, unused_tcp_port: int
) -> None:
    """F98: callbacks reach the app, in each signature that the sources describe; forged ones are
    refused (F91)."""
    monkeypatch.setenv("WEBHOOK_URL", f"http://127.0.0.1:{unused_tcp_port}/flux")
    monkeypatch.setenv("WEBHOOK_SECRET", "nobody-guesses-this")
    scenario = Scenario(latency=(0.2, 0.3), webhooks=WebhookForm.parse(form))
    async with Simulator(scenario) as sim:
        module = example(served.__name__, sim)
        async with served(module, unused_tcp_port) as url, aiohttp.ClientSession(url) as client:

            async def image(prompt: str) -> int:
                async with client.get("/image", params={"prompt": prompt}) as answer:
                    assert not answer.ok or (await answer.read()).startswith(PNG_OR_JPEG)
                    return answer.status

            async def callbacks() -> dict[str, int]:
                async with client.get("/callbacks") as answer:
                    return dict(await answer.json())

            assert await asyncio.gather(*map(image, "abcdef")) == [200] * 6
            async with asyncio.timeout(patient()):
                while (await callbacks())["known"] < 6:
                    pass
            async with client.post("/flux/" + "0" * 32, json={"id": "forged"}) as answer:
                assert answer.status == 401
            counts = await callbacks()
            assert (counts["refused"], counts["known"] >= 6) == (1, True)
            assert await image("") in (400, 422)
        assert len(sim.charges) == 6


@pytest.mark.asyncio
async def test_an_interactive_request_goes_before_a_bulk_batch(tmp_path: Path) -> None:
    """With `priority`, an interactive image takes the next free slot, before all waiting requests
    of a batch."""
    async with (
        Simulator(Scenario(latency=0.02)) as sim,
        FluxSession(base_url=sim.url, limits=2, **FAST) as flux,
    ):
        rows = [{"prompt": f"bulk {n}", "width": 256, "height": 256} for n in range(30)]
        async with Batch(flux, rows, out=tmp_path / "bulk") as batch:
            await anext(batch)
            ahead = len(sim.charges) + flux.slots  # those may hold their slots already
            await flux.generate("mine", width=256, height=256, priority=1)
            place = [charge.prompt for charge in sim.charges].index("mine")
            assert place <= ahead
            assert batch.summary.saved < len(rows)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell runs in a fresh kernel, and the last run made three images."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=round(patient()), resources=resources).execute()
    shown = [out.get("data", {}) for cell in notebook.cells for out in cell.get("outputs", [])]
    assert any("<img src=" in data.get("text/html", "") for data in shown)
    assert any("3 new" in data.get("text/plain", "") for data in shown)
    assert any("3 already there" in data.get("text/plain", "") for data in shown)


@pytest.mark.slow
def test_the_nightly_script_makes_only_missing_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second night pays for what the list got since the first, and the cap is for both."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def night(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(EXAMPLES / "top_up.py"), str(prompts), str(tmp_path / "out")]
        return subprocess.run(
            [*command, "--model", MODEL, "--base-url", url, *options],
            capture_output=True, text=True, timeout=patient(), check=False,
        )  # fmt: skip

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\na lamp\n")
    with running_simulator() as url:
        first = night("--max-cost", "0.05")
        assert (first.returncode, first.stdout[:5]) == (0, "2 new"), first.stderr
        prompts.write_text("a boat\na lamp\na fox\n")
        second = night("--max-cost", "0.05")
        assert (second.returncode, second.stdout[:5]) == (0, "1 new"), second.stderr
        prompts.write_text("a boat\na lamp\na fox\na mill\n")
        third = night("--max-cost", "0.05")
        assert third.returncode == 1
        assert "raise it to go on" in third.stderr
