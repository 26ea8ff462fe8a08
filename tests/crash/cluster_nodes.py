"""A Ray cluster of several nodes on this machine, and the processes of a run on it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import field, frozen

#: what Ray reads from the environment; the nodes inherit it from this process
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on loopback
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "180",
}
#: bytes: image bytes do not pass through Ray
_STORE = 80_000_000
#: a worker needs one CPU
_NODE = {"num_cpus": 3, "object_store_memory": _STORE, "node_ip_address": "127.0.0.1"}


@frozen(kw_only=True)
class Actor:
    """The process of an actor."""

    pid: int
    node: int  #: the process of its node

    def send(self, number: int) -> None:
        """Send a signal, if the process is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def actors(kind: str, root: int | None = None) -> list[Actor]:
    """Return the processes of "Worker" or "Ledger" actors below a process (default: this one)."""
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                children[_parent(path)].append(int(path.name))
    found, pids = [], [os.getpid() if root is None else root]
    while pids:
        parent = pids.pop()
        for pid in children[parent]:
            pids.append(pid)
            if _title(pid).startswith(f"ray::{kind}Actor"):
                found.append(Actor(pid=pid, node=parent))
    return sorted(found, key=lambda actor: actor.pid)


def _parent(path: Path) -> int:
    return int((path / "stat").read_text().rpartition(")")[2].split()[1])


def _title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


@frozen
class Nodes:
    """A cluster whose nodes can be lost."""

    cluster: Any
    others: list[Any] = field(factory=list)  #: nodes beside the head

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> None:
        """Add a node."""
        self.others.append(self.cluster.add_node(**_NODE))

    def lose(self, place: int) -> None:
        """Kill a node with everything on it, as a power cut does, and put another one there."""
        node = self.others.pop(place)
        raylet = node.all_processes["raylet"][0].process.pid
        running = [*actors("Worker"), *actors("Ledger")]
        for actor in running:
            if actor.node == raylet:
                actor.send(signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)
        self.add()


@contextmanager
def nodes(count: int = 3) -> Iterator[Nodes]:
    """Run a cluster of so many nodes."""
    os.environ.update(ENVIRONMENT)
    from ray.cluster_utils import Cluster  # an extra

    folder = tempfile.mkdtemp(prefix="rk-")  # short: sockets are in it
    os.environ["RAY_TMPDIR"] = folder
    head = _NODE | {"include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        found = Nodes(cluster)
        for _ in range(count - 1):
            found.add()
        yield found
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
