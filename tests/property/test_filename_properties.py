"""No request, template or job id names a file outside the folder."""

from __future__ import annotations

import os
from pathlib import Path
from unicodedata import is_normalized

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxasync import ConfigError, ImageRequest
from fluxasync.extend import FilenameTemplate

HOSTILE = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="./\\~-: \0\n\u202e", max_size=12),
    st.sampled_from(["..", "CON", "nul.txt", "a" * 400, "🦊" * 300, "/etc/passwd", "C:\\x"]),
)
TEMPLATES = [
    FilenameTemplate.parse(text)
    for text in ("{index}-{slug}.{ext}", "{name}/{model}/{key:.8}.{ext}", "{name}{seed}.{ext}")
]
BY_COLUMNS = [
    FilenameTemplate.parse(text, columns=True)
    for text in ("{a b}.{ext}", "{a b}/{c:04}{a b:.3}/{c:.9}.{ext}", "x{c:12.4}-{a b}{c}.{ext}")
]
CELLS = HOSTILE | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(HOSTILE)
LITERALS = st.text(alphabet="ab./\\-~ {}", max_size=8)


def _assert_inside(relative: os.PathLike[str]) -> None:
    folder = Path("/srv/images")
    resolved = Path(os.path.normpath(folder / relative))
    assert resolved.is_relative_to(folder)
    assert resolved != folder
    for part in resolved.relative_to(folder).parts:
        assert len(part.encode()) <= 210
        assert part.isprintable()
        assert is_normalized("NFC", part)
        assert not part.startswith((".", "-", " "))
        assert not set(part) & set('/\\:*?"<>|')


ANY_TEXTS = given(texts=st.lists(HOSTILE, min_size=4, max_size=8))


def _check(texts: list[str]) -> None:
    """Every text in every place of every template: 24 paths and more."""
    for turn in range(len(texts)):
        prompt, name, model, job_id = (texts[turn:] + texts[:turn])[:4]
        request = ImageRequest(prompt=prompt, name=name, model=model, seed=-1)
        for template in TEMPLATES:
            _assert_inside(template.render(request, job_id=job_id, ext="jpg"))
            _assert_inside(template.render(None, job_id=job_id, ext="jpg"))


@settings(max_examples=50)
@ANY_TEXTS
def test_every_rendered_path_is_inside_the_folder(texts):
    """P24 T5 Prompts, names, models and ids cannot leave the folder, nor hide a file in it."""
    _check(texts)


@pytest.mark.slow
@settings(max_examples=420)
@ANY_TEXTS
def test_ten_thousand_rendered_paths_are_inside_the_folder(texts):
    """P24 The same for 420 × 24 paths."""
    _check(texts)


@settings(max_examples=200)
@given(one=CELLS, other=CELLS)
def test_no_column_leaves_the_folder(one, other):
    """P24 T5 The cells of a list cannot leave the folder, nor hide a file in it."""
    request = ImageRequest(prompt="x", extras={"a b": one, "c": other})
    for template in BY_COLUMNS:
        _assert_inside(template.render(request, job_id="", ext="jpg"))


@settings(max_examples=200)
@given(name=st.text(min_size=1, max_size=12), before=LITERALS, after=LITERALS, cell=HOSTILE)
def test_every_accepted_template_of_columns_stays_inside(name, before, after, cell):
    """P24 A template with any column, filled from that column, is refused or harmless."""
    try:
        template = FilenameTemplate.parse(f"{before}{{{name}}}{after}.{{ext}}", columns=True)
    except ConfigError:
        return
    request = ImageRequest(prompt="x", extras=dict.fromkeys(template.columns, cell))
    _assert_inside(template.render(request, job_id="", ext="png"))


@settings(max_examples=500)
@given(before=LITERALS, after=LITERALS)
def test_every_accepted_template_stays_inside(before, after):
    """P24 A template is either refused or harmless."""
    try:
        template = FilenameTemplate.parse(f"{before}{{index}}{after}.{{ext}}")
    except ConfigError:
        return
    _assert_inside(template.render(ImageRequest(prompt="x", index=3), job_id="", ext="png"))
