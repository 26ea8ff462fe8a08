"""Case 7: an error in a wildcard list names the list and its line, not the prompt's line alone.

Members of the kind: a list of names with é in Windows-1252
(filliptm/ComfyUI-FL-AceStep-Training#11, AUTOMATIC1111/stable-diffusion-webui-wildcards#23), read
as another encoding without an error (ltdrdata/ComfyUI-Impact-Pack#1196), lists in code page 1252
(ltdrdata/ComfyUI-extension-tutorials#5), a list inside a list that is not found
(adieyal/sd-dynamic-prompts#739).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.prompt_lists import complaint_of, saved

from fluxasync import ConfigError
from fluxasync._requests.sources.lines import decoded
from fluxasync._requests.sources.wildcards import Wildcards

DATA = Path(__file__).parent / "data"


@pytest.mark.asyncio
async def test_the_list_of_the_case_is_named_with_line_column_and_byte() -> None:
    """Case 7: the prompt's line, which is ASCII, is only where the list is named."""
    message = await complaint_of(DATA / "places.txt", wildcards=DATA / "lists")
    assert message.startswith("places.txt line 1: the list ")
    assert "lists/places.txt line 1: column 4: byte 0xe9 is not UTF-8; save the text as UTF-8" in (
        message
    )
    assert "in Windows-1252 it is “é”" in message


def complaint(folder: Path, template: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Wildcards(folder).template(template)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("red\ngrün\n".encode("cp1252"), "a.txt line 2: column 3: byte 0xfc",
                     id="Windows-1252"),
        pytest.param("red\n夜\n".encode("shift_jis"), "a.txt line 2: column 1: byte 0x96",
                     id="Shift JIS"),
        pytest.param("red\n".encode("utf-16"), "a.txt is UTF-16 or UTF-32; save it as UTF-8",
                     id="UTF-16"),
        pytest.param("red\n".encode("utf-16-le"), "is UTF-16 or UTF-32", id="UTF-16, no mark"),
        pytest.param(b"", "a.txt is empty; write an alternative a line", id="empty"),
        pytest.param(b"# red\r\n// grey\r\n", "a.txt is empty", id="only comments"),
        pytest.param(b"red\n{grey\n", "a.txt line 2: wildcards: character 1: a { without",
                     id="an open brace"),
        pytest.param(b"red\n__b__\n", "b.txt cannot be read: No such file", id="names no list"),
        pytest.param(b"x\n__a__\n", "the list __a__ names itself", id="names itself"),
        pytest.param(b"x --w 7 --h 8\ny --n bad\n", "look like options of another tool",
                     id="options"),
        pytest.param(b"0::red\n", "has the weight 0", id="weight 0"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    """Case 7: the error has the list's file, its line, and what to do."""
    saved(tmp_path, "a.txt", content)
    assert said in complaint(tmp_path, "a __a__")


def test_line_ends_marks_and_folders_change_no_alternative(tmp_path: Path) -> None:
    """Case 7: CRLF, a lone CR and a byte-order mark are no part of a line, at any depth."""
    (tmp_path / "deep/er").mkdir(parents=True)
    saved(tmp_path, "deep/er/a.txt", b"\xef\xbb\xbfred\r\n\r\ngrey\rblue\n")
    texts = Wildcards(tmp_path).template("__deep/er/a__").texts()
    assert list(texts) == ["red", "grey", "blue"]


def test_a_missing_list_is_looked_for_in_other_folders(tmp_path: Path) -> None:
    """Case 7: the error says which name was meant."""
    (tmp_path / "animals").mkdir()
    saved(tmp_path, "animals/cats.txt", "lion\n")
    assert "did you mean __animals/cats__?" in complaint(tmp_path, "a __cats__")
    assert "did you mean __animals/cats__?" in complaint(tmp_path, "a __animals/cast__")


def test_no_pattern_leads_out_of_the_folder(tmp_path: Path) -> None:
    """Case 7: a link that leaves the folder is refused where a pattern finds it, too."""
    (tmp_path / "lists").mkdir()
    saved(tmp_path, "secret.txt", "the secret\n")
    os.symlink(tmp_path / "secret.txt", tmp_path / "lists/a1.txt")
    assert "outside the list's folder" in complaint(tmp_path / "lists", "__a*__")
    for name in ("../secret", "x/../../secret", "/etc/hostname", "../*"):
        assert "is outside the folder of lists" in complaint(tmp_path / "lists", f"__{name}__")


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), st.binary(max_size=4))
def test_bytes_that_are_not_utf8_are_found_at_their_column(text: str, other: bytes) -> None:
    """Case 7: every line is read as UTF-8 exactly, or refused with the column of its first byte."""
    line = text.encode() + other
    try:
        expected = line.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError:
        with pytest.raises(ConfigError, match=r"column \d+: byte 0x[0-9a-f]{2} is not UTF-8"):
            decoded(line)
    else:
        assert expected == decoded(line)
