"""The check of a batch's prompts: counted, priced and judged before anything is spent."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._core.errors import ConfigError, cut
from .._core.events import RowsChecked
from .._core.models import ImageRequest
from .._requests.sources import open_source
from .._requests.sources.plan import SHOWN_NAMES, Plan, metadata_message
from .._requests.sources.prompts import Prompts
from .._store.filenames import FIELDS

if TYPE_CHECKING:
    from .._core.observers import Observers
    from .._engine.batch_engine import BatchEngine
    from .._requests.estimate import Estimate
    from .._store.journal.journal import Journal
    from .._store.journal.totals import JournalCounts
    from .output import Destination


_KEEP_MODEL = "--map extras.model=model"
_ROWS_MODEL = f". The rows name it; to keep the name as metadata and use --model: {_KEEP_MODEL}"

logger = logging.getLogger("fluxasync")


def prompts_of(given: Any) -> Prompts:
    """Return a bare path or iterable as Prompts."""
    return given if isinstance(given, Prompts) else Prompts(given)


class Preflight:
    """Owns a batch's source and counts it once; `plan` is None before that."""

    def __init__(
        self,
        engine: BatchEngine,
        prompts: Prompts,
        destination: Destination,
        *,
        observers: Observers,
    ) -> None:
        self._has_warned = False
        self._engine = engine
        self._prompts = prompts
        self._destination = destination
        self._observers = observers
        engine.check_webhook()
        is_local = all(
            provider.is_loopback or provider.is_in_private_network
            for provider in engine.providers.values()
        )
        self.source = open_source(
            prompts,
            is_local=is_local,
            prices=engine.prices,
            in_names=destination.name_columns,
            of_every_image=FIELDS,
            name_of=destination.shared_name_of,
        )
        self.plan: Plan | None = None
        self.recovered: JournalCounts | None = None  #: of the folder, as the check found it

    async def check(
        self, progress: Callable[[int], None] | None = None, *, journal: Journal | None = None
    ) -> Plan:
        """Count the source and judge the plan. `journal` is the batch's own, once it is open."""
        if self.plan is None:
            if journal is None:
                await self._recall()
                with self._destination.lookup() as lookup:
                    self.plan = await self._count(progress, lookup)
            else:
                self.plan = await self._count(progress, journal.lookup())
        self._judge(self.plan)
        return self.plan

    async def _count(self, progress: Callable[[int], None] | None, lookup: Any) -> Plan:
        return await self.source.check(progress=progress or self._show_rows, lookup=lookup)

    def _show_rows(self, count: int) -> None:
        self._observers.show(RowsChecked(count=count))

    async def _recall(self) -> None:
        """Read what earlier runs left, and count their spending against the budget."""
        await self._destination.refresh()
        self.recovered = await self._destination.recovered(self._engine.providers)
        if self.recovered is not None:
            self.restore_spending(self.recovered)

    def restore_spending(self, left: JournalCounts) -> None:
        """Count what earlier runs in the folder spent against the session's budget, once."""
        assert self._destination.folder is not None  # noqa: S101 — only a folder has counts
        self._engine.restore_spending(
            str(self._destination.folder.resolve()),
            spent=left.spent + left.possible_cost,
            in_doubt=left.in_doubt_price,
        )

    async def restore_accounts(self, journal: Journal) -> None:
        """Count what earlier runs spent in each of several accounts against its own budget."""
        engines = {engine.name: engine for engine in self._engine.engines if engine.name}
        for name, left in (await journal.decisions.by_account() if engines else {}).items():
            if name in engines:
                engines[name].restore_spending(
                    str(journal.folder.resolve()), spent=left.charged, in_doubt=left.in_doubt_price
                )

    def _judge(self, plan: Plan) -> None:
        """Raise ConfigError for a model or a price that the run could not use."""
        if self._prompts.limit is None and self._prompts.sample is None:
            self._refuse_unused_model(plan)
        for name in (*self._models, *plan.unknown_models):
            is_of_rows = name not in self._models
            self._engine.check_model(name, advice=_ROWS_MODEL * is_of_rows)
        if plan.unknown_keys and not self._has_warned:
            self._has_warned = True
            logger.warning("%s", metadata_message(plan.unknown_keys))
        self._refuse_unused_prices(plan)
        # an empty list that the user named is a mistake; a program's own list may be empty
        source = self._prompts.source
        if not plan.rows and isinstance(source, str | os.PathLike) and plan.images is not None:
            raise ConfigError(
                f"{str(source)[:80]} holds no prompts, so there is nothing to do: check it"
            )
        if (estimate := self.estimate) is not None:
            self._engine.check_prices(estimate)

    def _refuse_unused_prices(self, plan: Plan) -> None:
        """Raise ConfigError for a price of a model that no row names: it has no effect."""
        if not plan.models or len(plan.models) == SHOWN_NAMES:
            return
        for model in self._engine.prices.unused(plan.models):
            named = ", ".join(plan.models[:3])
            raise ConfigError(f"price of {model[:60]}: no row uses this model (models: {named})")

    @property
    def _models(self) -> tuple[str, ...]:
        prompts = self._prompts
        return (prompts.model,) if prompts.model else tuple(prompts.models or ())

    def _refuse_unused_model(self, plan: Plan) -> None:
        """Raise ConfigError for a `model` that no row uses, because each row names another."""
        for model in self._models:
            if plan.models and model != ImageRequest().model and model not in plan.models:
                named = ", ".join(plan.models[:3])
                raise ConfigError(
                    f"model={cut(model)}: no row uses it, because each row names its own "
                    f"({named}). Leave it out, or keep the models of the rows as metadata: "
                    f"{_KEEP_MODEL}"
                )

    @property
    def estimate(self) -> Estimate | None:
        """Cost and duration of the whole source; None before the check, and for a stream."""
        if self.plan is None or self.plan.images is None:
            return None
        return self.plan.estimator.estimate(self._engine.slots)
