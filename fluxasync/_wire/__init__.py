"""The vendors' HTTP: requests become Calls; replies become a Job, a poll result, or a refusal.

This package alone knows the vendors' words. `encoding` writes calls. `decoding` reads the answer of
a POST, `poll_result` that of a poll, `balance` the balance. `classification` decides what may have
been charged and what may be sent again. `reply`, `status_words`, `times` and `messages` read parts
of an answer; `redaction` hides secrets in it. Sources: the BFL docs, its OpenAPI file of
2026-04-23, and the CometAPI docs.
"""

from __future__ import annotations

from .balance import decode_credits
from .classification import Phase, classify
from .decoding import decode_submit, in_doubt, suspicion
from .encoding import encode_credits, encode_poll, encode_submit
from .messages import MESSAGE_LENGTH, vendor_message
from .poll_result import Inconclusive, JobNotFound, OfAnotherPrompt, PollResult, decode_poll
from .redaction import Redaction
from .reply import read_object
from .status_words import is_known, is_queued
from .times import LONGEST_WAIT, URL_LIFETIME, retry_after

__all__ = [
    "LONGEST_WAIT",
    "MESSAGE_LENGTH",
    "URL_LIFETIME",
    "Inconclusive",
    "JobNotFound",
    "OfAnotherPrompt",
    "Phase",
    "PollResult",
    "Redaction",
    "classify",
    "decode_credits",
    "decode_poll",
    "decode_submit",
    "encode_credits",
    "encode_poll",
    "encode_submit",
    "in_doubt",
    "is_known",
    "is_queued",
    "read_object",
    "retry_after",
    "suspicion",
    "vendor_message",
]
