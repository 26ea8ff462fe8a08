"""The simulator's images: exact in size and format, and reproducible."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import pytest
from attrs import evolve

from fluxasync.simulator.images import (
    PICTURES,
    Gallery,
    Picture,
    PictureSpec,
    padded,
    painter_of,
    plain_png,
    variant_of,
)
from fluxasync.simulator.world import World

Image = pytest.importorskip("PIL.Image", reason="the extra 'image' is not installed")

SCENES = (
    "a sailing boat on the sea", "neon city street at night", "a fox in the forest", "sand dunes",
    "a planet with rings", "northern lights", "a flower, abstract", "une idée sans mots connus",
)  # fmt: skip


def spec_of(
    prompt: str = "a red fox", seed: int = 1, size: tuple[int, int] = (320, 256), form: str = "jpeg"
) -> PictureSpec:
    return PictureSpec(prompt=prompt, seed=seed, width=size[0], height=size[1], format=form)


def opened(picture: Picture) -> Image.Image:
    image = Image.open(BytesIO(picture.body))
    image.load()
    return image


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("size", [(256, 256), (1440, 256), (64, 80), (1536, 1056)])
def test_an_image_has_the_exact_size_and_format(form: str, size: tuple[int, int]) -> None:
    """The file has the requested size and format, and can be decoded."""
    image = opened(Gallery().picture(spec_of(size=size, form=form)))
    assert (form.upper(), size) == (image.format, image.size)


@pytest.mark.parametrize("prompt", SCENES)
def test_every_scene_has_many_colours(prompt: str) -> None:
    """Every scene has many colours, none of which covers half of the image."""
    colours = opened(Gallery().picture(spec_of(prompt))).getcolors(320 * 256)
    assert len(colours) > 500
    assert max(count for count, _ in colours) < 320 * 256 / 2


@pytest.mark.parametrize(
    ("prompt", "has_caption"),
    [("a red fox in the snow", True), ("狐が雪の中を走る", True), ("", False)],
)
@pytest.mark.parametrize("size", [(256, 256), (1440, 1440)])
def test_the_first_words_of_the_prompt_are_written_into_a_corner(
    prompt: str, has_caption: bool, size: tuple[int, int]
) -> None:
    """Bottom left, in light letters; a prompt without a Latin letter has its seed there."""
    image = opened(Gallery().picture(spec_of(prompt, size=size, form="png")))
    corner = image.crop((0, size[1] * 9 // 10, size[0] * 3 // 4, size[1]))
    light = sum(n for n, colour in corner.getcolors(1 << 24) if min(colour) > 230)
    assert has_caption == (light > 20)


def test_images_are_reproducible_and_differ_by_prompt_and_seed() -> None:
    """Equal specs give equal bytes, also from another gallery."""
    first = Gallery().picture(spec_of())
    assert first == Gallery().picture(spec_of())
    assert first.body != Gallery().picture(spec_of(seed=2)).body
    assert first.body != Gallery().picture(spec_of(prompt="a red fix")).body


@pytest.mark.parametrize(
    "prompt", ["", "狐が雪の中を走る", "\ud83d lone", "x" * 20_000, "\0\x1b[31m"]
)
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    """Empty, foreign, broken and very long prompts can be drawn."""
    assert opened(Gallery().picture(spec_of(prompt))).size == (320, 256)


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("size", [60_000, 262_144])
def test_image_bytes_are_met_exactly(form: str, size: int) -> None:
    """With `image_bytes` every image has that size, is valid, and is drawn once."""
    gallery = Gallery(image_bytes=size)
    picture = gallery.picture(spec_of(form=form))
    assert size == len(picture.body)
    assert opened(picture).size == (320, 256)
    assert gallery.picture(spec_of("another", seed=9, form=form)) is picture


def test_too_few_image_bytes_give_the_smallest_image() -> None:
    """A size that is too small gives the smallest possible image."""
    assert opened(Gallery(image_bytes=10).picture(spec_of())).size == (320, 256)


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_padding_of_any_length_is_exact_or_refused(form: str) -> None:
    """Every possible length of padding is exact; WebP rounds down to even."""
    body = Gallery().picture(spec_of(size=(64, 64), form=form)).body
    least = {"jpeg": 4, "png": 12, "webp": 8}[form]
    for more in [*range(-3, 30), *range(65_530, 65_550)]:
        result = padded(body, len(body) + more)
        if more == 0 or more >= least:
            assert result is not None
            assert len(body) + more - (more % 2 if form == "webp" else 0) == len(result)
            Image.open(BytesIO(result)).load()
        else:
            assert result is None


def test_the_gallery_forgets_beyond_its_space() -> None:
    """Old images are dropped; the newest is kept, however small the limit."""
    gallery = Gallery(kept_bytes=1)
    for seed in (1, 2):
        gallery.picture(spec_of(seed=seed))
    assert (gallery.has(spec_of(seed=1)), gallery.has(spec_of(seed=2))) == (False, True)


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_plain_images_differ_as_landscapes_do(form: str) -> None:
    """Size and format are as asked for; prompt, seed and variant each make another image."""
    gallery = Gallery(painter=painter_of({PICTURES: "plain"}))
    specs = [spec_of(form=form), spec_of("a fix", form=form), spec_of(seed=2, form=form)]
    specs.append(evolve(specs[0], variant="guidance 3"))
    pictures = [gallery.picture(spec) for spec in specs]
    assert {(opened(each).size, each.format) for each in pictures} == {((320, 256), form)}
    assert len({each.body for each in pictures}) == len(specs)


def test_an_unknown_way_to_draw_is_refused() -> None:
    """The message has the names that there are; without the variable there are landscapes."""
    with pytest.raises(ValueError, match="FLUXASYNC_PICTURES='oil': write landscapes or plain"):
        painter_of({PICTURES: "oil"})
    assert painter_of({}) is painter_of({PICTURES: "landscapes"})


@pytest.mark.parametrize("name", ["plain", "landscapes"])
def test_a_simulator_draws_as_the_environment_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is read where a simulator begins."""
    monkeypatch.setenv(PICTURES, name)
    expected = Gallery(painter=painter_of({PICTURES: name})).picture(spec_of())
    assert World().gallery.picture(spec_of()) == expected


@pytest.mark.parametrize("size", [(256, 256), (96, 512)])
def test_without_pillow_there_is_a_valid_png(size: tuple[int, int]) -> None:
    """Every format is answered with a valid PNG of the requested size, and reported as PNG."""
    gallery = Gallery(painter=None)
    spec = spec_of(size=size, form="webp")
    picture = gallery.picture(spec)
    assert (gallery.format_of(spec), picture.format) == ("png", "png")
    assert size == struct.unpack(">II", picture.body[16:24])
    assert size == opened(picture).size
    assert zlib.crc32(b"IEND") == struct.unpack(">I", picture.body[-4:])[0]


def test_a_practised_grid_shows_what_its_parameters_change() -> None:
    """Another guidance or model is another image of the same scene, with its value in a corner;
    prompt, seed and size alone are drawn as ever."""
    gallery = Gallery()
    plain = spec_of()
    variants = [
        variant_of("flux-dev", {"prompt": "a red fox", "seed": 1, "width": 320, "height": 256}),
        variant_of("flux-dev", {"guidance": 2, "steps": 30}),
        variant_of("flux-dev", {"guidance": 2.0, "steps": 30, "safety_tolerance": 6}),
        variant_of("flux-dev", {"guidance": 3.5, "steps": 30, "image_prompt": "A" * 999}),
        variant_of("flux-pro", {}),
    ]
    assert variants == [
        "", "guidance 2, steps 30", "guidance 2, steps 30", "guidance 3.5, steps 30", "flux-pro",
    ]  # fmt: skip
    drawn = [gallery.picture(evolve(plain, variant=variant)).body for variant in variants]
    assert drawn[0] == gallery.picture(plain).body
    assert drawn[1] == drawn[2]
    assert len(set(drawn)) == 4
    assert len({plain_png(evolve(plain, variant=variant))(88) for variant in variants}) == 4
