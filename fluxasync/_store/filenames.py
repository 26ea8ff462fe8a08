"""File names for images, from a template and a request.

A template is a fixed grammar checked before anything is spent; what fills it is untrusted text
(prompts, row names, a server's job ids) and is made safe for every common file system. The result
is always a relative path without `..`: where it lands is `sinks`' business.

An odd fact: `datasets` reads the words *train* and *test* in a file name as splits, so a slug of
the prompt is a poor default; the default name has only numbers in it.
"""

from __future__ import annotations

import hashlib
import re
from string import Formatter
from typing import Any
from unicodedata import category, normalize

from attrs import field, frozen

from .._core.arguments import check_type
from .._core.errors import ConfigError
from .._core.models import ImageRequest

#: the request's position keeps a folder in order, the key's start says which request it was
DEFAULT = "{index:06}-{key:.8}.{ext}"

_NUMBERS = ("index", "occurrence", "seed")
_TEXTS = ("key", "model", "name", "slug")
_FIELDS = (*_NUMBERS, *_TEXTS, "ext")

#: without one of these two requests of a run would share a name
_UNIQUE = ("index", "key", "name")

_NUMBER_SPEC = re.compile(r"(0?[1-9]\d?)?")
_TEXT_SPEC = re.compile(r"(\.[1-9]\d{0,2})?")

#: what some file system or shell gives a meaning to
_RESERVED = re.compile(r'[/\\:*?"<>|]')

#: device names of Windows, with or without an extension
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I)

#: bytes of one path component: file systems stop at 255, and a suffix must still fit
_COMPONENT_BYTES = 200

_SLUG_LENGTH = 60  # characters


@frozen(kw_only=True)
class FilenameTemplate:
    """A checked file-name template; make one with `Template.parse`."""

    text: str
    #: literal text and fields before the final ".{ext}": (literal, field or None, format spec)
    _parts: tuple[tuple[str, str | None, str], ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> FilenameTemplate:
        """Check a template such as "{slug}/{index:06}-{key:.8}.{ext}".

        Fields are index, occurrence, seed (with a width: `{index:06}`), key, model, name, slug
        (with a length: `{key:.8}`) and ext, which comes last. Raises ConfigError, naming the
        fields, for anything that is not that or that might leave the folder.
        """
        check_type("name", text, str, expected="a template of file names")
        parts = _parsed(normalize("NFC", text))
        for _, name, spec in parts:
            _check_field(text, name, spec)
        if not parts or parts[-1][1] != "ext" or not parts[-1][0].endswith("."):
            raise _bad(text, "must end with .{ext}, which is read from the image's bytes")
        if not any(name in _UNIQUE for _, name, _ in parts):
            raise _bad(text, "needs {index}, {key} or {name}, so that names differ")
        _check_components(text, parts)
        parts[-1] = (parts[-1][0].removesuffix("."), None, "")
        return cls(text=text, parts=tuple(parts))

    def render(self, request: ImageRequest | None, *, job_id: str = "", ext: str = "jpg") -> str:
        """Return the relative path for one image, safe whatever the request says; "/" divides it.

        A job collected by its bare id has no request: its id stands for the key.
        """
        return f"{self.stem(request, job_id=job_id, ext=ext)}.{ext}"

    def stem(self, request: ImageRequest | None, *, job_id: str = "", ext: str = "jpg") -> str:
        """Return the same without its extension, which only the image's bytes tell."""
        stem = ""
        for literal, name, spec in self._parts:
            stem += literal
            if name is not None:
                stem += _filled(_value(name, request, job_id, ext), spec)
        return "/".join(map(_component, stem.split("/")))


def _bad(text: str, problem: str) -> ConfigError:
    fields = ", ".join(f"{{{name}}}" for name in _FIELDS)
    return ConfigError(f"file-name template {text!r}: {problem} (fields: {fields})")


def _parsed(text: str) -> list[tuple[str, str | None, str]]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as exc:
        raise _bad(text, str(exc)) from None
    for _, name, _, conversion in parsed:
        if conversion:
            raise _bad(text, f"{{{name}!{conversion}}} has a conversion; write {{{name}}}")
    return [(literal, name, spec or "") for literal, name, spec, _ in parsed]


def _check_field(text: str, name: str | None, spec: str) -> None:
    if name is None:
        return
    if name not in _FIELDS:
        raise _bad(text, f"unknown field {{{name}}}")
    if name in _NUMBERS and not _NUMBER_SPEC.fullmatch(spec):
        raise _bad(text, f"{{{name}:{spec}}} takes a width, as in {{{name}:06}}")
    if name in _TEXTS and not _TEXT_SPEC.fullmatch(spec):
        raise _bad(text, f"{{{name}:{spec}}} takes a length, as in {{{name}:.8}}")
    if name == "ext" and spec:
        raise _bad(text, "{ext} takes no format")


def _check_components(text: str, parts: list[tuple[str, str | None, str]]) -> None:
    """Look at the path with every field replaced by a harmless letter."""
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
    return getattr(request, name, None)


def _filled(value: Any, spec: str) -> str:
    if value is None:
        return "_"
    return _safe(format(_safe(value) if isinstance(value, str) else value, spec)) or "_"


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
    """Text that no file system takes for more than text; NFC, because macOS compares by it."""
    text = _RESERVED.sub("-", text)
    if text.isascii() and text.isprintable():
        return text.strip()
    kept = (" " if c.isspace() else c for c in text if c.isspace() or category(c)[0] != "C")
    return normalize("NFC", "".join(kept)).strip()


def _component(text: str) -> str:
    """One part of a path: not hidden, no option, no device, not too long, never `.` or `..`."""
    name = _safe(text).lstrip(".-~ ").rstrip(". ")
    if _DEVICES.fullmatch(name):
        name = f"_{name}"
    return _fitting(name) or "_"


def _fitting(name: str) -> str:
    """Cut between characters; what was cut lives on as a digest, so that names stay different."""
    whole = name.encode()
    if len(whole) <= _COMPONENT_BYTES:
        return name
    digest = hashlib.sha256(whole).hexdigest()[:8]
    start = whole[: _COMPONENT_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{start.rstrip('. ')}-{digest}"
