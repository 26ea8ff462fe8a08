"""Several accounts in one run, against one simulator for each account."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.simulated_accounts import (
    PRICE,
    QUICK,
    account,
    charged,
    pool,
    prompts,
    simulators,
)
from support.simulator_sessions import (
    fast_session,
    run_out,
    small_requests,
    tally,
    until,
)

from fluxasync import (
    Account,
    AuthenticationError,
    Batch,
    BudgetExceeded,
    ConfigError,
    CreditError,
    FluxPool,
    ImageRequest,
    InDoubt,
    InvalidRequest,
    Job,
    JournalError,
    Saved,
)
from fluxasync.audit import status
from fluxasync.simulator import Scenario, Simulator


@pytest.mark.asyncio
@pytest.mark.slow
async def test_every_account_works_until_it_is_out(tmp_path: Path) -> None:
    """P7: of 300 images a revoked key made 60 and a balance paid for 40: the third account makes
    the others. Nothing is paid twice, in doubt or failed, and no account's limit is passed."""
    slow = QUICK | {"latency": (0.05, 0.15)}
    scenarios = (
        Scenario(active_limit=6, **slow),
        Scenario(active_limit=12, faults=["401-after:60"], **slow),
        Scenario(active_limit=24, credits=100, **slow),  # 40 images
    )
    async with simulators(*scenarios) as sims:
        accounts = (
            account(sims[0], "small", limits=6),
            account(sims[1], "revoked", limits=12),
            account(sims[2], "spent", limits=24, provider="bfl"),
        )
        async with pool(*accounts) as flux:
            outcomes, error = await run_out(Batch(flux, small_requests(300), out=tmp_path))
            out = dict(flux.left_out)
    assert error is None
    assert tally(outcomes) == {"saved": 300}
    assert charged(*sims) == [200, 60, 40]
    assert len(set(prompts(*sims))) == 300
    small, revoked, spent = (sim.world.max_active for sim in sims)
    assert small == 6
    # on a busy machine the last slots of an account may not be filled before it is out
    assert 8 <= revoked <= 12
    assert 16 <= spent <= 24
    assert {name: type(error) for name, error in out.items()} == {
        "revoked": AuthenticationError,
        "spent": CreditError,
    }
    found = await status(tmp_path)
    assert {name: each.done for name, each in found.accounts.items()} == {
        "small": 200,
        "revoked": 60,
        "spent": 40,
    }


@pytest.mark.asyncio
async def test_the_run_ends_with_the_first_error_when_no_account_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each account that is out is named once; the error is that of the first."""
    scenarios = (
        Scenario(faults=["401-after:5"], **QUICK),
        Scenario(credits=25, **QUICK),  # 10 images
    )
    async with (
        simulators(*scenarios) as sims,
        pool(account(sims[0], "a"), account(sims[1], "b")) as flux,
    ):
        outcomes, error = await run_out(Batch(flux, small_requests(60), out=tmp_path))
        first = next(iter(flux.left_out.values()))
    assert error is first
    assert tally(outcomes) == {"saved": 15}
    assert charged(*sims) == [5, 10]
    said = [each.message for each in caplog.records if "is left out" in each.message]
    assert sorted(text.split(" is ")[0] for text in said) == ["account a", "account b"]


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["lost-reply", "500", "502-html"])
async def test_a_lost_answer_never_goes_to_another_account(tmp_path: Path, fault: str) -> None:
    """P7: a submission that may have been charged is in doubt; no other account gets its prompt."""
    async with (
        simulators(Scenario(faults={fault: 0.1}, seed=3, **QUICK), Scenario(**QUICK)) as sims,
        pool(account(sims[0], "a"), account(sims[1], "b")) as flux,
    ):
        outcomes, error = await run_out(Batch(flux, small_requests(150), out=tmp_path))
    assert error is None
    counts = tally(outcomes)
    assert counts["in doubt"] >= 3
    assert counts["saved"] + counts["in doubt"] == 150
    paid = prompts(*sims)
    assert len(paid) == len(set(paid))
    doubtful = {o.request.prompt for o in outcomes if not isinstance(o, Saved)}  # type: ignore[union-attr]
    assert doubtful.isdisjoint(prompts(sims[1]))


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["429", "503"])
async def test_refused_submissions_go_to_other_accounts(tmp_path: Path, fault: str) -> None:
    """An account that refuses everything holds no image: the other one makes all."""
    async with (
        simulators(Scenario(faults=[fault], **QUICK), Scenario(**QUICK)) as sims,
        pool(account(sims[0], "a"), account(sims[1], "b")) as flux,
    ):
        outcomes, error = await run_out(Batch(flux, small_requests(60), out=tmp_path))
    assert error is None
    assert tally(outcomes) == {"saved": 60}
    assert charged(*sims) == [0, 60]


@pytest.mark.asyncio
async def test_a_moderated_prompt_is_not_tried_elsewhere(tmp_path: Path) -> None:
    """A refusal of the prompt is the prompt's own."""
    async with (
        simulators(
            Scenario(faults=["moderated-request:0.3"], seed=1, **QUICK), Scenario(**QUICK)
        ) as sims,
        pool(account(sims[0], "a"), account(sims[1], "b")) as flux,
    ):
        outcomes, _ = await run_out(Batch(flux, small_requests(80), out=tmp_path))
    assert tally(outcomes)["moderated"] >= 3
    assert sum(charged(*sims)) == 80
    assert len(set(prompts(*sims))) == 80


@pytest.mark.asyncio
async def test_the_run_and_each_account_keep_their_caps_exactly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """P7: one cap for the run and one for an account are reached to the cent and not passed, also
    by the next run in the folder."""
    async with simulators(Scenario(**QUICK), Scenario(**QUICK)) as sims:

        async def made(total: Decimal) -> tuple[Any, Any]:
            accounts = account(sims[0], "a", budget="0.25"), account(sims[1], "b")
            async with pool(*accounts, budget=total) as flux:
                return await run_out(Batch(flux, small_requests(100), out=tmp_path))

        outcomes, error = await made(PRICE * 30)
        assert isinstance(error, BudgetExceeded)
        assert (
            str(error)
            == "one more image ($0.025) would go over the cap of $0.75; raise it to go on"
        )
        assert tally(outcomes) == {"saved": 30}
        assert charged(*sims) == [10, 20]
        caplog.clear()
        outcomes, error = await made(PRICE * 50)
        assert isinstance(error, BudgetExceeded)
        assert charged(*sims) == [10, 40]
        said = [each.message for each in caplog.records if "no more images" in each.message]
        assert len(said) == 1
        assert said[0].startswith("account a ")
        assert len(set(prompts(*sims))) == 50


@pytest.mark.asyncio
async def test_an_account_that_does_not_answer_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other accounts make its images, and the user hears that one made none."""
    async with simulators(Scenario(**QUICK)) as sims:
        away = account(sims[0], "away", base_url="http://127.0.0.1:9")
        async with pool(away, account(sims[0], "b")) as flux:
            outcomes, _ = await run_out(Batch(flux, small_requests(12), out=tmp_path))
        assert tally(outcomes) == {"saved": 12}
        said = [each.message for each in caplog.records if "does not answer" in each.message]
        assert len(said) == 1
        assert said[0].startswith("account away ")


@pytest.mark.asyncio
async def test_the_parts_of_an_estimate_keep_within_the_accounts_caps(tmp_path: Path) -> None:
    """What a capped account cannot pay for is expected of the other."""
    async with (
        simulators(Scenario(**QUICK), Scenario(**QUICK)) as sims,
        pool(account(sims[0], "a", budget="0.06"), account(sims[1], "b")) as flux,
        Batch(flux, small_requests(20), out=tmp_path) as batch,
    ):
        assert batch.estimate is not None
        parts = flux.parts_of(batch.estimate)
    assert {name: (part.images, part.cost) for name, part in parts.items()} == {
        "a": (2, PRICE * 2),
        "b": (18, PRICE * 18),
    }


@pytest.mark.asyncio
async def test_weight_shares_images_while_slots_are_free(tmp_path: Path) -> None:
    """An account of weight 3 gets three times the images of an equal one that is not busy."""
    async with simulators(Scenario(**QUICK), Scenario(**QUICK)) as sims:
        accounts = account(sims[0], "a", weight=3), account(sims[1], "b")
        async with pool(*accounts) as flux:
            await run_out(Batch(flux, small_requests(16), out=tmp_path))
    assert charged(*sims) == [12, 4]


@pytest.mark.asyncio
async def test_the_cheapest_account_comes_first_and_spills_over(tmp_path: Path) -> None:
    """By price the second account is full all the time, and the first gets what is left."""
    slow = QUICK | {"latency": (2.0, 2.0)}  # no job ends before all are submitted
    async with simulators(Scenario(**slow), Scenario(active_limit=8, **slow)) as sims:
        accounts = account(sims[0], "a"), account(sims[1], "b", limits=8, factor="0.5")
        async with pool(*accounts, route="cheapest") as flux:
            batch = Batch(flux, small_requests(12), out=tmp_path)
            await run_out(batch)
    assert charged(*sims) == [4, 8]
    assert sims[1].world.max_active == 8


@pytest.mark.asyncio
async def test_jobs_are_collected_by_their_own_account(tmp_path: Path) -> None:
    """A stopped run is continued by the same accounts: each polls its own jobs, none is submitted
    again."""
    slow = QUICK | {"latency": (30.0, 30.0)}
    async with simulators(Scenario(**slow), Scenario(**slow)) as sims:
        both = account(sims[0], "a", limits=6), account(sims[1], "b", limits=6)
        await _stopped(both, sims, tmp_path, jobs=12)
        _end_jobs(*sims)
        async with pool(*both) as flux:
            batch = Batch(flux, small_requests(12), out=tmp_path)
            outcomes, error = await run_out(batch)
        assert error is None
        assert tally(outcomes) == {"saved": 12}
        assert charged(*sims) == [6, 6]
        found = await status(tmp_path)
        assert {name: each.done for name, each in found.accounts.items()} == {"a": 6, "b": 6}


@pytest.mark.asyncio
async def test_the_jobs_of_a_missing_account_wait_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without account b its six jobs stay paid and recorded, which is said once; with it they are
    collected."""
    slow = QUICK | {"latency": (30.0, 30.0)}
    async with simulators(Scenario(**slow), Scenario(**slow)) as sims:
        both = account(sims[0], "a", limits=6), account(sims[1], "b", limits=6)
        await _stopped(both, sims, tmp_path, jobs=12)
        _end_jobs(*sims)
        sims[0].world._state.scenario = Scenario(**QUICK)
        async with pool(both[0]) as flux:
            batch = Batch(flux, small_requests(20), out=tmp_path)
            outcomes, error = await run_out(batch)
            assert error is None
            assert tally(outcomes) == {"saved": 14}
            assert len(flux.unclaimed) == 6
        assert batch.summary.unclaimed == 6
        assert batch.summary.not_started == 0
        assert charged(*sims) == [14, 6]
        assert sum("paid jobs wait" in each.message for each in caplog.records) == 1
        async with pool(*both) as flux:
            outcomes, _ = await run_out(Batch(flux, small_requests(20), out=tmp_path))
        assert tally(outcomes) == {"saved": 20}
        assert charged(*sims) == [14, 6]


@pytest.mark.asyncio
async def test_a_session_does_not_poll_the_jobs_of_an_account(tmp_path: Path) -> None:
    """Another key may not know a job, and the job would count as lost: the run is refused."""
    slow = QUICK | {"latency": (30.0, 30.0)}
    async with simulators(Scenario(**slow), Scenario(**slow)) as sims:
        both = account(sims[0], "a", limits=2), account(sims[1], "b", limits=2)
        await _stopped(both, sims, tmp_path, jobs=4)
        async with fast_session(sims[0].url) as flux:
            with pytest.raises(JournalError, match="jobs of the account 'a'"):
                await Batch(flux, small_requests(4), out=tmp_path).run()


@pytest.mark.asyncio
async def test_a_name_stays_with_its_address(tmp_path: Path) -> None:
    """Another account under the name of one with unfinished jobs would poll them elsewhere: the run
    is refused."""
    async with simulators(Scenario(**(QUICK | {"latency": (30.0, 30.0)}))) as sims:
        await _stopped((account(sims[0], "a", limits=2),), sims, tmp_path, jobs=2)
        async with pool(account(sims[0], "a", provider="bfl")) as flux:
            with pytest.raises(JournalError, match=r"'a' at cometapi .* another address now"):
                await Batch(flux, small_requests(2), out=tmp_path).run()


@pytest.mark.asyncio
async def test_jobs_of_a_session_wait_where_two_accounts_could_have_them(tmp_path: Path) -> None:
    """A folder that one session began: its jobs are collected where only one account is at that
    provider, and wait where two are."""
    async with simulators(Scenario(**(QUICK | {"latency": (30.0, 30.0)})), Scenario()) as sims:
        async with (
            fast_session(sims[0].url, limits=3) as flux,
            Batch(flux, small_requests(3), out=tmp_path) as batch,
        ):
            await until(lambda: len(sims[0].world.charges) == 3)
            batch.stop(0)
        _end_jobs(sims[0])
        two = account(sims[0], "a"), account(sims[1], "b")
        async with pool(*two) as flux:
            outcomes, error = await run_out(Batch(flux, small_requests(3), out=tmp_path))
        assert (outcomes, error) == ([], None)
        one = account(sims[0], "a"), account(sims[1], "b", provider="bfl")
        async with pool(*one) as flux:
            outcomes, _ = await run_out(Batch(flux, small_requests(3), out=tmp_path))
        assert tally(outcomes) == {"saved": 3}
        assert charged(*sims) == [3, 0]


@pytest.mark.asyncio
async def test_an_account_whose_polls_are_refused_ends_no_run(tmp_path: Path) -> None:
    """A key that is revoked while its jobs run: they stay paid and recorded, the others go on."""
    scenario = Scenario(key="right", **(QUICK | {"latency": (0.3, 0.3)}))
    async with simulators(scenario, Scenario(**QUICK)) as sims:
        accounts = account(sims[0], "a", limits=4, api_key="right"), account(sims[1], "b")
        async with pool(*accounts) as flux, Batch(flux, small_requests(60), out=tmp_path) as batch:
            await until(lambda: len(sims[0].world.charges) == 4)
            sims[0].world._state.scenario = Scenario(key="other", **QUICK)
            outcomes = [outcome async for outcome in batch]
        assert tally(outcomes) == {"saved": 56}
        assert batch.summary.unclaimed == 4
        assert charged(*sims) == [4, 56]


@pytest.mark.asyncio
async def test_one_image_without_a_batch_takes_any_account(tmp_path: Path) -> None:
    """`generate` goes to an account that accepts; `collect` to the one that the job names."""
    async with (
        simulators(Scenario(faults=["402"], **QUICK), Scenario(**QUICK)) as sims,
        pool(account(sims[0], "a"), account(sims[1], "b")) as flux,
    ):
        jobs: list[Job] = []
        saved = await flux.generate("a fox", width=256, height=256, on_job=jobs.append)
        assert (saved.job.account, jobs[0].account) == ("b", "b")
        again = await flux.collect(Job.from_dict(jobs[0].to_dict()))
        assert again.stored.sha256 == saved.stored.sha256
    assert charged(*sims) == [0, 1]


@pytest.mark.parametrize(
    ("accounts", "message"),
    [
        pytest.param([], "give one or more", id="none"),
        pytest.param(["bfl", "bfl"], "named 'bfl'", id="one name twice"),
        pytest.param(
            [Account("bfl"), Account("bfl", name="b", base_url="http://127.0.0.1:1")],
            "simulated among paid",
            id="simulated and paid",
        ),
        pytest.param([7], "Accounts", id="no account"),
    ],
)
def test_accounts_that_cannot_be_together_are_refused(accounts: Any, message: str) -> None:
    """P2: before anything is opened, with the reason."""
    with pytest.raises(ConfigError, match=message):
        FluxPool(accounts)


@pytest.mark.parametrize(
    "options",
    [
        {"weight": 0},
        {"weight": "2"},
        {"name": " a"},
        {"name": ""},
        {"price": "cheap"},
        {"factor": -1},
        {"factor": 2, "price": "0.04"},
        {"budget": "-1"},
        {"limits": 0},
    ],
    ids=str,
)
def test_an_account_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    """P2: a ConfigError at once."""
    with pytest.raises(ConfigError):
        Account("bfl", **options)


def test_a_key_is_in_no_repr() -> None:
    """Neither the account nor the pool shows its key."""
    given = Account("bfl", api_key="sk-secret")
    assert "sk-secret" not in repr(given) + repr(FluxPool([given])) + str(given)


@pytest.mark.asyncio
async def test_a_missing_key_names_its_account() -> None:
    """On entry: which account has no key."""
    with pytest.raises(ConfigError, match=r"account second: .*BFL_API_KEY"):
        async with FluxPool([Account("cometapi", api_key="k"), Account("bfl", name="second")]):
            pass


async def _stopped(
    accounts: tuple[Account, ...], sims: list[Simulator], folder: Path, *, jobs: int
) -> None:
    """Stop a run as soon as it has so many jobs, of which none has ended."""
    async with pool(*accounts) as flux, Batch(flux, small_requests(jobs), out=folder) as batch:
        await until(lambda: sum(charged(*sims)) == jobs)
        batch.stop(0)
        assert [outcome async for outcome in batch] == []


def _end_jobs(*sims: Simulator) -> None:
    for sim in sims:
        for job in sim.world._state.jobs._by_id.values():
            job.ends_at = job.started_at


#: a model that CometAPI has and BFL has not
ONLY_COMETAPI = "flux-pro"


@pytest.mark.parametrize("out_by", ["credit", "budget"])
@pytest.mark.asyncio
async def test_an_account_that_is_out_leaves_the_other_models_to_the_others(
    out_by: str, tmp_path: Path
) -> None:
    """Images of a model that only it has wait for the next run; the run makes all others, and ends
    with the account's error."""
    scenario = Scenario(credits=10, **QUICK) if out_by == "credit" else Scenario(**QUICK)
    budget = {"budget": "0.30"} if out_by == "budget" else {}
    requests = [
        request if index % 2 else ImageRequest(prompt=f"only {index}", model=ONLY_COMETAPI)
        for index, request in enumerate(small_requests(40))
    ]
    async with simulators(scenario, Scenario(**QUICK)) as sims:
        first = account(sims[0], "first", limits=4, provider="cometapi", **budget)
        async with pool(first, account(sims[1], "other", limits=4, provider="bfl")) as flux:
            outcomes, error = await run_out(Batch(flux, requests, out=tmp_path))
    assert isinstance(error, CreditError if out_by == "credit" else BudgetExceeded)
    made = [each for each in outcomes if isinstance(each, Saved)]
    assert len(made) == len(outcomes)
    assert sum(each.request.model != ONLY_COMETAPI for each in made if each.request) == 20


@pytest.mark.asyncio
async def test_an_image_that_no_account_was_sent_is_no_failure(tmp_path: Path) -> None:
    """One account is left out because it refused all requests, and the budget of the other is used
    up: the run ends by the budget, and images that were not sent have not failed."""
    async with simulators(Scenario(**QUICK), Scenario(**QUICK)) as sims:
        accounts = (account(sims[0], "refuses"), account(sims[1], "small", budget="0.125"))
        async with pool(*accounts) as flux:
            batch = Batch(flux, small_requests(100), out=tmp_path)
            refused = InvalidRequest("the first 20 requests were all refused", status=422)
            batch._pool._breaker.beside(flux._engine.engines[0].submitter.breaker).trip(refused)
            outcomes, error = await run_out(batch)
    assert isinstance(error, BudgetExceeded)
    assert tally(outcomes) == {"saved": 5}
    assert charged(*sims) == [0, 5]


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.asyncio
async def test_a_caller_that_is_cancelled_leaks_no_slot(turns: int) -> None:
    """Whenever it is cancelled after a slot became free, the slot is free for the next caller."""
    scenario = Scenario(active_limit=1, **QUICK)
    async with (
        simulators(scenario, scenario) as sims,
        pool(account(sims[0], "a", limits=1), account(sims[1], "b", limits=1)) as flux,
    ):
        held = [(each, each.limiter.take_now("account")) for each in flux._engine.engines]
        calling = asyncio.create_task(flux.generate("q", width=256, height=256))
        await asyncio.sleep(0.05)  # it waits in both accounts
        for engine, lease in held[:1]:
            assert lease is not None
            engine.submitter.give_back(lease)
        for _ in range(turns):
            await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait({calling})
        for engine, lease in held[1:]:
            assert lease is not None
            engine.submitter.give_back(lease)
        await until(lambda: flux.in_flight == len(sims[0].charges) + len(sims[1].charges))


@pytest.mark.asyncio
async def test_bad_requests_of_an_apps_users_leave_no_account_out() -> None:
    """Without a batch, requests do not come from one source."""
    async with (
        simulators(Scenario(**QUICK), Scenario(**QUICK)) as sims,
        pool(account(sims[0], "a"), account(sims[1], "b")) as flux,
    ):
        for _ in range(41):
            with pytest.raises(InvalidRequest):
                await flux.generate("q", extra_body={"width": "wide"}, height=256)
        assert not flux.left_out
        await flux.generate("q", width=256, height=256)


@pytest.mark.asyncio
async def test_a_doubt_has_the_price_of_its_account(tmp_path: Path) -> None:
    """P7: the outcome and the summary say what the record and the cap count."""
    scenario = Scenario(faults=["lost-reply"], **QUICK)
    async with simulators(scenario) as sims, pool(account(sims[0], "dear", factor=2)) as flux:
        batch = Batch(flux, small_requests(2), out=tmp_path)
        outcomes, _ = await run_out(batch)
    assert tally(outcomes) == {"in doubt": 2}
    assert [each.price for each in outcomes if isinstance(each, InDoubt)] == [2 * PRICE] * 2
    assert batch.summary.in_doubt_cost == 4 * PRICE
    assert (await status(tmp_path)).counts.in_doubt_price == 4 * PRICE
