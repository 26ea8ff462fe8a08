"""More of what was picked, or the same from another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import command
from support.saved_runs import save_images

from fluxasync import ConfigError, ImageRequest
from fluxasync._batch.picked_requests import Variation, picked_requests
from fluxasync._store.picks import PICKS, append_picks

pytestmark = pytest.mark.asyncio


async def picked(folder: Path, *rows: dict[str, Any]) -> None:
    """Save images in a folder, and pick all of them but the last."""
    saved = await save_images(folder, [{"index": n} | row for n, row in enumerate(rows)])
    keys = [one.request.key for one in saved]
    append_picks(folder, dict.fromkeys(keys[:-1], True) | {keys[-1]: False})


def requests(folder: Path, **variation: Any) -> list[ImageRequest]:
    return picked_requests(folder, Variation(**variation))


async def test_what_a_model_lacks_is_left_out_and_the_shape_is_kept(tmp_path, caplog):
    """Prompt, seed and columns stay; the ratio is the picked image's, 64 × 48."""
    row = {"prompt": "a fox", "guidance": 2.5, "steps": 30, "extras": {"sku": "K1"}}
    await picked(tmp_path, row, {"prompt": "rejected"})
    (made,) = requests(tmp_path, models=["flux-pro-1.1-ultra"])
    assert (made.prompt, made.seed, made.extras) == ("a fox", 7, {"sku": "K1"})
    assert made.given().keys() == {"prompt", "seed", "aspect_ratio"}
    assert made.parameters["aspect_ratio"] == "4:3"
    assert "flux-pro-1.1-ultra has no guidance: left out of 1 image" in caplog.messages
    (made,) = requests(tmp_path, models=["flux-pro"])
    assert (made.guidance, made.steps, made.model) == (2.5, 30, "flux-pro")
    assert (made.width, made.height) == (256, 256)  # the smallest that it makes


async def test_with_seeds_equal_picks_are_one(tmp_path):
    """Two picks of one prompt that differ in the seed would be paid twice for each new seed."""
    fox = {"prompt": "a fox", "guidance": 2.0}
    await picked(tmp_path, fox | {"seed": 1}, fox | {"seed": 2}, {"prompt": "rejected"})
    assert [made.seed for made in requests(tmp_path, parameters={"guidance": 3.0})] == [1, 2]
    (made,) = requests(tmp_path, varied={"seed"})
    assert (made.seed, made.guidance) == (None, 2.0)
    (made,) = requests(tmp_path, keeps_seed=False, varied={"guidance"})
    assert (made.seed, made.guidance) == (None, None)


async def test_without_a_saved_pick_nothing_is_made(tmp_path, caplog):
    """The error says where to pick; a picked image that is not there is a warning."""
    await picked(tmp_path, {"prompt": "rejected"})
    with pytest.raises(ConfigError, match="picks no image: pick some in the gallery"):
        requests(tmp_path)
    with pytest.raises(ConfigError, match="is a file of a run: name its folder"):
        requests(tmp_path / PICKS)
    with pytest.raises(ConfigError, match="nowhere is not the folder of a run"):
        requests(tmp_path / "nowhere")
    append_picks(tmp_path, {"0a" * 32: True})
    with pytest.raises(ConfigError, match="has no saved image that"):
        requests(tmp_path)
    assert f"{tmp_path}: 1 picked image without a saved image: left out" in caplog.messages


async def test_an_image_input_of_unknown_bytes_is_an_error(tmp_path):
    """Another image in its place would be another picture, and paid."""
    await picked(tmp_path, {"image_prompt": b"\xff\xd8\xff\xe0 an image"}, {"prompt": "rejected"})
    with pytest.raises(ConfigError, match="image_prompt: the record of the picked image has"):
        requests(tmp_path)
    (made,) = requests(tmp_path, parameters={"image_prompt": "http://192.0.2.1/x.png"})
    assert made.image_prompt.url == "http://192.0.2.1/x.png"


async def test_the_command_makes_more_and_never_the_same(tmp_path):
    """Without anything that differs it would only pay once more."""
    await picked(tmp_path / "run", {"prompt": "a fox"}, {"prompt": "rejected"})
    from_picks = ("run", "--from-picks", "run", "--dry-run")
    same = await command(*from_picks, cwd=tmp_path)
    assert same.code == 2
    assert "--from-picks alone would pay for the same images once more" in same.said
    filled = await command(*from_picks, "--seeds", "1..3", "--prompt", "{sku}", cwd=tmp_path)
    assert "has the prompts and columns of its images: leave --prompt out" in filled.said
    both = await command("run", "prompts.txt", *from_picks[1:], "--seeds", "1..3", cwd=tmp_path)
    assert "--from-picks is the list: leave the file out" in both.said
    none = await command("run", "--dry-run", cwd=tmp_path)
    assert "no prompt list" in none.said
    more = await command(*from_picks, "--seeds", "1..3", cwd=tmp_path)
    assert (more.code, more.out[0].split(",")[0]) == (0, "3 images")
    models = ("--models", "flux-dev,flux-pro-1.1-ultra", "--grid", "guidance=2,3")
    better = await command(*from_picks, *models, cwd=tmp_path)
    assert better.out == [] or better.code == 0
    (tmp_path / "run" / PICKS).unlink()
    empty = await command(*from_picks, "--seeds", "1..3", cwd=tmp_path)
    assert "picks no image" in empty.said


async def test_a_run_from_picks_is_continued_and_says_that_the_picks_changed(tmp_path):
    """Its folder remembers where the picks are; what was made is not paid again."""
    run = tmp_path / "run"
    size = {"width": 256, "height": 256}
    await picked(run, size | {"prompt": "a fox"}, size | {"prompt": "rejected"})
    line = ("run", "--from-picks", "run", "--seeds", "1,2", "-o", "more", "--simulate")
    assert (await command(*line, cwd=tmp_path)).code == 0
    again = await command("resume", "more", cwd=tmp_path)
    assert again.code == 0
    assert "--seeds 1,2 --from-picks" in again.said
    assert "0 new, 2 already there" in again.said
    append_picks(run, dict.fromkeys(key_of(run, "rejected"), True))
    grown = await command("resume", "more", cwd=tmp_path)
    assert (grown.code, len(grown.out)) == (0, 2)
    assert "the list changed since the last run: picks.jsonl" in grown.said


def key_of(run: Path, prompt: str) -> list[str]:
    lines = map(json.loads, (run / "metadata.jsonl").read_text().splitlines())
    return [line["key"] for line in lines if line["prompt"] == prompt]
