"""Case 12: a structured prompt is sent as its JSON text, whatever it came from.

Members of the kind: braces of JSON taken for variables (FlowiseAI/Flowise#968,
Significant-Gravitas/AutoGPT#9194), for choices (adieyal/sd-dynamic-prompts#212), JSON that a tool
refuses (FizzleDorf/ComfyUI_FizzNodes#19); lists of objects with bounding boxes (docs.bfl.ai).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.echo_server import echo_server
from support.prompt_lists import complaint_of, requests_of, rows_of, saved

from fluxasync import BadRow, ImageRequest, Prompts, run
from fluxasync._requests.sources.wildcards import Wildcards

DATA = Path(__file__).parent / "data"
SCENE = {"scene": "a wet street", "subjects": [{"what": "Ärztin|夜", "where": None}], "n_lights": 3}
TEXT = json.dumps(SCENE, ensure_ascii=False)


async def of_standard_input(
    content: str, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> list[ImageRequest | BadRow]:
    reader, writer = os.pipe()
    os.write(writer, content.encode())
    os.close(writer)
    with os.fdopen(reader) as given_input:
        monkeypatch.setattr("sys.stdin", given_input)
        return await rows_of("-", **options)


@pytest.mark.asyncio
@pytest.mark.slow
async def test_the_prompts_of_the_case_reach_the_wire_as_json_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 12: the object of a row arrives as its JSON text, keys in their order; a line of text
    arrives as it is, from a file as from standard input."""
    line = (DATA / "json_prompt.txt").read_text().strip()
    row = json.loads((DATA / "json_prompt.jsonl").read_text())["prompt"]
    async with echo_server() as server:
        for name in ("json_prompt.jsonl", "json_prompt.txt"):
            source = Prompts(DATA / name, model=None if name.endswith("l") else "flux-2-pro")
            await run(source, out=tmp_path / name, base_url=server.url, api_key="x")
        sent = [body["prompt"] for _, body in server.submitted]
    assert [json.dumps(row, ensure_ascii=False), line] == sent
    [piped] = await of_standard_input(line + "\n", monkeypatch)
    assert isinstance(piped, ImageRequest)
    assert piped.prompt == line


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.txt", "rows", "text"])
async def test_one_object_is_one_prompt_from_every_source(tmp_path: Path, name: str) -> None:
    """Case 12: the same object is the same image from every format."""
    rows = {"rows": [{"prompt": SCENE}], "text": [TEXT]}
    written = {
        "p.jsonl": json.dumps({"prompt": SCENE}),
        "p.json": json.dumps([{"prompt": SCENE}], indent=2),
        "p.txt": TEXT,
    }
    given = rows[name] if name in rows else saved(tmp_path, name, written[name])
    [request] = await requests_of(given)
    assert request.prompt == TEXT


@pytest.mark.asyncio
async def test_lists_of_objects_are_prompts_and_lists_of_texts_are_not(tmp_path: Path) -> None:
    """Case 12: bounding boxes are a list of objects; several texts are several rows."""
    boxes = [{"bbox": [0, 0, 1, 1], "what": "a fox"}]
    [request] = await requests_of([{"prompt": boxes}])
    assert json.dumps(boxes) == request.prompt
    message = await complaint_of([{"prompt": ["a fox", "an owl"]}])
    assert "write one row for each prompt" in message
    message = await complaint_of([{"prompt": {"scene": {1, 2}}}])
    assert "the prompt is no JSON" in message


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(TEXT, TEXT, id="a structure"),
        pytest.param('{"prompt": "a fox", "seed": 1}', "a fox", id="a row"),
        pytest.param('{"prompt": {"scene": "a fox"}}', '{"scene": "a fox"}', id="a row of it"),
        pytest.param('[{"scene": "a fox"}]', '[{"scene": "a fox"}]', id="a list"),
        pytest.param('{"promt": "a fox"}', "an object without a prompt", id="a misspelt row"),
        pytest.param('{"text": "a fox"}', "--prompt-column", id="another column"),
        pytest.param('{"scene": "x", "seed": 4}', "'seed' is a name of a row", id="a parameter"),
    ],
)
async def test_an_object_on_standard_input_is_a_row_or_a_prompt(
    line: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 12: an object with a prompt is a row; one without is the prompt, unless it has the name
    of a parameter or of a usual column."""
    [row] = await of_standard_input(f"{line}\n", monkeypatch)
    if isinstance(row, BadRow):
        assert expected in str(row.error)
    else:
        assert expected == row.prompt


@pytest.mark.asyncio
async def test_a_line_of_standard_input_may_begin_with_a_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Case 12: a template is no broken object; broken JSON is not painted."""
    given = '{red|grey} fox\n{2$$a|b} fox\n{"prompt": "a fox"\n{\'prompt\': "a fox"}\n'
    rows = await of_standard_input(given, monkeypatch, wildcards=True)
    prompts = [row.prompt for row in rows if isinstance(row, ImageRequest)]
    assert prompts == ["red fox", "grey fox", "a,b fox", "b,a fox"]
    assert ["not JSON" in str(row) for row in rows if isinstance(row, BadRow)] == [True, True]


@pytest.mark.asyncio
async def test_an_object_on_standard_input_can_be_said_to_be_the_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Case 12: --syntax as-written sends such an object as it is."""
    [row] = await of_standard_input('{"text": "SALE"}\n', monkeypatch, syntax="as-written")
    assert isinstance(row, ImageRequest)
    assert row.prompt == '{"text": "SALE"}'


@pytest.mark.asyncio
async def test_braces_of_json_are_no_choices(tmp_path: Path) -> None:
    """Case 12: with --wildcards the texts inside an object are templates, its braces are not."""
    path = saved(tmp_path, "p.txt", '{"what": "a {red|grey} fox", "boxes": [[1, 2]], "a": "x|y"}\n')
    made = await requests_of(path, wildcards=True)
    assert [request.prompt for request in made] == [
        '{"what": "a red fox", "boxes": [[1, 2]], "a": "x|y"}',
        '{"what": "a grey fox", "boxes": [[1, 2]], "a": "x|y"}',
    ]
    message = await complaint_of([{"prompt": {"what": "a {~red|grey} fox"}}], wildcards=True)
    assert "chooses at random" in message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text("abc", min_size=1), json_values, min_size=1))
def test_an_object_without_marks_is_the_same_with_wildcards(value: dict[str, Any]) -> None:
    """Case 12: reading the texts of an object as templates changes nothing but choices."""
    text = json.dumps(value, ensure_ascii=False)
    escaped = _escaped(value)
    [made] = Wildcards().template(json.dumps(escaped, ensure_ascii=False)).texts()
    assert json.loads(made) == value
    if escaped == value:
        assert made == text


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(f"\\{c}" if c in "{|}_\\$~@!#:%<>[]()/*" else c for c in value)
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    return [_escaped(inner) for inner in value] if isinstance(value, list) else value
