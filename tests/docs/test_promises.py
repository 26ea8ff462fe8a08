"""docs/promises.md is the catalogue of the ids that tests cite."""

from __future__ import annotations

from .promise_index import PAGE, cited, described, ids_in, with_tests


def test_every_id_that_tests_cite_is_in_the_catalogue() -> None:
    """Every id that a test cites is explained on the page."""
    assert not cited().keys() - set(described(PAGE.read_text("utf-8")))


def test_no_id_is_described_twice() -> None:
    """Each id is defined once."""
    ids = described(PAGE.read_text("utf-8"))
    assert len(ids) == len(set(ids))


def test_the_list_of_tests_is_current() -> None:
    """The list of files by id is up to date; `python -m tests.docs.promise_index` writes them."""
    page = PAGE.read_text("utf-8")
    assert with_tests(page) == page


def test_ids_are_read_alone_in_lists_and_in_ranges() -> None:
    """Numbers of lint rules, versions and parts of words are no ids."""
    kind = "P"
    text = f"{kind}1 {kind}3, {kind}5: {kind}7 to {kind}9; S108 F401x v{kind}2 x.{kind}6"
    assert {f"{kind}{n}" for n in (1, 3, 5, 7, 8, 9)} == set(ids_in(text))
