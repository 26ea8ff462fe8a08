"""The HTML page with its style, script and cards, and its Content-Security-Policy.

The policy allows one style and one script by their hashes, so no text of a card can run. Nor can it
become markup: the cards are in a JSON block without `<`, and the script writes only text, which
`trusted-types` enforces.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from attrs import frozen

from .._store.output_root import OutputRoot

#: parts of the script, in order
_SCRIPTS = (
    "search.js", "cards.js", "layout.js", "about.js", "tiles.js", "copying.js", "picks.js",
    "address.js", "filters.js", "grid.js", "overlay.js", "detail.js", "main.js",
)  # fmt: skip

#: a page opened from a disk has no origin, so "self" does not cover its folder in every browser
_FROM_DISK = "img-src 'self' file:"
_SERVED = "img-src 'self'; connect-src 'self'"


@frozen(kw_only=True)
class Page:
    """A finished page."""

    text: bytes
    policy: str  #: its Content-Security-Policy; a server sends it as a header too


def title_of(root: OutputRoot) -> str:
    """Return the title of a run's page: its URL, or the name of its folder."""
    return root.url or root.folder.resolve().name


def page(title: str, run: Mapping[str, Any], *, served: bool) -> Page:
    """Return the page of a run; `run` is the JSON that the script reads, with the cards in it."""
    style, script = _part("gallery.css"), "\n".join(map(_part, _SCRIPTS))
    script = f'(() => {{\n"use strict";\n{script}\n}})();'
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            _SERVED if served else _FROM_DISK,
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    parts = {
        "policy": html.escape(policy, quote=True).replace("&#x27;", "'"),
        "title": html.escape(title),
        "style": style,
        "script": script,
        "run": _json(run),
    }
    text = _filled(_part("gallery.html"), parts)
    # the title is a folder's name, which may not be valid Unicode
    return Page(text=text.encode(errors="replace"), policy=policy)


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """Replace `{{name}}` by its part; placeholders inside a part are not replaced."""
    head, *rest = template.split("{{")
    text = [head]
    for piece in rest:
        name, _, after = piece.partition("}}")
        text += (parts[name], after)
    return "".join(text)


def _json(value: Any) -> str:
    """Return JSON in ASCII without `<`, `>` and `&`, safe inside any element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _part(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")
