"""The order of steps that survives a power cut, in a recorded run and under strace (P6)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .children import Children
from .evidence import recorded
from .harness import prepared, prompt_rows
from .recorder import Event, misordered
from .strace import CALLS, Call, parsed, unsynced


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, id="in one hop"), pytest.param(True, id="streamed")],
)
def events(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    with Children() as children:
        home = tmp_path_factory.mktemp("recorded")
        return recorded(children, home, streamed=request.param)


def test_every_step_waits_for_the_one_it_needs(events):
    """P6: intent durable < first byte of the POST; file durable < name < folder durable < done."""
    assert misordered(events) == {}


@pytest.mark.parametrize(
    "kind",
    ["intent", "POST", "job", "create", "write", "fsync", "link", "unlink", "done"],
)
def test_nothing_was_overlooked(events, kind):
    """Each image has each of its steps on record, so the order of all was checked."""
    assert sum(event.kind == kind for event in events) >= 12


def test_sqlite_waits_for_the_disk_at_every_commit(events):
    """P6: the setting is read back from the live connection (2 = FULL)."""
    commits = [event for event in events if event.kind in ("intent", "job", "done")]
    assert {2} == {event.synchronous for event in commits}


# --- the same as the kernel sees it ---------------------------------------------------------------


def traced(home: Path, mutant: str | None = None) -> list[Call]:
    """Make one image under strace, with the server outside of it."""
    permitted = (
        shutil.which("strace")
        and not subprocess.run(
            ["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, check=False
        ).returncode
    )
    if not permitted:
        pytest.skip("strace is missing, or tracing is not permitted here")
    out = home / "calls.txt"
    under = ["strace", "-f", "-y", "-s", "16", "-e", f"trace={','.join(CALLS)}", "-o", str(out)]
    with Children() as outside, Children(under=under) as inside:
        place = prepared(outside, home, prompt_rows(1, seed=0), seed=0)
        inside.run(place, mutant=mutant, waits=True)
    return parsed(out.read_text())


def test_the_kernel_sees_the_intent_on_disk_before_the_post(tmp_path):
    """P6: when the POST's first byte is sent, no write of the journal's log waits for the disk."""
    calls = traced(tmp_path)
    posts = [n for n, call in enumerate(calls) if call.is_post]
    assert len(posts) == 1
    assert any(call.is_sync_of("journal.db-wal") for call in calls[: posts[0]])
    assert not unsynced(calls[: posts[0]], "journal.db-wal")


def test_the_kernel_sees_bytes_name_folder_and_record_in_this_order(tmp_path):
    """P6: fsync of the file, link, fsync of the folder, fsync of the record that it is done."""
    calls = traced(tmp_path)
    link = next(n for n, call in enumerate(calls) if call.name in ("link", "linkat"))
    assert any(call.is_sync_of(".part") for call in calls[:link])
    folder = next(
        n for n, call in enumerate(calls) if n > link and call.is_sync_of(str(tmp_path / "images"))
    )
    assert not unsynced(calls[:folder], "journal.db-wal")
    assert any(call.is_write_to("journal.db-wal") for call in calls[folder:])
    assert not unsynced(calls, "journal.db-wal")


def test_the_kernel_sees_a_journal_that_does_not_wait(tmp_path):
    """P6: the same check detects synchronous=NORMAL."""
    calls = traced(tmp_path, mutant="synchronous=NORMAL")
    post = next(n for n, call in enumerate(calls) if call.is_post)
    assert unsynced(calls[:post], "journal.db-wal")
