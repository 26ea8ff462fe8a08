"""The simulator without sockets; its clock is a number."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from hashlib import md5
from typing import Any

import pytest

from fluxasync.simulator import FAULTS, Answer, Scenario, World
from fluxasync.simulator.images import Gallery
from fluxasync.simulator.models import MODELS

DIALECTS = ("comet", "bfl")
AT_ONCE = (0.0, 0.0)
SIZE = 20_000
GALLERY = Gallery(image_bytes=SIZE)  # drawn once for all tests


def world_of(**scenario: Any) -> World:
    scenario.setdefault("latency", AT_ONCE)
    return World(Scenario(**scenario), gallery=GALLERY)


def submit(
    world: World,
    now: float = 0.0,
    *,
    dialect: Any = "comet",
    model: str = "flux-dev",
    key: str | None = "k",
    raw: bytes | None = None,
    **body: Any,
) -> Answer:
    headers = {} if key is None else {"x-key": key, "Authorization": f"Bearer {key}"}
    sent = raw if raw is not None else json.dumps({"prompt": "a fox"} | body).encode()
    return world.submit(now, dialect=dialect, model=model, headers=headers, body=sent)


def poll(world: World, job_id: str, now: float = 0.0, *, dialect: Any = "comet") -> Answer:
    region = world.region if dialect == "bfl" else None
    return world.poll(now, dialect=dialect, job_id=job_id, headers={}, host_region=region)


def made(world: World, now: float = 0.0, **more: Any) -> str:
    """Submit and return the job's id."""
    return str(submit(world, now, **more).json["id"])


def sample(world: World, job_id: str, now: float = 0.0) -> str:
    """Poll and return path and query of the image."""
    url = poll(world, job_id, now).json["result"]["sample"]
    return "/" + url.split("/", 3)[3]


def fetch(world: World, path_query: str, now: float = 0.0, **headers: str) -> Answer:
    return world.deliver(now, path_query=path_query, headers=headers)


# ------------------------------------------------------------------------------------ one good job


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_job_runs_is_ready_and_is_delivered_once(dialect: str) -> None:
    """Submit, poll while running, poll when ready, download: one charge, one delivery."""
    world = world_of(latency=(5, 5))
    accepted = submit(world, 100.0, dialect=dialect, seed=7).json
    running = poll(world, accepted["id"], 104.9, dialect=dialect)
    ready = poll(world, accepted["id"], 105.0, dialect=dialect).json
    assert accepted["polling_url"].endswith(f"/v1/get_result?id={accepted['id']}")
    assert (running.json["status"], running.json["result"]) == ("Pending", None)
    assert ready["status"] == "Ready"
    assert (ready["result"]["prompt"], ready["result"]["seed"]) == ("a fox", 7)
    assert ready["result"]["duration"] == 5.0
    image = fetch(world, "/" + ready["result"]["sample"].split("/", 3)[3], 106.0)
    assert (image.status, image.headers["Content-Type"]) == (200, "image/jpeg")
    assert len(image.body) == SIZE
    assert [charge.delivered for charge in world.charges] == [True]
    assert world.charges[0].price_usd == Decimal("0.025")


def test_flux1_reports_progress_and_flux2_cost() -> None:
    """FLUX.1 reports progress, and its cost when ready; FLUX.2 its cost at the submission."""
    world = world_of(latency=(10, 10))
    old = submit(world, dialect="bfl").json
    new = submit(world, dialect="bfl", model="flux-2-pro", width=1024, height=2048).json
    assert (old["cost"], new["cost"], new["output_mp"]) == (None, 4.5, 2.0)
    assert poll(world, old["id"], 5.0, dialect="bfl").json["progress"] == 0.6
    assert poll(world, new["id"], 5.0, dialect="bfl").json["progress"] is None
    assert poll(world, old["id"], 10.0, dialect="bfl").json["cost"] == 2.5
    assert "duration" not in poll(world, new["id"], 10.0, dialect="bfl").json["result"]


def test_a_successful_poll_has_a_small_retry_after() -> None:
    """Every successful poll has Retry-After 0 or 1 and the rate-limit headers."""
    world = world_of(latency=(9, 9))
    job_id = made(world)
    headers = [poll(world, job_id, 3.0).headers for _ in range(4)]
    assert {h["Retry-After"] for h in headers} == {"0", "1"}
    assert [h["X-RateLimit-Remaining"] for h in headers] == ["1199", "1198", "1197", "1196"]


def test_prompts_come_back_changed_only_when_upsampled() -> None:
    """The result repeats the prompt; prompt_upsampling changes it."""
    world = world_of()
    plain, upsampled = made(world), made(world, prompt_upsampling=True)
    assert poll(world, plain).json["result"]["prompt"] == "a fox"
    assert poll(world, upsampled).json["result"]["prompt"] != "a fox"


def test_durations_follow_the_model_and_have_a_tail() -> None:
    """Without a latency, durations scatter around the model's median."""
    world = world_of(latency=None, active_limit=10_000)
    jobs = [made(world, model="flux-pro-1.1") for _ in range(400)]
    times = [MODELS["flux-pro-1.1"].seconds * share for share in (0.4, 1, 10)]
    early, median, late = (
        sum(poll(world, job_id, at).json["status"] == "Ready" for job_id in jobs) for at in times
    )
    assert early < 20
    assert 150 < median < 250
    assert 395 <= late <= 400


@pytest.mark.parametrize(
    ("body", "size"),
    [
        pytest.param({}, (1024, 768), id="default"),
        pytest.param({"model": "flux-pro-1.1-ultra"}, (2752, 1536), id="ultra"),
        pytest.param(
            {"model": "flux-pro-1.1-ultra", "aspect_ratio": "1:1"}, (2048, 2048), id="1:1"
        ),
        pytest.param({"model": "flux-kontext-pro"}, (1024, 1024), id="kontext"),
        pytest.param({"model": "flux-2-pro", "width": 1000, "height": 500}, (992, 496), id="x16"),
        pytest.param(
            {"model": "flux-pro-1.0-expand", "image": "aGk=", "left": 100}, (1124, 768), id="expand"
        ),
    ],
)
def test_the_image_has_the_size_the_request_gives(
    body: dict[str, Any], size: tuple[int, int]
) -> None:
    """Width and height, an aspect ratio or the model's default determine the size."""
    world = world_of()
    spec = world.picture_spec(0.0, sample(world, made(world, **body)))
    assert spec is not None
    assert size == (spec.width, spec.height)


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_active_limit_is_429_until_a_job_ends(dialect: str) -> None:
    """P12: a job occupies a slot from acceptance to its end, polled or not."""
    world = world_of(latency=(5, 5), active_limit=2)
    answers = [submit(world, 0.0, dialect=dialect).status for _ in range(3)]
    assert answers == [200, 200, 429]
    assert submit(world, 4.9, dialect=dialect).headers["Retry-After"] == "1"
    assert submit(world, 5.0, dialect=dialect).status == 200
    assert (world.active(5.0), world.max_active, len(world.charges)) == (1, 2, 3)


def test_kontext_max_has_its_own_lower_limit() -> None:
    """BFL docs: at most 6 active tasks of flux-kontext-max; other models continue."""
    world = world_of(latency=(5, 5))
    answers = [submit(world, model="flux-kontext-max").status for _ in range(7)]
    assert answers == [200] * 6 + [429]
    assert submit(world).status == 200


@pytest.mark.parametrize(
    ("dialect", "key", "status", "words"),
    [
        pytest.param("comet", "wrong", 401, "invalid token", id="F9 comet"),
        pytest.param("comet", None, 401, "no token", id="comet none"),
        pytest.param("bfl", "wrong", 403, "Invalid Authentication", id="F9 bfl"),
        pytest.param("bfl", None, 403, "Not authenticated", id="bfl none"),
    ],
)
def test_a_bad_key_is_reported_in_each_dialect(
    dialect: str, key: str | None, status: int, words: str
) -> None:
    """CometAPI answers 401 in an envelope, BFL 403 with a detail; nothing is charged."""
    world = world_of(key="right")
    answer = submit(world, dialect=dialect, key=key)
    assert answer.status == status
    assert words in answer.body.decode()
    assert submit(world, dialect=dialect, key="right").status == 200
    assert len(world.charges) == 1


@pytest.mark.parametrize(
    ("model", "body", "kind", "where"),
    [
        pytest.param("flux-dev", {"width": 1000}, "multiple_of", "width", id="step"),
        pytest.param("flux-dev", {"width": 128}, "greater_than_equal", "width", id="low"),
        pytest.param("flux-dev", {"height": 2048}, "less_than_equal", "height", id="high"),
        pytest.param("flux-dev", {"steps": "many"}, "int_type", "steps", id="kind"),
        pytest.param("flux-dev", {"prompt_upsampling": "yes"}, "bool_type", "prompt_upsampling",
                     id="bool"),
        pytest.param("flux-dev", {"prompt": 5}, "string_type", "prompt", id="text"),
        pytest.param("flux-dev", {"webhook_url": ""}, "string_too_short", "webhook_url",
                     id="short"),
        pytest.param("flux-dev", {"webhook_url": "h" * 3000}, "string_too_long", "webhook_url",
                     id="long"),
        pytest.param("flux-dev", {"output_format": "gif"}, "enum", "output_format", id="enum"),
        pytest.param("flux-2-pro", {"prompt": None}, "missing", "prompt", id="missing"),
        pytest.param("flux-2-pro", {"safety_tolerance": 6}, "less_than_equal", "safety_tolerance",
                     id="flux2 safety"),
        pytest.param("flux-pro-1.1-ultra", {"aspect_ratio": "9:1"}, "value_error", "aspect_ratio",
                     id="ratio"),
    ],
)  # fmt: skip
def test_validation_errors_have_both_shapes(
    model: str, body: dict[str, Any], kind: str, where: str
) -> None:
    """F12: BFL returns pydantic's errors with 422, CometAPI a text with 400 or 500."""
    world = world_of()
    bfl = submit(world, dialect="bfl", model=model, **body)
    entry = bfl.json["detail"][0]
    assert (bfl.status, entry["type"], entry["loc"]) == (422, kind, ["body", where])
    comet = submit(world, dialect="comet", model=model, **body)
    assert comet.status in (400, 500)
    assert comet.json["error"]["code"] == "invalid_request"
    assert where in comet.json["error"]["message"]
    assert "(request id: " in comet.json["error"]["message"]
    assert world.charges == []


def test_flux2_gives_4_megapixels_at_most() -> None:
    """Two valid sides may give too many pixels."""
    world = world_of()
    sides = [
        submit(world, dialect="bfl", model="flux-2-pro", width=w, height=2048) for w in (2048, 2064)
    ]
    assert [answer.status for answer in sides] == [200, 422]


def test_validation_errors_are_sometimes_a_500() -> None:
    """F13: CometAPI answers some invalid requests with 500 and the code invalid_request."""
    world = world_of()
    assert {400, 500} == {submit(world, width=1).status for _ in range(20)}


@pytest.mark.parametrize("raw", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(raw: bytes) -> None:
    """Invalid JSON is a validation error."""
    assert submit(world_of(), dialect="bfl", raw=raw).status == 422


def test_unknown_models_are_reported_in_each_dialect() -> None:
    """An unknown model is an unknown path at BFL, and has no channel at CometAPI."""
    world = world_of()
    bfl, comet = (submit(world, dialect=d, model="flux-9") for d in ("bfl", "comet"))
    assert (bfl.status, bfl.json) == (404, {"detail": "Not Found"})
    assert (comet.status, comet.json["error"]["code"]) == (503, "model_not_found")


def test_credit_runs_out_exactly() -> None:
    """A balance of 6 credits pays for two images at 2.5; the rest is reported."""
    world = world_of(credits=6)
    assert [submit(world, dialect="bfl").status for _ in range(3)] == [200, 200, 402]
    assert world.credits(0.0, {}).json == {"credits": 1.0}


def test_the_poll_rate_limit_is_429_within_a_second() -> None:
    """F51: polls beyond the limit are refused until the next second."""
    world = world_of(poll_rate_limit=2)
    job_id = made(world)
    assert [poll(world, job_id, 1.5).status for _ in range(3)] == [200, 200, 429]
    assert poll(world, job_id, 2.0).status == 200


def test_a_bfl_job_is_only_known_at_its_region() -> None:
    """The main host answers 404 for a job of a region."""
    world = world_of()
    job_id = made(world, dialect="bfl")
    elsewhere = world.poll(0.0, dialect="bfl", job_id=job_id, headers={})
    assert (elsewhere.status, poll(world, job_id, dialect="bfl").status) == (404, 200)


def test_a_job_with_a_webhook_is_polled_at_its_regional_host_only() -> None:
    """BFL openapi: with webhook_url there is no polling_url in the answer; the global host does not
    know the job."""
    world = world_of()
    answer = submit(world, dialect="bfl", webhook_url="https://example.org/hook").json
    assert "polling_url" not in answer
    assert (answer["status"], answer["webhook_url"]) == ("Pending", "https://example.org/hook")
    assert world.poll(0.0, dialect="bfl", job_id=answer["id"], headers={}).status == 404
    assert poll(world, answer["id"], dialect="bfl").json["status"] == "Ready"


def test_a_job_is_forgotten_after_its_retention() -> None:
    """Task not found: 200 at CometAPI, 404 at BFL; its image is gone too."""
    world = world_of(retention=60.0, url_lifetime=600.0)
    comet, bfl = made(world), made(world, dialect="bfl")
    path_query = sample(world, comet, 59.0)
    gone = poll(world, comet, 60.0), poll(world, bfl, 60.0, dialect="bfl")
    assert [answer.status for answer in gone] == [200, 404]
    assert {"Task not found"} == {answer.json["status"] for answer in gone}
    assert fetch(world, path_query, 60.0).status == 404


# ---------------------------------------------------------------------------------- submit faults


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "fault", [pytest.param("429", id="F1 429"), pytest.param("503", id="F15 503")]
)
def test_push_back_is_never_charged(dialect: str, fault: str) -> None:
    """429 and 503 have Retry-After and no charge."""
    world = world_of(faults={fault: 1.0}, retry_after=0.25)
    answer = submit(world, dialect=dialect)
    assert (answer.status, answer.headers["Retry-After"]) == (int(fault), "0.25")
    assert world.charges == []
    assert world.faults[fault] == 1


@pytest.mark.parametrize("retry_after", [None, "nan", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_retry_after_is_sent_as_ordered(retry_after: str | None) -> None:
    """F4: the header may be missing or invalid."""
    answer = submit(world_of(faults={"429": 1.0}, retry_after=retry_after))
    assert answer.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize(
    "fault", [pytest.param("500", id="F14 500"), pytest.param("502-html", id="F14 502")]
)
def test_half_of_the_broken_answers_come_after_the_charge(fault: str) -> None:
    """Half of the 500s and 502s were charged, which only the record of charges shows."""
    world = world_of(faults={fault: 1.0}, active_limit=1000)
    statuses = {submit(world).status for _ in range(100)}
    assert statuses == {int(fault[:3])}
    assert 30 < len(world.charges) < 70


def test_a_lost_reply_is_charged_and_drops_the_connection() -> None:
    """F36: a charge without an answer, by FIN or RST."""
    world = world_of(faults={"lost-reply": 1.0})
    assert {"close", "reset"} == {submit(world).drop for _ in range(20)}
    assert len(world.charges) == 20


def test_402_lasts_once_it_began() -> None:
    """F8: after the first 402 every submission is refused with 402."""
    world = world_of(faults={"402": 0.1})
    statuses = [submit(world).status for _ in range(60)]
    first = statuses.index(402)
    assert first > 0
    assert set(statuses[first:]) == {402}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_key_is_revoked_after_n_jobs_and_polls_go_on(dialect: str) -> None:
    """F10: submissions are refused after job N; paid jobs can be collected."""
    world = world_of(faults=["401-after:2"])
    ids = [made(world, dialect=dialect) for _ in range(2)]
    assert submit(world, dialect=dialect).status == {"comet": 401, "bfl": 403}[dialect]
    assert poll(world, ids[0], dialect=dialect).json["status"] == "Ready"


# ------------------------------------------------------------------------------ poll and job faults


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        pytest.param("poll-429", 429, id="F51"),
        pytest.param("poll-500", 500, id="F50 500"),
        pytest.param("poll-502-html", 502, id="F50 html"),
    ],
)
def test_a_poll_fault_spoils_the_first_polls_only(fault: str, status: int) -> None:
    """A fault affects the first `repeats` polls of a job; the next poll succeeds."""
    world = world_of(faults={fault: 1.0}, repeats=2)
    job_id = made(world)
    assert [status, status, 200] == [poll(world, job_id).status for _ in range(3)]


def test_a_poll_can_be_reset() -> None:
    """F50: the first poll's connection is reset."""
    world = world_of(faults=["poll-reset"])
    job_id = made(world)
    assert [poll(world, job_id).drop for _ in range(2)] == ["reset", None]


@pytest.mark.parametrize(("dialect", "status"), [("comet", 200), ("bfl", 404)])
def test_task_not_found_at_first_then_found(dialect: str, status: int) -> None:
    """F53: the first one to three polls do not find the job."""
    world = world_of(faults=["not-found-first"])
    job_id = made(world, dialect=dialect)
    answers = [poll(world, job_id, dialect=dialect) for _ in range(4)]
    assert (answers[0].status, answers[0].json["status"]) == (status, "Task not found")
    assert answers[3].json["status"] == "Ready"


def test_running_may_have_unknown_words() -> None:
    """F55: undocumented status words, until the job is ready."""
    world = world_of(faults=["unknown-status"], latency=(5, 5))
    job_id = made(world)
    words = {poll(world, job_id, t / 10).json["status"] for t in range(40)}
    assert "Pending" not in words
    assert len(words) > 2
    assert poll(world, job_id, 5.0).json["status"] == "Ready"


def test_pending_forever_holds_its_place() -> None:
    """F54: the job never finishes, and is active until it is dropped."""
    world = world_of(faults=["pending-forever"], active_limit=1)
    job_id = made(world)
    assert poll(world, job_id, 899.0).json["status"] == "Pending"
    assert submit(world, 899.0).status == 429
    assert poll(world, job_id, 900.0).json["status"] == "Task not found"


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        pytest.param("moderated-request", "Request Moderated", id="F56 request"),
        pytest.param("moderated-content", "Content Moderated", id="F56 content"),
    ],
)
def test_moderation_is_a_terminal_200_with_reasons(fault: str, word: str) -> None:
    """Moderated jobs are charged, have reasons and no image."""
    world = world_of(faults=[fault])
    body = poll(world, made(world)).json
    assert (body["status"], body["result"]) == (word, None)
    assert body["details"]["Moderation Reasons"]
    assert len(world.charges) == 1


def test_a_failed_job_has_one_of_three_http_codes() -> None:
    """F57: a failed job is answered with 200, 422 or 503 and the same body."""
    world = world_of(faults=["error"], active_limit=100)
    answers = [poll(world, made(world)) for _ in range(30)]
    assert {200, 422, 503} == {answer.status for answer in answers}
    assert {"Error"} == {answer.json["status"] for answer in answers}
    assert all(answer.json["details"]["error"] for answer in answers)


# --------------------------------------------------------------------------------------- delivery


def test_a_url_dies_and_a_new_poll_gives_a_fresh_one() -> None:
    """F70: an expired URL answers 403 with XML; its lifetime starts at the end of the job."""
    world = world_of(latency=(5, 5), url_lifetime=10.0)
    job_id = made(world)
    old = sample(world, job_id, 14.0)
    assert fetch(world, old, 14.9).status == 200
    dead = fetch(world, old, 15.0)
    assert (dead.status, dead.headers["Content-Type"]) == (403, "application/xml")
    assert b"not valid in the specified time frame" in dead.body
    fresh = sample(world, job_id, 15.0)
    assert fresh != old
    assert fetch(world, fresh, 15.0).status == 200


def test_a_url_may_die_for_good() -> None:
    """F70: without fresh_urls a new poll repeats the expired URL."""
    world = world_of(url_lifetime=10.0, fresh_urls=False)
    job_id = made(world)
    assert sample(world, job_id, 1.0) == sample(world, job_id, 11.0)


def test_the_expired_fault_kills_the_first_url() -> None:
    """F70: the URL has expired at its first use; a new poll returns a valid one."""
    world = world_of(faults=["expired"])
    job_id = made(world)
    assert fetch(world, sample(world, job_id)).status == 403
    assert fetch(world, sample(world, job_id)).status == 200


def test_the_signature_covers_every_byte() -> None:
    """F83: a re-encoded path or query is 403, an unknown path 404."""
    world = world_of()
    good = sample(world, made(world))
    for raw, quoted in (("%3A", ":"), ("%2B", "+"), ("%2F", "/"), ("%3D", "=")):
        assert raw in good
        assert fetch(world, good.replace(raw, quoted)).status == 403
    signature = good.partition("&sig=")[2]
    assert "/" in signature
    assert fetch(world, good.removesuffix(signature) + signature.replace("/", "%2F")).status == 403
    assert fetch(world, "/elsewhere?" + good.partition("?")[2]).status == 404
    assert fetch(world, good).status == 200


@pytest.mark.parametrize("name", ["Authorization", "x-key"])
def test_a_key_at_the_store_is_noticed(name: str) -> None:
    """F84, T2: a signed URL with a key is refused and recorded as a leak."""
    world = world_of()
    answer = fetch(world, sample(world, made(world)), **{name: "secret"})
    assert answer.status == (400 if name == "Authorization" else 200)
    assert world.leaks["delivery"] == 1
    assert world.requests[-1].has_key


def test_ranges_and_checksums() -> None:
    """The store sends Content-MD5 and serves ranges of the same bytes."""
    world = world_of()
    path_query = sample(world, made(world))
    whole = fetch(world, path_query)
    part = fetch(world, path_query, **{"Range": "bytes=100-199", "If-Match": whole.headers["ETag"]})
    tail = fetch(world, path_query, Range="bytes=-5")
    assert (part.status, part.body) == (206, whole.body[100:200])
    assert part.headers["Content-Range"] == "bytes 100-199/20000"
    assert tail.body == whole.body[-5:]
    assert fetch(world, path_query, Range="bytes=20000-").status == 416
    assert fetch(world, path_query, **{"If-Match": '"other"'}).status == 412


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("truncated", id="F71 F72 truncated"),
        pytest.param("wrong-bytes", id="F77 wrong bytes"),
        pytest.param("html-as-image", id="F75 html as image"),
        pytest.param("download-503", id="F87 503"),
        pytest.param("download-reset", id="F71 reset"),
    ],
)
def test_a_spoiled_download_is_no_delivery_and_a_second_one_is_good(fault: str) -> None:
    """Each download fault differs from the intact image, and a second download succeeds."""
    world = world_of(faults=[fault])
    path_query = sample(world, made(world))
    first, spoiled_first = fetch(world, path_query), world.charges[0].delivered
    second = fetch(world, path_query)
    assert first != second
    assert (spoiled_first, world.charges[0].delivered) == (False, True)
    assert second.headers["Content-MD5"] == fetch(world, path_query).headers["Content-MD5"]


def test_truncation_comes_with_and_without_a_length() -> None:
    """F71 and F72: half of them violate Content-Length, half have none."""
    world = world_of(faults=["truncated"])
    answers = [fetch(world, sample(world, made(world))) for _ in range(20)]
    assert {("cut", True), (None, False)} == {(a.drop, a.has_length) for a in answers}
    assert all("Content-MD5" not in a.headers for a in answers if not a.has_length)


def test_wrong_bytes_differ_from_their_checksum() -> None:
    """F77: the length is right, and Content-MD5 is the intact image's."""
    world = world_of(faults=["wrong-bytes"])
    answer = fetch(world, sample(world, made(world)))
    assert len(answer.body) == SIZE
    digest = base64.b64decode(answer.headers["Content-MD5"])
    assert digest != md5(answer.body, usedforsecurity=False).digest()


def test_slow_is_whole_but_trickles() -> None:
    """F86: the body is complete and sent at the scenario's rate."""
    world = world_of(faults=["slow"], slow_bytes_per_second=123.0)
    answer = fetch(world, sample(world, made(world)))
    assert (answer.bytes_per_second, len(answer.body)) == (123.0, 20_000)
    assert world.charges[0].delivered


# ---------------------------------------------------------------------------- the world as a whole


def history(seed: int) -> list[tuple[int, str | None, bytes]]:
    world = World(
        Scenario(seed=seed, faults=dict.fromkeys(set(FAULTS) - {"402", "401-after"}, 0.2)),
        gallery=Gallery(image_bytes=5_000, painter=None),
    )
    answers = []
    for n in range(40):
        answer = submit(world, float(n), dialect=DIALECTS[n % 2], width=256, height=256)
        answers.append(answer)
        ids = [charge.job_id for charge in world.charges[-3:]]
        answers += [poll(world, i, n + 0.5, dialect=d) for i in ids for d in DIALECTS]
    return [(answer.status, answer.drop, answer.body) for answer in answers]


def test_the_same_seed_gives_the_same_history() -> None:
    """The same seed gives the same bytes, another seed others."""
    assert history(1) == history(1)
    assert history(1) != history(2)


def test_a_salt_changes_ids_and_nothing_else() -> None:
    """Two servers with one seed use different ids, because a journal may outlive a server."""
    plain, salted = World(Scenario(seed=3)), World(Scenario(seed=3), salt="x")
    one, other = submit(plain).json["id"], submit(salted).json["id"]
    assert one != other
    assert [poll(w, j, 900.0).json["status"] for w, j in ((plain, one), (salted, other))] == [
        "Ready", "Ready",
    ]  # fmt: skip


def test_a_skewed_clock_shows_in_date_and_url_alike() -> None:
    """F155: `se` and Date have the same skew, so their difference is the URL's lifetime."""
    world = world_of(clock_skew=7200.0, url_lifetime=600.0)
    answer = poll(world, made(world))
    assert answer.headers["Date"] == "Thu, 18 Dec 2025 17:39:05 GMT"
    assert "se=2025-12-18T17%3A49%3A05Z" in answer.json["result"]["sample"]


def test_the_key_is_nowhere_in_the_world() -> None:
    """P22: charges contain a digest of the key, requests only names of headers."""
    world = world_of()
    made(world, key="canary-key-123")
    seen = f"{world.charges} {world.requests} {world!r} {world.summary(0.0)} {world.scenario}"
    assert "canary" not in seen
    assert world.charges[0].key_digest is not None


def test_a_charge_log_replaces_the_list(tmp_path: Any) -> None:
    """Every charge and delivery is one flushed line, readable at once."""
    log = tmp_path / "charges.jsonl"
    world = world_of(charge_log=log)
    job_id = made(world)
    fetch(world, sample(world, job_id))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    world.close()
    assert [lines[0]["charged"], lines[1]["delivered"]] == [job_id, job_id]
    assert world.charges == []
    assert world.summary(0.0)["charges"] == 1


# ------------------------------------------------------------------------------------- the scenario


def test_a_scenario_is_read_from_words() -> None:
    """Command-line values give the same scenario."""
    spelled = Scenario.parse(faults=["429:0.1", "401-after:30", "402"], latency="0.5..2", limit=6)
    assert spelled == Scenario(
        faults={"429": 0.1, "401-after": 30, "402": 1.0}, latency=(0.5, 2.0), active_limit=6
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"faults": ["429:2"]}, "not between 0 and 1", id="rate"),
        pytest.param({"faults": ["429:x"]}, "not a number", id="number"),
        pytest.param({"faults": ["401-after"]}, "401-after:30", id="count"),
        pytest.param({"faults": ["401-after:0.5"]}, "number of jobs", id="half a job"),
        pytest.param({"latency": "fast"}, "A..B", id="latency"),
        pytest.param({"latency": "2..1"}, "A ≤ B", id="order"),
        pytest.param({"limit": 0}, "the minimum is 1", id="limit"),
    ],
)
def test_an_invalid_scenario_is_refused(values: dict[str, Any], message: str) -> None:
    """An invalid value is a ValueError that states what is valid."""
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Scenario.parse(**values)


def test_an_unknown_fault_lists_the_known_ones() -> None:
    """The error for an unknown fault lists all faults."""
    with pytest.raises(ValueError, match="unknown fault '499'") as caught:
        Scenario(faults={"499": 0.5})
    assert all(name in str(caught.value) for name in FAULTS)
