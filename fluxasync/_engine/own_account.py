"""What a batch asks about one account: its limits, its money, its circuit breaker."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import evolve

from .._core.prices import ALL
from .._requests.catalog import find
from .._wire.providers import PROVIDERS
from .circuit_breaker import CircuitBreaker

if TYPE_CHECKING:
    from .._core.config import Policies
    from .._core.models import ImageRequest, Job
    from .._core.observers import Observers
    from .._core.prices import Prices
    from .._requests.estimate import Estimate
    from .._wire.providers import Provider
    from .budget import SpendingAccount
    from .engine import Engine
    from .limiter import Limiter
    from .submitter import Submitter
    from .webhook_inbox import WebhookInbox


class OwnAccount:
    """The part of an engine that is about its account, not about an image."""

    name: str  #: in a pool of several accounts; "" = it is alone
    policies: Policies
    observers: Observers
    limiter: Limiter
    submitter: Submitter
    inbox: WebhookInbox
    restored: set[str]  #: ledgers whose spending is counted

    @property
    @abstractmethod
    def provider(self) -> Provider:
        """The provider of the models."""

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engine of each account: this one."""
        return (self,)  # type: ignore[return-value]  # an Engine is the only subclass

    @property
    def providers(self) -> Mapping[str, Provider]:
        """The provider of each account, by its name."""
        return {self.name: self.provider}

    @property
    def prices(self) -> Prices:
        """The user's own prices."""
        return self.submitter.prices

    def has_model(self, model: str) -> bool:
        """Whether the provider has a model, as far as the catalogue knows."""
        known, name = find(model), self.provider.name
        return known is None or name not in PROVIDERS or name in known.providers

    def price_of(self, request: ImageRequest) -> Decimal | None:
        """Return the price of a request in this account, in US dollars; None = unknown."""
        return self.submitter.share.price(request, self.prices)

    @property
    def slots(self) -> int:
        """Jobs that may be in flight now."""
        return self.limiter.slots

    @property
    def assigned_slots(self) -> int | None:
        """The slots that the user gave; None = found out."""
        found = self.policies.limits.in_flight
        return None if found == "auto" else found

    @property
    def places(self) -> int:
        """Images that may be under way: jobs in flight, and downloads."""
        return self.limiter.slots + self.policies.limits.downloads

    @property
    def max_image_bytes(self) -> int:
        return self.policies.limits.max_image_bytes

    def check_webhook(self) -> None:
        """Raise ConfigError if the provider cannot call the webhook."""
        self.inbox.check(self.provider)

    # --- money ----------------------------------------------------------------------------------

    @property
    def spending(self) -> SpendingAccount:
        """What this session spends, and its cap."""
        return self.submitter.spending

    @property
    def max_cost(self) -> Decimal | None:
        """The cap in US dollars; None = no cap."""
        return self.submitter.spending.cap

    @property
    def budget_left(self) -> Decimal | None:
        """US dollars of the budget that are not spent, reserved or in doubt; None = no budget."""
        return self.submitter.spending.left

    def restore_spending(self, ledger: str, *, spent: Decimal, in_doubt: Decimal) -> None:
        """Count what earlier runs spent, in US dollars, against the budget. Does so once for each
        ledger, because this session counts its own spending as it goes."""
        if ledger not in self.restored:
            self.restored.add(ledger)
            self.submitter.spending.restore(spent=spent, in_doubt=in_doubt)

    def recall_job(self, job: Job) -> None:
        """Note that `restore_spending` counted the charge of a job of an earlier run."""
        self.submitter.spending.recall(job.job_id, job.charge)

    def adopt_job(self, job: Job) -> None:
        """Count a submission in doubt as spent, because it became this job."""
        self.submitter.spending.adopt(job.job_id, job.charge)

    def check_prices(self, estimate: Estimate) -> None:
        """Raise ConfigError for images of unknown price under a cost cap, before any is made."""
        if estimate.unpriced:
            self.submitter.spending.can_reserve(None)

    def part_of(self, estimate: Estimate, share: float) -> Estimate:
        """Return a part of an estimate at the list's prices, at this account's prices."""
        images = round(estimate.images * share)
        cost = estimate.cost * images / estimate.images if estimate.images else estimate.cost
        own = self.prices.by_model.get(ALL)
        if isinstance(own, Decimal):
            cost = own * images
        elif self.submitter.share.factor is not None:
            cost *= self.submitter.share.factor
        unpriced = 0 if isinstance(own, Decimal) else round(estimate.unpriced * share)
        return evolve(estimate, images=images, cost=cost, unpriced=unpriced, in_flight=self.slots)

    def payable_share(self, estimate: Estimate) -> float:
        """Return the part of an estimate, 0 to 1, that this account's own budget pays for."""
        spending, cost = self.submitter.spending, self.part_of(estimate, 1).cost
        if spending.max_cost is None or not cost:
            return 1.0
        left = max(Decimal(0), spending.max_cost - spending.spent - spending.in_doubt)
        return min(estimate.images, int(left * estimate.images / cost)) / estimate.images

    # --- the breaker ----------------------------------------------------------------------------

    def new_breaker(self) -> CircuitBreaker:
        """Return a new circuit breaker that trips with the session's own."""
        return CircuitBreaker(self.submitter.breaker)
