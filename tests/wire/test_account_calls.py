"""The account side on the wire: which call has which secret, and what is read of the answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from fluxasync import (
    BFL,
    COMETAPI,
    AccountTask,
    APIError,
    AuthenticationError,
    Balance,
    ConfigError,
    FluxError,
    RateLimited,
    TransportError,
    UsageEntry,
)
from fluxasync._wire import Redaction
from fluxasync._wire.account_calls import (
    Listing,
    decode_billing,
    decode_credits,
    decode_page,
    decode_user,
    encode_billing,
    encode_credits,
    encode_user,
    entry_of,
    is_of_model,
    key_balance,
    task_of,
)
from fluxasync._wire.credentials import access_token, token_header
from fluxasync.extend import Reply, Secret

T = TypeVar("T")
KEY, TOKEN = Secret("sk-key-5b1e"), Secret("token-77ac-canary")
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
NOTHING = Redaction()
TASK_ID = "0d1e9c6a-7d3b-4f6e-9a55-1f2b3c4d5e6f"


def listing(what: Any = "list of tasks", **given: Any) -> Listing:
    values = {"path": "/api/task/self", "since": NOON, "until": None} | given
    return Listing(what=what, provider=COMETAPI, token=TOKEN, timeout=5, **values)


PAGE = listing().page(2, 100)


def made(value: T | None) -> T:
    assert value is not None
    return value


def reply(body: Any, status: int = 200, **more: Any) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status=status, headers={}, body=raw, **more)


def test_each_call_has_its_own_secret():
    """The key asks for its own balance, the access token for what the account has."""
    limit, used = made(encode_billing(COMETAPI, KEY, timeout=5))
    user = made(encode_user(COMETAPI, TOKEN, timeout=5))
    credits = made(encode_credits(BFL, KEY, timeout=5))
    origin = "https://api.cometapi.com"
    assert limit.call.url == f"{origin}/v1/dashboard/billing/subscription"
    assert used.call.url == f"{origin}/v1/dashboard/billing/usage"
    assert user.call.url == f"{origin}/api/user/self"
    assert credits.call.url == "https://api.bfl.ai/v1/credits"
    assert limit.call.headers == used.call.headers == {"Authorization": "Bearer sk-key-5b1e"}
    assert user.call.headers == PAGE.call.headers == {"Authorization": "Bearer token-77ac-canary"}
    assert credits.call.headers == {"x-key": "sk-key-5b1e"}


def test_a_list_is_asked_for_in_whole_seconds_and_of_every_platform():
    """Times are rounded outwards; a filter by platform could hide every job."""
    late = datetime(2026, 11, 29, 12, 0, 0, 1, tzinfo=UTC)
    asked = listing(since=late, until=late).page(1, 100).call.url
    start = int(NOON.timestamp())
    expected = f"p=1&page_size=100&start_timestamp={start}&end_timestamp={start + 1}"
    assert asked == f"https://api.cometapi.com/api/task/self?{expected}"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.cometapi.com.evil.example/api/user/self",
        "https://delivery.eu2.bfl.ai/x",
        "http://api.cometapi.com/api/user/self",
        "https://api.cometapi.com:8443/api/user/self",
        "https://api.cometapi.com\t/api",
    ],
)
def test_the_access_token_stays_at_the_providers_origin(url: str):
    """Scheme, host and port are the provider's, or there is no header."""
    with pytest.raises(ConfigError) as caught:
        token_header(COMETAPI, TOKEN, url)
    assert TOKEN.reveal() not in str(caught.value)


def test_the_variable_is_not_read_for_another_address():
    """COMETAPI_ACCESS_TOKEN is CometAPI's: a third party's base_url does not get it, also on
    another port or over http; a simulator on this machine does."""
    environ = {"COMETAPI_ACCESS_TOKEN": "token-77ac-canary"}
    assert access_token(COMETAPI, None, environ=environ) == TOKEN
    assert access_token(COMETAPI.at("https://api.cometapi.com/v2"), None, environ=environ) == TOKEN
    assert access_token(COMETAPI.at("http://127.0.0.1:8787"), None, environ=environ) == TOKEN
    for url in ("https://gateway.example.com", "https://api.cometapi.com:8443"):
        assert access_token(COMETAPI.at(url), None, environ=environ) is None
        assert access_token(COMETAPI.at(url), TOKEN, environ=environ) == TOKEN
    assert access_token(BFL, None, environ=environ) is None


def test_a_wrong_access_token_is_named_and_not_shown():
    """A token with spaces is an error that names its variable."""
    with pytest.raises(ConfigError, match="COMETAPI_ACCESS_TOKEN: the access token") as caught:
        access_token(COMETAPI, None, environ={"COMETAPI_ACCESS_TOKEN": "Bearer canary"})
    assert "canary" not in str(caught.value)


# --------------------------------------------------------------------------------------- the rows

ROW = {
    "id": 7, "task_id": TASK_ID, "platform": "flux", "status": "SUCCESS", "quota": 12500,
    "created_at": 5, "submit_time": int(NOON.timestamp()), "model_name": "flux-dev",
}  # fmt: skip
TASK = AccountTask(
    job_id=TASK_ID, submitted_at=NOON, model="flux-dev", status="SUCCESS", cost=Decimal("0.025")
)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param({}, {}, id="as documented"),
        pytest.param(
            {"quota": "12500", "submit_time": str(int(NOON.timestamp()))}, {}, id="numbers as text"
        ),
        pytest.param({"submit_time": NOON.timestamp() * 1000}, {}, id="milliseconds"),
        pytest.param(
            {"submit_time": 0, "created_at": NOON.timestamp()}, {}, id="not submitted yet"
        ),
        pytest.param({"status": "PAUSED_BY_MOON"}, {"status": "PAUSED_BY_MOON"}, id="unknown word"),
        pytest.param({"status": None}, {"status": ""}, id="no status"),
        pytest.param({"model_name": None}, {"model": None}, id="no model"),
        pytest.param(
            {"model_name": "", "properties": {"origin_model_name": "flux-pro"}},
            {"model": "flux-pro"}, id="model in properties",
        ),
        pytest.param(
            {"model_name": "", "properties": '{"origin_model_name": "flux-pro"}'},
            {"model": "flux-pro"}, id="properties as text",
        ),
        pytest.param(
            {"submit_time": None, "created_at": None}, {"submitted_at": None}, id="no time"
        ),
        pytest.param(
            {"submit_time": 1e300, "created_at": "soon"}, {"submitted_at": None}, id="senseless"
        ),
        pytest.param({"quota": None}, {"cost": None}, id="no cost"),
        pytest.param({"quota": True}, {"cost": None}, id="a bool"),
        pytest.param({"quota": 1e300}, {"cost": None}, id="too much"),
        pytest.param({"quota": 1}, {"cost": Decimal("0.000002")}, id="one unit"),
    ],
)  # fmt: skip
def test_a_task_is_read_defensively(changed: dict[str, Any], expected: dict[str, Any]):
    """What is missing or senseless is None; unknown status words are kept."""
    row = json.loads(json.dumps(ROW | changed))
    given = {"job_id", "submitted_at", "model", "status", "cost"}
    wanted = {name: getattr(TASK, name) for name in given} | expected
    assert task_of(row, COMETAPI, NOTHING) == (TASK_ID, AccountTask(**wanted))


@pytest.mark.parametrize("task_id", [None, "", 7, "../x", "a b", ["x"]])
def test_a_task_without_a_usable_id_is_none(task_id: Any):
    """The number of a row is not the id of a job."""
    assert task_of(ROW | {"task_id": task_id}, COMETAPI, NOTHING) is None


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({"other": '{"task_id": "t-1", "reason": "failed 123456789"}'}, ["t-1"]),
        ({"other": {"task_id": "t-1"}, "content": "job-12345678"}, ["t-1"]),
        ({"task_id": "t-2"}, ["t-2"]),
        ({"content": "task 0a1b2c3d-4e5f failed: refunded"}, ["0a1b2c3d-4e5f"]),
        ({"content": "异步任务执行失败 task_12345，补偿 $0.04"}, ["task_12345"]),
        ({"request_id": "req-12345678"}, ["req-12345678"]),
        ({"content": "no identifier, 12 images"}, []),
        ({"other": "not json", "content": None, "request_id": 12345678}, []),
        ({"other": '{"task_id": "../../x"}'}, []),
        ({"content": " ".join(f"task-{n:05}" for n in range(99))}, 16),
    ],
)
def test_an_entry_names_its_job(row: dict[str, Any], names: list[str] | int):
    """new-api, `RefundTaskQuota`: `task_id` in `other`; older gateways write it into the text."""
    _, entry = entry_of({"type": 6, **row}, COMETAPI, NOTHING)
    assert (len(entry.names) if isinstance(names, int) else list(entry.names)) == names


def test_a_settled_difference_is_an_adjustment():
    """new-api, `RecalculateTaskQuota`: `actual_quota` is what the job costs after it."""
    for other, expected in (('{"task_id": "t", "actual_quota": 5}', True), ("{}", False)):
        _, entry = entry_of({"type": 2, "other": other}, COMETAPI, NOTHING)
        assert entry.is_adjustment is expected


def test_a_usage_entry_is_read_by_its_type():
    """Types are new-api's numbers; a refund given as a negative quota is what was given back."""
    row = {"created_at": NOON.timestamp(), "type": 2, "model_name": "flux-dev", "quota": 12500,
           "request_id": "r1", "id": 1}  # fmt: skip
    consumed = UsageEntry(
        at=NOON, kind="consume", model="flux-dev", cost=Decimal("0.025"), request_id="r1"
    )
    key, entry = entry_of(row, COMETAPI, NOTHING)
    assert consumed == entry
    assert key == entry_of(row | {"id": 99}, COMETAPI, NOTHING)[0]  # it moved in the list
    assert key != entry_of(row | {"request_id": "r2"}, COMETAPI, NOTHING)[0]
    _, refund = entry_of(row | {"type": "6", "quota": -12500}, COMETAPI, NOTHING)
    assert (refund.kind, refund.cost) == ("refund", Decimal("0.025"))
    _, other = entry_of({"type": "gift"}, COMETAPI, NOTHING)
    assert other == UsageEntry(at=None, kind="gift", model=None, cost=None, request_id=None)


def test_a_model_is_compared_without_a_gateways_prefix():
    """A task is left out only where another model is certain."""
    _, task = made(task_of(ROW | {"model_name": "BFL/Flux-Dev"}, COMETAPI, NOTHING))
    assert is_of_model(task, "flux-dev")
    assert not is_of_model(task, "flux-pro")
    _, task = made(task_of(ROW | {"model_name": None}, COMETAPI, NOTHING))
    assert is_of_model(task, "flux-dev")


@pytest.mark.parametrize(
    ("body", "rows", "total"),
    [
        pytest.param({"success": True, "data": {"items": [ROW], "total": 9}}, 1, 9, id="items"),
        pytest.param({"success": True, "data": [ROW, ROW]}, 2, None, id="older"),
        pytest.param({"data": [ROW], "total": "3"}, 1, 3, id="total beside"),
        pytest.param({"success": True, "data": None}, 0, None, id="null"),
        pytest.param({"data": {"items": None, "total": 0}}, 0, 0, id="null items"),
        pytest.param({"data": {"items": [], "total": -1}}, 0, None, id="senseless total"),
    ],
)
def test_a_page_has_its_rows(body: Any, rows: int, total: int | None):
    """The shape before and after QuantumNous/new-api#427, and Go's null for an empty list."""
    page = decode_page(PAGE, task_of, reply(body), NOTHING)
    assert (rows, total, 0) == (len(page.rows), page.total, page.unreadable)


def test_rows_that_cannot_be_read_are_counted():
    """An unreadable row may be the one that is looked for, so it is not dropped silently."""
    page = decode_page(PAGE, task_of, reply({"data": [ROW, "x", None, {"id": 5}]}), NOTHING)
    assert (len(page.rows), page.unreadable) == (1, 3)


HTML = b"<!doctype html><html><title>All models</title></html>"


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (reply({"message": "no"}, 401), AuthenticationError, "access token was refused"),
        (reply({"success": False, "message": "no"}, 403), AuthenticationError, "access token"),
        (reply({"success": False, "message": "未登录"}), AuthenticationError, "access token"),
        (reply({"success": False, "message": "无权进行此操作"}), AuthenticationError, "无权"),
        (reply({"success": False, "message": "database is locked"}), APIError, "is locked"),
        (reply({"error": "x"}, 404), ConfigError, "cometapi has no list of tasks"),
        (reply(b"", 301), ConfigError, "no list of tasks"),
        (reply(HTML), ConfigError, "no list of tasks"),
        (reply(HTML, 403), TransportError, "HTML"),
        (reply(HTML, 502), TransportError, "HTTP 502"),
        (reply({"message": "slow down"}, 429), RateLimited, "slow down"),
        (reply({"success": True}), TransportError, "without a list of tasks"),
        (reply({"data": "soon"}), TransportError, "without a list of tasks"),
        (reply(b"[]"), TransportError, "without a list of tasks"),
        (reply({"data": []}, is_followed=True), TransportError, "earlier call"),
        (reply({"data": []}, broken="cut off"), TransportError, "without a list"),
        (reply({"data": [], "pad": "x" * 5000}, is_cut=True), TransportError, "1 MB"),
    ],
)
def test_what_is_no_list_is_an_error(answer: Reply, kind: type[FluxError], message: str):
    """QuantumNous/new-api#434: a refusal comes with HTTP 200 and success false; a page of HTML is
    no empty list."""
    with pytest.raises(kind, match=message) as caught:
        decode_page(PAGE, task_of, answer, NOTHING)
    assert type(caught.value) is kind
    assert not getattr(caught.value, "of_key", False)  # the key still works
    assert getattr(caught.value, "of_token", True)


def test_secrets_in_answers_are_not_shown():
    """A gateway may echo the header in a message, a status or a model."""
    redaction = NOTHING.with_secret(TOKEN, "(access token)")
    with pytest.raises(APIError) as caught:
        decode_page(
            PAGE, task_of, reply({"success": False, "message": f"got {TOKEN.reveal()}"}), redaction
        )
    row = ROW | {"status": TOKEN.reveal(), "model_name": f"Bearer {TOKEN.reveal()}"}
    shown = f"{caught.value} {task_of(row, COMETAPI, redaction)}"
    assert TOKEN.reveal() not in shown
    assert shown.count("(access token)") == 3


# -------------------------------------------------------------------------------------- the balance


def test_balances_are_exact_dollars():
    """BFL's credits, a key's limit minus its use in cents, 500,000 units of quota for US$1. A key
    without a limit has no $99,999,965.76 left (MartialBE/one-hub#330)."""
    asked = made(encode_user(COMETAPI, TOKEN, timeout=5))
    body = {"success": True, "data": {"quota": 1_250_001, "used_quota": "500000"}}
    expected = Balance(left=Decimal("2.500002"), used=Decimal(1))
    assert decode_user(asked, reply(body), NOTHING) == expected
    assert key_balance(Decimal(5), Decimal("12.5")) == Balance(
        left=Decimal("4.875"), used=Decimal("0.125")
    )
    unlimited = Balance(left=None, used=Decimal("34.24"), is_unlimited=True)
    assert key_balance(Decimal(100_000_000), Decimal(3424)) == unlimited
    credits = made(encode_credits(BFL, KEY, timeout=5))
    assert decode_credits(credits, reply({"credits": 97.50000000000001}), NOTHING) == Decimal(
        "97.5"
    )


def test_a_balance_that_is_missing_is_an_error():
    """No figure is never taken as 0."""
    limit, _ = made(encode_billing(COMETAPI, KEY, timeout=5))
    user = made(encode_user(COMETAPI, TOKEN, timeout=5))
    with pytest.raises(TransportError, match="without a balance"):
        decode_billing(limit, "hard_limit_usd", reply({"hard_limit_usd": None}), NOTHING)
    with pytest.raises(TransportError, match="without a balance"):
        decode_user(user, reply({"success": True, "data": None}), NOTHING)
    with pytest.raises(AuthenticationError, match="the key was refused"):
        decode_billing(limit, "hard_limit_usd", reply({"error": {"message": "no"}}, 401), NOTHING)
