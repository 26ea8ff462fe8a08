"""Images that are written as text: base64, and data URIs (RFC 2397, RFC 4648)."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)

#: `data:[type][;parameter=value]…[;base64],`; browsers write short ones
_HEAD = 512

#: characters; the smallest picture of 64 pixels a side is longer, and file names of this length
#: without a dot are rare
_SHORTEST = 100
#: characters; a longer text is no path (PATH_MAX of Linux)
_LONGEST_PATH = 4_096

#: how base64 begins of JPEG, PNG, WebP (RIFF); GIF, BMP, TIFF, PDF, PSD, SVG and XML; and of files
#: that begin with the length of their first box, such as HEIC and AVIF
_MAGIC = (
    "/9j/", "_9j_", "iVBORw0KGgo", "UklGR", "R0lGOD", "Qk", "SUkqA", "TU0AK", "JVBERi", "OEJQUw",
    "PHN2Zy", "PD94bW", "AAAA",
)  # fmt: skip

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}", re.ASCII)
_TO_STANDARD = str.maketrans("-_", "+/")


def inline_image(text: str) -> bytes | None:
    """Return the bytes of an image that is written as text; None for a path.

    Base64 may be URL-safe, broken into lines and without its padding. A text that could also be the
    name of a file is one if it is short or begins like no image. The bytes are not checked. Raises
    ValueError, which says why, for a data URI that holds no image, and for base64 that is broken.
    """
    head = text[:16].lstrip()
    if head[:5].lower() == "data:":
        return _of_data_uri(text.strip())
    is_long = len(text) > _LONGEST_PATH
    if len(text) < _SHORTEST or not (is_long or head.startswith(_MAGIC)):
        return None
    packed = "".join(text.split())
    if not _BASE64.fullmatch(packed):
        if is_long:
            raise ValueError(f"a text of {len(text):,} characters is neither a path nor base64")
        return None
    return _decoded(packed)


def _of_data_uri(text: str) -> bytes:
    head, comma, rest = text[5:_HEAD].partition(",")
    if not comma:
        raise ValueError("a data URI has a comma before its data: data:image/png;base64,…")
    media_type, *parameters = (part.strip().lower() for part in head.split(";"))
    if media_type and not _is_image(media_type):
        shown = media_type if _MEDIA_TYPE.fullmatch(media_type) else "unknown type"
        raise ValueError(f"a data URI of {shown[:60]} is no image")
    data = rest + text[_HEAD:]
    if "base64" not in parameters:
        return unquote_to_bytes(data)
    if "%" in data:
        data = unquote_to_bytes(data).decode("ascii", "replace")
    packed = "".join(data.split())
    if not _BASE64.fullmatch(packed):
        raise ValueError("the data URI holds no base64" if packed else "the data URI is empty")
    return _decoded(packed)


def _is_image(media_type: str) -> bool:
    return media_type.startswith("image/") or media_type == "application/octet-stream"


def _decoded(packed: str) -> bytes:
    bare = packed.rstrip("=").translate(_TO_STANDARD)
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except binascii.Error:
        raise ValueError("the base64 is cut off: its length is not a multiple of 4") from None
