"""A folder from another person: no entry under one of our names changes a file outside.

T19. A link, a pipe or a device with one of our names is refused with the next step, or replaced; no
command hangs on it, follows it, writes through it or deletes its target.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from support.command_forks import Ended, Forks
from support.command_forks import forks as shared_forks
from support.patience import patient
from support.simulator_sessions import fast_session, outcomes_of
from support.sweeps import share
from test_cli import SimulatorCommand, running_simulator

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")
pytest.importorskip("PIL", reason="the extra `image` is not installed")

from fluxasync import Batch, ImageRequest
from fluxasync._store.files import NotOurs, make_own_folder, open_own, open_to_read
from fluxasync._store.journal.journal import RESERVE
from fluxasync._store.journal.recovery import sweep
from fluxasync.gallery import write

#: seconds after which a command counts as hanging
HANGING = round(patient())
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

#: the names that a folder may contain before a run
BEFORE = tuple(name for name in OURS if name not in ("THUMB", "IMAGE", f"{HOME}/journal.db"))


class Outside:
    """Files of the user's beside the folder, which must not change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "Documents").mkdir(parents=True)
        self.file = path / "Documents" / "thesis.txt"
        self.file.write_text("years of work\n")
        (path / "Documents" / f"{'cd' * 12}.webp").write_bytes(b"a picture of the user's")

    def kept(self) -> dict[str, tuple[int, bytes]]:
        """The files as they are now."""
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
    """The original content moved elsewhere, as if a user wanted the link followed."""
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
def server() -> Iterator[SimulatorCommand]:
    with running_simulator("--latency", "0..0") as server:
        yield server


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    return shared_forks()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: SimulatorCommand) -> Path:
    """A folder with two images, and their page."""
    place = tmp_path_factory.mktemp("made") / "run"

    async def run() -> None:
        requests = [ImageRequest(prompt=text, model=MODEL) for text in ("a fox", "a lamp")]
        async with fast_session(server.url) as flux, Batch(flux, requests, out=place) as batch:
            await outcomes_of(batch)
        await write(place)

    asyncio.run(run())
    return place


def copied(made: Path, to: Path) -> Path:
    """A copy of the folder; the large reserve is a hard link to the same file."""

    def copy(source: str, target: str) -> str:
        if source.endswith("/reserve"):
            os.link(source, target)
            return target
        return shutil.copy2(source, target)

    return shutil.copytree(made, to, copy_function=copy)


def plant(place: Path, name: str, kind: Callable[[Path, Outside], None], outside: Outside) -> None:
    """Plant something under the name of a file of ours, which is moved away or removed."""
    thumb, image = _first(place / HOME / "thumbs", ".webp"), _first(place, ".jpg")
    name = {"THUMB": f"{HOME}/thumbs/{thumb}", "IMAGE": image}.get(name, name)
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


def _first(place: Path, ending: str) -> str:
    return min((path.name for path in place.glob(f"*{ending}")), default="none")


#: how many `commands` gives
COMMANDS = 6


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
    """Assert that a command ended in time, and named the problem and its place."""
    assert ended.code != -14, f"{what}: hung"
    assert ended.code not in (1, -9, -11), f"{what}: {ended.err}"
    assert "Traceback" not in ended.err, f"{what}: {ended.err}"
    if ended.code:
        assert ended.err.strip() or ended.out.strip(), what


def outside_of(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "home")


def tried(
    forks: Forks,
    server: SimulatorCommand,
    made: Path,
    tmp_path: Path,
    name: str,
    kind: Callable[[Path, Outside], None],
    numbers: Iterable[int] = range(COMMANDS),
) -> None:
    """Run the numbered commands, each on its own copy of a folder in which something was
    planted."""
    for number in numbers:
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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(f"{HOME}/status.json.new", link_to_a_file, id="S3 status"),
        pytest.param(f"{HOME}/reserve", link_to_a_file, id="S3 reserve"),
        pytest.param(f"{HOME}/gallery.html.new", link_to_a_file, id="S3 page"),
        pytest.param(f"{HOME}/thumbs", link_to_a_folder, id="S2 thumbnails"),
        pytest.param(HOME, link_to_its_copy, id="T19 the journal's folder"),
        pytest.param("metadata.jsonl", pipe, id="S10 list"),
        pytest.param(f"{HOME}/lock", pipe, id="S10 lock"),
        pytest.param(f"{HOME}/journal.db-journal", pipe, id="S10 beside the journal"),
    ],
)
def test_a_malicious_folder_harms_nothing(forks, server, made, tmp_path, name, kind):
    """The most direct attacks, with every command: no file outside changes, and none hangs."""
    tried(forks, server, made, tmp_path, name, kind)


FRESH = [
    pytest.param(name, kind, id=f"{name}, {kind.__name__}") for name in BEFORE for kind in KINDS
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), FRESH)
def test_a_first_run_follows_nothing_planted(forks, server, tmp_path, name, kind):
    """A folder without a run: the run is refused, or makes its images."""
    outside, place = outside_of(tmp_path), tmp_path / "run"
    place.mkdir()
    plant(place, name, kind, outside)
    before = outside.kept()
    *_, command = commands(place, server.url)
    ended = forks.run(*command, seconds=HANGING)
    assert before == outside.kept(), ended.err
    judge(ended, name)
    assert ended.code != 0 or len(list(place.glob("*.jpg"))) == 3


def test_a_link_that_is_the_output_folder_itself_is_the_users_own(forks, server, made, tmp_path):
    """The folder on the command line may be a link; only our own names below it may not."""
    copied(made, tmp_path / "large disk")
    place = tmp_path / "run"
    place.symlink_to(tmp_path / "large disk")
    for command in commands(place, server.url):
        ended = forks.run(*command, seconds=HANGING)
        assert ended.code == 0, ended.err


def test_a_folder_open_to_every_user_is_reported(forks, server, made, tmp_path):
    """T19: any user could take or replace paid images; a sticky folder protects each file."""
    place = copied(made, tmp_path / "run")
    *_, command = commands(place, server.url)
    for mode, is_warned in ((0o777, True), (0o1777, False), (0o775, False)):
        place.chmod(mode)
        ended = forks.run(*command, seconds=HANGING)
        assert ended.code == 0
        message = f"{place} is writable for every user of this machine"
        assert is_warned == (message in ended.err), ended.err


def as_user(number: int, function: Callable[[], object]) -> str:
    """Return the result of a function that ran as another user, in a separate process."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child needs not
        child = os.fork()
    if child == 0:
        try:
            os.setuid(number)
            text = str(function())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as file:
        return file.read()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder in which every user may create files, like /tmp."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o1777)
        yield Path(path)


@needs_root
def test_another_users_folder_for_our_files_is_refused(shared):
    """T19: its owner could replace journal and lock at any time."""
    home = shared / HOME
    home.mkdir()
    home.chmod(0o777)
    os.chown(home, 4001, 4001)
    message = as_user(4002, lambda: make_own_folder(home, mode=0o700))
    assert message.startswith(f"NotOurs: {home} belongs to another user (id 4001): ")
    assert as_user(4001, lambda: make_own_folder(home, mode=0o700)) == "None"


@needs_root
def test_another_users_list_is_not_written_to(shared):
    """T19: prompts and URLs would be in a file that another user reads and changes."""
    path = shared / "metadata.jsonl"
    path.write_text("")
    path.chmod(0o666)
    os.chown(path, 4001, 4001)
    message = as_user(4002, lambda: open_own(path, os.O_WRONLY | os.O_APPEND))
    # Linux may refuse it already: sysctl fs.protected_regular
    assert message.startswith(("NotOurs: ", "PermissionError: ")), message
    assert as_user(4002, lambda: open_to_read(path).read()) == "b''"


@needs_root
def test_a_drive_with_one_owner_for_all_files_is_accepted(shared, monkeypatch):
    """A mounted drive may show another owner for our own files: a new file shows that."""
    monkeypatch.setattr(os, "geteuid", lambda: 4009)  # the system's answer on such a drive
    home = shared / HOME
    assert as_user(4001, lambda: make_own_folder(home, mode=0o700)) == "None"
    assert home.stat().st_uid == 4001
    assert as_user(4001, lambda: make_own_folder(home, mode=0o700)) == "None"


def test_a_link_at_our_name_is_opened_only_if_links_are_allowed(tmp_path):
    """T19: a link is neither read nor written through; a path that the user names is followed."""
    (tmp_path / "thesis.txt").write_text("years of work")
    link = tmp_path / "metadata.jsonl"
    link.symlink_to("thesis.txt")
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_TRUNC):
        with pytest.raises(NotOurs, match="is a link"):
            open_own(link, flags)
    with open_to_read(link, follow=True) as file:
        assert file.read() == b"years of work"


def test_a_link_with_the_name_of_an_unfinished_file_is_left_alone(tmp_path):
    """T19: only regular files are removed; a link is not, whatever the age of its target."""
    outside, folder = Outside(tmp_path / "home"), tmp_path / "run"
    folder.mkdir()
    link, old = (folder / f".fluxasync-{number:016x}.part" for number in range(2))
    link.symlink_to(outside.file)
    old.write_bytes(b"half")
    before = outside.kept()
    sweep({folder}, before=float("inf"))
    assert [path.name for path in folder.iterdir()] == [link.name]
    assert outside.kept() == before


MATRIX = [
    pytest.param(name, kind, share(range(COMMANDS), turn), id=f"{name}, {kind.__name__}")
    for first, name in enumerate(OURS)
    for turn, kind in enumerate(KINDS, first)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "numbers"), MATRIX)
def test_nothing_planted_is_followed_or_waited_for(
    forks, server, made, tmp_path, name, kind, numbers
):
    """Every name of ours, everything that can be planted there, every command: no file outside
    changes, and each ends with an error that says why, or with its work done. Each command meets
    each name and each kind; `make sweep` tries all three together."""
    tried(forks, server, made, tmp_path, name, kind, numbers)
