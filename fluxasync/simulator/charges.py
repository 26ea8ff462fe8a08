"""The practice server's books: what was charged to whom, and whether the image was handed over.

The oracle of every money test, so it stands apart from the jobs, which are forgotten in time while
a charge never is. Keys enter as a short digest only. A million charges fit in memory (about 0.5 KB
each); with a log file they are written instead, one flushed JSON line each, and survive a kill.
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
    """One paid job. `delivered` turns true when its image has been sent whole."""

    job_id: str
    dialect: str  #: "comet" or "bfl"
    model: str
    prompt: str
    seed: int | None  #: as asked for; None = the server drew one
    body_digest: str  #: of the request's body: equal digests are one wish, paid twice
    key_digest: str | None  #: start of the key's sha256; None = no key came
    price_usd: Decimal
    at: float  #: the server's clock
    delivered: bool = False


def body_digest(body: bytes) -> str:
    """Sixteen digits that tell request bodies apart."""
    return blake2b(body, digest_size=8).hexdigest()


def key_digest(key: str | None) -> str | None:
    """Twelve digits that tell keys apart and give none away."""
    return None if key is None else sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]


class ChargeLog:
    """Charges in the order they were made; totals in any case."""

    def __init__(self, log: Path | None = None) -> None:
        self.charges: list[Charge] = []  #: empty when a log is written
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
        """Count a charge of an earlier simulator; the log has it already."""
        self.charged += 1
        self.spent_usd += charge.price_usd
        self.delivered += charge.delivered
        if self._log is None:
            self.charges.append(charge)

    def deliver(self, charge: Charge, *, at: float) -> None:
        """Note that the image went out whole; once, however often it is fetched."""
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
