"""Case 11: records that lie one level down are read, or refused with the option to type.

Other members of the kind: objects keyed by id (huggingface/datasets#651, simonw/datasette-lite#66,
linzhiqiu/t2v_metrics), a list under a key (huggingface/datasets#372,
UKGovernmentBEIS/inspect_ai#2644, capitalone/DataProfiler#105), JSON lines in a .json file
(huggingface/datasets#1784), batch files of OpenAI, answers of datasets-server, inputs of Replicate,
every orientation of pandas.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.prompt_lists import complaint_of, plan_of, requests_of, saved

from fluxasync import ConfigError, ImageRequest, Prompts

DATA = Path(__file__).parent / "data"
#: of prompts; without marks of other tools, which are refused
CHARACTERS = "abé夜 ,;\t\n\"'\\"
ROWS = [{"prompt": "fox", "width": 512}, {"prompt": "owl", "width": 256}]


@pytest.mark.asyncio
async def test_the_keyed_file_of_the_case_is_read() -> None:
    """Case 11: each value is a row, and its key is the metadata's `id`."""
    stone, brass = await requests_of(DATA / "keyed.json")
    assert (stone.prompt, brass.prompt) == ("a stone bridge", "a brass kettle")
    assert stone.extras == {"id": "0001", "category": "places"}
    [first, _] = await requests_of(DATA / "keyed.json", columns={"name": "id"})
    assert first.name == "0001"


def shapes(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The same rows as tools write them, as JSON values."""
    names = list(rows[0])
    return {
        "records": rows,
        "data": {"data": rows},
        "items": {"version": 2, "items": rows},
        "prompts and more": {"meta": {"n": 1}, "prompts": rows, "tags": []},
        "keyed": {f"id-{place}": row for place, row in enumerate(rows)},
        "orient=index": {str(place): row for place, row in enumerate(rows)},
        "orient=columns": {
            name: {str(place): row[name] for place, row in enumerate(rows)} for name in names
        },
        "orient=split": {
            "columns": names,
            "index": list(range(len(rows))),
            "data": [[row[name] for name in names] for row in rows],
        },
        "orient=table": {"schema": {"fields": []}, "data": rows},
        "to_dict": {name: [row[name] for row in rows] for name in names},
        "datasets-server": {
            "features": [],
            "rows": [{"row_idx": n, "row": row, "cut": []} for n, row in enumerate(rows)],
        },
        "replicate": [{"input": row} for row in rows],
        "openai": [
            {"custom_id": f"r-{n}", "method": "POST", "url": "/v1/images", "body": row}
            for n, row in enumerate(rows)
        ],
    }  # fmt: skip


@pytest.mark.asyncio
@settings(max_examples=20)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "prompt": st.text(CHARACTERS, min_size=1).filter(str.strip),
                "width": st.sampled_from([256, 512]),
            }
        ),
        min_size=1,
        max_size=5,
    ),
    indent=st.sampled_from([None, 2]),
)
async def test_every_shape_is_the_same_list(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], indent: int | None
) -> None:
    """Case 11: whatever a tool makes of the rows, their keys and number are the same."""
    folder = tmp_path_factory.mktemp("shapes")
    expected = [request.key for request in await requests_of(rows)]
    for shape, value in shapes(rows).items():
        path = saved(folder, "p.json", "\ufeff" + json.dumps(value, indent=indent))
        assert (shape, expected) == (shape, [request.key for request in await requests_of(path)])


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        pytest.param('{"prompts": ["fox", "owl"]}', ["fox", "owl"], id="texts under a key"),
        pytest.param('["fox", "owl"]', ["fox", "owl"], id="texts"),
        pytest.param('{"prompt": "fox"}', ["fox"], id="one row"),
        pytest.param('{\n  "prompt": "fox",\n  "tags": ["a"]\n}\n', ["fox"], id="one pretty row"),
        pytest.param('{"Prompt": "fox"}\n\n{"Prompt": "owl"}\n', ["fox", "owl"], id="lines"),
        pytest.param('\ufeff{"body": {"prompt": "fox"}}\r\n{"body": {"prompt": "owl"}}\r\n',
                     ["fox", "owl"], id="lines of bodies, with a mark"),
        pytest.param('{\n "prompt": "fox"\n}\n{\n "prompt": "owl"\n}', ["fox", "owl"], id="jq"),
        pytest.param('{"prompt": "fox"}{"prompt": "owl"}', ["fox", "owl"], id="without line ends"),
        pytest.param('{"a": {"prompt": "fox"}}', ["fox"], id="one key"),
        pytest.param('{"0001": "fox", "0002": "owl"}', ["fox", "owl"], id="a text a key"),
        pytest.param('{"harbour-dawn": "fox"}', ["fox"], id="a text under a slug"),
    ],
)  # fmt: skip
async def test_unambiguous_forms_are_read(tmp_path: Path, content: str, prompts: list[str]) -> None:
    """Case 11: a form that can mean one thing only needs no option."""
    assert prompts == [r.prompt for r in await requests_of(saved(tmp_path, "p.json", content))]


COCO = {
    "info": {"year": 2017},
    "images": [{"id": 7, "file_name": "7.jpg"}],
    "annotations": [{"image_id": 7, "id": 1, "caption": "fox"}],
}
UNCLEAR = [
    pytest.param(COCO, {}, "--rows annotations", {"prompt": "caption"}, id="COCO captions"),
    pytest.param({"animals": ["fox"], "places": ["sea"]}, {}, "--rows animals", None,
                 id="a list a category"),
    pytest.param({"result": {"items": [{"prompt": "fox"}]}, "ok": True}, {}, "data.items", None,
                 id="two levels down"),
    pytest.param({"data": [{"prompt": "fox"}], "width": 512}, {}, "'width' beside the list", None,
                 id="a parameter for all"),
    pytest.param({"a": 1}, {}, "(keys: 'a') without rows", None, id="no rows"),
    pytest.param({"text": "fox", "id": "7"}, {}, "--prompt-column text or write", None,
                 id="one row without a prompt"),
    pytest.param({"scene": "a street", "mood": "calm"}, {}, "'scene', 'mood' may be of one prompt",
                 None, id="one structured prompt"),
    pytest.param({"status": "queued"}, {}, "'status' may be", None, id="an answer"),
    pytest.param({"0001": "fox", "image_size": "1K"}, {}, "'image_size' may be", None,
                 id="a parameter of another tool"),
    pytest.param({"a": "fox", "b": 7}, {}, "without rows", None, id="texts and numbers"),
    pytest.param({}, {}, "[{", None, id="nothing"),
    pytest.param({"prompt": ["a", "b"], "width": [512]}, {}, "different lengths", None,
                 id="columns of two lengths"),
    pytest.param([{"seed": 1, "body": {"prompt": "fox", "seed": 2}}], {}, "inside body and beside",
                 None, id="two seeds"),
    pytest.param(COCO, {"rows": "captions"}, "no 'captions' (keys: 'info', 'images'", None,
                 id="a wrong key"),
    pytest.param(COCO, {"rows": "info.year"}, "no list and no object", None, id="a number"),
    pytest.param([{"prompt": "fox"}, [1]], {}, "item 2", None, id="a list in the list"),
]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize(("value", "options", "complaint", "columns"), UNCLEAR)
async def test_what_is_unclear_is_refused_with_the_option(
    tmp_path: Path, value: Any, options: dict[str, Any], complaint: str, columns: Any
) -> None:
    """Case 11: no image of a wrong row is made, and one line says how to name the rows."""
    path = saved(tmp_path, "p.json", json.dumps(value))
    message = await complaint_of(path, **options)
    assert complaint in message.splitlines()[0]
    assert len(message) < 400
    if columns is not None:
        [fox] = await requests_of(path, columns=columns, rows="annotations")
        assert (fox.prompt, fox.extras) == ("fox", {"image_id": 7, "id": 1})
        [same] = await requests_of(path, columns=columns)
        assert same.key == fox.key


@pytest.mark.asyncio
async def test_texts_keyed_by_id_are_the_rows_with_that_id(tmp_path: Path) -> None:
    """Case 11: `{"0001": "a fox"}` is `{"0001": {"prompt": …}}`; a blank text is a bad row."""
    texts = {"0001": 'a "fox"', "b/2": "owl\n夜"}
    requests = await requests_of(saved(tmp_path, "p.json", json.dumps(texts, indent=1)))
    assert texts == {request.extras["id"]: request.prompt for request in requests}
    blank = saved(tmp_path, "q.json", '{"a": "fox", "b": ""}')
    assert "item 2" in await complaint_of(blank)


@pytest.mark.asyncio
async def test_rows_are_found_by_their_path(tmp_path: Path) -> None:
    """Case 11: --rows goes down through objects to a list or to objects keyed by id."""
    value = {"result": {"items": ROWS, "keyed": {"a": ROWS[0]}}}
    path = saved(tmp_path, "p.json", json.dumps(value, indent=1))
    assert [r.prompt for r in await requests_of(path, rows="result.items")] == ["fox", "owl"]
    [fox] = await requests_of(path, rows="result.keyed")
    assert fox.extras == {"id": "a"}
    with pytest.raises(ConfigError, match=r"rows is for a \.json file"):
        Prompts(["fox"], rows="data")
    other = saved(tmp_path, "p.jsonl", '{"prompt": "fox"}')
    assert "only in a .json file" in await complaint_of(other, rows="data")


@pytest.mark.asyncio
async def test_what_is_beside_a_row_belongs_to_it(tmp_path: Path) -> None:
    """Case 11: a parameter beside a request's body is sent, the rest is metadata; nothing is
    dropped."""
    body = {"prompt": "fox", "seed": 7}
    row = {"custom_id": "r-1", "method": "POST", "url": "/v1/images", "width": 512, "body": body}
    for source in ([row], saved(tmp_path, "p.jsonl", json.dumps(row))):
        [fox] = await requests_of(source)
        assert fox.key == ImageRequest(prompt="fox", seed=7, width=512).key
        assert fox.extras == {"custom_id": "r-1", "method": "POST", "url": "/v1/images"}


@pytest.mark.asyncio
async def test_what_is_beside_the_list_is_named(tmp_path: Path) -> None:
    """Case 11: what is not read is in a note before anything is spent."""
    value = {"name": "my set", "licence": "x", "prompts": ["fox"]}
    plan = await plan_of(saved(tmp_path, "p.json", json.dumps(value)))
    assert plan.notes == ("not read in p.json, beside 'prompts': 'name', 'licence'",)


@pytest.mark.asyncio
async def test_keys_of_rows_are_kept_beside_their_own(tmp_path: Path) -> None:
    """Case 11: a row's own id stays; another key goes to `key`, an equal one is said once."""
    value = {"a": {"id": 1, "prompt": "fox"}, "b": {"id": "b", "prompt": "owl"}}
    fox, owl = await requests_of(saved(tmp_path, "p.json", json.dumps(value)))
    assert (fox.extras, owl.extras) == ({"id": 1, "key": "a"}, {"id": "b"})
    twice = saved(tmp_path, "q.json", '{"a": {"prompt": "fox"}, "a": {"prompt": "owl"}}')
    assert "duplicate key 'a'" in await complaint_of(twice)


@pytest.mark.asyncio
async def test_json_in_a_file_of_lines_is_named(tmp_path: Path) -> None:
    """Case 11: a list that is named .jsonl is one rename away."""
    for text in (json.dumps(ROWS, indent=2), json.dumps(ROWS[0], indent=2), json.dumps(ROWS)):
        assert "name it .json" in await complaint_of(saved(tmp_path, "p.jsonl", text))
