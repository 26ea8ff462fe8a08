"""Prompt, seed, model and run id in an image: every tool reads them, and no pixel changes."""

from __future__ import annotations

import io
import re
from struct import unpack_from
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hostile_text import CORPUS
from support.sample_images import jpeg, png, png_chunk, riff, riff_chunk, webp

from fluxasync import ImageRequest
from fluxasync._core.images import inspect
from fluxasync._store.embedding import NAMESPACE, ImageFacts, embedded

Image = pytest.importorskip("PIL.Image")

FACTS = ImageFacts(prompt="a red fox, 50 % & <snow>", model="flux-dev", seed=7, run="ab12cd")
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
ADOBE = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:rights>by them</dc:rights>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def put(image: bytes, facts: ImageFacts = FACTS) -> bytes:
    return embedded(image, inspect(image), facts)


def packet_of(image: bytes) -> bytes:
    """The XMP that Pillow finds; "" = none."""
    found = Image.open(io.BytesIO(image)).info
    packet = found.get("xmp") or found.get("XML:com.adobe.xmp") or b""
    return packet.encode() if isinstance(packet, str) else packet


def tree_of(image: bytes) -> ElementTree.Element:
    packet = re.sub(rb"<\?xpacket.*?\?>", b"", packet_of(image))
    return ElementTree.fromstring(packet)  # noqa: S314 — our own


def values_of(image: bytes) -> dict[str, str]:
    """Our values in the XMP, by name."""
    tree = tree_of(image)
    ours = f"{{{NAMESPACE}}}"
    return {e.tag.removeprefix(ours): e.text or "" for e in tree.iter() if e.tag.startswith(ours)}


def parts_of(image: bytes) -> list[bytes]:
    """The chunks or segments of an image without XMP and without the extended WebP header."""
    kind = inspect(image).format
    parts, start = [], {"png": 8, "jpeg": 2, "webp": 12}[kind]
    while start < len(image):
        if kind == "png":
            (length,) = unpack_from(">I", image, start)
            end = start + 12 + length
        elif kind == "jpeg":
            marker, length = unpack_from(">BH", image, start + 1)
            end = start + 2 + length if marker != 0xDA else len(image)
        else:
            (length,) = unpack_from("<I", image, start + 4)
            end = start + 8 + length + length % 2
        parts.append(image[start:end])
        start = end
    is_ours = (b"XML:com.adobe.xmp", b"http://ns.adobe.com/xap/1.0/", b"XMP ", b"VP8X")
    return [part for part in parts if not any(name in part[:40] for name in is_ours)]


modes = st.sampled_from(["L", "LA", "P", "RGB", "RGBA"])
sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))


@st.composite
def images(draw: Any) -> bytes:
    """A real image of any format and of many forms, by Pillow."""
    mode, size, kind = draw(modes), draw(sizes), draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    pixels = draw(st.binary(min_size=4, max_size=64))
    made = Image.new(mode, size, 0)
    for number in range(min(len(pixels), size[0] * size[1])):
        channels = len(made.getbands())
        value = tuple(pixels[(number + c) % len(pixels)] for c in range(channels))
        made.putpixel((number % size[0], number // size[0]), value if channels > 1 else value[0])
    options: dict[str, Any] = {}
    if kind == "JPEG":
        made = made.convert("L" if mode in ("L", "LA") else "RGB")
        options = {"progressive": draw(st.booleans()), "comment": draw(st.binary(max_size=20))}
    if kind == "WEBP":
        options = {"lossless": draw(st.booleans())}
        if draw(st.booleans()):
            options |= {"save_all": True, "append_images": [made.copy()]}
    if draw(st.booleans()):
        exif = Image.Exif()
        exif[0x010E] = "their own description"
        options["exif"] = exif
    if draw(st.booleans()):
        options["icc_profile"] = b"an ICC profile"
    if draw(st.booleans()):
        options["xmp"] = ADOBE
    file = io.BytesIO()
    made.save(file, kind, **options)
    return file.getvalue()


texts = st.one_of(st.text(max_size=80), st.sampled_from(CORPUS))


@settings(max_examples=60, deadline=None)
@given(image=images(), prompt=texts, seed=st.none() | st.integers(0, 2**64 - 1))
def test_pixels_and_every_other_part_stay(image: bytes, prompt: str, seed: int | None) -> None:
    """In any real image: the same pixels, the same other chunks in the same order, valid XML with
    what was given; their own XMP keeps its values."""
    facts = ImageFacts(prompt=prompt, model="flux-dev", seed=seed, run="ab12")
    made = put(image, facts)
    before, after = Image.open(io.BytesIO(image)), Image.open(io.BytesIO(made))
    for frame in range(getattr(before, "n_frames", 1)):
        before.seek(frame)
        after.seek(frame)
        assert before.convert("RGBA").tobytes() == after.convert("RGBA").tobytes()
    assert parts_of(image) == parts_of(made)
    values = values_of(made)
    assert values["Model"] == "flux-dev"
    assert values["Run"] == "ab12"
    assert values.get("Seed") == (None if seed is None else str(seed))
    plain = "".join(c for c in prompt if c.isprintable() and ord(c) < 0xD800)
    shown = values.get("Prompt", "")
    assert "".join(c for c in shown if c.isprintable() and ord(c) < 0xD800) == plain
    assert (b"by them" in packet_of(made)) == (ADOBE in image)
    assert put(made, facts) == made  # a second time adds nothing


@settings(max_examples=60, deadline=None)
@given(image=images(), at=st.integers(0, 2_000), byte=st.integers(0, 255))
def test_a_strange_image_is_stored_as_it_came(image: bytes, at: int, byte: int) -> None:
    """Whatever our reader accepts never raises here, and stays an image of the same size."""
    changed = bytearray(image)
    changed[at % len(changed)] = byte
    try:
        info = inspect(bytes(changed))
    except ValueError:
        return
    assert inspect(embedded(bytes(changed), info, FACTS)) == info


@pytest.mark.parametrize(
    ("image", "provenance"),
    [
        pytest.param(jpeg(), b"JP\0\x01 a claim", id="jpeg, APP11"),
        pytest.param(
            png()[:33] + png_chunk(b"caBX", b"a C2PA claim") + png()[33:], b"caBXa C2PA claim",
            id="png, caBX",
        ),
        pytest.param(
            riff(webp()[12:] + riff_chunk(b"C2PA", b"claim")),
            b"C2PA\x05\0\0\0claim", id="webp, C2PA",
        ),
    ],
)  # fmt: skip
def test_provenance_is_kept(image: bytes, provenance: bytes) -> None:
    """C2PA manifests stay byte for byte, and a WebP's stays last."""
    made = put(image)
    assert provenance in made
    assert b"fluxasync:Seed" in made
    assert made.count(provenance) == 1
    if provenance.startswith(b"C2PA"):
        assert made.index(b"XMP ") < made.index(b"C2PA")


def test_a_new_packet_has_the_prompt_as_its_description() -> None:
    """Lightroom, exiftool and digiKam show dc:description."""
    (found,) = tree_of(put(png())).iter(DESCRIPTION)
    assert "".join(found.itertext()) == FACTS.prompt


@pytest.mark.parametrize("prompt", ["&" * 60_000, "漢" * 60_000, '"<>&' * 20_000], ids=len)
def test_a_long_prompt_is_cut_so_that_a_segment_holds_it(prompt: str) -> None:
    """An APP1 segment has 64 KB: what fits of the start is kept."""
    made = put(jpeg(), ImageFacts(prompt=prompt))
    assert prompt.startswith(values_of(made)["Prompt"])
    assert len(values_of(made)["Prompt"]) > 3_000


@pytest.mark.parametrize(
    "packet", [b"", ADOBE.replace(b"rdf:", b"r:"), ADOBE.decode().encode("utf-16")], ids=len
)
def test_xmp_of_another_form_is_left_alone(packet: bytes) -> None:
    """What cannot be extended is not damaged: the image stays as it came."""
    segment = b"http://ns.adobe.com/xap/1.0/\0" + packet
    image = b"\xff\xd8\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg()[2:]
    assert put(image) == image


def test_the_reported_seed_is_embedded() -> None:
    """A request without a seed: the provider's is the one that makes the image again."""
    request = ImageRequest(prompt="a fox")
    assert ImageFacts.of(request, seed=41, run="").seed == 41
    assert ImageFacts.of(ImageRequest(prompt="a fox", seed=7), seed=None).seed == 7
