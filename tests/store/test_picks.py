"""`picks.jsonl`: the last line of an image decides, and an append survives what was torn before."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxasync import ConfigError, SinkError
from fluxasync._store.picks import PICKS, append_picks, read_picks

A, B, C = ("0a" * 32, "0b" * 32, "0c" * 32)


def test_a_later_line_wins_and_is_a_line_of_json(tmp_path):
    """A pick that is taken back is one more line, with its time."""
    at = datetime(2026, 11, 30, 10, tzinfo=UTC)
    append_picks(tmp_path, {A: True, B: True}, at=at)
    append_picks(tmp_path, {A: False, C: True}, at=at)
    assert read_picks(tmp_path) == {A: False, B: True, C: True}
    lines = [json.loads(line) for line in (tmp_path / PICKS).read_text().splitlines()]
    assert lines[2] == {"key": A, "picked": False, "at": "2026-11-30T10:00:00Z"}
    assert len(lines) == 4


def test_an_image_can_be_undecided_again(tmp_path):
    """As after a click on the heart of a picked image: it is neither picked nor rejected."""
    append_picks(tmp_path, {A: True, B: False})
    append_picks(tmp_path, {A: None})
    assert read_picks(tmp_path) == {B: False}


def test_a_folder_without_the_file_has_no_picks(tmp_path):
    """As every folder before the first pick."""
    assert read_picks(tmp_path) == {}


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(f'{{"key": "{B}", "picked": tr', id="within a word"),
        pytest.param(f'{{"key": "{B[:40]}', id="within the key"),
        pytest.param('{"key"', id="at its start"),
        pytest.param("\x00\x00\x00", id="zeros after a power cut"),
    ],
)
def test_half_a_last_line_is_ignored_and_removed_by_the_next_append(tmp_path, tail):
    """The picks before it count, and the next one does not continue it."""
    append_picks(tmp_path, {A: True})
    with (tmp_path / PICKS).open("a") as file:
        file.write(tail)
    assert read_picks(tmp_path) == {A: True}
    append_picks(tmp_path, {C: True})
    assert read_picks(tmp_path) == {A: True, C: True}
    assert len((tmp_path / PICKS).read_text().splitlines()) == 2


def test_a_whole_last_line_without_its_end_counts(tmp_path):
    """An editor may leave it so; the next append begins a line of its own."""
    (tmp_path / PICKS).write_text(f'{{"key": "{A}", "picked": true}}')
    assert read_picks(tmp_path) == {A: True}
    append_picks(tmp_path, {B: True})
    assert read_picks(tmp_path) == {A: True, B: True}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(f'{{"key": "{A}"}}', id="without picked"),
        pytest.param(f'{{"key": "{A}", "picked": "yes"}}', id="a text"),
        pytest.param('{"key": "0a0a", "picked": true}', id="a short key"),
        pytest.param("000001.jpg", id="a file name"),
    ],
)
def test_a_line_that_is_no_pick_is_named(tmp_path, line):
    """A selection that was misread would export other images than were picked."""
    (tmp_path / PICKS).write_text(f'{{"key": "{A}", "picked": true}}\n\n{line}\n')
    with pytest.raises(ConfigError, match="line 3 is no pick"):
        read_picks(tmp_path)


def test_other_names_and_empty_lines_are_ignored(tmp_path):
    """So that another program may keep more about an image."""
    (tmp_path / PICKS).write_text(f'\n{{"key": "{A}", "picked": true, "stars": 5}}\r\n\n')
    assert read_picks(tmp_path) == {A: True}


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_picks_that_do_not_fit_leave_the_file_as_it_was(tmp_path):
    """All of them or none: the write that fails half-way is taken back."""
    append_picks(tmp_path, {A: True})
    before = (tmp_path / PICKS).read_bytes()
    with _largest_file(len(before) + 30), pytest.raises(SinkError, match="larger than allowed"):
        append_picks(tmp_path, {B: True, C: True})
    assert (tmp_path / PICKS).read_bytes() == before


_APPENDS = """
import sys
from pathlib import Path
from fluxasync._store.picks import append_picks
folder, start = Path(sys.argv[1]), int(sys.argv[2])
for number in range(start, start + 50):
    append_picks(folder, {f"{number:064x}": True})
"""


def test_two_processes_append_to_one_file(tmp_path):
    """Two pages of one run lose no pick of each other."""
    children = [
        subprocess.Popen([sys.executable, "-c", _APPENDS, str(tmp_path), str(start)])
        for start in (0, 50)
    ]
    assert [child.wait() for child in children] == [0, 0]
    assert set(read_picks(tmp_path)) == {f"{number:064x}" for number in range(100)}


def test_a_link_at_its_name_is_not_followed(tmp_path):
    """A folder from elsewhere may have one, to a file that is not ours."""
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    run = Path(tmp_path / "run")
    run.mkdir()
    (run / PICKS).symlink_to(mine)
    with pytest.raises(SinkError, match="is a link"):
        append_picks(run, {A: True})
    assert mine.read_text() == "mine"
