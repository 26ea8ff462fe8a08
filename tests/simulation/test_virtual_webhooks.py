"""Callbacks wake the pollers of their jobs: real sessions and batches in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from support.callbacks import (
    HOOK,
    SECRET,
    CalledRun,
    RecordingTransport,
    called_run,
    called_session,
)
from support.simulator_sessions import small_requests, tally
from support.virtual_time import run
from support.world_transport import ORIGIN

from fluxasync import (
    Batch,
    ConfigError,
    FluxSession,
    ImageRequest,
    MemoryLedger,
    MemorySink,
    Outcome,
    Polling,
    Retry,
    ServerError,
)
from fluxasync._wire.redaction import NOTHING
from fluxasync.simulator import Callback, Scenario, World
from fluxasync.simulator.webhook_forms import WebhookForm
from fluxasync.webhooks import Webhook

SCENARIO = Scenario(latency=1, latency_cv=0.2, image_bytes=1, seed=3)


def made(
    count: int = 200, *, faults: Any = (), dialect: str = "cometapi", **more: Any
) -> CalledRun:
    """Make images with these faults of callbacks; all of them are saved."""
    scenario = evolve(SCENARIO, faults=faults, **more.pop("scenario", {}))
    result = run(called_run(scenario, small_requests(count), dialect=dialect, **more))
    assert tally(result.outcomes) == {"saved": count}
    assert result.world.posts == count
    assert result.world.downloads == count
    return result


@pytest.mark.parametrize("dialect", ["cometapi", "bfl"])
def test_callbacks_replace_most_polls(dialect: str) -> None:
    """One poll an image is enough where every job calls back, and its end is seen at once."""
    result = made(300, dialect=dialect)
    assert result.polls <= 1.1
    assert result.lag <= 0.05


def test_the_first_jobs_polls_end_with_the_first_callbacks() -> None:
    """Two waves of 24 jobs need a poll each, and few before it is known that callbacks come."""
    assert made(48).polls <= 1.2


def test_callbacks_that_never_come_cost_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """F96: the images, polls and seconds are those of a run without a webhook; one warning."""
    usual = made(polling=Polling())
    silent = made(faults=["hook-lost"], polling=Polling(webhook=HOOK, webhook_wait=3))
    assert silent.polls == usual.polls
    assert silent.seconds == usual.seconds
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["callbacks do not arrive at https://app.invalid/hook: polling as usual"]


def read_with(change: Callable[[Callback], Callback]) -> Any:
    """A journey on which a callback is changed."""

    async def post(callback: Callback, deliver: Callable[[Callback], int]) -> int:
        return deliver(change(callback))

    return post


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda callback: evolve(callback, headers={}, body=b"{}"),
            r"[1-9]\d* callbacks arrived at https://app.invalid/hook and none had the proof; "
            r"check the webhook's secret and its signature \(--webhook-signature\): polling .*",
        ),
        (
            lambda callback: evolve(callback, url="https://app.invalid/hook/" + "0" * 32),
            r"[1-9]\d* callbacks arrived at https://app.invalid/hook and none had a token of this "
            r"session; check that your proxy .*: polling as usual",
        ),
        (
            lambda callback: evolve(callback, body=b"x" * 70_000),
            r"[1-9]\d* calls arrived at https://app.invalid/hook and none was a complete POST of "
            r"up to 64 KB: polling as usual",
        ),
    ],
)
def test_callbacks_that_are_refused_are_not_said_to_be_missing(
    change: Callable[[Callback], Callback], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The one warning says how many arrived and what they lacked."""
    made(100, post=read_with(change), polling=Polling(webhook=HOOK, webhook_wait=3))
    [line] = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(said, line)


def test_callbacks_that_come_much_later_cost_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """F92 F96: a call 10 to 60 seconds after the end is no reason to wait for the next one."""
    usual = made(polling=Polling())
    late = made(faults=["hook-late"], polling=Polling(webhook=HOOK, webhook_wait=3))
    assert late.polls <= usual.polls * 1.1
    assert late.seconds <= usual.seconds * 1.1


def test_a_callback_that_is_slower_than_the_first_poll_is_no_reason_for_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A call that takes a second to arrive comes after the poll that saw the end."""

    async def slow(callback: Callback, deliver: Callable[[Callback], int]) -> int:
        await asyncio.sleep(1)
        return deliver(callback)

    made(100, post=slow, polling=Polling(webhook=HOOK, webhook_wait=0))
    assert not caplog.records


def test_no_warning_before_the_wait_is_over(caplog: pytest.LogCaptureFixture) -> None:
    """A short run without callbacks says nothing."""
    made(50, faults=["hook-lost"])
    assert not caplog.records


def test_a_lost_callback_costs_one_late_poll() -> None:
    """F96: with a tenth of the callbacks lost a run takes a little longer than without a loss."""
    usual, lossy = made(300, polling=Polling()), made(300, faults={"hook-lost": 0.1})
    assert lossy.polls < 3
    assert lossy.seconds < usual.seconds * 1.2


def test_repeated_callbacks_cost_no_second_download() -> None:
    """F90: five calls for each end are one poll, or two."""
    result = made(100, faults=["hook-repeats"])
    assert result.polls <= 1.5


def test_callbacks_in_the_wrong_order_change_nothing() -> None:
    """F92: a progress event after the last callback is ignored."""
    result = made(100, faults=["hook-disorder"])
    assert result.polls <= 1.5


def test_a_callback_before_the_answer_of_its_submission_is_kept() -> None:
    """F93: the job is polled as soon as it is watched."""
    result = made(100, faults=["hook-early"])
    assert result.polls == 1
    assert result.lag < 0.6  # of which the answer of the submission takes 0.5


@pytest.mark.parametrize("fault", ["hook-forged", "hook-replay"])
def test_a_forged_or_replayed_callback_is_no_fact(fault: str) -> None:
    """F91 F92 F97: nothing is fetched from the address in it, and at most one poll follows."""
    result = made(100, faults=[fault], dialect="bfl")
    assert result.polls <= 2
    assert all("attacker" not in request.path for request in result.world.requests)


def test_a_progress_event_costs_one_poll_and_the_usual_schedule_goes_on() -> None:
    """A call for a job that still runs is not the end of it."""
    usual = made(100, polling=Polling())
    result = made(100, scenario={"webhooks": WebhookForm(payload="progress")})
    assert result.polls <= usual.polls + 3
    assert result.seconds <= usual.seconds * 1.05


def test_a_flood_of_callbacks_does_not_become_a_flood_of_polls() -> None:
    """F90: a hundred calls a second, for 20 seconds, for a job that runs are a few polls."""

    async def story(calls: int) -> int:
        world = World(evolve(SCENARIO, latency=(30, 30)))
        transport = RecordingTransport(world)
        async with called_session(world, transport=transport) as flux:
            watching = asyncio.create_task(flux.generate("a fox"))
            await asyncio.sleep(1)
            for _ in range(calls):
                assert ring(flux, transport.tokens[0]) == 200
                await asyncio.sleep(0.01)
            await watching
            return world.polls

    assert run(story(2000)) <= run(story(0)) + 12


def ring(flux: FluxSession, token: str, payload: object = None) -> int:
    """Call a session's webhook with its secret; return the status."""
    assert flux.receiver is not None
    body = json.dumps(payload).encode()
    return flux.receiver.receive(token, {"x-webhook-secret": SECRET}, body)


@pytest.mark.parametrize(
    "own",
    [
        {"webhook_url": "https://mine.invalid/x"},
        {"webhook_secret": "mine"},
        {"extra_body": {"webhook_url": "https://mine.invalid/x"}},
    ],
    ids=["url", "secret", "unchecked"],
)
def test_a_rows_own_webhook_is_left_alone(own: dict[str, Any]) -> None:
    """Neither the session's address nor its secret is sent; the job is polled as usual."""

    async def story() -> list[dict[str, Any]]:
        world = World(SCENARIO)
        transport = RecordingTransport(world)
        async with called_session(world, transport=transport) as flux:
            await flux.generate(ImageRequest(prompt="a fox", **own))
            return transport.posts

    sent = {name: value for name, value in run(story())[0].items() if name.startswith("webhook")}
    assert sent == own.get("extra_body", own)


def test_each_submission_has_an_address_of_its_own_and_the_key_does_not_depend_on_it() -> None:
    """The token is the attempt's; the webhook's fields are in the body only."""

    async def story() -> tuple[list[dict[str, Any]], list[Outcome]]:
        world = World(SCENARIO)
        transport = RecordingTransport(world)
        async with called_session(world, transport=transport) as flux:
            requests = small_requests(2)
            batch = Batch(flux, requests, out=MemorySink(), ledger=MemoryLedger())
            async with batch:
                return transport.posts, [outcome async for outcome in batch]

    posts, outcomes = run(story())
    addresses = [post["webhook_url"] for post in posts]
    assert all(re.fullmatch(r"https://app.invalid/hook/[0-9a-f]{32}", url) for url in addresses)
    assert len(set(addresses)) == 2
    assert {post["webhook_secret"] for post in posts} == {SECRET}
    assert {o.request.key for o in outcomes} == {r.key for r in small_requests(2)}
    assert all(outcome.request.webhook_url is None for outcome in outcomes)


def test_a_callback_for_a_refused_submission_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It would prove that a refusal was charged."""

    async def story() -> None:
        world = World(evolve(SCENARIO, faults=["503"]))
        transport = RecordingTransport(world)
        retry = Retry(patience=1)
        async with called_session(world, transport=transport, retry=retry) as flux:
            with pytest.raises(ServerError):
                await flux.generate("a fox")
            caplog.clear()
            for _ in range(3):
                assert ring(flux, transport.tokens[0], {"id": "job-1"}) == 200

    run(story())
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "the provider had refused" in record.getMessage()
    assert not re.search("[0-9a-f]{32}", record.getMessage())


def test_a_callback_that_names_another_job_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning, no poll."""

    async def story() -> tuple[int, int]:
        world = World(evolve(SCENARIO, latency=(30, 30)))
        transport = RecordingTransport(world)
        async with called_session(world, transport=transport) as flux:
            watching = asyncio.create_task(flux.generate("a fox"))
            await asyncio.sleep(0.5)
            before = world.polls
            for number in range(10):
                ring(flux, transport.tokens[0], {"id": f"job-{number}"})
                await asyncio.sleep(0.01)
            polls = world.polls - before
            return polls, len(await asyncio.gather(watching))

    assert run(story()) == (0, 1)
    assert [record.getMessage()[:23] for record in caplog.records] == ["callbacks name two jobs"]


def test_the_webhook_stays_for_the_life_of_a_session() -> None:
    """Another lag keeps it; another webhook is refused."""
    flux = FluxSession(base_url=ORIGIN, polling=Polling(webhook=HOOK))
    flux.polling = 0.1
    assert (flux.polling.lag, flux.polling.webhook) == (0.1, HOOK)
    with pytest.raises(ConfigError, match="cannot be changed"):
        flux.polling = Polling(webhook=Webhook(url="https://other.invalid/hook"))


def test_an_images_url_that_resembles_a_webhooks_address_is_kept() -> None:
    """P7: the token in an echoed address is hidden, and no part of an image's URL is taken for one:
    a changed URL would lose a paid image."""
    hook = Webhook(url="https://app.invalid/f", secret=SECRET)  # parts of image URLs end in f
    made(100, polling=Polling(webhook=hook))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://cdn.invalid/hook/{}/sample.jpeg?se=1", None),
        ("https://cdn.invalid/hook/{}.jpeg", None),
        ("https://cdn.invalid/hook/{}_sample.jpeg", None),
        ("https://cdn.invalid/hook/{}?se=1&sig=2", None),
        ("https://cdn.invalid/ahook/{}", None),
        ("https://app.invalid/hook/{}", "https://app.invalid/hook/(token)"),
        ("no answer from /hook/{}.", "no answer from /hook/(token)."),
        ("called %2Fhook%2F{}, twice", "called %2Fhook%2F(token), twice"),
    ],
)
def test_only_an_address_that_ends_with_a_token_is_hidden(text: str, shown: str | None) -> None:
    """T2: the path of an image may have a part of 32 hexadecimal digits, and goes on after it."""
    given = text.format("0123456789abcdef" * 2)
    redaction = NOTHING.with_addresses("https://app.invalid/hook")
    assert redaction.text(given) == (shown or given)
    assert redaction.body(given.encode()) == (shown or given).encode()
