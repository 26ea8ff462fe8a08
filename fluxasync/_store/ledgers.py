"""Ledgers that keep nothing on disk: one forgets at once, one remembers while the process lives.

They stand where the journal stands, so that a session never asks whether it is being recorded.
The memory ledger serves simulations and tests; both pass the journal's contract tests.
"""

from __future__ import annotations

from decimal import Decimal

from .._core.arguments import check_methods
from .._core.errors import TransportError
from .._core.models import Failed, ImageRequest, InDoubt, Job, Outcome, Refused, Saved, Verdict


class NullLedger:
    """Remembers nothing: for one image, or a batch without a folder."""

    async def known(self, request: ImageRequest) -> None:
        """Return None: every request is new."""
        return None

    async def intent(self, request: ImageRequest, *, price: Decimal | None) -> None:
        """Forget it."""

    async def answered(self, request: ImageRequest, answer: Job | Refused) -> None:
        """Forget it."""

    async def settle(self, outcome: Outcome) -> None:
        """Forget it."""


def check_ledger(ledger: object) -> None:
    """Raise ConfigError for what is not a Ledger."""
    methods = ("known", "intent", "answered", "settle")
    check_methods("ledger", ledger, methods, expected="a Ledger")


class MemoryLedger:
    """Remembers outcomes, jobs and open intents by request key, for as long as it lives."""

    def __init__(self) -> None:
        self.intents: dict[str, ImageRequest] = {}  #: POSTs without an answer
        self.jobs: dict[str, Job] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._prices: dict[str, Decimal | None] = {}  #: of the intents
        self._owners: dict[str, str] = {}  #: job id → key of its request

    async def known(self, request: ImageRequest) -> Saved | Failed | InDoubt | Job | None:
        """Return the outcome, else the job, else the doubt that an intent without an answer is."""
        key = request.key
        found = self.outcomes.get(key) or self.jobs.get(key)
        if found is None and key in self.intents:
            lost = TransportError("the run ended before the answer came", sent=True)
            return InDoubt(
                request=request, error=lost, index=request.index, price=self._prices[key]
            )
        return found

    async def intent(self, request: ImageRequest, *, price: Decimal | None) -> None:
        """Note that a POST is about to start."""
        self.intents[request.key] = request
        self._prices[request.key] = price

    async def answered(self, request: ImageRequest, answer: Job | Refused) -> None:
        """Note the job, or take the intent back; an ambiguous answer leaves it open.

        Raises TransportError for a job id that another request has: the intent stays open then.
        """
        if isinstance(answer, Job):
            if self._owners.setdefault(answer.job_id, request.key) != request.key:
                said = f"the server gave the id of another job ({answer.job_id})"
                raise TransportError(said, sent=True)
            self.jobs[request.key] = answer
        elif answer.verdict is Verdict.AMBIGUOUS:
            return  # the intent stays: it may have been charged
        self.intents.pop(request.key, None)
        self._prices.pop(request.key, None)

    async def settle(self, outcome: Outcome) -> None:
        """Note the end; that of a row which was no request has nothing to be known by."""
        if outcome.request is not None:
            self.outcomes[outcome.request.key] = outcome
