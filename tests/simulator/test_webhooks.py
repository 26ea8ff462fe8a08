"""Callbacks of the simulator, without sockets; its clock is a number."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from fluxasync.simulator import Callback, Scenario, WebhookForm, World
from fluxasync.simulator.images import Gallery

GALLERY = Gallery(image_bytes=5_000, painter=None)
EPOCH = 1_766_072_345  # 2025-12-18T15:39:05Z, the wall clock at 0
URL = "https://app.invalid/hook/the-token"
SECRET = "the-webhook-secret"


def world_of(*faults: str, **scenario: Any) -> World:
    scenario = {"latency": (10, 10), "active_limit": 1000, "faults": faults} | scenario
    return World(Scenario(**scenario), epoch=EPOCH, gallery=GALLERY)


def submit(world: World, now: float = 0.0, *, dialect: Any = "bfl", **body: Any) -> Any:
    """Submit with a webhook; return the answer."""
    sent = {"prompt": "a fox", "seed": 7, "webhook_url": URL, "webhook_secret": SECRET} | body
    text = json.dumps({name: value for name, value in sent.items() if value is not None})
    return world.submit(
        now, dialect=dialect, model="flux-dev", headers={"x-key": "k"}, body=text.encode()
    )


def delivered(world: World, until: float = 1000.0) -> list[tuple[float, dict[str, Any]]]:
    """Take every callback and answer 200; return due times and payloads."""
    callbacks = world.callbacks(until)
    for callback in callbacks:
        world.called_back(callback.due, callback, 200)
    return [(callback.due, json.loads(callback.body)) for callback in callbacks]


def only(world: World, until: float = 1000.0) -> Callback:
    (callback,) = world.callbacks(until)
    return callback


def mac(secret: str, body: bytes) -> str:
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


# ------------------------------------------------------------------------------- one good callback


def test_a_job_with_a_webhook_calls_back_once_at_its_end() -> None:
    """BFL's skills repository: id, Ready, the result with a live URL, and the time of the end."""
    world = world_of()
    job_id = submit(world).json["id"]
    assert world.next_callback_at == 10
    assert world.callbacks(9.9) == []
    callback = only(world, 10.0)
    assert (callback.url, callback.due, callback.job_id) == (URL, 10, job_id)
    payload = json.loads(callback.body)
    assert (payload["id"], payload["status"]) == (job_id, "Ready")
    assert (payload["result"]["prompt"], payload["result"]["seed"]) == ("a fox", 7)
    assert payload["timestamp"] == "2025-12-18T15:39:15Z"
    path_query = "/" + payload["result"]["sample"].split("/", 3)[3]
    assert world.deliver(11.0, path_query=path_query, headers={}).status == 200
    assert (world.callbacks(1000.0), world.next_callback_at) == ([], None)


def test_without_a_webhook_nothing_is_called() -> None:
    """A submission without webhook_url has no callback."""
    world = world_of()
    submit(world, webhook_url=None)
    assert (world.callbacks(1000.0), dict(world.callback_counts)) == ([], {})


def test_neither_the_url_nor_the_secret_is_in_a_repr() -> None:
    """P22: a webhook's URL holds a token."""
    callback_world = world_of(webhooks="field")
    submit(callback_world)
    shown = repr(only(callback_world)) + repr(callback_world)
    assert "the-token" not in shown
    assert SECRET not in shown


@pytest.mark.parametrize("fault", ["lost-reply", "500", "502-html"])
def test_a_charge_without_an_answer_calls_back_as_well(fault: str) -> None:
    """That is what settles an image in doubt. A submission that is not charged is silent."""
    world = world_of(fault)
    answers = [submit(world) for _ in range(20)]
    assert all(answer.drop or answer.status != 200 for answer in answers)
    called = [payload["id"] for _, payload in delivered(world)]
    assert called == [charge.job_id for charge in world.charges]
    assert called


# -------------------------------------------------------------------------- signatures and payloads


@pytest.mark.parametrize(
    ("dialect", "webhooks", "expected"),
    [
        pytest.param("bfl", None, "hmac", id="BFL's skills repository"),
        pytest.param("comet", None, "field", id="CometAPI's page"),
        pytest.param("comet", "hmac", "hmac", id="hmac"),
        pytest.param("bfl", "header", "header", id="BFL docs"),
        pytest.param("bfl", "field", "field", id="field"),
        pytest.param("bfl", "none", "none", id="one-api"),
    ],
)
def test_a_callback_is_signed_in_one_way_only(
    dialect: str, webhooks: str | None, expected: str
) -> None:
    """HMAC of the raw body, the secret as a header, the secret in the payload, or unsigned."""
    world = world_of(webhooks=webhooks)
    submit(world, dialect=dialect)
    callback = only(world)
    found = {
        "hmac": callback.headers.get("X-BFL-Signature") == mac(SECRET, callback.body),
        "header": callback.headers.get("X-Webhook-Secret") == SECRET,
        "field": json.loads(callback.body).get("webhook_secret") == SECRET,
    }
    assert [name for name, is_there in found.items() if is_there] == [expected][
        : expected != "none"
    ]
    assert len(callback.headers) == 1 + (expected in ("hmac", "header"))


@pytest.mark.parametrize("webhooks", ["hmac", "header", "field"])
def test_without_a_secret_a_callback_is_unsigned(webhooks: str) -> None:
    """There is nothing to sign with."""
    world = world_of(webhooks=webhooks)
    submit(world, webhook_secret=None)
    callback = only(world)
    assert dict(callback.headers) == {"Content-Type": "application/json"}
    assert "webhook_secret" not in json.loads(callback.body)


def test_the_older_payload_has_a_task_id() -> None:
    """gHashTag/ai-server: task_id, SUCCESS, progress 100."""
    world = world_of(webhooks="task_id")
    job_id = submit(world).json["id"]
    payload = json.loads(only(world).body)
    assert "id" not in payload
    assert (payload["task_id"], payload["status"], payload["progress"]) == (job_id, "SUCCESS", 100)
    assert (payload["result"]["duration"], payload["cost"]) == (10, 2.5)


def test_progress_events_come_before_the_end() -> None:
    """one-api: progress has a task_id, the final event an id."""
    world = world_of(webhooks="progress")
    job_id = submit(world).json["id"]
    events = delivered(world)
    assert [(at, payload["status"]) for at, payload in events] == [
        (0, "processing"), (5, "processing"), (10, "Ready"),
    ]  # fmt: skip
    assert [payload.get("task_id") for _, payload in events] == [job_id, job_id, None]
    assert events[2][1]["id"] == job_id


@pytest.mark.parametrize(
    ("fault", "webhooks", "expected"),
    [
        pytest.param("error", "id", {"status": "Error", "error": "generation_failed"}, id="error"),
        pytest.param("error", "task_id", {"status": "FAILED"}, id="error, task_id"),
        pytest.param(
            "moderated-content", "id",
            {"error": "content_policy_violation", "message": "Content Moderated"},
            id="moderated",
        ),
        pytest.param(
            "moderated-request", "task_id", {"status": "FAILED", "error": "Request Moderated"},
            id="moderated, task_id",
        ),
    ],
)  # fmt: skip
def test_a_failure_calls_back_as_well(fault: str, webhooks: str, expected: dict[str, str]) -> None:
    """Failed and moderated jobs have a payload of their own, without a result."""
    world = world_of(fault, webhooks=webhooks)
    submit(world)
    payload = json.loads(only(world).body)
    assert expected == {name: payload[name] for name in expected}
    assert "result" not in payload


def test_a_job_that_never_ends_never_calls_back() -> None:
    """pending-forever: there is no end to report."""
    world = world_of("pending-forever")
    submit(world)
    assert world.callbacks(100_000.0) == []


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("header", WebhookForm(signature="header", payload="id")),
        ("task_id", WebhookForm(signature="hmac", payload="task_id")),
        ("field/progress", WebhookForm(signature="field", payload="progress")),
    ],
)
def test_a_form_is_read_from_text(text: str, form: WebhookForm) -> None:
    """SIGNATURE/PAYLOAD, or one of the two."""
    assert Scenario.parse(webhooks=text).webhooks == form


@pytest.mark.parametrize("text", ["", "sha256", "hmac/hmac", "hmac/id/x", "id/"])
def test_another_form_is_refused_with_the_words(text: str) -> None:
    """The error lists what can be said."""
    with pytest.raises(ValueError, match="signatures: hmac, header, field, none; payloads: id,"):
        Scenario.parse(webhooks=text)


# ----------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("status", [None, 302, 401, 500])
def test_a_callback_is_sent_again_after_1_5_and_30_seconds_then_never(status: int | None) -> None:
    """BFL's skills repository: three retries of the same bytes, on anything but 2xx."""
    world = world_of()
    submit(world)
    first = only(world, 10.0)
    now, sent, bodies = 10.0, [], set()
    callback = first
    while True:
        world.called_back(now, callback, status)
        if world.next_callback_at is None:
            break
        now = world.next_callback_at
        callback = only(world, now)
        sent.append((now, callback.attempt))
        bodies.add(callback.body)
    assert sent == [(11, 2), (16, 3), (46, 4)]
    assert bodies == {first.body}
    assert dict(world.callback_counts) == {"sent": 4, "retried": 3, "abandoned": 1}


@pytest.mark.parametrize("status", [200, 204])
def test_a_2xx_ends_the_retries(status: int) -> None:
    """One answer is enough."""
    world = world_of()
    submit(world)
    world.called_back(10.0, only(world), status)
    assert world.next_callback_at is None
    assert dict(world.callback_counts) == {"sent": 1, "delivered": 1}


# ------------------------------------------------------------------------------------------ faults


def test_a_lost_callback_is_never_sent() -> None:
    """The provider forgot it, or a gateway dropped the field. The job itself is well."""
    world = world_of("hook-lost", webhooks="progress")
    submit(world)
    assert world.callbacks(10_000.0) == []
    assert (world.faults["hook-lost"], len(world.charges)) == (1, 1)


def test_a_late_callback_comes_tens_of_seconds_after_the_end() -> None:
    """The time in its payload is still that of the end."""
    world = world_of("hook-late")
    for _ in range(50):
        submit(world)
    events = delivered(world)
    lags = [at - 10 for at, _ in events]
    assert 10 <= min(lags) < 15 < 55 < max(lags) <= 60
    assert {payload["timestamp"] for _, payload in events} == {"2025-12-18T15:39:15Z"}


def test_a_repeated_callback_is_sent_five_times() -> None:
    """The same bytes, at once."""
    world = world_of("hook-repeats")
    submit(world)
    callbacks = world.callbacks(10.0)
    assert [callback.due for callback in callbacks] == [10] * 5
    assert len({callback.body for callback in callbacks}) == 1
    assert world.callback_counts["sent"] == 5


@pytest.mark.parametrize("more", [(), ("lost-reply",)])
def test_an_early_callback_is_due_before_the_answer_of_the_submission(more: tuple[str]) -> None:
    """The job ends at once and its answer takes half a second, or never comes."""
    world = world_of("hook-early", *more)
    answer = submit(world, 100.0)
    assert (world.next_callback_at, answer.delay) == (100, 0.5)
    payload = json.loads(only(world, 100.0).body)
    assert (payload["id"], payload["status"]) == (world.charges[0].job_id, "Ready")


def test_an_early_callback_needs_a_webhook() -> None:
    """Jobs without one keep their duration."""
    world = world_of("hook-early")
    assert submit(world, webhook_url=None).delay == 0
    assert (world.active(9.9), world.faults["hook-early"]) == (1, 0)


def test_a_progress_event_may_come_after_the_end() -> None:
    """In any form of payload; its job id is under task_id."""
    world = world_of("hook-disorder")
    job_id = submit(world).json["id"]
    (end, last), (late, progress) = delivered(world)
    assert (last["status"], progress) == (
        "Ready", {"task_id": job_id, "status": "processing", "progress": 50},
    )  # fmt: skip
    assert end < late <= end + 1


@pytest.mark.parametrize("form", ["hmac", "header", "field"])
def test_a_forged_callback_names_an_unknown_job_and_has_a_bad_signature(form: str) -> None:
    """Beside the true one, earlier, with an image on a host of the forger."""
    world = world_of("hook-forged", webhooks=form)
    job_id = submit(world).json["id"]
    forged, true = world.callbacks(1000.0)
    assert (forged.is_false, true.is_false, forged.due) == (True, False, 5)
    assert (forged.url, forged.job_id) == (URL, job_id)
    payload = json.loads(forged.body)
    assert payload["status"] == "Ready"
    assert payload["id"] not in {charge.job_id for charge in world.charges}
    assert payload["result"]["sample"].startswith("http://images.attacker.invalid/")
    assert SECRET not in forged.body.decode() + repr(dict(forged.headers))
    assert forged.headers.get("X-BFL-Signature") != mac(SECRET, forged.body)


def test_a_replayed_callback_is_that_of_an_earlier_job_at_another_url() -> None:
    """Its signature is right: only the token in the URL and the id tell."""
    world = world_of("hook-replay")
    submit(world, 0.0)
    first = only(world, 10.0)
    second_id = submit(world, 20.0, webhook_url=f"{URL}-2").json["id"]
    replayed, true = world.callbacks(1000.0)
    assert (replayed.url, replayed.job_id, replayed.is_false) == (f"{URL}-2", second_id, True)
    assert (replayed.body, replayed.headers) == (first.body, first.headers)
    assert replayed.headers["X-BFL-Signature"] == mac(SECRET, replayed.body)
    assert json.loads(true.body)["id"] == second_id
    assert world.faults["hook-replay"] == 1


@pytest.mark.parametrize("fault", ["hook-forged", "hook-replay"])
def test_a_false_callback_is_not_sent_again(fault: str) -> None:
    """Only the provider retries."""
    world = world_of(fault)
    submit(world)
    world.callbacks(10.0)
    submit(world, 20.0)
    false = world.callbacks(25.0)[0]
    assert false.is_false
    world.called_back(25.0, false, 401)
    assert (world.next_callback_at, world.callback_counts["refused"]) == (30, 1)


def test_the_faults_of_callbacks_draw_at_their_rate() -> None:
    """Each job draws for itself, and the same seed gives the same history."""
    histories = []
    for _ in range(2):
        world = world_of("hook-lost:0.1", seed=3)
        for _ in range(1000):
            submit(world)
        histories.append(delivered(world))
    assert histories[0] == histories[1]
    assert 860 < len(histories[0]) < 940
