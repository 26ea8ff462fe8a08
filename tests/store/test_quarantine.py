"""The bytes of a paid image's failed tries stay, under a name of ours, and nothing else does."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.sample_images import jpeg, png

from fluxasync import (
    DownloadError,
    FileSink,
    FolderSink,
    ImageRequest,
    Job,
    MemorySink,
    TransportError,
)
from fluxasync._core.protocols import Chunks
from fluxasync._store.quarantine import is_quarantine_path, name_of

JOB = Job(job_id="7f3a9c21", request=ImageRequest(prompt="a red fox", name="fox"))
LARGE = jpeg(payload=bytes(range(250)) * 22_000)  # over 5 MB: streamed
HTML = b"<html>Sign in to the network</html>"
HOME = Path(".fluxasync", "quarantine")

pytestmark = pytest.mark.asyncio


def arriving(content: bytes, *, md5: bytes | None = None, breaks: bool = False) -> Chunks:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 65_536):
            yield content[start : start + 65_536]
        if breaks or expected:
            raise TransportError("the image ends early, or has another MD5", sent=True)

    digest = None if md5 is None else hashlib.md5(md5, usedforsecurity=False).digest()
    expected = [] if digest is None else [base64.b64encode(digest).decode()]
    return Chunks(pieces(), take_md5=lambda: expected.pop() if expected else None, is_paid=True)


async def fail(sink: FolderSink | FileSink | MemorySink, chunks: Chunks) -> None:
    with pytest.raises((DownloadError, TransportError)):
        await sink.store(JOB.request, JOB, chunks)


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / HOME).iterdir())}


CHECKS = [
    pytest.param(HTML, {}, "bin", id="not an image"),
    pytest.param(png()[:-5], {}, "png", id="incomplete"),
    pytest.param(LARGE[:-2], {}, "jpg", id="incomplete, streamed"),
    pytest.param(png(), {"md5": b"other"}, "png", id="checksum"),
    pytest.param(LARGE, {"md5": b"other"}, "jpg", id="checksum, streamed"),
    pytest.param(png()[:20], {"breaks": True}, "png", id="broken off"),
    pytest.param(LARGE[:-99], {"breaks": True}, "jpg", id="broken off, streamed"),
]


@pytest.mark.parametrize(("content", "how", "extension"), CHECKS)
async def test_the_bytes_of_a_failed_try_are_kept(
    tmp_path: Path, content: bytes, how: dict[str, bytes], extension: str
) -> None:
    """Whatever the check, all bytes that came are in quarantine, and no other file is left."""
    async with FolderSink(tmp_path) as sink:
        await fail(sink, arriving(content, **how))
        found = await sink.quarantined(JOB)
    assert kept(tmp_path) == {f"7f3a9c21.{extension}": content}
    assert found is not None
    assert (found.size, found.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert os.listdir(tmp_path) == [".fluxasync"]


@pytest.mark.parametrize(("content", "how", "extension"), CHECKS)
async def test_without_a_folder_the_bytes_travel_or_lie_beside_the_file(
    tmp_path: Path, content: bytes, how: dict[str, bytes], extension: str
) -> None:
    """An image for memory keeps them in memory, one for a file in a file beside it."""
    memory = MemorySink()
    await fail(memory, arriving(content, **how))
    found = await memory.quarantined(JOB)
    assert found is not None
    assert found.data == content
    async with FileSink(tmp_path / "fox.png") as sink:
        await fail(sink, arriving(content, **how))
    assert os.listdir(tmp_path) == [f"fox.quarantine-7f3a9c21.{extension}"]


@pytest.mark.parametrize("image", [jpeg(), LARGE], ids=["one hop", "streamed"])
async def test_a_whole_image_leaves_the_quarantine_empty(tmp_path: Path, image: bytes) -> None:
    """What failed tries left, here or in a killed run, is removed once the image is whole."""
    async with FolderSink(tmp_path) as sink:
        await fail(sink, arriving(HTML))
    async with FolderSink(tmp_path) as sink:
        await fail(sink, arriving(image[:-2]))
        stored = await sink.store(JOB.request, JOB, arriving(image))
    assert stored.path is not None
    assert stored.path.read_bytes() == image
    assert kept(tmp_path) == {}


@pytest.mark.parametrize(
    ("first", "second", "best"),
    [
        pytest.param(png()[:-5], HTML * 99, png()[:-5], id="an image before a page"),
        pytest.param(HTML, png()[:-5], png()[:-5], id="an image after a page"),
        pytest.param(png()[:-5], png()[:-9], png()[:-5], id="the longer one"),
        pytest.param(png()[:-5], b"", png()[:-5], id="nothing came"),
    ],
)
async def test_the_best_try_is_kept(
    tmp_path: Path, first: bytes, second: bytes, best: bytes
) -> None:
    """Of several failed tries the one nearest to an image stays, as one file."""
    memory = MemorySink()
    async with FolderSink(tmp_path) as sink:
        for content in (first, second):
            await fail(sink, arriving(content))
            await fail(memory, arriving(content))
    assert list(kept(tmp_path).values()) == [best]
    found = await memory.quarantined(JOB)
    assert found is not None
    assert found.data == best


async def test_a_plain_store_leaves_nothing(tmp_path: Path) -> None:
    """Bytes that a caller brings without a paid job are not kept: store is whole or nothing."""
    async with FolderSink(tmp_path) as sink:
        chunks = arriving(HTML)
        chunks.is_paid = False
        await fail(sink, chunks)
    assert os.listdir(tmp_path) == []


async def test_a_disk_error_here_is_not_the_images_error(tmp_path: Path) -> None:
    """A quarantine that cannot be written (a link in its place) leaves the image's own error."""
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "images"
    async with FolderSink(folder) as sink:
        (folder / ".fluxasync").mkdir()
        (folder / HOME).symlink_to(outside)
        with pytest.raises(DownloadError, match="HTML"):
            await sink.store(JOB.request, JOB, arriving(HTML))
        assert "link" in sink.quarantine_problem(JOB)
    assert os.listdir(outside) == []


@pytest.mark.parametrize("job_id", ["../../etc/passwd", "a/b", ".hidden", "", "ü" * 99, "x" * 65])
async def test_a_job_id_never_names_another_place(tmp_path: Path, job_id: str) -> None:
    """An unusual id is replaced by a digest, so the file stays in the quarantine."""
    assert is_quarantine_path(f"{HOME}/{name_of(job_id)}.bin")
    async with FolderSink(tmp_path) as sink:
        with pytest.raises(DownloadError):
            await sink.store(None, Job(job_id=job_id), arriving(HTML))
    assert list(kept(tmp_path).values()) == [HTML]


async def test_an_answer_over_the_limit_is_read_up_to_its_bound(tmp_path: Path) -> None:
    """`set_aside` keeps a refused answer whole within the limit, and its start beyond."""
    async with FolderSink(tmp_path) as sink:
        await sink.set_aside(JOB, arriving(LARGE), limit=len(LARGE))
        assert kept(tmp_path) == {"7f3a9c21.jpg": LARGE}
        await sink.set_aside(Job(job_id="b"), arriving(LARGE), limit=100_000)
    start = kept(tmp_path)["b.jpg"]
    assert LARGE.startswith(start)
    assert 100_000 <= len(start) <= 100_000 + 2**20 + 65_536


async def test_a_suspect_image_lands_in_quarantine(tmp_path: Path) -> None:
    """A whole image that may be another request's never gets its final name."""
    async with FolderSink(tmp_path) as sink:
        await sink.store_suspect(JOB.request, JOB, arriving(png()))
        await sink.store_suspect(JOB.request, JOB, arriving(png(9)))
    assert kept(tmp_path) == {"7f3a9c21.png": png(9)}
    assert os.listdir(tmp_path) == [".fluxasync"]
