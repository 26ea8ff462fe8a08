"""The vendors' HTTP: requests become Calls; replies become a Job, a poll result, or a refusal.

No other package contains the vendors' words. `encoding` writes calls and `decoding` reads their
answers. `classification` decides what may have been charged and what may be sent again. `reply`
reads the parts of an answer; `redaction` removes secrets from it. Sources: the BFL docs, its
OpenAPI file of 2026-04-23, and the CometAPI docs.
"""

from __future__ import annotations

from .classification import Phase, classify
from .decoding import (
    Inconclusive,
    JobNotFound,
    PollResult,
    decode_poll,
    decode_submit,
    in_doubt,
    suspicion,
)
from .encoding import encode_poll, encode_submit
from .prompt_echo import (
    canonical,
    is_echo_of,
    is_whole_echo_of,
    repeats_prompt,
    sent_prompt,
    sent_seed,
    spaced,
)
from .redaction import Redaction
from .reply import (
    LONGEST_WAIT,
    MESSAGE_LENGTH,
    is_known,
    is_queued,
    retry_after,
    vendor_message,
)
from .url_expiry import URL_LIFETIME

__all__ = [
    "LONGEST_WAIT",
    "MESSAGE_LENGTH",
    "URL_LIFETIME",
    "Inconclusive",
    "JobNotFound",
    "Phase",
    "PollResult",
    "Redaction",
    "canonical",
    "classify",
    "decode_poll",
    "decode_submit",
    "encode_poll",
    "encode_submit",
    "in_doubt",
    "is_echo_of",
    "is_known",
    "is_queued",
    "is_whole_echo_of",
    "repeats_prompt",
    "retry_after",
    "sent_prompt",
    "sent_seed",
    "spaced",
    "suspicion",
    "vendor_message",
]
