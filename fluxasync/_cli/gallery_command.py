"""The errands about looking at a run: its page in the folder, or served while images land.

Beside a run the page is served by a child process that reads what the run writes. The run never
waits for it, and whatever becomes of it changes nothing for the run. The child ends when its
standard input does, also when its parent was killed, and leaves `gallery.html` behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from .. import gallery
from .._batch.progress.terminal import Terminal
from .._core.errors import FluxError
from .._core.isolated_process import start
from ..gallery.thumbnails import require_pillow
from .exit_codes import DONE

#: seconds between two lines about thumbnails
_PATIENCE = 2.0
#: seconds that a run which is over waits for its page, before the command ends without
_FINISHING = 10.0


async def write(terminal: Terminal, folder: Path) -> int:
    """Write the page and print where it is."""
    written = await gallery.write(folder, progress=_counting(terminal))
    terminal.out(str(written.path))
    if written.without_thumb:
        images = (
            "1 image is" if written.without_thumb == 1 else f"{written.without_thumb} images are"
        )
        terminal.say(f"{images} missing or cannot be decoded: fluxasync verify {folder}")
    return DONE


async def serve(terminal: Terminal, folder: Path, *, with_parent: bool) -> int:
    """Serve the page until a signal, or until standard input ends beside a run."""
    if not with_parent:  # a run's folder need not be there yet
        gallery.check(folder)
    from ..gallery.server import GalleryServer

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    if with_parent:
        os.nice(10)
        loop.add_reader(0, _until_end_of_input, stopped)
    async with GalleryServer(folder) as server:
        terminal.out(server.url)
        if not with_parent:
            terminal.say("serving the folder until Ctrl-C; images appear as they land")
        await stopped.wait()
    if with_parent:
        with suppress(FluxError):  # a run that made nothing has no page
            terminal.out(str((await gallery.write(folder)).path))
    return DONE


@asynccontextmanager
async def watching(terminal: Terminal, folder: Path | None) -> AsyncIterator[None]:
    """Serve a run's page while the block runs and say where; never in the run's way."""
    if folder is None:
        yield
        return
    require_pillow()
    over = asyncio.Event()
    watch = asyncio.create_task(_watch(terminal, folder, over))
    try:
        yield
        over.set()
    finally:
        with suppress(Exception):
            await _left(watch, terminal, folder, with_page=over.is_set())


async def _watch(
    terminal: Terminal, folder: Path, over: asyncio.Event
) -> asyncio.subprocess.Process | None:
    """Start the child; return it once its address is known, and said unless the run is over."""
    try:
        child = await start(
            "fluxasync", "gallery", "--watch", "--with-parent", "--", str(folder), quiet=True
        )
    except OSError as error:
        terminal.say(f"warning: no page to watch: {error.strerror}; the run goes on")
        return None
    assert child.stdout is not None  # noqa: S101 — asked for above; for the type checker
    try:
        url = (await child.stdout.readline()).decode(errors="replace").strip()
    except asyncio.CancelledError:
        await _ended(child)
        raise
    if not url:
        terminal.say("warning: no page to watch: its server did not start; the run goes on")
        await _ended(child)
        return None
    if not over.is_set():  # else nobody would find anything there
        terminal.say(f"watch it at {url}")
    return child


async def _left(
    watch: asyncio.Task[asyncio.subprocess.Process | None],
    terminal: Terminal,
    folder: Path,
    *,
    with_page: bool,
) -> None:
    """End the child; after a run that came to its end, let it write the page first.

    A short run may be over before its page has come up: it is waited for all the same, and when it
    takes too long people are told how to make it.
    """
    page = b""
    try:
        if with_page:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FINISHING):
                    page = await _page_of(await asyncio.shield(watch))
    finally:
        watch.cancel()
        await asyncio.wait({watch})
        child = None if watch.cancelled() else watch.result()
        if child is not None:
            await _ended(child)
    if page:
        terminal.note(f"pictures: {folder / gallery.FILE}")
    elif with_page:
        terminal.note(f"for a page of the pictures: fluxasync gallery {folder}")


async def _page_of(child: asyncio.subprocess.Process | None) -> bytes:
    """Tell the child that the run is over; return what it says once its page is written."""
    if child is None:
        return b""
    assert child.stdin is not None  # noqa: S101 — asked for; for the type checker
    assert child.stdout is not None  # noqa: S101 — as above
    child.stdin.close()
    return await child.stdout.readline()


async def _ended(child: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        child.kill()
    await child.wait()


def _until_end_of_input(stopped: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stopped.set()


def _counting(terminal: Terminal) -> Callable[[int, int], None]:
    due = time.monotonic() + _PATIENCE

    def told(done: int, total: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _PATIENCE
            terminal.status(f"{done:,} of {total:,} thumbnails")

    return told
