"""Ledgers without a file: NullLedger keeps nothing, MemoryLedger remembers while the process lives.

A session always has a ledger. MemoryLedger serves simulations and tests; it passes the journal's
contract tests.
"""

from __future__ import annotations

from decimal import Decimal

from .._core.arguments import check_methods
from .._core.attempts import Attempt
from .._core.errors import TransportError
from .._core.models import Failed, ImageRequest, InDoubt, Job, Outcome, Refused, Saved, Verdict


class NullLedger:
    """Records nothing: for one image, or a batch without a folder."""

    async def known(self, request: ImageRequest) -> None:
        """Return None: every request is new."""
        return None

    async def intent(
        self, request: ImageRequest, *, price: Decimal | None, attempt: Attempt | None = None
    ) -> None:
        """Do nothing."""

    async def answered(
        self, request: ImageRequest, answer: Job | Refused, *, attempt: Attempt | None = None
    ) -> None:
        """Do nothing."""

    async def settle(self, outcome: Outcome) -> None:
        """Do nothing."""


def check_ledger(ledger: object) -> None:
    """Raise ConfigError unless the value is a Ledger."""
    methods = ("known", "intent", "answered", "settle")
    check_methods("ledger", ledger, methods, expected="a Ledger")


class MemoryLedger:
    """Keeps outcomes, jobs and open intents in memory, by request key."""

    def __init__(self) -> None:
        self.intents: dict[str, ImageRequest] = {}  #: submissions without an answer
        self.jobs: dict[str, Job] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._prices: dict[str, Decimal | None] = {}  #: prices of the intents
        self._owners: dict[str, str] = {}  #: job id → key of its request

    async def known(self, request: ImageRequest) -> Saved | Failed | InDoubt | Job | None:
        """Return the outcome, or the job, or InDoubt for an intent without an answer."""
        key = request.key
        found = self.outcomes.get(key) or self.jobs.get(key)
        if found is None and key in self.intents:
            lost = TransportError("the run ended before the answer came", sent=True)
            return InDoubt(
                request=request, error=lost, index=request.index, price=self._prices[key]
            )
        return found

    async def intent(
        self, request: ImageRequest, *, price: Decimal | None, attempt: Attempt | None = None
    ) -> None:
        """Record that a POST is about to start."""
        self.intents[request.key] = request
        self._prices[request.key] = price

    async def answered(
        self, request: ImageRequest, answer: Job | Refused, *, attempt: Attempt | None = None
    ) -> None:
        """Record the job, or take the intent back; after an ambiguous answer it stays open.

        Raises TransportError for the job id of another request; the intent then stays open.
        """
        if isinstance(answer, Job):
            if self._owners.setdefault(answer.job_id, request.key) != request.key:
                text = f"the server gave the id of another job ({answer.job_id})"
                raise TransportError(text, sent=True)
            self.jobs[request.key] = answer
        elif answer.verdict is Verdict.AMBIGUOUS:
            return  # it may have been charged
        self.intents.pop(request.key, None)
        self._prices.pop(request.key, None)

    async def settle(self, outcome: Outcome) -> None:
        """Record the outcome; an invalid row has no request, and no key to record it under."""
        if outcome.request is not None:
            self.outcomes[outcome.request.key] = outcome
