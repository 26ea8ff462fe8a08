"""The catalogue's promises: every bad request is refused in one line, before anything is spent."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fluxasync import ConfigError, ImageInput, ImageRequest, models
from fluxasync._core.models import WIRE_FIELDS
from fluxasync._engine.job_slots import typical_seconds
from fluxasync._requests.catalog import closest, closest_model, find, models_with, validate
from fluxasync._requests.parsing import parse_request
from fluxasync.extend import Secret

NAMES = [
    "flux-pro-1.1", "flux-pro", "flux-dev", "flux-pro-1.1-ultra", "flux-kontext-pro",
    "flux-kontext-max", "flux-2-pro", "flux-2-pro-preview", "flux-2-flex", "flux-2-max",
    "flux-2-klein-4b", "flux-2-klein-9b", "flux-2-klein-9b-preview", "flux-pro-1.0-fill",
    "flux-pro-1.0-expand", "flux-pro-1.0-canny", "flux-pro-1.0-depth",
    "flux-pro-1.1-ultra-finetuned", "flux-pro-1.0-fill-finetuned", "flux-3-image",
    "flux-3-image-klein", "flux-tools/outpainting-v1", "flux-tools/erase-v1",
    "flux-tools/deblur-v1", "flux-tools/vto-v1", "flux-tools/vto-v2",
]  # fmt: skip

VENDOR_PAGE = [
    "prompt", "image_prompt", "width", "height", "steps", "prompt_upsampling", "seed", "guidance",
    "safety_tolerance", "interval", "output_format", "webhook_url", "webhook_secret",
]  # fmt: skip


def request(**given: Any) -> ImageRequest:
    return ImageRequest(**{"prompt": "a red fox", **given})


def refusal(**given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(request(**given))
    return str(caught.value)


def test_every_model_is_there() -> None:
    """The catalogue has the models it promises, the vendor page's own first."""
    assert [model.name for model in models()] == NAMES


def test_a_decimal_parameter_is_one_image_however_it_is_written() -> None:
    """P27: a spreadsheet writes 3.0 as 3; the image is the same and is not paid again."""
    rows = [{"prompt": "fox", "guidance": value} for value in (3, 3.0, "3", "3.0", Decimal(3))]
    assert len({parse_request(row).content_key for row in rows}) == 1
    model = "flux-pro-1.1-ultra"
    strengths = [{"prompt": "fox", "model": model, "image_prompt_strength": n} for n in (1, 1.0)]
    assert len({parse_request(row).content_key for row in strengths}) == 1


def test_every_vendor_page_parameter_belongs_to_a_model() -> None:
    """Each parameter of the vendor page can be given by its own name."""
    assert [name for name in VENDOR_PAGE if not models_with(name)] == []


@pytest.mark.parametrize("model", models(), ids=lambda model: model.name)
def test_defaults_are_within_their_own_ranges(model: Any) -> None:
    """Sending what the provider assumes anyway passes the check."""
    defaults = {
        name: parameter.default
        for name, parameter in model.parameters.items()
        if parameter.default is not None and name != "prompt"
    }
    samples = {"int": 1024, "text": "x"}
    given: dict[str, Any] = {
        name: samples.get(model.parameters[name].kind, b"x")
        for name in (*model.required, *model.needs)
    }
    given |= defaults | {"prompt": "a fox"}
    typed = {k: v for k, v in given.items() if k in WIRE_FIELDS}
    rest = {k: v for k, v in given.items() if k not in typed}
    typed = {k: v for k, v in typed.items() if k in model.parameters}
    rest = {k: v for k, v in rest.items() if k in model.parameters}
    assert validate(ImageRequest(model=model.name, parameters=rest, **typed)).model == model.name


def test_a_good_request_passes_as_the_same_object() -> None:
    """Checking a request that needs no conversion makes no copy."""
    good = request(width=1024, height=768, seed=7, steps=28, guidance=3.5, output_format="png")
    assert validate(good) is good


@pytest.mark.parametrize(
    ("given", "line"),
    [
        pytest.param(
            {"width": 1023},
            "width=1023: flux-dev takes 256 to 1440 in steps of 32; nearest 1024",
            id="F137 width 1023",
        ),
        pytest.param(
            {"height": 9999},
            "height=9999: flux-dev takes 256 to 1440 in steps of 32; nearest 1440",
            id="F137 height too large",
        ),
        pytest.param(
            {"width": 0},
            "width=0: flux-dev takes 256 to 1440 in steps of 32; nearest 256",
            id="F137 width zero",
        ),
        pytest.param(
            {"seed": 2**70},
            "seed=1180591620717411303424: flux-dev takes 0 to 18446744073709551615",
            id="F137 seed 2^70",
        ),
        pytest.param(
            {"seed": 10**5000},
            "seed=(a number of 16610 bits): flux-dev takes 0 to 18446744073709551615",
            id="F137 seed of 5,000 digits",
        ),
        pytest.param(
            {"seed": -1},
            "seed=-1: flux-dev takes 0 to 18446744073709551615; -1 means any seed in other tools: "
            "here leave the seed out, or its cell empty",
            id="-1",
        ),
        pytest.param(
            {"seed": -2}, "seed=-2: flux-dev takes 0 to 18446744073709551615", id="seed below 0"
        ),
        pytest.param(
            {"guidance": math.nan}, "guidance=nan: flux-dev takes 1.5 to 5", id="F137 NaN"
        ),
        pytest.param({"guidance": -math.inf}, "guidance=-inf: flux-dev takes 1.5 to 5", id="inf"),
        pytest.param(
            {"guidance": 9}, "guidance=9: flux-dev takes 1.5 to 5; nearest 5", id="guidance"
        ),
        pytest.param(
            {"steps": True},
            "steps=True: flux-dev takes a whole number, 1 to 50",
            id="bool is not an int",
        ),
        pytest.param(
            {"guidance": True},
            "guidance=True: flux-dev takes a number, 1.5 to 5",
            id="bool is not a number",
        ),
        pytest.param(
            {"width": "1o24"},
            "width='1o24': flux-dev takes a whole number, 256 to 1440 in steps of 32",
            id="text is not an int",
        ),
        pytest.param(
            {"width": [1, [2]]},
            "width=(list): flux-dev takes a whole number, 256 to 1440 in steps of 32",
            id="a list is not shown",
        ),
        pytest.param(
            {"prompt_upsampling": "maybe"},
            "prompt_upsampling='maybe': flux-dev takes true or false",
            id="text is not a bool",
        ),
        pytest.param(
            {"output_format": "gif"},
            "output_format='gif': flux-dev takes jpeg, png or webp",
            id="format",
        ),
        pytest.param(
            {"model": "flux-2-pro", "width": 1000},
            "width=1000: flux-2-pro takes 64 or more in steps of 16; nearest 1008",
            id="FLUX.2 step",
        ),
        pytest.param(
            {"model": "flux-2-pro", "width": 4096, "height": 2048},
            "width=4096, height=2048: flux-2-pro makes at most 4 MP (4194304 pixels)",
            id="FLUX.2 pixels",
        ),
        pytest.param(
            {"model": "flux-2-pro", "width": 16 * 10**5000},
            "width=(a number of 16614 bits): flux-2-pro makes at most 4 MP (4194304 pixels)",
            id="FLUX.2 one side alone",
        ),
        pytest.param({"n": 0}, "n=0: a whole number, 1 to 10000", id="n zero"),
        pytest.param({"n": 10_001}, "n=10001: a whole number, 1 to 10000", id="n too large"),
        pytest.param({"n": True}, "n=True: a whole number, 1 to 10000", id="n bool"),
        pytest.param(
            {"seed": 2**64 - 1, "n": 2},
            "seed=18446744073709551615 with n=2: goes past 18446744073709551615",
            id="copies past the last seed",
        ),
        pytest.param(
            {"prompt": "   "},
            "the prompt is empty: flux-dev needs prompt or image_prompt",
            id="empty prompt",
        ),
        pytest.param(
            {"prompt": "", "model": "flux-kontext-pro"},
            "the prompt is empty: flux-kontext-pro needs one",
            id="kontext without prompt",
        ),
        pytest.param(
            {"model": "flux-pro-1.0-fill"},
            "image is missing: flux-pro-1.0-fill needs one",
            id="fill without image",
        ),
        pytest.param(
            {"model": "flux-pro-1.0-canny"},
            "control_image is missing: flux-pro-1.0-canny needs control_image or "
            "preprocessed_image",
            id="canny without image",
        ),
        pytest.param(
            {"prompt": "fox \ud83e"},
            "prompt: half of a surrogate pair at character 5, which UTF-8 cannot carry",
            id="lone surrogate",
        ),
        pytest.param(
            {"model": "flux-pro-1.1", "steps": 20},
            "steps: flux-pro-1.1 has no such parameter; flux-pro, flux-dev, flux-2-flex and "
            "6 more have it: choose one of them, or leave it out",
            id="F137 another model's parameter",
        ),
        pytest.param(
            {"model": "flux-dev", "interval": 2},
            "interval: flux-dev has no such parameter; flux-pro has it: choose it, or leave it out",
            id="one other model",
        ),
        pytest.param(
            {"model": "flux-kontext-pro", "width": 1024},
            "width: flux-kontext-pro has no such parameter; it takes aspect_ratio",
            id="what it takes instead",
        ),
        pytest.param(
            {"parameters": {"widht": 512}},
            "widht: flux-dev has no such parameter; did you mean width?",
            id="F137 misspelt",
        ),
        pytest.param(
            {"parameters": {"nonsense": 512}},
            "nonsense: flux-dev has no such parameter; fluxasync models lists what it takes",
            id="F137 unknown",
        ),
        pytest.param(
            {"parameters": {"width": 512}},
            "width: give it as width=…, not inside parameters",
            id="typed field inside parameters",
        ),
        pytest.param(
            {"model": "../v1/credits"},
            "model='../v1/credits': not the name of a model",
            id="model as a path",
        ),
        pytest.param({"model": ""}, "model='': not the name of a model", id="no model"),
        pytest.param(
            {"model": "flux-3-image", "parameters": {"resolution": "8k"}},
            "resolution='8k': flux-3-image takes 768sq, 1k, 1.5k, 2k or 4k",
            id="FLUX 3 resolution",
        ),
        pytest.param(
            {"model": "flux-3-image", "parameters": {"images": ["a.png"] * 11}},
            "images: 11 images; flux-3-image takes 1 to 10 images, each a path, bytes or a URL",
            id="FLUX 3 too many images",
        ),
        pytest.param(
            {"model": "flux-3-image", "parameters": {"images": []}},
            "images: 0 images; flux-3-image takes 1 to 10 images, each a path, bytes or a URL",
            id="FLUX 3 no image",
        ),
        pytest.param(
            {"model": "flux-3-image", "parameters": {"images": ["a.png", 7]}},
            "image 2 of images: an image input is a path, bytes or a URL, not int",
            id="FLUX 3 not an image",
        ),
        pytest.param(
            {"model": "flux-3-image", "parameters": {"input_image": "a.png"}},
            "input_image: flux-3-image has no such parameter; it takes images",
            id="FLUX 3 has a list",
        ),
        pytest.param(
            {"model": "flux-3-image", "width": 512},
            "width: flux-3-image has no such parameter; it takes aspect_ratio and resolution",
            id="FLUX 3 has no width",
        ),
        pytest.param(
            {"width": 512, "extra_body": {"width": 4096}},
            "width: given twice, once in extra_body: leave one out",
            id="extra_body over a parameter",
        ),
        pytest.param(
            {"extra_body": {"x": math.nan}},
            "extra_body: cannot be sent as JSON: Out of range float values are not JSON compliant",
            id="NaN in extra_body",
        ),
        pytest.param(
            {"extras": {"x": "\udc80"}},
            "extras: half of a surrogate pair, which UTF-8 cannot carry: remove it",
            id="surrogate in extras",
        ),
        pytest.param({"name": 7}, "name is text, not int", id="name"),
    ],
)
def test_bad_values_are_refused_in_one_line(given: dict[str, Any], line: str) -> None:
    """The refusal names the value, what the model takes and the nearest value it would take."""
    assert refusal(**given).removesuffix(": nan") == line


@pytest.mark.parametrize(
    "ratio", ["16:9", "1:1", "21:9", "9:21", "2:3", "1920:1080"], ids=lambda ratio: ratio
)
def test_ratios_within_the_limits_pass(ratio: str) -> None:
    """Both limits of the aspect ratio are themselves allowed."""
    assert validate(request(model="flux-kontext-pro", parameters={"aspect_ratio": ratio}))


@pytest.mark.parametrize(
    "ratio", ["22:9", "9:22", "0:1", "1:0", "16/9", "wide", " 1:1", "1.5:1", "١:١", 1.5]
)
def test_ratios_beyond_the_limits_are_refused(ratio: object) -> None:
    """A value that is no ratio, or wider than 21:9 or taller than 9:21, is refused."""
    line = refusal(model="flux-kontext-pro", parameters={"aspect_ratio": ratio})
    assert line.endswith("flux-kontext-pro takes a ratio W:H between 21:9 and 9:21")


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com", "https://", "example.com", "https://a b.com", "https://[", "x" * 3000,
     "https://e.com/\nx", "https://example.com/" + "x" * 2083],
)  # fmt: skip
def test_webhook_urls_must_be_web_urls_and_are_not_quoted(url: str) -> None:
    """A webhook needs an http(s) URL of 1 to 2083 characters; it may hold a token, so is unseen."""
    line = "webhook_url: flux-dev takes an http(s) URL of 1 to 2083 characters"
    assert line == refusal(webhook_url=url)


def test_a_webhook_secret_never_shows() -> None:
    """A secret that cannot be sent is refused without being quoted."""
    line = refusal(webhook_url="https://example.com/h", webhook_secret=Secret("canary\udc80"))
    assert "webhook_secret" in line
    assert "canary" not in line


def test_an_image_stands_in_for_the_prompt() -> None:
    """Models that take an image prompt need no text beside it."""
    assert validate(ImageRequest(image_prompt="fox.png")).prompt == ""


def test_image_parameters_become_image_inputs() -> None:
    """A path, a URL and bytes given for image parameters are recognised as such."""
    given = {
        "input_image": "fox.png",
        "input_image_2": "https://e.com/f.png",
        "input_image_3": b"x",
    }
    images = validate(request(model="flux-kontext-pro", parameters=given)).parameters
    assert images["input_image"] == ImageInput(path=Path("fox.png"))
    assert images["input_image_2"] == ImageInput(url="https://e.com/f.png")
    assert images["input_image_3"] == ImageInput.of(b"x")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(7, id="number"),
        pytest.param("", id="empty"),
        pytest.param("https://", id="URL without host"),
        pytest.param("data:image/png;base64,AAAA", id="data URI"),
        pytest.param(ImageInput(), id="nothing"),
        pytest.param(ImageInput(url="https://e.com", data=b"x"), id="two at once"),
    ],
)
def test_an_invalid_image_input_is_refused(value: object) -> None:
    """An image parameter takes exactly one of a path, bytes and a URL, and says so by name."""
    assert refusal(model="flux-2-pro", parameters={"input_image": value}).startswith("input_image")


def test_a_list_of_images_becomes_image_inputs() -> None:
    """A list, a single image and the JSON list in the cell of a table are lists of image inputs."""
    two = (ImageInput(path=Path("a.png")), ImageInput(url="https://e.com/b.png"))
    for given in (["a.png", "https://e.com/b.png"], '["a.png", "https://e.com/b.png"]', two):
        made = validate(request(model="flux-3-image", parameters={"images": given}))
        assert made.parameters["images"] == two
    alone = validate(request(model="flux-3-image", parameters={"images": "a.png"}))
    assert alone.parameters["images"] == two[:1]


@pytest.mark.parametrize(
    "name", ["flux-tools/erase-v9", "black-forest-labs/FLUX.9", "a/b/c/d", "flux-9", "v1.0/x_y-z"]
)
def test_names_with_slashes_pass(name: str) -> None:
    """A name may have up to four parts, as those of BFL's tools and of gateways have."""
    assert validate(request(model=name)).model == name


@pytest.mark.parametrize(
    "name",
    ["/flux", "flux/", "a//b", "a/../b", "../a", "a/..", "./a", "a/.b", "a?b", "a#b", "a b", "a\\b",
     "a%2Fb", "https://e.com/a", "//e.com/a", "a\nb", "a\x00", "a/b/c/d/e", "flüx", "x" * 101, "@a",
     "a;b", "a&b", "a:80"],
)  # fmt: skip
def test_names_that_could_change_the_address_are_refused(name: str) -> None:
    """Nothing in a model's name may leave the path of submissions or add to it."""
    assert refusal(model=name).endswith(": not the name of a model")


def test_numpy_integers_and_decimals_become_json_numbers() -> None:
    """Integers of numpy's kind are converted, and Decimals become floats, as JSON has no other."""

    class Foreign:
        def __index__(self) -> int:
            return 512

    fit = validate(request(width=Foreign(), guidance=Decimal("2.5")))
    assert (512, int) == (fit.width, type(fit.width))
    assert (2.5, float) == (fit.guidance, type(fit.guidance))


def test_an_unknown_model_passes_unchanged() -> None:
    """Values outside every known range pass for a model that the catalogue does not know."""
    new = request(model="flux-9", width=7, steps=999, parameters={"sparkle": [1, 2]})
    assert validate(new) is new


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"width": "wide"}, id="kind of a known parameter"),
        pytest.param({"width": True}, id="bool"),
        pytest.param({"guidance": math.nan}, id="NaN"),
        pytest.param({"seed": 2**70}, id="more than 64 bits"),
        pytest.param({"prompt": ""}, id="nothing to draw"),
        pytest.param({"parameters": {"sparkle": math.inf}}, id="infinity"),
        pytest.param({"parameters": {"sparkle": object()}}, id="no JSON"),
    ],
)
def test_an_unknown_model_still_needs_sane_types(given: dict[str, Any]) -> None:
    """Even an unknown model's request must be something that JSON and the wire can carry."""
    refusal(model="flux-9", **given)


def test_an_unknown_model_gets_its_images_recognised() -> None:
    """Image parameters that other models have are images for an unknown model too."""
    fit = validate(request(model="flux-9", parameters={"input_image": "fox.png"}))
    assert fit.parameters["input_image"] == ImageInput(path=Path("fox.png"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("widht", "width"), ("Width", "width"), ("output-format", "output_format"), ("seeds", "seed"),
     ("imagePrompt", "image_prompt"), ("promt", "prompt"), ("caption", None), ("tags", None)],
)  # fmt: skip
def test_misspellings_are_recognised(typed: str, meant: str | None) -> None:
    """Typos and other spellings resemble a name; unrelated words do not."""
    dev = find("flux-dev")
    assert dev is not None
    assert closest(typed, dev) == meant


def test_a_misspelt_model_is_guessed() -> None:
    """A warning about an unknown model can name the one that was meant."""
    assert closest_model("flux-dve") == "flux-dev"
    assert closest_model("dall-e") is None


def test_the_lower_active_limit_is_its_own_group() -> None:
    """flux-kontext-max has its own six slots; the others share the account's."""
    limited = {m.name: (m.active_limit, m.group) for m in models() if m.active_limit is not None}
    assert limited == {"flux-kontext-max": (6, "flux-kontext-max")}
    assert {"account"} == {m.group for m in models() if m.active_limit is None}


@pytest.mark.parametrize(
    ("model", "seconds"),
    [("flux-2-pro", find("flux-2-pro").typical_seconds), ("unheard-of", 6.0), (None, 6.0)],
)
def test_a_model_that_the_catalogue_lacks_takes_a_usual_time(model, seconds):
    """The slot of a job that is not watched is held about as long as its model takes."""
    assert typical_seconds(model) == seconds
