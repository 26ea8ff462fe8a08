"""In a notebook and a script: what a cell shows, results, the simulator by one word, run_sync."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
import weakref
from base64 import b64decode
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.hostile_text import CORPUS, ESCAPES
from support.patience import patient
from support.served_simulator import served
from support.simulator_sessions import SIDE, audit, end_jobs

import fluxasync
from fluxasync import (
    ConfigError,
    Failed,
    FluxError,
    FluxSession,
    ImageRequest,
    InDoubt,
    Job,
    Moderated,
    Polling,
    Prompts,
    RunResult,
    Saved,
    Summary,
    TransportError,
)
from fluxasync._core import notebook_html
from fluxasync._store.journal.journal import Journal
from fluxasync._store.journal.reader import read_only
from fluxasync.extend import Stored
from fluxasync.simulator import Scenario, Simulator

QUICKEST = "flux-2-klein-4b"
SMALL = {"width": SIDE, "height": SIDE}
SOON = Polling(interval=0.01)
SCENARIO = Scenario(latency=(0, 0.01))


def picture(width: int = 1_000, height: int = 750) -> bytes:
    """A real photograph-like image: noise does not compress."""
    image = pytest.importorskip("PIL.Image")
    made = io.BytesIO()
    noise = image.frombytes("L", (width, height), os.urandom(width * height)).convert("RGB")
    noise.save(made, "PNG", compress_level=0)
    return made.getvalue()


def saved_image(prompt: str = "a fox", *, data: bytes | None, path: Path | None = None) -> Saved:
    request = ImageRequest(prompt=prompt, seed=7)
    job = Job(job_id="job-1", request=request)
    stored = Stored(
        data=data, path=path, size=len(data or b""), sha256="0" * 64, format="png",
        width=2_000, height=1_500,
    )  # fmt: skip
    return Saved(request=request, job=job, stored=stored, seed=7)


class Page(HTMLParser):
    """The tags, attributes and texts of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def images(self) -> list[bytes]:
        sources = [attrs["src"] or "" for tag, attrs in self.tags if tag == "img"]
        return [b64decode(source.partition("base64,")[2]) for source in sources]


KNOWN_TAGS = {"div", "span", "img", "br", "b", "table", "tr", "td", "ul", "li", "tbody"}
KNOWN_ATTRIBUTES = {"class", "style", "src", "alt", "title"}


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_cell_shows_a_small_copy_of_an_image(where: str, tmp_path: Path) -> None:
    """A 2 MB picture is a thumbnail of some kilobytes in the page, from its bytes or its file."""
    image = pytest.importorskip("PIL.Image")
    content = picture()
    path = tmp_path / "fox.png"
    path.write_bytes(content)
    in_file = where == "file"
    saved = saved_image(data=None if in_file else content, path=path if in_file else None)
    (shown,) = Page(saved._repr_html_()).images
    assert max(image.open(io.BytesIO(shown)).size) == notebook_html.SIDE * notebook_html.DENSITY
    assert len(saved._repr_html_()) < 400_000 < len(content)  # of noise, the worst case


@pytest.mark.parametrize("kind", ["gone", "a folder", "a pipe", "no image", "in a bucket"])
def test_an_image_that_cannot_be_shown_is_said_in_words(kind: str, tmp_path: Path) -> None:
    """A file that was removed, replaced or damaged never raises in a cell, nor makes it wait."""
    path = tmp_path / "fox.png"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "no image":
        path.write_bytes(b"\x89PNG\r\n\x1a\n but then nothing")
    saved = saved_image(data=None, path=None if kind == "in a bucket" else path)
    page = Page(saved._repr_html_())
    assert page.images == []
    assert "no preview" in page.texts


@pytest.mark.parametrize("text", [*CORPUS, *ESCAPES[:6]])
def test_no_prompt_or_message_becomes_part_of_the_page(text: str, tmp_path: Path) -> None:
    """Whatever prompts, names and messages hold, a cell has our tags only, and no address."""
    saved = saved_image(text, data=None, path=tmp_path / text.replace("/", "").strip("\0")[:40])
    request, job = saved.request, evolve(saved.job, job_id=text)
    assert request is not None
    failed = Failed(request=request, error=Moderated(text, job=job, reasons=()), where=text)
    doubtful = InDoubt(request=request, error=TransportError(text, sent=True))
    shown = notebook_html.overview(text, [saved], [failed, doubtful])
    for html in (saved._repr_html_(), failed._repr_html_(), doubtful._repr_html_(), shown):
        page = Page(html)
        assert {tag for tag, _ in page.tags} <= KNOWN_TAGS
        assert {name for _, attrs in page.tags for name in attrs} <= KNOWN_ATTRIBUTES
        assert "mathjax_ignore" in str(page.tags[0][1]["class"])
        assert html.encode()


@pytest.mark.parametrize("text", [CORPUS[-1], "fox\n" * 90])
def test_reprs_are_short(text: str, tmp_path: Path) -> None:
    """A list of outcomes is readable: no repr is longer than three lines of a terminal."""
    saved = saved_image(text, data=b"x" * 10_000)
    request = saved.request
    assert request is not None
    failed = Failed(request=request, error=Moderated(text, job=saved.job, reasons=()))
    doubtful = InDoubt(request=request, error=TransportError(text, sent=True))
    result = RunResult(Summary(saved=3), tmp_path)
    prompts = Prompts([text] * 10_000, n=2)
    model = fluxasync.models()[0]
    for value in (
        saved,
        saved.job,
        request,
        failed,
        doubtful,
        result,
        result.saved,
        prompts,
        model,
    ):
        assert len(repr(value)) <= 260
        assert "\n" not in repr(value)
    shop = Prompts("shop.xlsx", template="{colour} shoe", header=False)
    assert repr(shop) == "Prompts('shop.xlsx', template='{colour} shoe', header=False)"


@pytest.mark.asyncio
async def test_a_summary_shows_its_last_images(tmp_path: Path) -> None:
    """Six thumbnails, failures with their reasons, and still only some kilobytes of text."""
    pytest.importorskip("PIL", reason="decodes")
    scenario = evolve(SCENARIO, faults=["moderated-request:0.3"])
    async with Simulator(scenario) as sim:
        result = await fluxasync.run(
            Prompts([f"fox {n} <b>" for n in range(20)], parameters=SMALL),
            out=tmp_path, base_url=sim.url, polling=SOON,
        )  # fmt: skip
        assert 0 < len(result.failed) == sim.world.faults["moderated-request"]
    assert len(Page(result.summary._repr_html_()).images) == 6
    page = Page(result._repr_html_())
    assert len(page.images) == 6
    assert "moderated" in page.texts
    assert any("<b>" in text for text in page.texts)
    assert result.summary == evolve(result.summary, latest=())  # no part of what is compared


@pytest.mark.asyncio
async def test_a_result_has_the_outcomes_of_its_folder(tmp_path: Path) -> None:
    """Images, failures and invalid rows, in lists that are read when they are asked for; the counts
    of the summary stay readable."""
    source: list[Any] = [f"fox {number}" for number in range(8)] + [{"widht": 1}]
    async with Simulator(evolve(SCENARIO, faults=["moderated-content:0.4"])) as sim:
        result = await fluxasync.run(
            Prompts(source, parameters=SMALL, skip_bad=True),
            out=tmp_path, base_url=sim.url, polling=SOON,
        )  # fmt: skip
        audit(sim.world, [each for each in result.outcomes if each.request is not None])
        moderated = sim.world.faults["moderated-content"]
    assert [len(result.saved), len(result.failed)] == [8 - moderated, moderated + 1]
    assert (len(result.in_doubt), len(result.outcomes)) == (0, 9)
    assert [each.moderated for each in result.failed] == [True] * moderated + [False]
    assert "widht" in str(result.failed[-1].error)
    assert result.saved[0].path is not None
    assert result.saved[0].path.exists()
    assert result.saved[1:3] == list(result.saved)[1:3]
    assert [each.job for each in result.saved[::-1]] == [each.job for each in result.saved][::-1]
    with pytest.raises(IndexError):
        result.saved[99]
    assert result.cost == result.summary.cost  # as when a Summary was returned
    assert str(result) == str(result.summary)
    assert bool(result.failed)
    with pytest.raises(AttributeError):
        _ = result.nonsense


@pytest.mark.asyncio
async def test_outcomes_of_a_long_run_take_no_memory(tmp_path: Path) -> None:
    """P20: 1,200 outcomes are read in pages of 500: what is behind is gone."""

    async def fail(number: int) -> None:
        request = ImageRequest(prompt=f"fox {number}", index=number)
        job = Job(job_id=f"job-{number}", request=request)
        await journal.intent(request, price=None)
        await journal.answered(request, job)
        error = Moderated("no", job=job, reasons=())
        await journal.settle(Failed(request=request, error=error, index=number, job=job))

    async with Journal(tmp_path, provider="bfl", origin="x", simulated=False) as journal:
        await asyncio.gather(*map(fail, range(1_200)))
    failed = RunResult(Summary(), tmp_path).failed
    assert len(failed) == 1_200
    seen = [weakref.ref(each) for each in failed]
    assert [each() for each in seen].count(None) >= 1_199
    assert failed[1_199].index == 1_199
    assert failed[-1_200].index == 0
    assert f"<1,200 outcomes in {str(tmp_path)!r}>" == repr(failed)
    shown = failed._repr_html_()
    assert shown is not None
    assert shown.count("fox") == 12
    assert RunResult(Summary(), tmp_path / "gone").failed._repr_html_() is None


@pytest.mark.asyncio
async def test_to_pandas_has_a_row_for_each_outcome(tmp_path: Path) -> None:
    """Status, place, parameters and the list's own columns; a column that is named as one of ours
    does not replace it."""
    pandas = pytest.importorskip("pandas")
    source = [{"prompt": f"fox {n}", "sku": f"A{n}", "status": "new", **SMALL} for n in range(6)]
    async with Simulator(evolve(SCENARIO, faults=["moderated-content:0.4"])) as sim:
        result = await fluxasync.run(source, out=tmp_path, base_url=sim.url, polling=SOON)
    table = result.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert sorted(table["sku"]) == [f"A{n}" for n in range(6)]
    assert set(table["status"]) == {"saved", "failed"}
    assert set(table["extras.status"]) == {"new"}
    saved = table[table["status"] == "saved"]
    assert all(map(os.path.exists, saved["path"]))
    assert set(saved["width"]) == {SIDE}
    assert set(table[table["status"] == "failed"]["cause"]) == {"moderated"}


def test_to_pandas_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas is no dependency: without it the error has the command."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        RunResult(Summary(), tmp_path).to_pandas()


# --- the simulator by one word ------------------------------------------------------------------


@pytest.fixture
def _with_real_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that must never be sent to a simulator."""
    for name in ("COMETAPI_KEY", "BFL_API_KEY", "COMETAPI_ACCESS_TOKEN"):
        monkeypatch.setenv(name, "a-real-key")


@pytest.mark.usefixtures("_with_real_keys")
@pytest.mark.asyncio
async def test_simulate_needs_no_key_and_keeps_its_jobs(tmp_path: Path) -> None:
    """`simulate=True` of run, generate and FluxSession: images without key and cost. The jobs of an
    interrupted run are in its folder, so the next run collects them."""
    folder = tmp_path / "images"
    source = Prompts(["a fox", "an owl"], model=QUICKEST)
    paid = asyncio.Event()

    def see(event: object) -> None:
        if type(event).__name__ == "JobSubmitted":
            paid.set()

    running = asyncio.create_task(
        fluxasync.run(source, out=folder, simulate=True, on_event=see, limits=1)
    )
    await paid.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    result = await fluxasync.run(source, out=folder, simulate=True)
    assert len(result.saved) == 2
    assert "(simulated)" in str(result)
    assert str(result.summary) == str(result)
    log = (folder / ".fluxasync" / "simulator.jsonl").read_text("utf-8")
    assert sum('"id"' in line for line in log.splitlines()) == 2  # none was submitted twice
    async with FluxSession(simulate=True) as flux:
        saved = await flux.generate("a hare", model=QUICKEST, to=tmp_path / "hare.jpg")
    assert saved.path == tmp_path / "hare.jpg"


@pytest.mark.parametrize(
    "options", [{"base_url": "http://127.0.0.1:9"}, {"proxy": "http://proxy.example:1"}], ids=str
)
@pytest.mark.asyncio
async def test_simulate_refuses_what_it_cannot_do(options: dict[str, Any], tmp_path: Path) -> None:
    """An address or a proxy beside `simulate` is a mistake that is said before anything starts."""
    with pytest.raises(ConfigError, match="simulate"):
        FluxSession(simulate=True, **options)
    with pytest.raises(ConfigError, match="simulate"):
        await fluxasync.run(["a fox"], out=tmp_path / "x", simulate=True, **options)
    assert not (tmp_path / "x").exists()


def test_a_misspelt_option_of_a_session_is_a_type_error() -> None:
    """The option for tests takes no other name."""
    with pytest.raises(TypeError, match="simulated"):
        FluxSession(simulated=True)  # type: ignore[call-arg]


# --- without await ------------------------------------------------------------------------------


@pytest.mark.parametrize("in_a_loop", [True, False], ids=["in a loop", "in a script"])
def test_run_sync_returns_what_run_returns(in_a_loop: bool, tmp_path: Path) -> None:
    """The same call without `await`, also in a notebook, whose loop stands still meanwhile; errors
    are raised as they are."""

    def calls() -> None:
        prompts = Prompts(["a fox", "an owl"], parameters=SMALL)
        result = fluxasync.run_sync(prompts, out=tmp_path, base_url=sim.url, polling=SOON)
        assert len(result.saved) == 2
        made = fluxasync.generate("a fox", model=QUICKEST, base_url=sim.url, **SMALL)
        assert fluxasync.run_sync(made).data
        with pytest.raises(ConfigError, match="out") as caught:
            fluxasync.run_sync(["a fox"], out=5)
        assert caught.value.__context__ is None
        with pytest.raises(ConfigError, match="run_sync"):
            fluxasync.run_sync(asyncio.sleep(0), out="x")  # type: ignore[call-overload]

    async def in_loop() -> None:
        calls()

    with served() as sim:
        if in_a_loop:
            asyncio.run(in_loop())
        else:
            calls()


SCRIPT = """
import asyncio, sys, fluxasync
def work():
    fluxasync.run_sync(["a fox"], out="images", base_url=sys.argv[1], polling=0.01)
async def main():
    work()
asyncio.run(main()) if sys.argv[2] == "in a loop" else work()
"""


@pytest.mark.parametrize("kind", ["in a loop", "in a script"])
def test_ctrl_c_ends_run_sync_and_loses_nothing(kind: str, tmp_path: Path) -> None:
    """The first Ctrl-C ends a call that waits for a job of an hour; the next call collects the
    job that was paid."""
    command = [sys.executable, "-c", SCRIPT]
    with served(Scenario(latency=(3_600, 3_600))) as sim:
        child = subprocess.Popen(
            [*command, sim.url, kind], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(Path(fluxasync.__file__).parents[1])},
        )  # fmt: skip
        try:
            ends = time.monotonic() + patient()
            while not sim.charges and time.monotonic() < ends:
                time.sleep(0.01)
            recorded = read_only_state(tmp_path / "images", ends)
            assert recorded
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=patient())
        finally:
            child.kill()
            child.wait()
        assert "KeyboardInterrupt" in said
        assert child.returncode != 0
        end_jobs(sim)
        result = fluxasync.run_sync(
            ["a fox"], out=tmp_path / "images", base_url=sim.url, polling=SOON
        )
        assert (len(result.saved), len(sim.charges)) == (1, 1)


def read_only_state(folder: Path, ends: float) -> bool:
    """Wait until a run has recorded its job."""
    while time.monotonic() < ends:
        with suppress(FluxError), read_only(folder) as view:
            if view.counts.running:
                return True
        time.sleep(0.01)
    return False
