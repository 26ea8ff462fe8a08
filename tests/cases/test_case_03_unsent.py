"""Case 3: what a row asks for is sent, or refused before spending, or named as not sent.

Other members of the kind: parameters outside an allow-list that were dropped without a word
(backblaze-labs/genblaze#133), extra parameters of image requests that never reached the provider
(maximhq/bifrost#3572, 0xPlaygrounds/rig#2264), an image of another size than asked for
(FWU-DE/ais-chat#1290, xtekky/gpt4free#2401), steps under a name that was ignored
(kephale/napari-stable-diffusion#4), an edit without its picture
(Haervwe/open-webui-tools#19), a model without a price whose budget never ends
(BerriAI/litellm#39118, jakobdylanc/llmcord#51).
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Ended, command
from support.echo_server import EchoServer, echo_server
from support.prompt_lists import complaint_of, plan_of, requests_of, saved
from support.simulator_sessions import fast_session

from fluxasync import Batch, ConfigError, Prompts
from fluxasync._requests.parsing import parse_request
from fluxasync._requests.sources.plan import metadata_message
from fluxasync._requests.sources.row_reader import image_inputs

DATA = Path(__file__).parent / "data"
#: of no catalogue
NEW = "aurora-9/image"


def refusal(row: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_request(row)
    return str(caught.value)


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
@pytest.mark.slow
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
@pytest.mark.slow
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
        changed = f"options changed since the last run: --map (not given) → {option[6:]}"
        assert (again.code, again.err) == (0, [changed])
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
@pytest.mark.slow
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
@pytest.mark.slow
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
@pytest.mark.slow
async def test_a_mapped_cell_is_sent_with_its_type_to_a_known_model(tmp_path: Path) -> None:
    """`--map extra_body.NAME=COLUMN` reads a cell as `--param extra_body.NAME=V` reads V."""
    rows = "prompt,tone,soft,code\na,7,true,007\n"
    names = ("tone", "soft", "code")
    mapped = [word for name in names for word in ("--map", f"extra_body.{name}={name}")]
    async with echo_server() as server:
        assert (await run(tmp_path, server, rows, *mapped)).code == 0
        assert bodies(server) == [{"prompt": "a", "tone": 7, "soft": True, "code": "007"}]


@pytest.mark.asyncio
@pytest.mark.slow
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
@pytest.mark.slow
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


EDITORS = ("flux-kontext-pro", "flux-kontext-max", "flux-2-pro", "flux-2-klein-4b", "flux-3-image")
#: of fal, Replicate, OpenAI, Runware, Stability, Luma, diffusers and AUTOMATIC1111
PICTURES = (
    "image_url", "image_urls", "imageUrl", "Image URL", "image-url", "image_path", "image_input",
    "image1", "image_2", "img", "img_url", "photo", "picture_path", "image_base64", "image_b64",
    "image", "reference_image", "reference_images", "referenceImages", "source_image", "seed_image",
    "init_image", "init_images", "input_images", "input_image_url", "control_image_url",
    "style_image", "input_reference", "conditioning_image", "image_reference", "redux_image",
    "original_image", "start_image", "image_file", "ref_images",
)  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("model", EDITORS)
@pytest.mark.parametrize("name", PICTURES)
async def test_an_edit_is_not_paid_without_its_picture(name: str, model: str) -> None:
    """Case 3: another tool's name of an image input is refused, and one advised option sends the
    image, the other keeps it as metadata."""
    url = "https://example.org/a.png"
    row = {"prompt": "make it night", "model": model, name: url}
    message = await complaint_of([row])
    words = shlex.split(message.replace(")", " ").replace("(", " "))
    [use, keep] = [words[n + 1] for n, word in enumerate(words) if word == "--map"]
    target, column = use.split("=")
    assert (column, keep) == (name, f"extras.{name}={name}")
    [request] = await requests_of([row], columns={target: name})
    assert [url] == [image.url for image in image_inputs(request)]
    [request] = await requests_of([row], columns={f"extras.{name}": name})
    assert (request.extras, image_inputs(request)) == ({name: url}, [])


def test_two_pictures_go_to_two_inputs() -> None:
    """Case 3: each column of images gets an input of its own, and a mask only that of masks."""
    message = refusal({"prompt": "a", "model": "flux-2-pro", "image1": "a", "image2": "b"})
    assert "--map input_image=image1" in message
    assert "--map input_image_2=image2" in message
    fill = {"prompt": "a", "model": "flux-pro-1.0-fill", "image_url": "a", "mask_url": "b"}
    assert "--map mask=mask_url" in refusal(fill)
    mask = refusal({"prompt": "a", "model": "flux-kontext-pro", "mask_url": "a.png"})
    assert "takes no mask" in mask
    assert mask.count("--map") == 1


@pytest.mark.asyncio
async def test_a_picture_under_any_name_is_not_lost(tmp_path: Path) -> None:
    """Case 3: where the model edits, a value that is an image is refused under every name, unless
    the name is that of a result; the name of a missing file is metadata."""
    shutil.copy(DATA / "small.jpg", tmp_path)
    encoded = base64.b64encode((DATA / "small.jpg").read_bytes()).decode()
    base = {"prompt": "a", "model": "flux-kontext-pro"}
    for value in ("small.jpg", ["small.jpg"], encoded, f"data:image/jpeg;base64,{encoded}"):
        path = saved(tmp_path, "p.jsonl", json.dumps({**base, "subject": value}))
        message = await complaint_of(path)
        assert "--map input_image=subject" in message
        assert "--map extras.subject=subject" in message
        assert len(message) < 400
        await requests_of(path, columns={"extras.subject": "subject"})
    for name, value in (("subject", "none.jpg"), ("output_file", "small.jpg"), ("target", encoded)):
        await requests_of(saved(tmp_path, "p.jsonl", json.dumps({**base, name: value})))
    picture = {**base, "subject": b"\xff\xd8"}
    assert "--map input_image=subject" in await complaint_of([picture])
    assert (await plan_of([picture], columns={"extras.subject": "subject"})).images == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name", ["image_url", "img_path", "URL", "photo", "image_id", "image_hash"]
)
async def test_pictures_of_a_data_set_are_metadata_of_text_to_image(name: str) -> None:
    """Case 3: tables of captions describe their pictures; a model that paints text keeps them, and
    names them as not sent."""
    rows = [{"prompt": "a fox", name: "https://example.org/a.png"}]
    assert (await plan_of(rows)).unknown_keys == (name,)


#: another tool's name → what Flux calls it
RENAMED = {
    "num_inference_steps": "steps", "inference_steps": "steps", "sampling_steps": "steps",
    "numInferenceSteps": "steps", "guidance_scale": "guidance", "cfg_scale": "guidance",
    "CFGScale": "guidance", "cfg": "guidance", "num_images": "n", "num_outputs": "n",
    "n_images": "n", "batch_size": "n", "numberResults": "n", "sampleCount": "n",
    "num_images_per_prompt": "n", "random_seed": "seed", "noise_seed": "seed",
    "format": "output_format", "outputFormat": "output_format", "w": "width", "h": "height",
    "image_width": "width", "image-height": "height", "model_name": "model",
}  # fmt: skip
VALUES: dict[str, Any] = {
    "steps": 20, "guidance": 2.5, "n": 2, "seed": 7, "output_format": "png", "width": 512,
    "height": 256, "model": "flux-dev",
}  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("name", RENAMED)
async def test_a_wish_under_another_name_is_refused_with_its_option(
    tmp_path: Path, name: str, suffix: str
) -> None:
    """Case 3: what has the same value under another name is one option away from being sent."""
    meant = RENAMED[name]
    text = json.dumps({"prompt": "a", name: VALUES[meant]})
    if suffix == "csv":
        text = f"prompt,{name}\na,{VALUES[meant]}\n"
    path = saved(tmp_path, f"p.{suffix}", text)
    assert f"--map {meant}={name}" in await complaint_of(path)
    [request, *copies] = await requests_of(path, columns={meant: name})
    given = {**request.given(), "n": 1 + len(copies), "model": request.model}
    assert given[meant] == VALUES[meant]
    [kept] = await requests_of(path, columns={f"extras.{name}": name})
    assert list(kept.extras) == [name]


@pytest.mark.parametrize(
    ("model", "name", "part"),
    [
        ("flux-dev", "size", "takes width and height"),
        ("flux-2-pro", "image_size", "takes width and height"),
        ("flux-kontext-pro", "size", "takes aspect_ratio"),
        ("flux-dev", "dimensions", "takes width and height"),
        ("flux-dev", "ar", "takes width and height"),
        ("flux-2-flex", "strength", "no such parameter"),
        ("flux-dev", "denoise", "no such parameter"),
        ("flux-pro-1.1", "num_inference_steps", "flux-pro-1.1 has no such parameter"),
        ("flux-kontext-pro", "w", "it takes aspect_ratio"),
    ],
)
def test_what_cannot_be_renamed_is_refused_too(model: str, name: str, part: str) -> None:
    """Case 3: a size in one value, or what the model lacks, is not paid in silence."""
    message = refusal({"prompt": "a", "model": model, name: "512x512"})
    assert part in message
    assert message.count("--map") == 1
    assert f"--map extras.{name}={name}" in message


def test_a_default_does_not_hide_a_wish_of_the_row() -> None:
    """Case 3: `--n 2` beside `num_images` 4 is unclear, so it is refused."""
    with pytest.raises(ConfigError, match="--map n=num_images"):
        parse_request({"prompt": "a", "num_images": 4}, defaults={"n": 2})


def test_all_foreign_names_are_in_one_message() -> None:
    """Case 3: a row of another tool is mended once; no option is cut out of the message."""
    row = {"prompt": "a", "image1": "a", "image2": "b", "image3": "c", "size": "x", "num_images": 2,
           "widht": 5, "num_inference_steps": 3}  # fmt: skip
    message = refusal({**row, "model": "flux-2-flex"})
    assert all(f"extras.{name}={name}" in message for name in row if name != "prompt")


@pytest.mark.asyncio
@pytest.mark.slow
async def test_what_a_tool_writes_beside_a_row_is_sent_to_no_model(tmp_path: Path) -> None:
    """Case 3: the envelope of a batch file is metadata, also for a model that the catalogue lacks;
    the warning names the model's option."""
    line = {"custom_id": "r-1", "method": "POST", "url": "/v1/images/generations",
            "body": {"prompt": "a", "model": "gpt-image-1", "shade": 2}}  # fmt: skip
    async with echo_server() as server:
        ended = await run(tmp_path, server, [line])
        assert ended.code == 0, ended.said
        assert bodies(server) == [{"prompt": "a", "shade": 2}]
        assert "--map extras.model=model" in ended.said
        assert "extra_body.custom_id" not in ended.said
        mapped = ("--map", "extras.model=model", "--model", "flux-dev")
        again = await run(tmp_path, server, [line], *mapped)
        assert (again.code, server.submitted[1][0].endswith("/flux-dev")) == (0, True)
    lines = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
    envelope = {key: line[key] for key in ("custom_id", "method", "url")}
    assert [envelope, {**envelope, "model": "gpt-image-1", "shade": 2}] == [
        json.loads(each)["extras"] for each in lines
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "row",
    [
        {"row_idx": 3, "row": {"prompt": "a"}, "truncated_cells": []},
        {"version": "5c7d", "id": "x", "input": {"prompt": "a"}},
        {"custom_id": "r-1", "prompt": "a"},
    ],
)
async def test_envelopes_are_metadata(row: dict[str, Any]) -> None:
    """Case 3: so are those of datasets-server and Replicate; no option to send them is advised."""
    for model in ("flux-dev", "flux-3-image", NEW):
        plan = await plan_of([row], model=model)
        assert plan.unchecked_keys == ()
        [request] = await requests_of([row], model=model)
        assert (request.parameters, len(request.extras) > 0) == ({}, True)
    assert "(" not in metadata_message(["custom_id", "url"])
