"""Messages of errors show their options whole, and values cut."""

from __future__ import annotations

from fluxasync._core.errors import cut_values


def test_words_between_two_quoted_ones_are_whole() -> None:
    """An option between `"extras"` and `"extra_body"` is no value, however many there are."""
    options = " ".join(f"--map extras.column_{n}=column_{n}" for n in range(20))
    line = f'put them inside "extras" (columns: {options}); or inside "extra_body"'
    assert cut_values(line) == line
    names = ", ".join(repr(f"column {n}") for n in range(40))
    assert cut_values(f"columns: {names}") == f"columns: {names}"


def test_a_long_value_in_quotes_is_cut() -> None:
    """A value with quotes inside, as repr() writes it, is cut too."""
    value = repr('it\'s "quoted" ' * 40)
    assert len(cut_values(f"prompt={value}: too long")) < 140
