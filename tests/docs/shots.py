"""The pictures of README and docs, made from runs on the simulator.

`python -m tests.docs.shots`, in the repository's folder, makes all of them again (`make shots`);
names of pictures choose some. `--all FOLDER` writes instead every page in three widths, light and
dark, to look at. Needs Chromium.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    import pyte
    from rich.text import Text
    from support.browser import Browser

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"

PROMPTS = (
    "A red fox asleep in fresh snow at first light",
    "A lighthouse in a storm, oil on canvas",
    "Old town at sunset, tiled roofs, city wall",
    "Caravan crossing the dunes, long shadows",
    "A tram in the rain, neon reflections",
    "Harbour at dawn, fog, fishing boats",
    "A walled garden in spring, watercolour",
    "Mountain hut under the Milky Way",
    "Tea terraces in the morning mist",
    "A frozen lake, skaters, winter sun",
    "Windmills on the plain, heavy clouds",
    "A night train crossing a viaduct",
    "An observatory on a hill, meteor shower",
    "A whale beside a rowing boat, calm sea",
    "Aurora above a fishing village",
    "A greenhouse on Mars, two moons",
    "Owl in a winter forest, moonlight",
    "Neon street market after the rain",
)
#: rows and columns of the terminal, and the images saved when its picture is taken
_ROWS, _COLUMNS, _SAVED = 30, 124, 100
#: small images, because this machine draws them beside the run
_SMALL = ("--param", "width=512", "--param", "height=384")
#: width of a picture in CSS pixels, and of the pages to look at
_WIDE = 1280
_WIDTHS = (390, 1400, 2560)
#: the frame of a terminal's picture: rich's own, without fonts from the network
_FRAME = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


#: the pictures
NAMES = ("run.svg", "gallery.jpg", "run-report.jpg", "bench-report.jpg")
#: height of the picture of a page in CSS pixels
_TALL = {"gallery.jpg": 900, "run-report.jpg": 1_150, "bench-report.jpg": 1_350}


@frozen
class Shown:
    """What the pictures show."""

    terminal: str = ""  #: SVG
    pages: dict[str, Path] = field(factory=dict)  #: by the name of the picture


# --- the runs -------------------------------------------------------------------------------------


async def make_pages(folder: Path, names: set[str]) -> Shown:
    """Run, page and measure on simulators what these pictures show."""
    from fluxasync.simulator import Scenario, Simulator

    os.environ["COMETAPI_KEY"] = "simulated"
    (folder / "prompts.txt").write_text("".join(f"{each}\n" for each in PROMPTS), encoding="utf-8")
    pages: dict[str, Path] = {}
    terminal = ""
    if names & {"run.svg", "run-report.jpg"}:
        scenario = Scenario(
            latency=(1.5, 4.0), active_limit=24, seed=5,
            faults={"moderated-content": 0.01, "429": 0.02, "lost-reply": 0.01, "error": 0.01},
        )  # fmt: skip
        async with Simulator(scenario) as simulator:
            at = ("--base-url", simulator.url, *_SMALL)
            run = ("run", "prompts.txt", "-o", "thursday", "--max-cost", "10", "--model")
            many = (*run, "flux-2-pro", "--n", "10")
            terminal = await asyncio.to_thread(terminal_picture, many, at, folder)
            await command(folder, *run, "flux-dev", "--n", "4", *at)
        await command(folder, "report", "thursday")
        pages["run-report.jpg"] = folder / "thursday" / "report.html"
    if "gallery.jpg" in names:
        async with Simulator(Scenario(latency=(0.5, 1.0), seed=2)) as simulator:
            run = ("run", "prompts.txt", "-o", "landscapes", "--max-cost", "10", "--n", "2")
            await command(folder, *run, "--base-url", simulator.url)
        await command(folder, "gallery", "landscapes")
        pages["gallery.jpg"] = folder / "landscapes" / "gallery.html"
    if "bench-report.jpg" in names:
        async with Simulator(Scenario(latency=(4.0, 7.0), active_limit=6, seed=7)) as simulator:
            await command(
                folder, "bench", "--base-url", simulator.url, "--in-flight", "2,4,6,9",
                "--prompts", "prompts.txt", "--images", "24", "-o", "measured", "--max-cost", "20",
                "--title", "flux-dev on a simulated account of 6 slots", *_SMALL,
            )  # fmt: skip
        pages["bench-report.jpg"] = folder / "measured" / "report.html"
    return Shown(terminal, pages)


async def command(folder: Path, *words: str) -> None:
    """Run a command to its end; its messages are shown."""
    print("fluxasync", *words, file=sys.stderr)  # noqa: T201 — a script
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fluxasync", *words, cwd=folder, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() in (0, 3, 4), (
        "the command failed"
    )  # some images failed, or are in doubt


def terminal_picture(shown: tuple[str, ...], hidden: tuple[str, ...], folder: Path) -> str:
    """Run a command in a terminal and return its screen, when some images are saved, as SVG; the
    `hidden` words are not in its picture."""
    import pyte
    from support.pseudo_terminal import Terminal

    terminal = Terminal(*shown, *hidden, cwd=folder, size=(_ROWS, _COLUMNS))
    found = 0
    while found < _SAVED:
        assert terminal.watch(0.2), f"ended early: {terminal.shown[-500:]}"
        counts = re.findall(r"(\d+) saved", terminal.shown)
        found = int(counts[-1]) if counts else 0
    screen = pyte.Screen(_COLUMNS, _ROWS)
    pyte.Stream(screen).feed(terminal.shown.partition("ready")[2])
    picture = _as_svg(screen, f"fluxasync {' '.join(shown)}")
    terminal.end()
    return picture


def _as_svg(screen: pyte.Screen, typed: str) -> str:
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    lines = [_line(screen, number) for number in range(screen.lines)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    while lines and not lines[0].plain.strip():
        lines.pop(0)
    console = Console(
        record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="256",
        legacy_windows=False,
    )  # fmt: skip
    console.print(Text.assemble(("$ ", "bright_black"), typed), highlight=False)
    for line in lines:
        console.print(line, highlight=False, no_wrap=True)
    return console.export_svg(
        title="fluxasync run", theme=MONOKAI, code_format=_FRAME, unique_id="run"
    )


def _line(screen: pyte.Screen, number: int) -> Text:
    """Return a line of a screen with its colours."""
    from rich.style import Style
    from rich.text import Text

    line = Text()
    for column in range(screen.columns):
        char = screen.buffer[number][column]
        style = Style(
            color=_colour(char.fg), bold=char.bold or None, italic=char.italics or None,
            underline=char.underscore or None,
        )  # fmt: skip
        line.append(char.data or " ", style)
    line.rstrip()
    return line


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return {"brown": "yellow"}.get(name, name.replace("bright", "bright_").replace("__", "_"))


# --- the pictures ---------------------------------------------------------------------------------


def picture(browser: Browser, page: Path, *, tall: int) -> bytes:
    """Return the upper part of a page as a JPEG."""
    browser.open(page.as_uri(), wide=_WIDE, tall=tall)
    _settle(browser)
    return _jpeg(browser.screenshot(whole=False))


def _settle(browser: Browser) -> None:
    """Wait until the fonts and all images in view are there."""
    browser.until(
        "document.fonts.status === 'loaded' && [...document.images].every(image => "
        "image.complete || image.getBoundingClientRect().top > innerHeight)"
    )


def _jpeg(png: bytes) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.save(file, "JPEG", quality=84, optimize=True, progressive=True)
    return file.getvalue()


def pictures(shown: Shown, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the chosen pictures, by the names of their files."""
    from support.browser import browser

    if "run.svg" in names:
        yield "run.svg", shown.terminal.encode()
    with browser() as opened:
        for name in names & shown.pages.keys():
            yield name, picture(opened, shown.pages[name], tall=_TALL[name])


def everything(shown: Shown) -> Iterator[tuple[str, bytes]]:
    """Yield every page whole, in each width, light and dark; of the gallery what the window shows,
    because it loads what is looked at."""
    from support.browser import browser

    yield "run.svg", shown.terminal.encode()
    with browser() as opened:
        for name, page in shown.pages.items():
            for wide in _WIDTHS:
                for dark in (False, True):
                    opened.open(page.as_uri(), wide=wide, dark=dark)
                    _settle(opened)
                    image = opened.screenshot(whole=name != "gallery.jpg")
                    yield f"{Path(name).stem}-{wide}-{'dark' if dark else 'light'}.png", image


def main(words: list[str]) -> None:
    target, chosen = IMAGES, words
    if words[:1] == ["--all"]:
        target, chosen = Path(words[1]), words[2:]
        target.mkdir(parents=True, exist_ok=True)
    names = set(chosen or NAMES)
    assert names <= set(NAMES), f"choose from {', '.join(NAMES)}"
    with tempfile.TemporaryDirectory(prefix="fluxasync-shots-") as folder:
        shown = asyncio.run(make_pages(Path(folder), names))
        made = pictures(shown, names) if target == IMAGES else everything(shown)
        for name, content in made:
            (target / name).write_bytes(content)
            print(target / name)  # noqa: T201 — a script


if __name__ == "__main__":
    main(sys.argv[1:])
