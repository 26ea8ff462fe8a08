"""What users write becomes requests, and what could be a costly slip becomes an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluxasync import ConfigError, ImageInput, ImageRequest
from fluxasync._requests.copies import expand_copies
from fluxasync._requests.parsing import parse_request
from fluxasync.extend import Secret


def refusal(row: dict[Any, Any], **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_request(row, **options)
    return str(caught.value)


def test_a_prompt_is_enough() -> None:
    """A row with a prompt is a request of the default model with nothing else given."""
    assert parse_request({"prompt": "a fox"}) == ImageRequest(prompt="a fox")


def test_keys_go_where_they_belong() -> None:
    """Vendor-page parameters, the model's others, and the user's own keys are distinguished."""
    row = {
        "prompt": "a fox", "model": "flux-kontext-pro", "seed": 7, "aspect_ratio": "1:1",
        "input_image": b"x", "caption": "day 1", "name": "fox", "n": 2, "extra_body": {"new": 1},
        "webhook_url": "https://e.com/h", "webhook_secret": "s", "extras": {"lot": 4},
    }  # fmt: skip
    assert parse_request(row) == ImageRequest(
        prompt="a fox", model="flux-kontext-pro", seed=7, name="fox", n=2,
        webhook_url="https://e.com/h", webhook_secret=Secret("s"), extra_body={"new": 1},
        parameters={"aspect_ratio": "1:1", "input_image": ImageInput.of(b"x")},
        extras={"caption": "day 1", "lot": 4},
    )  # fmt: skip


def test_null_means_not_given() -> None:
    """A null counts as an absent key, also against a default."""
    row = {"prompt": "a fox", "seed": None, "aspect_ratio": None, "caption": None, "width": None}
    assert parse_request(row, defaults={"width": 512}) == ImageRequest(prompt="a fox", width=512)


@pytest.mark.parametrize(
    ("row", "part"),
    [
        pytest.param({"widht": 512}, "did you mean width?", id="F137 misspelt parameter"),
        pytest.param({"aspect_ratio": "1:1"}, "it takes width and height", id="another model's"),
        pytest.param({"raw": True}, "flux-pro-1.1-ultra has it", id="one other model's"),
        pytest.param({"modle": "flux-2-max"}, "looks like model", id="misspelt model"),
        pytest.param({"extra": {}}, "looks like extras", id="misspelt extras"),
    ],
)
def test_a_metadata_key_must_not_resemble_a_parameter(row: dict[str, Any], part: str) -> None:
    """What may be a slip is refused, and the message says how to keep the key as metadata."""
    line = refusal({"prompt": "a fox", **row})
    assert part in line
    assert 'put it inside "extras"' in line


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({}, id="F130 no prompt"),
        pytest.param({"prompt": 7}, id="prompt is no text"),
        pytest.param({"prompt": "a fox", "n": "4"}, id="n as text"),
        pytest.param({"prompt": "a fox", "n": 0}, id="n zero"),
        pytest.param({"prompt": "a fox", "n": 10_001}, id="n too large"),
        pytest.param({"prompt": "a fox", "n": 2.0}, id="n with a point"),
        pytest.param({"prompt": "a fox", "model": 3}, id="model is no text"),
        pytest.param({"prompt": "a fox", "model": ["flux-dev"]}, id="model is a list"),
        pytest.param({"prompt": "a fox", "name": 3}, id="name is no text"),
        pytest.param({"prompt": "a fox", "extras": "x"}, id="extras is no object"),
        pytest.param({"prompt": "a fox", "extra_body": []}, id="extra_body is no object"),
        pytest.param({"prompt": "a fox", "image_prompt": 3}, id="image is no image"),
        pytest.param({"prompt": "a fox", 3: "x"}, id="key is no text"),
    ],
)
def test_rows_of_the_wrong_shape_are_refused(row: dict[Any, Any]) -> None:
    """For any row, the error is a ConfigError of one line."""
    assert "\n" not in refusal(row)


def test_defaults_have_the_lower_priority() -> None:
    """The row's own value wins over the default."""
    made = parse_request({"prompt": "a fox", "seed": 1}, defaults={"seed": 2, "steps": 3})
    assert (made.seed, made.steps) == (1, 3)


def test_defaults_that_another_model_lacks_are_left_out() -> None:
    """A row that names another model takes only the defaults which that model has."""
    defaults = {"model": "flux-dev", "steps": 30, "seed": 7, "n": 2}
    made = parse_request({"prompt": "a fox", "model": "flux-pro-1.1"}, defaults=defaults)
    assert (made.model, made.steps, made.seed, made.n) == ("flux-pro-1.1", None, 7, 2)


def test_defaults_go_to_an_unknown_model() -> None:
    """Nothing is known of the model that a row names, so every default is kept."""
    made = parse_request({"prompt": "a fox", "model": "flux-9"}, defaults={"steps": 30})
    assert (made.model, made.steps) == ("flux-9", 30)


def test_defaults_must_fit_their_own_model() -> None:
    """A default that the default model lacks is an error, not silence."""
    defaults = {"model": "flux-pro-1.1", "steps": 30}
    assert "steps: flux-pro-1.1 has no" in refusal({"prompt": "a fox"}, defaults=defaults)


def test_extras_can_be_refused() -> None:
    """As keyword arguments, keys that nothing knows are errors."""
    line = refusal({"prompt": "a fox", "caption": "day 1"}, allow_extras=False)
    assert line.startswith("caption: flux-dev has no such parameter")
    assert 'inside "extras"' not in line


def test_every_key_of_an_unknown_model_is_sent() -> None:
    """What the catalogue cannot judge is a parameter with its JSON type, never metadata."""
    own = {"aspect_ratio": "9:1", "fresh": [1, {"a": None}], "yes": False, "resolution": 2048}
    row = {"prompt": "a fox", "model": "flux-9", "width": 7, "extras": {"shelf": 3}, **own}
    made = parse_request(row)
    assert (made.width, made.parameters, made.extras) == (7, own, {"shelf": 3})


def test_a_misspelt_row_key_of_an_unknown_model_is_refused() -> None:
    """`extra_bdy` is a mistake whatever the model takes."""
    assert "looks like extra_body" in refusal({"prompt": "a", "model": "flux-9", "extra_bdy": {}})


def test_local_images_of_an_unknown_model_are_image_inputs() -> None:
    """Names of image files, paths and bytes under any key are images; other text is text."""
    row = {
        "prompt": "a", "model": "flux-9", "start": "a.PNG", "pair": ["a.jpg", "https://e.com/b.jpg"],
        "bytes": b"x", "path": Path("c"), "plain": "png", "link": "https://e.com/c.png",
    }  # fmt: skip
    made = parse_request(row).parameters
    assert made["start"] == ImageInput(path=Path("a.PNG"))
    url = ImageInput(url="https://e.com/b.jpg")
    assert made["pair"] == (ImageInput(path=Path("a.jpg")), url)
    assert made["bytes"] == ImageInput.of(b"x")
    assert made["path"] == ImageInput(path=Path("c"))
    assert (made["plain"], made["link"]) == ("png", "https://e.com/c.png")


def test_a_default_of_another_model_is_not_metadata() -> None:
    """A parameter for all rows that a row's known model lacks is left out, not kept as metadata."""
    made = parse_request({"prompt": "a", "model": "flux-dev"}, defaults={"model": "flux-9", "x": 1})
    assert (made.extras, made.parameters) == ({}, {})


@pytest.mark.parametrize("key", ["version", "person"])
def test_common_words_stay_metadata_of_other_models(key: str) -> None:
    """Columns that many data sets have are no mistake, though a model has such a parameter."""
    assert parse_request({"prompt": "a", key: "b"}).extras == {key: "b"}


def test_copies_with_a_seed_take_the_seeds_that_follow() -> None:
    """Four images of one prompt and seed are four different images, and the same ones next time."""
    copies = list(expand_copies(ImageRequest(prompt="a fox", seed=7, n=3)))
    assert [(copy.seed, copy.n) for copy in copies] == [(7, 1), (8, 1), (9, 1)]


def test_a_single_request_is_its_own_expansion() -> None:
    """A request for one image is not copied."""
    single = ImageRequest(prompt="a fox", seed=7)
    assert [single] == list(expand_copies(single))


def test_copies_without_a_seed_are_alike() -> None:
    """Without a seed the provider draws one, so copies differ by nothing of ours."""
    assert [ImageRequest(prompt="a fox")] * 2 == list(
        expand_copies(ImageRequest(prompt="a fox", n=2))
    )
