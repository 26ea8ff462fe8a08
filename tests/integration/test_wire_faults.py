"""Faults A to D on the wire: a batch over a broken connection, then the audit.

All rows use the same run: six images into a folder, through one proxy before the API and one before
the image store. Each time the outcomes, the charges, the files and the duration are checked, and
that the key is only in the requests that need it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from attrs import evolve, field, frozen
from support.command_forks import forks
from support.patience import patient
from support.raw_servers import answer, peer, says, says_then_hangs_up
from support.simulator_sessions import (
    FAST,
    RETRY,
    audit,
    fast_session,
    run_out,
    small_requests,
    tally,
    until,
)
from support.tcp_proxy import Fault, Proxy, gets, posts, proxy

from fluxasync import (
    AuthenticationError,
    Batch,
    CreditError,
    FluxError,
    FluxSession,
    InDoubt,
    InvalidRequest,
    Limits,
    Outcome,
    Pending,
    RateLimited,
    Redirected,
    TransportError,
)
from fluxasync._cli.exit_codes import OUTAGE, exit_code
from fluxasync._engine.session import engine_of
from fluxasync.audit import status as audit_status
from fluxasync.simulator import Scenario, Simulator

COUNT = 6
KEY = "canary-key-0123456789abcdef"
SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02, key=KEY)
PATIENT = evolve(RETRY, patience=20, not_found_grace=2)
#: for what only a timeout ends: so long must an exchange without a fault never take
SOON = patient(0.6)
TOO_LATE = 2 * SOON


@frozen(kw_only=True)
class Row:
    """One fault on the connection to the API or to the image store, and what it may cost."""

    api: Fault | None = None
    store: Fault | None = None
    doubts: int = 0  #: images in doubt; all others are saved
    uncharged: int = 0  #: of those, what the server never took
    timeouts: dict[str, float] = field(factory=dict)  #: those that end the fault
    keepalive: float = 4.0  #: 0 = a fresh connection for each POST
    scenario: dict[str, Any] = field(factory=dict)


def hit(kind: Any, *numbers: int, seconds: float = 0.0) -> Fault:
    return Fault(kind=kind, affects=posts(*(numbers or (3,))), seconds=seconds)


def polled(kind: Any, *numbers: int, seconds: float = 0.0) -> Fault:
    return Fault(kind=kind, affects=gets(*(numbers or (2, 4, 5))), seconds=seconds)


PNG = {"image_bytes": 60_000}

ROWS = {
    "F34 reset before the request was read": Row(api=hit("reset unread"), doubts=1, uncharged=1),
    "F35 reset in the request": Row(api=hit("reset in request"), doubts=1, uncharged=1),
    "F36 taken and never answered": Row(api=hit("swallow"), doubts=1),
    "F36 half closed and taken": Row(api=hit("half close"), doubts=1),
    "F37 reset in the answer's head": Row(api=hit("reset in head"), doubts=1),
    "F37 reset in the answer's body": Row(api=hit("reset in body"), doubts=1),
    "F37 ended in the answer's body": Row(api=hit("end in body"), doubts=1),
    "F38 reset after the answer": Row(api=Fault(kind="reset after", affects=posts()), keepalive=0),
    "F39 a late answer is read": Row(api=hit("late", seconds=0.2)),
    "F39 too late an answer": Row(
        api=hit("late", seconds=TOO_LATE), doubts=1, timeouts={"submit": SOON}
    ),
    "F39 half of it, silence, the rest": Row(api=hit("burst", seconds=0.2)),
    "F40 closed after each answer": Row(api=Fault(kind="end after")),
    "F41 an answer without a request": Row(api=Fault(kind="unasked 200", affects=posts())),
    "F41 an answer without a request, to polls": Row(api=Fault(kind="unasked 200", affects=gets())),
    "F41 a stale 408 on an idle line": Row(api=Fault(kind="stale 408", seconds=0.01), keepalive=0),
    "F41 every answer twice": Row(api=Fault(kind="twice", affects=gets())),
    "F43 slow loris": Row(
        api=hit("slices", seconds=patient(0.02)), doubts=1, timeouts={"submit": SOON}
    ),
    "F43 slow loris at polls": Row(
        api=polled("slices", seconds=patient(0.02)), timeouts={"poll": SOON}
    ),
    "F50 poll reset unread": Row(api=polled("reset unread")),
    "F50 poll reset in the head": Row(api=polled("reset in head")),
    "F50 poll ended in the body": Row(api=polled("end in body")),
    "F50 poll swallowed": Row(api=polled("swallow")),
    "F50 poll too late": Row(api=polled("late", seconds=TOO_LATE), timeouts={"poll": SOON}),
    "F70 F71 store resets unread": Row(store=polled("reset unread", 1, 2)),
    "F71 cut with a length, FIN": Row(store=polled("end in body", 1, 3), scenario=PNG),
    "F71 cut with a length, RST": Row(store=polled("reset in body", 1, 3), scenario=PNG),
    "F71 nothing but half a head": Row(store=polled("reset in head", 1, 3), scenario=PNG),
    "F74 no answer at all": Row(store=polled("swallow", 1, 3), scenario=PNG),
    "F70 a store that knows no image, in a row": Row(store=polled("gone", *range(1, 31))),
    "F86 a body that stops": Row(
        store=polled("burst", 1, 3, seconds=TOO_LATE), scenario=PNG, timeouts={"stall": SOON}
    ),
    "F86 a trickle": Row(
        store=polled("narrow", 1, 3, seconds=500), scenario=PNG, timeouts={"stall": SOON}
    ),
    "F86 a slow link is no stall": Row(
        store=Fault(kind="narrow", seconds=60_000), scenario=PNG, timeouts={"stall": SOON}
    ),
    "F87 a store that is late": Row(
        store=polled("late", 1, seconds=TOO_LATE), scenario=PNG, timeouts={"download": SOON}
    ),
}  # fmt: skip


@frozen(kw_only=True)
class Line:
    """A session through two proxies to a simulator."""

    flux: FluxSession
    sim: Simulator
    api: Proxy
    store: Proxy


@asynccontextmanager
async def line(row: Row, **options: Any) -> AsyncIterator[Line]:
    timeouts = evolve(FAST["timeouts"], keepalive=row.keepalive, **row.timeouts)
    session = {"retry": PATIENT, "timeouts": timeouts, "limits": 3, "api_key": KEY} | options
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator(evolve(SCENARIO, **row.scenario)))
        state = sim.world._state
        api = await stack.enter_async_context(proxy(sim.url, row.api))
        store = await stack.enter_async_context(proxy(state.delivery, row.store))
        epoch = time.time() - asyncio.get_running_loop().time()
        sim.world.set_origins(epoch=epoch, delivery=store.url, region_origin=state.region_origin)
        flux = await stack.enter_async_context(fast_session(api.url, **session))
        yield Line(flux=flux, sim=sim, api=api, store=store)


def no_key_in(folder: Path, outcomes: list[Outcome], store: Proxy, logged: str) -> None:
    """The key is in no file, no error, no log line and no request to the image store."""
    secret = KEY.encode()
    assert all(secret not in request for request in store.received)
    assert all(secret not in p.read_bytes() for p in folder.rglob("*") if p.is_file())
    assert KEY not in repr(outcomes) + logged


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in ROWS.items()])
@pytest.mark.asyncio
async def test_a_broken_connection_costs_only_what_the_row_allows(
    row: Row, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """A POST that was sent and not answered is in doubt and never sent again; all other images are
    saved."""
    async with asyncio.timeout(patient()), line(row) as through:
        outcomes, error = await run_out(Batch(through.flux, small_requests(COUNT), out=tmp_path))
        assert error is None
        assert through.api.fault_count + through.store.fault_count, "the fault never struck"
        expected = {"saved": COUNT - row.doubts, "in doubt": row.doubts}
        assert Counter(expected) == tally(outcomes)
        assert COUNT - row.uncharged == len(through.sim.charges)
        sent = [request for request in through.api.received if request.startswith(b"POST")]
        assert len(sent) == COUNT - row.uncharged
        audit(through.sim.world, outcomes, folder=tmp_path)
        no_key_in(tmp_path, outcomes, through.store, caplog.text)


@pytest.mark.asyncio
async def test_a_stores_retry_after_holds_for_every_image(tmp_path: Path):
    """F87: after a Retry-After for one image no download is repeated early, and all images are
    saved."""
    store = polled("busy", 2, seconds=1)
    one_by_one = Limits(in_flight=3, downloads=1)
    async with line(Row(store=store), limits=one_by_one) as through:
        outcomes, error = await run_out(Batch(through.flux, small_requests(3), out=tmp_path))
        assert (tally(outcomes), error) == ({"saved": 3}, None)
        _, first, *later = through.store.received_at
        assert len(later) == 2
        assert min(later) - first >= 0.99
        audit(through.sim.world, outcomes, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_server_that_goes_away_and_comes_back_costs_nothing(tmp_path: Path):
    """F31 P9: connections are refused for a while: every image is saved, none twice."""
    async with line(Row(scenario={"latency": 0.05}), limits=2) as through:
        sim, api = through.sim, through.api
        run = asyncio.create_task(run_out(Batch(through.flux, small_requests(COUNT), out=tmp_path)))
        await until(lambda: len(sim.charges) >= 2)
        await api.close()
        await asyncio.sleep(0.5)
        await api.listen(int(api.url.rpartition(":")[2]))
        outcomes, error = await run
        assert error is None
        counted = tally(outcomes)
        assert counted["saved"] + counted["in doubt"] == COUNT
        assert counted["in doubt"] <= 2, "POSTs that were under way when it went"
        audit(sim.world, outcomes, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_an_id_that_came_before_is_in_doubt(tmp_path: Path):
    """F21: two submissions get the same job id: one image is saved, and the other is in doubt."""
    async with line(Row(api=hit("repeat", 2)), limits=1) as through:
        outcomes, error = await run_out(Batch(through.flux, small_requests(3), out=tmp_path))
        assert error is None
        assert tally(outcomes) == {"saved": 2, "in doubt": 1}
        (doubt,) = [outcome for outcome in outcomes if isinstance(outcome, InDoubt)]
        assert "id of another job" in str(doubt.error)
        audit(through.sim.world, outcomes, folder=tmp_path)


@pytest.mark.asyncio
async def test_an_id_that_came_before_is_in_doubt_without_a_journal_too():
    """F21: the session remembers ids, and the first job keeps its slot and its image."""
    async with line(Row(api=hit("repeat", 2))) as through:
        first = await through.flux.submit(small_requests(1)[0])
        with pytest.raises(TransportError, match="id of another job"):
            await through.flux.submit(small_requests(1, start=1)[0])
        assert through.flux.unclaimed == ()
        saved = await through.flux.collect(first)
        assert saved.request == first.request


@pytest.mark.asyncio
async def test_a_late_answer_is_not_taken_for_the_next_submissions(tmp_path: Path):
    """F41: a stale 200 on the idle connection is not the answer of the next prompt."""
    row = Row(
        api=Fault(kind="unasked later", affects=posts(), seconds=0.005),
        scenario={"latency": 0.05},
    )
    async with line(row, limits=1) as through:
        outcomes, error = await run_out(Batch(through.flux, small_requests(COUNT), out=tmp_path))
        assert error is None
        assert tally(outcomes) == {"saved": COUNT}
        audit(through.sim.world, outcomes, folder=tmp_path)


@pytest.mark.asyncio
async def test_polls_that_are_answered_about_another_job_stop_the_run(tmp_path: Path):
    """F60: a cache answers each poll with the first one's answer: after three in a row nothing more
    is submitted, the run says why, and a later run collects everything."""
    row = Row(api=Fault(kind="cached", affects=gets()), scenario={"latency": 0.2})
    async with line(row, limits=2) as through:
        outcomes, error = await run_out(Batch(through.flux, small_requests(COUNT), out=tmp_path))
        assert isinstance(error, TransportError)
        assert "other jobs" in str(error)
        assert exit_code(None, error, None) == OUTAGE
        assert not {"timeout", "lost", "in doubt"} & set(tally(outcomes))
        assert len(through.sim.charges) < COUNT
        through.api.fault = None
        async with fast_session(through.api.url, retry=PATIENT, api_key=KEY) as flux:
            outcomes, error = await run_out(Batch(flux, small_requests(COUNT), out=tmp_path))
        assert error is None
        assert len(through.sim.charges) == COUNT
        assert (await audit_status(tmp_path)).counts.done == COUNT


ECHO = b'{"detail": [{"loc": ["body", "image_prompt"], "msg": "no image", "input": "%s"}]}' % (
    b"iVBORw0KGgo" * 200_000
)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "code"),
    [
        pytest.param(422, {}, InvalidRequest, 3, id="F12 422"),
        pytest.param(400, {}, InvalidRequest, 3, id="F12 400"),
        pytest.param(401, {}, AuthenticationError, 6, id="F9 401"),
        pytest.param(402, {}, CreditError, 6, id="F8 402"),
        pytest.param(302, {"Location": "/"}, Redirected, 2, id="F16 302"),
        pytest.param(429, {"Retry-After": "4000"}, RateLimited, 9, id="F5 429 for an hour"),
    ],
)
@pytest.mark.asyncio
async def test_a_refusal_with_a_huge_body_ends_the_run_as_any_other(
    status: int, headers: dict[str, str], kind: type[FluxError], code: int, tmp_path: Path
):
    """F12 F22: a refusal with 2 MB of repeated input is neither in doubt nor an outage."""
    says_no = says(answer(ECHO, status, headers))
    async with peer(says_no) as server, fast_session(server.url, limits=8) as flux:
        batch = Batch(flux, small_requests(40), out=tmp_path)
        outcomes, error = await run_out(batch)
    assert type(error) is kind
    assert "iVBOR" not in str(error)
    assert tally(outcomes)["in doubt"] == 0
    assert code == exit_code(batch.summary, error, None)
    assert len(server.received) <= 20 + 8


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(answer(b'{"id": "cand-1", "polling_url": "x', length=99), id="F37 cut"),
        pytest.param(answer(b'{"id": "cand-1"}', length=99), id="F37 a length too long"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n"
            b'{"id": "cand-1", "polling_url": "x',
            id="F37 a cut chunk",
        ),
    ],
)
@pytest.mark.asyncio
async def test_an_answer_that_breaks_off_after_its_id_is_in_the_journal(
    ending: bytes, tmp_path: Path
):
    """F37: the id and the partial answer are kept with the image in doubt; `status --json` and
    `resolve --json` show them."""
    breaks = says_then_hangs_up(ending)
    async with peer(breaks) as server, fast_session(server.url, api_key=KEY) as flux:
        outcomes, error = await run_out(Batch(flux, small_requests(1), out=tmp_path))
    assert (error, tally(outcomes)) == (None, {"in doubt": 1})
    for verb, rows in (("status", "doubts"), ("resolve", "in_doubt")):
        ended = await forks().run_beside(verb, tmp_path, "--json")
        (doubt,) = json.loads(ended.out)[rows]
        assert doubt["candidate_job_id"] == "cand-1"
        assert '{"id": "cand-1"' in doubt["evidence"]
        assert "broke off" in doubt["message"]


@pytest.mark.asyncio
async def test_json_under_another_content_type_gives_one_warning(
    caplog: pytest.LogCaptureFixture,
):
    """F27: JSON under text/html is read, with one warning for the whole run."""

    mislabelled = {"Content-Type": "text/html; charset=utf-8"}
    body = b'{"id": "a-1", "status": "Pending"}'
    async with (
        peer(says(answer(body, headers=mislabelled))) as server,
        fast_session(server.url) as flux,
    ):
        job = await flux.submit(small_requests(1)[0])
        for _ in range(3):
            assert isinstance(await flux.poll(job), Pending)
    assert caplog.text.count("JSON as 'text/html'") == 1


@pytest.mark.asyncio
@pytest.mark.slow
async def test_an_id_of_an_earlier_run_is_in_doubt_and_paid_once(tmp_path: Path):
    """F21: only the journal knows the id; the second image is in doubt, nothing is unclaimed, and
    the budget counts each price once."""
    async with line(Row(api=hit("repeat", 2)), limits=1) as through:
        await run_out(Batch(through.flux, small_requests(1), out=tmp_path))
        options = {"api_key": KEY, "retry": PATIENT, "limits": 1}
        async with fast_session(through.api.url, **options) as flux:
            outcomes, error = await run_out(Batch(flux, small_requests(3), out=tmp_path))
            assert error is None
            assert tally(outcomes) == {"saved": 2, "in doubt": 1}
            assert flux.unclaimed == ()
            purse = engine_of(flux).submitter.spending
            assert (purse.spent, purse.in_doubt) == (2 * purse.in_doubt, Decimal("0.025"))


@pytest.mark.asyncio
async def test_a_submissions_timeout_begins_at_its_slot(tmp_path: Path):
    """F45: eight callers, two slots, slow answers: the wait for a slot does not count."""
    slow = Fault(kind="late", affects=posts(), seconds=SOON / 3)
    row = Row(api=slow, timeouts={"submit": SOON})
    async with line(row, limits=2) as through:
        saved = await asyncio.gather(*map(through.flux.generate, small_requests(8)))
        assert len(saved) == len(through.sim.charges) == 8


def test_the_version_of_aiohttp_is_not_a_poisoned_one():
    """F46: aiohttp 3.14.0 and 3.14.1 hand a broken connection to the next request."""
    version = tuple(int(part) for part in aiohttp.__version__.split(".")[:3] if part.isdigit())
    assert version >= (3, 14, 3)


@pytest.mark.asyncio
async def test_a_name_with_an_unreachable_address_is_reached_at_the_other(tmp_path: Path):
    """F47: "localhost" is ::1 first on many machines; if nothing listens there, 127.0.0.1 is tried
    within a second."""
    began = time.monotonic()
    async with (
        Simulator(SCENARIO) as sim,
        fast_session(sim.url.replace("127.0.0.1", "localhost"), api_key=KEY) as flux,
    ):
        saved = await flux.generate(small_requests(1)[0])
        audit(sim.world, [saved])
    assert time.monotonic() - began < patient(5)


@pytest.mark.asyncio
async def test_no_key_is_sent_through_a_proxy_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """F42 T14: proxies of the environment are not used."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with line(Row()) as through:
        saved = await through.flux.generate(small_requests(1)[0])
        audit(through.sim.world, [saved])
