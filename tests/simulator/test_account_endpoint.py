"""The account's calls of the simulator, without sockets; its clock is a number."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from fluxasync.simulator import Answer, Scenario, World
from fluxasync.simulator.images import Gallery

EPOCH = 1_766_072_345  # the wall clock at 0
GALLERY = Gallery(image_bytes=5_000, painter=None)
TOKEN = "the-access-token"


def world_of(**scenario: Any) -> World:
    scenario = {"latency": (10, 10), "active_limit": 1000} | scenario
    return World(Scenario(**scenario), gallery=GALLERY)


def submit(world: World, now: float = 0.0, **headers: str) -> str:
    body = json.dumps({"prompt": "a fox"}).encode()
    sent = {"Authorization": "Bearer k"} | headers
    answer = world.submit(now, dialect="comet", model="flux-dev", headers=sent, body=body)
    return str(answer.json.get("id"))


def ask(world: World, path_query: str, now: float = 100.0, secret: str = TOKEN) -> Answer:
    headers = {"Authorization": f"Bearer {secret}"}
    answer = world.account(now, path_query=path_query, headers=headers)
    assert answer is not None
    return answer


def items(world: World, path_query: str, now: float = 100.0) -> list[dict[str, Any]]:
    found = ask(world, path_query, now).json
    assert found["success"]
    return list(found["data"]["items"])


def test_a_task_has_the_documented_fields() -> None:
    """cometapi-cli 0.3.10 and QuantumNous/new-api: id, platform, status, Unix times, quota."""
    world = world_of()
    job_id = submit(world)
    (task,) = items(world, "/api/task/self", now=5)
    assert task["task_id"] == job_id
    assert (task["platform"], task["status"], task["finish_time"]) == ("flux", "IN_PROGRESS", 0)
    assert (task["submit_time"], task["quota"]) == (EPOCH, 12_500)
    assert task["properties"]["origin_model_name"] == "flux-dev"
    (task,) = items(world, "/api/task/self", now=11)
    assert (task["status"], task["finish_time"]) == ("SUCCESS", EPOCH + 10)


def test_pages_times_and_platforms_choose_tasks() -> None:
    """Newest first, at most 100 a page, 10 unless asked for more; times are inclusive."""
    world = world_of()
    ids = [submit(world, float(second)) for second in range(120)]
    path = "/api/task/self?page_size=500"
    assert [task["task_id"] for task in items(world, path, 500)] == ids[:19:-1]
    assert [task["task_id"] for task in items(world, f"{path}&p=2", 500)] == ids[19::-1]
    assert items(world, f"{path}&p=3", 500) == []
    assert len(items(world, "/api/task/self", 500)) == 10
    chosen = f"{path}&start_timestamp={EPOCH + 3}&end_timestamp={EPOCH + 5}"
    assert [task["task_id"] for task in items(world, chosen, 500)] == ids[5:2:-1]
    assert ask(world, chosen, 500).json["data"]["total"] == 3
    assert items(world, f"{path}&platform=suno", 500) == []
    assert len(items(world, f"{path}&platform=flux", 500)) == 100


def test_a_charge_without_an_answer_is_listed() -> None:
    """The list has what was charged, not what was answered; refused submissions are not in it."""
    world = world_of(faults=["lost-reply"])
    body = json.dumps({"prompt": "a fox"}).encode()
    lost = world.submit(0, dialect="comet", model="flux-dev", headers={}, body=body)
    assert lost.drop
    world.submit(0, dialect="comet", model="flux-dev", headers={}, body=b"{}x")
    (task,) = items(world, "/api/task/self")
    assert [charge.job_id for charge in world.charges] == [task["task_id"]]


def test_a_delay_and_faults_keep_a_task_from_the_list() -> None:
    """`list_delay` is for every job, task-late adds ten minutes, task-unlisted is for ever."""
    plain, late, never = (
        world_of(list_delay=30, faults=faults) for faults in ([], ["task-late"], ["task-unlisted"])
    )
    for world in (plain, late, never):
        submit(world)
    path = "/api/task/self"
    assert [len(items(plain, path, now)) for now in (29, 30)] == [0, 1]
    assert [len(items(late, path, now)) for now in (30, 629, 630)] == [0, 0, 1]
    assert items(never, path, 1e6) == []


def test_a_failed_job_is_refunded_when_it_ends() -> None:
    """With `refunds` the log has a refund and the balance rises; the record of charges stays."""
    world = world_of(faults=["error"], refunds=True, credits=100)
    submit(world)
    kinds = [row["type"] for row in items(world, "/api/log/self", 9)]
    assert kinds == [2]
    assert ask(world, "/api/user/self", 9).json["data"] == {"quota": 487_500, "used_quota": 12_500}
    refund, consumed = items(world, "/api/log/self", 10)
    assert (refund["type"], consumed["type"]) == (6, 2)
    assert refund["quota"] == consumed["quota"] == 12_500
    assert refund["created_at"] == EPOCH + 10
    assert ask(world, "/api/user/self", 10).json["data"] == {"quota": 500_000, "used_quota": 0}
    assert [charge.price_usd for charge in world.charges] == [Decimal("0.025")]
    assert len(items(world_of(faults=["error"]), "/api/log/self", 10)) == 0


def test_a_failed_job_of_bfl_is_refunded_in_credits() -> None:
    """BFL has no log, so only the balance shows it; CometAPI's lists never have a job of BFL."""
    world = world_of(faults=["moderated-content"], refunds=True, credits=100)
    body = json.dumps({"prompt": "a fox"}).encode()
    world.submit(0, dialect="bfl", model="flux-dev", headers={"x-key": "k"}, body=body)
    left = [world.credits(now, {"x-key": "k"}).json["credits"] for now in (9, 10)]
    assert left == [97.5, 100]
    assert [charge.price_usd for charge in world.charges] == [Decimal("0.025")]
    for path in ("/api/task/self", "/api/log/self"):
        assert items(world, path) == []


def test_each_call_needs_its_own_secret() -> None:
    """The key opens the key's balance only, the access token everything else."""
    world = world_of(key="k", access_token=TOKEN, credits=100)
    for path in ("/api/user/self", "/api/task/self", "/api/log/self"):
        assert ask(world, path).status == 200
        refused = ask(world, path, secret="k")
        assert (refused.status, refused.json["success"]) == (401, False)
    for name, expected in (("subscription", "hard_limit_usd"), ("usage", "total_usage")):
        path = f"/v1/dashboard/billing/{name}"
        assert expected in ask(world, path, secret="k").json
        assert ask(world, path).status == 401
    assert world.account(0, path_query="/api/other", headers={}) is None


def test_a_token_in_another_call_is_a_leak() -> None:
    """`leaks` counts submissions, polls and downloads that have the access token."""
    world = world_of(access_token=TOKEN)
    submit(world)
    assert not world.leaks
    submit(world, Cookie=f"session={TOKEN}")
    world.deliver(1, path_query="/x", headers={"Authorization": f"Bearer {TOKEN}"})
    assert world.leaks["token"] == 2


@pytest.mark.parametrize(
    ("fault", "status", "start"),
    [
        ("list-html", 200, b"<html>"),
        ("list-401", 401, b'{"success":false'),
        ("list-false", 200, b'{"success":false'),
    ],
)
def test_a_fault_replaces_the_answer(fault: str, status: int, start: bytes) -> None:
    """Faults named list-… are drawn for every call, and counted."""
    world = world_of(faults=[fault])
    answer = ask(world, "/api/task/self")
    assert answer.status == status
    assert answer.body.startswith(start)
    assert world.faults[fault] == 1


def test_pages_can_repeat_a_row_or_end_early() -> None:
    """As where tasks arrive between two pages, and where a page is lost."""
    for fault, expected in (("list-repeats", 11), ("list-cut", 0)):
        world = world_of(faults=[fault])
        for _ in range(30):
            submit(world)
        first, second = (items(world, f"/api/task/self?p={page}") for page in (1, 2))
        assert (len(first), len(second)) == (10, expected)
        assert fault == "list-cut" or first[-1] == second[0]


def test_an_earlier_simulators_jobs_are_listed() -> None:
    """A job log continues the list too."""
    earlier = world_of()
    job_id = submit(earlier)
    job = earlier._state.jobs.by_id(0, job_id)
    assert job is not None
    for name in ("started_at", "ends_at"):
        setattr(job, name, getattr(job, name) + earlier._state.epoch)
    job.charge.at += earlier._state.epoch
    later = world_of()
    later.resume(50, [job])
    assert [task["task_id"] for task in items(later, "/api/task/self", 60)] == [job_id]


def test_the_command_line_sets_the_delay_and_refunds() -> None:
    """Values that are not given keep their defaults."""
    given = Scenario.parse(list_delay=5.0, refunds=True)
    assert (given.list_delay, given.refunds) == (5.0, True)
    assert (Scenario.parse().list_delay, Scenario.parse().refunds) == (0.0, False)
    with pytest.raises(ValueError, match="list_delay"):
        Scenario.parse(list_delay=-1.0)
