"""The wire dialect: a request becomes a Call; evidence becomes a Job, news of it, or a refusal.

All wire strings of the client live here and in `_providers`. Everything is a pure function over
values: nothing here sends, waits or remembers. `_calls` is what is asked; `_jobs` reads the answer
of a POST, `_news` that of a poll, `_credits` the balance; `_verdicts` says what may have been
charged and what may be sent again. Below them are the parts of an answer: `_body`, `_words`,
`_times`, `_messages`. Statuses and bodies are those of the BFL docs, its openapi of 2026-04-23 and
the CometAPI docs.
"""

from __future__ import annotations

from ._body import read_object
from ._calls import encode_credits, encode_poll, encode_submit
from ._credits import decode_credits
from ._jobs import decode_submit, in_doubt, suspicion
from ._messages import MESSAGE_LENGTH, vendor_message
from ._news import Missing, News, OfAnotherPrompt, Unclear, decode_poll
from ._redaction import Redaction
from ._times import LONGEST_WAIT, URL_LIFETIME, retry_after
from ._verdicts import Phase, classify
from ._words import is_known, is_queued

__all__ = [
    "LONGEST_WAIT",
    "MESSAGE_LENGTH",
    "URL_LIFETIME",
    "Missing",
    "News",
    "OfAnotherPrompt",
    "Phase",
    "Redaction",
    "Unclear",
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
