"""Case 10: columns as real data sets name them are read, or refused with the option to type.

Other members of the kind: `Prompt`, `Category` and `Challenge` in PartiPrompts (kohjingyu/gill#15),
a caption in the column that the data set chose (huggingface/diffusers#6445), `Prompts` in
DrawBench, `prompt_id` in WISE (PKU-YuanGroup/WISE `data_verified`), `TEXT` in LAION's tables.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.prompt_lists import complaint_of, plan_of, requests_of, saved

from fluxasync import ConfigError, ImageRequest
from fluxasync._requests.parsing import key_faults, parse_request

DATA = Path(__file__).parent / "data"


@pytest.mark.asyncio
@pytest.mark.parametrize("columns", [None, {"prompt": "Prompt"}])
async def test_the_json_of_the_case_is_read_as_a_table_is(columns: Any) -> None:
    """Case 10: `Prompt` is the prompt in an object too, and `prompt_id` beside it is metadata."""
    stone, brass = await requests_of(DATA / "capital.json", columns=columns)
    assert (stone.prompt, brass.prompt) == ("a stone bridge", "a brass kettle")
    assert stone.extras == {"Category": "places", "prompt_id": 1}
    assert stone.key == ImageRequest(prompt="a stone bridge").key
    plan = await plan_of(DATA / "capital.json", columns=columns)
    assert plan.unknown_keys == ("Category", "prompt_id")


#: data set → the columns of a row, the mapping that it needs
DATA_SETS = [
    pytest.param({"Prompt": "fox", "Category": "Animals", "Challenge": "Basic", "Note": "x"},
                 None, id="PartiPrompts"),
    pytest.param({"Prompts": "fox", "Category": "Colors"}, None, id="DrawBench"),
    pytest.param({"prompts": "fox", "category": "Colors", "id": 0}, None, id="DrawBench on a hub"),
    pytest.param({"tag": "single_object", "include": [{"class": "fox", "count": 1}],
                  "prompt": "fox"}, None, id="GenEval"),
    pytest.param({"img_path": "./1.jpg", "prompt": "fox", "Task2": {"Caption": "a fox"}}, None,
                 id="JourneyDB"),
    pytest.param({"Prompt": "fox", "Explanation": "x", "Category": "c", "Subcategory": "s",
                  "prompt_id": 3}, None, id="WISE"),
    pytest.param({"id": 4, "image_id": 2, "caption": "fox"}, "caption", id="COCO captions"),
    pytest.param({"URL": "https://example.org/a.png", "TEXT": "fox", "NSFW": "no"}, "TEXT",
                 id="LAION"),
    pytest.param({"image_url": "https://example.org/a.png", "text": "fox"}, "text",
                 id="image and text"),
    pytest.param({"item_id": "1", "description": "fox"}, "description", id="a shop's list"),
]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("suffix", ["json", "jsonl", "list"])
@pytest.mark.parametrize(("row", "column"), DATA_SETS)
async def test_data_sets_are_read_or_name_their_option(
    tmp_path: Path, row: dict[str, Any], column: str | None, suffix: str
) -> None:
    """Case 10: `prompt` and `prompts` in any capitals are taken, any other column is advised with
    the option, which then reads it; the rest is metadata."""
    source: Any = [row]
    if suffix != "list":
        text = json.dumps([row]) if suffix == "json" else json.dumps(row)
        source = saved(tmp_path, f"p.{suffix}", text)
    columns = None
    if column is not None:
        message = await complaint_of(source)
        assert message.endswith(f"name the key of the prompts: --prompt-column {column}")
        columns = {"prompt": column}
    [request] = await requests_of(source, columns=columns)
    assert request.prompt == "fox"
    rest = {key: value for key, value in row.items() if value != "fox" and key != "seed"}
    assert request.extras == rest


@pytest.mark.asyncio
async def test_all_faults_of_the_columns_are_in_one_message(tmp_path: Path) -> None:
    """Case 10: a list of several slips is mended once, and typing what is advised reads it."""
    row = {"promt": "fox", "widht": 512, "guidence": 3}
    path = saved(tmp_path, "p.jsonl", json.dumps(row))
    [message] = (await complaint_of(path)).splitlines()
    for advice in ("--prompt-column promt", "--map width=widht", "--map guidance=guidence"):
        assert advice in message
    columns = {"prompt": "promt", "width": "widht", "guidance": "guidence"}
    [request] = await requests_of(path, columns=columns)
    assert request.key == ImageRequest(prompt="fox", width=512, guidance=3).key
    table = saved(tmp_path, "p.csv", "Caption,Text,widht,n,N\nfox,owl,5,1,1\n")
    [message] = (await complaint_of(table)).splitlines()
    assert "n would come from two columns, 'n' and 'N'" in message
    assert "--prompt-column Caption or --prompt-column Text" in message
    assert "did you mean width? (--map width=widht)" in message


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "row", [{"Prompt": "fox", "prompt": "owl"}, {"PROMPTS": "a", "Prompts": "b"}]
)
async def test_two_prompts_of_one_row_are_refused(row: dict[str, str]) -> None:
    """Case 10: the user decides which of two columns is painted."""
    message = await complaint_of([row])
    assert all(repr(name) in message for name in row)


@pytest.mark.parametrize(
    ("row", "meant"),
    [
        pytest.param({"prompt": "fox", "widht": 512}, "width", id="letters swapped"),
        pytest.param({"prompt": "fox", "width_px": 512}, "width", id="the parameter is not there"),
        pytest.param({"prompt": "fox", "prompt_upsample": True}, "prompt_upsampling",
                     id="a longer parameter"),
        pytest.param({"prompt": "fox", "model": "flux-2-pro", "input_image": "a.png",
                      "input_image_9": "b.png"}, "input_image", id="one image too many"),
        pytest.param({"prompt": "fox", "modle": "flux-pro"}, "model", id="the model"),
    ],
)  # fmt: skip
def test_a_slip_is_still_caught(row: dict[str, Any], meant: str) -> None:
    """Case 10: a value that was meant for the model does not become metadata."""
    with pytest.raises(ConfigError, match=meant):
        parse_request(row)


@given(
    st.sampled_from([("prompt", "fox"), ("width", 512), ("seed", 7), ("steps", 20)]),
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8),
    st.sampled_from(["{0}_{1}", "{1}_{0}", "{0}-{1}", "{0}.{1}"]),
)
def test_what_describes_a_given_parameter_is_metadata(
    parameter: tuple[str, Any], word: str, form: str
) -> None:
    """Case 10: `seed_id`, `prompt_en` and `orig_width` are metadata where the row has the
    parameter, unless the name is nearer to another parameter."""
    name, value = parameter
    key = form.format(name, word)
    row = {"prompt": "fox", name: value, key: "mine"}
    assert not [fault for fault in key_faults(row) if f"did you mean {name}?" in fault]


def test_bench_maps_columns_too(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Case 10: `bench --prompts` takes --map, and names the faults as `run` does."""
    pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")
    from fluxasync._cli.app import main
    from fluxasync._cli.bench_command import BenchOptions
    from fluxasync._cli.bench_measurement import _prompts

    options = BenchOptions(prompts="p.csv", prompt_column="Text", map=("width=w",))
    prompts = _prompts(options)
    assert prompts is not None
    assert prompts.columns == {"prompt": "Text", "width": "w"}
    assert main(["bench", "--simulate", "--map", "width=w", "-o", str(tmp_path / "out")]) == 2
    assert "--map is about --prompts FILE" in capfd.readouterr().err
