"""Which image is another request's, by the prompt that the provider reports."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fluxasync import ImageRequest, Job, Ready
from fluxasync._engine.submitted_prompts import (
    REMEMBERED,
    OfAnotherRequest,
    SubmittedPrompts,
    note_on,
)
from fluxasync._wire import canonical, is_echo_of

PROMPTS = st.text(st.characters(codec="utf-8"), max_size=120)


def ready(prompt: str | None, request: ImageRequest | None) -> Ready:
    job = Job(job_id="a-1", request=request)
    return Ready(job=job, url="https://d.example/a", deadline=60.0, prompt=prompt)


def remembered(*prompts: str) -> SubmittedPrompts:
    memory = SubmittedPrompts()
    for prompt in prompts:
        memory.add(ImageRequest(prompt=prompt))
    return memory


@given(own=PROMPTS, others=st.lists(PROMPTS, max_size=5), echo=PROMPTS)
def test_any_prompt_that_no_other_request_has_keeps_the_image(
    own: str, others: list[str], echo: str
) -> None:
    """P14: translated, rewritten, a placeholder or nothing: a remark is no proof of a swap."""
    assume(canonical(echo) not in map(canonical, others))
    remembered(own, *others).check(ready(echo, ImageRequest(prompt=own)))


@given(own=PROMPTS, others=st.lists(PROMPTS, min_size=1, max_size=5), data=st.data())
def test_the_prompt_of_another_request_is_a_swap(
    own: str, others: list[str], data: st.DataObject
) -> None:
    """P14: another request of the session was reported, and not a changed form of the own."""
    request, echo = ImageRequest(prompt=own), data.draw(st.sampled_from(others))
    assume(echo.strip() and not is_echo_of(request, echo))
    answer = ready(echo, request)
    with pytest.raises(OfAnotherRequest) as caught:
        remembered(own, *others).check(answer)
    assert (answer, answer.job) == (caught.value.ready, caught.value.job)
    assert len(str(caught.value)) < 400


def test_a_normalised_own_prompt_is_no_swap_where_a_row_has_that_form() -> None:
    """P14: two rows may differ in white space only."""
    memory = remembered("a  quiet   harbour", "a quiet harbour")
    memory.check(ready("a quiet harbour", ImageRequest(prompt="a  quiet   harbour")))


def test_a_job_without_a_request_keeps_its_image() -> None:
    """A job that is collected by its id has no prompt to compare."""
    remembered("a red fox").check(ready("a red fox", None))
    assert note_on(ready("a red fox", None)) is None


def test_the_memory_of_a_million_prompts_is_bounded() -> None:
    """P20: the latest prompts are remembered, a repeated one from its last use on."""
    memory = remembered("first", "again", *map(str, range(REMEMBERED - 2)), "again", "one more")
    assert f"{REMEMBERED} digests" in repr(memory)
    request = ImageRequest(prompt="mine")
    assert not memory.is_anothers(request, "first")
    assert memory.is_anothers(request, "again")


@pytest.mark.parametrize(
    ("echo", "parameters", "warns"),
    [
        pytest.param("a red fox", {}, False, id="the same"),
        pytest.param("a  red fox", {}, True, id="white space"),
        pytest.param("", {}, True, id="empty"),
        pytest.param(None, {}, False, id="none"),
        pytest.param("in detail", {"prompt_upsampling": True}, False, id="upsampling was asked"),
        pytest.param("x", {"prompt": ""}, False, id="a request without a prompt"),
    ],
)
def test_a_changed_prompt_is_worth_a_warning(
    echo: str | None, parameters: dict[str, object], warns: bool
) -> None:
    """The warning names the model and the column, not the prompts."""
    given_ = {"prompt": "a red fox", "model": "flux-pro-1.1"} | parameters
    note = note_on(ready(echo, ImageRequest(**given_)))  # type: ignore[arg-type]
    assert warns is (note is not None)
    if note is not None:
        assert note.startswith("flux-pro-1.1: ")
        assert "prompt_used" in note
