"""Is the gallery's page smooth with 10,000 images? First paint, frames while scrolling, and what a
key costs, in a headless Chromium.

    python -m benchmarks.gallery_page [--images 10000] [--write]

The page is read from the disk, with a thumbnail of its own for each image. Two speeds of scrolling:
reading (1,500 pixels a second) and flinging (30,000). A frame's time is the interval between two
animation frames, so it has style, layout and painting in it; without a GPU Chromium paints on the
CPU, which other processes may use. So each scroll is repeated, the round with the shortest of the
longest frames counts, and an empty page is scrolled alike. "Script" is the page's own part of a
frame above 50 ms.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import _page

#: seconds until the first images are there, and of the longest frame while scrolling
MOST_FIRST, MOST_FRAME = 2.0, 0.050
#: different pictures; each image has a file of its own with one of them
_PICTURES = 48
_WIDE, _TALL = 1400, 900
#: pixels a second
_SPEEDS = {"reading": 1_500, "flinging": 30_000}
_ROUNDS = 4

#: scrolls `arguments[0]` pixels a second for `arguments[1]` seconds → intervals and script times
_SCROLL = """
const [speed, seconds, done] = arguments;
const frames = [], script = [0];
const tell = (entry) => script.push(entry.scripts.reduce((sum, one) => sum + one.duration, 0));
const watch = new PerformanceObserver((list) => list.getEntries().forEach(tell));
watch.observe({ type: "long-animation-frame" });  // of the frames above 50 ms
const start = performance.now();
let last = start;
const from = scrollY;
const step = (now) => {
  frames.push(now - last);
  last = now;
  if (now - start > seconds * 1000) {
    watch.takeRecords().forEach(tell);
    return done({ frames: frames.slice(2), script });
  }
  scrollTo(0, from + ((now - start) / 1000) * speed);
  requestAnimationFrame(step);
};
requestAnimationFrame(step);
"""

#: does something and waits for the next frame → milliseconds
_COST = """
const done = arguments[arguments.length - 1];
const before = performance.now();
(() => { %s })();
requestAnimationFrame(() => setTimeout(() => done(performance.now() - before)));
"""

_TYPE = (
    "const field = document.getElementById('search'); field.value = '%s';"
    "field.dispatchEvent(new Event('input'))"
)
_STEPS = {
    "a letter of a search": _TYPE % "picture 12",
    "the search emptied": _TYPE % "",
    "a pick": "document.querySelector('.tile .heart').click()",
    "sorted by a column": (
        "const order = document.getElementById('order'); order.value = 'by seed';"
        "order.dispatchEvent(new Event('change'))"
    ),
    "Compare": "document.getElementById('as-comparison').click()",
}


def write_page(folder: Path, images: int) -> Path:
    """Write a page of so many images, and return it."""
    from fluxasync.gallery.html_page import page
    from fluxasync.gallery.thumbnail_worker import make_thumbnail
    from fluxasync.simulator.images import Gallery, PictureSpec

    gallery, thumbs = Gallery(), folder / "thumbs"
    thumbs.mkdir()
    for number in range(_PICTURES):
        spec = PictureSpec(
            prompt=f"a valley, {number}", seed=number, format="jpeg",
            width=1024, height=(768, 1024, 1344)[number % 3],
        )  # fmt: skip
        make_thumbnail(gallery.picture(spec).body, thumbs / f"picture-{number}.webp")
    cards = []
    for number in range(images):
        name = f"thumbs/{number}.webp"
        os.link(thumbs / f"picture-{number % _PICTURES}.webp", folder / name)
        parameters = {"guidance": 2 + number % 8 / 2, "steps": 28}
        cards.append(
            {
                "key": f"{number:064x}", "status": "saved", "index": number, "thumb": f"./{name}",
                "prompt": f"picture {number // 4} of a valley, in the light of the evening",
                "model": "flux-dev", "seed": number % 4, "width": 1024, "bytes": 180_000,
                "height": (768, 1024, 1344)[number % _PICTURES % 3], "parameters": parameters,
                "extras": {"light": ("dawn", "noon", "dusk")[number % 3], "sku": f"S{number}"},
                "file_name": f"{number:06}.jpg", "cost": 0.025, "provider": "cometapi",
                "finished_at": f"2026-11-30T10:{number // 60 % 60:02}:{number % 60:02}+00:00",
                "timings": {"submit": 0.1, "watch": 2.5, "download": 0.2, "polls": 2},
            }
        )  # fmt: skip
    path = folder / "gallery.html"
    path.write_bytes(page("run", {"cards": cards}, served=False).text)
    return path


@contextmanager
def _window() -> Iterator[Any]:
    sys.path.insert(0, str(_page.ROOT / "tests"))
    from support.browser import browser

    with browser() as window:
        window.driver.set_script_timeout(120)
        yield window


def measure(path: Path) -> dict[str, Any]:
    """Return the times of a page, in milliseconds."""
    with _window() as window:
        window.open("about:blank", wide=_WIDE, tall=_TALL)
        window.open(path.as_uri(), wide=_WIDE, tall=_TALL)
        window.until(
            "document.querySelectorAll('.tile img').length > 0 && [...document.querySelectorAll("
            "'.tile img')].filter(i => i.getBoundingClientRect().top < innerHeight)"
            ".every(i => i.complete && i.naturalWidth)"
        )
        found: dict[str, Any] = {
            "images": window.run("performance.now()"),
            "paint": window.run(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            ),
        }
        run = window.driver.execute_async_script
        for name, speed in _SPEEDS.items():
            found[name] = _best(window, speed)
        window.run("scrollTo(0, 0)")
        found["steps"] = {name: run(_COST % code) for name, code in _STEPS.items()}
        if problems := window.console():
            raise SystemExit(f"the page has errors: {problems}")
        window.open("data:text/html,<body style=height:900000px>", wide=_WIDE, tall=_TALL)
        found["empty"] = _best(window, _SPEEDS["reading"])
    return found


def _best(window: Any, speed: int) -> dict[str, Any]:
    """Scroll several times, each from another place; return the smoothest round."""
    rounds: list[dict[str, Any]] = []
    before = _busy_seconds(window)
    for number in range(_ROUNDS):
        window.run(f"scrollTo(0, {number * 40_000})")
        window.driver.execute_async_script("setTimeout(arguments[0], 500)")
        rounds.append(window.driver.execute_async_script(_SCROLL, speed, 4))
    frames = [frame for one in rounds for frame in one["frames"]]
    slow = sum(frame > MOST_FRAME * 1000 + 0.5 for frame in frames)
    busy = 1000 * (_busy_seconds(window) - before) / len(frames)
    return {
        **min(rounds, key=lambda one: max(one["frames"])),
        "slow": slow,
        "all": len(frames),
        "busy": busy,
    }


def _busy_seconds(window: Any) -> float:
    """Return how long the page's main thread has worked."""
    window.driver.execute_cdp_cmd("Performance.enable", {})
    metrics = window.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))


def _share(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    body = [
        ["first paint", f"{found['paint']:,.0f}", ""],
        ["the first screen's images", f"{found['images']:,.0f}", f"{MOST_FIRST * 1000:,.0f}"],
    ]
    for name in _SPEEDS:
        frames, script = found[name]["frames"], found[name]["script"]
        most = f"{MOST_FRAME * 1000:,.0f}"
        body += [
            [f"a frame while {name}, median", f"{_share(frames, 0.5):.1f}", ""],
            [f"a frame while {name}, longest of {len(frames)}", f"{max(frames):.1f}", most],
            ["its main thread's work for a frame, mean", f"{found[name]['busy']:.1f}", ""],
            [f"frames above 50 ms of {found[name]['all']}", f"{found[name]['slow']}", ""],
            ["most of the page's script in a frame above 50 ms", f"{max(script):.1f}", ""],
        ]
    empty = found["empty"]["frames"]
    body.append([f"the same of an empty page, longest of {len(empty)}", f"{max(empty):.1f}", ""])
    body += [[name, f"{value:,.0f}", ""] for name, value in found["steps"].items()]
    return _page.rows(("", "ms", "most"), body)


def problems(found: Mapping[str, Any]) -> list[str]:
    """Return what is above its limit."""
    said = []
    if found["images"] > MOST_FIRST * 1000:
        said.append(f"the first images after {found['images']:,.0f} ms")
    for name in _SPEEDS:
        longest = max(found[name]["frames"])
        if longest > MOST_FRAME * 1000 + 0.5:
            said.append(f"a frame of {longest:.0f} ms while {name}")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--write", action="store_true", help="write the table into the docs")
    given = parser.parse_args()
    load = _page.load()
    with tempfile.TemporaryDirectory(prefix="fluxasync-page-") as folder:
        found = measure(write_page(Path(folder), given.images))
    text = f"{table(found)}\n\n{given.images:,} images. {_page.machine(load)}"
    sys.stdout.write(text + "\n")
    if given.write:
        _page.write("gallery_page", text)
    if said := problems(found):
        raise SystemExit("; ".join(said))


if __name__ == "__main__":
    main()
