"""The prompt that a provider reports with an image: a remark, not the image's identity.

Providers and gateways normalise, cut, escape, translate and rewrite it, so a different prompt
proves nothing about the image.
"""

from __future__ import annotations

import html
import unicodedata

from .._core.models import ImageRequest

#: characters; a shorter start of a prompt may be another prompt, and is not taken as a cut one.
#: Gateways cut at 77 and more
SHORTEST_CUT = 64


def canonical(prompt: str) -> str:
    """Return a prompt without the differences that gateways make: white space, line ends, Unicode
    form, letter case, HTML escapes."""
    plain = unicodedata.normalize("NFKC", html.unescape(prompt)).casefold()
    return " ".join(unicodedata.normalize("NFKC", plain).split())


def sent_prompt(request: ImageRequest) -> str:
    """Return the prompt of the submission's body; `extra_body` takes precedence."""
    given = request.extra_body.get("prompt")
    return given if isinstance(given, str) else request.prompt


def is_echo_of(request: ImageRequest, echo: str) -> bool:
    """Return whether a reported prompt is the request's, apart from what gateways change."""
    own, reported = canonical(sent_prompt(request)), canonical(echo)
    return own == reported or (len(reported) >= SHORTEST_CUT and own.startswith(reported))
