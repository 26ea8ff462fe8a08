"""A benchmark over real sockets: its measurements, its spending, and the files it leaves.

The simulator runs in this process, so tests can read its charge log: jobs of a tenth of a second,
small images. No test asserts a speed.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import socket
import sys
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, fields
from support.simulator_sessions import names, until
from support.tcp_proxy import Fault, posts, proxy

from fluxasync import ConfigError, FluxError, Polling, bench
from fluxasync._core.extras import install_command
from fluxasync.audit import in_doubt, status
from fluxasync.bench.prompt_pool import PromptPool
from fluxasync.bench.runner import Run
from fluxasync.bench.setup import cost_of
from fluxasync.simulator import Scenario, Simulator

SMALL = {"width": 256, "height": 256}
QUICK = {"latency": (0.1, 0.1), "image_bytes": 2048}


def config_for(sim: Simulator, out: Path, **options: Any) -> bench.BenchConfig:
    """A benchmark of four small images through two slots; keywords change either half of it."""
    load: dict[str, Any] = {"in_flight": (2,), "images": 4, "warm_up": 2}
    if "duration" in options:
        del load["images"]
    names = {attribute.name for attribute in fields(bench.Workload)}
    load |= {name: value for name, value in options.items() if name in names}
    usual = {"base_url": sim.url, "parameters": SMALL, "polling": Polling(interval=0.02)}
    rest = {name: value for name, value in options.items() if name not in names}
    return bench.BenchConfig(out=out, load=bench.Workload(**load), **usual | rest)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_every_image_is_recorded_and_only_the_measured_ones_count(tmp_path: Path) -> None:
    """Two stages with two warm-up and four measured images: twelve lines, eight of them measured,
    each paid once, all kept."""
    async with Simulator(Scenario(**QUICK)) as sim:
        report = await bench.run(config_for(sim, tmp_path / "out", in_flight=(1, 2)))
    records = list(report.records())
    assert Counter(record.warm_up for record in records) == {False: 8, True: 4}
    assert [stage.images for stage in report.stages] == [4, 4]
    assert [stage.attempts for stage in report.stages] == [4, 4]
    assert len({charge.job_id for charge in sim.charges}) == len(sim.charges) == 12
    assert {record.job_id for record in records} == {charge.job_id for charge in sim.charges}
    assert {record.index for record in records} == set(range(12))
    assert report.simulated
    assert float(report.spent) == pytest.approx(12 * 0.025)
    images = {name for name in names(tmp_path / "out" / "images") if name.endswith(".jpg")}
    assert len(images) == 12


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_breakdown_matches_the_servers_times(tmp_path: Path) -> None:
    """Every job ran for a tenth of a second, and the instants of an image are in order."""
    async with Simulator(Scenario(**QUICK, clock_skew=3600.0)) as sim:
        report = await bench.run(config_for(sim, tmp_path / "out"))
    (stage,) = report.stages
    assert stage.parts["generate"]["p50"] == pytest.approx(0.1, abs=1e-4)
    assert report.clock_skew == pytest.approx(3600, abs=0.5)
    assert stage.estimated == 0
    for record in report.records():
        instants = [record.intended_at, record.began_at, record.accepted_at, record.generated_at,
                    record.detected_at, record.downloaded_at, record.stored_at]  # fmt: skip
        known = [instant for instant in instants if instant is not None]
        assert known == sorted(known)
        assert len(known) == 7


@pytest.mark.slow
@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.asyncio
async def test_the_garbage_collector_is_left_as_it_was(tmp_path: Path, is_frozen: bool) -> None:
    """While it measures, what was there before is not collected; a program's own frozen objects
    stay frozen."""
    gc.unfreeze()
    if is_frozen:
        gc.freeze()
    before = gc.get_freeze_count()
    try:
        async with Simulator(Scenario(**QUICK)) as sim:
            measuring = asyncio.create_task(bench.run(config_for(sim, tmp_path / "out")))
            await until(lambda: gc.get_freeze_count() > before)
            assert not measuring.done()
            await measuring
        assert bool(gc.get_freeze_count()) is is_frozen
    finally:
        gc.freeze()  # as at the start of the tests


@pytest.mark.slow
@pytest.mark.asyncio
async def test_an_unreported_end_is_estimated(tmp_path: Path) -> None:
    """FLUX.2 at BFL reports only the start: the end is between two polls, marked as an estimate."""
    scenario = Scenario(latency=(0.3, 0.3), image_bytes=2048, reports_progress=False)
    async with Simulator(scenario) as sim:
        config = config_for(sim, tmp_path / "out", polling=Polling(interval=0.05))
        report = await bench.run(config)
    (stage,) = report.stages
    assert stage.estimated == stage.images == 4
    for record in report.records():
        assert record.accepted_at is not None
        assert record.generated_at is not None
        assert record.detected_at is not None
        assert record.accepted_at < record.generated_at < record.detected_at


@pytest.mark.slow
@pytest.mark.asyncio
async def test_an_open_loop_counts_from_the_intended_submission(tmp_path: Path) -> None:
    """At fifty per second the event loop blocks for a while: the schedule stays, and delayed images
    include their wait."""
    async with Simulator(Scenario(**QUICK)) as sim:
        config = config_for(sim, tmp_path / "out", in_flight=(), rate=(50.0,), images=12, warm_up=0)
        task = asyncio.create_task(bench.run(config))
        await until(lambda: bool(sim.charges))
        time.sleep(0.3)  # noqa: ASYNC251 — blocks, like a slow callback of a program
        report = await task
    records = sorted(report.records(), key=lambda one: one.index)
    first = records[0].intended_at
    assert [one.intended_at - first for one in records] == pytest.approx(
        [number / 50 for number in range(12)], abs=1e-5
    )
    late = max(records, key=lambda one: one.began_at - one.intended_at)
    assert late.began_at - late.intended_at > 0.02
    assert late.latency == pytest.approx((late.stored_at or 0) - late.intended_at, abs=1e-5)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_loaded_report_equals_the_written_one(tmp_path: Path) -> None:
    """`load` returns what `run` returned, field by field."""
    async with Simulator(Scenario(**QUICK)) as sim:
        config = config_for(sim, tmp_path / "out", in_flight=(), rate=(20.0,), objective=5.0)
        report = await bench.run(config)
    assert bench.load(tmp_path / "out") == report
    assert bench.load(tmp_path / "out" / "report.json").stages == report.stages
    (stage,) = report.stages
    assert stage.schedule_lag is not None
    assert stage.goodput == stage.images_per_minute
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut"),
        pytest.param("[]", id="another shape"),
        pytest.param('{"schema": 99}', id="another version"),
        pytest.param('{"schema": 1, "stages": [{}]}', id="damaged"),
    ],
)
def test_a_file_that_is_not_a_report_is_refused(tmp_path: Path, text: str) -> None:
    """A truncated or foreign file is a ConfigError, not a traceback."""
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ConfigError, match="report"):
        bench.load(tmp_path)
    with pytest.raises(ConfigError, match="no such report"):
        bench.load(tmp_path / "nowhere")


@pytest.mark.asyncio
async def test_a_target_that_is_not_a_simulator_needs_a_cap(tmp_path: Path) -> None:
    """Without max_cost nothing is sent to a server that may be real, and no folder is left."""
    requests = []

    async def foreign(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readline())
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(foreign, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = bench.BenchConfig(out=tmp_path / "out", base_url=f"http://127.0.0.1:{port}")
        with pytest.raises(ConfigError, match="max_cost"):
            await bench.run(config)
        with pytest.raises(ConfigError, match="simulate=True needs a simulator"):
            await bench.run(evolve(config, simulate=True))
    assert [line.split()[:2] for line in requests] == [[b"GET", b"/simulator/ledger"]] * 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            {"simulate": True, "base_url": "https://api.cometapi.com"},
            "simulate=True needs",
            id="a live API called simulated",
        ),
        pytest.param(
            {"models": "flux-dve", "max_cost": 1},
            r"price of flux-dve is not known, .* did you mean flux-dev\?",
            id="no known price",
        ),
    ],
)
@pytest.mark.asyncio
async def test_a_live_target_is_refused_where_no_cap_would_hold(
    options: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    """The error comes before the folder is made and before anything is sent."""
    ordered = bench.BenchConfig(
        out=tmp_path / "out", provider="cometapi", api_key="sk-1", **options
    )
    with pytest.raises(ConfigError, match=expected):
        await bench.run(ordered)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "is_warned"),
    [
        pytest.param({}, True, id="no key"),
        pytest.param({"simulate": True, "api_key": "sk-canary-0001"}, False, id="asked for"),
    ],
)
@pytest.mark.asyncio
async def test_from_python_too_a_simulator_is_started_without_a_key(
    options: dict[str, Any],
    is_warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run without `simulate=True` warns that it does not measure the API."""
    monkeypatch.delenv("COMETAPI_KEY", raising=False)
    monkeypatch.delenv("BFL_API_KEY", raising=False)
    notes: list[str] = []
    ordered = bench.BenchConfig(
        out=tmp_path / "out", models="flux-2-klein-4b",
        load=bench.Workload(in_flight=2, images=2, warm_up=0), **options,
    )  # fmt: skip
    report = await bench.run(ordered, on_note=notes.append)
    assert report.simulated
    assert report.stages[0].images == 2
    for messages in (notes, caplog.messages):
        assert any("NO KEY IS SET" in text for text in messages) == is_warned


@pytest.mark.asyncio
async def test_the_price_of_very_many_images_is_extrapolated(tmp_path: Path) -> None:
    """10,000 requests are priced; the other 10,000 cost the same."""
    prompts = await PromptPool.of(bench.BenchConfig(out=tmp_path, prompts=["a red fox"]))
    assert Decimal("500") == cost_of(prompts, "flux-dev", 20_000)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_cap_ends_the_run_and_the_report_notes_it(tmp_path: Path) -> None:
    """Five images at $0.025 fit into $0.13: no sixth is paid, and the measured ones are kept."""
    async with Simulator(Scenario(**QUICK)) as sim:
        config = config_for(sim, tmp_path / "out", images=20, max_cost="0.13")
        report = await bench.run(config)
    assert len(sim.charges) == 5
    assert "cap" in report.note
    assert report.stages[0].images == 3
    assert float(report.spent) == pytest.approx(0.125)


@pytest.mark.asyncio
async def test_a_bad_key_is_an_error_and_no_report(tmp_path: Path) -> None:
    """Nothing was measured, so no report is written."""
    async with Simulator(Scenario(**QUICK, key="right")) as sim:
        with pytest.raises(FluxError, match="key"):
            await bench.run(config_for(sim, tmp_path / "out", api_key="wrong-key"))
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_failures_are_counted_by_cause(tmp_path: Path) -> None:
    """Moderated and failed images have a cause and are in no latency."""
    scenario = Scenario(**QUICK, faults={"moderated-request": 0.4, "error": 0.3}, seed=2)
    async with Simulator(scenario) as sim:
        report = await bench.run(config_for(sim, tmp_path / "out", in_flight=(4,), images=24))
    (stage,) = report.stages
    assert sum(stage.outcomes.values()) == stage.attempts == 24
    assert stage.outcomes["moderated"] > 0
    assert stage.outcomes["failed"] > 0
    assert stage.images == stage.outcomes["saved"] == stage.latency.count
    assert stage.moderated_share == stage.outcomes["moderated"] / 24


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_model_that_always_fails_ends_early_and_is_named(tmp_path: Path) -> None:
    """F11 Twenty refusals of the second model end the run; the report holds the error text."""
    models = ("flux-dev", "flux-none")
    async with Simulator(Scenario(**QUICK)) as sim:
        config = config_for(sim, tmp_path / "out", models=models, images=50, parameters={})
        report = await bench.run(config)
    good, bad = report.stages
    assert (good.images, bad.images) == (50, 0)
    assert bad.attempts < 30
    assert "flux-none" in bad.why["rejected"]
    assert report.verdict.startswith("Nothing was saved at 2 in flight of flux-none")
    assert report.note.startswith("ended early: the first 20 requests were all refused")
    assert {record.why for record in report.records() if record.model == "flux-dev"} == {None}


@pytest.mark.slow
@pytest.mark.asyncio
async def test_an_outage_is_shown_and_reported(tmp_path: Path) -> None:
    """The progress line shows an outage while it lasts; the verdict begins with it."""
    async with Simulator(Scenario(**QUICK)) as sim:
        async with proxy(sim.url) as line:
            config = config_for(sim, tmp_path / "out", images=10_000)
            run = Run(evolve(config, base_url=line.url))
            performed = asyncio.create_task(run.perform())
            await until(lambda: len(sim.charges) > 10)
        await until(lambda: "the service does not answer" in run.line() or "wait" in run.line())
        seen = time.monotonic()
        await until(lambda: time.monotonic() - seen > 2)  # long enough for the verdict
        run.stop(grace=0.5)
        report = await performed
    (stage,) = report.stages
    assert stage.images
    assert report.verdict.startswith("No call was answered for ")


@pytest.mark.asyncio
async def test_an_unreachable_service_is_named(tmp_path: Path) -> None:
    """A run that is stopped before its first answer ends with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    run = Run(
        bench.BenchConfig(
            out=tmp_path / "out", base_url=f"http://127.0.0.1:{port}", api_key="none", max_cost="1"
        )
    )
    performed = asyncio.create_task(run.perform())
    await until(lambda: "submissions wait: cannot connect" in run.line())
    run.stop()
    with pytest.raises(FluxError, match="nothing measured: cannot connect"):
        await performed


@pytest.mark.asyncio
async def test_a_run_that_sent_nothing_leaves_its_folder_to_the_next(tmp_path: Path) -> None:
    """The cap is below one image; with a higher cap the same folder works."""
    async with Simulator(Scenario(**QUICK)) as sim:
        config = config_for(sim, tmp_path / "out", max_cost="0.01")
        with pytest.raises(FluxError, match=r"cap of \$0.01"):
            await bench.run(config)
        assert not (tmp_path / "out").exists()
        report = await bench.run(evolve(config, max_cost="1"))
    assert report.stages


@pytest.mark.asyncio
async def test_a_folder_with_an_image_in_doubt_is_never_removed(tmp_path: Path) -> None:
    """The only image may have been charged, in the warm-up; a second one exceeds the cap."""
    async with Simulator(Scenario(**QUICK, faults={"lost-reply": 1.0})) as sim:
        config = config_for(sim, tmp_path / "out", max_cost="0.03")
        with pytest.raises(FluxError, match=r"cap of \$0.03"):
            await bench.run(config)
    (doubt,) = await in_doubt(tmp_path / "out" / "images")
    assert doubt.model == "flux-dev"


@pytest.mark.asyncio
async def test_a_submission_answered_late_is_recorded(tmp_path: Path) -> None:
    """P15 A submission answered after the grace period is recorded before the journal closes."""
    stopped = asyncio.Event()
    late = Fault(kind="late", held=stopped, affects=posts())
    async with Simulator(Scenario(**QUICK | {"latency": 600})) as sim, proxy(sim.url, late) as line:
        run = Run(evolve(config_for(sim, tmp_path / "out"), base_url=line.url, max_cost=1))
        performed = asyncio.create_task(run.perform())
        await until(lambda: len(sim.charges) == 2)
        run.stop(grace=0)
        stopped.set()
        with pytest.raises(FluxError, match="stopped"):
            await performed
    left = await status(tmp_path / "out" / "images")
    assert (left.counts.running, left.counts.in_doubt) == (2, 0)


@pytest.mark.asyncio
async def test_a_lost_answer_is_in_doubt_and_is_not_sent_again(tmp_path: Path) -> None:
    """There are exactly as many POSTs as images."""
    scenario = Scenario(**QUICK, faults={"lost-reply": 0.2}, seed=1)
    async with Simulator(scenario) as sim:
        report = await bench.run(config_for(sim, tmp_path / "out", in_flight=(4,), images=20))
        assert sim.world.posts == 22
    total = Counter(record.outcome for record in report.records())
    assert total["in_doubt"] > 0
    assert len(await in_doubt(tmp_path / "out" / "images")) == total["in_doubt"]


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_stop_keeps_paid_images_and_writes_the_report(tmp_path: Path) -> None:
    """After a stop nothing new is paid; every paid image is kept and recorded."""
    async with Simulator(Scenario(**QUICK)) as sim:
        run = Run(config_for(sim, tmp_path / "out", images=500))
        running = asyncio.create_task(run.perform())
        await until(lambda: len(sim.charges) >= 8)
        run.stop()
        report = await running
    paid = {charge.job_id for charge in sim.charges}
    assert {record.job_id for record in report.records() if record.is_saved} == paid
    assert "stopped" in report.note


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            {"images": 6}, r"2 in flight: \d of 8 begun, \d saved", id="a number of images"
        ),
        pytest.param({"duration": 0.5}, r"2 in flight: \d+ begun, \d+ saved", id="a duration"),
        pytest.param(
            {"in_flight": (), "rate": 20, "duration": 0.5},
            r"20/s: \d+ of 12 begun, \d+ saved",
            id="a rate",
        ),
        pytest.param(
            {"in_flight": (), "rate": 20, "duration": 0.5, "arrivals": "poisson"},
            r"20/s: \d+ begun, \d+ saved",
            id="random arrivals",
        ),
    ],
)
@pytest.mark.asyncio
async def test_the_progress_line_counts_the_images_of_a_stage(
    options: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    """The total is shown where it is known in advance; so is the elapsed time."""
    async with Simulator(Scenario(**QUICK)) as sim:
        lines = await _lines(config_for(sim, tmp_path / "out", **options))
    form = re.compile(rf"stage 1, {expected}, \$0\.00 \(simulated\), \d+ s")
    assert all(form.fullmatch(line) for line in lines), lines
    assert any(" 0 saved" not in line for line in lines)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_progress_line_shows_the_cost_of_all_stages(tmp_path: Path) -> None:
    """$0.025 per image; a simulator that does not identify itself is treated as a real service."""
    hidden = Fault(kind="reset unread", affects=lambda _, head: b"/simulator/ledger" in head)
    async with Simulator(Scenario(**QUICK)) as sim, proxy(sim.url, hidden) as line:
        config = config_for(sim, tmp_path / "out", base_url=line.url, in_flight=(1, 2), max_cost=1)
        lines = await _lines(config)
    assert any("stage 1" in line and ", $0.025, " in line for line in lines)
    spent = [float(line.split("$")[1].split(",")[0]) for line in lines]
    assert spent == sorted(spent)
    assert max(spent) > 0.15, "the cost of the first stage is included"


async def _lines(config: bench.BenchConfig) -> list[str]:
    """Run the benchmark, and return the distinct progress lines of its stages."""
    run = Run(config)
    running = asyncio.create_task(run.perform())
    lines: dict[str, None] = {}

    def is_over() -> bool:
        lines[run.line()] = None
        return running.done()

    await until(is_over)
    await running
    return [line for line in lines if line.startswith("stage ")]


@pytest.mark.asyncio
async def test_a_stop_before_the_first_image_spends_nothing(tmp_path: Path) -> None:
    """A Ctrl-C while prompts are being read takes effect."""
    async with Simulator(Scenario(**QUICK)) as sim:
        run = Run(config_for(sim, tmp_path / "out"))
        run.stop()
        with pytest.raises(FluxError, match="stopped"):
            await run.perform()
    assert not sim.charges


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_same_seed_gives_the_same_requests(tmp_path: Path) -> None:
    """Prompts and image seeds are equal for the same seed, and differ for another."""
    async with Simulator(Scenario(**QUICK)) as sim:
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            await bench.run(config_for(sim, tmp_path / name, in_flight=(1,), seed=seed))
    requests = [(charge.prompt, charge.seed) for charge in sim.charges]
    assert requests[:6] == requests[6:12] != requests[12:]


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_short_prompt_list_repeats(tmp_path: Path) -> None:
    """Two prompts for six images: each three times, each image is a separate job."""
    async with Simulator(Scenario(**QUICK)) as sim:
        await bench.run(config_for(sim, tmp_path / "out", prompts=["a red fox", "a lamp"]))
    assert Counter(charge.prompt for charge in sim.charges) == {"a red fox": 3, "a lamp": 3}


@pytest.mark.slow
@pytest.mark.asyncio
async def test_several_models_are_measured_one_after_another(tmp_path: Path) -> None:
    """Each model has its stage, and its own sentence about saturation."""
    async with Simulator(Scenario(**QUICK)) as sim:
        models = ("flux-dev", "flux-pro-1.1")
        report = await bench.run(config_for(sim, tmp_path / "out", models=models))
    assert [stage.model for stage in report.stages] == list(models)
    assert report.knee_why.count("needs at least two loads") == 2


@pytest.mark.slow
@pytest.mark.asyncio
async def test_unknown_models_are_logged_once_before_anything_is_paid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A name unlike any of the catalogue is logged while nothing is spent."""
    paid: list[int] = []

    class Watching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            paid.append(len(sim.charges))

    models, log, handler = (
        ("flux-dev", "own"),
        logging.getLogger("fluxasync"),
        Watching(),
    )
    async with Simulator(Scenario(**QUICK)) as sim:
        log.addHandler(handler)
        try:
            await bench.run(
                config_for(sim, tmp_path / "out", models=models, parameters={}, images=1)
            )
        finally:
            log.removeHandler(handler)
    logged = [text for text in caplog.messages if "unknown model" in text]
    assert logged == [
        "unknown model 'own': passed on unchecked, no price known; "
        "fluxasync models lists the catalogue",
    ]
    assert paid[:1] == [0]
    assert len(sim.charges) > 0


@pytest.mark.parametrize(
    ("package", "expected", "files"),
    [
        pytest.param("matplotlib", "the report will have no charts", 2, id="matplotlib"),
        pytest.param("jinja2", "report.html will not be written", 1, id="jinja2"),
    ],
)
@pytest.mark.asyncio
async def test_a_missing_extra_is_noted_before_anything_is_paid_and_loses_no_numbers(
    package: str, expected: str, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note names the install command while there is no charge yet; report.json is written."""
    pytest.importorskip("jinja2", reason="the extra bench is not installed")
    monkeypatch.setitem(sys.modules, package, None)
    noted: list[tuple[str, int]] = []
    async with Simulator(Scenario(**QUICK)) as sim:
        await bench.run(
            config_for(sim, tmp_path / "out", images=1),
            on_note=lambda note: noted.append((note, len(sim.charges))),
        )
    (note,) = [note for note, charges in noted if note.startswith(expected) and charges == 0]
    assert note.endswith(install_command("bench"))
    assert bench.load(tmp_path / "out").stages
    assert len(list((tmp_path / "out").glob("report.*"))) == files


@pytest.mark.asyncio
async def test_a_misspelt_model_is_refused_before_anything_is_paid(tmp_path: Path) -> None:
    """A misspelt second name ends the benchmark before the first model is measured."""
    models = ("flux-dev", "flux-dve")
    async with Simulator(Scenario(**QUICK)) as sim:
        with pytest.raises(ConfigError, match="did you mean flux-dev"):
            await bench.run(
                config_for(sim, tmp_path / "out", models=models, parameters={}, images=1)
            )
        assert not sim.charges


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_sweep_ends_when_throughput_stops_growing(tmp_path: Path) -> None:
    """The account allows two active jobs: the sweep ends soon after two."""
    scenario = Scenario(latency=(0.1, 0.1), image_bytes=2048, active_limit=2, retry_after=0.05)
    async with Simulator(scenario) as sim:
        config = config_for(sim, tmp_path / "out", in_flight=(), sweep=True, images=8, slots=4)
        report = await bench.run(config)
    tried = [stage.in_flight for stage in report.stages]
    assert tried[:2] == [1, 2]
    assert len(tried) < 7
    assert report.knee == report.stages[-2].label
    assert report.stages[-1].push_backs > 0


@pytest.mark.asyncio
async def test_a_folder_in_use_stays_unchanged(tmp_path: Path) -> None:
    """A report is never overwritten; the check comes before anything is paid."""
    (tmp_path / "report.json").write_text("{}")
    async with Simulator(Scenario(**QUICK)) as sim:
        with pytest.raises(ConfigError, match="holds a report already"):
            await bench.run(config_for(sim, tmp_path))
        with pytest.raises(ConfigError, match="not empty"):
            await bench.run(config_for(sim, tmp_path.parent))
    assert not sim.charges
    assert json.loads((tmp_path / "report.json").read_text()) == {}
