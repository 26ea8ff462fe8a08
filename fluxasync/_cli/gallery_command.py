"""The command `gallery`, and the page that `run --watch` serves.

`run --watch` serves the page from a child process, which cannot delay or end the run. The child
exits when its standard input ends, also when its parent was killed, and writes `gallery.html`. A
line of that input is the number of images that the run makes, and 1 if they cost nothing.
"""

from __future__ import annotations

import asyncio
import html
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from .. import gallery
from .._batch.progress.terminal import Terminal
from .._core.errors import ConfigError, FluxError
from .._core.isolated_process import STORE_VARIABLES, start
from .._core.text import counted
from .._store.bucket_state import folder_of, located
from .._store.journal.reader import output_of
from .._store.output_root import OutputRoot
from ..gallery.thumbnails import require_pillow
from .exit_codes import DONE
from .options import read_storage_options

if TYPE_CHECKING:  # needs aiohttp
    from ..gallery.server import GalleryServer

#: seconds between two lines about thumbnails
_PATIENCE = 2.0
#: seconds that a finished run waits for its page
_FINISHING = 10.0


async def show(
    terminal: Terminal,
    run: Path | str,
    *,
    out: Path | None,
    watch: bool,
    opens: bool,
    sheet: Path | None,
    picked: bool,
    storage_options: tuple[str, ...],
    with_parent: bool,
) -> int:
    """Write or serve the page, or draw a contact sheet. Raises ConfigError for what does not fit
    together."""
    if watch and out is not None:
        raise ConfigError("--watch serves the page, --out writes it: give one of them")
    if sheet is not None and (watch or out is not None):
        raise ConfigError("--sheet draws one image, not a page: leave --watch and --out out")
    if picked and out is None and sheet is None:
        raise ConfigError("--picked is for another page or a sheet: add --out or --sheet")
    if watch:
        return await serve(
            terminal, run, storage_options=storage_options, with_parent=with_parent, opens=opens
        )
    if sheet is not None:
        options = read_storage_options(storage_options)
        count = await gallery.sheet(
            run, sheet, picked=picked, options=options, progress=counting(terminal)
        )
        terminal.out(str(sheet))
        terminal.say(counted(count, "image"))
        path = sheet
    else:
        path = await write(terminal, run, out=out, picked=picked, storage_options=storage_options)
    if opens:
        open_in_browser(terminal, address_of(path))
    return DONE


def address_of(path: Path) -> str:
    """Return a path as an address that terminals and browsers open."""
    return Path(os.path.abspath(path)).as_uri()


def open_in_browser(terminal: Terminal, address: str, *, shown: str = "") -> None:
    """Open an address; without a browser, print it, or the one that is `shown`."""
    import webbrowser  # slow to load

    if not webbrowser.open(address):
        terminal.say(f"no browser was found; open {shown or address}")


@contextmanager
def opened_in_browser(terminal: Terminal, address: str) -> Iterator[None]:
    """Open an address that other users of the machine must not see, as they see arguments: the
    browser is given a private file that leads there."""
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
        file.write(f'<meta http-equiv="refresh" content="0; url={html.escape(address)}">\n')
        file.flush()
        open_in_browser(terminal, Path(file.name).as_uri(), shown=address)
        yield


async def write(
    terminal: Terminal,
    run: Path | str,
    *,
    out: Path | None,
    picked: bool,
    storage_options: tuple[str, ...],
) -> Path:
    """Write the page, print its path and return it."""
    options = read_storage_options(storage_options)
    written = await gallery.write(
        run, out=out, picked=picked, options=options, progress=counting(terminal)
    )
    terminal.out(str(written.path))
    if written.output and written.saved:
        terminal.say(
            f"the page has thumbnails; the images are at {written.output}. -o FOLDER copies them "
            "beside a page, --watch serves them"
        )
    if written.without_thumb:
        images = (
            "1 image is" if written.without_thumb == 1 else f"{written.without_thumb} images are"
        )
        terminal.say(f"{images} missing or cannot be decoded: fluxasync verify {run}")
    return written.path


async def serve(
    terminal: Terminal,
    run: Path | str,
    *,
    storage_options: tuple[str, ...],
    with_parent: bool,
    opens: bool = False,
) -> int:
    """Serve the page until a signal, or until standard input ends beside a run."""
    options = read_storage_options(storage_options)
    folder, refresh = folder_of(run), None
    if not with_parent:  # the folder of a run may not exist yet
        found = await located(run, options)
        refresh = found.refresh
        await gallery.check(folder, options)
    from ..gallery.server import GalleryServer

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    if with_parent:
        os.nice(10)
    async with GalleryServer(folder, options=options, refresh=refresh) as server:
        if with_parent:
            loop.add_reader(0, _ParentInput(server, stopped).read)
        terminal.out(server.url)
        if not with_parent:
            terminal.say("serving the run until Ctrl-C; images appear as they arrive")
        with opened_in_browser(terminal, server.url) if opens else nullcontext():
            await stopped.wait()
    if with_parent:
        with suppress(FluxError):  # a run without images has no page
            if not output_of(folder):  # all images of a bucket are read only when asked for
                terminal.out(str((await gallery.write(folder)).path))
    return DONE


@asynccontextmanager
async def watching(
    terminal: Terminal, root: OutputRoot, *, storage_options: tuple[str, ...] = ()
) -> AsyncIterator[Watched]:
    """Serve a run's page while the block runs, and print its address."""
    require_pillow()
    over, watched = asyncio.Event(), Watched()
    watch = asyncio.create_task(_watch(terminal, root.folder, storage_options, over, watched))
    try:
        yield watched
        over.set()
    finally:
        with suppress(Exception):
            await _left(watch, terminal, root, with_page=over.is_set())


@define
class Watched:
    """A run as its page knows it."""

    total: int | None = None  #: images in the end
    is_free: bool = False
    input: asyncio.StreamWriter | None = None  #: of the child, once it serves the page

    def expect(self, total: int | None, *, is_free: bool) -> None:
        """Tell the page how many images the run has in the end, None = not known, and whether they
        cost nothing."""
        self.total, self.is_free = total, is_free
        if self.total is not None and self.input is not None and not self.input.is_closing():
            self.input.write(f"{self.total} {int(self.is_free)}\n".encode())


async def _watch(
    terminal: Terminal,
    folder: Path,
    storage_options: tuple[str, ...],
    over: asyncio.Event,
    watched: Watched,
) -> asyncio.subprocess.Process | None:
    """Start the child; print its address, unless the run is over, and return the child."""
    options = [word for each in storage_options for word in ("--storage-option", each)]
    try:
        child = await start(
            "fluxasync", "gallery", "--watch", "--with-parent", *options, "--", str(folder),
            quiet=True, keeps=STORE_VARIABLES,
        )  # fmt: skip
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
    if not over.is_set():  # afterwards the address leads nowhere
        terminal.say(f"watch it at {url}")
        watched.input = child.stdin
        watched.expect(watched.total, is_free=watched.is_free)
    return child


async def _left(
    watch: asyncio.Task[asyncio.subprocess.Process | None],
    terminal: Terminal,
    root: OutputRoot,
    *,
    with_page: bool,
) -> None:
    """End the child. After a finished run, wait until it has written the page, or print how to
    write it later."""
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
        terminal.note(f"images: {address_of(root.folder / gallery.FILE)}")
    elif with_page:
        terminal.note(f"for a page of the images: fluxasync gallery {root.record}")


async def _page_of(child: asyncio.subprocess.Process | None) -> bytes:
    """Close the child's standard input; return the path that it prints once the page is written."""
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


@define
class _ParentInput:
    """What the run tells the server: the number of its images, and its end."""

    server: GalleryServer
    stopped: asyncio.Event
    _rest: bytes = field(default=b"", init=False)
    _told: set[asyncio.Task[None]] = field(factory=set, init=False)

    def read(self) -> None:
        loop = asyncio.get_running_loop()
        if not (read := os.read(0, 4096)):
            loop.remove_reader(0)
            self.stopped.set()
        *lines, self._rest = (self._rest + read).split(b"\n")
        for line in lines:
            total, is_free = map(int, line.split())
            task = loop.create_task(self.server.expect(total, is_free=bool(is_free)))
            self._told.add(task)
            task.add_done_callback(self._told.discard)


def counting(terminal: Terminal, *, patience: float = _PATIENCE) -> Callable[[int, int], None]:
    """Return what shows the thumbnails made so far, every `patience` seconds. What it showed ends
    with all of them, or is removed where a line can be overwritten."""
    due, has_shown = time.monotonic() + patience, False

    def show(done: int, total: int) -> None:
        nonlocal due, has_shown
        if done == total:
            if has_shown and terminal.rewrites:
                terminal.clear()
            elif has_shown:
                terminal.note(f"{done:,} of {total:,} thumbnails")
        elif time.monotonic() >= due:
            due, has_shown = time.monotonic() + patience, True
            terminal.status(f"{done:,} of {total:,} thumbnails")

    return show
