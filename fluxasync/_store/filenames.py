"""File names for images, from a template and a request.

A template is checked before anything is spent. Its values are untrusted text (prompts, row names, a
server's job ids), made safe for every common file system; the result is a relative path without
`..`. The default name has no slug of the prompt, because `datasets` reads the words *train* and
*test* in a file name as splits.
"""

from __future__ import annotations

import hashlib
import re
from string import Formatter
from typing import Any
from unicodedata import category, normalize

from attrs import field, frozen

from .._core.arguments import check_type
from .._core.errors import ConfigError, cut
from .._core.models import ImageRequest

#: the index sorts a folder in the order of the prompts, the key identifies the request
DEFAULT = "{index:06}-{key:.8}.{ext}"

_NUMBERS = ("index", "occurrence", "seed")
_TEXTS = ("key", "model", "name", "slug")
#: fields of every image; a template of a run may also name columns of its list
FIELDS = (*_NUMBERS, *_TEXTS, "ext")

#: a template needs one of these or a column, so that names differ
_UNIQUE = ("index", "key", "name")

_NUMBER_SPEC = re.compile(r"(0?[1-9]\d?)?")
_COLUMN_SPEC = re.compile(r"(0?[1-9]\d?)?(\.[1-9]\d{0,2})?")
_TEXT_SPEC = re.compile(r"(\.[1-9]\d{0,2})?")

#: characters with a meaning in some file system or shell
_RESERVED = re.compile(r'[/\\:*?"<>|]')

#: device names of Windows, with or without an extension
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I)

#: maximum bytes of a path component: file systems allow 255, and a suffix must fit
_COMPONENT_BYTES = 200

_SLUG_LENGTH = 60  # characters


@frozen(kw_only=True)
class FilenameTemplate:
    """A checked file-name template, made with `FilenameTemplate.parse`."""

    text: str
    #: literal text and fields before the final ".{ext}": (literal, field or None, format spec)
    _parts: tuple[tuple[str, str | None, str], ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str, *, columns: bool = False) -> FilenameTemplate:
        """Check a template such as "{slug}/{index:06}-{key:.8}.{ext}".

        Fields are index, occurrence, seed (with a width: `{index:06}`), key, model, name, slug
        (with a length: `{key:.8}`) and ext, which comes last. With `columns`, every other field is
        a column of the list, which the caller looks for in each row (width, length or both).
        Raises ConfigError for an unknown field, a wrong format, or a path that may leave the
        folder.
        """
        check_type("name", text, str, expected="a template of file names")
        parts = _parsed(text)
        for _, name, spec in parts:
            _check_field(text, name, spec, columns=columns)
        if not parts or parts[-1][1] != "ext" or not parts[-1][0].endswith("."):
            raise _bad(text, "must end with .{ext}, which is read from the image's bytes")
        if not any(name in _UNIQUE or (name and name not in FIELDS) for _, name, _ in parts):
            also = ", {name} or a column" if columns else " or {name}"
            raise _bad(text, f"needs {{index}}, {{key}}{also}, so that names differ")
        _check_components(text, parts)
        parts[-1] = (parts[-1][0].removesuffix("."), None, "")
        return cls(text=text, parts=tuple(parts))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the list that names are made of, each once."""
        names = (name for _, name, _ in self._parts if name and name not in FIELDS)
        return tuple(dict.fromkeys(names))

    @property
    def is_unique(self) -> bool:
        """Whether no two images of a run get the same name."""
        return any(name in ("index", "key") for _, name, _ in self._parts)

    def render(self, request: ImageRequest | None, *, job_id: str = "", ext: str = "jpg") -> str:
        """Return the relative path for one image; "/" separates its parts.

        Without a request (a job collected by its id) the job id replaces the key.
        """
        return f"{self.stem(request, job_id=job_id, ext=ext)}.{ext}"

    def stem(self, request: ImageRequest | None, *, job_id: str = "", ext: str = "jpg") -> str:
        """Return the path without its extension, which is known only from the image's bytes."""
        stem = ""
        for literal, name, spec in self._parts:
            stem += literal
            if name is not None:
                stem += _filled(_value(name, request, job_id, ext), spec, name not in FIELDS)
        return "/".join(map(_component, stem.split("/")))


def _bad(text: str, problem: str) -> ConfigError:
    fields = ", ".join(f"{{{name}}}" for name in FIELDS)
    return ConfigError(f"file-name template {cut(repr(text))}: {problem} (fields: {fields})")


def _parsed(text: str) -> list[tuple[str, str | None, str]]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as exc:
        raise _bad(text, str(exc)) from None
    for _, name, _, conversion in parsed:
        if conversion:
            raise _bad(text, f"{{{name}!{conversion}}} has a conversion; write {{{name}}}")
    return [
        (normalize("NFC", literal), None if name is None else name.strip(), spec or "")
        for literal, name, spec, _ in parsed
    ]


def _check_field(text: str, name: str | None, spec: str, *, columns: bool) -> None:
    if name is None:
        return
    if not name or (name not in FIELDS and not columns):
        raise _bad(text, f"unknown field {{{name}}}")
    if name not in FIELDS and not _COLUMN_SPEC.fullmatch(spec):
        raise _bad(text, f"{{{name}:{spec}}} takes a width and a length, as in {{{name}:06.20}}")
    if name in _NUMBERS and not _NUMBER_SPEC.fullmatch(spec):
        raise _bad(text, f"{{{name}:{spec}}} takes a width, as in {{{name}:06}}")
    if name in _TEXTS and not _TEXT_SPEC.fullmatch(spec):
        raise _bad(text, f"{{{name}:{spec}}} takes a length, as in {{{name}:.8}}")
    if name == "ext" and spec:
        raise _bad(text, "{ext} takes no format")


def _check_components(text: str, parts: list[tuple[str, str | None, str]]) -> None:
    """Check the path with every field replaced by a letter."""
    skeleton = "".join(literal + ("x" if name else "") for literal, name, _ in parts)
    if skeleton.startswith("/"):
        raise _bad(text, "must be relative to the output folder")
    for component in skeleton.split("/"):
        if component in ("", ".", ".."):
            raise _bad(text, f"must not have {component!r} between slashes")
        if component != _component(component):
            raise _bad(text, f"{component!r} does not name a file everywhere; use plain words")


def _value(name: str, request: ImageRequest | None, job_id: str, ext: str) -> Any:
    match name:
        case "ext":
            return ext
        case "key":
            return job_id if request is None else request.key
        case "slug":
            return None if request is None else slug(request.prompt)
        case "index":
            return 0 if request is None else request.index
    if name in FIELDS or request is None:
        return getattr(request, name, None)
    return request.extras[name] if name in request.extras else request.given().get(name)


def _filled(value: Any, spec: str, is_column: bool) -> str:
    if is_column:
        return _column(value, spec)
    if value is None:
        return "_"
    if type(value) is int:
        return format(value, spec)
    return _safe(format(_safe(value) if isinstance(value, str) else value, spec)) or "_"


def _column(value: Any, spec: str) -> str:
    """Return a cell as a part of a name: what a table shows, cut and padded."""
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        return "_"
    width, _, length = spec.partition(".")
    text = _safe(str(value))
    text = text[: int(length)] if length else text
    fill = "0" if width.startswith("0") else " "
    return _safe(text.rjust(int(width or 0), fill)) or "_"


def slug(prompt: str) -> str:
    """Return the prompt's words in lower case, joined by dashes, at most 60 characters.

    Letters, marks and digits of every script stay.
    """
    letters = (c if category(c)[0] in "LMN" else " " for c in normalize("NFC", prompt).lower())
    kept = ""
    for word in "".join(letters).split():
        longer = f"{kept}-{word}" if kept else word[:_SLUG_LENGTH]
        if len(longer) > _SLUG_LENGTH:
            break
        kept = longer
    return kept


def _safe(text: str) -> str:
    """Remove special and control characters; NFC, because macOS normalizes names."""
    text = _RESERVED.sub("-", text)
    if text.isascii() and text.isprintable():
        return text.strip()
    kept = (" " if c.isspace() else c for c in text if c.isspace() or category(c)[0] != "C")
    return normalize("NFC", "".join(kept)).strip()


def _component(text: str) -> str:
    """Return a valid path component: not hidden, no option, no device name, not too long."""
    name = _safe(text).lstrip(".-~ ").rstrip(". ")
    if _DEVICES.fullmatch(name):
        name = f"_{name}"
    return _fitting(name) or "_"


def _fitting(name: str) -> str:
    """Shorten between characters; a digest of the whole name keeps names different."""
    whole = name.encode()
    if len(whole) <= _COMPONENT_BYTES:
        return name
    digest = hashlib.sha256(whole).hexdigest()[:8]
    start = whole[: _COMPONENT_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{start.rstrip('. ')}-{digest}"
