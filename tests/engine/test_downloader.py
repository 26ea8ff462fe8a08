"""The bytes of a Ready job, from a scripted transport, in virtual time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve, frozen
from support import virtual_time
from support.sample_images import jpeg, png

from fluxasync import (
    COMETAPI,
    Budget,
    Credentials,
    DownloadError,
    Expired,
    FluxError,
    ImageRequest,
    Job,
    JobFailed,
    JobLost,
    Limits,
    MemorySink,
    Ready,
    Retry,
    SinkError,
    Timeouts,
    TransportError,
)
from fluxasync._core.config import Policies
from fluxasync._core.observers import Observers
from fluxasync._engine.download_queue import DownloadQueue
from fluxasync._engine.downloader import Hosts
from fluxasync._engine.engine import Engine
from fluxasync._store.incoming import _judged
from fluxasync._wire.client import ApiClient
from fluxasync.extend import Call, Reply, Stored

JOB = Job(job_id="a-1", request=ImageRequest(prompt="a red fox"))
IMAGE = png()
EAGER = Retry(initial=0)
LIFE = 600.0
FRESH = "https://d.example/fresh"


@frozen(kw_only=True)
class Answer:
    """One download's answer: its status, its body in pieces, and how it breaks off."""

    status: int = 200
    body: tuple[bytes, ...] = (IMAGE,)
    headers: Mapping[str, str] = {}
    breaks: FluxError | None = None
    pause: float = 0.0  #: seconds before each piece

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.body:
            await asyncio.sleep(self.pause)
            yield piece
        if self.breaks is not None:
            raise self.breaks


def md5(content: bytes) -> dict[str, str]:
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    return {"content-md5": base64.b64encode(digest).decode()}


WHOLE = Answer(headers=md5(IMAGE))
#: incompressible, like a photograph
BYTES = random.Random(1).randbytes(5 * 2**20)
CUT = Answer(body=(IMAGE[:20],), breaks=TransportError("short", sent=True))
DOWN = TransportError("no connection", sent=True)


class ScriptedTransport:
    """Plays one answer for each download and each poll; the last of each is repeated.

    Given a `fresh` answer, the fresh URL has that one.
    """

    def __init__(
        self, downloads: list[Answer | FluxError], polls: list[Any], fresh: Answer | None
    ) -> None:
        self._downloads, self._polls, self._fresh = downloads, polls, fresh
        self.fetched: list[tuple[float, str]] = []
        self.ranges: list[Mapping[str, str] | None] = []
        self.asked_at: list[float] = []

    @property
    def asked(self) -> int:
        return len(self.asked_at)

    async def send(self, call: Call) -> Reply:
        self.asked_at.append(asyncio.get_running_loop().time() - virtual_time.START)
        body = self._polls.pop(0) if len(self._polls) > 1 else self._polls[0]
        if isinstance(body, FluxError):
            raise body
        return Reply(status=200, headers={}, body=json.dumps(body).encode())

    @asynccontextmanager
    async def stream(
        self, url: str, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Answer]:
        self.ranges.append(headers)
        self.fetched.append((asyncio.get_running_loop().time() - virtual_time.START, url))
        answer = self._downloads.pop(0) if len(self._downloads) > 1 else self._downloads[0]
        if self._fresh is not None and url == FRESH:
            answer = self._fresh
        if isinstance(answer, FluxError):
            raise answer
        yield answer

    async def aclose(self) -> None:
        pass


@frozen
class FetchResult:
    """The result of a fetch."""

    end: tuple[Ready, Stored] | FluxError
    transport: ScriptedTransport
    seconds: float

    @property
    def stored(self) -> bytes | None:
        assert not isinstance(self.end, FluxError), self.end
        return self.end[1].data

    @property
    def urls(self) -> list[str]:
        return [url.rsplit("/", 1)[1] for _, url in self.transport.fetched]


def ready_again(url: str = FRESH) -> dict[str, Any]:
    return {"id": "a-1", "status": "Ready", "result": {"sample": url}}


PENDING = {"id": "a-1", "status": "Pending"}
GONE = {"id": "a-1", "status": "Task not found"}
FAILED = {"id": "a-1", "status": "Error", "details": {"error": "no"}}


def engine_over(transport: ScriptedTransport, policies: Policies) -> Engine:
    """An engine that is open over a scripted transport; its own resources need no closing."""
    engine = Engine(
        (COMETAPI, Credentials(), None), policies, Budget(), Observers(), transport=transport,
        allow_unknown_models=False,
    )  # fmt: skip
    engine.connect(ApiClient(transport, COMETAPI, None, policies))
    return engine


def fetch(
    *downloads: Answer | FluxError,
    polls: tuple[Any, ...] = (PENDING,),
    life: float = LIFE,
    max_bytes: int = 100_000,
    retry: Retry | None = None,
    fresh: Answer | None = None,
    sink: MemorySink | None = None,
    seen: float | None = None,
    woke_after: float = -math.inf,
) -> FetchResult:
    """Fetch with the scripted answers."""

    async def play() -> FetchResult:
        transport = ScriptedTransport(list(downloads), list(polls), fresh)
        limits = Limits(max_image_bytes=max_bytes)
        engine = engine_over(transport, Policies(limits=limits, retry=retry or Retry()))
        where = sink or MemorySink(max_bytes=max_bytes)
        began = asyncio.get_running_loop().time()
        ready = Ready(
            job=JOB,
            url="https://d.example/first",
            deadline=began + life,
            polls=4,
            seen=None if seen is None else began + seen - 90.0,
        )

        engine.health.resumed_at = began + woke_after - 90.0
        try:
            end: Any = await engine.downloader.run(ready, where)
        except FluxError as error:
            end = error
        return FetchResult(end, transport, asyncio.get_running_loop().time() - began)

    return virtual_time.run(play())


def test_a_whole_image_is_fetched_once() -> None:
    """Without a failure there is one request."""
    result = fetch(WHOLE)
    assert result.stored == IMAGE
    assert (result.urls, result.transport.asked, result.seconds) == (["first"], 0, 0.0)


@pytest.mark.parametrize("status", [403, 404, 410], ids=lambda status: f"F70 {status}")
def test_an_expired_url_is_renewed(status: int) -> None:
    """F70 The same URL is not tried again: one poll, and the new URL gives the image."""
    result = fetch(Answer(status=status), WHOLE, polls=(ready_again(),))
    assert result.stored == IMAGE
    assert result.urls == ["first", "fresh"]
    assert not isinstance(result.end, FluxError)
    assert (result.end[0].url, result.end[0].polls) == (FRESH, 5)


@pytest.mark.parametrize("status", [403, 404, 410], ids=lambda status: f"F70 {status}")
def test_dead_urls_in_a_row_do_not_give_up_a_paid_image(status: int) -> None:
    """F70 A blip of the delivery host: the job is still Ready, so its next URL is tried."""
    result = fetch(*[Answer(status=status)] * 5, WHOLE, polls=(ready_again(),))
    assert result.stored == IMAGE
    assert result.urls == ["first", *["fresh"] * 5]
    assert result.seconds >= 0.25 + 0.5 + 1 + 2  # with back-off


@pytest.mark.parametrize(
    "bad", [b"<html>busy</html>", IMAGE[:-4], b""], ids=["F75 HTML", "F72 cut", "F74 empty"]
)
def test_twenty_bad_answers_in_a_second_do_not_give_up_a_paid_image(bad: bytes) -> None:
    """F75 Bytes that are no image lead to fresh URLs, with back-off."""
    result = fetch(*[Answer(body=(bad,))] * 12, WHOLE, polls=(ready_again(),))
    assert result.stored == IMAGE
    assert result.urls[:4] == ["first", "first", "first", "fresh"]
    assert result.seconds > 60


def test_a_url_that_stays_dead_is_given_up_after_the_time_of_a_job() -> None:
    """F70 Fresh URLs are polled for with back-off for `timeouts.job` seconds, and the message says
    so."""
    result = fetch(Answer(status=403), polls=(ready_again(),))
    assert isinstance(result.end, Expired)
    assert "403" in str(result.end)
    assert "600 s" in str(result.end)
    assert result.seconds == pytest.approx(Timeouts().job)
    gaps = [b - a for (a, _), (b, _) in pairwise(result.transport.fetched)]
    assert max(gaps) <= Retry().maximum
    assert 12 <= len(gaps) <= 30


def test_renewing_does_not_spin_where_no_pause_is_wanted() -> None:
    """F70 `Retry(initial=0)` gives up no sooner, and polls at most fifty times a second."""
    result = fetch(*[Answer(status=403)] * 50, WHOLE, polls=(ready_again(),), retry=EAGER)
    assert result.stored == IMAGE
    assert result.seconds == pytest.approx(49 * 0.02)


def test_ready_then_not_found_is_lost_after_the_grace() -> None:
    """F53 F58 The URL died and the job is gone: lost, with the patience that any job has."""
    result = fetch(Answer(status=404), polls=(GONE,))
    assert isinstance(result.end, JobLost)
    assert result.urls == ["first"]
    assert 60 <= result.seconds <= 180
    assert result.transport.asked >= 3


def test_a_job_that_is_missed_for_a_moment_is_not_lost() -> None:
    """F53 F58 Two misses after a dead URL, and the third poll has the job and a URL."""
    result = fetch(Answer(status=404), WHOLE, polls=(GONE, GONE, ready_again()))
    assert result.stored == IMAGE


def test_misses_before_a_fresh_url_are_not_counted_with_later_ones() -> None:
    """F53 F58 One miss, a fresh URL that serves a page for a minute, two misses: never three in a
    row."""
    page = Answer(body=(b"<html>",), pause=25.0)
    pages = [page] * Retry().downloads
    polls = (GONE, ready_again(), GONE, GONE, ready_again())
    result = fetch(Answer(status=404), *pages, WHOLE, polls=polls)
    assert result.stored == IMAGE
    assert result.transport.asked == 5


def test_ready_then_failed_is_failed() -> None:
    """F58 The provider's last answer counts."""
    result = fetch(Answer(status=404), polls=(FAILED,))
    assert isinstance(result.end, JobFailed)


def test_no_fresh_url_is_expired() -> None:
    """F59 Without a fresh URL for as long as a job may take, the image is expired."""
    result = fetch(Answer(status=410), polls=(PENDING,))
    assert isinstance(result.end, Expired)
    assert result.end.job is JOB
    assert result.seconds == pytest.approx(Timeouts().job)
    assert 12 <= result.transport.asked <= 30


def test_a_fresh_url_may_come_late() -> None:
    """F59 One or two inconclusive answers before the fresh URL lose nothing."""
    result = fetch(Answer(status=403), WHOLE, polls=(PENDING, {"odd": 1}, ready_again()))
    assert result.stored == IMAGE


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(CUT, id="F71 cut short"),
        pytest.param(DOWN, id="F71 no connection"),
        pytest.param(Answer(body=()), id="F74 no bytes"),
        pytest.param(Answer(body=(b"",)), id="F74 an empty piece"),
        pytest.param(Answer(body=(IMAGE[:-4],)), id="F72 cut without a length"),
        pytest.param(Answer(body=(b"<html>busy</html>",)), id="F75 HTML as an image"),
        pytest.param(Answer(body=(b"<?xml version='1.0'?><Error/>",)), id="F75 XML as an image"),
        pytest.param(Answer(body=(b'{"error":"busy"}',)), id="F75 JSON as an image"),
        pytest.param(Answer(body=(jpeg()[:-2],)), id="F78 JPEG without its end"),
        pytest.param(Answer(headers=md5(b"another")), id="F77 other bytes"),
        pytest.param(Answer(headers={"content-encoding": "gzip"}), id="F85 compressed"),
        pytest.param(Answer(status=429), id="F87 429"),
        pytest.param(Answer(status=500), id="F87 500"),
        pytest.param(Answer(status=503, body=(b"busy",)), id="F87 503"),
        pytest.param(Answer(status=301), id="F81 a redirect to nowhere"),
    ],
)
def test_a_wrong_body_is_fetched_again(broken: Answer | FluxError) -> None:
    """F71 F74 F75 F85 F87 Fetching is free: after a wait, the same URL gives the image."""
    result = fetch(broken, WHOLE)
    assert result.stored == IMAGE
    assert result.urls == ["first", "first"]
    assert result.seconds >= 0.25
    assert result.transport.asked == 0


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        pytest.param(Answer(body=()), "empty", id="F74"),
        pytest.param(Answer(body=(b"<html></html>",)), "HTML", id="F75"),
        pytest.param(Answer(headers=md5(b"another")), "Content-MD5", id="F77"),
        pytest.param(Answer(headers={"content-encoding": "br"}), "Content-Encoding", id="F85"),
    ],
)
def test_bytes_that_stay_broken_are_given_up_after_the_time_of_a_job(
    broken: Answer, words: str
) -> None:
    """F74 F75 Three bad bodies for each URL; the error describes what came instead."""
    result = fetch(broken, polls=(ready_again(),))
    assert type(result.end) is DownloadError
    assert words in str(result.end)
    assert result.urls[:4] == ["first", "first", "first", "fresh"]
    assert Timeouts().job <= result.seconds <= Timeouts().job + Retry().maximum


@pytest.mark.parametrize(
    ("large", "words"),
    [
        pytest.param(Answer(headers={"content-length": "100001"}), "max_image_bytes", id="F79"),
        pytest.param(Answer(body=(b"\x89PNG\r\n\x1a\n",) * 20_000), "100000 bytes", id="F79 long"),
    ],
)
def test_an_image_over_the_limit_is_not_fetched_again(large: Answer, words: str) -> None:
    """F79 Another try cannot help: one try, and the error names the limit."""
    result = fetch(large)
    assert type(result.end) is DownloadError
    assert words in str(result.end)
    assert (result.urls, result.transport.asked) == (["first"], 0)


def test_an_endless_image_is_cut_at_the_cap() -> None:
    """F79 Without a length, reading stops soon after `max_image_bytes`."""
    read = 0

    class Endless(Answer):
        async def chunks(self) -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += 1000
                yield IMAGE[:8] + bytes(992)

    result = fetch(Endless())
    assert isinstance(result.end, DownloadError)
    assert read <= 101_000


@pytest.mark.parametrize("fault", [DOWN, Answer(status=503)], ids=["F71 no connection", "F87 503"])
def test_transport_faults_are_retried_within_the_urls_life(fault: Answer | FluxError) -> None:
    """F87 Retried with back-off while the URL lives, then once with a fresh URL."""
    result = fetch(fault, polls=(PENDING,))
    assert isinstance(result.end, Expired)
    assert result.seconds == pytest.approx(LIFE)
    assert 10 <= len(result.urls) <= 40
    assert result.transport.fetched[-1][0] <= LIFE


def test_a_url_that_dies_while_the_network_is_down_is_renewed() -> None:
    """F70 F87 After an outage longer than its life, the URL is replaced and the image fetched."""
    result = fetch(DOWN, polls=(ready_again(),), life=1.0, fresh=WHOLE)
    assert result.stored == IMAGE
    assert result.urls.count("fresh") == 1


def test_a_url_that_is_not_allowed_is_not_asked_again() -> None:
    """F82 T4 A URL that the address policy refuses: one try, no poll, no wait."""
    refused = TransportError("the image's URL is not https", sent=False, permanent=True)
    result = fetch(refused)
    assert type(result.end) is DownloadError
    assert "not https" in str(result.end)
    assert (result.urls, result.seconds) == (["first"], 0.0)


def test_the_disks_errors_pass_through() -> None:
    """F100 A full disk is neither retried nor renamed."""
    result = fetch(Answer(breaks=SinkError("the disk is full")))
    assert isinstance(result.end, SinkError)
    assert result.urls == ["first"]


# --- stalled, broken and resumed ------------------------------------------------------------------


def test_a_stalled_transfer_is_given_up_and_its_url_renewed() -> None:
    """F86 At 10 B/s the provider is polled for another URL after half a minute."""
    trickle = Answer(body=tuple(IMAGE[i : i + 10] for i in range(len(IMAGE))), pause=1.0)
    result = fetch(trickle, polls=(ready_again(),), fresh=WHOLE)
    assert result.stored == IMAGE
    assert result.urls == ["first", "fresh"]
    assert 29 <= result.seconds <= 33
    assert result.end[0].polls == 5, "the four before, and the one that gave the other URL"


def test_a_stalled_image_is_fetched_again_where_there_is_no_other_url() -> None:
    """F86 The old URL is tried again and succeeds."""
    result = fetch(Answer(pause=3600.0), WHOLE, polls=(PENDING,))
    assert result.stored == IMAGE
    assert result.urls == ["first", "first"]
    assert result.transport.asked == 1


def test_a_slow_link_is_no_stall() -> None:
    """F86 2 KB/s for five minutes is slow, but the image is not fetched again."""
    large = jpeg(payload=BYTES[:400_000])
    pieces = tuple(large[i : i + 4096] for i in range(0, len(large), 4096))
    result = fetch(Answer(body=pieces, pause=2.0), max_bytes=10**6)
    assert result.stored == large
    assert result.urls == ["first"]
    assert result.seconds > 190


def test_a_link_that_brings_enough_in_each_half_minute_is_no_stall() -> None:
    """F86 Each time enough has come the next piece has the whole half minute again."""
    large = jpeg(payload=BYTES[:120_000])
    pieces = tuple(large[i : i + 40_000] for i in range(0, len(large), 40_000))
    result = fetch(Answer(body=pieces, pause=29.5), max_bytes=10**6)
    assert result.stored == large
    assert result.urls == ["first"]


def test_a_slow_disk_is_no_stall() -> None:
    """F125 A minute that the sink takes between two chunks does not count as the network's."""

    class SlowSink(MemorySink):
        async def store(self, request: Any, job: Job, chunks: AsyncIterator[bytes]) -> Stored:
            async def taken() -> AsyncIterator[bytes]:
                async for chunk in chunks:
                    await asyncio.sleep(60)
                    yield chunk

            return await super().store(request, job, taken())

    result = fetch(Answer(body=(IMAGE[:20], IMAGE[20:])), sink=SlowSink())
    assert result.stored == IMAGE
    assert result.urls == ["first"]


LARGE = jpeg(1200, 1200, payload=BYTES)
HALF = 2**22 + 1000
WHOLE_HEADERS = {
    "accept-ranges": "bytes",
    "etag": '"one"',
    "content-length": str(len(LARGE)),
    **md5(LARGE),
}
BROKEN = Answer(body=(LARGE[:HALF],), headers=WHOLE_HEADERS, breaks=DOWN)


def rest(start: int = HALF, *, status: int = 206, body: bytes | None = None) -> Answer:
    span = f"bytes {start}-{len(LARGE) - 1}/{len(LARGE)}"
    return Answer(
        status=status,
        body=(LARGE[start:] if body is None else body,),
        headers={"content-range": span},
    )


class Inline(MemorySink):
    """Judges large images without a thread, because virtual time does not wait for threads."""

    async def store(self, request: Any, job: Job, chunks: AsyncIterator[bytes]) -> Stored:
        return _judged(b"".join([chunk async for chunk in chunks]))


def fetch_large(*downloads: Answer | FluxError) -> FetchResult:
    return fetch(*downloads, max_bytes=10**8, sink=Inline())


def test_a_large_image_is_resumed_where_it_broke() -> None:
    """F71 U19 Above 4 MiB only the rest of the same image is requested."""
    result = fetch_large(BROKEN, rest())
    assert result.stored == LARGE
    assert [None, {"Range": f"bytes={HALF}-", "If-Match": '"one"'}] == result.transport.ranges


def test_a_broken_resume_is_resumed_again() -> None:
    """F71 Each break is followed by a resume, as long as bytes arrive."""
    second = evolve(rest(), body=(LARGE[HALF : HALF + 1000],), breaks=DOWN)
    result = fetch_large(BROKEN, second, rest(HALF + 1000))
    assert result.stored == LARGE
    assert result.transport.ranges[2] == {"Range": f"bytes={HALF + 1000}-", "If-Match": '"one"'}


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(rest(status=200), id="the whole again"),
        pytest.param(rest(HALF - 1), id="another span"),
        pytest.param(Answer(status=412), id="another image by now"),
        pytest.param(Answer(status=416), id="no such range"),
        pytest.param(rest(body=bytes(len(LARGE) - HALF)), id="F77 other bytes"),
        pytest.param(rest(body=LARGE[HALF:-10]), id="F71 too few bytes"),
        pytest.param(DOWN, id="F71 no connection"),
    ],
)
def test_a_wrong_range_is_no_part_of_an_image(second: Answer | FluxError) -> None:
    """F71 F77 A wrong range is discarded, and the image is fetched from its first byte."""
    whole = Answer(body=(LARGE,), headers=WHOLE_HEADERS)
    result = fetch_large(BROKEN, second, whole)
    assert result.stored == LARGE
    assert result.transport.ranges[-1] is None


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(evolve(BROKEN, body=(LARGE[:2000],)), id="less than 4 MiB came"),
        pytest.param(evolve(BROKEN, headers={**WHOLE_HEADERS, "etag": 'W/"one"'}), id="weak ETag"),
        pytest.param(evolve(BROKEN, headers={**WHOLE_HEADERS, "etag": ""}), id="no ETag"),
        pytest.param(
            evolve(BROKEN, headers={**WHOLE_HEADERS, "accept-ranges": "none"}), id="no ranges"
        ),
    ],
)
def test_an_image_without_resume_is_fetched_from_its_start(first: Answer) -> None:
    """F71 Without a strong ETag the whole image is fetched again."""
    result = fetch_large(first, Answer(body=(LARGE,), headers=WHOLE_HEADERS))
    assert result.stored == LARGE
    assert result.transport.ranges == [None, None]


# --- sleep and outage -----------------------------------------------------------------------------


def test_after_a_suspension_the_url_is_renewed() -> None:
    """F154 A URL from before the suspension is not tried; a fresh one is."""
    result = fetch(WHOLE, polls=(ready_again(),), woke_after=60.0, seen=0.0)
    assert result.stored == IMAGE
    assert result.urls == ["fresh"]
    awake = fetch(WHOLE, polls=(ready_again(),), woke_after=-60.0, seen=0.0)
    assert awake.urls == ["first"]


def test_an_outage_does_not_use_up_the_tries() -> None:
    """P9 F161 During an outage neither expiry nor unanswered polls count."""
    unanswered = [TransportError("no network", sent=False)] * 40
    result = fetch(DOWN, polls=(*unanswered, ready_again()), life=5.0, fresh=WHOLE)
    assert result.stored == IMAGE
    assert result.urls[-1] == "fresh"


def test_polls_for_a_fresh_url_back_off_while_nothing_answers() -> None:
    """F161 During an outage too the pauses grow to the maximum."""
    unanswered = [TransportError("no network", sent=False)] * 12
    result = fetch(Answer(status=404), polls=(*unanswered, ready_again()), fresh=WHOLE)
    assert result.stored == IMAGE
    pauses = [after - before for before, after in pairwise(result.transport.asked_at)]
    steps = [min(0.5 * 2**nth, Retry().maximum) for nth in range(len(pauses))]
    assert all(step / 2 <= pause <= step for step, pause in zip(steps, pauses, strict=True))


def test_a_long_queue_and_a_slow_link_use_up_no_patience() -> None:
    """F70 F86 Twenty minutes for a permit, twenty for bytes that break: then the time of a job is
    there for fresh URLs."""

    async def play() -> Stored:
        slow = Answer(body=(IMAGE[:20],) * 60, pause=20.0, breaks=DOWN)
        dead = [Answer(status=404)] * 4
        transport = ScriptedTransport([slow, *dead, WHOLE], [ready_again()], None)
        policies = Policies(limits=Limits(downloads=1), timeouts=Timeouts(stall=10_000.0))
        engine = engine_over(transport, policies)
        held = asyncio.create_task(hold(engine.downloads))
        await asyncio.sleep(1)
        deadline = asyncio.get_running_loop().time() + LIFE
        ready = Ready(job=JOB, url="https://d.example/first", deadline=deadline)
        sink = MemorySink(max_bytes=100_000)
        _, stored, _ = await engine.downloader.run(ready, sink)
        await held
        return stored

    async def hold(queue: DownloadQueue) -> None:
        async with queue.take(0.0):
            await asyncio.sleep(1200)

    assert virtual_time.run(play()).data == IMAGE


def test_the_wait_for_a_permit_after_a_failure_uses_up_no_patience() -> None:
    """F70 Another image has the only place for twenty minutes; the time of a job is left then."""

    async def play() -> Stored:
        slow = Answer(body=(IMAGE[:20],), pause=5.0, breaks=DOWN)
        transport = ScriptedTransport([slow, Answer(status=404), WHOLE], [ready_again()], None)
        engine = engine_over(transport, Policies(limits=Limits(downloads=1)))
        deadline = asyncio.get_running_loop().time() + 10 * LIFE
        ready = Ready(job=JOB, url="https://d.example/first", deadline=deadline)
        running = asyncio.create_task(engine.downloader.run(ready, MemorySink()))
        await asyncio.sleep(1)
        async with engine.downloads.take(0.0):
            await asyncio.sleep(1200)
        return (await running)[1]

    assert virtual_time.run(play()).data == IMAGE


# --- a delivery host that asks for a pause --------------------------------------------------------


def busy(seconds: str, status: int = 503) -> Answer:
    return Answer(status=status, headers={"retry-after": seconds})


@pytest.mark.parametrize("status", [429, 503], ids=lambda status: f"F87 {status}")
def test_the_hosts_retry_after_is_obeyed(status: int) -> None:
    """F87 The next request comes at the time that the host named."""
    result = fetch(busy("7", status), WHOLE)
    assert result.stored == IMAGE
    assert [at for at, _ in result.transport.fetched] == [0.0, pytest.approx(7.0)]


@pytest.mark.parametrize("said", ["-1", "soon", "nan", ""])
def test_an_unusable_retry_after_leaves_the_usual_back_off(said: str) -> None:
    """F87 Then the image's own back-off holds."""
    result = fetch(busy(said), WHOLE)
    assert result.stored == IMAGE
    assert 0.25 <= result.seconds <= 0.5


def test_a_pause_of_one_host_holds_for_all_its_images_and_for_no_other_host() -> None:
    """F87 After one image's Retry-After all images of its host wait, and images of other hosts do
    not."""

    async def play() -> list[tuple[float, str]]:
        transport = ScriptedTransport([busy("9"), WHOLE], [PENDING], None)
        engine = engine_over(transport, Policies())

        async def fetched(url: str) -> None:
            deadline = asyncio.get_running_loop().time() + LIFE
            sink = MemorySink(max_bytes=100_000)
            await engine.downloader.run(Ready(job=JOB, url=url, deadline=deadline), sink)

        first = asyncio.create_task(fetched("https://d.example/0"))
        await asyncio.sleep(1)
        others = [fetched(f"https://{host}.example/1") for host in ("d", "d", "e")]
        await asyncio.gather(first, *others)
        return transport.fetched

    times = [(at, url[8:9]) for at, url in virtual_time.run(play())]
    assert times[:2] == [(0.0, "d"), (1.0, "e")]
    assert times[2:] == [(pytest.approx(9.0), "d")] * 3


def test_a_pause_longer_than_the_urls_life_ends_in_a_fresh_url() -> None:
    """F70 F87 The URL expires during the pause, so a fresh one is used, perhaps of another host."""
    elsewhere = ready_again("https://e.example/fresh")
    result = fetch(busy("3600"), WHOLE, polls=(elsewhere,), life=30.0)
    assert result.stored == IMAGE
    assert result.transport.fetched[1:] == [(pytest.approx(30.0), "https://e.example/fresh")]


def test_a_pause_of_a_day_is_given_up_after_the_time_of_a_job() -> None:
    """F87 The job can be collected later; the run does not wait for a day."""
    result = fetch(busy("86400"), polls=(ready_again(),), life=30.0)
    assert isinstance(result.end, Expired)
    assert Timeouts().job <= result.seconds <= Timeouts().job + 60
    assert len(result.urls) == 1


def test_a_pause_that_is_over_is_forgotten():
    """F87: only hosts with a present pause are kept; the longest pause counts."""

    async def play() -> list[float]:
        hosts, seen = Hosts(), []
        hosts.pause("https://a.example/1.png", 5.0)
        hosts.pause("https://a.example/2.png", 2.0)
        hosts.pause("https://b.example/1.png", 9.0)
        await asyncio.sleep(4.0)
        seen.append(hosts.wait("https://a.example/3.png"))
        await asyncio.sleep(1.0)
        seen.append(hosts.wait("https://a.example/3.png"))
        assert list(hosts._free_at) == ["https://b.example"]
        return seen

    assert virtual_time.run(play()) == [1.0, 0.0]


def test_an_image_is_fetched_from_its_start_after_eight_resumes() -> None:
    """F71 Eight resumes; at the ninth break the bytes are discarded."""
    starts = [HALF + 1000 * step for step in range(8)]
    rests = [evolve(rest(at), body=(LARGE[at : at + 1000],), breaks=DOWN) for at in starts]
    result = fetch_large(BROKEN, *rests, Answer(body=(LARGE,), headers=WHOLE_HEADERS))
    assert result.stored == LARGE
    asked = [headers and headers["Range"] for headers in result.transport.ranges]
    assert asked == [None, *(f"bytes={at}-" for at in starts), None]


def test_a_resumed_image_has_the_stated_length() -> None:
    """F71 Without an MD5 too: a rest that is too long is refused."""
    headers = {name: value for name, value in WHOLE_HEADERS.items() if name != "content-md5"}
    longer = rest(body=LARGE[HALF:] + bytes(5))
    result = fetch_large(evolve(BROKEN, headers=headers), longer, Answer(body=(LARGE,)))
    assert result.stored == LARGE
    assert len(result.transport.ranges) == 3


def test_an_image_that_always_stalls_reports_the_bytes_received() -> None:
    """F86 The count of bytes distinguishes a dead connection from a slow one."""
    nothing = fetch(Answer(pause=3600.0))
    assert "the image stalled: 0 bytes in" in str(nothing.end)
    little = fetch(Answer(body=(IMAGE[:20], IMAGE[20:]), pause=25.0))
    assert "the image stalled: 20 bytes in" in str(little.end)
