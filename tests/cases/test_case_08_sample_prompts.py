"""Case 8: options and comments of other tools are named before they are paid for as prompts.

Members of the kind: kohya's sample prompts (kohya-ss/sd-scripts), `--steps` and `--negative_prompt`
in lines (AUTOMATIC1111/stable-diffusion-webui#1446), `###` before a negative prompt
(AUTOMATIC1111/stable-diffusion-webui#1027), comments with # (imperator-maximus/
stable-diffusion-krita#11, sisbell/stackwire-gpt#46, deepbeepmeep/Wan2GP#739), Midjourney's `--ar`.
"""

from __future__ import annotations

import logging
import os
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.prompt_lists import complaint_of, plan_of, requests_of, rows_of, saved

from fluxasync import BadRow, ConfigError, ImageRequest, Prompts
from fluxasync._cli.app import main
from fluxasync._requests.sources.prompt_syntax import SyntaxCheck
from fluxasync._requests.sources.wildcards import Wildcards

DATA = Path(__file__).parent / "data"
SAMPLES = DATA / "sample_prompts.txt"


@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_the_list_of_the_case_is_refused_before_spending(
    options: list[str], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Case 8: one line, also with --quiet, with the place, the text and the options to type."""
    code = main(["run", str(SAMPLES), "-o", str(tmp_path / "out"), "--dry-run", *options])
    [line] = capfd.readouterr().err.splitlines()
    assert code == 2
    assert line.startswith(
        "fluxasync: 4 of 4 prompts look like comments or options of another tool "
        "(sample_prompts.txt line 1: “# daylight”)"
    )
    for option in ("comments", "sample-prompts", "as-written"):
        assert f"--syntax {option}" in line


@pytest.mark.asyncio
async def test_sample_prompts_are_read_as_kohya_reads_them(tmp_path: Path) -> None:
    """Case 8: comments are left out, options are parameters, and a negative prompt is metadata, as
    a column of that name is."""
    lines = SAMPLES.read_text().replace("--l 7.5", "--l 3.5").replace("--l 5.5", "--g 4")
    day, night = await requests_of(saved(tmp_path, "p.txt", lines), syntax="sample-prompts")
    assert (day.prompt, day.width, day.height) == ("a stone bridge, clear sky", 768, 512)
    assert (day.seed, day.steps, day.guidance) == (1, 28, 3.5)
    assert (night.prompt, night.guidance) == ("a stone bridge under lamps", 4)
    assert night.extras == {"negative_prompt": "blurry"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("a fox --ss euler", "--ss: not an option of a sample prompt", id="unknown"),
        pytest.param("a fox --w 512 --w 768", "width is given twice", id="twice"),
        pytest.param("a fox --w wide", "width", id="no number"),
        pytest.param("a fox --l 7.5", "guidance=7.5: flux-dev takes 1.5 to 5", id="out of range"),
        pytest.param("--w 512", "the prompt is empty", id="no prompt"),
    ],
)
async def test_an_option_that_cannot_be_sent_is_a_bad_row(
    tmp_path: Path, line: str, said: str
) -> None:
    """Case 8: no option of a line is dropped."""
    path = saved(tmp_path, "p.txt", line)
    assert said in await complaint_of(path, syntax="sample-prompts")


@pytest.mark.asyncio
async def test_long_names_of_options_are_read(tmp_path: Path) -> None:
    """Case 8: lines of AUTOMATIC1111's prompts from a file have options in words."""
    line = '--prompt "a surfer" --negative_prompt "limbs" --seed 350 --steps 50 --cfg_scale=4'
    [request] = await requests_of(saved(tmp_path, "p.txt", line), syntax="sample-prompts")
    assert (request.prompt, request.seed, request.steps) == ("a surfer", 350, 50)


@pytest.mark.asyncio
@pytest.mark.parametrize("comment", ["# by night", "//  by night", "# night {", "# __birds__"])
async def test_a_comment_line_among_templates_is_named_with_its_option(
    tmp_path: Path, comment: str
) -> None:
    """With --wildcards too the message names the option that leaves it out
    (vladmandic/sdnext#4582, ltdrdata/ComfyUI-Impact-Pack#789)."""
    path = saved(tmp_path, "p.txt", f"a {{red|blue}} door\n{comment}\n")
    message = await complaint_of(path, wildcards=True)
    assert "p.txt line 2: " in message or comment in message
    assert "--syntax comments" in message
    made = await requests_of(path, wildcards=True, syntax="comments")
    assert [each.prompt for each in made] == ["a red door", "a blue door"]


@pytest.mark.asyncio
async def test_a_row_that_is_skipped_does_not_count_as_one_of_another_tool(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The half that refuses a list is one of its good rows, and a message has its place."""
    good = "a {red|blue} door\n"
    path = saved(tmp_path, "p.txt", good + "# night\n// {\n# __birds__\n")
    plan = await plan_of(path, wildcards=True, skip_bad=True)
    assert (plan.images, plan.bad) == (2, 3)
    assert "another tool" not in caplog.text
    path = saved(tmp_path, "q.txt", good + "a red\nx --w {\nan owl --w 7\n")
    await plan_of(path, wildcards=True, skip_bad=True)
    assert "1 of 3 prompts looks like options of another tool (q.txt line 4: " in caplog.text
    path = saved(tmp_path, "r.jsonl", '{"prompt": "x --w 7", "width": 1}\n{"prompt": "a fox"}\n')
    assert (await plan_of(path, skip_bad=True)).images == 1
    assert "r.jsonl" not in caplog.text


@pytest.mark.asyncio
async def test_comments_are_left_out_when_asked_for(tmp_path: Path) -> None:
    """Case 8: lines that start with # or // are no prompts; the other lines are as written."""
    path = saved(tmp_path, "p.txt", "# day\na fox\n  // night\n\nan owl // at night\n")
    made = await requests_of(path, syntax="comments")
    assert [request.prompt for request in made] == ["a fox", "an owl // at night"]


KINDS: dict[str, tuple[str, str]] = {
    "comments": ("# day\n// night\n## dusk\n", "comments"),
    "Midjourney": ("a fox --ar 16:9 --v 6\nan owl --no text --stylize 50\n", "options"),
    "web UI": ('--prompt "a fox" --steps 20\na fox --cfg_scale 7\n', "options"),
    "negative": ("woman ### face, limbs\nman ### hands\n", "options"),
    "infotext": ("a fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a\n", "options"),
    "imagine": ("/imagine prompt: a fox\n", "options"),
    "mustache": ("a {{ color }} fox\nan {{animal}}\n", "placeholders"),
    "JSON lines": ('{"prompt": "fox"}\n{"seed": 5, "prompt": "owl"}\n', "name the file .jsonl"),
    "a JSON list": ('[\n{"prompt": "a fox"},\n{"prompt": "an owl"}\n]\n', "name the file .jsonl"),
    "CSV": ("prompt,seed\na fox,1\nan owl,2\na cat,3\na dog,4\n", "name the file .csv"),
    "TSV": ('"id"\t"prompt"\n1\ta fox\n2\tan owl\n3\ta cat\n', "name the file .csv or .tsv"),
    "YAML": ("- prompt: a fox\n- prompt: an owl\n", "YAML"),
    "Markdown": ("| prompt | seed |\n|---|---|\n| a fox | 1 |\n", "Markdown"),
}  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize(("content", "said"), KINDS.values(), ids=KINDS)
async def test_a_list_that_is_mostly_another_tools_is_refused(
    tmp_path: Path, content: str, said: str
) -> None:
    """Case 8: the error says what the lines look like, and --syntax as-written sends them."""
    path = saved(tmp_path, "p.txt", content)
    message = await complaint_of(path)
    assert said in message
    assert "p.txt line " in message
    sent = await requests_of(path, syntax="as-written")
    assert content.splitlines() == [request.prompt for request in sent]


@pytest.mark.asyncio
async def test_options_in_a_column_are_named_with_what_a_table_can_do(tmp_path: Path) -> None:
    """Case 8: lists of Midjourney's prompts are tables, too; there options are columns."""
    path = saved(tmp_path, "p.csv", "prompt\na fox --ar 16:9\nan owl --v 6\n")
    message = await complaint_of(path)
    assert message.startswith("2 of 2 prompts look like options of another tool (p.csv row 2: ")
    assert "give them as columns" in message
    assert "sample-prompts" not in message


@pytest.mark.asyncio
async def test_a_folder_of_comments_is_refused(tmp_path: Path) -> None:
    """Case 8: captions with options are counted over all files of a folder."""
    for number in range(3):
        saved(tmp_path, f"{number}.txt", f"a fox {number} --w 768 --h 512")
    message = await complaint_of(tmp_path)
    assert message.startswith("3 of 3 prompts look like options of another tool")
    assert "0.txt: “a fox 0" in message
    made = await requests_of(tmp_path, syntax="sample-prompts")
    assert [(int(request.prompt[-1]), request.width) for request in made] == [
        (0, 768),
        (1, 768),
        (2, 768),
    ]


@pytest.mark.asyncio
async def test_few_such_lines_are_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Case 8: below half of the prompts the list runs, and one line counts and names them."""
    path = saved(tmp_path, "p.txt", "a fox\nan owl\na cat\n# day\na dog --ar 16:9\n")
    with caplog.at_level(logging.WARNING, logger="fluxasync"):
        assert len(await requests_of(path)) == 5
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("2 of 5 prompts look like comments or options of another tool")
    assert "p.txt line 4: “# day”" in line


LEGITIMATE = [
    "#1 fan, poster", "a house -- red, with a garden", "a fox — at night --", "1st place",
    "C# on a screen", "https://example.org on a sign", "a 16:9 frame", "steps: going up", "--",
    "well--lit room", "a --- line", "#FF5733 background", "// in neon"[2:], "prompt, kind service",
    "mid-journey style", "Q&A board: prompt", "“- a list” on paper", "price: $5 | open 24/7",
]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("prompt", LEGITIMATE)
async def test_prompts_that_only_resemble_options_are_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, prompt: str
) -> None:
    """Case 8: a list of nothing but such prompts runs without a word."""
    path = saved(tmp_path, "p.txt", prompt)
    assert [prompt.strip()] == [request.prompt for request in await requests_of(path)]
    assert not caplog.records


@pytest.mark.asyncio
async def test_standard_input_is_judged_line_by_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Case 8: while half of the lines so far have marks, such a line is a bad row; later, among
    many prompts, it is a warning."""
    reader, writer = os.pipe()
    os.write(writer, b"# day\na fox\nan owl\na cat\n# night\n# dusk\n")
    os.close(writer)
    with os.fdopen(reader) as given_input:
        monkeypatch.setattr("sys.stdin", given_input)
        rows = await rows_of("-")
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert [row.where for row in bad] == ["standard input line 1", "standard input line 6"]
    sent = [row.prompt for row in rows if isinstance(row, ImageRequest)]
    assert sent == ["a fox", "an owl", "a cat", "# night"]
    assert "2 of 5 prompts look like comments" in caplog.text


def test_an_unknown_syntax_is_refused() -> None:
    """Case 8: the error lists the ways."""
    with pytest.raises(ConfigError, match="checked, as-written, comments, sample-prompts"):
        Prompts(["a fox"], syntax="kohya")


@given(st.text(max_size=60), st.booleans())
def test_any_prompt_is_judged(prompt: str, is_line: bool) -> None:
    """Case 8: no text breaks the check, and as few as one marked prompt is never passed over."""
    check = SyntaxCheck(refuses=True)
    check.look(f"{prompt} --ar 16:9", is_line=is_line)
    check.at("item 1")
    with pytest.raises(ConfigError, match="1 of 1 prompt looks like"):
        check.settle()


@pytest.mark.parametrize(
    "unit", ["{", "{|", "{{(", "[", "[a:", "(", "((", "__a", "_", "--", "AND ", "| ", "- ", " ,",
             "prompt, ", "### ", "<lora:", "${a", '{"a":,', "a::", "$$", "2$$", "#", "// ", "\n# "]
)  # fmt: skip
def test_a_long_prompt_of_nothing_but_marks_is_judged_at_once(unit: str) -> None:
    """Case 8: no pattern takes more than linear time, in the check as in the template reader."""
    prompt = unit * (100_000 // len(unit))
    begun = time.process_time()
    check = SyntaxCheck(refuses=False)
    check.look(prompt, is_line=True)
    with suppress(ConfigError):
        Wildcards().template(prompt)
    assert time.process_time() - begun < 5


def memory_of(act: Callable[[], None]) -> int:
    tracemalloc.start()
    act()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_the_check_takes_constant_memory() -> None:
    """Case 8: 20,000 marked prompts take no more than a few."""

    def counted(prompts: int) -> Callable[[], None]:
        def act() -> None:
            check = SyntaxCheck(refuses=False)
            for number in range(prompts):
                check.look(f"a fox {number} --ar 16:9 (a:1.{number})", is_line=True)
                check.at(f"line {number}")

        return act

    memory_of(counted(10))  # what regular expressions keep
    assert memory_of(counted(20_000)) < memory_of(counted(10)) + 50_000
