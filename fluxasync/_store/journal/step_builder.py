"""Requests, answers and outcomes → the steps that record them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from decimal import Decimal

from ..._core.amounts import amount_text
from ..._core.attempts import Attempt
from ..._core.errors import ConfigError
from ..._core.models import (
    Failed,
    ImageRequest,
    InDoubt,
    Job,
    Outcome,
    Refused,
    Saved,
    Stored,
    Verdict,
)
from ..output_root import OutputRoot
from .serialization import (
    amount,
    evidence,
    failed_values,
    message,
    request_text,
    saved_values,
    storable,
)
from .steps import (
    AcceptedStep,
    DoneStep,
    DoubtStep,
    FailedStep,
    IntentStep,
    RefusedStep,
    RequestColumns,
    Step,
)

#: requests whose columns are cached between their steps: many more than are ever in flight
_CACHED = 4_096


class StepBuilder:
    """Builds the steps of one journal.

    `stem_of` returns the path of a request's file without its extension; `cap` is in US dollars.
    `accounts` has provider and origin of each of several accounts.
    """

    def __init__(
        self,
        root: OutputRoot,
        *,
        place: tuple[str, str],
        accounts: Mapping[str, tuple[str, str]],
        stem_of: Callable[[ImageRequest], str] | None,
        cap: Decimal | None,
    ) -> None:
        self._root = root
        self._place, self._accounts = place, accounts
        self._stem_of = stem_of
        self._cap = None if cap is None else str(cap)
        self._keys: dict[int, tuple[ImageRequest, bytes]] = {}
        self._columns: dict[int, RequestColumns] = {}  # by the same ids

    def key(self, request: ImageRequest) -> bytes:
        """Return a request's key; cached, because it is a digest."""
        cached = self._keys.get(id(request))
        if cached is not None and cached[0] is request:
            return cached[1]
        key = bytes.fromhex(request.key)
        if len(self._keys) >= _CACHED:
            oldest = next(iter(self._keys))
            del self._keys[oldest]
            self._columns.pop(oldest, None)
        self._keys[id(request)] = request, key
        self._columns.pop(id(request), None)  # of a request that had this id before
        return key

    def intent(self, request: ImageRequest, price: Decimal | None, attempt: Attempt) -> IntentStep:
        provider, origin = self._accounts.get(attempt.account, self._place)
        return IntentStep(
            at=time.time(),
            request=self._request(request),
            provider=provider,
            origin=origin,
            price=amount_text(price),
            token=bytes.fromhex(attempt.token),
            owner=attempt.owner or None,
            account=attempt.account or None,
            cap=self._cap,
        )

    def answer(
        self, request: ImageRequest, answer: Job | Refused, attempt: Attempt | None
    ) -> AcceptedStep | RefusedStep:
        token = None if attempt is None else bytes.fromhex(attempt.token)
        if isinstance(answer, Refused):
            return RefusedStep(
                at=time.time(),
                key=self.key(request),
                token=token,
                is_ambiguous=answer.verdict is Verdict.AMBIGUOUS,
                message=message(answer.error),
                evidence=evidence(answer.error),
            )
        return AcceptedStep(
            at=time.time(),
            request=self._request(request),
            token=token,
            job_id=answer.job_id,
            polling_url=answer.polling_url and storable(answer.polling_url),
            submitted_at=answer.submitted_at.timestamp(),
            price=amount_text(answer.price),
            cost=amount_text(answer.cost),
            money=amount(answer),
            stem=None if self._stem_of is None else storable(self._stem_of(request)),
        )

    def outcome(self, outcome: Outcome) -> Step:
        """Return the step of an outcome, which is the last one of its request."""
        at = time.time()
        match outcome:
            case Saved(job=job):
                return DoneStep(
                    at=at,
                    request=self._last(outcome.request or job.request),
                    job_id=job.job_id,
                    money=amount(job),
                    columns=saved_values(outcome, self._name(outcome.stored)),
                )
            case Failed(job=job):
                return FailedStep(
                    at=at,
                    request=self._last(outcome.request),
                    job_id=None if job is None else job.job_id,
                    cost=None if job is None else amount_text(job.cost),
                    columns=failed_values(outcome, self._root.folder),
                )
            case InDoubt(error=error):
                return DoubtStep(
                    at=at,
                    request=self._last(outcome.request),
                    message=message(error),
                    evidence=evidence(error),
                )

    def _request(self, request: ImageRequest) -> RequestColumns:
        """Return a request's columns. Raises ConfigError for one that cannot be recorded."""
        key = self.key(request)
        columns = self._columns.get(id(request))
        if columns is None:
            columns = self._columns[id(request)] = RequestColumns(
                key=key,
                index=request.index,
                occurrence=request.occurrence,
                model=request.model,
                text=request_text(request),
            )
        return columns

    def _last(self, request: ImageRequest | None) -> RequestColumns | None:
        """Return the columns of a request and forget it; None for one that cannot be recorded,
        which was never sent."""
        if request is None:
            return None
        try:
            return self._request(request)
        except ConfigError:
            return None
        finally:
            self._keys.pop(id(request), None)
            self._columns.pop(id(request), None)

    def _name(self, stored: Stored) -> str | None:
        name = self._root.name_of(stored)
        return None if name is None else storable(name)
