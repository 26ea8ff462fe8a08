"""The checks of `doctor` that ask an account: its address, the clock, the key, the balance.

No call costs anything: a GET without the key, and the questions of the balance.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime

from .._core.account import Balance
from .._core.amounts import dollars
from .._core.errors import AuthenticationError, ConfigError
from .._core.protocols import Call, Reply
from .._core.text import display, duration
from .._engine.engine import Engine
from .exit_codes import ACCOUNT, OUTAGE
from .findings import CheckResult, bounded, of_error

#: where the key of an API on this machine, or in a trusted private network, is from
NO_KEY_NEEDED = "no key"
#: seconds of difference from which on a clock is named
_SKEW = 60.0


async def account_findings(
    engine: Engine, *, key_from: str | None, patience: float
) -> tuple[list[CheckResult], Balance | None]:
    """Ask an account; `key_from` is where its key is from, None = there is none. Return what was
    found, and the balance if the provider says it."""
    found = await _reached(engine, patience)
    if key_from is None or found[0].status == "failed":
        return found, None
    asked = await bounded("key", _asked(engine, key_from), account=engine.name, seconds=patience)
    if isinstance(asked, CheckResult):
        return [*found, asked], None
    return [*found, *asked[0]], asked[1]


async def _reached(engine: Engine, patience: float) -> list[CheckResult]:
    """Ask for the provider's address without the key: it answers, or a proxy does, or nobody."""
    began = time.monotonic()
    reply = await bounded(
        "address", _knock(engine, patience), account=engine.name, seconds=patience
    )
    if isinstance(reply, CheckResult):
        return [reply]
    return [_address(engine, reply, time.monotonic() - began), *_clock(engine, reply)]


async def _knock(engine: Engine, timeout: float) -> Reply:
    provider = engine.provider
    path = provider.credits_path or f"{provider.billing_path or ''}/subscription"
    call = Call(method="GET", url=provider.base_url + path, headers={}, timeout=timeout)
    return await engine.send(call)


def _address(engine: Engine, reply: Reply, seconds: float) -> CheckResult:
    provider = engine.provider
    proxy = engine.network.proxy_of(provider)
    through = "" if proxy is None else f", through the proxy {proxy}"
    values = {
        "url": provider.base_url,
        "proxy": None if proxy is None else str(proxy),
        "http_status": reply.status,
        "seconds": round(seconds, 3),
    }
    problem = ""
    if 300 <= reply.status < 400:
        target = display(reply.headers.get("location", "")[:200])
        problem = f"redirects to {target or 'another address'}"
    elif reply.body.lstrip()[:1] == b"<" and reply.status < 500:
        problem = f"answers with a web page (HTTP {reply.status})"
    if problem:
        return CheckResult(
            check="address", status="failed", text=f"{provider.base_url} {problem}{through}",
            next="give the address of the API as --base-url; a network that asks people to sign in "
            "answers like this, too",
            account=engine.name, code=OUTAGE, values=values,
        )  # fmt: skip
    text = f"{provider.base_url} answers in {1000 * seconds:.0f} ms{through}"
    return CheckResult(check="address", text=text, account=engine.name, values=values)


def _clock(engine: Engine, reply: Reply) -> Iterator[CheckResult]:
    """Compare this machine's clock with the Date of an answer, which has whole seconds."""
    try:
        theirs = parsedate_to_datetime(reply.headers.get("date", ""))
    except ValueError:
        return
    skew = (datetime.now(UTC) - theirs.astimezone(UTC)).total_seconds() - 0.5
    values = {"ahead_seconds": round(skew, 1)}
    if abs(skew) < _SKEW:
        text = "this machine's clock agrees with the provider's"
        yield CheckResult(check="clock", text=text, account=engine.name, values=values)
        return
    yield CheckResult(
        check="clock",
        status="warning",
        text=f"this machine's clock is {duration(abs(skew))} {'ahead' if skew > 0 else 'behind'}",
        next="set it (timedatectl set-ntp true): a bucket refuses requests from 15 minutes on, and "
        "bills are compared by time",
        account=engine.name,
        values=values,
    )


async def _asked(engine: Engine, key_from: str) -> tuple[list[CheckResult], Balance | None]:
    """Ask for the balance, which only an accepted key is told."""
    name = engine.name
    is_needed = key_from != NO_KEY_NEEDED
    text = f"{key_from} is accepted" if is_needed else "the API takes calls without a key"
    accepted = CheckResult(check="key", text=text, account=name)
    try:
        balance = await engine.account.balance()
    except AuthenticationError as error:
        if not error.of_token:
            return [_refused(key_from, error, name)], None
        token = of_error("access token", error, account=name)
        return [accepted, token], None
    except ConfigError:  # a gateway without the account's addresses
        text = f"{key_from} is there; {engine.provider.name} has no free call that tries it"
        step = "make one cheap image: fluxasync generate 'a fox' -o fox.png"
        return [
            CheckResult(check="key", status="warning", text=text, next=step, account=name)
        ], None
    return [accepted], balance


def _refused(key_from: str, error: AuthenticationError, name: str) -> CheckResult:
    text = f"{key_from} is refused: {error}"
    step = "make a new key on the provider's page, or correct this one"
    values = {"http_status": error.status}
    return CheckResult(
        check="key", status="failed", text=text, next=step, account=name, code=ACCOUNT,
        values=values,
    )  # fmt: skip


def balance_finding(balances: Mapping[str, Balance | None], cost: Decimal | None) -> CheckResult:
    """Compare what is left on the accounts together with the price of the list; None = there is no
    list, or its price is not known."""
    known = [balance for balance in balances.values() if balance is not None]
    lefts = [balance.left for balance in known if balance.left is not None]
    left = sum(lefts, Decimal(0))
    is_whole = len(lefts) == len(balances)
    values = {
        "left": float(left) if is_whole else None,
        "unlimited": any(balance.is_unlimited for balance in known),
        "cost": None if cost is None else float(cost),
    }
    price = "" if cost is None else f"; the list costs {dollars(cost)}"
    if not is_whole:
        text = f"not known{price}"
        if values["unlimited"]:
            text = f"the key has no limit, and the account's balance is not known{price}"
        return CheckResult(check="balance", text=text, values=values)
    text = f"{signed(left)} left{price}"
    if left > 0 and (cost is None or left >= cost):
        return CheckResult(check="balance", text=text, values=values)
    step = "top up the account"
    if cost and left > 0:
        step += f", or make a part of the list: --max-cost {left:.2f}"
    return CheckResult(
        check="balance", status="failed", text=text, next=step, code=ACCOUNT, values=values
    )


def signed(amount: Decimal) -> str:
    """Return US dollars, which may be negative: some accounts can be overdrawn."""
    return f"{'-' if amount < 0 else ''}{dollars(abs(amount))}"
