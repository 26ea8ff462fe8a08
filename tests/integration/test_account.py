"""The account of a session over sockets: its lists, and where its secret goes."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulator_sessions import RETRY, fast_session, outcomes_of, small_requests

from fluxasync import (
    COMETAPI,
    AccountReader,
    APIError,
    AuthenticationError,
    Batch,
    ConfigError,
    Credentials,
    Failed,
    FluxError,
    FluxSession,
    InDoubt,
    Timeouts,
)
from fluxasync.extend import Call, Reply
from fluxasync.simulator import Scenario, Simulator

TOKEN = "canary-token-31f0aa"
KEY = "canary-key-5b1e"
BOTH = Credentials(api_key=KEY, access_token=TOKEN)
SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02, access_token=TOKEN, refunds=True)


def submit_many(sim: Simulator, count: int, *, model: str = "flux-dev") -> None:
    """Submit jobs without a client."""
    now = asyncio.get_running_loop().time()
    for number in range(count):
        body = json.dumps({"prompt": f"picture {number}"}).encode()
        sim.world.submit(now, dialect="comet", model=model, headers={}, body=body)


@pytest.mark.asyncio
async def test_the_lists_equal_the_record_of_charges(tmp_path: Path):
    """After a run with faults each charge is a task and a usage entry, also where the answer was
    lost; failed and moderated jobs are refunded in the log."""
    faults = ["lost-reply:0.2", "500:0.1", "moderated-content:0.2", "error:0.2", "429:0.1"]
    started = datetime.now(UTC) - timedelta(seconds=2)
    async with (
        Simulator(evolve(SCENARIO, faults=faults, credits=100)) as sim,
        fast_session(sim.url, api_key=BOTH) as flux,
    ):
        async with Batch(flux, small_requests(40), out=tmp_path) as batch:
            outcomes = await outcomes_of(batch)
        await asyncio.sleep(0.05)  # jobs in doubt are not polled; they end after 20 ms
        listed = await flux.account.tasks(since=started)
        usage = await flux.account.usage(since=started)
        balance = await flux.account.balance()
    doubts = sum(isinstance(outcome, InDoubt) for outcome in outcomes)
    assert doubts
    assert listed.is_complete
    assert usage.is_complete
    assert {task.job_id for task in listed.tasks} == {charge.job_id for charge in sim.charges}
    known = {o.job.job_id for o in outcomes if not isinstance(o, InDoubt) and o.job is not None}
    assert 0 < len(listed.tasks) - len(known) <= doubts
    prices = {charge.job_id: charge.price_usd for charge in sim.charges}
    assert all(task.cost == prices[task.job_id] for task in listed.tasks)
    consumed = [entry for entry in usage.entries if entry.kind == "consume"]
    refunds = [entry for entry in usage.entries if entry.kind == "refund"]
    spent = sum(prices.values(), Decimal(0))
    assert sum((entry.cost or 0 for entry in consumed), Decimal(0)) == spent
    failed = [o for o in outcomes if isinstance(o, Failed) and o.job is not None]
    assert len(failed) <= len(refunds) < len(consumed)
    given_back = sum((entry.cost or 0 for entry in refunds), Decimal(0))
    assert (balance.left, balance.used) == (1 - spent + given_back, spent - given_back)


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
@pytest.mark.asyncio
async def test_every_page_is_read(count: int):
    """As many tasks as there are, each once, newest first."""
    async with (
        Simulator(evolve(SCENARIO, active_limit=1000)) as sim,
        fast_session(sim.url, api_key=BOTH) as flux,
    ):
        submit_many(sim, count)
        listed, usage = await flux.account.tasks(), await flux.account.usage()
        assert listed.is_complete
        assert usage.is_complete
        assert [charge.job_id for charge in reversed(sim.charges)] == [
            task.job_id for task in listed.tasks
        ]
        assert len(usage.entries) == count


@pytest.mark.asyncio
async def test_time_and_model_choose_the_tasks():
    """Tasks of another time or model are left out."""
    now = datetime.now(UTC)
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, api_key=BOTH) as flux:
        submit_many(sim, 3)
        submit_many(sim, 2, model="flux-pro-1.1")
        hour = timedelta(hours=1)
        assert len((await flux.account.tasks(since=now - hour, until=now + hour)).tasks) == 5
        assert not (await flux.account.tasks(since=now + hour)).tasks
        assert not (await flux.account.tasks(until=now - hour)).tasks
        assert len((await flux.account.tasks(model="flux-pro-1.1")).tasks) == 2


@pytest.mark.parametrize(
    ("faults", "listed", "is_complete"),
    [
        pytest.param(["list-repeats"], 250, True, id="tasks moved to the next page"),
        pytest.param(["list-cut"], 100, False, id="pages end early"),
        pytest.param(["task-platform"], 250, True, id="another platform"),
        pytest.param(["task-late"], 0, True, id="not yet listed"),
        pytest.param(["task-unlisted"], 0, True, id="never listed"),
        pytest.param(["list-html:0"], 250, True, id="none"),
    ],
)
@pytest.mark.asyncio
async def test_a_list_says_whether_it_is_complete(
    faults: list[str], listed: int, is_complete: bool
):
    """A list whose pages are missing is not complete; a task that moved is listed once."""
    scenario = evolve(SCENARIO, active_limit=1000)
    async with (
        Simulator(evolve(scenario, faults=faults)) as sim,
        fast_session(sim.url, api_key=BOTH) as flux,
    ):
        submit_many(sim, 250)
        found = await flux.account.tasks()
        assert (listed, is_complete) == (len(found.tasks), found.is_complete)
        assert len({task.job_id for task in found.tasks}) == listed


@pytest.mark.asyncio
async def test_a_task_is_listed_after_the_scenarios_delay():
    """The simulator lists a job `list_delay` seconds after it accepted it."""
    async with (
        Simulator(evolve(SCENARIO, list_delay=3600)) as sim,
        fast_session(sim.url, api_key=BOTH) as flux,
    ):
        submit_many(sim, 1)
        assert not (await flux.account.tasks()).tasks
        assert len((await flux.account.usage()).entries) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("list-html", ConfigError, "cometapi has no list of tasks"),
        ("list-401", AuthenticationError, "the access token was refused"),
        ("list-false", APIError, "database is locked"),
    ],
)
@pytest.mark.asyncio
async def test_an_answer_without_a_list_is_an_error(
    fault: str, kind: type[FluxError], message: str
):
    """An HTML page, a refused token and `success: false` never look like an empty list."""
    async with (
        Simulator(evolve(SCENARIO, faults=[fault])) as sim,
        fast_session(sim.url, api_key=BOTH) as flux,
    ):
        with pytest.raises(kind, match=message):
            await flux.account.tasks()


@pytest.mark.asyncio
async def test_a_call_is_tried_again_where_an_answer_may_come():
    """Calls are free, so three answers with 502 do not end a list."""
    async with odd_server([(502, "bad gateway")] * 3 + [(200, {"data": []})]) as (url, seen):
        async with fast_session(url, api_key=BOTH) as flux:
            assert (await flux.account.tasks()).is_complete
        assert len(seen) == 4
    async with odd_server([(502, "bad gateway")] * 9) as (url, seen):
        async with fast_session(url, api_key=BOTH) as flux:
            with pytest.raises(FluxError, match="502"):
                await flux.account.tasks()
        assert len(seen) == 4


# ---------------------------------------------------------------------------------- who has what


@pytest.mark.asyncio
async def test_bfl_has_the_balance_only():
    """In US dollars; the two lists are errors that say so, and nothing is sent for them."""
    async with (
        Simulator(evolve(SCENARIO, credits=100)) as sim,
        fast_session(sim.url, "bfl", api_key=BOTH) as flux,
    ):
        assert (await flux.account.balance()).left == Decimal(1)
        for call in (flux.account.tasks, flux.account.usage):
            with pytest.raises(ConfigError, match=r"bfl has no (list of tasks|usage log)"):
                await call()
        assert [request.path for request in sim.world.requests] == ["bfl/credits"]


@pytest.mark.asyncio
async def test_a_list_without_a_token_names_the_variable(monkeypatch: pytest.MonkeyPatch):
    """The balance of the key needs no access token; the variable is read at each call."""
    monkeypatch.delenv("COMETAPI_ACCESS_TOKEN", raising=False)
    async with (
        Simulator(evolve(SCENARIO, key=KEY, credits=50)) as sim,
        fast_session(sim.url, api_key=KEY) as flux,
    ):
        with pytest.raises(ConfigError, match="set COMETAPI_ACCESS_TOKEN"):
            await flux.account.tasks()
        assert (await flux.account.balance()).left == Decimal("0.5")
        monkeypatch.setenv("COMETAPI_ACCESS_TOKEN", TOKEN)
        assert (await flux.account.tasks()).is_complete
        assert await flux.credits() is None


@pytest.mark.asyncio
async def test_the_balance_is_the_smaller_one_of_key_and_account():
    """A key without a limit has what the account has. Which of them the key's own answer shows is a
    setting of the gateway (songquanpeng/one-api#186)."""
    account = {"success": True, "data": {"quota": 1_000_000, "used_quota": 0}}
    for limit, left in ((5, 2), (1, 1), (100_000_000, 2)):
        answers = [(200, {"hard_limit_usd": limit}), (200, {"total_usage": 0}), (200, account)]
        async with odd_server(answers) as (url, _), fast_session(url, api_key=BOTH) as flux:
            assert (await flux.account.balance()).left == left


@pytest.mark.asyncio
async def test_one_of_the_two_balances_is_enough():
    """A gateway that lacks the key's or the account's balance has the other one."""
    account = {"success": True, "data": {"quota": 1_000_000, "used_quota": 0}}
    key = [(200, {"hard_limit_usd": 5}), (200, {"total_usage": 0})]
    for answers, left in (([(404, ""), (200, account)], 2), ([*key, (404, "")], 5)):
        async with odd_server(answers) as (url, _), fast_session(url, api_key=BOTH) as flux:
            assert (await flux.account.balance()).left == left
    async with odd_server([(404, "")]) as (url, _), fast_session(url, api_key=BOTH) as flux:
        with pytest.raises(ConfigError, match="cometapi has no balance"):
            await flux.account.balance()


@pytest.mark.asyncio
async def test_a_time_that_ends_before_it_begins_is_refused():
    """An empty list of such a time would prove nothing."""
    now = datetime.now(UTC)
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, api_key=BOTH) as flux:
        for call in (flux.account.tasks, flux.account.usage):
            with pytest.raises(ConfigError, match="is not before until"):
                await call(since=now, until=now - timedelta(hours=1))
        assert not sim.world.requests


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("value", [datetime(2026, 1, 1), 1_700_000_000, "today"])
@pytest.mark.asyncio
async def test_times_have_a_zone(name: str, value: Any):
    """A naive datetime could be any zone's, so it is refused before anything is sent."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, api_key=BOTH) as flux:
        for call in (flux.account.tasks, flux.account.usage):
            with pytest.raises(ConfigError, match=f"{name}.*time zone"):
                await call(**{name: value})
        assert not sim.world.requests


# ------------------------------------------------------------------------------------- the secret


@asynccontextmanager
async def odd_server(
    answers: list[tuple[int, Any]], *, headers: dict[str, str] | None = None
) -> AsyncIterator[tuple[str, list[web.BaseRequest]]]:
    """A server that gives these answers in turn; a function gets the request."""
    seen: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        status, body = answers[min(len(seen), len(answers) - 1)]
        seen.append(request)
        body = body(request) if callable(body) else body
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


def echo(request: web.BaseRequest) -> str:
    return " ".join(request.headers.get("Authorization", "").split()[1:])


ECHOES: list[tuple[int, Callable[[web.BaseRequest], Any]]] = [
    (401, lambda r: {"success": False, "message": f"wrong: {echo(r)}"}),
    (200, lambda r: {"success": False, "message": f"{r.headers}"}),
    (200, lambda r: {"success": False, "message": f"access token {echo(r)}"}),
    (404, lambda r: {"error": {"message": echo(r)}}),
    (502, lambda r: f"<html>{echo(r)}</html>"),
    (429, lambda r: {"message": echo(r)}),
    (200, lambda r: {"data": echo(r)}),
    (200, lambda r: {"data": [{"task_id": f"a-{echo(r)}", "status": echo(r), "model": echo(r)}]}),
]


@pytest.mark.parametrize("number", range(len(ECHOES)))
@pytest.mark.asyncio
async def test_no_secret_of_the_account_is_seen_anywhere(
    number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """P22: an answer that echoes the header shows neither secret in an error, a result, a repr, a
    pickle or a log."""
    monkeypatch.setenv("COMETAPI_ACCESS_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    shown: list[Any] = [BOTH, Credentials(access_token=TOKEN)]
    async with odd_server([ECHOES[number]]) as (url, seen), fast_session(url, api_key=KEY) as flux:
        account = flux.account
        for call in (account.tasks, account.usage, account.balance):
            try:
                shown.append(await call())
            except FluxError as error:
                shown += [error, "".join(traceback.format_exception(error)), error.args]
        shown += [flux, account, *vars(account).values(), *gc.get_referents(flux)]
        with pytest.raises(TypeError):
            pickle.dumps(account)
        assert seen
    texts = [f"{value!r} {value}" for value in shown] + [caplog.text]
    texts += [pickle.dumps(each).decode("latin-1") for each in shown if isinstance(each, FluxError)]
    texts += [pickle.dumps(BOTH).decode("latin-1")]
    for text in texts:
        assert TOKEN not in text
        assert KEY not in text


@pytest.mark.asyncio
async def test_the_token_goes_with_the_accounts_calls_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """T1: no submission, poll or download has the access token, in either dialect; no file of the
    run has it."""
    monkeypatch.setenv("COMETAPI_ACCESS_TOKEN", TOKEN)
    for dialect in ("cometapi", "bfl"):
        async with (
            Simulator(evolve(SCENARIO, key=KEY)) as sim,
            fast_session(sim.url, dialect, api_key=KEY) as flux,
        ):
            async with Batch(flux, small_requests(4), out=tmp_path / dialect) as batch:
                await outcomes_of(batch)
            if dialect == "cometapi":
                assert len((await flux.account.tasks()).tasks) == 4
            assert not sim.world.leaks
    for content in contents(tmp_path):
        assert TOKEN.encode() not in content


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.asyncio
async def test_a_redirect_does_not_get_the_token(status: int):
    """No redirect is followed, also not to the same machine."""
    async with odd_server([(200, {"data": []})]) as (target, followed):
        headers = {"Location": f"{target}/api/task/self"}
        async with (
            odd_server([(status, "")], headers=headers) as (url, _),
            fast_session(url, api_key=BOTH) as flux,
        ):
            with pytest.raises(ConfigError, match="no list of tasks"):
                await flux.account.tasks()
        assert not followed


def test_another_session_argument_is_refused():
    """What is no text is refused at once, without a value in the message."""
    with pytest.raises(ConfigError, match="api_key"):
        FluxSession(api_key=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="access_token"):
        Credentials(access_token=3)


# ----------------------------------------------------------- pages of a list that changes meanwhile


def account_over(send: Callable[[Call], Any]) -> AccountReader:
    return AccountReader(send, COMETAPI, BOTH, retry=RETRY, timeouts=Timeouts())


def page_of(call: Call) -> tuple[int, int]:
    asked = dict(part.split("=") for part in call.url.partition("?")[2].split("&"))
    return int(asked["p"]), int(asked["page_size"])


@settings(max_examples=200, deadline=None)
@given(
    there=st.integers(0, 60),
    arriving=st.lists(st.integers(0, 12), max_size=8),
    most=st.sampled_from([5, 10, 100]),
    has_total=st.booleans(),
    log=st.booleans(),
)
def test_a_complete_list_has_every_row_that_was_there(
    there: int, arriving: list[int], most: int, has_total: bool, log: bool
):
    """Rows arrive between the pages, pages are shorter than asked for, the total may be missing:
    each row is listed once, and a list that says it is complete has all that were there."""
    rows, waves = [*range(there)], [*arriving]

    async def send(call: Call) -> Reply:
        page, size = page_of(call)
        size = min(size, most)
        newest_first = rows[::-1][(page - 1) * size : page * size]
        items = [{"task_id": f"t-{n}", "request_id": f"r-{n}", "id": 0} for n in newest_first]
        found = {"items": items} | ({"total": len(rows)} if has_total else {})
        rows.extend(range(len(rows), len(rows) + (waves.pop() if waves else 0)))
        return Reply(status=200, headers={}, body=json.dumps({"data": found}).encode())

    account = account_over(send)
    if log:
        usage = asyncio.run(account.usage())
        listed, is_complete = [str(entry.request_id) for entry in usage.entries], usage.is_complete
    else:
        tasks = asyncio.run(account.tasks())
        listed, is_complete = [task.job_id for task in tasks.tasks], tasks.is_complete
    numbers = [int(name[2:]) for name in listed]
    assert len(numbers) == len(set(numbers))
    if is_complete:
        assert set(range(there)) <= set(numbers)
    if not arriving:
        assert is_complete


@pytest.mark.asyncio
async def test_equal_entries_of_a_quiet_log_are_all_counted():
    """Without request ids two charges of one second look the same but for their place; both
    count."""
    rows = [{"id": place, "created_at": 5, "type": 2, "quota": 10} for place in range(250)]

    async def send(call: Call) -> Reply:
        page, size = page_of(call)
        items = rows[(page - 1) * size : page * size]
        body = {"data": {"items": items, "total": 250}}
        return Reply(status=200, headers={}, body=json.dumps(body).encode())

    usage = await account_over(send).usage()
    assert (len(usage.entries), usage.is_complete) == (250, True)


@pytest.mark.asyncio
async def test_a_gateway_that_ignores_the_page_ends_the_reading():
    """The same page again is not read a thousand times, and the list is not complete."""
    calls = []

    async def send(call: Call) -> Reply:
        calls.append(call)
        items = [{"task_id": f"t-{n}"} for n in range(7)]
        return Reply(status=200, headers={}, body=json.dumps({"data": items}).encode())

    found = await account_over(send).tasks()
    assert (len(found.tasks), found.is_complete) == (7, False)
    assert len(calls) <= 6


def paged(*pages: list[Any], total: int | None = None) -> AccountReader:
    """An account whose list has these pages."""

    async def send(call: Call) -> Reply:
        page, _ = page_of(call)
        items = pages[page - 1] if page <= len(pages) else []
        found = {"items": items} | ({} if total is None else {"total": total})
        return Reply(status=200, headers={}, body=json.dumps({"data": found}).encode())

    return account_over(send)


@pytest.mark.parametrize("row", ["text", None, {"id": 7}, {"task_id": "../../x"}])
@pytest.mark.parametrize("total", [None, 2])
@pytest.mark.asyncio
async def test_a_row_that_cannot_be_read_may_be_any_task(row: Any, total: int | None):
    """All rows but one were read, so the list is not complete."""
    found = await paged([{"task_id": "t-1"}, row], total=total).tasks()
    assert (len(found.tasks), found.is_complete) == (1, False)


@pytest.mark.asyncio
async def test_a_row_that_cannot_be_read_counts_where_tasks_moved():
    """The same where the pages had to be merged."""
    first, second = ([{"task_id": f"t-{n}"} for n in each] for each in ((1, 2), (2,)))
    found = await paged(first, [*second, "text"], total=3).tasks()
    assert (len(found.tasks), found.is_complete) == (2, False)


@pytest.mark.asyncio
async def test_a_total_does_not_hide_a_task_that_is_missing():
    """As many rows as the total says, but one of them twice: one task was not seen."""
    first, second = ([{"task_id": f"t-{n}"} for n in each] for each in ((1, 2), (2, 3)))
    found = await paged(first, second, total=4).tasks()
    assert (len(found.tasks), found.is_complete) == (3, False)


@pytest.mark.asyncio
async def test_a_task_may_be_of_the_model_unless_it_says_otherwise():
    """A task without a model, or with a gateway's prefix before it, is listed."""
    models = ("black-forest-labs/Flux-Dev", None, "flux-pro")
    rows = [{"task_id": f"t-{n}", "model_name": model} for n, model in enumerate(models)]
    found = await paged(rows).tasks(model="flux-dev")
    assert [task.job_id for task in found.tasks] == ["t-0", "t-1"]


@pytest.mark.asyncio
async def test_a_page_that_is_too_large_is_asked_for_in_parts():
    """Rows with megabytes of vendor data are read a few at a time."""

    async def send(call: Call) -> Reply:
        page, size = page_of(call)
        items = [{"task_id": f"t-{n}"} for n in range((page - 1) * size, min(page * size, 30))]
        body = json.dumps({"data": {"items": items, "total": 30}}).encode()
        return Reply(status=200, headers={}, body=body, is_cut=size > 5)

    found = await account_over(send).tasks()
    assert (len(found.tasks), found.is_complete) == (30, True)


@pytest.mark.asyncio
async def test_an_endless_list_ends():
    """The number of pages is bounded, and the rest is not claimed."""

    async def send(call: Call) -> Reply:
        page, _ = page_of(call)
        body = json.dumps({"data": [{"task_id": f"t-{page}"}]}).encode()
        return Reply(status=200, headers={}, body=body)

    found = await account_over(send).tasks()
    assert (len(found.tasks), found.is_complete) == (1000, False)
