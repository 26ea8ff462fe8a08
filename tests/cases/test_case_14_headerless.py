"""Case 14: a table without names of columns is read by place, and no advice loses its first row.

Other members of the kind: the first of 100 rows becomes the names (apache/superset#9874, the word
list of SK-CERT/Taranis-NG#33), the first row of further files is lost (wireservice/csvkit#189),
a column is wanted by its place (sensein/b2aiprep#31, fsprojects/FSharp.Data#61).
"""

from __future__ import annotations

import csv
import io
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.prompt_lists import complaint_of, plan_of, requests_of, saved

from fluxasync import ConfigError, ImageRequest, Prompts

DATA = Path(__file__).parent / "data"

#: without marks of other tools, which are refused
CELLS = st.text("abé夜 ,;\t\n\"'", min_size=1).filter(
    lambda text: text.strip() == text and len(text.split()) > 0
)


def options_of(advice: str) -> dict[str, Any]:
    """The arguments of Prompts for what a message advises to type."""
    words = iter(shlex.split(advice))
    options: dict[str, Any] = {}
    for word in words:
        if word == "--no-header":
            options["header"] = False
        elif word == "--prompt-column":
            options["columns"] = {"prompt": next(words)}
    return options


@pytest.mark.asyncio
async def test_the_table_of_the_case_is_read_as_it_is_advised() -> None:
    """Case 14: the message names the option, and with it both prompts are read."""
    path = DATA / "headerless.csv"
    message = await complaint_of(path)
    _, _, advice = message.partition("if the first row is one of the list: ")
    first, second = await requests_of(path, **options_of(advice))
    assert (first.prompt, second.prompt) == ("a stone bridge, fog", "a brass kettle")
    same = await requests_of(path, header=False, columns={"prompt": "1"})
    assert [request.key for request in same] == [first.key, second.key]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("p.csv", "7,a fox in snow,512\n8,an owl,\n", id="commas"),
        pytest.param("p.csv", "7;a fox in snow;512,0\n8;an owl;\n", id="semicolons"),
        pytest.param("p.csv", "sep=;\r\n7;a fox in snow;512\r\n8;an owl\r\n", id="sep="),
        pytest.param(
            "p.csv", "\ufeff\n7,a fox in snow,512\n8,an owl,\n", id="a mark, a blank line"
        ),
        pytest.param("p.tsv", "7\ta fox in snow\t512\n8\tan owl\t\n", id="tabs"),
    ],
)
async def test_columns_are_given_by_their_place(tmp_path: Path, name: str, content: str) -> None:
    """Case 14: places count from 1, cells have the types of their parameters, the rest is
    metadata; the first row is row 1."""
    path = saved(tmp_path, name, content)
    columns = {"prompt": "2", "width": "3"}
    fox, owl = await requests_of(path, header=False, columns=columns)
    assert fox.key == ImageRequest(prompt="a fox in snow", width=512).key
    assert (owl.prompt, owl.width, owl.extras) == ("an owl", None, {"column_1": "8"})
    message = await complaint_of(path, header=False, columns={"prompt": "2", "seed": "2"})
    assert "column 'column_2' is mapped to prompt and to seed" in message
    message = await complaint_of(path, header=False, columns={"prompt": "4"})
    assert "no column 'column_4' for prompt" in message


@pytest.mark.asyncio
async def test_punctuation_of_a_prompt_is_no_separator(tmp_path: Path) -> None:
    """Case 14: without a row of names the first row is a prompt, whose semicolons do not cut it."""
    path = saved(tmp_path, "p.csv", "a fox; red; small,512\nan owl,256\n")
    fox, _ = await requests_of(path, header=False, columns={"prompt": "1", "width": "2"})
    assert (fox.prompt, fox.width) == ("a fox; red; small", 512)
    path = saved(tmp_path, "q.csv", "a fox; red\nan owl\n")
    fox, _ = await requests_of(path, header=False)
    assert fox.prompt == "a fox; red"


@pytest.mark.asyncio
async def test_several_columns_without_a_choice_are_refused(tmp_path: Path) -> None:
    """Case 14: which column is painted is not guessed, with or without the option."""
    path = saved(tmp_path, "p.csv", "fox,512\nowl,256\n")
    assert "--no-header --prompt-column 1" in await complaint_of(path)
    assert "by its place: --prompt-column 1" in await complaint_of(path, header=False)
    message = await complaint_of(path, columns={"prompt": "1"})
    assert "a column by its place needs --no-header" in message


@pytest.mark.asyncio
async def test_a_sentence_as_the_name_of_a_column_is_noted(tmp_path: Path) -> None:
    """Case 14: a survey's question may be a name; the note says that no image is made of it."""
    path = saved(tmp_path, "p.csv", '"a stone bridge, fog"\n"a brass kettle"\n')
    plan = await plan_of(path, columns={"prompt": "a stone bridge, fog"})
    assert (plan.images, len(plan.notes)) == (1, 1)
    assert "--no-header reads it as a row" in plan.notes[0]


@pytest.mark.asyncio
async def test_a_nul_character_is_named(tmp_path: Path) -> None:
    """Case 14: text that is damaged or of another encoding is not painted."""
    message = await complaint_of(saved(tmp_path, "p.csv", "prompt\nf\0ox\n"))
    assert message.startswith("p.csv row 2: column 'prompt': a NUL character")


@pytest.mark.asyncio
async def test_other_lists_have_no_header(tmp_path: Path) -> None:
    """Case 14: the option is refused where it would have no effect."""
    with pytest.raises(ConfigError, match="only tables"):
        await plan_of(saved(tmp_path, "p.jsonl", "{}"), header=False)
    with pytest.raises(ConfigError, match="header=False is for"):
        Prompts(["fox"], header=False)


@pytest.mark.asyncio
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
async def test_a_table_with_and_without_names_is_the_same_list(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    """Case 14: whatever the cells hold, no row is lost and every key is the same. The cells are in
    quotes: without them and without names, `a;,;` may have two separators."""
    folder = tmp_path_factory.mktemp("tables")
    keys = []
    for names in ([], [("prompt", "note")]):
        text = io.StringIO(newline="")
        csv.writer(text, quoting=csv.QUOTE_ALL).writerows([*names, *rows])
        path = saved(folder, "p.csv", text.getvalue())
        columns = None if names else {"prompt": "1"}
        found = await requests_of(path, header=bool(names), columns=columns)
        keys.append([request.key for request in found])
    assert keys[0] == keys[1]
    assert len(keys[0]) == len(rows)
