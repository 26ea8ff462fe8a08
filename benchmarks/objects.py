"""What does a bucket cost? CPU per image of a run into S3 and of one into a folder.

    python -m benchmarks.objects [--rounds 7] [--images 1000] [--in-flight 64] [--endpoint URL]

256 KB JPEGs, instant jobs, servers in other processes. One run has images and record in a folder,
one its images in the bucket of a server that only reads them, and one its record there too. They
alternate in one run. `--endpoint` takes another S3 instead, whose bucket `benchmark` anybody may
write to.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks import _page
from benchmarks._contenders import Figures, Task, emptied, measure
from benchmarks._fast_server import fast_server
from benchmarks._object_server import object_server

TARGET = 1.0  #: ms of CPU an image that a bucket may cost more than the folder
NAMES = {
    "ours": "folder",
    "ours, images in a bucket": "images in a bucket, record in a folder",
    "ours, bucket": "images and record in a bucket",
}


def run(name: str, store: str, scratch: str, given: argparse.Namespace) -> Figures:
    """Run one of them once."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    with fast_server(images=given.images) as server:
        task = Task(
            url=server.url,
            folder=str(home / "images"),
            images=given.images,
            slots=given.in_flight,
            interval=0,
            loop=given.loop,
            store=store,
        )
        figures = measure(name, task)
        assert server.books.twice == figures.losses.failed == figures.losses.in_doubt == 0
    emptied(home)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--endpoint", help="of another S3")
    parser.add_argument("--write", action="store_true", help=f"into {_page.PAGE.name}")
    given = parser.parse_args()
    load = _page.load()
    runs: dict[str, list[Figures]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(given.rounds + 1):
            for name in list(NAMES) if turn % 2 else list(NAMES)[::-1]:
                with object_server() as store:
                    figures = run(name, given.endpoint or store.url, scratch, given)
                assert given.endpoint or store.images == given.images * (name != "ours")
                if turn:  # the first is the warm-up
                    runs[name].append(figures)
    rounds = "1 round" if given.rounds == 1 else f"{given.rounds} rounds"
    rounds += f" of {given.images:,} images, 256 KB, {given.in_flight} in flight, {given.loop} loop"
    text = f"{rounds}. {_page.machine(load)}\n\n{_table(runs, given)}\n\n{_added(runs, given)}"
    print(text)
    if given.write:
        _page.write("objects", text)


def _table(runs: dict[str, list[Figures]], given: argparse.Namespace) -> str:
    body = []
    for name, shown in NAMES.items():
        cpu = [1000 * one.cpu / given.images for one in runs[name]]
        rate = statistics.median(given.images / one.wall for one in runs[name])
        rss = statistics.median(one.rss for one in runs[name])
        spread = f"{statistics.median(cpu):.2f} ({min(cpu):.2f}–{max(cpu):.2f})"
        body.append([shown, spread, f"{rate:.0f}", f"{rss:.0f}"])
    return _page.rows(["", "CPU ms/image", "images/s", "peak RSS MB"], body)


def _added(runs: dict[str, list[Figures]], given: argparse.Namespace) -> str:
    lines = []
    for name in list(NAMES)[1:]:
        pairs = zip(runs[name], runs["ours"], strict=True)
        added = [1000 * (bucket.cpu - folder.cpu) / given.images for bucket, folder in pairs]
        lines.append(
            f"{NAMES[name].capitalize()} − folder: {statistics.median(added):+.2f} ms an image "
            f"({min(added):+.2f} to {max(added):+.2f}); target ≤ {TARGET:+.1f}."
        )
    return "  \n".join(lines)


if __name__ == "__main__":
    main()
