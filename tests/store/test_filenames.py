"""File names: invalid templates are refused before anything is spent, and values are made safe."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from fluxasync import ConfigError, ImageRequest
from fluxasync._store.filenames import DEFAULT, slug
from fluxasync.extend import FilenameTemplate


def _name(template: str, job_id: str = "job-1", **fields: object) -> str:
    request = ImageRequest(**{"prompt": "a red fox", **fields})  # type: ignore[arg-type]
    return str(FilenameTemplate.parse(template).render(request, job_id=job_id, ext="png"))


def test_the_default_name_is_the_index_and_the_keys_start():
    """Names sort in the order of the run and identify the request."""
    request = ImageRequest(prompt="a red fox", index=41)
    expected = f"000041-{request.key[:8]}.jpg"
    assert expected == str(FilenameTemplate.parse(DEFAULT).render(request, job_id="j", ext="jpg"))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("{slug}/{index:03}.{ext}", "a-red-fox/007.png", id="folder"),
        pytest.param("{index}-{slug:.5}.{ext}", "7-a-red.png", id="length"),
        pytest.param("{index}-{seed}-{occurrence}.{ext}", "7-_-0.png", id="empty field"),
        pytest.param("{model}/{index}.{ext}", "flux-dev/7.png", id="model"),
        pytest.param("{ext}/{index}.{ext}", "png/7.png", id="a folder for each format"),
        pytest.param("{name}.v2.{ext}", "hero.v2.png", id="literal dots"),
        pytest.param("a{{b}}{index}.{ext}", "a{b}7.png", id="braces"),
    ],
)
def test_templates_are_filled(template, expected):
    """Each field appears in the name with its width or length."""
    assert expected == _name(template, index=7, name="hero")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        pytest.param("{date}-{index}.{ext}", "unknown field", id="unknown field"),
        pytest.param("{index.real}.{ext}", "unknown field", id="attribute"),
        pytest.param("{name[0]}.{ext}", "unknown field", id="item"),
        pytest.param("{}{index}.{ext}", "unknown field", id="no field name"),
        pytest.param("{0}{index}.{ext}", "unknown field", id="positional"),
        pytest.param("{index!r}.{ext}", "conversion", id="conversion"),
        pytest.param("{index:x}.{ext}", "takes a width", id="number format"),
        pytest.param("{index:0999999999}.{ext}", "takes a width", id="absurd width"),
        pytest.param("{index:{key}}.{ext}", "takes a width", id="nested field"),
        pytest.param("{key:>99}.{ext}", "takes a length", id="text format"),
        pytest.param("{index}.{ext:.1}", "no format", id="cut extension"),
        pytest.param("/srv/{index}.{ext}", "relative", id="absolute path"),
        pytest.param("../{index}.{ext}", "between slashes", id="parent folder"),
        pytest.param("a/./{index}.{ext}", "between slashes", id="dot folder"),
        pytest.param("a//{index}.{ext}", "between slashes", id="empty folder"),
        pytest.param("{index}", "must end", id="no extension"),
        pytest.param("{index}.png", "must end", id="fixed extension"),
        pytest.param("{index}{ext}", "must end", id="extension without a dot"),
        pytest.param("{index}.{ext}.bak", "must end", id="extension inside"),
        pytest.param("", "must end", id="empty"),
        pytest.param("{slug}.{ext}", "names differ", id="no unique field"),
        pytest.param(".{index}.{ext}", "everywhere", id="hidden file"),
        pytest.param("-{index}.{ext}", "everywhere", id="looks like an option"),
        pytest.param("~/{index}.{ext}", "everywhere", id="home folder"),
        pytest.param("C:\\{index}.{ext}", "everywhere", id="drive"),
        pytest.param("nul/{index}.{ext}", "everywhere", id="device"),
        pytest.param("a\n{index}.{ext}", "everywhere", id="line break"),
        pytest.param("{index.{ext}", "fields:", id="unbalanced"),
    ],
)
def test_a_bad_template_is_refused_with_the_fields(template, problem):
    """F111 The message says what is wrong and what is allowed."""
    with pytest.raises(ConfigError, match=problem) as caught:
        FilenameTemplate.parse(template)
    assert "{index}, {key}" in str(caught.value).replace("{occurrence}, {seed}, ", "")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("{sku}.{ext}", "A-17.png", id="a column"),
        pytest.param("{ product line }/{sku}.{ext}", "mugs - cups/A-17.png", id="a folder"),
        pytest.param("{number:06}-{sku:.2}.{ext}", "000007-A-.png", id="width and length"),
        pytest.param("{part}-{on}-{sku}.{ext}", "12-true-A-17.png", id="numbers"),
        pytest.param("{list}-{sku}.{ext}", "_-A-17.png", id="no text"),
        pytest.param("{steps}-{width}-{prompt:.5}.{ext}", "20-512-a red.png", id="parameters"),
        pytest.param("{name}-{index}.{ext}", "hero-7.png", id="fields of every image come first"),
    ],
)
def test_columns_are_fields(template, expected):
    """What a row has of its own, and the parameters of the image, are parts of its name."""
    extras = {
        "sku": "A-17", "product line": "mugs / cups", "number": "7", "part": 12.0, "on": True,
        "list": [1], "name": "other", "index": 9,
    }  # fmt: skip
    request = ImageRequest(
        prompt="a red fox", steps=20, width=512, name="hero", index=7, extras=extras
    )
    read = FilenameTemplate.parse(template, columns=True)
    assert expected == read.render(request, ext="png")
    assert set(read.columns) <= {*extras, "steps", "width", "prompt"} - {"name", "index"}


def test_columns_are_fields_only_where_rows_are_checked():
    """A sink of one image has no list, so another field is a mistake."""
    with pytest.raises(ConfigError, match="unknown field"):
        FilenameTemplate.parse("{sku}.{ext}")
    with pytest.raises(ConfigError, match="width and a length"):
        FilenameTemplate.parse("{sku:>9}.{ext}", columns=True)
    with pytest.raises(ConfigError, match="unknown field"):
        FilenameTemplate.parse("{}.{ext}", columns=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("../../etc/passwd", "etc-passwd.png", id="F111 traversal"),
        pytest.param("..", "_.png", id="F111 parent"),
        pytest.param("", "_.png", id="F111 empty"),
        pytest.param("/", "_.png", id="F111 slash"),
        pytest.param("a\\b:c*d?e", "a-b-c-d-e.png", id="F111 reserved characters"),
        pytest.param("CON", "_CON.png", id="F111 device"),
        pytest.param("lpt1.final", "_lpt1.final.png", id="F111 device with an extension"),
        pytest.param("name. . ", "name.png", id="F111 trailing dots and spaces"),
        pytest.param(".hidden", "hidden.png", id="F111 leading dot"),
        pytest.param("-rf", "rf.png", id="F111 leading dash"),
        pytest.param("a\x00\x1b[2J\u202eb\nc", "a[2Jb c.png", id="F111 controls"),
        pytest.param("half\ud83d", "half.png", id="F111 half a surrogate pair"),
        pytest.param("cafe\u0301", "caf\u00e9.png", id="F110 NFC"),
        pytest.param("狐 🦊", "狐 🦊.png", id="F111 unicode stays"),
        pytest.param("{key}", "{key}.png", id="T20 text is not a template"),
    ],
)
def test_names_from_rows_are_made_safe(name, expected):
    """T5 Any text of a row becomes one harmless file name."""
    assert expected == _name("{name}.{ext}", name=name)
    by_column = FilenameTemplate.parse("{sku}.{ext}", columns=True)
    request = ImageRequest(prompt="x", extras={"sku": name})
    assert expected == by_column.render(request, ext="png")


def test_a_long_name_is_cut_between_characters_and_stays_unique():
    """F111 Three hundred emoji fit a file system's limit, and two names that differ stay
    different."""
    first = _name("{name}.{ext}", name="🦊" * 300)
    second = _name("{name}.{ext}", name="🦊" * 301)
    assert first != second
    assert len(first.encode()) <= 204
    assert first.startswith("🦊🦊🦊")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        pytest.param("A red fox, in SNOW!", "a-red-fox-in-snow", id="words"),
        pytest.param("बर्फ़ में लोमड़ी", "बर्फ़-में-लोमड़ी", id="marks belong to words"),
        pytest.param("🦊 …", "", id="no words"),
        pytest.param("word " * 30, "-".join(["word"] * 12), id="cut at a word"),
        pytest.param("x" * 90, "x" * 60, id="one long word"),
    ],
)
def test_slugs_are_the_prompts_words(prompt, expected):
    """A slug keeps letters of every script and has at most 60 characters."""
    assert normalize("NFC", expected) == slug(prompt)


def test_a_bare_job_is_named_by_its_id():
    """A job collected without its request gets a safe name."""
    rendered = FilenameTemplate.parse(DEFAULT).render(None, job_id="../x/7f3a9c21-77", ext="jpg")
    assert str(rendered) == "000000-..-x-7f3.jpg"
