"""Where does the CPU time go? CPU of a run by thread, and of the event loop by function.

    python -m benchmarks.profile [--images 2000] [--in-flight 64]

256 KB JPEGs, instant jobs, everything on. The kernel counts the CPU of each thread. A second run is
sampled by py-spy, because a sampler costs time too: a function's share is the share of samples in
which it is on the stack of the event loop's thread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from attrs import asdict

from benchmarks import _page
from benchmarks._contenders import Task, ours
from benchmarks._fast_server import fast_server

THREADS = {
    "MainThread": "the event loop",
    "fluxasync-disk": "disk: write, SHA-256, MD5, check, fsync, rename",
    "fluxasync-journal": "journal: SQLite",
    "asyncio": "reading prompts, writing the lists",
}
#: functions on the way of an image, and what they do
PLACES = {
    "Submitter._post": "submitting: intent, POST, record",
    "Engine.watch": "watching",
    "Engine.download": "downloading and passing chunks to the disk",
    "AiohttpDownload.__aenter__": "… of which until the first byte",
    "AiohttpDownload.whole": "… of which the body",
    "RowWorker._recorded": "recording the outcome in journal and lists",
    "WorkerPool._feed": "reading prompts",
    "ClientSession._request": "aiohttp, included in all of these",
    "LoopAwareTimeout.__enter__": "timeouts, included in all of these",
}


def by_thread(task: Task) -> Counter[str]:
    """Return the CPU milliseconds per image of each kind of thread."""
    ended, used = threading.Event(), {}
    tick = os.sysconf("SC_CLK_TCK")

    def look() -> None:
        while not ended.wait(0.05):
            for thread in threading.enumerate():
                path = Path(f"/proc/self/task/{thread.native_id}/stat")
                try:
                    fields = path.read_text().rpartition(")")[2].split()
                except OSError:  # the thread has just ended
                    continue
                used[thread.native_id, thread.name] = (int(fields[11]) + int(fields[12])) / tick

    watcher = threading.Thread(target=look, name="profile")
    watcher.start()
    asyncio.run(ours(task))
    ended.set()
    watcher.join()
    spent: Counter[str] = Counter()
    for (_, name), seconds in used.items():
        spent[re.sub(r"_\d+$", "", name)] += 1000 * seconds / task.images
    return spent


def by_place(task: Task, scratch: Path) -> Counter[str]:
    """Return, for each function, the share of the event loop's samples that contain it."""
    command = [
        str(Path(sys.executable).with_name("py-spy")), "record", "--rate", "400", "--threads",
        "--format", "raw", "--output", str(scratch / "raw"), "--",
        sys.executable, "-m", "benchmarks._contenders", "ours", json.dumps(asdict(task)),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    seen: Counter[str] = Counter()
    whole = 0
    for line in (scratch / "raw").read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        if "MainThread" not in stack or "_run_once" not in stack:
            continue
        whole += int(count)
        names = {frame.partition(" (")[0] for frame in stack.split(";")}
        seen.update({name: int(count) for name in names})
    return Counter({name: count / whole for name, count in seen.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument(
        "--every", action="store_true", help="all functions, not only the known ones"
    )
    parser.add_argument("--write", action="store_true", help=f"into {_page.PAGE.name}")
    given = parser.parse_args()
    texts = [_page.machine(_page.load())]
    for work in (_threads, _places):
        with tempfile.TemporaryDirectory() as name, fast_server(images=given.images) as server:
            task = Task(
                url=server.url,
                folder=str(Path(name, "images")),
                images=given.images,
                slots=given.in_flight,
                interval=0,
            )
            texts.append(work(task, Path(name), every=given.every))
    text = "\n\n".join(texts)
    print(text)
    if given.write:
        _page.write("profile", text)


def _threads(task: Task, scratch: Path, *, every: bool) -> str:
    spent = by_thread(task)
    whole = sum(spent.values())
    rows = [
        [THREADS[name], f"{milliseconds:.2f}", f"{milliseconds / whole:.0%}"]
        for name, milliseconds in spent.most_common()
        if name in THREADS
    ]
    return _page.rows(["thread", "CPU ms/image", "share"], rows)


def _places(task: Task, scratch: Path, *, every: bool) -> str:
    shares = by_place(task, scratch)
    places = [place for place, _ in shares.most_common(120)] if every else list(PLACES)
    rows = [[PLACES.get(place, place), f"{shares[place]:.0%}"] for place in places]
    return _page.rows(["event loop in", "share"], rows)


if __name__ == "__main__":
    main()
