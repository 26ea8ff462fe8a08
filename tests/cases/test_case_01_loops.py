"""Case 1: a session belongs to its event loop; elsewhere it is refused before anything is sent.

Reported of programs that call `asyncio.run` once per request and keep their client
(replicate/replicate-python#217, itsOwen/CyberScraper-2077#46, openai/openai-python#1059). Other
members of the kind: one client in the event loops of several threads (streamlit/streamlit#8488), a
client opened before the server forks its workers (weaviate/weaviate-python-client#1292,
benoitc/gunicorn#1953), and the noise of clients that outlive their loop
(ibm-granite/granite-io#251).
"""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from support.interrupted_tasks import simulator_thread
from support.patience import patient
from support.simulator_sessions import fast_session, small_requests

from fluxasync import Batch, ConfigError, FluxSession, FolderSink, Job, Ready, Saved, Summary
from fluxasync.simulator import Scenario, Simulator

JOB = Job(job_id="j")
(REQUEST,) = small_requests(1)

#: how each coroutine of a session is called; a new one without a line here fails the test
CALLS: dict[str, Callable[[FluxSession], Coroutine[Any, Any, Any]]] = {
    "__aenter__": lambda flux: flux.__aenter__(),
    "generate": lambda flux: flux.generate(REQUEST),
    "submit": lambda flux: flux.submit(REQUEST),
    "poll": lambda flux: flux.poll(JOB),
    "watch": lambda flux: flux.watch(JOB),
    "download": lambda flux: flux.download(Ready(job=JOB, url="https://x.invalid/i", deadline=0)),
    "collect": lambda flux: flux.collect(JOB),
    "credits": lambda flux: flux.credits(),
}
#: closing is allowed where the loop is closed
CLOSING = {"aclose", "__aexit__"}


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with simulator_thread(Scenario(latency=(0, 0), image_bytes=1000)) as running:
        yield running


@contextmanager
def loop_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread, as apps without a loop of their own do."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def there(loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(call, loop).result(patient())


def opened(url: str) -> FluxSession:
    """Return a session that was opened in a loop which has ended since."""
    return asyncio.run(fast_session(url).__aenter__())


def refusal(call: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        asyncio.run(call)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_session_kept_between_requests_is_refused_and_nothing_is_charged(simulator: Simulator):
    """Case 1: of three requests, each an asyncio.run, the first is served; the others say whose
    loop the session belongs to and what to do, and send nothing."""
    kept: list[FluxSession] = []

    async def request(number: int) -> Saved:
        if not kept:
            kept.append(await fast_session(simulator.url).__aenter__())
        (wanted,) = small_requests(1, start=number)
        return await asyncio.wait_for(kept[0].generate(wanted), patient())

    assert asyncio.run(request(0)).stored.format
    for number in (1, 2):
        assert refusal(request(number)) == (
            "the session belongs to an event loop that is closed: open a FluxSession inside the "
            "coroutine that uses it, one for each asyncio.run"
        )
    assert (simulator.world.posts, len(simulator.charges)) == (1, 1)
    assert kept[0].unclaimed == ()


def test_every_coroutine_of_a_session_has_a_call_here():
    """A verb that is added to FluxSession is added to the tests of this file too."""
    found = {
        name for name, member in inspect.getmembers(FluxSession, inspect.iscoroutinefunction)
        if not name.startswith("_") or name.startswith("__a")
    }  # fmt: skip
    assert found == CALLS.keys() | CLOSING


@pytest.mark.parametrize("verb", CALLS)
def test_no_verb_is_taken_after_the_loop_has_ended(verb: str, simulator: Simulator):
    """Case 1: each verb is refused in a new loop, and the server hears of none."""
    flux = opened(simulator.url)
    assert "an event loop that is closed" in refusal(CALLS[verb](flux))
    assert simulator.world.posts == simulator.world.polls == 0


@pytest.mark.parametrize("verb", CALLS)
def test_no_verb_is_taken_in_the_loop_of_another_thread(verb: str, simulator: Simulator):
    """A session that is open in one thread is refused in the loop of another."""
    with loop_thread() as loop:
        flux = there(loop, fast_session(simulator.url).__aenter__())
        assert "belongs to another event loop" in refusal(CALLS[verb](flux))
        assert "belongs to another event loop" in refusal(flux.aclose())
        there(loop, flux.aclose())
    assert simulator.world.posts == simulator.world.polls == 0


def test_calls_of_other_threads_are_sent_to_the_loop(simulator: Simulator):
    """One loop in a thread serves many: run_coroutine_threadsafe runs in the session's own loop."""
    with loop_thread() as loop:
        flux = there(loop, fast_session(simulator.url, limits=2).__aenter__())
        with ThreadPoolExecutor(4) as callers:
            calls = [callers.submit(there, loop, flux.generate(each)) for each in small_requests(8)]
            assert all(call.result().stored.size for call in calls)
        there(loop, flux.aclose())
    assert len(simulator.charges) == 8


def test_limits_are_assigned_in_the_loop_only(simulator: Simulator):
    """A thread without a loop would wake the waiters of another thread: it is told how to call."""
    with loop_thread() as loop:
        flux = there(loop, fast_session(simulator.url, limits=2).__aenter__())
        with pytest.raises(ConfigError, match="call_soon_threadsafe"):
            flux.limits = 3  # type: ignore[assignment]
        loop.call_soon_threadsafe(setattr, flux, "limits", 3)
        there(loop, flux.generate(REQUEST))
        assert flux.limits.in_flight == 3
        there(loop, flux.aclose())


def test_a_loop_that_stands_still_is_no_other_loop(simulator: Simulator):
    """`run_until_complete` again and again is one loop: the session works, also in between."""
    loop = asyncio.new_event_loop()
    flux = loop.run_until_complete(fast_session(simulator.url).__aenter__())
    flux.limits = 3  # type: ignore[assignment]
    assert loop.run_until_complete(flux.generate(REQUEST)).stored.size
    loop.run_until_complete(flux.aclose())
    loop.close()


def test_a_session_made_at_import_is_opened_once_per_loop(simulator: Simulator):
    """Constructing belongs to no loop. Opening does, so a second asyncio.run needs another."""
    flux = fast_session(simulator.url)

    async def once() -> None:
        async with flux:
            await flux.generate(REQUEST)

    asyncio.run(once())
    assert "one for each asyncio.run" in refusal(once())
    asyncio.run(flux.aclose())  # closed already: nothing to do
    assert len(simulator.charges) == 1


# --- batches -------------------------------------------------------------------------------------


def test_a_batch_left_open_gives_its_folder_free_when_the_loop_ends(
    simulator: Simulator, tmp_path: Path
):
    """A batch entered by hand in a loop that ends: the journal is closed and the lock released, so
    the next request carries on in the same process and pays for nothing twice."""

    async def first() -> Batch:
        flux = await fast_session(simulator.url).__aenter__()
        batch = await Batch(flux, small_requests(4), out=tmp_path).__aenter__()
        await anext(batch)
        return batch

    async def second() -> Summary:
        async with fast_session(simulator.url) as flux:
            return await Batch(flux, small_requests(4), out=tmp_path).run()

    batch = asyncio.run(first())
    for use in (batch.run, batch.__anext__):
        assert "the batch belongs to an event loop that is closed" in refusal(use())
    summary = asyncio.run(second())
    doubts = summary.in_doubt + summary.in_doubt_earlier  # POSTs that the end of the loop cut
    assert summary.saved + summary.skipped + doubts == 4
    prompts = Counter(charge.prompt for charge in simulator.charges)
    assert set(prompts.values()) == {1}


def test_a_batch_is_stopped_in_its_own_loop(simulator: Simulator, tmp_path: Path):
    """`stop` and `events` from another thread are refused before they change anything."""
    with loop_thread() as loop:
        flux = there(loop, fast_session(simulator.url).__aenter__())
        batch = there(loop, Batch(flux, small_requests(2), out=tmp_path).__aenter__())
        for call in (batch.stop, batch.events):
            with pytest.raises(ConfigError, match="the batch belongs to an event loop"):
                call()
        assert there(loop, batch.run()).saved == 2
        there(loop, batch.__aexit__(None, None, None))
        there(loop, flux.aclose())


def test_a_batch_needs_a_session_of_its_own_loop(simulator: Simulator, tmp_path: Path):
    """A new batch over a kept session is refused before it creates its folder."""
    flux, out = opened(simulator.url), tmp_path / "out"
    assert "the session belongs to" in refusal(Batch(flux, small_requests(1), out=out).run())
    assert not out.exists()


def test_a_sink_of_another_loop_is_refused_before_the_image_is_paid(
    simulator: Simulator, tmp_path: Path
):
    """A FolderSink belongs to its loop as a session does."""
    sink = asyncio.run(FolderSink(tmp_path).__aenter__())

    async def generate() -> None:
        async with fast_session(simulator.url) as flux:
            await flux.generate(REQUEST, to=sink)

    assert "the sink belongs to an event loop that is closed" in refusal(generate())
    assert not simulator.charges


# --- closing -------------------------------------------------------------------------------------

#: a whole program, because what it leaves is told by the interpreter at its end
PROGRAM = """
import asyncio, gc, sys, threading
sys.path[:0] = {path!r}
from support.simulator_sessions import fast_session, small_requests
from fluxasync import Batch
new_loop = {loop}
request, = small_requests(1)

async def opened():
    flux = await fast_session({url!r}).__aenter__()
    await flux.generate(request)
    return flux

{body}
gc.collect()
print([thread.name for thread in threading.enumerate() if "fluxasync" in thread.name])
"""
BODIES = {
    "asyncio.run": """
        with asyncio.Runner(loop_factory=new_loop) as runner: flux = runner.run(opened())
        print(flux)
        asyncio.run(flux.aclose())
    """,
    "never closed": """
        with asyncio.Runner(loop_factory=new_loop) as runner: flux = runner.run(opened())
        print(flux)
    """,
    "closed by hand": """
        loop = new_loop()
        flux = loop.run_until_complete(opened())
        loop.close()
        asyncio.run(flux.aclose())
        print(flux)
    """,
    "aexit": """
        loop = new_loop()
        flux = loop.run_until_complete(opened())
        loop.close()
        asyncio.run(flux.__aexit__(None, None, None))
        asyncio.run(flux.aclose())
        print(flux)
    """,
}


def _loops() -> list[str]:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return ["asyncio.new_event_loop"]
    return ["asyncio.new_event_loop", "__import__('uvloop').new_event_loop"]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("loop", _loops())
def test_a_session_whose_loop_is_closed_closes_without_noise(
    body: str, loop: str, simulator: Simulator
):
    """No error, no thread and no warning is left, of any kind."""
    if "uvloop" in loop and body in ("closed by hand", "aexit"):
        pytest.skip("uvloop itself warns of handles that are open when its loop is closed")
    text = PROGRAM.format(
        path=sys.path, loop=loop, url=simulator.url, body=textwrap.dedent(BODIES[body])
    )
    command = (sys.executable, "-W", "error", "-c", text)
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(), check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["<FluxSession closed>", "[]"]


# --- forked processes ----------------------------------------------------------------------------


def in_child(main: Callable[[], object]) -> str:
    """Run a function in a forked child; return what it printed, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        answer = ""
        try:
            answer = str(main())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, answer.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as file:
        return file.read()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_a_session_opened_before_a_fork_is_refused_in_the_child(simulator: Simulator):
    """A worker that was forked with an open session sends nothing on its connections; closing there
    leaves them alone, and the parent goes on."""
    with asyncio.Runner() as runner:
        flux = runner.run(fast_session(simulator.url).__aenter__())
        runner.run(flux.generate(REQUEST))
        for verb in CALLS:
            answer = in_child(lambda verb=verb: asyncio.run(CALLS[verb](flux)))  # type: ignore[misc]
            assert answer == (
                "ConfigError: the session belongs to another process, which this one was forked "
                "from: open a FluxSession in this process"
            )
        assert in_child(lambda: asyncio.run(flux.aclose())) == "None"
        assert runner.run(flux.generate(small_requests(1, start=1)[0])).stored.size
        runner.run(flux.aclose())
    assert len(simulator.charges) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_session_made_before_a_fork_opens_in_the_child(simulator: Simulator):
    """Prefork servers import the app first: a session that is only constructed works in each."""
    flux = fast_session(simulator.url)

    async def generate() -> int:
        async with flux:
            return (await flux.generate(REQUEST)).stored.size

    assert int(in_child(lambda: asyncio.run(generate()))) > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_keep_the_folder_locked(simulator: Simulator, tmp_path: Path):
    """A child that was forked during a run lives on: the folder is free when the run ends."""
    children: list[int] = []

    async def run(start: int) -> None:
        async with (
            fast_session(simulator.url) as flux,
            Batch(flux, small_requests(2, start=start), out=tmp_path) as batch,
        ):
            if not children:
                child = os.fork()
                if not child:
                    os.read(reading, 1)  # until the parent has closed its end
                    os._exit(0)
                children.append(child)
            await batch.run()

    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    asyncio.run(run(0))
    try:
        asyncio.run(run(2))  # raises Locked while the child keeps the lock
    finally:
        os.write(writing, b".")
        os.waitpid(children[0], 0)
        os.close(reading)
        os.close(writing)
    assert len(simulator.charges) == 4
