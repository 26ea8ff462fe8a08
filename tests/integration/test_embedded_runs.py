"""`embed=True`: prompt, seed, model and run id in the images of a run, which stay verifiable."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from attrs import evolve
from support.simulator_sessions import SIDE, fast_session, outcomes_of

import fluxasync
from fluxasync import Batch, FolderSink, Polling, Prompts, Saved, audit
from fluxasync._store.embedding import NAMESPACE
from fluxasync._store.journal.reader import recorded_id
from fluxasync._store.output_root import state_folder
from fluxasync.simulator import Scenario, Simulator

SMALL = {"width": SIDE, "height": SIDE}
SOON = Polling(interval=0.01)
SCENARIO = Scenario(latency=(0, 0.01))
PROMPTS = ["a fox & an owl", "a hare"]


def _prompts(output_format: str = "jpeg") -> Prompts:
    return Prompts(PROMPTS, parameters=SMALL | {"output_format": output_format})


@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
@pytest.mark.asyncio
async def test_a_folder_of_embedded_images_matches_its_record(
    output_format: str, tmp_path: Path
) -> None:
    """P5: the recorded hash is that of the file, the bytes of the provider are checked before, and
    the same call again makes nothing new."""
    async with Simulator(evolve(SCENARIO, faults=["wrong-bytes:0.5", "truncated:0.3"])) as sim:
        for _ in range(2):
            result = await fluxasync.run(
                _prompts(output_format), out=tmp_path, base_url=sim.url, polling=SOON, embed=True
            )
        assert len(sim.charges) == 2
    images = {saved.request.prompt: saved for saved in result.saved if saved.request is not None}
    assert sorted(images) == sorted(PROMPTS)
    for prompt, saved in images.items():
        assert saved.path is not None
        content = saved.path.read_bytes()
        assert NAMESPACE.encode() in content
        assert prompt.replace("&", "&amp;").encode() in content
        assert f"<fluxasync:Seed>{saved.seed}<".encode() in content
        assert f"<fluxasync:Run>{recorded_id(tmp_path)}<".encode() in content
    verification = await audit.verify(tmp_path)
    assert verification.is_clean


@pytest.mark.asyncio
async def test_images_in_a_bucket_are_embedded_too(tmp_path: Path) -> None:
    """Each object has the values, and its size and hash are those of the record."""
    pytest.importorskip("obstore", reason="the extra `store` is not installed")
    url = f"file://{tmp_path}/bucket"
    async with Simulator(SCENARIO) as sim:
        result = await fluxasync.run(
            _prompts(), out=url, base_url=sim.url, polling=SOON, embed=True
        )
    run = recorded_id(state_folder(url))
    for saved in result.saved:
        content = await asyncio.to_thread(Path(saved.place.removeprefix("file://")).read_bytes)
        assert f"<fluxasync:Run>{run}<".encode() in content
        assert len(content) == saved.stored.size


@pytest.mark.asyncio
async def test_one_image_is_embedded_in_memory_and_in_a_file(tmp_path: Path) -> None:
    """`generate(embed=True)`: in `saved.data`, or in the file, which must not exist yet."""
    model = "flux-2-klein-4b"
    async with Simulator(SCENARIO) as sim:
        options = {"model": model, "base_url": sim.url, "embed": True, **SMALL}
        saved = await fluxasync.generate("a fox", **options)  # type: ignore[arg-type]
        assert saved.data is not None
        assert b"<fluxasync:Prompt>a fox<" in saved.data
        path = tmp_path / "fox.png"
        await fluxasync.generate("a fox", out=path, **options)  # type: ignore[arg-type]
        assert b"<fluxasync:Prompt>a fox<" in path.read_bytes()
        with pytest.raises(fluxasync.SinkError, match="exists already"):
            await fluxasync.generate("a fox", out=path, **options)  # type: ignore[arg-type]
        assert len(sim.charges) == 2


@pytest.mark.asyncio
async def test_a_sink_that_embeds_is_a_folder_with_options(tmp_path: Path) -> None:
    """`Batch(out=FolderSink(…, embed=True))` has a journal, as with a path; the run's own template
    comes first."""
    sink = FolderSink(tmp_path, template="{index}.{ext}", embed=True)
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        async with Batch(flux, _prompts(), out=sink) as batch:
            outcomes = await outcomes_of(batch)
        again = await Batch(flux, _prompts(), out=FolderSink(tmp_path, embed=True)).run()
    assert {saved.path.name for saved in outcomes if isinstance(saved, Saved) and saved.path} == {
        "0.jpg",
        "1.jpg",
    }
    assert (again.saved, again.skipped) == (0, 2)


def test_the_commands_embed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`run --embed` and `generate --embed`."""
    pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")
    from fluxasync._cli.app import main

    (tmp_path / "p.txt").write_text("a fox\n")
    small = ["--model", "flux-2-klein-4b", "--simulate", "--embed", "--quiet"]
    assert main(["run", str(tmp_path / "p.txt"), "-o", str(tmp_path / "images"), *small]) == 0
    assert main(["generate", "an owl", "--out", str(tmp_path / "owl.jpg"), *small]) == 0
    first, second = capfd.readouterr().out.split()
    assert b"<fluxasync:Prompt>a fox<" in Path(first).read_bytes()
    assert b"<fluxasync:Prompt>an owl<" in Path(second).read_bytes()
