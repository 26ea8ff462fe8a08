"""Grids, choices and samples: what they multiply, what they refuse, and that runs agree."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.prompt_lists import complaint_of, open_list, plan_of, requests_of

from fluxasync import ConfigError, ImageRequest, Prompts
from fluxasync._requests.sources.wildcards import Wildcards


def texts(template: str, folder: Path | None = None) -> list[str]:
    return list(Wildcards(folder).template(template).texts())


@pytest.mark.asyncio
async def test_seeds_models_and_a_grid_multiply(tmp_path: Path) -> None:
    """The issue's own line: each model with each seed, guidance for the one that takes it."""
    path = tmp_path / "p.txt"
    path.write_text("fox\nowl\n")
    spread: dict[str, Any] = {
        "seeds": range(1, 5),
        "models": ["flux-dev", "flux-pro-1.1"],
        "grid": {"guidance": [2, 3.5]},
    }
    plan = await plan_of(path, **spread)
    assert (plan.rows, plan.images, plan.models) == (2, 24, ("flux-dev", "flux-pro-1.1"))
    assert plan.notes == (
        "guidance is not varied for flux-pro-1.1, which has no such parameter",
    )  # fmt: skip
    got = await requests_of(path, **spread)
    assert [(r.model, r.guidance, r.seed) for r in got[:12]] == [
        *(("flux-dev", guidance, seed) for guidance in (2, 3.5) for seed in range(1, 5)),
        *(("flux-pro-1.1", None, seed) for seed in range(1, 5)),
    ]
    assert list(range(24)) == [r.index for r in got]
    assert len({r.key for r in got}) == 24
    assert got[3].key == ImageRequest(prompt="fox", guidance=2, seed=4).key


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["file", "list", "stream", "requests"])
async def test_every_kind_of_source_is_multiplied(tmp_path: Path, kind: str) -> None:
    """Programs get the same images as files."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "fox", "width": 512, "mine": 1}\n')
    row = {"prompt": "fox", "width": 512, "mine": 1}
    given: Any = {
        "file": path,
        "list": [row],
        "stream": iter([row]),
        "requests": [ImageRequest(prompt="fox", width=512, extras={"mine": 1})],
    }[kind]
    got = await requests_of(given, seeds=[3, 1])
    assert [(r.seed, r.width) for r in got] == [(3, 512), (1, 512)]
    assert all(r.extras == {"mine": 1} for r in got)


@pytest.mark.asyncio
async def test_a_multiplied_list_leaves_turns_to_the_loop() -> None:
    """Few rows may be many images: other tasks run between them all the same."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await plan_of(["fox"] * 30, seeds=range(100))
    task.cancel()
    assert turns >= 30


@pytest.mark.asyncio
async def test_standard_input_is_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream is multiplied row by row, and the keys of its objects are mapped."""
    reader, writer = os.pipe()
    os.write(writer, b'a {red|grey} fox\n{"t": "owl", "w": 256}\n')
    os.close(writer)
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        options: dict[str, Any] = {"columns": {"prompt": "t", "width": "w"}}
        got = await requests_of("-", seeds=[5], wildcards=True, **options)
    assert [(r.prompt, r.seed, r.width) for r in got] == [
        ("a red fox", 5, None),
        ("a grey fox", 5, None),
        ("owl", 5, 256),
    ]


@pytest.mark.asyncio
async def test_a_multiplied_list_is_resumed(tmp_path: Path) -> None:
    """The remaining images of a row are found one by one, models included."""
    path = tmp_path / "p.txt"
    path.write_text("fox\n\nowl\n")
    spread: dict[str, Any] = {"seeds": [1, 2], "models": ["flux-dev", "flux-pro-1.1"]}
    keys = [r.key for r in await requests_of(path, **spread)]
    done = {keys[0], keys[3], keys[5]}
    source = open_list(path, **spread)
    plan = await source.check(lookup=lambda asked: ["done" if k in done else None for k in asked])
    async with aclosing(source.requests(skip=frozenset({"done"}))) as requests:
        left = [request async for request in requests]
    await source.aclose()
    assert (plan.images, plan.to_do, plan.estimator.estimate(1).cost) == (8, 5, Decimal("0.17"))
    assert [(place, keys[place]) for place in (1, 2, 4, 6, 7)] == [
        (r.index, r.key) for r in left if isinstance(r, ImageRequest)
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [1, 3, 4, 5, 8, 9])
async def test_a_limit_ends_within_a_multiplied_row(limit: int) -> None:
    """The limit counts images, with and without a lookup."""
    spread: dict[str, Any] = {"seeds": [1, 2], "models": ["flux-dev", "flux-pro-1.1"]}
    whole = await requests_of(["fox", "owl"], **spread)
    got = await requests_of(["fox", "owl"], **spread, limit=limit)
    assert whole[:limit] == got
    assert (await plan_of(["fox", "owl"], **spread, limit=limit)).images == min(limit, 8)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("row", "asked", "complaint"),
    [
        pytest.param({"seed": 7}, {"seeds": [1, 2]}, "item 1: seed: given in the row and in seeds;"
                     " remove one", id="a seed of its own"),
        pytest.param({"model": "flux-pro"}, {"models": ["flux-dev"]}, "model: given in the row and"
                     " in models", id="a model of its own"),
        pytest.param({"guidance": 2}, {"grid": {"guidance": [2, 3]}}, "guidance: given in the row"
                     " and in the grid", id="a value of its own"),
        pytest.param({"n": 2}, {"seeds": [1, 2]}, "n=2 and seeds: copies take the seeds that"
                     " follow; list more seeds", id="n and seeds"),
        pytest.param({}, {"grid": {"guidance": [2, 9]}}, "guidance=9: flux-dev takes 1.5 to 5;"
                     " nearest 5 (with guidance=9)", id="out of range"),
        pytest.param({}, {"models": ["flux-pro-1.1"], "grid": {"guidance": [2]}}, "guidance:"
                     " flux-pro-1.1 has no such parameter", id="the only model lacks it"),
        pytest.param({"n": 100}, {"grid": {"steps": range(1, 51), "width": [512, 1024, 768]}},
                     "15,000 images in one row, the limit is 10,000", id="too many"),
    ],
)  # fmt: skip
async def test_a_row_that_cannot_be_multiplied_is_reported_with_its_place(
    row: dict[str, Any], asked: Any, complaint: str
) -> None:
    """Nothing is guessed where a guess would be paid for."""
    message = await complaint_of([{"prompt": "fox", **row}], **asked)
    assert complaint in message


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        pytest.param({"seeds": []}, "seeds: no values", id="no seeds"),
        pytest.param({"seeds": [1, 1]},
                     "duplicate value 1 (it would be generated and charged twice)", id="twice"),
        pytest.param({"seeds": range(10**9)}, "at most 10,000", id="a billion seeds"),
        pytest.param({"models": "flux-dev"}, "a list of values, not str", id="text for a list"),
        pytest.param({"grid": {"seed": [1]}}, "--seeds 1..4", id="seed in the grid"),
        pytest.param({"grid": {"prompt": ["a"]}}, "prompts are the rows", id="prompt in the grid"),
        pytest.param({"grid": {"n": [1, 2]}}, "not a parameter of a model", id="n in the grid"),
        pytest.param({"grid": {"guidence": [2]}}, "did you mean guidance?", id="misspelt"),
        pytest.param({"grid": {"steps": [9, None]}}, "an empty value", id="nothing"),
        pytest.param({"models": ["flux-pro-1.1", "flux-2-pro"], "grid": {"guidance": [2]}},
                     "flux-pro-1.1 has no such parameter", id="no model has it"),
    ],
)  # fmt: skip
def test_a_grid_that_makes_no_sense_is_refused(asked: Any, complaint: str) -> None:
    """A wrong value is an error before any file is read."""
    with pytest.raises(ConfigError) as caught:
        Prompts(["fox"], **asked)
    assert complaint in str(caught.value)


def test_a_default_and_an_axis_are_one_too_many() -> None:
    """A parameter for all and its values to vary contradict each other."""
    with pytest.raises(ConfigError, match="guidance: given once for all rows and as values"):
        Prompts(["a"], parameters={"guidance": 2}, grid={"guidance": [2, 3]})


@pytest.mark.asyncio
async def test_a_row_of_another_model_is_made_once_where_it_lacks_an_axis() -> None:
    """As with defaults: what another model does not have is left out there."""
    rows = [{"prompt": "fox"}, {"prompt": "owl", "model": "flux-pro-1.1"}]
    got = await requests_of(rows, grid={"guidance": [2, 3]})
    assert [(r.prompt, r.guidance) for r in got] == [("fox", 2), ("fox", 3), ("owl", None)]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("a fox", ["a fox"], id="no choice"),
        pytest.param("a {red|grey} fox", ["a red fox", "a grey fox"], id="one choice"),
        pytest.param("{a|b}{c|d}", ["ac", "ad", "bc", "bd"], id="the last changes fastest"),
        pytest.param("{a {b|c}|d}", ["a b", "a c", "d"], id="nested"),
        pytest.param("{old |}fox", ["old fox", "fox"], id="or nothing"),
        pytest.param("{fox}", ["fox"], id="one alternative"),
        pytest.param("", [""], id="empty"),
        pytest.param("a|b", ["a|b"], id="a bar outside of braces"),
        pytest.param(r"\{a\|b\} \\ \_\_x__ \n", r"{a|b} \ __x__ \n".splitlines(), id="escapes"),
        pytest.param("snake_case __ and ____", ["snake_case __ and ____"], id="underscores"),
        pytest.param("ein {Schloß|夜}", ["ein Schloß", "ein 夜"], id="other scripts"),
    ],
)
def test_choices_are_all_made_in_the_order_they_are_written(
    template: str, expected: list[str]
) -> None:
    """The same template always makes the same prompts."""
    assert expected == texts(template)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    (folder / "animals").mkdir(parents=True)
    (folder / "color.txt").write_text("\ufeff# all of them\nred\r\n\ngrey\n", encoding="utf-8")
    (folder / "animals" / "big cats.txt").write_text("a __color__ lion\na {young|} lynx\n")
    (folder / "loop.txt").write_text("a __pool__\n")
    (folder / "pool.txt").write_text("a __loop__\n")
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "wide.txt").write_bytes("red\n".encode("utf-16"))
    return folder


def test_lists_are_choices(lists: Path) -> None:
    """A line is an alternative, which may itself have choices and name lists."""
    assert texts("__color__ fox", lists) == ["red fox", "grey fox"]
    assert texts("__animals/big cats__!", lists) == [
        "a red lion!", "a grey lion!", "a young lynx!", "a  lynx!",
    ]  # fmt: skip
    assert len(texts("__color__ {__color__|no} __color__", lists)) == 12


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        pytest.param("a {red|grey fox", r"character 3: a { without its }; write \{", id="open"),
        pytest.param("a red} fox", r"character 6: a } without its {; write \}", id="closed"),
        pytest.param("{" * 21 + "}" * 21, "nested deeper than 20", id="deep"),
        pytest.param("__gone__", "gone.txt cannot be read: No such file", id="no such list"),
        pytest.param("__loop__", "names itself", id="a list in itself"),
        pytest.param("__empty__", "is empty", id="an empty list"),
        pytest.param("__wide__", "is UTF-16 or UTF-32", id="UTF-16"),
    ],
)
def test_a_bad_template_is_reported_with_its_place(
    lists: Path, template: str, complaint: str
) -> None:
    """The error names the character or the list, and what to write instead."""
    with pytest.raises(ConfigError) as caught:
        texts(template, lists)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("name", ["../lists/color", "/etc/passwd", "animals/../../lists/color"])
def test_lists_stay_in_their_folder(lists: Path, name: str) -> None:
    """A prompt from somewhere cannot read a file from anywhere, and its marks are not sent."""
    with pytest.raises(ConfigError, match="is outside the folder of lists"):
        texts(f"__{name}__", lists)


@pytest.mark.asyncio
async def test_wildcards_are_read_only_on_request(tmp_path: Path) -> None:
    """Braces in a prompt are braces by default."""
    assert [r.prompt for r in await requests_of(["{a|b}"])] == ["{a|b}"]
    got = await requests_of(["{a|b}", "c"], wildcards=True, seeds=[1, 2])
    assert [(r.prompt, r.seed) for r in got] == [
        ("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1), ("c", 2),
    ]  # fmt: skip
    message = await complaint_of(["__x__"], wildcards=True)
    assert message.startswith("item 1: __x__ names a list, and no folder of lists was given")
    with pytest.raises(ConfigError, match="is no folder"):
        Prompts(["fox"], wildcards=tmp_path / "gone")


@pytest.mark.asyncio
async def test_a_template_that_explodes_is_refused_unmade() -> None:
    """10^40 prompts are counted, not made."""
    message = await complaint_of(["{0|1|2|3|4|5|6|7|8|9}" * 40], wildcards=True)
    assert "images in one row, the limit is 10,000" in message


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "list"])
async def test_a_sample_is_the_same_in_every_run(tmp_path: Path, kind: str) -> None:
    """A sample has its size, keeps the source's order, and another seed draws another."""
    prompts = [f"fox {number}" for number in range(3_000)]
    given: Any = tmp_path / f"p.{kind}"
    if kind == "list":
        given = prompts
    elif kind == "jsonl":
        given.write_text("\n\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    else:
        given.write_text("\n".join((["prompt"] if kind == "csv" else []) + prompts))
    first = await requests_of(given, sample=20)
    assert await requests_of(given, sample=20) == first
    assert len(first) == 20
    places = [prompts.index(r.prompt) for r in first]
    assert sorted(places) == places
    assert places[-1] > 1_000
    assert {r.key for r in first} != {
        r.key for r in await requests_of(given, sample=20, sample_seed=1)
    }
    assert len(await requests_of(given, sample=9_000)) == 3_000
    assert (await plan_of(given, sample=20, n=2)).images == 40


@pytest.mark.asyncio
async def test_a_sample_survives_shuffling_and_growth(tmp_path: Path) -> None:
    """Rows are sampled by content, so an edit of the list changes few of the sampled rows."""
    path = tmp_path / "p.txt"
    path.write_text("\n".join(f"fox {number}" for number in range(1_000)))
    first = {r.key for r in await requests_of(path, sample=100)}
    path.write_text("\r\n".join(f"fox {number}" for number in reversed(range(1_050))))
    assert len(first & {r.key for r in await requests_of(path, sample=100)}) > 80


@pytest.mark.asyncio
async def test_rows_outside_of_a_sample_are_not_judged(tmp_path: Path) -> None:
    """A sample of a list with bad rows elsewhere can be run; one with a bad row cannot."""
    path = tmp_path / "p.jsonl"
    path.write_text("oops\n" + "\n".join(f'{{"prompt": "fox {n}"}}' for n in range(500)))
    drawn = [await plan_of(path, sample=3, sample_seed=seed, skip_bad=True) for seed in range(3)]
    assert [(plan.images + plan.bad) for plan in drawn if plan.images is not None] == [3, 3, 3]
    assert "p.jsonl line 1: " in await complaint_of(path, sample=501)


@pytest.mark.asyncio
async def test_a_stream_has_no_sample() -> None:
    """Of what has no known end nothing can be drawn."""
    with pytest.raises(ConfigError, match="a sample needs a file or a list"):
        Prompts(iter(["fox"]), sample=1)
    with pytest.raises(ConfigError, match="sample=0"):
        Prompts(["fox"], sample=0)


# --- lists of other people ------------------------------------------------------------------------


def test_a_wildcard_list_that_links_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    """S5: its lines would become prompts; an allowed folder is read."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "secret.txt").write_text("the secret\n")
    (tmp_path / "lists" / "animals.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ConfigError, match=r"animals\.txt: outside the list's folder"):
        Wildcards(tmp_path / "lists").template("a __animals__")
    allowed = Wildcards(tmp_path / "lists", (os.path.realpath(tmp_path),))
    assert list(allowed.template("a __animals__").texts()) == ["a the secret"]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_wildcard_list_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """S10: a pipe without a writer is not waited for, and an endless file is not read."""
    path = tmp_path / "animals.txt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(ConfigError, match="animals"):
        Wildcards(tmp_path, ("/dev",)).template("a __animals__")
