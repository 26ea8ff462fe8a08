"""docs/models.md says what the catalogue has."""

from __future__ import annotations

from fluxasync import models

from .model_tables import PAGE, with_tables


def test_the_tables_are_current() -> None:
    """The page is made from the catalogue; `python -m tests.docs.model_tables` makes it."""
    page = PAGE.read_text("utf-8")
    assert with_tables(page) == page


def test_every_entry_has_its_sources_with_a_date() -> None:
    """A number without a source and a day cannot be checked again."""
    for model in models():
        for source in (model.parameters_from, model.price_from):
            assert source is not None, model.name
            assert source.date.startswith("202"), model.name
