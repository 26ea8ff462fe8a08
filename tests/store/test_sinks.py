"""Images on disk are whole and under their name, or absent."""

from __future__ import annotations

import asyncio
import base64
import errno
import gc
import hashlib
import os
import resource
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.sample_images import jpeg, png, webp

from fluxasync import (
    ConfigError,
    DownloadError,
    FileSink,
    FolderSink,
    ImageRequest,
    Job,
    MemorySink,
    SinkError,
)
from fluxasync._core.protocols import Chunks
from fluxasync._store.directory_sync import DirectorySync
from fluxasync._store.disk_threads import ThreadRunner
from fluxasync._store.files import AtomicFile

JOB = Job(job_id="7f3a9c21", request=ImageRequest(prompt="a red fox", name="fox"))
LARGE = jpeg(payload=bytes(range(250)) * 22_000)  # over 5 MB: streamed
HTML = b"<html>expired</html>"

pytestmark = pytest.mark.asyncio


async def _chunks(image: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(image), size):
        yield image[start : start + size]


async def _store(sink: FolderSink | FileSink | MemorySink, image: bytes):
    return await sink.store(JOB.request, JOB, _chunks(image))


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The system writes a part of the bytes up to the limit, then reports EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("image", "name"),
    [
        pytest.param(jpeg(), "fox.jpg", id="jpeg"),
        pytest.param(png(), "fox.png", id="png"),
        pytest.param(webp(), "fox.webp", id="webp"),
        pytest.param(LARGE, "fox.jpg", id="streamed jpeg"),
    ],
)
async def test_a_folder_keeps_the_bytes_under_their_true_extension(tmp_path, image, name):
    """P4 F76 The stored file has the exact bytes, measured, with the extension of their format."""
    async with FolderSink(tmp_path, template="{name}.{ext}") as sink:
        stored = await _store(sink, image)
    assert tmp_path / name == stored.path
    assert image == stored.path.read_bytes()
    assert (len(image), hashlib.sha256(image).hexdigest()) == (stored.size, stored.sha256)
    assert (stored.width, stored.height) == (8, 6)
    assert [name] == _names(tmp_path)


async def test_memory_keeps_the_bytes():
    """An image requested without a file is complete in `data`, large or small."""
    async with MemorySink() as sink:
        for image in (jpeg(), LARGE):
            stored = await _store(sink, image)
            assert image == stored.data
            assert hashlib.sha256(image).hexdigest() == stored.sha256
            assert stored.path is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "empty", id="F74 no bytes"),
        pytest.param(HTML, "an HTML page", id="F75 html as image"),
        pytest.param(HTML + bytes(5_000_000), "an HTML page", id="F75 large html as image"),
        pytest.param(png()[:-5], "truncated PNG", id="F72 truncated"),
        pytest.param(LARGE[:-2], "no end marker", id="F78 large jpeg cut by two bytes"),
    ],
)
async def test_bytes_that_are_no_image_leave_no_file(tmp_path, content, reason):
    """The error names the job and the problem; no file is left, final or temporary."""
    async with FolderSink(tmp_path) as sink, MemorySink() as memory:
        for place in (sink, memory):
            with pytest.raises(DownloadError, match=f"{JOB.job_id}.*{reason}") as caught:
                await _store(place, content)
            assert JOB is caught.value.job
    assert _names(tmp_path) == []


@pytest.mark.parametrize("embed", [False, True], ids=["as it came", "embedded"])
@pytest.mark.parametrize("image", [jpeg(), LARGE], ids=["one hop", "streamed"])
async def test_bytes_of_another_md5_leave_nothing_behind(tmp_path, image, embed):
    """P4 F77 The sink checks the server's MD5; other bytes are not an image. What is embedded is
    added after that."""

    def with_md5(content: bytes) -> Chunks:
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        return Chunks(_chunks(image), take_md5=lambda: base64.b64encode(digest).decode())

    async with FolderSink(tmp_path, template="{name}.{ext}", embed=embed) as sink:
        with pytest.raises(DownloadError, match="Content-MD5"):
            await sink.store(JOB.request, JOB, with_md5(image[::-1]))
        assert _names(tmp_path) == []
        stored = await sink.store(JOB.request, JOB, with_md5(image))
    assert (image == stored.path.read_bytes()) is not embed


@pytest.mark.parametrize("limit", [100, 5_000_000], ids=["small limit", "large limit"])
async def test_an_endless_stream_is_cut_off(tmp_path, limit):
    """F79 Reading stops soon after the limit, and what was written is removed."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield LARGE[:1000]
        while True:
            read += 65_536
            yield bytes(65_536)

    async with FolderSink(tmp_path, max_bytes=limit) as sink:
        with pytest.raises(DownloadError, match=f"limit of {limit} bytes"):
            await sink.store(None, JOB, endless())
    with pytest.raises(DownloadError, match=f"limit of {limit} bytes"):
        await MemorySink(max_bytes=limit).store(None, JOB, endless())
    assert read < 2 * (limit + 2**21)
    assert _names(tmp_path) == []


async def test_nothing_is_overwritten(tmp_path):
    """F108 Beside other content a name gets a number; a file of the same content is kept."""
    async with FolderSink(tmp_path, template="{name}.{ext}") as sink:
        paths = [(await _store(sink, png(width))).path for width in (1, 2, 3, 1, 3)]
    assert [p.name for p in paths] == ["fox.png", "fox-2.png", "fox-3.png", "fox.png", "fox-3.png"]
    assert _names(tmp_path) == ["fox-2.png", "fox-3.png", "fox.png"]
    assert [png(1), png(2), png(3), png(1), png(3)] == [p.read_bytes() for p in paths]


async def test_many_at_once_under_one_name_stay_apart(tmp_path):
    """F110 Threads that publish the same name at once never replace each other's file."""
    images = [png(width) for width in range(1, 17)]
    async with FolderSink(tmp_path, template="{name}.{ext}") as sink:
        stored = await asyncio.gather(*(_store(sink, image) for image in images))
    assert images == [s.path.read_bytes() for s in stored]
    assert len(images) == len(_names(tmp_path))


async def test_file_name_and_folder_are_synced_in_that_order(tmp_path, monkeypatch):
    """P6 After a power cut at any instant a final name has whole content."""
    calls: list[str] = []

    def recorded(name, real):
        def call(first, *args, **kwargs):
            is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(first).st_mode)
            calls.append("fsync folder" if is_folder else name)
            return real(first, *args, **kwargs)

        return call

    async with FolderSink(tmp_path) as sink:
        for name in ("fsync", "link", "unlink"):
            monkeypatch.setattr(os, name, recorded(name, getattr(os, name)))
        await sink.store(JOB.request, JOB, _chunks(jpeg()))
        await sink.store(None, JOB, _chunks(LARGE))
    assert calls == ["fsync", "link", "unlink", "fsync folder"] * 2


async def test_short_writes_are_continued(tmp_path, monkeypatch):
    """F103 A disk that takes a thousand bytes at a time gets the rest too."""
    real = os.write
    async with FolderSink(tmp_path) as sink:
        monkeypatch.setattr(os, "write", lambda handle, piece: real(handle, piece[:1000]))
        stored = await _store(sink, jpeg(payload=bytes(50_000)))
    assert jpeg(payload=bytes(50_000)) == stored.path.read_bytes()


@pytest.mark.parametrize("image", [jpeg(payload=bytes(90_000)), LARGE], ids=["small", "streamed"])
async def test_a_disk_that_takes_no_more_is_named(tmp_path, image):
    """F100 F103 The error gives the next step, and the half-written file is removed."""
    async with FolderSink(tmp_path) as sink:
        with _largest_file(50_000), pytest.raises(SinkError, match="ulimit -f"):
            await _store(sink, image)
        assert _names(tmp_path) == []
        assert (await _store(sink, image)).path.exists()


async def test_a_failed_sync_publishes_nothing(tmp_path, monkeypatch):
    """F102 After EIO the content cannot be trusted, so it gets no name."""

    def broken(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with FolderSink(tmp_path) as sink:
        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(SinkError, match="disk reports an error"):
            await _store(sink, jpeg())
    assert _names(tmp_path) == []


async def test_a_name_given_during_a_sync_waits_for_the_next_one(tmp_path, monkeypatch):
    """P6 A sync covers the names that existed when it began; later callers share the next one."""
    fsync, begun, later, syncs = os.fsync, asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def slow(handle: int) -> None:
        syncs.append(handle)
        if len(syncs) == 1:
            loop.call_soon_threadsafe(begun.set)
            later.wait()
        fsync(handle)

    monkeypatch.setattr(os, "fsync", slow)
    async with ThreadRunner(count=2) as threads, asyncio.TaskGroup() as group:
        names = DirectorySync(threads)
        first = group.create_task(names.sync(tmp_path))
        await begun.wait()
        late = [group.create_task(names.sync(tmp_path)) for _ in range(3)]
        await asyncio.wait(late, timeout=0)  # they are in line before the first sync ends
        later.set()
        await first
    assert len(syncs) == 2


async def test_after_a_failed_sync_of_the_folder_no_name_is_called_durable(tmp_path, monkeypatch):
    """F102: the kernel reports a loss once; a second fsync would report success to another
    image."""
    fsync, failures = os.fsync, [errno.EIO]

    def fails_once(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode) and failures:
            raise OSError(failures.pop(), "I/O error")
        fsync(handle)

    async with FolderSink(tmp_path) as sink:
        monkeypatch.setattr(os, "fsync", fails_once)
        for _ in range(2):
            with pytest.raises(SinkError, match="the disk reports an error"):
                await _store(sink, jpeg())
    assert not failures


async def test_without_hard_links_files_are_renamed_and_still_not_replaced(tmp_path, monkeypatch):
    """F108 On a drive without hard links nothing is overwritten either."""

    def refused(*args, **kwargs):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    images = [png(width) for width in range(1, 9)]
    async with FolderSink(tmp_path, template="{name}.{ext}") as sink:
        stored = await asyncio.gather(*(_store(sink, image) for image in images))
    assert [s.path.read_bytes() for s in stored] == images
    assert len(_names(tmp_path)) == len(images)


async def test_a_planted_link_is_never_written_through(tmp_path):
    """F109 A link under the final name is another file, dangling or not."""
    outside = tmp_path / "outside.txt"
    outside.write_text("keep")
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "fox.png").symlink_to(outside)
    (folder / "fox-2.png").symlink_to(tmp_path / "nowhere")
    async with FolderSink(folder, template="{name}.{ext}") as sink:
        stored = await _store(sink, png())
    assert stored.path.name == "fox-3.png"
    assert outside.read_text() == "keep"
    assert not (tmp_path / "nowhere").exists()


async def test_a_planted_folder_link_leads_nowhere(tmp_path):
    """P24 T5 A subfolder that is a link out of the folder is refused, not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "fox").symlink_to(outside)
    async with FolderSink(folder, template="{name}/deep/{index}.{ext}") as sink:
        with pytest.raises(SinkError, match="leads out of"):
            await _store(sink, png())
    assert _names(outside) == []


async def test_subfolders_of_a_template_are_created(tmp_path, monkeypatch):
    """F112 A template with slashes makes its folders, once for all images in them; each image is
    written there, because a rename cannot cross file systems."""
    links, link = [], os.link

    def recorded(part: str, name: str, **options: bool) -> None:
        links.append((Path(part).parent, Path(name).parent))
        link(part, name, **options)

    monkeypatch.setattr(os, "link", recorded)
    async with FolderSink(tmp_path / "a" / "b", template="{slug}/{name}/{index}.{ext}") as sink:
        for width in (1, 2):
            await _store(sink, png(width))
    expected = ["0-2.png", "0.png"]
    deep = tmp_path / "a" / "b" / "a-red-fox" / "fox"
    assert expected == _names(deep)
    assert {(deep, deep)} == set(links)


@pytest.mark.parametrize(
    ("inside", "step"),
    [
        pytest.param("file/images", "a part of the path is a file", id="F104 under a file"),
        pytest.param("file", "a part of the path is a file", id="F104 a file itself"),
        pytest.param("locked/images", "not writable", id="F104 no permission"),
    ],
)
async def test_a_useless_folder_is_refused_at_the_start(tmp_path, inside, step):
    """A folder that cannot be written is reported before anything is paid."""
    (tmp_path / "file").write_text("")
    (tmp_path / "locked").mkdir(mode=0o500)
    if inside.startswith("locked") and os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(SinkError, match=step):
        async with FolderSink(tmp_path / inside):
            pass
    assert _disk_threads() == []


async def test_a_folder_that_vanishes_is_named(tmp_path):
    """F105 A folder removed during the run is an error of the disk, not of the image."""
    async with FolderSink(tmp_path / "images") as sink:
        (tmp_path / "images").rmdir()
        with pytest.raises(SinkError, match="was moved or removed"):
            await _store(sink, png())


def _disk_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("fluxasync-disk")]


async def test_its_own_threads_end_with_the_sink_and_a_given_executor_stays(tmp_path):
    """F157 F158 Threads are ended by the code that created them."""
    with ThreadPoolExecutor(1) as executor:
        async with FolderSink(tmp_path, executor=executor) as sink:
            await _store(sink, jpeg())
            assert _disk_threads() == []
        assert executor.submit(lambda: 7).result() == 7
    async with FolderSink(tmp_path) as sink:
        await _store(sink, jpeg())
        assert _disk_threads()
    assert _disk_threads() == []
    with pytest.raises(SinkError, match="not open"):
        await _store(sink, jpeg())


async def test_cancelling_waits_for_a_write_that_has_begun(tmp_path):
    """A paid image stays whole: the thread finishes, then the cancellation is raised."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        async with FolderSink(tmp_path, executor=executor) as sink:
            executor.submit(gate.wait)
            store = asyncio.create_task(_store(sink, jpeg()))
            for _ in range(3):  # a second and a third Ctrl-C change nothing
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                store.cancel()
            await asyncio.sleep(0)
            assert not store.done()
            gate.set()
            with pytest.raises(asyncio.CancelledError):
                await store
    (name,) = _names(tmp_path)
    assert jpeg() == (tmp_path / name).read_bytes()


async def test_cancelling_between_pieces_removes_the_temporary_file(tmp_path):
    """A cancelled download of a large image leaves no file."""
    waiting = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield LARGE[:-10]
        waiting.set()
        await asyncio.Event().wait()

    async with FolderSink(tmp_path) as sink:
        store = asyncio.create_task(sink.store(None, JOB, stalled()))
        await waiting.wait()
        assert _names(tmp_path)[0].endswith(".part")
        store.cancel()
        with pytest.raises(asyncio.CancelledError):
            await store
    assert _names(tmp_path) == []


async def test_a_drive_that_cannot_sync_folders_still_takes_images(tmp_path, monkeypatch):
    """Some mounted drives answer EINVAL for a folder; they are accepted."""
    real = os.fsync

    def files_only(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    async with FolderSink(tmp_path) as sink:
        assert (await _store(sink, jpeg())).path.exists()


async def test_syncing_can_be_left_out(tmp_path, monkeypatch):
    """With `fsync=False` nothing waits for the disk; everything else holds."""
    async with FolderSink(tmp_path, template="{name}.{ext}", fsync=False) as sink:
        monkeypatch.setattr(os, "fsync", lambda handle: pytest.fail("synced"))
        for image in (jpeg(), LARGE):
            assert (await _store(sink, image)).path.read_bytes() == image


@pytest.mark.parametrize(
    ("asked", "image", "kept"),
    [
        pytest.param("fox.png", png(), "fox.png", id="as asked"),
        pytest.param("fox.JPEG", jpeg(), "fox.JPEG", id="another spelling"),
        pytest.param("fox.png", jpeg(), "fox.jpg", id="F76 jpeg when png was asked"),
        pytest.param("fox.jpg", webp(), "fox.webp", id="F76 webp when jpeg was asked"),
        pytest.param("fox.v2", png(), "fox.v2.png", id="no image suffix"),
    ],
)
async def test_one_file_gets_its_true_extension(tmp_path, caplog, asked, image, kept):
    """The file has the requested name, or another extension with a warning that names it."""
    async with FileSink(tmp_path / asked) as sink:
        stored = await _store(sink, image)
    assert [kept] == _names(tmp_path)
    assert image == stored.path.read_bytes()
    assert (asked != kept) == (kept in caplog.text)


async def test_one_file_is_refused_before_anything_is_paid(tmp_path):
    """F104 F108 An existing file, a dangling link and a missing folder are found at the start."""
    (tmp_path / "taken.png").write_text("keep")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    with ThreadPoolExecutor(1) as executor:
        for name, reason in (
            ("taken.png", "exists already"),
            ("link.png", "exists already"),
            ("missing/fox.png", "does not exist"),
        ):
            with pytest.raises(SinkError, match=reason):
                await FileSink(tmp_path / name, executor=executor).preflight()
            with pytest.raises(SinkError, match=reason):
                async with FileSink(tmp_path / name):
                    pass
    with pytest.raises(SinkError, match="names no file"):
        async with FileSink("."):
            pass
    with pytest.raises(ConfigError, match="the path is empty"):
        FileSink("")
    assert _names(tmp_path) == ["link.png", "taken.png"]


async def test_one_file_that_appears_meanwhile_is_not_overwritten(tmp_path):
    """F108 A paid image is kept under the next free name."""
    async with FileSink(tmp_path / "fox.png") as sink:
        (tmp_path / "fox.png").write_text("keep")
        stored = await _store(sink, png())
    assert stored.path.name == "fox-2.png"
    assert (tmp_path / "fox.png").read_text() == "keep"


async def test_a_published_image_leaves_no_open_file_and_no_other_name(tmp_path):
    """A run of a million images has as many files open as one of a hundred."""
    part = AtomicFile(tmp_path, fsync=False)
    part.write(b"whole")
    handle = part.open()
    part.publish(str(tmp_path / "fox.png"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
    assert _names(tmp_path) == ["fox.png"]


async def test_storing_image_after_image_leaves_no_file_and_no_folder_open(tmp_path):
    """A run of a million images has as many files open as one of a hundred."""
    async with FolderSink(tmp_path, template="{name}.{ext}") as sink:
        await _store(sink, png())
        gc.collect()  # what earlier tests left may be closed at any time
        before = len(os.listdir("/dev/fd"))
        for size in range(9, 14):
            await _store(sink, png(size))
        assert before >= len(os.listdir("/dev/fd"))


async def test_an_image_has_the_permissions_of_any_new_file(tmp_path):
    """Other users and web servers can read it, as far as the umask allows."""
    umask = os.umask(0o022)
    try:
        async with FolderSink(tmp_path) as sink:
            stored = await _store(sink, png())
    finally:
        os.umask(umask)
    assert stat.S_IMODE(stored.path.stat().st_mode) == 0o644


@pytest.mark.parametrize("image", [jpeg(), LARGE], ids=["one hop", "streamed"])
async def test_the_limit_itself_is_allowed(tmp_path, image):
    """F79 `max_bytes` bytes are kept, in memory and on disk; one more is refused for good."""
    most = len(image)
    async with FolderSink(tmp_path, max_bytes=most) as folder, MemorySink(max_bytes=most) as memory:
        assert [(await _store(sink, image)).size for sink in (folder, memory)] == [most, most]
    less = most - 1
    async with FolderSink(tmp_path, max_bytes=less) as folder, MemorySink(max_bytes=less) as memory:
        for sink in (folder, memory):
            with pytest.raises(DownloadError, match=f"limit of {less} bytes") as refusal:
                await _store(sink, image)
            assert refusal.value.permanent
