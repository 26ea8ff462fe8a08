"""The record of charges: every paid job, and whether its image was delivered.

All tests about money compare with it. Charges are never dropped, unlike jobs. Keys are recorded as
a short digest. A charge takes about 0.5 KB of memory; with a log file, charges are written there
instead, one flushed JSON line each, and survive a kill.
"""

from __future__ import annotations

import json
from decimal import Decimal
from hashlib import blake2b, sha256
from pathlib import Path
from typing import IO

from attrs import define


@define(kw_only=True)
class Charge:
    """One paid job. `delivered` becomes true when its image has been sent completely."""

    job_id: str
    dialect: str  #: "comet" or "bfl"
    model: str
    prompt: str
    seed: int | None  #: from the request; None: chosen by the server
    body_digest: str  #: of the request's body: equal digests mean a request paid twice
    key_digest: str | None  #: start of the key's sha256; None: no key
    price_usd: Decimal
    at: float  #: seconds on the server's clock
    delivered: bool = False


def body_digest(body: bytes) -> str:
    """Return sixteen digits that identify a request body."""
    return blake2b(body, digest_size=8).hexdigest()


def key_digest(key: str | None) -> str | None:
    """Return twelve digits that identify a key without revealing it."""
    return None if key is None else sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]


class ChargeLog:
    """Charges in order, and their totals."""

    def __init__(self, log: Path | None = None) -> None:
        self.charges: list[Charge] = []  #: empty with a log file
        self.charged = 0
        self.delivered = 0
        self.spent_usd = Decimal(0)
        self._log: IO[str] | None = log.open("a", encoding="utf-8") if log else None

    def __repr__(self) -> str:
        return f"<ChargeLog {self.charged} charged, {self.delivered} delivered, ${self.spent_usd}>"

    def charge(self, charge: Charge) -> None:
        self.charged += 1
        self.spent_usd += charge.price_usd
        if self._log is None:
            self.charges.append(charge)
            return
        self._write(
            charged=charge.job_id, dialect=charge.dialect, model=charge.model,
            prompt=charge.prompt, seed=charge.seed, body_digest=charge.body_digest,
            key_digest=charge.key_digest, price_usd=str(charge.price_usd), at=charge.at,
        )  # fmt: skip

    def recall(self, charge: Charge) -> None:
        """Count a charge of an earlier simulator; the log file contains it already."""
        self.charged += 1
        self.spent_usd += charge.price_usd
        self.delivered += charge.delivered
        if self._log is None:
            self.charges.append(charge)

    def deliver(self, charge: Charge, *, at: float) -> None:
        """Record the first complete delivery of an image."""
        if charge.delivered:
            return
        charge.delivered = True
        self.delivered += 1
        if self._log is not None:
            self._write(delivered=charge.job_id, at=at)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def _write(self, **line: object) -> None:
        if self._log is None:  # pragma: no cover — cannot happen: callers have checked
            return
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()
