"""The cards of a page, read from lists that grow and from untrusted lists."""

from __future__ import annotations

import json

import pytest
from support.gallery_folders import HOSTILE, Folder, cards_of

from fluxasync import ConfigError
from fluxasync._store.journal.journal import Journal
from fluxasync.gallery.cards import CardLists, address, is_simulated, read
from fluxasync.gallery.html_page import page


def test_lists_are_read_on_as_they_grow(tmp_path):
    """Every image appears once, when its line is complete."""
    folder, lists = Folder(tmp_path), CardLists(tmp_path)
    assert lists.changed() == []
    folder.saved()
    folder.failed()
    assert {"saved", "moderated"} == {card.status for card in lists.changed()}
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write('{"key": "torn", "ind')
        file.flush()
        assert lists.changed() == []
        file.write('ex": 9, "file_name": "x.jpg"}\n')
    assert [card.key for card in lists.changed()] == ["torn"]


def test_a_rewritten_list_yields_only_changed_cards(tmp_path):
    """A list replaced in one rename, as at the start of a run, repeats no card."""
    folder, lists = Folder(tmp_path), CardLists(tmp_path)
    first = folder.failed()
    folder.failed()
    lists.changed()
    new = tmp_path / "new"
    new.write_text(json.dumps(first | {"message": "another"}) + "\n")
    new.replace(tmp_path / "failures.jsonl")
    assert [first["key"]] == [card.key for card in lists.changed()]


def test_a_saved_image_outlives_its_earlier_failure(tmp_path):
    """An image that failed and was made later is saved, whichever list is read first."""
    folder, lists = Folder(tmp_path), CardLists(tmp_path)
    key = folder.failed()["key"]
    assert [card.status for card in lists.changed()] == ["moderated"]
    folder.saved(key=key)
    assert [card.status for card in lists.changed()] == ["saved"]
    folder.failed(key=key)
    assert lists.changed() == []


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/x.jpg", "/etc/x.jpg", "a/../../x.jpg", "..\\x.jpg", "x.html", "x.svg", "x.jpg\0",
        "", "javascript:alert(1)", ".fluxasync/journal.db", 7, None, ["x.jpg"],
    ],
)  # fmt: skip
def test_a_name_that_is_no_image_in_the_folder_becomes_no_address(tmp_path, name):
    """The page links only to images in its folder."""
    Folder(tmp_path).saved(file_name=name, with_file=False)
    (card,) = CardLists(tmp_path).changed()
    assert card.file is None
    assert "file" not in card.as_json(file=card.file, thumb=None)


@pytest.mark.parametrize(
    "kept",
    [
        {"path": "../x.jpg"}, {"path": "x.jpg"}, {"path": ".fluxasync/quarantine/../../x.jpg"},
        {"path": ".fluxasync/quarantine/a/x.jpg"}, {"path": 7}, {},
    ],
)  # fmt: skip
def test_quarantined_bytes_elsewhere_become_no_address(tmp_path, kept):
    """Only a file of the folder's own quarantine is linked."""
    Folder(tmp_path).failed(quarantine=kept)
    (card,) = CardLists(tmp_path).changed()
    assert (card.status, card.file) == ("quarantined", None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("a b/ü#?.jpg", "./a%20b/%C3%BC%23%3F.jpg", id="reserved"),
        pytest.param("javascript:alert(1).jpg", "./javascript%3Aalert%281%29.jpg", id="scheme"),
        pytest.param('"><x.jpg', "./%22%3E%3Cx.jpg", id="markup"),
        pytest.param("%2e%2e/x.jpg", "./%252e%252e/x.jpg", id="encoded already"),
    ],
)
def test_an_address_is_a_path_beside_the_page(name, expected):
    """No file name is read as a scheme, a query or markup."""
    assert expected == address(name)


@pytest.mark.parametrize(
    "line",
    [
        "", "null", "[]", "7", '"x"', "{", "[" * 100_000, '{"key": 1, "index": 1}', '{"key": "x"}',
        '{"key": "x", "index": "1"}', '{"key": "x", "index": 1, "cost": NaN}', "\udcff",
    ],
)  # fmt: skip
def test_an_unknown_line_is_skipped(tmp_path, line):
    """A bad line is skipped, and the others are read."""
    text = f"{line}\n".encode(errors="surrogateescape")
    (tmp_path / "metadata.jsonl").write_bytes(text)
    Folder(tmp_path).saved()
    assert [card.status for card in CardLists(tmp_path).changed()] == ["saved"]


def test_values_of_the_wrong_kind_are_left_out(tmp_path):
    """A value of a wrong type does not reach the page."""
    Folder(tmp_path).saved(prompt=["x"], seed="7", width=True, cost=None, timings=[1], paid="x")
    (card,) = CardLists(tmp_path).changed()
    assert not {"prompt", "seed", "width", "cost", "timings", "paid"} & set(card.facts)


def test_a_folder_without_a_run_is_an_error(tmp_path):
    """A mistyped folder is an error, not an empty page."""
    with pytest.raises(ConfigError, match="no images of a run"):
        read(tmp_path)
    (tmp_path / "list.xlsx").touch()
    with pytest.raises(ConfigError, match=r"list\.xlsx is a file: give the folder of a run"):
        read(tmp_path / "list.xlsx")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_come_out_of_the_page_as_they_went_in(tmp_path, text):
    """T7: any text is data in the page, and the page's markup stays the same."""
    plain, made = (
        page(words, {"cards": [{"prompt": words, "extras": {words: words}}]}, served=False).text
        for words in ("plain", text)
    )
    assert [{"prompt": text, "extras": {text: text}}] == cards_of(made)
    assert plain.count(b"<") == made.count(b"<")
    assert plain.count(b">") == made.count(b">")
    assert plain.count(b'"') <= made.count(b'"')


@pytest.mark.asyncio
@pytest.mark.parametrize("simulated", [True, False])
async def test_a_page_knows_whether_its_run_is_paid(tmp_path, simulated):
    """As its record says after the run; a folder without one says no."""
    assert not is_simulated(tmp_path)
    async with Journal(tmp_path, provider="bfl", origin="https://api.bfl.ai", simulated=simulated):
        pass
    assert is_simulated(tmp_path) is simulated
