"""The prompt that a provider reports: what counts as the request's own."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxasync import ImageRequest
from fluxasync._wire import canonical, is_echo_of, sent_prompt
from fluxasync._wire.prompt_echo import SHORTEST_CUT

PROMPTS = st.text(st.characters(codec="utf-8"), max_size=200)

#: what gateways do to a prompt
CHANGES: dict[str, Callable[[str], str]] = {
    "none": str,
    "single spaces": lambda text: " ".join(text.split()),
    "line ends": lambda text: text.replace("\n", "\r\n"),
    "stripped": str.strip,
    "NFC": lambda text: unicodedata.normalize("NFC", text),
    "NFD": lambda text: unicodedata.normalize("NFD", text),
    "lower case": str.lower,
    "HTML": html.escape,
}


@given(prompt=PROMPTS, change=st.sampled_from(sorted(CHANGES)))
def test_a_changed_form_is_still_the_requests_own(prompt: str, change: str) -> None:
    """P14: white space, Unicode form, letter case and escapes make no other prompt."""
    plain = html.unescape(prompt)  # escapes of the user's own are read as what they stand for
    assert is_echo_of(ImageRequest(prompt=plain), CHANGES[change](plain))


@given(prompt=st.text(st.characters(codec="utf-8"), min_size=SHORTEST_CUT, max_size=300))
def test_a_cut_prompt_is_still_the_requests_own(prompt: str) -> None:
    """P14: gateways cut long prompts, at 77 characters and more."""
    cut = prompt[: max(len(prompt) // 2, SHORTEST_CUT + 20)]
    if len(canonical(cut)) >= SHORTEST_CUT and canonical(prompt).startswith(canonical(cut)):
        assert is_echo_of(ImageRequest(prompt=prompt), cut)


@pytest.mark.parametrize("echo", ["a red", "a red fox in snow", "a blue cow", ""])
def test_a_short_start_is_another_prompt(echo: str) -> None:
    """P14: lists have a prompt beside its longer form; one of them is no cut form of the other."""
    assert not is_echo_of(ImageRequest(prompt="a red fox"), echo)


def test_extra_body_is_what_is_sent() -> None:
    """`extra_body` replaces fields of the body, the prompt too."""
    request = ImageRequest(prompt="a red fox", extra_body={"prompt": "a blue cow"})
    assert (sent_prompt(request), is_echo_of(request, "a blue cow")) == ("a blue cow", True)
    assert sent_prompt(ImageRequest(prompt="a", extra_body={"prompt": 7})) == "a"
