"""Attempt: one submission of an image, as ledgers and webhooks tell it from every other one."""

from __future__ import annotations

import secrets

from attrs import field, frozen

#: bytes of a token: nobody guesses it, and no two are equal
TOKEN_BYTES = 16


def new_token() -> str:
    """Return 128 random bits in hexadecimal digits."""
    return secrets.token_hex(TOKEN_BYTES)


@frozen(kw_only=True)
class Attempt:
    """One submission of one image. An image that is submitted again has another token."""

    #: 128 random bits in hexadecimal digits; a webhook's address has it, so the repr leaves it out
    token: str = field(factory=new_token, repr=False)
    owner: str = ""  #: the session that makes the submission
    account: str = ""  #: name of the account that is charged; "" = the only one
