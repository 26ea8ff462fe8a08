"""Where does the time go? CPU of a run by thread, and of its loop by what it was doing.

    python -m benchmarks.profile [--images 2000] [--in-flight 64]

256 KB JPEGs, instant jobs, everything on. The threads' CPU is the kernel's own count. What the
loop's thread was doing is sampled by py-spy in a second run, because a sampler costs time too: a
place's share is that of the samples in which it was somewhere on the stack.
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
    "fluxasync-disk": "disk: write, SHA-256, MD5, judge, fsync, name",
    "fluxasync-journal": "journal: SQLite",
    "asyncio": "reading prompts, writing the lists",
}
#: places on the way of an image, and what they are to a reader
PLACES = {
    "Submits._post": "submitting: intent, POST, record",
    "FluxSession.watch": "watching",
    "FluxSession.download": "downloading and handing over to the disk",
    "Fetch._opened": "… of which until the image begins to arrive",
    "AiohttpDownload.chunks": "… of which its bytes",
    "Settle._recorded": "outcome into journal and lists",
    "Batch._feed": "prompts in",
    "ClientSession._request": "aiohttp, in all of these",
    "deadline.__aenter__": "time limits, in all of these",
}


def by_thread(task: Task) -> Counter[str]:
    """CPU milliseconds an image of each kind of thread."""
    ended, used = threading.Event(), {}
    tick = os.sysconf("SC_CLK_TCK")

    def look() -> None:
        while not ended.wait(0.05):
            for thread in threading.enumerate():
                path = Path(f"/proc/self/task/{thread.native_id}/stat")
                try:
                    fields = path.read_text().rpartition(")")[2].split()
                except OSError:  # it has just ended
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
    """Shares of the loop's samples in which a place was on the stack."""
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
    parser.add_argument("--every", action="store_true", help="all places, not those we know")
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
    said = "\n\n".join(texts)
    print(said)
    if given.write:
        _page.write("profile", said)


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
    return _page.rows(["the loop's thread was in", "share"], rows)


if __name__ == "__main__":
    main()
