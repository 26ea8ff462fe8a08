"""AccountReader: what the provider says about the account of a session. Every call is free."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Generic, Literal, NoReturn, TypeVar

from attrs import define, evolve, field

from .._core.account import Balance, TaskList, UsageLog
from .._core.arguments import check_type
from .._core.backoff import retry_delay
from .._core.config import Retry, Timeouts
from .._core.errors import (
    ConfigError,
    RateLimited,
    TransportError,
)
from .._core.models import Secret
from .._core.protocols import Call, Reply
from .._wire import account_calls as wire
from .._wire.credentials import Credentials, access_token, needed_token
from .._wire.providers import Provider
from .._wire.redaction import Redaction

#: tries of one call; it is free, and a list is useless without one of its pages
TRIES = 4
#: seconds; a longer Retry-After ends the call
LONGEST_WAIT = 30.0
#: pages that one call reads, 100,000 rows; the rest is left out and the result says so
MOST_PAGES = 1_000
#: times that a list is read from its start, because its pages changed meanwhile
PASSES = 3

_Answer = TypeVar("_Answer")
_Value = TypeVar("_Value")
#: makes a value of a row: `task_of` or `entry_of`
_Reader = Callable[[Mapping[str, Any], Provider, Redaction], tuple[str, _Value] | None]


class AccountReader:
    """What the provider says about the account: `balance`, `tasks` and `usage`. All calls are free.

    `FluxSession.account` returns it. The two lists need the access token of the account:
    COMETAPI_ACCESS_TOKEN, or `FluxSession(api_key=Credentials(access_token=…))`. BFL has the
    balance only. A call that the provider lacks raises ConfigError. Each call raises
    AuthenticationError for a refused key or token, APIError where the provider refuses to answer,
    and RateLimited and TransportError after four tries.
    """

    def __init__(
        self,
        send: Callable[[Call], Awaitable[Reply]],
        provider: Provider,
        credentials: Credentials,
        *,
        retry: Retry,
        timeouts: Timeouts,
        reads_variable: bool = True,
    ) -> None:
        self._reads_variable = reads_variable
        self._send = send
        self._provider = provider
        self._key = credentials.api_key
        self._given_token = credentials.access_token
        self._retry = retry
        self._timeout = timeouts.poll

    def __repr__(self) -> str:
        return f"<AccountReader at {self._provider.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an AccountReader is not pickled or copied: take it from an open FluxSession"
        )

    async def balance(self) -> Balance:
        """Return what can still be spent, in US dollars.

        BFL: GET /v1/credits. CometAPI: the limit and the use of the key (`/v1/dashboard/billing/…`)
        and, with an access token, the balance of the account (`/api/user/self`); the smaller one
        counts (cometapi-cli 0.3.10).
        """
        credits, unit = await self.credits(), self._provider.credit
        if credits is not None and unit is not None:
            return Balance(left=credits * unit, used=None)
        self._token()  # an invalid one is an error, not a missing balance
        found = []
        for ask in (self._key_balance, self._account_balance):
            with suppress(ConfigError):  # a gateway may have one of the addresses only
                if (balance := await ask()) is not None:
                    found.append(balance)
        if not found:
            raise wire.lacking(self._provider, "balance")
        known = [balance for balance in found if balance.left is not None]
        return min(known, key=lambda each: each.left or Decimal(0)) if known else found[0]

    async def credits(self) -> Decimal | None:
        """Return the balance in the provider's credits (BFL: US$0.01 each); None where the provider
        does not report it so."""
        asked = wire.encode_credits(self._provider, self._key, timeout=self._timeout)
        return None if asked is None else await self._ask(asked, wire.decode_credits)

    @property
    def has_tasks(self) -> bool:
        """Whether `tasks` can be asked: the provider has the list, and there is an access token.
        Raises ConfigError for an invalid token."""
        return self.has_list and self._token() is not None

    @property
    def has_list(self) -> bool:
        """Whether the provider has a list of tasks."""
        return self._provider.tasks_path is not None

    @property
    def has_log(self) -> bool:
        """Whether the provider has a usage log."""
        return self._provider.usage_path is not None

    def check_tasks(self) -> None:
        """Raise the ConfigError that `tasks` would raise, and ask nothing."""
        check_list_of_tasks(self._provider, self._given_token, self._environ)

    async def tasks(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        model: str | None = None,
    ) -> TaskList:
        """Return the tasks of the account that were submitted in a time, each once.

        `since` and `until` have a time zone; the provider's clock counts, in whole seconds. A task
        whose model is not given is listed for each `model`. A task may be listed late, so
        `is_complete` says only that all pages were read (`/api/task/self`, cometapi-cli 0.3.10 and
        QuantumNous/new-api).
        """
        if model is not None:
            check_type("model", model, str, expected="the name of a model")
        listing = self._listing("list of tasks", since, until)
        tasks, is_complete = await self._read(listing, wire.task_of)
        each = {task.job_id: task for task in reversed(tasks)}  # of two, the newer row counts
        found = [
            task
            for task in reversed(each.values())
            if model is None or wire.is_of_model(task, model)
        ]
        return TaskList(tasks=tuple(found), is_complete=is_complete)

    async def usage(
        self, *, since: datetime | None = None, until: datetime | None = None
    ) -> UsageLog:
        """Return the entries of the account's usage log in a time: charges, refunds, errors.

        `since` and `until` have a time zone; the provider's clock counts, in whole seconds
        (`/api/log/self`, cometapi-cli 0.3.10 and QuantumNous/new-api).
        """
        listing = self._listing("usage log", since, until)
        entries, is_complete = await self._read(listing, wire.entry_of)
        return UsageLog(entries=tuple(entries), is_complete=is_complete)

    @property
    def _environ(self) -> Mapping[str, str]:
        return os.environ if self._reads_variable else {}

    # ----------------------------------------------------------------------- balance of two kinds

    async def _key_balance(self) -> Balance | None:
        asked = wire.encode_billing(self._provider, self._key, timeout=self._timeout)
        if asked is None:
            return None
        limit = await self._ask(asked[0], partial(_field, "hard_limit_usd"))
        return wire.key_balance(limit, await self._ask(asked[1], partial(_field, "total_usage")))

    async def _account_balance(self) -> Balance | None:
        token = self._token()
        if token is None:
            return None
        asked = wire.encode_user(self._provider, token, timeout=self._timeout)
        return None if asked is None else await self._ask(asked, wire.decode_user)

    # --------------------------------------------------------------------------------- the lists

    def _token(self) -> Secret | None:
        return access_token(self._provider, self._given_token, environ=self._environ)

    def _listing(
        self,
        what: Literal["list of tasks", "usage log"],
        since: datetime | None,
        until: datetime | None,
    ) -> wire.Listing:
        """Check the question before anything is sent."""
        for name, value in (("since", since), ("until", until)):
            _check_time(name, value)
        if since is not None and until is not None and since >= until:
            raise ConfigError(f"since={since} is not before until={until}")
        provider = self._provider
        path = provider.tasks_path if what == "list of tasks" else provider.usage_path
        if path is None:
            raise wire.lacking(provider, what)
        token = needed_token(provider, self._given_token, what, environ=self._environ)
        return wire.Listing(
            what=what, provider=provider, path=path, token=token, since=since, until=until,
            timeout=self._timeout,
        )  # fmt: skip

    async def _read(
        self, listing: wire.Listing, read: _Reader[_Value]
    ) -> tuple[list[_Value], bool]:
        """Read all pages; return the values, and whether they are complete.

        While pages are read, new rows move the others to later pages. So a list that changed is
        read again, and its values are merged.
        """
        is_unique = listing.what == "list of tasks"
        size, pages_left = wire.PAGE_SIZE, MOST_PAGES
        merged: dict[tuple[str, int], _Value] = {}
        for _ in range(PASSES):
            reading: PageReading[_Value] = PageReading(is_unique)
            while pages_left and not reading.is_over:
                asked = listing.page(reading.pages + 1, size)
                try:
                    reading.add(await self._ask(asked, _page_decoder(read)))
                except _TooLarge:
                    size = _smaller(size, asked)
                    reading = PageReading(is_unique)
                pages_left -= 1
            if reading.is_exact:
                return reading.values, not reading.unreadable
            missing = {key: merged[key] for key in merged if key not in reading.keyed}
            merged = reading.keyed | missing
            if reading.has_all(merged):
                return [*merged.values()], not reading.unreadable
        return [*merged.values()], False

    # ------------------------------------------------------------------------------------ asking

    async def _ask(
        self,
        asked: wire.AccountCall,
        decode: Callable[[wire.AccountCall, Reply, Redaction], _Answer],
    ) -> _Answer:
        """Ask once, and again where an answer may still come."""
        redaction = self._redaction()
        for attempt in range(1, TRIES + 1):
            try:
                reply = await self._send(asked.call)
                if reply.is_cut:
                    raise _TooLarge(f"the {asked.what} is larger than 1 MB", sent=True)
                reply = evolve(reply, body=redaction.body(reply.body))
                return decode(asked, reply, redaction)
            except (TransportError, RateLimited) as error:
                wait = self._wait(error, attempt)
                if wait is None:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")  # pragma: no cover — the last try raises or returns

    def _wait(self, error: TransportError | RateLimited, attempt: int) -> float | None:
        """Return the seconds before the next try; None = the error is final."""
        retry = self._retry
        if attempt == TRIES or isinstance(error, _TooLarge) or getattr(error, "permanent", False):
            return None
        jitter = random.random()  # noqa: S311 — spreads the calls of many programs, no secret
        delay = retry_delay(attempt, initial=retry.initial, maximum=retry.maximum, jitter=jitter)
        asked = getattr(error, "retry_after", None) or 0.0
        return None if asked > LONGEST_WAIT else max(asked, min(delay, LONGEST_WAIT))

    def _redaction(self) -> Redaction:
        found = Redaction().with_secret(self._key, "(key)")
        return found.with_secret(self._token(), "(access token)")


class _TooLarge(TransportError):
    """The page is larger than what is read of an answer."""


@define
class PageReading(Generic[_Value]):
    """The pages of a list, read once from the first to the last one."""

    _is_unique: bool  #: no two rows of the list are the same: tasks
    pages: int = 0
    unreadable: int = 0
    values: list[_Value] = field(factory=list)
    #: by key, and by place among the equal rows of one page, which are different rows
    keyed: dict[tuple[str, int], _Value] = field(factory=dict)
    is_ended: bool = False  #: an empty page came; a full one may always have another one after it
    _is_stuck: bool = False
    _totals: set[int | None] = field(factory=set)
    _last_page: str = ""

    def add(self, page: wire.ListPage[_Value]) -> None:
        """Add the next page. A page that came before shows that the page's number is ignored."""
        self.is_ended = not page.rows and not page.unreadable
        self._is_stuck = not self.is_ended and page.digest == self._last_page
        self.pages, self._last_page = self.pages + 1, page.digest
        self._totals.add(page.total)
        self.unreadable += page.unreadable
        if self._is_stuck:
            return
        counts: Counter[str] = Counter()
        for key, value in page.rows:
            counts[key] += 1
            self.keyed.setdefault((key, counts[key]), value)
            self.values.append(value)

    @property
    def is_over(self) -> bool:
        return self.is_ended or self._is_stuck

    @property
    def is_exact(self) -> bool:
        """Whether all rows were read while the list stayed the same. Equal rows of two pages are
        a row that moved, unless the total shows that they are two entries."""
        is_distinct = len(self.keyed) == len(self.values)
        if self._totals == {None} or self._is_unique:
            return self.is_ended and is_distinct and self._totals <= {None, self._rows}
        return self.is_ended and self._totals == {self._rows}

    @property
    def _rows(self) -> int:
        return len(self.values) + self.unreadable

    def has_all(self, merged: Mapping[tuple[str, int], _Value]) -> bool:
        """Whether the rows of this reading and earlier ones are as many as the list has."""
        return self.is_ended and self._totals == {len(merged) + self.unreadable}


def _page_decoder(
    read: _Reader[_Value],
) -> Callable[[wire.AccountCall, Reply, Redaction], wire.ListPage[_Value]]:
    return lambda asked, reply, redaction: wire.decode_page(asked, read, reply, redaction)


def _field(name: str, asked: wire.AccountCall, reply: Reply, redaction: Redaction) -> Decimal:
    return wire.decode_billing(asked, name, reply, redaction)


def _smaller(size: int, asked: wire.AccountCall) -> int:
    if size == 1:
        raise TransportError(f"one row of the {asked.what} is larger than 1 MB", sent=True)
    return max(1, size // 5)


def check_list_of_tasks(
    provider: Provider, token: Secret | None, environ: Mapping[str, str] = os.environ
) -> None:
    """Raise the ConfigError of an account that cannot be asked for its tasks. Asks nothing."""
    if provider.tasks_path is None:
        raise wire.lacking(provider, "list of tasks")
    needed_token(provider, token, "list of tasks", environ=environ)


def _check_time(name: str, value: datetime | None) -> None:
    if value is None:
        return
    check_type(name, value, datetime, expected="a datetime with a time zone")
    if value.utcoffset() is None:
        reason = "has no time zone; give for example datetime.now(UTC) - timedelta(hours=1)"
        raise ConfigError.about(name, reason, value=value)
