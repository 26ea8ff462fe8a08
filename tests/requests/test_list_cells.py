"""Cells that are lists: images in their order, and metadata that stays a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.prompt_lists import complaint_of, requests_of, saved
from support.sample_images import jpeg, png

from fluxasync import ConfigError, ImageRequest
from fluxasync._cli.app import main
from fluxasync._requests.catalog import validate

MODEL = {"model": "flux-2-pro"}


def written(folder: Path, rows: list[dict[str, Any]], form: str) -> Any:
    if form == "rows":
        return rows
    if form == "jsonl":
        return saved(folder, "p.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "p.parquet")
    return folder / "p.parquet"


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["rows", "jsonl", "parquet"])
async def test_a_list_of_images_is_sent_in_its_order(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list under input_image has the key of the same images given one by one; tags stay a list.
    The paths are limited to the list's folder, each of them."""
    monkeypatch.chdir(tmp_path)
    for number, side in enumerate((64, 96, 128)):
        saved(tmp_path, f"{number}.png", png(side, side))
    names = ["0.png", "2.png", "1.png"]
    [one] = await requests_of(
        [{"prompt": "fox", "input_image": "0.png", "input_image_2": "2.png",
          "input_image_3": "1.png"}],
        parameters=MODEL,
    )  # fmt: skip
    source = written(tmp_path, [{"prompt": "fox", "input_image": names, "tags": ["a", "b"]}], form)
    [found] = await requests_of(source, parameters=MODEL)
    assert found.key == one.key
    assert found.extras == {"tags": ["a", "b"]}
    outside = saved(tmp_path.parent, "outside.png", png(64, 64))
    rows = [{"prompt": "fox", "input_image": ["0.png", str(outside)]}]
    message = await complaint_of(written(tmp_path, rows, form), parameters=MODEL)
    assert "input_image_2" in message


@pytest.mark.asyncio
async def test_pictures_of_a_data_set_are_images_in_order(tmp_path: Path) -> None:
    """A column of lists of pictures, as `datasets` writes them, is read as image inputs."""
    pictures = [{"bytes": png(side, side), "path": None} for side in (64, 96)]
    source = written(tmp_path, [{"prompt": "fox", "input_image": pictures}], "parquet")
    [found] = await requests_of(source, parameters=MODEL)
    first, second = found.parameters["input_image"], found.parameters["input_image_2"]
    assert (first.pixels, second.pixels) == (64 * 64, 96 * 96)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        pytest.param({"input_image": ["a.png", "b.png"], "input_image_2": "c.png"},
                     "input_image_2 is given in the list input_image and beside it", id="twice"),
        pytest.param({"input_image": [f"{n}.png" for n in range(9)]}, "input_image_9",
                     id="more than the model takes"),
        pytest.param({"image_prompt": ["a.png"], "model": "flux-dev"}, "an image input is",
                     id="a list where one is taken"),
    ],
)  # fmt: skip
async def test_images_that_have_no_place_are_refused(row: dict[str, Any], complaint: str) -> None:
    """No image of a list is dropped."""
    given = {**MODEL, "prompt": "fox", **row}
    assert complaint in await complaint_of([given])


IMAGES = '["a.jpg", "b.jpg"]'


@pytest.mark.asyncio
async def test_a_list_of_images_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a row, in a cell as JSON, and for all rows, of which one with its own image keeps that."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(jpeg(64, 64))
    (tmp_path / "b.jpg").write_bytes(jpeg(96, 64))
    (tmp_path / "rows.csv").write_text('prompt,input_image\na fox,"[""a.jpg"", ""b.jpg""]"\n')
    (tmp_path / "rows.txt").write_text("a fox\n")
    row, model = {"prompt": "a fox"}, {"model": "flux-2-pro"}
    images = {"input_image": json.loads(IMAGES)}
    found = [
        *await requests_of([row | images], **model),
        *await requests_of(tmp_path / "rows.csv", **model),
        *await requests_of(tmp_path / "rows.txt", parameters=images, **model),
        *await requests_of([row], parameters=images, grid={"safety_tolerance": [1]}, **model),
    ]
    assert {len(each.parameters) for each in found[:3]} == {2}
    assert len({each.content_key for each in found[:3]}) == 1
    rows = [row, row | {"input_image": "b.jpg"}]
    _, own = await requests_of(rows, parameters=images, **model)
    assert list(own.parameters) == ["input_image"]


@pytest.mark.slow
def test_a_list_of_images_is_the_same_in_param_of_both_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run` and `generate` send one image after the other."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(jpeg(64, 64))
    (tmp_path / "b.jpg").write_bytes(jpeg(96, 64))
    (tmp_path / "rows.txt").write_text("a fox\n")
    options = ["--model", "flux-2-pro", "--param", f"input_image={IMAGES}", "--simulate"]
    for words in (["run", "rows.txt", "-o", "out"], ["generate", "a fox", "-o", "x", "--json"]):
        assert main([*words, *options]) == 0
    made = [json.loads((tmp_path / "out/metadata.jsonl").read_text())]
    made += [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] == "{"]
    sent = [each["parameters"] for each in made]
    assert list(sent[0]) == ["input_image", "input_image_2"]
    assert sent[0] == sent[1]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("input_image", "give the second as input_image_2"),
        ("image_prompt", "one image, not a list"),
    ],
)
def test_a_list_where_one_image_is_taken_says_what_to_write(name: str, advice: str) -> None:
    """A request of a program has a field for each image."""
    model = "flux-2-pro" if name == "input_image" else "flux-pro-1.1"
    with pytest.raises(ConfigError, match=advice):
        validate(ImageRequest(prompt="x", model=model, parameters={name: ["a.jpg", "b.jpg"]}))


@pytest.mark.parametrize("name", ["prompt", "caption", "text"])
@pytest.mark.asyncio
async def test_an_empty_cell_of_the_prompts_is_no_missing_column(tmp_path, name):
    """The row is named; the column is there. A prompt for all rows fills it in."""
    path = saved(tmp_path, "p.csv", f"{name},sku\na fox,1\n,2\n")
    columns = {} if name == "prompt" else {"columns": {"prompt": name}}
    said = await complaint_of(path, **columns)
    assert said == "p.csv row 3: the prompt is empty: flux-dev needs prompt or image_prompt"
