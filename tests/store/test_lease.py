"""The lease of a run in a bucket: a second run does not start while the first one is alive."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from queue import SimpleQueue
from threading import Thread

import pytest
from support.object_servers import ObjectServer
from support.object_stores import BUCKET, SmallS3, options_of
from support.patience import patient
from support.store_fixtures import skip_on_moto

from fluxasync import JournalError
from fluxasync._store import lease as lease_module
from fluxasync._store.journal.lock import Locked
from fluxasync._store.lease import NAME, SILENCE, RunLease, active_run
from fluxasync._store.object_log import Fenced, ObjectLog
from fluxasync._store.objects import Objects

pytest.importorskip("obstore", reason="the extra `store` is not installed")

URL = f"s3://{BUCKET}/run"
OBJECT = f"run/{NAME}"


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "BEAT", 0.1)


def _in(bucket: SmallS3) -> Objects:
    return Objects(URL, options_of(bucket.url))


def _held(bucket: SmallS3) -> dict[str, object]:
    return json.loads(bucket.objects[OBJECT])


def _put(bucket: SmallS3, silence: float = 0.0, **values: object) -> None:
    """Let the lease be that of a process on another machine, `silence` seconds old."""
    held = {"pid": 41, "host": "gpu7", "boot": "b", "namespace": "n", "epoch": 6, "token": "t"}
    bucket.objects[OBJECT] = json.dumps(held | values).encode()
    bucket.modified[OBJECT] = time.time() + bucket.ahead - silence


def test_a_second_run_is_refused_with_who_and_when(objects: Objects):
    """It says which process to look for, and how to go on without it."""
    first = RunLease(objects).take()
    try:
        who = f"process {os.getpid()} on {socket.gethostname()}, heard of [0-9]+ s ago"
        with pytest.raises(Locked, match=rf"{objects.url} is in use by {who}: wait .*--take-over"):
            RunLease(objects).take()
    finally:
        first.release()


def test_an_active_run_is_named_without_its_lease(s3: SmallS3):
    """A reader learns who runs the run and how long it is silent; one that is silent for a minute,
    ended or gave its lease back is not active. Nothing is written."""
    assert active_run(_in(s3)) is None
    _put(s3, silence=4, since="2026-11-30T12:03:00+00:00")
    found = active_run(_in(s3))
    assert found is not None
    assert 3 < found.pop("silence") < SILENCE
    assert found == {"pid": 41, "host": "gpu7", "since": "2026-11-30T12:03:00+00:00"}
    _put(s3, silence=SILENCE)
    assert active_run(_in(s3)) is None
    _put(s3, is_free=True)
    assert active_run(_in(s3)) is None
    assert set(s3.calls) == {"GET"}


def test_a_released_lease_is_free_at_once(objects: Objects):
    """The next run waits for nothing; each one has a higher epoch."""
    for epoch in (1, 2, 3):
        lease = RunLease(objects).take()
        assert lease.epoch == epoch
        lease.release()
        lease.release()
        assert lease.lost is None


@pytest.mark.usefixtures("quick_beats")
def test_a_holder_notices_that_it_was_overtaken(s3: SmallS3, caplog: pytest.LogCaptureFixture):
    """It says who took over, and does not free the lease of the other one. The error is the run's:
    nothing is warned of beside it."""
    heard: SimpleQueue[Fenced] = SimpleQueue()
    first = RunLease(_in(s3), on_lost=heard.put).take()
    second = RunLease(_in(s3), is_forced=True).take()
    error = heard.get(timeout=patient())
    assert first.lost is error
    assert f"taken over (process {os.getpid()} on" in str(error)
    first.release()
    with pytest.raises(Locked):
        RunLease(_in(s3)).take()
    second.release()
    assert second.lost is None
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@pytest.mark.usefixtures("quick_beats")
def test_a_busy_writer_stops_before_the_other_one_goes_on(s3: SmallS3):
    """It would create each number first. What it was told is in the log, and the other goes on."""
    log = ObjectLog(_in(s3))
    first = RunLease(_in(s3), on_lost=log.fence).take()
    acknowledged = []

    def write() -> None:
        with suppress(Fenced):
            for number in count():
                log.append([f"busy {number}"])
                acknowledged.append(f"busy {number}")

    writer = Thread(target=write)
    writer.start()
    s3.wait_for(lambda: len(acknowledged) > 5)
    second = RunLease(_in(s3), is_forced=True).take()
    writer.join(patient())
    assert not writer.is_alive()
    after = ObjectLog(_in(s3))
    read = [line for group in after.groups() for line in group.lines]
    assert read == acknowledged
    after.append(["of the second"])
    first.release()
    second.release()


@pytest.mark.usefixtures("quick_beats")
def test_a_holder_beats(s3: SmallS3):
    """The lease is renewed while it is held, also after a beat without answer and a 403."""
    lease = RunLease(_in(s3)).take()
    for fault in ({}, {"drops": 1}, {"refusals": {"PUT": 403}}):
        for name, value in fault.items():
            setattr(s3, name, value)
        seen = s3.calls["PUT"]
        s3.wait_for(lambda seen=seen: s3.calls["PUT"] > seen + 3)
        s3.refusals = {}
    beats = _held(s3)["beats"]
    s3.wait_for(lambda: _held(s3)["beats"] > beats)
    lease.release()
    assert lease.lost is None
    assert _held(s3)["is_free"] is True


@pytest.mark.usefixtures("quick_beats")
def test_a_lease_that_was_removed_comes_back(s3: SmallS3):
    """Somebody cleaned the bucket up; the next run must still find the holder."""
    lease = RunLease(_in(s3)).take()
    del s3.objects[OBJECT]
    s3.wait_for(lambda: OBJECT in s3.objects)
    with pytest.raises(Locked):
        RunLease(_in(s3)).take()
    lease.release()
    assert lease.lost is None
    assert _held(s3)["is_free"] is True


# --- when a lease is free -------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 3_600, -3_600])
def test_a_silent_lease_is_taken_over(s3: SmallS3, ahead: float):
    """A minute by the store's clock, whatever the clock of this machine says."""
    s3.ahead = ahead
    _put(s3, silence=50)
    with pytest.raises(Locked, match=r"process 41 on gpu7, heard of (49|5[0-5]) s ago"):
        RunLease(_in(s3)).take()
    _put(s3, silence=62)
    lease = RunLease(_in(s3)).take()
    assert lease.epoch == 7
    lease.release()
    assert list(s3.objects) == [OBJECT]


@pytest.mark.usefixtures("quick_beats")
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"pid": "x", "epoch": null}']
)
def test_a_lease_that_cannot_be_read_is_somebodys(s3: SmallS3, content: bytes):
    """It is free after a minute, or by force."""
    _put(s3)
    s3.objects[OBJECT] = content
    with pytest.raises(Locked, match="is in use by"):
        RunLease(_in(s3)).take()
    lease = RunLease(_in(s3), is_forced=True).take()
    assert lease.epoch == 1
    lease.release()


def test_the_error_shows_a_hostile_name_as_text(s3: SmallS3):
    """The bucket's content reaches the terminal as plain text."""
    _put(s3, host="\x1b[2Jgpu7" + "x" * 1_000)
    with pytest.raises(Locked) as caught:
        RunLease(_in(s3)).take()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


_HOLDER = """
import sys
from fluxasync._store.lease import RunLease
from fluxasync._store.objects import Objects

lease = RunLease(Objects(sys.argv[1], dict(pair.split("=", 1) for pair in sys.argv[2:])))
lease.take()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(s3: SmallS3) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease."""
    options = [f"{name}={value}" for name, value in options_of(s3.url).items()]
    command = [sys.executable, "-c", _HOLDER, URL, *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_a_lease_of_a_dead_process_of_this_machine_is_free(s3: SmallS3, holder):
    """After a crash the same command goes on at once."""
    with pytest.raises(Locked, match=f"process {holder.pid} on {socket.gethostname()}"):
        RunLease(_in(s3)).take()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lease = RunLease(_in(s3)).take()
    assert lease.epoch == 2
    lease.release()


@pytest.mark.parametrize("other", ["host", "boot", "namespace"])
def test_the_processes_of_another_machine_are_unknown(s3: SmallS3, holder, other: str):
    """A process id that is free here may be in use there, or in another container."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    _put(s3, **_held(s3) | {other: "another", "token": "t"})
    with pytest.raises(Locked, match=f"process {holder.pid}"):
        RunLease(_in(s3)).take()


# --- a store that misbehaves, and several at once -------------------------------------------------


@pytest.mark.parametrize("is_released", [False, True])
def test_of_eight_that_start_at_once_one_goes_on(
    is_released: bool, server: ObjectServer, request: pytest.FixtureRequest
):
    """The others are refused."""
    skip_on_moto(request)
    place = Objects(server.url(f"run-{is_released}"), server.options)
    if is_released:
        RunLease(place).take().release()
    leases = [RunLease(place) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(lease.take) for lease in leases]
    errors = [future.exception() for future in futures]
    assert [type(error) for error in errors if error is not None] == [Locked] * 7
    for lease in leases:
        lease.release()
    RunLease(place).take().release()


@pytest.mark.parametrize("before", ["none", "released"])
def test_a_lease_whose_answer_is_lost_is_taken(s3: SmallS3, before: str):
    """Its own token is recognised."""
    if before == "released":
        RunLease(_in(s3)).take().release()
    s3.drops = 1
    lease = RunLease(_in(s3)).take()
    assert lease.epoch == (2 if before == "released" else 1)
    with pytest.raises(Locked):
        RunLease(_in(s3)).take()
    lease.release()
    assert _held(s3)["is_free"] is True


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_store_that_refuses_is_an_error_with_the_next_step(s3: SmallS3, method: str):
    """As for the log."""
    s3.refusals = {method: 403}
    with pytest.raises(JournalError, match="access is refused: check the credentials"):
        RunLease(_in(s3)).take()


def test_a_release_that_the_store_refused_is_no_obstacle_to_this_process(s3: SmallS3):
    """A notebook runs the same cell again, after the store works again."""
    lease = RunLease(_in(s3)).take()
    s3.refusals = {"PUT": 403}
    lease.release()
    s3.refusals = {}
    assert _held(s3)["is_free"] is False
    RunLease(_in(s3)).take().release()
