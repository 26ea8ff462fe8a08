"""Choosing on the page, in a real browser: picks, the best of a row, two images over each other,
the address, copy buttons, and what the page says of a run.

Every test ends with an empty console: it would show a violated policy or an error of the script.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from integration.test_gallery_browser import serving
from support.browser import Browser, browser
from support.gallery_folders import HOSTILE, Folder, cards_of

pytest.importorskip("PIL", reason="the extra `image` is not installed")

from fluxasync._store.picks import PICKS, append_picks, read_picks
from fluxasync.gallery import write

pytestmark = pytest.mark.slow

ENTER, ESCAPE, RIGHT, LEFT = (chr(0xE000 + n) for n in (7, 12, 20, 18))
TILES = "document.querySelectorAll('.tile').length"
DRAWN = "[...document.querySelectorAll('.tile img')].every(i => i.complete && i.naturalWidth)"
CAPTIONS = "[...document.querySelectorAll('.caption')].map(c => c.textContent)"
OPEN = "document.getElementById('detail').open"
#: what the download button makes, instead of a file in a folder of the browser
CAUGHT = """(() => {
  const made = URL.createObjectURL.bind(URL);
  URL.createObjectURL = (blob) => {
    blob.text().then(text => window.text = text);
    return made(blob);
  };
  HTMLAnchorElement.prototype.click = function () { window.named = this.download; };
})()"""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Two prompts by three seeds, with a column of two values, and two failures."""
    folder = Folder(tmp_path_factory.mktemp("run"))
    number = 0
    for prompt, light in (("a fox", "dark red"), ("a lamp", "green")):
        for seed in (3, 1, 2):
            number += 1
            folder.saved(
                prompt=prompt, seed=seed, extras={"light": light, "sku": f"K{number}"},
                parameters={"guidance": 2.5}, finished_at=f"2026-11-30T10:0{number}:00+00:00",
            )  # fmt: skip
    folder.failed(prompt="a broken one", cause="expired", message="its URL died", paid="yes")
    folder.failed(prompt="a bad one")
    asyncio.run(write(folder.path))
    return folder


def opened(window: Browser, folder: Folder, address: str = "", **screen: bool | int) -> None:
    """Open the page of a folder in a browser that keeps nothing of it."""
    window.open((folder.path / "gallery.html").as_uri() + address, **screen)
    window.run("localStorage.clear()")
    window.driver.refresh()
    window.until(f"{TILES} > 0 && {DRAWN}")


def focused(window: Browser, number: int) -> None:
    window.run(f"document.querySelectorAll('.tile')[{number}].focus()")


def key(number: int) -> str:
    return f"{number:064x}"


def test_picks_of_a_served_page_are_in_the_folder(window, tmp_path):
    """Each key is one line of picks.jsonl; a page that is opened again shows them."""
    folder = Folder(tmp_path)
    for _ in range(4):
        folder.saved()
    append_picks(tmp_path, {key(3): True})
    with serving(tmp_path) as url:
        window.open(url)
        window.until(f"{TILES} === 4 && document.querySelectorAll('.picked').length === 1")
        window.click("#order option[value='given']")
        focused(window, 0)
        window.press("p")
        focused(window, 1)
        window.press("x")
        focused(window, 2)
        window.press("pp")  # picked, and undecided again
        window.driver.execute_script("document.querySelectorAll('.heart')[3].click()")
        window.until("document.getElementById('decisions').innerText.includes('Picked 1')")
        wanted = {key(0): True, key(1): False}
        for _ in range(500):  # each look lets the page send what is decided
            if read_picks(tmp_path) == wanted:
                break
            window.until("document.readyState === 'complete'")
        assert read_picks(tmp_path) == wanted
        window.driver.refresh()
        window.until(f"{TILES} === 4 && document.querySelectorAll('.picked').length === 1")
        assert window.run("document.querySelectorAll('.rejected').length") == 1
        assert window.run("document.getElementById('download').hidden")
        assert window.console() == []


def test_picks_of_a_page_on_a_disk_stay_in_the_browser_and_can_be_downloaded(window, run):
    """They are there after a reload; the downloaded file is what the folder needs."""
    opened(window, run)
    window.click("#order option[value='given']")
    focused(window, 1)
    window.press("p")
    focused(window, 2)
    window.press("x")
    window.driver.refresh()
    window.until("document.querySelectorAll('.picked').length === 1")
    window.run(CAUGHT)
    window.click("#download")
    (run.path / PICKS).write_text(window.until("window.text"))
    assert window.run("window.named") == PICKS
    assert read_picks(run.path) == {key(1): True, key(2): False}
    (run.path / PICKS).unlink()
    assert window.console() == []


def test_picks_after_the_server_has_ended_can_be_downloaded(window, tmp_path):
    """The page says that they are not in the folder, and keeps them until they are."""
    folder = Folder(tmp_path)
    for _ in range(2):
        folder.saved()
    append_picks(tmp_path, {key(0): True})
    with serving(tmp_path) as url:
        window.open(url)
        window.until(f"{TILES} === 2")
        assert window.run("document.getElementById('download').hidden")
    window.until("document.getElementById('live').textContent === 'the run has ended'")
    window.console()  # the broken connection
    window.run("document.querySelector(`[data-key='${arguments[0]}']`).focus()", key(1))
    window.press("x")
    window.until("document.getElementById('notice').textContent.includes('the server has ended')")
    window.run(CAUGHT)
    window.click("#download")
    (tmp_path / PICKS).write_text(window.until("window.text"))
    assert read_picks(tmp_path) == {key(0): True, key(1): False}
    assert [line for line in window.console() if "ERR_CONNECTION_REFUSED" not in line] == []


def test_filters_show_what_is_picked_and_what_is_left(window, run):
    """An image that is decided leaves the list of undecided ones, and the next has the focus."""
    opened(window, run)
    focused(window, 0)
    window.press("p")
    window.click("#decisions button:nth-child(1)")
    window.until(f"{TILES} === 1")
    window.click("#decisions button:nth-child(3)")
    window.until(f"{TILES} === 5")
    focused(window, 1)
    window.press("x")
    window.until(f"{TILES} === 4")
    assert window.run("document.activeElement.dataset.key") == key(3)
    window.press("x")
    window.until(f"{TILES} === 3")
    window.click("#decisions button:nth-child(2)")
    window.until(f"{TILES} === 2")
    assert window.console() == []


def test_the_best_of_a_row_is_one_key(window, run):
    """It is picked and the rest of its row rejected; the row says so; again takes it back."""
    opened(window, run)
    window.click("#as-comparison")
    window.until("document.querySelectorAll('.row').length > 1")
    window.click("#rows option[value='prompt']")
    window.click("#columns option[value='seed']")
    window.until(f"{CAPTIONS}.includes('seed 2')")
    seeds = window.run(CAPTIONS)
    focused(window, seeds.index("seed 2"))
    window.press("b")
    window.until("document.querySelectorAll('.rejected').length === 2")
    assert window.run("document.querySelector('.note').textContent") == "♥ seed 2"
    window.press("b")
    window.until("document.querySelectorAll('.rejected, .picked').length === 0")
    window.driver.execute_script("document.querySelector('.best').click()")
    window.until("document.querySelectorAll('.rejected').length === 2")
    assert window.console() == []


def test_two_images_lie_over_each_other(window, run):
    """The slider moves the edge by keys and mouse; either of them can be picked there."""
    opened(window, run)
    focused(window, 0)
    window.press("a")
    window.until("document.querySelector('.letter').textContent === 'A'")
    focused(window, 2)
    window.press("a")
    window.until("document.getElementById('overlay').open")
    window.until("[...document.querySelectorAll('#layers img')].every(i => i.naturalWidth)")
    before = window.run("document.getElementById('layer-b').style.clipPath")
    window.press(LEFT * 4)
    assert window.run("document.getElementById('layer-b').style.clipPath") != before
    assert window.run("document.getElementById('text-a').textContent") == "seed 3  a fox"
    assert window.run("document.getElementById('text-b').textContent") == "seed 2  a fox"
    window.press("b")
    window.press("s")
    assert window.run("document.getElementById('text-a').textContent") == "seed 2  a fox"
    window.press(ESCAPE)
    window.until("!document.getElementById('overlay').open")
    assert window.run("document.querySelector('.picked').dataset.key") == key(2)
    assert window.console() == []


def test_the_address_is_what_is_open(window, run):
    """It can be opened again; Back closes an image, and then takes a filter back."""
    opened(window, run)
    window.press("/")
    window.press("fox")
    window.until(f"{TILES} === 3")
    window.click(".tile:nth-child(2)")
    window.until(f"{OPEN} && location.hash === '#/image/1?q=fox'")
    window.press(RIGHT)
    window.until("location.hash === '#/image/2?q=fox'")
    window.driver.back()
    window.until(f"!{OPEN} && location.hash === '#/?q=fox'")
    window.driver.back()
    window.until(f"{TILES} === 8 && !document.getElementById('search').value")
    window.driver.forward()
    window.until(f"{TILES} === 3")
    window.click(".tile")
    window.until(OPEN)
    window.press(ESCAPE)  # is the same as Back
    window.until(f"!{OPEN} && location.hash === '#/?q=fox'")
    opened(window, run, "#/image/4?q=lamp&sort=by+seed&is.light=green")
    window.until(OPEN)
    assert window.run("document.getElementById('place').textContent") == "1 of 3"
    window.press(ESCAPE)
    window.until(f"!{OPEN} && {TILES} === 3")
    assert window.run("document.getElementById('order').value") == "by seed"
    opened(window, run, "?q=lamp")
    window.until(f"{TILES} === 3")
    assert window.console() == []


def test_captions_say_what_differs(window, run):
    """The seed where only seeds differ; the prompt alone where it is the only one of its kind."""
    opened(window, run)
    found = window.run(CAPTIONS)
    assert found[:3] == ["seed 3  a fox", "seed 1  a fox", "seed 2  a fox"]
    assert found[6] == "a broken one"
    window.press("/")
    window.press("fox")
    window.until(f"{TILES} === 3")
    assert window.run(CAPTIONS) == ["seed 3", "seed 1", "seed 2"]
    assert window.run("document.getElementById('only-prompt').textContent") == "a fox"
    assert window.console() == []


def test_quotes_columns_and_orders(window, run):
    """A phrase, a value with spaces, a word that must not occur; chips and orders of columns."""
    opened(window, run)
    for search, count in (
        ('"dark red"', 3), ('light:"dark red"', 3), ('light:"dark', 0), ("fox -seed:1", 2),
        ('"broken one"', 1), ("one broken", 1), ('"one broken"', 0),
    ):  # fmt: skip
        window.press("/")
        window.press(search)
        window.until(f"{TILES} === {count}"), search
        window.press(ESCAPE)
        window.until(f"{TILES} === 8")
    window.run(
        "[...document.querySelectorAll('.facet button')]"
        ".find(chip => chip.textContent === 'green').click()"
    )
    window.until(f"{TILES} === 3")
    window.click("#order option[value='by seed']")
    window.until(f'JSON.stringify({CAPTIONS}) === \'["seed 1","seed 2","seed 3"]\'')
    window.click("#direction")
    window.until(f'JSON.stringify({CAPTIONS}) === \'["seed 3","seed 2","seed 1"]\'')
    assert window.console() == []


def test_failures_are_a_list_with_reasons(window, run):
    """By cause, with the charge; a click has the rest."""
    opened(window, run)
    window.click("#as-failures")
    window.until(f"{TILES} === 2")
    text = window.run("document.getElementById('pictures').innerText")
    for said in ("Failed: expired · 1", "Moderated · 1", "its URL died", "paid, $0.025"):
        assert said in text
    window.click(".tile")
    window.until(OPEN)
    window.press(ESCAPE)
    assert window.console() == []


def test_the_header_tells_the_run(window, run):
    """Images, model, date, money and pace."""
    opened(window, run)
    text = window.run("document.getElementById('totals').textContent")
    assert text.startswith("6 images · flux-dev · ")
    assert "2026" in text
    assert "$0.175" in text  # six images and a failure that was paid
    assert text.endswith("1.0 a minute")
    assert window.console() == []


def test_an_active_run_has_a_bar_and_the_time_left(window, tmp_path):
    """As soon as the run says how many images it makes."""
    folder = Folder(tmp_path)
    for second in range(3):
        folder.saved(finished_at=f"2026-11-30T10:00:{second:02}+00:00")
    server = serving(tmp_path)
    with server as url:
        window.open(url)
        window.until(f"{TILES} === 3")
        assert window.run("document.getElementById('progress').hidden")
        assert "paid" not in window.run("document.getElementById('totals').textContent")
        server.expect(13)
        window.until("!document.getElementById('progress').hidden")
        text = window.run("document.getElementById('progress-text').textContent")
        assert text == "3 of 13 images, about 10 s left"
        assert "nothing was paid" in window.run("document.getElementById('totals').textContent")
        window.driver.refresh()
        window.until("!document.getElementById('progress').hidden")
        assert window.console() == []


def test_buttons_copy_prompt_seed_and_command(window, tmp_path):
    """The command is quoted for a shell, also where a prompt tries to leave its quotes."""
    prompt = "it's; $(reboot) `id` & \x1b[201~\nend"
    folder = Folder(tmp_path)
    folder.saved(prompt=prompt, seed=7, parameters={"guidance": 2.5, "image_prompt": "sha256:00"})
    asyncio.run(write(tmp_path))
    window.open((tmp_path / "gallery.html").as_uri() + "#/image/0")
    window.until(OPEN)
    window.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    window.click("#copy-seed")
    window.until("window.copied === '7'")
    window.click("#copy-command")
    window.until("window.copied.length > 1")
    assert window.run("window.copied") == (
        "fluxasync generate --model flux-dev --param seed=7 --param guidance=2.5 -o image-0.jpg "
        r"-- $'it\'s; $(reboot) `id` & \u001b[201~\u000aend'"
    )
    window.until("document.getElementById('copy-command').textContent === 'Copied'")
    assert window.console() == []


def test_the_size_of_the_images_is_kept(window, run):
    """The slider and its keys; the page has it again after a reload."""
    opened(window, run)
    before = window.run("document.querySelector('.tile').offsetHeight")
    focused(window, 0)
    window.press("---")
    window.until(f"document.querySelector('.tile').offsetHeight < {before}")
    after = window.run("document.querySelector('.tile').offsetHeight")
    window.driver.refresh()
    window.until(f"{TILES} > 0")
    assert window.run("document.querySelector('.tile').offsetHeight") == after
    window.run("localStorage.clear()")
    assert window.console() == []


@pytest.mark.parametrize("wide", [390, 1400, 2560])
def test_every_screen_has_the_means_to_choose(window, run, wide):
    """Order, size, hearts and filters can be reached at any width."""
    opened(window, run, wide=wide, tall=900)
    window.driver.execute_script("document.querySelector('.heart').click()")
    window.until("!document.getElementById('decisions').hidden")
    for name in ("order", "size", "decisions", "download", "facets"):
        box = window.run(f"document.getElementById('{name}').getBoundingClientRect().toJSON()")
        assert box["width"] > 20, name
        assert 0 <= box["left"] < wide, name
    assert window.run("document.documentElement.scrollWidth") <= wide
    assert window.console() == []


def test_hostile_texts_are_text_everywhere(window, tmp_path):
    """T7: columns, captions, chips, failures, orders and the address run nothing."""
    folder = Folder(tmp_path)
    for text in HOSTILE:
        for seed in (1, 2):
            folder.saved(prompt=text, seed=seed, extras={text: text, "light": HOSTILE[seed]})
        folder.failed(prompt=text, cause=text, message=text, where=text)
    page = asyncio.run(write(tmp_path)).path
    assert len(cards_of(page.read_bytes())) == 3 * len(HOSTILE)
    address = "#/image/" + HOSTILE[4] + "?q=&sort=" + HOSTILE[0] + "&view=" + HOSTILE[4]
    window.open(page.as_uri() + address)
    window.until(f"{TILES} > 3 && {DRAWN}")
    for step in ("#as-failures", "#as-comparison", "#as-pictures"):
        window.click(step)
    window.run("[...document.querySelectorAll('.facet button')].forEach(b => b.click())")
    window.run("document.getElementById('order').selectedIndex = 4")
    window.run("document.getElementById('order').dispatchEvent(new Event('change'))")
    tags = window.run("[...new Set([...document.querySelectorAll('*')].map(e => e.tagName))]")
    assert not {"IFRAME", "SVG", "svg", "MATH", "math", "FORM", "BASE", "OBJECT"} & set(tags)
    assert window.run("window.pwned === undefined")
    assert window.console() == []


def test_picks_of_another_program_do_not_break_the_page(window, run):
    """What local storage holds under our name may be anything; a bad picks.jsonl is named."""
    opened(window, run)
    for stored in ("nonsense", "[1]", json.dumps({key(0): [7], "x": [True]}), "null"):
        window.run(
            "localStorage.setItem('fluxasync-picks:' + location.pathname, arguments[0])", stored
        )
        window.driver.refresh()
        window.until(f"{TILES} === 8")
        assert window.run("document.querySelectorAll('.picked').length") == 0, stored
    (run.path / PICKS).write_text("no pick\n")
    asyncio.run(write(run.path))
    (run.path / PICKS).unlink()
    window.driver.refresh()
    window.until("document.getElementById('notice').textContent.includes('line 1 is no pick')")
    asyncio.run(write(run.path))
    assert window.console() == []
