"""The account's balance at the start and the end of runs, for the bill."""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, cast

from attrs import frozen

from ..._core.amounts import GRAIN
from .checked_row import damaged, is_instant
from .steps import SampleStep

#: a balance may be below 0; amounts of images may not
_BALANCE = re.compile(r"-?[0-9]{1,16}(\.[0-9]{1,12})?")
_LARGEST = Decimal(10) ** 15

_INSERT = "INSERT INTO sample (at, event, provider, account, left, used) VALUES (?, ?, ?, ?, ?, ?)"
_SELECT = "SELECT id, at, event, provider, account, left, used FROM sample ORDER BY id"


@frozen(kw_only=True)
class BalanceSample:
    """What a provider said about an account at one time. Amounts are US dollars."""

    at: datetime  #: UTC, by this machine's clock
    event: Literal["start", "end"]  #: of a run
    provider: str
    account: str = ""  #: "" = the only one
    left: Decimal | None  #: None = not told, or no limit
    used: Decimal | None  #: spent so far, by all users of the account; None = not told


def sample_step(sample: BalanceSample) -> SampleStep:
    """Return the step that keeps a sample."""
    return SampleStep(
        at=sample.at.timestamp(),
        event=sample.event,
        provider=sample.provider,
        account=sample.account or None,
        left=_text(sample.left),
        used=_text(sample.used),
    )


def record(connection: sqlite3.Connection, step: SampleStep) -> None:
    """Keep a sample."""
    values = (step.at, step.event, step.provider, step.account, step.left, step.used)
    connection.execute(_INSERT, values)


def samples(connection: sqlite3.Connection) -> list[BalanceSample]:
    """Return all samples, oldest first; none of a journal of version 1. Raises JournalError for
    invalid values."""
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'sample'"
    if not connection.execute(query).fetchone()[0]:
        return []
    return [_sample(*row) for row in connection.execute(_SELECT)]


def _sample(
    row: object, at: object, event: object, provider: object, account: object, *amounts: object
) -> BalanceSample:
    if not is_instant(at):
        raise damaged("at", at, row)
    if event not in ("start", "end"):
        raise damaged("event", event, row)
    for column, value in (("provider", provider), ("account", account or "")):
        if not isinstance(value, str):
            raise damaged(column, value, row)
    for column, value in zip(("left", "used"), amounts, strict=True):
        if value is not None and not (isinstance(value, str) and _BALANCE.fullmatch(value)):
            raise damaged(column, value, row)
    left, used = (None if value is None else Decimal(str(value)) for value in amounts)
    return BalanceSample(
        at=datetime.fromtimestamp(cast("float", at), UTC),
        event=event,
        provider=str(provider),
        account=str(account or ""),
        left=left,
        used=used,
    )


def _text(amount: Decimal | None) -> str | None:
    if amount is None or not amount.is_finite():
        return None
    return f"{min(max(amount, -_LARGEST), _LARGEST).quantize(GRAIN):f}"
