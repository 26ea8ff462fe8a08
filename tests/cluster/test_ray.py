"""A run on a real Ray cluster on this machine, in a process of its own, whose actors are killed."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crash.children import Children
from crash.cluster_kills import Driver
from crash.cluster_nodes import actors
from crash.harness import _NOTHING, prepared, prompt_rows
from crash.oracle import charges, losses, observe, violations
from support.patience import patient

pytest.importorskip("ray", reason="the extra `ray` is not installed")

IMAGES = 60


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray has its sockets, whose names are limited to 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="rt-"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.usefixtures("ray_folder")
def test_a_worker_and_the_ledger_are_killed(tmp_path: Path):
    """P1 P2 P4 P5 A worker dies and the ledger is started again by Ray: the run goes on to its end,
    every charge is in the record, and nothing is paid twice."""
    rows = prompt_rows(IMAGES, seed=1)
    with Children() as children, (tmp_path / "driver.txt").open("ab") as log:
        place = prepared(children, tmp_path, rows, seed=1, latency=(0.5, 1.5))
        order = {
            "url": place.url, "source": str(place.source), "out": str(place.folder), "cap": None,
            "address": "local", "workers": 2, "slots": 8,
        }  # fmt: skip
        driver = Driver(order, log)
        try:
            for kind, least in (("Worker", 8), ("Ledger", 20)):
                wait(driver, lambda least=least: len(charges(place.charges)) >= least)
                actors(kind, driver.process.pid)[0].send(signal.SIGKILL)
            assert driver.ends_within(patient(90)), (tmp_path / "driver.txt").read_text()
        finally:
            driver.process.kill()
            driver.process.wait()
        assert driver.process.returncode == 0
        said = (tmp_path / "driver.txt").read_text()
        assert "Connecting to" not in said, "a call after the end connected to Ray once more"
        assert "Started a local Ray" not in said
        after = observe(place)
    assert [*violations(_NOTHING, after, rows, slots=8), *losses(place, after, rows)] == []
    assert after.done + after.in_doubt == IMAGES


def test_the_reason_of_a_loss_names_the_process():
    """Ray's own text has ids of eleven lines; process and machine are what a user can look up."""
    from ray.exceptions import RayActorError

    from fluxasync.cluster.actors import _reason

    text = (
        "The actor died unexpectedly.\n\tclass_name: W\n\tpid: 17\n\tip: 10.0.0.2\nIts node: lost"
    )
    assert _reason(RayActorError(error_msg=text)) == "process 17 on 10.0.0.2 has ended"
    assert _reason(RayActorError(error_msg="its node has died\nmore")) == "its node has died"


def wait(driver: Driver, condition: Callable[[], bool]) -> None:
    """Wait until a condition is true, while the driver lives."""
    until = time.monotonic() + patient(90)
    while not condition():
        assert not driver.ends_within(0.1)
        assert time.monotonic() < until
