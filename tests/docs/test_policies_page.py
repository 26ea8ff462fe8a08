"""docs/policies.md has every field of every policy with its default, as the source says it."""

from __future__ import annotations

import attrs
import pytest

from .policy_tables import PAGE, POLICIES, comments, with_tables


def test_the_tables_are_current() -> None:
    """The page is what `python -m tests.docs.policy_tables` writes; run it after a change."""
    text = PAGE.read_text("utf-8")
    assert with_tables(text) == text


@pytest.mark.parametrize("policy", POLICIES)
def test_every_field_says_what_it_is(policy: type) -> None:
    """No field is without a comment."""
    said = comments(policy)
    assert [field.name for field in attrs.fields(policy) if not said.get(field.name)] == []
