"""The page itself: one text with style, script and cards in it, and the policy that binds it.

The policy names the only style and the only script by their hashes, so nothing that a card carries
can ever run, even if it became markup; and it cannot become markup, because the cards stand in a
JSON block in which no `<` occurs and the script writes only text (`trusted-types` makes a browser
refuse anything else).
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

#: parts of the script, in their order
_SCRIPTS = ("cards.js", "layout.js", "tiles.js", "detail.js", "main.js")

#: a page opened from a disk has no origin of its own, so "self" alone need not mean its folder
_FROM_DISK = "img-src 'self' file:"
_SERVED = "img-src 'self'; connect-src 'self'"


@frozen(kw_only=True)
class Page:
    """A finished page."""

    text: bytes
    policy: str  #: the Content-Security-Policy in it; a server sends it as a header too


def page(title: str, run: Mapping[str, Any], *, served: bool) -> Page:
    """Make the page of a run: its cards as JSON under `cards`, and what else the script reads."""
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
    # a folder's name need not be text
    return Page(text=text.encode(errors="replace"), policy=policy)


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """Put the parts in their places; what a part contains is never taken for a place."""
    head, *rest = template.split("{{")
    text = [head]
    for piece in rest:
        name, _, after = piece.partition("}}")
        text += (parts[name], after)
    return "".join(text)


def _json(value: Any) -> str:
    """Return JSON that can stand in any element: without `<`, `>` and `&`, and in ASCII."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _part(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")
