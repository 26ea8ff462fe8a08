"""Redaction: replaces secret values in answers, in each encoding in which a server may echo them.

A body is redacted before it is read, a text before it is cut. A secret of fewer than SHORTEST
characters (made up for a local gateway) may be part of any word of an answer, so the body stays as
it is, and texts lose the secret only where it is a whole word.
"""

from __future__ import annotations

import base64
import html.entities
import json
import re
from collections.abc import Iterable
from functools import lru_cache

from attrs import field, frozen

from .._core.models import Secret

#: characters
SHORTEST = 8
#: characters of a secret's start that a broken-off text may still show
_SHOWN = 3
#: characters of a secret whose inner base64 is long enough to be searched for anywhere
_SHORTEST_BASE64 = 5
#: bounded repetitions: a text of a million backslashes is searched in linear time
_ESCAPE = r"\\{1,8}"
_WORD_BEGINS = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4}))"
_WORD_ENDS = r"(?![A-Za-z0-9])"

_NAMES: dict[str, list[str]] = {}
for _name, _meaning in html.entities.html5.items():
    _NAMES.setdefault(_meaning, []).append(re.escape(_name.rstrip(";")))


@frozen
class Redaction:
    """What to hide: values, and the words that stand in their places."""

    _secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def also(self, secret: Secret | None, word: str = "(secret)") -> Redaction:
        """Return one that hides this secret too; None adds nothing."""
        return Redaction((*self._secrets, (secret.reveal(), word))) if secret else self

    def body(self, body: bytes) -> bytes:
        """Return an answer's body without the long secrets. JSON stays the same JSON."""
        long = [(value, word) for value, word in self._secrets if len(value) >= SHORTEST]
        if not long or not any(_may_hold(body, value) for value, _ in long):
            return body
        for encoding in dict.fromkeys(("utf-8", json.detect_encoding(body))):
            errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
            text = body.decode(encoding, errors)
            if (hidden := _without(text, long)) != text:
                body = hidden.encode(encoding, errors)
        return body

    def text(self, text: str, *, is_whole: bool = True) -> str:
        """Return a text without the secrets; one that broke off may end inside a secret."""
        text = _without(text, self._secrets)
        if not is_whole:
            for value, word in self._secrets:
                text = _without_start(text, value, word)
        return text


#: hides nothing
NOTHING = Redaction()


def _without(text: str, secrets: Iterable[tuple[str, str]]) -> str:
    for value, word in secrets:
        text = _pattern(value).sub(word, text)
    return text


def _without_start(text: str, value: str, word: str) -> str:
    for size in range(len(value) - 1, _SHOWN, -1):
        if text.endswith(value[:size]):
            return text[:-size] + word
    return text


def _may_hold(body: bytes, value: str) -> bool:
    """A quick look, because nearly all answers hold neither the secret nor an escape."""
    return any(sign in body for sign in _signs(value))


@lru_cache(maxsize=16)
def _signs(value: str) -> tuple[bytes, ...]:
    # of a digit run without + and /, which may be written in two ways, the longest part will do
    runs = [max(re.split(r"[+/]", digits), key=len) for digits in _base64_of(value.encode())]
    return (value.encode(), *(run.encode() for run in runs), b"\\", b"%", b"&", b"\0")


@lru_cache(maxsize=16)
def _pattern(value: str) -> re.Pattern[str]:
    plain = _spelled(value)
    if len(value) < SHORTEST:
        whole = base64.b64encode(value.encode()).decode().rstrip("=")
        plain = f"{_WORD_BEGINS}(?:{plain}|{_spelled(whole)}={{0,2}}){_WORD_ENDS}"
    inner = _base64_of(value.encode()) if len(value) >= _SHORTEST_BASE64 else []
    return re.compile("|".join([plain, *map(_spelled_base64, inner)]))


def _base64_of(value: bytes) -> list[str]:
    """The base64 digits that the value alone decides, at each of the three places where it may
    begin in a longer text (`Bearer …`)."""
    found = []
    for before in range(3):
        digits = base64.b64encode(bytes(before) + value).decode()
        found.append(digits[-(-8 * before // 6) : 8 * (before + len(value)) // 6])
    return found


def _spelled_base64(digits: str) -> str:
    """Letters and digits as they are; the others in either alphabet, in any spelling."""
    other = {"+": "-", "/": "_"}
    return "".join(f"(?:{_character(c)}|{other[c]})" if c in other else c for c in digits)


def _spelled(value: str) -> str:
    return "".join(map(_character, value))


def _character(c: str) -> str:
    """A pattern for one character: as it is, escaped in JSON, in a URL, or in HTML."""
    code = ord(c)
    octets = "".join(f"%(?:25){{0,3}}{_hex(octet, 2)}" for octet in c.encode())
    escaped = f"u{_hex(code, 4)}|x{_hex(code, 2)}" + ("" if c.isalnum() else f"|{re.escape(c)}")
    named = "".join(f"|{name}" for name in _NAMES.get(c, ()))
    entity = f"(?:#0{{0,7}}{code}|#[xX]0{{0,7}}{_hex(code, 1)}{named});?"
    return f"(?:{re.escape(c)}|{_ESCAPE}(?:{escaped})|{octets}|&(?:amp;){{0,3}}{entity})"


def _hex(code: int, width: int) -> str:
    digits = f"{code:0{width}x}"
    return "".join(d if d.isdigit() else f"[{d}{d.upper()}]" for d in digits)
