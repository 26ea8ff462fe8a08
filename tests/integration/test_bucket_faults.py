"""Runs into real object stores behind a proxy that breaks calls: nothing is lost or paid twice."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.object_servers import ObjectServer
from support.simulator_sessions import SIDE, fast_session, run_out, small_requests, tally, until
from support.tcp_proxy import Fault, Proxy, proxy, puts

from fluxasync import Batch, FluxError, ObjectSink, Saved, SinkError
from fluxasync import audit as folders
from fluxasync._store.bucket_state import refreshed_state
from fluxasync._store.objects import Objects
from fluxasync.simulator import Scenario, Simulator
from fluxasync.simulator.images import PictureSpec

pytest.importorskip("obstore", reason="the extra `store` is not installed")
pytestmark = pytest.mark.asyncio

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
IMAGES = 8


@pytest.fixture
def run(server: ObjectServer, tmp_path: Path) -> Run:
    return Run(server, tmp_path)


class Run:
    """Runs of one list, into a bucket that may be behind a proxy."""

    def __init__(self, server: ObjectServer, home: Path) -> None:
        self.server, self.state = server, home / "state"
        self.url = server.url(home.name)

    async def __call__(
        self, sim: Simulator, at: Proxy | None = None, **options: Any
    ) -> tuple[list[Any], FluxError | None]:
        """Run, or continue, the list."""
        server = self.server if at is None else self.server.behind(at.url)
        out = ObjectSink(self.url, options=server.options)
        async with fast_session(sim.url) as flux:
            batch = Batch(flux, small_requests(IMAGES), out=out, state=self.state, **options)
            return await run_out(batch)

    async def audit(self, sim: Simulator) -> None:
        """Assert that every image was charged once, and is one whole object, as recorded."""
        prompts = [charge.prompt for charge in sim.world.charges]
        assert len(prompts) == len(set(prompts)) == IMAGES
        images = {
            hashlib.sha256(
                sim.world.gallery.picture(
                    PictureSpec(
                        prompt=request.prompt or "", seed=request.seed or 0,
                        width=SIDE, height=SIDE, format="jpeg",
                    )
                ).body
            ).hexdigest()
            for request in small_requests(IMAGES)
        }  # fmt: skip
        kept = Objects(self.url, self.server.options)
        names = await asyncio.to_thread(lambda: [name for name, _ in kept.sizes()])
        names = [name for name in names if name.endswith(".jpg")]
        assert len(names) == IMAGES
        assert {await asyncio.to_thread(kept.sha256, name) for name in names} == images
        options = self.server.options
        assert (await folders.verify(self.state, deep=True, options=options)).is_clean


@pytest.mark.parametrize("kind", ["swallow", "reset in head", "busy"])
async def test_an_upload_whose_answer_is_lost_is_adopted(run: Run, kind: Any):
    """The object is there when it is uploaded again: it is compared and adopted, under its name."""
    async with Simulator(SCENARIO) as sim, proxy(run.server.address) as line:
        line.fault = Fault(kind=kind, affects=puts(1, 2, 6))
        outcomes, error = await run(sim, line)
        assert error is None
        assert tally(outcomes) == {"saved": IMAGES}
        assert line.fault_count == 3
        assert not [saved for saved in outcomes if "-2." in saved.place]
        await run.audit(sim)


@pytest.mark.parametrize("kind", ["reset unread", "reset in request", "cut upload"])
async def test_an_upload_that_breaks_off_is_made_again(run: Run, kind: Any):
    """A store that received a part of an image keeps none of it."""
    async with Simulator(SCENARIO) as sim, proxy(run.server.address) as line:
        line.fault = Fault(kind=kind, affects=puts(1, 2, 6))
        outcomes, error = await run(sim, line)
        assert error is None
        assert tally(outcomes) == {"saved": IMAGES}
        assert line.fault_count == 3
        await run.audit(sim)


async def test_a_store_that_asks_to_slow_down_is_tried_again(run: Run):
    """503 is no error of the run, whether or not the image was stored."""
    async with Simulator(SCENARIO) as sim, proxy(run.server.address) as line:
        status = b"503 Service Unavailable"
        line.fault = Fault(kind="refused", status=status, affects=puts(1, 2, 3, 7))
        outcomes, error = await run(sim, line)
        assert error is None
        assert tally(outcomes) == {"saved": IMAGES}
        assert line.fault_count == 4
        await run.audit(sim)


async def test_a_slow_store_delays_a_run_and_changes_nothing(run: Run):
    """Each answer comes 50 ms late."""
    async with Simulator(SCENARIO) as sim, proxy(run.server.address) as line:
        line.fault = Fault(kind="late", seconds=0.05)
        outcomes, error = await run(sim, line)
        assert error is None
        assert tally(outcomes) == {"saved": IMAGES}
        await run.audit(sim)


async def test_an_adoption_survives_a_lost_answer_too(run: Run):
    """The image's upload and the comparison that follows are both broken off once."""
    async with Simulator(SCENARIO) as sim, proxy(run.server.address) as line:
        uploads, seen = puts(1), 0

        def affects(number: int, head: bytes) -> bool:
            nonlocal seen
            is_comparison = head.startswith((b"GET", b"HEAD")) and b"list-type" not in head
            seen += is_comparison
            return uploads(number, head) or (is_comparison and seen in (1, 3))

        line.fault = Fault(kind="swallow", affects=affects)
        outcomes, error = await run(sim, line)
        assert error is None
        assert tally(outcomes) == {"saved": IMAGES}
        assert line.fault_count >= 2
        await run.audit(sim)


@pytest.mark.usefixtures("few_retries")
async def test_withdrawn_credentials_end_the_run_and_lose_nothing(run: Run):
    """403 from the third image on: the error says what to do, the bytes of the paid images are in
    quarantine, and the same call with good credentials stores every image without paying again."""
    async with Simulator(SCENARIO) as sim, proxy(run.server.address) as line:
        uploads, seen = puts(), 0

        def affects(number: int, head: bytes) -> bool:
            nonlocal seen
            is_upload = uploads(number, head)
            seen += is_upload
            return is_upload and seen > 2

        line.fault = Fault(kind="refused", affects=affects)
        outcomes, error = await run(sim, line)
        assert isinstance(error, SinkError)
        assert "access is refused: check the credentials" in str(error)
        assert set(tally(outcomes)) <= {"saved"}
        stored = sum(isinstance(outcome, Saved) for outcome in outcomes)
        assert stored <= 2
        charged = {charge.job_id for charge in sim.world.charges}
        assert stored < len(charged) <= IMAGES
        quarantine = run.state / ".fluxasync" / "quarantine"
        kept = {path.stem for path in quarantine.iterdir()}
        assert kept
        assert kept <= charged
        again, error = await run(sim)
        assert error is None
        assert tally(again) == {"saved": IMAGES}
        assert not [*quarantine.iterdir()]
        await run.audit(sim)


def from_the_second_upload() -> Callable[[int, bytes], bool]:
    """Affect the second upload of an image, and all that comes after it."""
    is_second, is_away = puts(2), False

    def affects(number: int, head: bytes) -> bool:
        nonlocal is_away
        is_away = is_away or is_second(number, head)
        return is_away

    return affects


async def test_a_store_that_is_away_for_a_moment_stops_nothing(run: Run):
    """Every connection breaks for a while in the middle of a run: it waits, and goes on."""
    async with Simulator(SCENARIO) as sim, proxy(run.server.address) as line:
        line.fault = Fault(kind="reset unread", affects=from_the_second_upload())
        working = asyncio.create_task(run(sim, line))
        await until(lambda: line.fault_count >= 2 * IMAGES)
        line.fault = None
        outcomes, error = await working
        assert error is None
        assert tally(outcomes) == {"saved": IMAGES}
        await run.audit(sim)


# --- the record in the bucket ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["swallow", "reset in head", "busy", "cut upload"])
async def test_an_append_whose_call_breaks_is_in_the_log_once(
    run: Run, kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every third object of the log loses its answer, or is cut: the run goes on, and another
    machine reads a record in which every charge is once."""
    appends = 0

    def affects(_number: int, head: bytes) -> bool:
        nonlocal appends
        is_append = head.startswith(b"PUT") and b".fluxasync/log/" in head.partition(b"\r\n")[0]
        appends += is_append
        return is_append and appends % 3 == 0

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here"))
    async with Simulator(SCENARIO) as sim, proxy(run.server.address) as line:
        line.fault = Fault(kind=kind, affects=affects)
        out = ObjectSink(run.url, options=run.server.behind(line.url).options)
        async with fast_session(sim.url) as flux:
            outcomes, error = await run_out(Batch(flux, small_requests(IMAGES), out=out))
        assert error is None
        assert tally(outcomes) == {"saved": IMAGES}
        assert line.fault_count >= 3
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        run.state = await refreshed_state(run.url, run.server.options)
        assert (await folders.status(run.state)).counts.done == IMAGES
        await run.audit(sim)
