"""A new file replaces any entry of its name, and no link is written through."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from fluxasync._store.files import (
    AtomicFile,
    NotOurs,
    create_own,
    make_own_folder,
    open_own,
    open_to_read,
)


def _stands_there(kind: str, path: Path, target: Path) -> None:
    if not target.is_dir():
        target.write_bytes(b"another file")
    match kind:
        case "file":
            path.write_bytes(b"an earlier one")
        case "link":
            path.symlink_to(target)
        case "second name":
            os.link(target, path)
        case "pipe":
            os.mkfifo(path)


@pytest.mark.parametrize("kind", ["nothing", "file", "link", "second name", "pipe"])
def test_a_created_file_replaces_an_existing_entry(tmp_path: Path, kind: str) -> None:
    """S3: a link and a second name lose their entry; the file that they lead to keeps its bytes."""
    path, target = tmp_path / "ours", tmp_path / "theirs"
    _stands_there(kind, path, target)
    with create_own(path, mode=0o600) as file:
        file.write(b"ours")
    assert path.read_bytes() == b"ours"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert target.read_bytes() == b"another file"


def test_a_link_is_followed_only_on_request(tmp_path: Path) -> None:
    """S3: a link in a folder from elsewhere reveals no file of the reader."""
    path, target = tmp_path / "ours", tmp_path / "theirs"
    _stands_there("link", path, target)
    for opened in (open_to_read, open_own):
        with pytest.raises(NotOurs, match="is a link"):
            opened(path)
    with open_to_read(path, follow=True) as file:
        assert file.read() == target.read_bytes()


def test_a_folder_under_the_name_of_a_file_is_named_and_kept(tmp_path: Path) -> None:
    """S3: the error says that a folder is there and what to do; the folder stays."""
    path = tmp_path / "ours"
    path.mkdir()
    with pytest.raises(NotOurs, match=r"ours is a folder, .*: move it away"):
        create_own(path, mode=0o600)
    assert path.is_dir()


@pytest.mark.parametrize("kind", ["link", "file", "pipe"])
def test_a_link_or_file_in_place_of_our_folder_is_refused(tmp_path: Path, kind: str) -> None:
    """S3: nothing is put into the folder that a link leads to."""
    path, elsewhere = tmp_path / ".fluxasync", tmp_path / "elsewhere"
    elsewhere.mkdir()
    _stands_there(kind, path, elsewhere if kind == "link" else tmp_path / "theirs")
    with pytest.raises(NotOurs, match=rf"is a {kind}"):
        make_own_folder(path, mode=0o700)
    assert list(elsewhere.iterdir()) == []


def test_our_folder_is_made_once_and_found_again(tmp_path: Path) -> None:
    """Only its owner may look inside."""
    for _ in range(2):
        make_own_folder(tmp_path / ".fluxasync", mode=0o700)
    assert stat.S_IMODE((tmp_path / ".fluxasync").stat().st_mode) == 0o700


def test_a_close_that_reports_an_error_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS reports a full quota at `close`, and the number is free all the same: another file has
    it by the time the part is discarded again."""
    close = os.close

    def reports_full(handle: int) -> None:
        close(handle)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    part = AtomicFile(tmp_path, fsync=False)
    part.write(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", reports_full)
        with pytest.raises(OSError, match="quota"):
            part.discard()
    with (tmp_path / "another").open("wb", buffering=0) as other:
        part.discard()
        other.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["another"]
