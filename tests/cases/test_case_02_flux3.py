"""Case 2: FLUX 3 and other models of today are sent with what a row asks for, at their price.

Other members of the kind: reference images of a list that were dropped on the way to the provider
(backblaze-labs/genblaze#133), a new image model that no price table has, so that its budget never
ends (BerriAI/litellm#31945), models whose names have a slash (colinmeinke/ghost-storage-adapter-s3
#48 and imgix/imgix-java#17 on encoded slashes), endpoints of finetuned models.
"""

from __future__ import annotations

import base64
import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.command_line import command
from support.echo_server import EchoServer, echo_server
from support.simulator_sessions import fast_session

from fluxasync import Batch, ImageRequest, Prompts, Saved
from fluxasync.simulator import Scenario, Simulator

DATA = Path(__file__).parent / "data"
SMALL = (DATA / "small.jpg").read_bytes()
QUICK = Scenario(latency=(0, 0.01))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the list of the case and its picture."""
    for name in ("flux3.jsonl", "small.jpg"):
        shutil.copy(DATA / name, tmp_path / name)
    return tmp_path


def bodies(server: EchoServer) -> dict[str, dict[str, Any]]:
    return {body["prompt"]: body for _, body in server.submitted}


@pytest.mark.asyncio
@pytest.mark.slow
async def test_the_list_of_the_case_is_sent_whole(folder: Path) -> None:
    """Case 2: resolution, grounding and the picture of the edit reach the provider, typed as in
    the list, and the run has a price by resolution."""
    async with echo_server() as server:
        line = ("run", "flux3.jsonl", "-o", "out", "--base-url", server.url, "--max-cost", "5")
        ended = await command(*line, cwd=folder)
    assert ended.code == 0, ended.said
    assert "metadata, not sent" not in ended.said
    assert "2 images, $0.148 at list price" in ended.said
    sent = bodies(server)
    assert sent["a mountain pass at dusk"] == {
        "prompt": "a mountain pass at dusk", "resolution": "2k", "aspect_ratio": "16:9",
        "grounding": False,
    }  # fmt: skip
    edit = sent["the same place at night"]
    assert [base64.b64decode(text) for text in edit["images"]] == [SMALL]
    assert (edit["resolution"], edit["aspect_ratio"]) == ("1k", "auto")


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_second_run_pays_for_nothing_and_a_changed_picture_is_a_new_image(
    folder: Path,
) -> None:
    """An image of a list is part of the request's identity by its content, wherever it lies."""
    async with echo_server() as server:
        line = ("run", "flux3.jsonl", "-o", "out", "--base-url", server.url)
        assert (await command(*line, cwd=folder)).code == 0
        assert (await command(*line, cwd=folder)).code == 0
        assert len(server.submitted) == 2
        (folder / "moved").mkdir()
        shutil.move(folder / "small.jpg", folder / "moved" / "other.jpg")
        text = (folder / "flux3.jsonl").read_text().replace("small.jpg", "moved/other.jpg")
        (folder / "flux3.jsonl").write_text(text)
        assert (await command(*line, cwd=folder)).code == 0
        assert len(server.submitted) == 2
        shutil.copy(DATA / "small.jpg", folder / "moved" / "other.jpg")
        with (folder / "moved" / "other.jpg").open("ab") as file:
            file.write(b"\0\0")
        assert (await command(*line, cwd=folder)).code == 0
    assert len(server.submitted) == 3


@pytest.mark.asyncio
async def test_the_simulator_takes_flux_3_and_charges_by_resolution(folder: Path) -> None:
    """What the catalogue lets through, an independent provider accepts, at the same price."""
    requests = [
        ImageRequest(prompt="a", model="flux-3-image", parameters={"resolution": "768sq"}),
        ImageRequest(
            prompt="b",
            model="flux-3-image",
            parameters={"images": [SMALL, folder / "small.jpg"], "aspect_ratio": "9:21"},
        ),
        ImageRequest(prompt="c", model="flux-3-image-klein", width=640, height=320, seed=2**40),
    ]
    async with Simulator(QUICK) as sim, fast_session(sim.url, budget="1") as flux:
        async with Batch(flux, requests, out=folder / "out") as batch:
            outcomes = [outcome async for outcome in batch]
        assert all(isinstance(outcome, Saved) for outcome in outcomes)
        charged = sum((charge.price_usd for charge in sim.charges), Decimal(0))
        assert charged == batch.estimate.cost == Decimal("0.098")  # type: ignore[union-attr]
    lines = (folder / "out" / "metadata.jsonl").read_text().splitlines()
    images = [row["parameters"].get("images") for row in map(json.loads, lines)]
    assert sorted(len(each or ()) for each in images) == [0, 0, 2]
    assert "base64" not in "".join(lines)


@pytest.mark.asyncio
@pytest.mark.parametrize("dialect", ["cometapi", "bfl"])
async def test_a_name_with_a_slash_is_sent_collected_and_kept(dialect: str, tmp_path: Path) -> None:
    """flux-tools/erase-v1 is a path on the wire, one part of a file name, and itself in the lists
    and in the journal; a later run knows it."""
    picture = tmp_path / "small.jpg"
    picture.write_bytes(SMALL)
    row = {"model": "flux-tools/erase-v1", "image": picture, "mask": picture, "seed": 3}
    out = tmp_path / "out"
    async with Simulator(QUICK) as sim:
        for _ in range(2):
            async with fast_session(sim.url, dialect) as flux:
                batch = Batch(flux, Prompts([row]), out=out, name="{model}-{index}.{ext}")
                async with batch:
                    outcomes = [outcome async for outcome in batch]
        assert [charge.model for charge in sim.charges] == ["flux-tools/erase-v1"]
    assert isinstance(outcomes[0], Saved)
    assert [path.name for path in out.glob("*.png")] == ["flux-tools-erase-v1-0.png"]
    line = json.loads((out / "metadata.jsonl").read_text())
    assert line["model"] == "flux-tools/erase-v1"


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_finetuned_endpoint_needs_its_id_before_anything_is_sent(tmp_path: Path) -> None:
    """finetune_id and finetune_strength are sent; a row without an id is refused for free."""
    model = "flux-pro-1.1-ultra-finetuned"
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "model": model}))
    async with echo_server() as server:
        line = ("run", "rows.jsonl", "-o", "out", "--base-url", server.url)
        ended = await command(*line, cwd=tmp_path)
        assert ended.code == 2
        assert f"finetune_id is missing: {model} needs one" in ended.said
        assert server.submitted == []
        given = {"finetune_id": "mine", "finetune_strength": 1.5}
        rows.write_text(json.dumps({"prompt": "a", "model": model, **given}))
        assert (await command(*line, cwd=tmp_path)).code == 0
    assert bodies(server)["a"] == {"prompt": "a", **given}


@pytest.mark.asyncio
async def test_a_picture_of_a_list_stays_in_the_lists_folder(tmp_path: Path) -> None:
    """Each entry of a list of images is held to the folder of the prompt list, and to public
    addresses, as a single image is."""
    (tmp_path / "secret.jpg").write_bytes(SMALL)
    inner = tmp_path / "lists"
    inner.mkdir()
    (inner / "small.jpg").write_bytes(SMALL)
    async with fast_session("http://127.0.0.1:9") as flux:
        for picture, said in (("../secret.jpg", "outside the list's folder"), ("x.jpg", "no such")):
            row = {"prompt": "a", "model": "flux-3-image", "images": ["small.jpg", picture]}
            (inner / "rows.jsonl").write_text(json.dumps(row))
            batch = Batch(flux, inner / "rows.jsonl")
            with pytest.raises(Exception, match=rf"images\[1\]=.*{said}"):
                await batch.check()
            await batch.aclose()


@pytest.mark.asyncio
@pytest.mark.slow
async def test_one_image_of_flux_3_goes_to_a_file_of_any_suffix(tmp_path: Path) -> None:
    """FLUX 3 has no output_format, so none is sent with a file's suffix; the file is named by its
    bytes."""
    async with Simulator(QUICK) as sim:
        line = ("generate", "a", "-o", "a.png", "--model", "flux-3-image", "--base-url", sim.url)
        ended = await command(*line, "--param", "resolution=768sq", cwd=tmp_path)
        assert (ended.code, len(sim.charges)) == (0, 1), ended.said
    assert ended.out == ["a.jpg"]


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_given_price_makes_a_cap_possible_for_an_unknown_model(tmp_path: Path) -> None:
    """`--price` lets a cap hold for a model of no catalogue: the run ends at the cap, and the same
    command with a higher one goes on."""
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    async with echo_server() as server:
        line = ("run", "p.txt", "-o", "out", "--base-url", server.url, "--model", "aurora-9")
        ended = await command(*line, "--max-cost", "0.10", cwd=tmp_path)
        assert (ended.code, server.submitted) == (2, [])
        assert "--price" in ended.said
        price = ("--price", "aurora-9=0.04")
        ended = await command(*line, "--max-cost", "0.10", *price, cwd=tmp_path)
        assert (ended.code, len(server.submitted)) == (5, 2)
        assert "3 images, $0.12 at the given price" in ended.said
        ended = await command(*line, "--max-cost", "0.12", *price, cwd=tmp_path)
        assert (ended.code, len(server.submitted)) == (0, 3), ended.said


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("price", "said"),
    [("-1", "price"), ("nan", "price"), ("400", "more than $100"), ("cheap", "price"),
     ("flux-dve=0.04", "no row uses this model"), ("flux-dev=", "price")],
)  # fmt: skip
async def test_a_price_without_effect_or_sense_is_refused(
    price: str, said: str, tmp_path: Path
) -> None:
    """Nothing is sent under a price that is no amount, or of a model that no row has."""
    (tmp_path / "p.txt").write_text("a\n")
    ended = await command("run", "p.txt", "--dry-run", f"--price={price}", cwd=tmp_path)
    assert (ended.code, ended.out) == (2, [])
    assert said in ended.said


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_benchmark_of_an_unknown_model_takes_its_price_and_images(tmp_path: Path) -> None:
    """`bench --price --param` works for a model of no catalogue; without a price it says how."""
    shutil.copy(DATA / "small.jpg", tmp_path)
    async with echo_server() as server:
        line = ("bench", "-o", "report", "--model", "aurora-9", "--base-url", server.url,
                "--max-cost", "1", "--in-flight", "1", "--images", "2", "--warm-up", "0",
                "--param", "start=small.jpg", "--param", "tone=7")  # fmt: skip
        ended = await command(*line, cwd=tmp_path)
        assert (ended.code, server.submitted) == (2, [])
        assert "--price aurora-9=0.04" in ended.said
        ended = await command(*line, "--price", "0.04", cwd=tmp_path)
        assert (ended.code, len(server.submitted)) == (0, 2), ended.said
    for body in (body for _, body in server.submitted):
        assert (body["tone"], base64.b64decode(body["start"])) == (7, SMALL)
