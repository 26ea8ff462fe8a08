"""Somebody else's folder: whatever lies where a file of ours belongs, nothing outside is touched.

T19. A link, a pipe or a device at one of our names is refused with what to do, or replaced; no
command hangs on it, follows it, writes through it or deletes what it leads to.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forks import Ended, Forks
from practice import fast_session, outcomes_of
from test_cli import Practice, practice

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")
pytest.importorskip("PIL", reason="the extra `image` is not installed")

from fluxasync import Batch, ImageRequest
from fluxasync._gallery import write
from fluxasync._journal import RESERVE

#: seconds after which a command counts as hanging
HANGING = 20
HOME = ".fluxasync"
MODEL = "flux-2-klein-4b"

#: every name of ours in an output folder; `THUMB` and `IMAGE` stand for those of a run
OURS = (
    HOME, f"{HOME}/lock", f"{HOME}/journal.db", f"{HOME}/journal.db-wal",
    f"{HOME}/journal.db-shm", f"{HOME}/journal.db-journal", f"{HOME}/journal.new",
    f"{HOME}/journal.new-wal", f"{HOME}/journal.new-journal", f"{HOME}/status.json",
    f"{HOME}/status.json.new", f"{HOME}/reserve", f"{HOME}/gallery.html.new",
    f"{HOME}/metadata.jsonl.new", f"{HOME}/failures.jsonl.new", f"{HOME}/thumbs", "THUMB",
    f"{HOME}/thumbs/{'ab' * 12}.webp", "metadata.jsonl", "failures.jsonl", "gallery.html", "IMAGE",
    ".fluxasync-0123456789abcdef.part",
)  # fmt: skip

#: those that a folder may hold before anything ran there
BEFORE = tuple(name for name in OURS if name not in ("THUMB", "IMAGE", f"{HOME}/journal.db"))


class Outside:
    """Files of the user's that lie beside the folder, and must stay as they are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "Documents").mkdir(parents=True)
        self.file = path / "Documents" / "thesis.txt"
        self.file.write_text("years of work\n")
        (path / "Documents" / f"{'cd' * 12}.webp").write_bytes(b"a picture of the user's")

    def kept(self) -> dict[str, tuple[int, bytes]]:
        """What is there now."""
        return {
            str(path.relative_to(self.path)): (
                path.lstat().st_mode,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in self.path.rglob("*")
        }


def link_to_a_file(target: Path, outside: Outside) -> None:
    target.symlink_to(outside.file)


def link_to_a_folder(target: Path, outside: Outside) -> None:
    target.symlink_to(outside.file.parent)


def link_to_its_copy(target: Path, outside: Outside) -> None:
    """What was there is there still, but elsewhere: as somebody would who wants it followed."""
    copy = outside.path / "copy"
    if (kept := target.with_name(target.name + ".moved")).exists():
        kept.rename(copy)
    else:
        copy.write_bytes(b"\0" * RESERVE if target.name == "reserve" else b"")
    target.symlink_to(copy)


def link_to_nothing(target: Path, outside: Outside) -> None:
    target.symlink_to(outside.path / "Documents" / "new.txt")


def pipe(target: Path, outside: Outside) -> None:
    os.mkfifo(target)


def unix_socket(target: Path, outside: Outside) -> None:
    here = os.getcwd()
    os.chdir(target.parent)  # its path may be longer than a socket's name
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(target.name)
    finally:
        os.chdir(here)


def folder(target: Path, outside: Outside) -> None:
    target.mkdir()
    (target / "inside.txt").write_text("of the user")


def endless_device(target: Path, outside: Outside) -> None:
    try:
        os.mknod(target, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        with target.open("rb"):
            pass
    except PermissionError:
        pytest.skip("making devices needs root and a file system that has them")


KINDS = (
    link_to_a_file, link_to_a_folder, link_to_its_copy, link_to_nothing, pipe, unix_socket, folder,
    endless_device,
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Practice]:
    with practice("--latency", "0..0") as server:
        yield server


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: Practice) -> Path:
    """A folder in which two images were made, with a page of them."""
    place = tmp_path_factory.mktemp("made") / "run"

    async def run() -> None:
        wishes = [ImageRequest(prompt=text, model=MODEL) for text in ("a fox", "a lamp")]
        async with fast_session(server.url) as flux, Batch(flux, wishes, out=place) as batch:
            await outcomes_of(batch)
        await write(place)

    asyncio.run(run())
    return place


def copied(made: Path, to: Path) -> Path:
    """A copy of the folder; the reserve, which is large, is the same file."""

    def copy(source: str, target: str) -> str:
        if source.endswith("/reserve"):
            os.link(source, target)
            return target
        return shutil.copy2(source, target)

    return shutil.copytree(made, to, copy_function=copy)


def plant(place: Path, name: str, kind: Callable[[Path, Outside], None], outside: Outside) -> None:
    """Put something in the place of a file of ours, which is moved away or removed."""
    thumbs, images = place / HOME / "thumbs", sorted(place.glob("*.jpg"))
    name = {"THUMB": f"{HOME}/thumbs/{_first(thumbs)}", "IMAGE": _first(place, ".jpg")}.get(
        name, name
    )
    assert images or name in BEFORE
    target = place / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        moved = target.with_name(target.name + ".moved")
        target.rename(moved)
        kind(target, outside)
        if moved.is_dir():
            shutil.rmtree(moved)
        else:
            moved.unlink(missing_ok=True)
    else:
        kind(target, outside)


def _first(place: Path, ending: str = ".webp") -> str:
    return min((path.name for path in place.glob(f"*{ending}")), default="none")


def commands(place: Path, url: str) -> Iterator[tuple[object, ...]]:
    prompts = place.parent / "prompts.txt"
    prompts.write_text("a fox\na lamp\na gate\n")
    yield ("status", place)
    yield ("verify", place)
    yield ("resolve", place)
    yield ("resolve", place, "--drop")
    yield ("gallery", place)
    yield ("run", prompts, "-o", place, "--base-url", url, "--model", MODEL)


def judge(ended: Ended, what: str) -> None:
    """A command ended in time, by itself, and said what was wrong and where."""
    assert ended.code != -14, f"{what}: hung"
    assert ended.code not in (1, -9, -11), f"{what}: {ended.err}"
    assert "Traceback" not in ended.err, f"{what}: {ended.err}"
    if ended.code:
        assert ended.err.strip() or ended.out.strip(), what


def outside_of(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "home")


def tried(forks: Forks, server: Practice, made: Path, tmp_path: Path, name: str, kind) -> None:
    """Run every command on a folder of its own in which something was planted."""
    for number, _ in enumerate(commands(tmp_path, server.url)):
        base = tmp_path / str(number)
        base.mkdir()
        outside, place = Outside(base / "home"), copied(made, base / "run")
        plant(place, name, kind, outside)
        before = outside.kept()
        command = list(commands(place, server.url))[number]
        ended = forks.run(*command, seconds=HANGING)
        assert before == outside.kept(), f"{command[0]}: {ended.err}"
        judge(ended, f"{command[0]} {command[2:3]}")
        shutil.rmtree(base)


MATRIX = [
    pytest.param(name, kind, id=f"{name}, {kind.__name__}") for name in OURS for kind in KINDS
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), MATRIX)
def test_nothing_planted_is_followed_or_waited_for(forks, server, made, tmp_path, name, kind):
    """Every name of ours, everything that can stand there, every command: no file outside changes,
    and each ends, with an error that says why or with its work done."""
    tried(forks, server, made, tmp_path, name, kind)
