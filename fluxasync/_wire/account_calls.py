"""The account side of a provider: balance, tasks, usage log. All calls are free GETs.

Sources, read on 2026-11-29 and not tried live: CometAPI's own command `cometapi-cli` 0.3.10 (PyPI);
the gateway of the same family, QuantumNous/new-api (`model/task.go`, `model/log.go`); BFL's OpenAPI
file. The list is never filtered by `platform`: whether Flux jobs are listed as "flux" is not known,
and a wrong filter makes an empty list look complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from math import ceil, floor
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import urlencode

from attrs import frozen

from .._core.account import AccountTask, Balance, UsageEntry
from .._core.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    RateLimited,
    TransportError,
)
from .._core.models import Secret
from .._core.protocols import Call, Reply
from .._core.strict_json import read_object
from .classification import is_job_id
from .credentials import TOKEN, auth_header, token_header
from .providers import Provider
from .redaction import Redaction
from .reply import number_of, retry_after, vendor_message

#: rows that a page is asked for; new-api gives at most 100
PAGE_SIZE = 100
#: US dollars from which a key's limit means "unlimited" (cometapi-cli 0.3.10)
_UNLIMITED = Decimal(100_000_000)
_GRAIN = Decimal("0.000001")
_LARGEST = Decimal(10) ** 15
#: larger Unix times are milliseconds
_MILLISECONDS = 1e11
#: characters of a word or a name in a list
_LONGEST_WORD = 120
#: new-api, `model/log.go`: the types of log entries
_KINDS = {1: "top-up", 2: "consume", 3: "manage", 4: "system", 5: "error", 6: "refund"}
#: words of a log entry's text that can be the id of a job, and how many of them are kept
_ID_WORD, _MOST_NAMES = re.compile(r"[A-Za-z0-9_-]{8,120}"), 16
#: in the message of a refused token that is answered with HTTP 200 (QuantumNous/new-api#434)
_NOT_LOGGED_IN = ("access token", "unauthorized", "not logged in", "new-api-user", "无权", "未登录")

_Value = TypeVar("_Value")
_Row = Mapping[str, Any]

Question = Literal["balance", "list of tasks", "usage log"]


@frozen
class AccountCall:
    """A GET, and what its answer is about."""

    call: Call
    what: Question
    provider: Provider
    by_token: bool = False

    def lacking(self) -> ConfigError:
        """Return the error for an address that does not exist at the provider."""
        return lacking(self.provider, self.what)

    def refused(self, message: str, status: int) -> AuthenticationError:
        credential = TOKEN if self.by_token else "the key"
        of_key = not self.by_token and status == 401  # the key still submits without the token
        text = f"{credential} was refused: {message}"
        return AuthenticationError(text, status=status, of_key=of_key, of_token=self.by_token)


def lacking(provider: Provider, what: Question) -> ConfigError:
    """Return the error for a question that a provider does not answer."""
    return ConfigError(f"{provider.name} has no {what} at {provider.base_url[:100]}")


# ----------------------------------------------------------------------------------------- encoding


def encode_credits(provider: Provider, key: Secret | None, *, timeout: float) -> AccountCall | None:
    """Return the GET for the balance in credits; None if the provider has no such address."""
    path = provider.credits_path
    return None if path is None else _by_key(provider, path, key, timeout)


def encode_billing(
    provider: Provider, key: Secret | None, *, timeout: float
) -> tuple[AccountCall, AccountCall] | None:
    """Return the GETs for the key's limit and for its use; None if the provider has none."""
    path = provider.billing_path
    if path is None:
        return None
    limit, used = (
        _by_key(provider, f"{path}/{name}", key, timeout) for name in ("subscription", "usage")
    )
    return limit, used


def encode_user(provider: Provider, token: Secret, *, timeout: float) -> AccountCall | None:
    """Return the GET for the account's own balance; None if the provider has no such address."""
    path = provider.user_path
    return None if path is None else _by_token(provider, path, token, "balance", timeout)


@frozen(kw_only=True)
class Listing:
    """A list at a provider, and the time that is asked for."""

    what: Literal["list of tasks", "usage log"]
    provider: Provider
    path: str
    token: Secret
    since: datetime | None
    until: datetime | None
    timeout: float

    def page(self, number: int, size: int) -> AccountCall:
        """Return the GET of one page, from 1. Times are Unix seconds on the submission."""
        asked: dict[str, int] = {"p": number, "page_size": size}
        if self.since is not None:
            asked["start_timestamp"] = floor(self.since.timestamp())
        if self.until is not None:
            asked["end_timestamp"] = ceil(self.until.timestamp())
        path = f"{self.path}?{urlencode(asked)}"
        return _by_token(self.provider, path, self.token, self.what, self.timeout)


def _by_key(provider: Provider, path: str, key: Secret | None, timeout: float) -> AccountCall:
    headers = auth_header(provider, key)
    call = Call(method="GET", url=provider.base_url + path, headers=headers, timeout=timeout)
    return AccountCall(call, "balance", provider)


def _by_token(
    provider: Provider, path: str, token: Secret, what: Question, timeout: float
) -> AccountCall:
    url = provider.base_url + path
    headers = token_header(provider, token, url)
    call = Call(method="GET", url=url, headers=headers, timeout=timeout)
    return AccountCall(call, what, provider, by_token=True)


# ----------------------------------------------------------------------------------------- decoding


@frozen
class ListPage(Generic[_Value]):
    """The values of one page, each with what makes it the same value on another page."""

    rows: tuple[tuple[str, _Value], ...]
    total: int | None  #: rows of the list; None = not given
    digest: str  #: of the rows as they came
    #: rows without a usable value; any of them may be the one that is looked for
    unreadable: int = 0


def decode_credits(asked: AccountCall, reply: Reply, redaction: Redaction) -> Decimal:
    """Return the balance in the provider's credits. Raises what `answer_of` raises."""
    answer = answer_of(asked, reply, redaction)
    number = number_of(answer.get("credits"))
    if number is None:
        raise _without(asked, reply, answer, redaction)
    return round(Decimal(repr(number)), 6)


def decode_billing(asked: AccountCall, field: str, reply: Reply, redaction: Redaction) -> Decimal:
    """Return a number of the billing answers: `hard_limit_usd`, or `total_usage` in US cents."""
    answer = answer_of(asked, reply, redaction)
    if (amount := _amount(answer.get(field))) is None:
        raise _without(asked, reply, answer, redaction)
    return amount


def key_balance(limit: Decimal, used_cents: Decimal) -> Balance:
    """Return the balance of a key from its limit and its use (cometapi-cli: limit - usage/100)."""
    used = (used_cents / 100).quantize(_GRAIN)
    if limit >= _UNLIMITED:
        return Balance(left=None, used=used, is_unlimited=True)
    return Balance(left=limit - used, used=used)


def decode_user(asked: AccountCall, reply: Reply, redaction: Redaction) -> Balance:
    """Return the account's own balance."""
    answer = answer_of(asked, reply, redaction)
    about = answer.get("data")
    about = about if isinstance(about, dict) else {}
    left = _quota(about.get("quota"), asked.provider)
    if left is None:
        raise _without(asked, reply, answer, redaction)
    return Balance(left=left, used=_quota(about.get("used_quota"), asked.provider))


def decode_page(
    asked: AccountCall,
    read: Callable[[_Row, Provider, Redaction], tuple[str, _Value] | None],
    reply: Reply,
    redaction: Redaction,
) -> ListPage[_Value]:
    """Return one page of a list: `data.items`, or in older gateways `data` itself; null = empty.

    `read` is `task_of` or `entry_of`. Raises what `answer_of` raises.
    """
    answer = answer_of(asked, reply, redaction)
    found = answer.get("data")
    total = answer.get("total")
    if isinstance(found, dict) and "items" in found:
        found, total = found["items"], found.get("total", total)
    if "data" not in answer or not isinstance(found, list | None):
        raise _without(asked, reply, answer, redaction)
    objects = (row for row in found or () if isinstance(row, dict))
    values = (read(row, asked.provider, redaction) for row in objects)
    rows = tuple(value for value in values if value is not None)
    number = number_of(total)
    return ListPage(
        rows,
        digest=_digest(repr(found)),
        total=None if number is None or number < 0 else int(number),
        unreadable=len(found or ()) - len(rows),
    )


def task_of(row: _Row, provider: Provider, redaction: Redaction) -> tuple[str, AccountTask] | None:
    """Return the task of a row, by its id; None if the row has no usable id. A number as `id` is
    the row's own, not the job's."""
    job_id = row.get("task_id") or row.get("id")
    if not is_job_id(job_id):
        return None
    properties = row.get("properties")
    if isinstance(properties, str):
        properties = read_object(properties.encode("utf-8", "replace"))
    named = properties if isinstance(properties, dict) else {}
    model = row.get("model_name") or named.get("origin_model_name") or row.get("model")
    return job_id, AccountTask(
        job_id=job_id,
        submitted_at=_instant(row.get("submit_time")) or _instant(row.get("created_at")),
        model=_word(model, redaction) or None,
        status=_word(row.get("status"), redaction),
        cost=_quota(row.get("quota"), provider),
    )


def entry_of(row: _Row, provider: Provider, redaction: Redaction) -> tuple[str, UsageEntry]:
    """Return the entry of a row of the usage log, by a digest of all that the row says but its
    `id`, which is its place in the list."""
    other = row.get("other")
    if isinstance(other, str):
        other = read_object(other.encode("utf-8", "replace"))
    other = other if isinstance(other, dict) else {}
    says = repr(sorted((name, value) for name, value in row.items() if name != "id"))
    number = number_of(row.get("type"))
    kind = None if number is None else _KINDS.get(int(number))
    cost = _quota(row.get("quota"), provider)
    return _digest(says), UsageEntry(
        at=_instant(row.get("created_at")),
        kind=kind or _word(row.get("type"), redaction),
        model=_word(row.get("model_name"), redaction) or None,
        cost=None if cost is None else abs(cost),  # a refund may be given as a negative quota
        request_id=_word(row.get("request_id"), redaction) or None,
        names=tuple(_word(name, redaction) for name in _named_by(row, other)),
        is_adjustment="actual_quota" in other,
    )


def _named_by(row: _Row, other: _Row) -> list[str]:
    """Return the job that a row of the log names, or the words that can be its id.

    new-api (`service/task_billing.go`): a refund has `task_id` in `other`; older gateways have the
    id in the text only.
    """
    for given in (other.get("task_id"), row.get("task_id")):
        if is_job_id(given):
            return [given]
    texts = [text for text in (row.get("content"), row.get("request_id")) if isinstance(text, str)]
    words = (word for text in texts for word in _ID_WORD.findall(text[:4_096]))
    ids = dict.fromkeys(word for word in words if any(map(str.isdigit, word)))
    return list(ids)[:_MOST_NAMES]


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_of_model(task: AccountTask, model: str) -> bool:
    """Return whether a task may be of a model; gateways put their own prefixes before names."""
    if task.model is None:
        return True
    return bare_name(task.model) == bare_name(model)


def bare_name(model: str) -> str:
    """Return what the names of one model have in common: without a gateway's prefix, in lower
    case."""
    return model.strip().rpartition("/")[2].casefold()


def answer_of(asked: AccountCall, reply: Reply, redaction: Redaction) -> Mapping[str, Any]:
    """Return a successful answer.

    Raises AuthenticationError, ConfigError where the provider has no such address (404, 405, a
    redirect, an HTML page with 200), RateLimited, APIError for `"success": false`, and
    TransportError for anything else without an answer.
    """
    answer = read_object(reply.body) if reply.is_whole else None
    message = vendor_message(reply, answer, redaction)
    status = reply.status
    is_page = answer is None and reply.body.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<"
    if status == 401 or (status == 403 and not is_page):
        raise asked.refused(message, status)
    if status in {404, 405} or 300 <= status < 400 or (status == 200 and is_page):
        raise asked.lacking()
    if status == 429:
        wait = retry_after(reply, answer)
        raise RateLimited(f"too many calls: {message}", status=status, retry_after=wait)
    if answer is None or status != 200 or reply.is_followed:
        raise _without(asked, reply, answer, redaction)
    if answer.get("success") is False:
        if asked.by_token and any(word in message.casefold() for word in _NOT_LOGGED_IN):
            raise asked.refused(message, status)
        raise APIError(f"no {asked.what}: {message}", status=status)
    return answer


def _without(
    asked: AccountCall, reply: Reply, answer: Mapping[str, Any] | None, redaction: Redaction
) -> TransportError:
    message = vendor_message(reply, answer, redaction)
    if reply.is_followed:
        message = "the answer may be that of an earlier call"
    elif reply.is_cut:
        message = "the answer is larger than 1 MB"
    return TransportError(f"HTTP {reply.status} without a {asked.what}: {message}", sent=True)


def _amount(given: Any) -> Decimal | None:
    """Return a finite number exactly; None for other values, and for senseless ones."""
    if number_of(given) is None:
        return None
    amount = Decimal(str(given).strip())
    return amount.quantize(_GRAIN) if abs(amount) < _LARGEST else None


def _quota(given: Any, provider: Provider) -> Decimal | None:
    """Return units of quota in US dollars."""
    amount = _amount(given)
    if amount is None or provider.quota_unit is None:
        return None
    return (amount * provider.quota_unit).quantize(_GRAIN)


def _instant(given: Any) -> datetime | None:
    """Return a Unix time as UTC; None for 0, which stands for "not yet", and for senseless ones."""
    seconds = number_of(given)
    if seconds is None or seconds <= 0:
        return None
    if seconds > _MILLISECONDS:
        seconds /= 1000
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _word(given: Any, redaction: Redaction) -> str:
    """Return a name or a word on one line; "" for other values."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        return ""
    text = redaction.text(str(given)[: 4 * _LONGEST_WORD])
    text = "".join(c if c.isprintable() else " " for c in text).strip()
    return text if len(text) <= _LONGEST_WORD else f"{text[: _LONGEST_WORD - 1]}…"
