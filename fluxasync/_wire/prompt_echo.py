"""The prompt that a provider reports with an image: a remark, not the image's identity.

Providers and gateways normalise, cut, escape, translate and rewrite it, so a different prompt
proves nothing about the image. An equal one proves whose job a task of the account is.
"""

from __future__ import annotations

import html
import unicodedata
from functools import lru_cache

from .._core.models import ImageRequest

#: characters; a shorter start of a prompt may be another prompt, and is not taken as a cut one.
#: Gateways cut at 77 and more
SHORTEST_CUT = 64

#: models whose result repeats the prompt unchanged (recordings of BFL's FLUX.1 family)
_REPEATING = ("flux-dev", "flux-pro", "flux-kontext")


def canonical(prompt: str) -> str:
    """Return a prompt without the differences that gateways make: white space, line ends, Unicode
    form, letter case, HTML escapes."""
    if prompt.isascii() and "&" not in prompt:  # has one Unicode form, and no escapes
        return " ".join(prompt.lower().split())
    plain = unicodedata.normalize("NFKC", html.unescape(prompt)).casefold()
    return " ".join(unicodedata.normalize("NFKC", plain).split())


def sent_prompt(request: ImageRequest) -> str:
    """Return the prompt of the submission's body; `extra_body` takes precedence."""
    given = request.extra_body.get("prompt")
    return given if isinstance(given, str) else request.prompt


def is_echo_of(request: ImageRequest, echo: str) -> bool:
    """Return whether a reported prompt is the request's, apart from what gateways change."""
    sent = sent_prompt(request)
    if echo == sent:
        return True
    own, reported = canonical(sent), canonical(echo)
    return own == reported or (len(reported) >= SHORTEST_CUT and own.startswith(reported))


def is_whole_echo_of(request: ImageRequest, echo: str) -> bool:
    """Return whether a reported prompt is the request's, whole and not rewritten: equal but for
    white space and Unicode form."""
    return spaced(sent_prompt(request)) == spaced(echo)


def repeats_prompt(request: ImageRequest) -> bool:
    """Return whether the model reports the prompt as it was sent. FLUX.2 and upsampling report a
    rewritten one, and other models are not documented."""
    upsampled = request.extra_body.get("prompt_upsampling", request.prompt_upsampling)
    return not upsampled and request.model.startswith(_REPEATING)


def sent_seed(request: ImageRequest) -> object:
    """Return the seed of the submission's body; `extra_body` takes precedence. None = none."""
    return request.extra_body.get("seed", request.seed)


@lru_cache(10_000)
def spaced(prompt: str) -> str:
    """Return a prompt with single spaces and in one Unicode form."""
    return " ".join(unicodedata.normalize("NFC", prompt).split())
