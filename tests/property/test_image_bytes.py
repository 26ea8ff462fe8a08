"""Any bytes give an ImageInfo or NotAnImage: what a server sends cannot raise anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sample_images import jpeg, png, riff, webp

from fluxasync._core.images import ImageInfo, NotAnImage, inspect, measure

STARTS = (b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", png()[:8], png()[:16], b"RIFF", webp()[:16])
WHOLE = (jpeg(), png(), webp())


def _judged(content: bytes) -> ImageInfo | None:
    try:
        return inspect(content)
    except NotAnImage:
        return None


@settings(max_examples=600)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=300))
def test_any_bytes_are_judged(start, rest):
    """P25 Any bytes after a header are accepted or refused with NotAnImage."""
    _judged(start + rest)


@settings(max_examples=300)
@given(rest=st.binary(max_size=120))
def test_any_riff_is_judged(rest):
    """P25 A container whose lengths fit may still hold anything."""
    _judged(riff(rest))


@settings(max_examples=600)
@given(
    image=st.sampled_from(WHOLE),
    at=st.integers(min_value=0, max_value=200),
    flip=st.integers(min_value=1, max_value=255),
)
def test_a_flipped_byte_is_judged(image, at, flip):
    """F77 A damaged image passes or is refused; a PNG is always refused."""
    at %= len(image)
    found = _judged(image[:at] + bytes([image[at] ^ flip]) + image[at + 1 :])
    if image.startswith(b"\x89PNG"):
        assert found is None


@pytest.mark.parametrize("image", WHOLE, ids=["jpeg", "png", "webp"])
def test_no_proper_prefix_is_an_image(image):
    """F72 Wherever the stream stops, what came is not taken for the image."""
    assert all(_judged(image[:length]) is None for length in range(len(image)))


@settings(max_examples=200)
@given(
    width=st.integers(min_value=1, max_value=400),
    height=st.integers(min_value=1, max_value=400),
    payload=st.binary(min_size=1, max_size=64),
)
def test_sizes_are_read_back(width, height, payload):
    """Every whole image is recognised with the size it was made with."""
    for make in (jpeg, png, webp):
        info = measure(make(width, height, payload=payload))
        assert (width, height) == (info.width, info.height)
