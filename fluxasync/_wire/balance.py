"""What an answer says of money: the cost that is echoed with a job, and the account's balance.

Only read: what an image ought to cost is the catalogue's to say, and what may have been charged
is `classification`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from .._core.errors import AuthenticationError, TransportError
from .._core.models import Reply
from .messages import vendor_message
from .providers import Provider
from .redaction import NOTHING, Redaction
from .reply import number_of, read_object


def decode_credits(reply: Reply, hide: Redaction = NOTHING) -> Decimal:
    """Return the balance in the provider's credits. Raises AuthenticationError, or TransportError
    for an answer that tells none."""
    answer = read_object(reply.body)
    credits = None if answer is None else number_of(answer.get("credits"))
    if reply.status == 200 and credits is not None:
        return round(Decimal(repr(credits)), 6)
    message = vendor_message(reply, answer, hide)
    if reply.status in {401, 403}:
        raise AuthenticationError(f"the key was refused: {message}", status=reply.status)
    raise TransportError(f"HTTP {reply.status} and no balance: {message}", sent=True)


def echoed_cost(answer: Mapping[str, Any], provider: Provider) -> Decimal | None:
    """US dollars; echoes come as null, 3.0 or 7.000000000000001 credits."""
    number = number_of(answer.get("cost"))
    if number is None or number < 0 or provider.credit is None:
        return None
    try:
        return round(Decimal(repr(number)) * provider.credit, 6)
    except InvalidOperation:
        return None
