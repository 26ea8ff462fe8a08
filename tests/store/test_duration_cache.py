"""Learned durations are kept in a small file of the user's cache folder."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fluxasync._store.duration_cache import (
    DAYS,
    MOST_BYTES,
    MOST_CLASSES,
    NAME,
    DurationCache,
    DurationEstimate,
)

ORIGIN = "https://api.bfl.ai:443"
ESTIMATE = DurationEstimate(seconds=2.5, spread=0.2)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, which does not exist yet, nor its folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fluxasync" / NAME


def test_what_one_run_learned_the_next_one_reads(path: Path) -> None:
    """By origin, model and size; a run adds to what others learned."""
    DurationCache(ORIGIN).write({("flux-dev", 0): ESTIMATE, ("flux-pro", None): ESTIMATE})
    DurationCache("http://127.0.0.1:8321").write({("flux-dev", 0): DurationEstimate(0.1, 0.3)})
    DurationCache(ORIGIN).write({("flux-dev", 0): DurationEstimate(3.5, 0.1)})
    assert DurationCache(ORIGIN).read() == {
        ("flux-dev", 0): DurationEstimate(3.5, 0.1),
        ("flux-pro", None): ESTIMATE,
    }
    assert [path.name] == os.listdir(path.parent)


def test_what_no_job_can_have_is_not_kept(path: Path) -> None:
    """Absurd durations, and names that may be more than a model's."""
    DurationCache(ORIGIN).write(
        {
            ("flux-dev", 0): DurationEstimate(1e6, 0.2),
            ("flux-dev", 1): DurationEstimate(2.0, float("nan")),
            ("a model?key=secret", 0): ESTIMATE,
            (None, 0): ESTIMATE,
        }
    )
    assert not path.exists()


def test_old_and_foreign_rows_are_forgotten(path: Path) -> None:
    """After 90 days; rows of another form are left out, the others are read."""
    DurationCache(ORIGIN).write({("flux-dev", 0): ESTIMATE})
    row = json.loads(path.read_bytes())[0]
    old = [*row[:1], "flux-pro", *row[2:5], row[5] - DAYS - 1]
    huge = [*row[:1], "flux-max", 0, 10**400, 0.2, row[5]]
    path.write_text(json.dumps([old, huge, row, [1], None, {"a": 1}, row[:4]]))
    assert DurationCache(ORIGIN).read() == {("flux-dev", 0): ESTIMATE}


def test_the_file_stays_small(path: Path) -> None:
    """The classes that were learned last are kept."""
    for number in range(MOST_CLASSES + 10):
        DurationCache(ORIGIN).write({(f"model-{number}", 0): ESTIMATE})
    known = DurationCache(ORIGIN).read()
    assert len(known) == MOST_CLASSES
    assert ("model-9", 0) not in known
    assert path.stat().st_size < MOST_BYTES / 4


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "too large", "no UTF-8", "half"])
def test_what_is_no_file_of_ours_is_ignored(kind: str, path: Path) -> None:
    """Neither reading nor writing raises or waits; what can be replaced is."""
    path.parent.mkdir(parents=True)
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(path.parent / "elsewhere")
        case "too large":
            path.write_bytes(b"[" + b" " * MOST_BYTES + b"]")
        case "no UTF-8":
            path.write_bytes(b"\xff\x80")
        case "half":
            path.write_bytes(b'[["https:')
    assert DurationCache(ORIGIN).read() == {}
    DurationCache(ORIGIN).write({("flux-dev", 0): ESTIMATE})
    if kind in ("too large", "no UTF-8", "half"):
        assert DurationCache(ORIGIN).read() == {("flux-dev", 0): ESTIMATE}


@pytest.mark.parametrize("home", ["a file", "no home"])
def test_without_a_cache_folder_nothing_is_kept(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that cannot be written costs no run."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file") if home == "a file" else "")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    DurationCache(ORIGIN).write({("flux-dev", 0): ESTIMATE})
    assert DurationCache(ORIGIN).read() == {}


def test_several_writers_do_not_damage_the_file(path: Path) -> None:
    """Whoever reads meanwhile sees a whole file; one writer's classes may be lost to another's."""

    def write(number: int) -> int:
        cache = DurationCache(ORIGIN)
        for turn in range(20):
            cache.write({(f"model-{number}", turn): ESTIMATE})
            json.loads(path.read_bytes())
        return len(cache.read())

    with ThreadPoolExecutor(4) as threads:
        assert min(threads.map(write, range(4))) >= 1
    assert os.listdir(path.parent) == [NAME]
