"""Case 6: marks of dynamic-prompts mean what they mean there, or are refused with their column.

Members of the kind: weights in lists (adieyal/sd-dynamic-prompts#433), weights after a line end
(adieyal/sd-dynamic-prompts#324), a weight without text before a bar
(adieyal/sd-dynamic-prompts#665, #572), weights of lists (adieyal/sd-dynamic-prompts#855),
collections in .json and .yaml (adieyal/dynamicprompts#97, adieyal/sd-dynamic-prompts#619), four
underscores (adieyal/sd-dynamic-prompts#202), brackets of AUTOMATIC1111 in lists
(adieyal/sd-dynamic-prompts#142), lists that are painted as they are written
(adieyal/sd-dynamic-prompts#186).
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.echo_server import echo_server
from support.prompt_lists import complaint_of, plan_of, requests_of, saved

from fluxasync import ConfigError, Prompts, run
from fluxasync._requests.sources.wildcards import Wildcards

DATA = Path(__file__).parent / "data"


def texts(template: str, folder: Path | None = None) -> list[str]:
    made = Wildcards(folder).template(template)
    found = list(made.texts())
    assert len(found) <= made.count
    return found


def complaint(template: str, folder: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        texts(template, folder)
    return str(caught.value)


@pytest.mark.asyncio
async def test_the_prompts_of_the_case_reach_the_wire_without_marks(tmp_path: Path) -> None:
    """Case 6: two harbours and six pairs of birds are submitted, and no mark is painted."""
    async with echo_server() as server:
        source = Prompts(DATA / "weights.txt", wildcards=DATA / "lists", model="flux-2-klein-4b")
        await run(source, out=tmp_path / "out", base_url=server.url, api_key="x")
        sent = sorted(body["prompt"] for _, body in server.submitted)
    birds = ("gulls", "terns", "skuas")
    pairs = [f"two of {one} and {other}" for one in birds for other in birds if one != other]
    assert sorted(["a quiet harbour", "a stormy harbour", *pairs]) == sent


@pytest.mark.asyncio
async def test_images_that_choices_make_twice_are_said_before_they_are_paid(tmp_path: Path) -> None:
    """The images are kept, and the plan counts them (adieyal/sd-dynamic-prompts#88, #370); rows
    that are equal, copies and seeds are no repetition."""
    (tmp_path / "colors").mkdir()
    saved(tmp_path / "colors", "warm.txt", "red\npink\n")
    saved(tmp_path / "colors", "cold.txt", "blue\n")
    rows = "an owl\na {__colors/warm__|__colors/*__} door\n{red|blue} fox\n{red|blue} fox\n"
    path = saved(tmp_path, "p.txt", rows)
    plan = await plan_of(path, wildcards=tmp_path)
    [note] = plan.notes
    assert plan.images == 10
    assert note == (
        "2 of 10 images of templates repeat another one of their row (p.txt line 2: 'a red door'), "
        "and each is paid"
    )
    for options, counts in (({"n": 2}, "4 of 20"), ({"seeds": [1, 2]}, "4 of 20"),
                            ({"limit": 5}, "1 of 5")):  # fmt: skip
        [note] = (await plan_of(path, wildcards=tmp_path, **options)).notes
        assert note.startswith(f"{counts} images of templates repeat")
    assert not (await plan_of(["{a|b} fox", "{a|b} fox"], wildcards=True, n=3)).notes


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("{3::quiet|0.5::stormy| .5::grey}", ["quiet", "stormy", "grey"], id="weights"),
        pytest.param("{3::|up|down}", ["", "up", "down"], id="a weight of nothing"),
        pytest.param("{\n0.6::A|\n 0.4::B}", ["A", "B"], id="weights after line ends"),
        pytest.param("{0::off|on}", ["on"], id="the weight 0 leaves out"),
        pytest.param("{3 :: a|16:9}", ["3 :: a", "16:9"], id="what is no weight"),
        pytest.param("{2$$ and $$a|b}", ["a and b", "b and a"], id="two of two"),
        pytest.param("{2$$a|b}", ["a,b", "b,a"], id="a comma by default"),
        pytest.param("{1-2$$+$$a|b}", ["a", "b", "a+b", "b+a"], id="one or two"),
        pytest.param("{-2$$+$$a|b}", ["a", "b", "a+b", "b+a"], id="up to two"),
        pytest.param("{2-$$+$$a|b}", ["a+b", "b+a"], id="at least two"),
        pytest.param("{0-1$$a|b}", ["", "a", "b"], id="none or one"),
        pytest.param("{9$$+$$a|b}", ["a+b", "b+a"], id="more than there are"),
        pytest.param("{2$$|$$a|b}", ["a|b", "b|a"], id="a bar as separator"),
        pytest.param("{2$$+$$a|a|b}", ["a+b", "b+a"], id="no text twice"),
        pytest.param("{2$$+$$a{1|2}|b}", ["a1+b", "a2+b", "b+a1", "b+a2"], id="nested"),
        pytest.param("{!a|b}", ["a", "b"], id="all is what ! asks for"),
        pytest.param("${c={red|grey}}a ${c} fox", ["a red fox", "a grey fox"], id="a variable"),
        pytest.param("${c=!{x|y}}${c}${c}", ["xx", "yy"], id="one value at a time"),
        pytest.param("${c={x|y}}${c}${c}", ["xx", "xy", "yx", "yy"], id="a value each time"),
        pytest.param("a ${c:red} fox", ["a red fox"], id="a default"),
        pytest.param("${c=a}${c?=b}${c}", ["a"], id="kept"),
        pytest.param("# a comment\n  a fox\n// and\nowl", ["  a fox\nowl"], id="comment lines"),
        pytest.param("a #1 fan, #FF5733, https://x.org", ["a #1 fan, #FF5733, https://x.org"],
                     id="what is no comment"),
        pytest.param(r"\{a\|b\} \_\_x\_\_ 2\$\$ 3\::a \(w:1.2\) \[a|b] \<lora:x:1> \~",
                     ["{a|b} __x__ 2$$ 3::a (w:1.2) [a|b] <lora:x:1> ~"], id="escapes"),
        pytest.param("std::vector, 16:9, $5, (at 12:30), [16:9], {one}",
                     ["std::vector, 16:9, $5, (at 12:30), [16:9], one"], id="plain text"),
    ],
)  # fmt: skip
def test_marks_mean_what_they_mean_in_dynamic_prompts(template: str, expected: list[str]) -> None:
    """Case 6: all combinations are made, in written order."""
    assert expected == texts(template)


@pytest.mark.parametrize(
    ("template", "column", "said"),
    [
        pytest.param("a {~b|c}", 4, r"write \~", id="at random"),
        pytest.param("a __@b__", 5, r"write \@", id="in turn"),
        pytest.param("a ${b} c", 3, "${b} has no value", id="no value"),
        pytest.param("a ${b", 3, "${ without its }", id="an open variable"),
        pytest.param("100%{a$$b}", 4, "wraps text", id="a wrapper"),
        pytest.param("two of 2$$ and $$a", 8, "at the start of braces", id="no braces"),
        pytest.param("{two$$a|b}", 5, "$$ without its number", id="no number"),
        pytest.param("a 3::b", 3, "weight at the start of an alternative", id="a stray weight"),
        pytest.param("cat::2 dog", 4, "weight at the start", id="a weight of Midjourney"),
        pytest.param("a cat # or not", 7, "a comment in other tools", id="a comment at the end"),
        pytest.param("/* a */ cat", 1, "a comment in other tools", id="a block comment"),
        pytest.param("a {{ name }}", 3, "Jinja", id="Jinja"),
        pytest.param("a {{name}}", 3, "placeholders", id="a placeholder"),
        pytest.param("{% for a in b %}", 1, "Jinja", id="a loop of Jinja"),
        pytest.param("__{a|b}__", 1, "not the name of a list", id="a name that is a choice"),
        pytest.param("a (b:1.2) c", 3, "emphasis of AUTOMATIC1111", id="emphasis"),
        pytest.param("a ((b))", 3, "emphasis", id="double parentheses"),
        pytest.param("a [b|c]", 3, "an alternation", id="alternation"),
        pytest.param("a [b:c:0.5]", 3, "a schedule", id="a schedule"),
        pytest.param("<lora:b:0.8>", 1, "a network", id="a network"),
        pytest.param("a BREAK b", 3, "a separator", id="BREAK"),
        pytest.param("a :1.1 AND b :0.8", 8, "a separator", id="AND with weights"),
    ],
)
def test_other_marks_are_refused_with_their_column(template: str, column: int, said: str) -> None:
    """Case 6: the error has the character and what to write instead."""
    message = complaint(template)
    assert message.startswith(f"wildcards: character {column}: ")
    assert said in message


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    for name, content in {
        "hats.txt": "20::hat\n0.1::turban\n0::crown\n",
        "colours-cold.txt": "blue\n#FF5733\n",
        "colours-warm.txt": "red\n# comment\n// comment\n",
        "salt,pepper.txt": "x\n",
        "artists/finnish/old.txt": "Akseli\n",
        "artists/new.txt": "Eero\n",
        "clothes.txt": "In ${season}, ${season} shirts\n",
        "a.json": '{"view": {"vertical": ["{3::|up|down}", {"weight": 3, "text": "side"}]}}',
        "b.yaml": "dogs:\n  - 50::collie\n  - |\n    # usage\n    a ${size:small}\n    poodle\n",
        "flat.json": '["one", "two"]',
    }.items():
        path = tmp_path / "lists" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "lists"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("a __hats__", ["a hat", "a turban"], id="weights of a .txt"),
        pytest.param("__colours*__", ["blue", "#FF5733", "red"], id="a pattern"),
        pytest.param("__colours-????__", ["blue", "#FF5733", "red"], id="question marks"),
        pytest.param("__salt,pepper__", ["x"], id="a comma"),
        pytest.param("__artists/*__", ["Eero"], id="one folder"),
        pytest.param("__artists/**__", ["Akseli", "Eero"], id="all folders"),
        pytest.param("__view/vertical__", ["", "up", "down", "side"], id="JSON"),
        pytest.param("__dogs__", ["collie", "a small poodle"], id="YAML"),
        pytest.param("__flat__", ["one", "two"], id="a list in a file"),
        pytest.param("__clothes(season=winter)__", ["In winter, winter shirts"], id="a value"),
        pytest.param("${season={May|June}}__clothes__",
                     ["In May, May shirts", "In May, June shirts",
                      "In June, May shirts", "In June, June shirts"], id="the prompt's variable"),
        pytest.param("{2$$ & $$__colours*__}",
                     ["blue & #FF5733", "blue & red", "#FF5733 & blue", "#FF5733 & red",
                      "red & blue", "red & #FF5733"], id="two lines"),
    ],
)  # fmt: skip
def test_lists_are_found_as_in_dynamic_prompts(
    lists: Path, template: str, expected: list[str]
) -> None:
    """Case 6: names, patterns, collections, weights and values of lists."""
    assert expected == texts(template, lists)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("x.yaml", "x: [a, *b]", "x.yaml: not YAML", id="broken YAML"),
        pytest.param("x.json", '{"x": [1', "x.json: not JSON", id="broken JSON"),
        pytest.param(
            "x.json", '{"x": [{"wieght": 2}]}', "item 1: an alternative is text", id="item"
        ),
        pytest.param("y.json", '{"x": []}', "x.txt cannot be read", id="an empty list"),
        pytest.param("y.yaml", "x: &a [*a]", "item 1: an alternative is text", id="a loop"),
    ],
)
def test_a_collection_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    """Case 6: the file and the item are named, and nothing is left out."""
    saved(tmp_path, name, content)
    assert said in complaint("__x__", tmp_path)


def test_variables_that_multiply_to_megabytes_are_refused_unmade() -> None:
    """Case 6: 2^40 characters are measured, not made."""
    names = [f"v{'x' * number}" for number in range(1, 41)]
    template = "${v=ab}" + "".join(
        f"${{{name}=${{{name[:-1]}}}${{{name[:-1]}}}}}" for name in names
    )
    assert "more than 1,000,000 characters" in complaint(f"{template}${{{names[-1]}}}")


marks = st.lists(
    st.sampled_from(
        ["{", "}", "|", "__", "$$", "2$$", "::", "3::", "~", "@", "!", "${", "x", "=", ":", "a b",
         "colours-cold", "*", "(", ")", "[", "]", "<lora:", ">", "1.2", "\\", "#", " ", "\n", "%{"]
    ),
    max_size=14,
).map("".join)  # fmt: skip

#: what the reader must never leave in a text, where no choice made it
LITERAL = re.compile(
    r"[{}]|\d\$\$|\$\{|<lora:[^<>\n]+>|(?<![\w.])\d::(?!:)|__[^\W_][^_\n]*__|\[[^\[\]|\n]+\|"
)


@given(template=marks)
def test_no_mark_reaches_the_wire_unless_it_was_escaped(template: str) -> None:
    """Case 6: what is between marks is read, or the template is refused; any text, no crash."""
    try:
        made = Wildcards(DATA / "lists").template(template)
    except ConfigError:
        return
    if "\\" in template or made.count > 1_000:
        return
    for text in made.texts():
        assert not set("{}") & set(text)
        assert "{" in template or not LITERAL.search(text)


# --- without --wildcards --------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "prompt", ["a {red|grey} fox", "a __color__ fox", "{2$$a|b}", "a ${c} fox"]
)
async def test_templates_without_wildcards_are_not_painted(tmp_path: Path, prompt: str) -> None:
    """Case 6: a list of templates is refused, with the option that reads them and the option that
    sends them."""
    path = saved(tmp_path, "p.txt", f"{prompt}\n{prompt}!\nan owl\n")
    message = await complaint_of(path)
    assert message.startswith("2 of 3 prompts look like templates of another tool (p.txt line 1: “")
    assert "--wildcards DIR" in message
    sent = await requests_of(path, syntax="as-written")
    assert [prompt, f"{prompt}!", "an owl"] == [request.prompt for request in sent]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        pytest.param("a {red|grey} fox", "1 of 5 prompts looks like templates", id="a template"),
        pytest.param("a (red:1.2) fox", "which Flux reads as text: emphasis", id="emphasis"),
        pytest.param("<lora:fox:0.8> fox", "which Flux reads as text: a network", id="a network"),
        pytest.param("[red|grey] fox", "which Flux reads as text: an alternation", id="brackets"),
    ],
)
async def test_few_marks_are_a_warning_before_anything_is_spent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, prompt: str, said: str
) -> None:
    """Case 6: the prompt is sent, and one line names it with its place."""
    path = saved(tmp_path, "p.jsonl", "".join(f'{{"prompt": "{p}"}}\n' for p in [prompt, *"abcd"]))
    with caplog.at_level(logging.WARNING, logger="fluxasync"):
        assert len(await requests_of(path)) == 5
    [line] = [record.getMessage() for record in caplog.records]
    assert said in line
    assert "p.jsonl line 1" in line


@pytest.mark.asyncio
async def test_emphasis_is_sent_from_templates_when_asked_for(tmp_path: Path) -> None:
    """Case 6: with --syntax as-written the marks that Flux reads as text pass; choices are made."""
    path = saved(tmp_path, "p.txt", "a ({red|grey} fox:1.2)\n")
    assert "emphasis" in await complaint_of(path, wildcards=True)
    sent = await requests_of(path, wildcards=True, syntax="as-written")
    assert [request.prompt for request in sent] == ["a (red fox:1.2)", "a (grey fox:1.2)"]


@pytest.mark.asyncio
async def test_plain_braces_and_lists_of_a_program_are_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Case 6: braces without a choice are text, and what a program made is only warned of."""
    plain: list[Any] = ["a {fox}", "f(x) = {x}", "an empty {} and __", "5 $ and 3:: ", "__init__s"]
    assert plain == [request.prompt for request in await requests_of(plain)]
    assert not caplog.records
    assert len(await requests_of(["{a|b}"])) == 1
    assert "look" in caplog.text
