"""Redaction: replaces secrets in answers, in every encoding in which a server may repeat them.

A body is redacted before it is read, a text before it is cut. A secret of fewer than SHORTEST
characters (for a local gateway) may be a part of any word, so it is replaced in texts only, and
only as a whole word.
"""

from __future__ import annotations

import base64
import html.entities
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

if TYPE_CHECKING:
    from .._core.models import Secret

#: characters
SHORTEST = 8
#: a webhook's token, as it ends an address
_TOKEN = re.compile(rb"[0-9a-f]{32}")
#: an address ends with its token; the URL of an image may have such a part and goes on after it
_ADDRESS_ENDS = r"(?![0-9A-Za-z_-]|[/.?][0-9A-Za-z])"
#: characters of a secret that may remain at the end of a cut text
_SHOWN = 3
#: characters; the base64 of a shorter secret is replaced only as a whole word
_SHORTEST_BASE64 = 5
#: bounded, so that a text of a million backslashes is searched in linear time
_ESCAPE = r"\\{1,8}"
_WORD_BEGINS = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4}))"
_WORD_ENDS = r"(?![A-Za-z0-9])"

_NAMES: dict[str, list[str]] = {}
for _name, _meaning in html.entities.html5.items():
    _NAMES.setdefault(_meaning, []).append(re.escape(_name.rstrip(";")))


@frozen
class Redaction:
    """Secrets, each with the word that replaces it."""

    _secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    _addresses: tuple[re.Pattern[str], ...] = field(default=(), repr=False)

    def with_secret(self, secret: Secret | None, word: str = "(secret)") -> Redaction:
        """Return a Redaction that replaces this secret too; None adds nothing."""
        return evolve(self, secrets=(*self._secrets, (secret.reveal(), word))) if secret else self

    def with_addresses(self, url: str) -> Redaction:
        """Return a Redaction that also replaces the tokens at the end of addresses below a URL."""
        slash = _character("/")
        last = slash + _spelled(url.rpartition("/")[2]) + slash
        pattern = re.compile(f"({last}){_TOKEN.pattern.decode()}{_ADDRESS_ENDS}")
        return evolve(self, addresses=(*self._addresses, pattern))

    def body(self, body: bytes) -> bytes:
        """Return a body without the long secrets; JSON stays valid."""
        body = self._without_tokens(body)
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
        """Return a text without the secrets; a cut one (`is_whole` false) may end inside one."""
        text = _without(text, self._secrets)
        for pattern in self._addresses:
            text = pattern.sub(r"\1(token)", text)
        if not is_whole:
            for value, word in self._secrets:
                text = _without_start(text, value, word)
        return text

    def _without_tokens(self, body: bytes) -> bytes:
        if not self._addresses or _TOKEN.search(body) is None:
            return body
        text = body.decode("utf-8", "surrogateescape")
        for pattern in self._addresses:
            text = pattern.sub(r"\1(token)", text)
        return text.encode("utf-8", "surrogateescape")


#: replaces nothing
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
    """A fast test: nearly all answers contain neither the secret nor an escape."""
    return any(sign in body for sign in _signs(value))


@lru_cache(maxsize=16)
def _signs(value: str) -> tuple[bytes, ...]:
    # + and / have two spellings, so the longest run of other base64 digits is searched
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
    """Return the base64 digits that depend on the value only, for each of its three possible
    offsets in a longer text (`Bearer …`)."""
    found = []
    for before in range(3):
        digits = base64.b64encode(bytes(before) + value).decode()
        found.append(digits[-(-8 * before // 6) : 8 * (before + len(value)) // 6])
    return found


def _spelled_base64(digits: str) -> str:
    """Return a pattern for base64 digits in both alphabets (+/ and -_), in every spelling."""
    other = {"+": "-", "/": "_"}
    return "".join(f"(?:{_character(c)}|{other[c]})" if c in other else c for c in digits)


def _spelled(value: str) -> str:
    return "".join(map(_character, value))


def _character(c: str) -> str:
    """Return a pattern for one character: plain, or escaped for JSON, a URL or HTML."""
    code = ord(c)
    octets = "".join(f"%(?:25){{0,3}}{_hex(octet, 2)}" for octet in c.encode())
    escaped = f"u{_hex(code, 4)}|x{_hex(code, 2)}" + ("" if c.isalnum() else f"|{re.escape(c)}")
    named = "".join(f"|{name}" for name in _NAMES.get(c, ()))
    entity = f"(?:#0{{0,7}}{code}|#[xX]0{{0,7}}{_hex(code, 1)}{named});?"
    return f"(?:{re.escape(c)}|{_ESCAPE}(?:{escaped})|{octets}|&(?:amp;){{0,3}}{entity})"


def _hex(code: int, width: int) -> str:
    digits = f"{code:0{width}x}"
    return "".join(d if d.isdigit() else f"[{d}{d.upper()}]" for d in digits)
