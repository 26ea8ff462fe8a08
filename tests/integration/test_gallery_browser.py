"""The page in a real browser, from a disk and from loopback.

Every test ends with an empty console: it would show a violated policy, a missing image or an error
of the script.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.browser import Browser, browser
from support.gallery_folders import HOSTILE, Folder, picture

pytest.importorskip("PIL", reason="the extra `image` is not installed")

from fluxasync.gallery import write
from fluxasync.gallery.html_page import page
from fluxasync.gallery.server import GalleryServer

pytestmark = pytest.mark.slow

ENTER, ESCAPE, LEFT, UP, RIGHT, DOWN = (chr(0xE000 + n) for n in (7, 12, 18, 19, 20, 21))
TILES = "document.querySelectorAll('.tile').length"
DRAWN = "[...document.querySelectorAll('.tile img')].every(i => i.complete && i.naturalWidth)"
FOCUSED = "document.activeElement.querySelector('.caption')?.textContent"
#: shows the table by every axis, as rows and as columns
EVERY_AXIS = """(() => {
  const [rows, columns] = ['rows', 'columns'].map(id => document.getElementById(id));
  [...rows.options].map(option => option.value).forEach((name, at, names) => {
    rows.value = name; columns.value = names[(at + 1) % names.length];
    rows.dispatchEvent(new Event('change'));
  });
})()"""
#: everything that the page has fetched from elsewhere; every browser requests an icon
FOREIGN = """performance.getEntriesByType('resource').map(e => e.name).filter(
  name => name !== location.origin + '/favicon.ico' &&
    !name.startsWith(location.href.split(/gallery.html|#/)[0]))"""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three prompts by four seeds by two models, one of them moderated, and one that failed."""
    folder = Folder(tmp_path_factory.mktemp("grid"))
    for prompt in ("a fox", "a lamp", "a city at night"):
        for model in ("flux-dev", "flux-pro-1.1"):
            for seed in (1, 2, 3, 4):
                facts = {"prompt": prompt, "model": model, "seed": seed}
                if (prompt, model, seed) == ("a lamp", "flux-dev", 3):
                    folder.failed(**facts)
                else:
                    folder.saved(**facts)
    folder.failed(prompt="a broken one", cause="expired", message="its URL died")
    return asyncio.run(write(folder.path)).path


def opened(window: Browser, path: Path, **screen: bool | int) -> None:
    window.open(path.as_uri(), **screen)
    window.until(f"{TILES} > 0 && {DRAWN}")


def test_words_models_and_states_filter(window, grid):
    """Search and filters decide what is shown, and the counts follow."""
    opened(window, grid, tall=2_000)
    assert window.run(TILES) == 25
    window.press("/")
    window.press("fox seed:2")
    window.until(f"{TILES} === 2")
    assert "2 shown of 25" in window.run("document.getElementById('totals').textContent")
    window.press(ESCAPE)
    window.until(f"{TILES} === 25")
    window.click("#model option[value='flux-dev']")
    window.until(f"{TILES} === 13")
    window.click("#statuses button:nth-child(3)")
    window.until(f"{TILES} === 1")
    assert "Moderated" in window.run("document.querySelector('.tile').textContent")
    window.press("/")
    window.press("nowhere")
    window.until(f"{TILES} === 0 && !document.getElementById('nothing').hidden")
    assert window.console() == []


def test_accounts_of_a_run_can_be_told_apart(window, tmp_path):
    """With several accounts there is a filter, a search word and a fact; with one there is none."""
    folder = Folder(tmp_path)
    for number in range(6):
        folder.saved(account="main" if number < 4 else HOSTILE[0])
    opened(window, asyncio.run(write(tmp_path)).path, tall=2_000)
    assert not window.run("document.getElementById('account').hidden")
    window.press("/")
    window.press("account:main")
    window.until(f"{TILES} === 4")
    window.press(ESCAPE)
    window.until(f"{TILES} === 6")
    window.click("#account option[value='main']")
    window.until(f"{TILES} === 4")
    window.click(".tile:nth-child(1)")
    assert "Account\nmain" in window.run("document.querySelector('#facts').innerText")
    assert window.run("window.pwned") is None
    assert window.console() == []
    alone = Folder(tmp_path / "alone")
    for _ in range(2):
        alone.saved(account="main")
    opened(window, asyncio.run(write(tmp_path / "alone")).path)
    assert window.run("document.getElementById('account').hidden")
    assert window.console() == []


def test_a_click_shows_every_detail_of_an_image(window, grid):
    """Prompt, seed, cost, timings and the file of an image; cause and charge of a failure."""
    opened(window, grid, tall=2_000)
    window.click(".tile:nth-child(2)")
    window.until("document.getElementById('detail-picture').naturalWidth === 64")
    shown = window.run("document.querySelector('#detail aside').innerText")
    for text in ("a fox", "flux-dev", "64 × 48", "$0.025", "0.10 s", "2 of 25", "job-1"):
        assert text in shown
    window.press(ESCAPE)
    window.click(".tile.failed")
    shown = window.run("document.querySelector('#detail').innerText")
    for text in ("Failed", "a broken one", "its URL died", "may have been charged"):
        assert text in shown
    assert window.console() == []


def test_bytes_in_quarantine_are_shown_with_a_mark(window, tmp_path):
    """An image that can be shown has a mark; other bytes have the reason, as text."""
    folder, home = Folder(tmp_path), tmp_path / ".fluxasync" / "quarantine"
    home.mkdir(parents=True)
    for name, content in {"good.jpg": picture(), "page.bin": b"<html>"}.items():
        (home / name).write_bytes(content)
        kept = {"path": f".fluxasync/quarantine/{name}"}
        folder.failed(cause="download", message=HOSTILE[0], quarantine=kept)
    opened(window, asyncio.run(write(tmp_path)).path)
    first, second = "document.querySelectorAll('.tile')[0]", "document.querySelectorAll('.tile')[1]"
    assert window.run(f"{first}.querySelector('.mark').textContent") == "In quarantine"
    assert window.run(f"{first}.querySelector('img').naturalWidth") > 0
    assert window.run(f"{second}.querySelector('.word').textContent") == "In quarantine"
    assert window.run(f"{second}.querySelector('.why').textContent") == HOSTILE[0]
    window.click(".tile")
    window.until("document.getElementById('detail-status').textContent === 'In quarantine'")
    assert window.run("document.getElementById('detail-message').textContent") == HOSTILE[0]
    assert window.run("window.pwned === undefined")
    assert window.console() == []


def test_keys_are_enough(window, grid):
    """Arrows move, Enter opens, arrows step through, Escape returns to that image."""
    opened(window, grid, wide=1400)
    window.press(RIGHT)
    window.press(RIGHT)
    window.until(f"{FOCUSED} === 'seed 2 · flux-dev  a fox'")
    window.press(DOWN)
    window.until("document.activeElement.offsetTop > 0")
    window.press(UP)
    window.press(ENTER)
    window.until("document.getElementById('detail').open")
    window.until("document.getElementById('place').textContent === '2 of 25'")
    for _ in range(7):
        window.press(RIGHT)
    window.press(LEFT)
    window.until("document.getElementById('place').textContent === '8 of 25'")
    window.press(ESCAPE)
    # the dialog is closed before its `close` event moves the focus
    window.until("parseInt(document.activeElement.dataset.key, 16) === 7")
    window.press("/")
    window.until("document.activeElement.id === 'search'")
    window.press("lamp", ENTER)
    window.until(f"{FOCUSED} === 'seed 1 · flux-dev'")
    assert window.console() == []


def test_a_grid_stands_side_by_side(window, grid):
    """Rows and columns are parameters that vary; a cell of several images opens all of them."""
    opened(window, grid)
    window.press("/")
    window.press("seed", ESCAPE)
    window.click("#model option[value='flux-dev']")
    window.click("#as-comparison")
    window.until("document.querySelectorAll('.row').length === 4")
    assert window.run("document.getElementById('rows').value") == "prompt"
    assert window.run("document.getElementById('columns').value") == "seed"
    window.click("#model option[value='']")
    window.click("#columns option[value='model']")
    window.until(
        "[...document.querySelectorAll('.caption')].some(c => c.textContent === 'flux-dev')"
    )
    window.until("document.querySelector('.more')?.textContent === '+3'")
    left = window.run(
        "[...document.querySelectorAll('.tile')].filter(t => t.textContent.includes('pro'))"
        ".map(t => t.offsetLeft)"
    )
    assert len(left) == 3
    assert len(set(left)) == 1
    window.click(".tile")
    assert window.run("document.getElementById('place').textContent") == "1 of 25"
    assert window.console() == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("wide", [390, 1400, 2560])
def test_it_fits_the_screen_in_its_colours(window, grid, wide, dark):
    """Nothing overflows a phone's or a desktop's screen; both colour schemes have contrast."""
    opened(window, grid, wide=wide, tall=800, dark=dark)
    for step in ("", "#as-comparison", ".tile"):
        if step:
            window.click(step)
        assert window.run("document.documentElement.scrollWidth") <= wide
        over = window.run(
            "[...document.querySelectorAll('header *, dialog[open] *')].filter(e => "
            "!e.closest('.chips') &&"  # which scroll sideways
            "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.id || e.tagName)"
        )
        assert over == [], step
    ground, ink = (
        window.run(f"getComputedStyle(document.getElementById('detail')).{name}")
        for name in ("backgroundColor", "color")
    )
    assert (brightness(ground) < brightness(ink)) is dark
    assert abs(brightness(ground) - brightness(ink)) > 150
    assert window.console() == []


def brightness(colour: str) -> float:
    red, green, blue = map(float, colour[4:-1].split(","))
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize("served", [False, True])
def test_hostile_texts_run_nothing(window, tmp_path, served):
    """T7: text from any source is shown as text; nothing runs or is loaded."""
    folder = Folder(tmp_path / "<img src=x onerror=window.pwned=1>")
    for text in HOSTILE:
        everywhere = {
            "prompt": text, "model": text, "prompt_used": text, "job_id": text,
            "provider": text, "extras": {text: text}, "parameters": {text: text},
            "finished_at": text, "timings": {text: 1.5},
        }  # fmt: skip
        folder.saved(**everywhere)
        folder.failed(**everywhere, cause=text, message=text, where=text)
    (folder.path / "'\"><img src=x onerror=window.pwned=1>.jpg").write_bytes(picture())
    folder.saved(file_name="'\"><img src=x onerror=window.pwned=1>.jpg", with_file=False)
    with serving(folder.path) if served else written(folder.path) as url:
        window.open(url, tall=2_000)
        window.until(f"{TILES} > 10 && {DRAWN}")
        tags = window.run("[...new Set([...document.querySelectorAll('*')].map(e => e.tagName))]")
        assert not {"IFRAME", "SVG", "svg", "MATH", "math", "FORM", "BASE", "OBJECT"} & set(tags)
        window.click(".tile")
        for _ in range(2 * len(HOSTILE)):
            window.press(RIGHT)
        window.until("document.getElementById('detail-picture').naturalWidth > 0")
        assert window.run("document.querySelectorAll('#facts *:not(dt):not(dd)').length") == 0
        window.press(ESCAPE)
        window.click("#as-comparison")
        window.run(EVERY_AXIS)
        assert window.run("window.pwned === undefined")
        assert window.run(FOREIGN) == []
        assert window.console() == []


def test_even_markup_in_the_page_could_not_run(window, tmp_path):
    """The policy alone refuses a script, handler or style that was put into the page."""
    text = page("x", {"cards": []}, served=False).text.decode()
    evil = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1><p style=color:red>"
    (tmp_path / "page.html").write_text(text.replace("<noscript>", evil + "<noscript>"))
    window.open((tmp_path / "page.html").as_uri())
    window.until("document.readyState === 'complete'")
    assert window.run("window.pwned === undefined")
    with pytest.raises(Exception, match="TrustedHTML"):
        window.run("document.body.innerHTML = '<b>x</b>'")
    assert any("Content Security Policy" in text for text in window.console())


def test_ten_thousand_images_are_as_light_as_ten(window, tmp_path):
    """However many images there are, only those near the window are in the page."""
    (tmp_path / "x.jpg").write_bytes(picture())
    cards = [
        {
            "key": f"{number:064x}", "status": "saved", "index": number, "file": "./x.jpg",
            "prompt": f"picture {number}", "model": "flux-dev", "seed": number % 4,
            "width": 64 + 16 * (number % 3), "height": 64, "parameters": {"guidance": number % 8},
        }
        for number in range(10_000)
    ]  # fmt: skip
    path = tmp_path / "page.html"
    path.write_bytes(page("x", {"cards": cards}, served=False).text)
    opened(window, path)
    counts = [window.run("document.querySelectorAll('*').length")]
    height = window.run("document.documentElement.scrollHeight")
    assert height > 100_000
    for part in (0.25, 0.5, 0.999):
        window.run("scrollTo(0, arguments[0])", part * height)
        window.until(
            f"{TILES} && [...document.querySelectorAll('.tile')].some(t => "
            "t.getBoundingClientRect().top > 0 && t.getBoundingClientRect().top < 900)"
        )
        counts.append(window.run("document.querySelectorAll('*').length"))
    window.press(chr(0xE010))  # End
    assert window.run(FOCUSED) == "picture 9999"
    window.press("/")
    window.press("9876")
    window.until(f"{TILES} === 1")
    window.press(ESCAPE)
    window.click("#as-comparison")
    window.until("document.querySelectorAll('.row').length > 1")
    counts.append(window.run("document.querySelectorAll('*').length"))
    assert max(counts) < 600
    assert window.console() == []


def test_images_appear_while_the_page_is_open(window, tmp_path):
    """An open page shows new images, and says when the run has ended."""
    folder = Folder(tmp_path)
    with serving(tmp_path) as url:
        window.open(url)
        window.until("!document.getElementById('nothing').hidden")
        folder.saved()
        window.until(f"{TILES} === 1 && {DRAWN}")
        folder.saved()
        folder.failed()
        window.until(f"{TILES} === 3 && {DRAWN}")
        assert window.run("document.getElementById('live').textContent") == "live"
        assert window.console() == []
    window.until("document.getElementById('live').textContent === 'the run has ended'")


def test_loaded_images_stay_visible_after_the_server_ends(window, tmp_path):
    """After the run the page says where the images are, and still shows those already loaded."""
    folder = Folder(tmp_path)
    for number in range(60):
        folder.saved(prompt=f"picture {number}")
    with serving(tmp_path) as url:
        window.open(url)
        window.until(f"{TILES} > 0 && {DRAWN}")
        seen = window.run("document.querySelector('.tile').dataset.key")
    window.until("document.getElementById('live').textContent === 'the run has ended'")
    window.press(chr(0xE010))  # End
    window.until("document.activeElement.textContent.includes('The server has ended')")
    assert "File missing" not in window.run("document.body.innerText")
    window.press(chr(0xE011))  # Home
    window.until(f"document.activeElement.dataset.key === '{seen}'")
    window.until("document.activeElement.querySelector('img')?.naturalWidth > 0")


class serving:
    """A page served from another thread, as the command's child process serves it."""

    def __init__(self, folder: Path, *, options: Mapping[str, str] | None = None) -> None:
        self._folder, self._options = folder, options
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> str:
        self._thread.start()
        self._ready.wait(10)
        return self._url

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def expect(self, total: int) -> None:
        """Say how many images the run makes."""
        asyncio.run_coroutine_threadsafe(
            self._server.expect(total, is_free=True), self._loop
        ).result(10)

    def _serve(self) -> None:
        self._loop.run_until_complete(self._story())

    async def _story(self) -> None:
        self._stop = asyncio.Event()
        async with GalleryServer(self._folder, options=self._options) as server:
            self._url, self._server = server.url, server
            self._ready.set()
            await self._stop.wait()


class written:
    """The same folder's page on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> str:
        return asyncio.run(write(self._folder)).path.as_uri()

    def __exit__(self, *exc_info: object) -> None:
        pass
