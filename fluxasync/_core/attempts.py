"""Attempt: one submission of an image, as ledgers and webhooks tell it from every other one."""

from __future__ import annotations

import os

from attrs import field, frozen

#: bytes of a token: nobody guesses it, and no two are equal
TOKEN_BYTES = 16
#: tokens whose bits are asked of the system at once: each question hands the interpreter to
#: another thread
_AT_ONCE = 256

_tokens: list[str] = []
if hasattr(os, "register_at_fork"):  # or two processes would have the same
    os.register_at_fork(after_in_child=_tokens.clear)


def new_token() -> str:
    """Return 128 random bits in hexadecimal digits."""
    if not _tokens:
        bits, size = os.urandom(TOKEN_BYTES * _AT_ONCE).hex(), 2 * TOKEN_BYTES
        _tokens.extend(bits[start : start + size] for start in range(0, len(bits), size))
    return _tokens.pop()


@frozen(kw_only=True)
class Attempt:
    """One submission of one image. An image that is submitted again has another token."""

    #: 128 random bits in hexadecimal digits; a webhook's address has it, so the repr leaves it out
    token: str = field(factory=new_token, repr=False)
    owner: str = ""  #: the session that makes the submission
    account: str = ""  #: name of the account that is charged; "" = the only one
