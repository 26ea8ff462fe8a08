"""Wrong arguments are refused before anything is sent, on every public entry point."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.patience import patient
from support.simulator_sessions import batch_of, fast_session

import fluxasync
from fluxasync import (
    Batch,
    ConfigError,
    FileSink,
    FluxSession,
    FolderSink,
    ImageRequest,
    InvalidRequest,
    Job,
    MemorySink,
    Prompts,
    SinkError,
    bench,
)
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0, 0.02))
FOX = ImageRequest(prompt="a fox")
JOB = Job(job_id="00000000-0000-0000-0000-000000000000")
WAIT = patient()  # seconds: what is refused is refused at once, and what hangs fails here


async def observe(event: object) -> None:
    """An observer that nothing would await."""


class Half:
    """A ledger with one of its four methods."""

    async def known(self, request: object) -> None:
        """Know nothing."""


def case(name: str, call: Any, part: str) -> Any:
    return pytest.param(call, part, id=name)


Call = Callable[[FluxSession], Awaitable[object]]

SESSION_CALLS = [
    case("generate to", lambda flux: flux.generate("a fox", to=5), "to: "),
    case("generate to bytes", lambda flux: flux.generate("a fox", to=b"fox.jpg"), "to: "),
    case("generate to a class", lambda flux: flux.generate("a fox", to=MemorySink), "the class"),
    case("generate to a URL", lambda flux: flux.generate("a fox", to="s3://b/a.jpg"), "s3://b/a"),
    case("generate ledger", lambda flux: flux.generate("a fox", ledger=5), "ledger: "),
    case("generate half a ledger", lambda flux: flux.generate("a fox", ledger=Half()), "intent()"),
    case("generate on_job", lambda flux: flux.generate("a fox", on_job=5), "on_job: "),
    case("generate on_job async", lambda flux: flux.generate("a fox", on_job=observe), "async"),
    case("generate priority", lambda flux: flux.generate("a fox", priority="high"), "priority: "),
    case("generate prompt", lambda flux: flux.generate(5), "prompt"),
    case("generate out", lambda flux: flux.generate("a fox", out="fox.jpg"), "`to`"),
    case("submit text", lambda flux: flux.submit("a fox"), "request: "),
    case("submit ledger", lambda flux: flux.submit(FOX, ledger=object()), "ledger: "),
    case("poll id", lambda flux: flux.poll("id"), "job: "),
    case("watch id", lambda flux: flux.watch("id"), "job: "),
    case("collect number", lambda flux: flux.collect(5), "job: "),
    case("collect empty id", lambda flux: flux.collect(""), "job: "),
    case("collect to", lambda flux: flux.collect(JOB, to=5), "to: "),
    case("collect ledger", lambda flux: flux.collect(JOB, ledger=5), "ledger: "),
    case("download job", lambda flux: flux.download(JOB), "ready: "),
]


@pytest.mark.parametrize(("call", "part"), SESSION_CALLS)
@pytest.mark.asyncio
async def test_a_session_checks_every_argument_before_it_sends(call: Call, part: str):
    """A wrong type is a ConfigError that names the argument; no call reaches the server."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError) as caught:
            await asyncio.wait_for(call(flux), WAIT)
        assert part in str(caught.value)
        totals = sim.world.summary(0)
        assert (totals["posts"], totals["polls"]) == (0, 0)


CLOSED_CALLS = [
    case("generate", lambda flux: flux.generate("a fox"), ""),
    case("generate into a file", lambda flux: flux.generate("a fox", to="fox.jpg"), ""),
    case("submit", lambda flux: flux.submit(FOX), ""),
    case("poll", lambda flux: flux.poll(JOB), ""),
    case("watch", lambda flux: flux.watch(JOB), ""),
    case("collect", lambda flux: flux.collect(JOB, to="fox.jpg"), ""),
    case("credits", lambda flux: flux.credits(), ""),
    case("account", lambda flux: flux.account.balance(), ""),
    case("a batch", lambda flux: Batch(flux, ["a fox"]).__aenter__(), ""),
    case("a batch's folder", lambda flux: Batch(flux, ["a fox"], out="new").__aenter__(), ""),
]


@pytest.mark.parametrize(("call", "part"), CLOSED_CALLS)
@pytest.mark.parametrize("was_open", [False, True], ids=["never open", "closed"])
@pytest.mark.asyncio
async def test_a_session_that_is_not_open_says_so(
    call: Call, part: str, was_open: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each verb and each batch refuse a session before its `async with`, and leave no folder."""
    monkeypatch.chdir(tmp_path)
    async with Simulator(SCENARIO) as sim:
        flux = fast_session(sim.url)
        if was_open:
            async with flux:
                pass
        with pytest.raises(ConfigError, match="session is not open: use `async with"):
            await asyncio.wait_for(call(flux), WAIT)
        assert not os.listdir(tmp_path)


SESSION_OPTIONS = [
    case("provider", {"provider": 5}, "provider"),
    case("api_key", {"api_key": 5}, "api_key"),
    case("base_url", {"base_url": 5}, "base_url"),
    case("an empty base_url", {"base_url": ""}, "base_url"),
    case("limits", {"limits": "many"}, "in_flight"),
    case("limits of another kind", {"limits": 2.5}, "in_flight"),
    case("retry", {"retry": 3}, "retry: "),
    case("polling", {"polling": "fast"}, "lag"),
    case("timeouts", {"timeouts": 5}, "timeouts: "),
    case("budget", {"budget": object()}, "amount"),
    case("transport", {"transport": 5}, "transport: "),
    case("on_event", {"on_event": 5}, "on_event: "),
    case("async on_event", {"on_event": observe}, "async"),
]


@pytest.mark.parametrize(("options", "part"), SESSION_OPTIONS)
@pytest.mark.asyncio
async def test_a_session_checks_its_options(options: dict[str, Any], part: str):
    """A wrong option is a ConfigError when the session is made or opened."""
    with pytest.raises(ConfigError) as caught:
        async with FluxSession(**{"base_url": "http://127.0.0.1:9", **options}):
            pass
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("retry", 5), ("timeouts", 5), ("polling", "x"), ("limits", "many")],
)
@pytest.mark.asyncio
async def test_policies_are_checked_when_they_are_assigned(name: str, value: object):
    """A wrong policy fails at its assignment, not in the middle of a paid job."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError):
            setattr(flux, name, value)
        await flux.generate("a fox")  # the policies before it are still in force


@pytest.mark.asyncio
async def test_the_shorthand_of_polling_may_be_assigned():
    """`flux.polling = 0.02` is the lag, as in the constructor."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        flux.polling = 0.02
        assert flux.polling.lag == 0.02


@pytest.mark.asyncio
async def test_a_session_is_opened_once_at_a_time():
    """A second `async with` of an open session is refused, because one of them would close both."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError, match="open already"):
            await flux.__aenter__()
        await flux.generate("a fox")


BATCH_OPTIONS = [
    case("out", {"out": 5}, "out: "),
    case("out bytes", {"out": b"new"}, "out: "),
    case("out URL as a path", {"out": Path("s3://bucket/run")}, "s3://bucket/run is a URL"),
    case("an empty out", {"out": ""}, "out: "),
    case("a folder as state", {"out": "new", "state": "new"}, "state: "),
    case("a URL as state", {"out": "memory://x", "state": "s3://b/x"}, "s3://b/x is a URL"),
    case("sink class", {"out": FolderSink}, "the class FolderSink"),
    case("ledger", {"ledger": 5}, "ledger: "),
    case("half a ledger", {"ledger": Half()}, "intent()"),
    case("name", {"name": 5}, "name: "),
    case("model", {"model": 5}, "model"),
    case("parameters", {"parameters": ["width"]}, "parameters: "),
    case("parameter names", {"parameters": {5: 5}}, "parameters: "),
    case("n", {"n": "3"}, "n: "),
    case("n too", {"n": 1.5}, "n: "),
    case("seeds", {"seeds": 5}, "seeds: "),
    case("models", {"models": "flux-dev"}, "models: "),
    case("grid", {"grid": ["width"]}, "grid: "),
    case("wildcards", {"wildcards": 5}, "wildcards: "),
    case("sample", {"sample": "3"}, "sample: "),
    case("columns", {"columns": ["width"]}, "columns: "),
    case("a column", {"columns": {"prompt": 5}}, "columns: "),
    case("limit", {"limit": "3"}, "limit: "),
    case("grace", {"grace": "10"}, "grace: "),
    case("grace below zero", {"grace": -1}, "grace: "),
    case("finished", {"finished": "skp"}, "finished: "),
    case("retry", {"retry": 5, "out": "new"}, "retry"),
    case("on_plan", {"on_plan": 5}, "on_plan: "),
    case("on_event", {"on_event": 5}, "on_event: "),
    case("async on_event", {"on_event": observe}, "async"),
]


@pytest.mark.parametrize(("options", "part"), BATCH_OPTIONS)
@pytest.mark.asyncio
async def test_a_batch_checks_every_option(
    options: dict[str, Any], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A wrong option of a batch is a ConfigError that names it, before anything is sent."""
    monkeypatch.chdir(tmp_path)
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError) as caught:
            async with batch_of(flux, ["a fox"], **options) as batch:
                await asyncio.wait_for(anext(batch), WAIT)
        assert part in str(caught.value)
        assert sim.world.summary(0)["posts"] == 0
        assert not os.listdir(tmp_path)


@pytest.mark.asyncio
async def test_a_batch_is_refused_without_a_session():
    """The error names the type of a value that is not a FluxSession."""
    with pytest.raises(ConfigError, match="session: an open FluxSession, not 'flux'"):
        Batch("flux", ["a fox"])  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_a_batch_that_is_not_open_says_so():
    """Reading outcomes without `async with` is an error and does not wait forever."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError, match="the batch is not open: use `async with"):
            await asyncio.wait_for(anext(Batch(flux, ["a fox"])), WAIT)


@pytest.mark.parametrize("was_open", [False, True], ids=["bad source", "closed session"])
@pytest.mark.asyncio
async def test_a_batch_that_is_refused_on_entry_ends_its_readers(was_open: bool):
    """A task that reads events of a batch ends when the batch does not open, for any reason."""

    async def everything(batch: Batch) -> list[object]:
        return [event async for event in batch.events()]

    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        session = fast_session(sim.url) if was_open else flux
        batch = Batch(session, ["a fox" if was_open else {"prompt": "a fox", "width": 1}])
        reading = asyncio.create_task(everything(batch))
        await asyncio.sleep(0)
        with pytest.raises(ConfigError):
            await batch.__aenter__()
        assert await asyncio.wait_for(reading, WAIT) == []


@pytest.mark.asyncio
async def test_a_batch_runs_once():
    """Entering a batch a second time is refused; its outcomes stay at their end."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        async with Batch(flux, ["a fox"]) as batch:
            assert len([outcome async for outcome in batch]) == 1
        with pytest.raises(ConfigError, match="runs once"):
            await batch.__aenter__()
        assert [outcome async for outcome in batch] == []


@pytest.mark.asyncio
async def test_stopping_a_batch_that_is_not_open_does_no_harm():
    """`stop` before the `async with` leaves nothing to fail later, and nothing is submitted."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, ["a fox"])
        batch.stop(grace=0)
        await asyncio.sleep(0.01)
        async with batch:
            assert [outcome async for outcome in batch] == []
        assert sim.world.summary(0)["posts"] == 0


@pytest.mark.parametrize("sink", [FolderSink("new"), FileSink("fox.jpg")], ids=repr)
@pytest.mark.asyncio
async def test_a_sink_that_is_not_open_costs_nothing(
    sink: FolderSink | FileSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A sink of ours without its `async with` is refused before the image is paid."""
    monkeypatch.chdir(tmp_path)
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises((ConfigError, SinkError), match="async with"):
            await flux.generate("a fox", to=sink)
        with pytest.raises((ConfigError, SinkError), match="async with"):
            async with Batch(flux, ["a fox"], out=sink) as batch:
                await anext(batch)
        assert sim.world.summary(0)["posts"] == 0


HELPER_CALLS = [
    case("generate to", lambda url: fluxasync.generate("a fox", to="a.jpg", base_url=url), "`out`"),
    case("generate out", lambda url: fluxasync.generate("a fox", out=5, base_url=url), "out: "),
    case("generate URL", lambda url: fluxasync.generate("a", out="s3://b/a", base_url=url), "s3:"),
    case("generate prompt", lambda url: fluxasync.generate(5, base_url=url), "prompt"),
    case("run out", lambda url: fluxasync.run(["a fox"], out=5, base_url=url), "out: "),
    case(
        "run on_event", lambda url: fluxasync.run(["a"], out="o", base_url=url, on_event=5), "on_"
    ),
    case("run source", lambda url: fluxasync.run(5, out="o", base_url=url), "source"),
    case("run a URL", lambda url: fluxasync.run("s3://b/p.csv", out="o", base_url=url), "is a URL"),
    case("bench config", lambda url: bench.run(5), "config: "),
    case("bench out", lambda url: bench.run(bench.BenchConfig(out=5)), "out: "),
    case("bench URL", lambda url: bench.run(bench.BenchConfig(out="s3://b/o")), "s3://b/o"),
    case("bench model", lambda url: bench.run(bench.BenchConfig(out="o", models=5)), "models: "),
    case(
        "bench parameters", lambda url: bench.run(bench.BenchConfig(out="o", parameters=5)), "param"
    ),
    case("bench seed", lambda url: bench.run(bench.BenchConfig(out="o", seed="x")), "seed: "),
    case(
        "bench on_note", lambda url: bench.run(bench.BenchConfig(out="o"), on_note=5), "on_note: "
    ),
    case(
        "bench on_stage",
        lambda url: bench.run(bench.BenchConfig(out="o"), on_stage=5),
        "on_stage: ",
    ),
]


@pytest.mark.parametrize(("call", "part"), HELPER_CALLS)
@pytest.mark.asyncio
async def test_the_helpers_check_every_argument(
    call: Callable[[str], Awaitable[object]],
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """`generate`, `run` and `bench.run` name the wrong argument, and make no file and no call."""
    monkeypatch.chdir(tmp_path)
    async with Simulator(SCENARIO) as sim:
        with pytest.raises(ConfigError) as caught:
            await asyncio.wait_for(call(sim.url), WAIT)
        assert part in str(caught.value)
        assert sim.world.summary(0)["posts"] == 0
        assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"scenario": 5}, "scenario"),
        ({"port": "x"}, "port"),
        ({"port": 70000}, "port"),
        ({"host": 5}, "host"),
    ],
)
def test_the_simulator_checks_its_arguments(options: dict[str, Any], part: str):
    """A wrong argument of the simulator is named where it is given."""
    with pytest.raises((TypeError, ValueError), match=part):
        Simulator(**options)


# --- models that the catalogue does not know ------------------------------------------------------


async def rows_of(*names: str) -> Any:
    """A stream of prompts, one for each model."""
    for name in names:
        yield {"prompt": "a fox", "model": name}


MISSPELT = [
    case("generate", lambda flux: flux.generate("a fox", model="flux-devv"), ""),
    case("submit", lambda flux: flux.submit(ImageRequest(prompt="a", model="flux-devv")), ""),
    case("model", lambda flux: Batch(flux, Prompts(["a fox"], model="flux-devv")).__aenter__(), ""),
    case("models", lambda flux: Batch(flux, Prompts(["a"], models=["flux-devv"])).__aenter__(), ""),
    case("row", lambda flux: Batch(flux, [{"prompt": "a", "model": "flux-devv"}]).check(), ""),
    case(
        "stream", lambda flux: Batch(flux, Prompts(iter(["a"]), model="flux-devv")).__aenter__(), ""
    ),
]


@pytest.mark.parametrize(("call", "part"), MISSPELT)
@pytest.mark.asyncio
async def test_a_misspelt_model_is_refused_before_anything_is_sent(call: Call, part: str):
    """A name that resembles one of the catalogue names it, and the way to insist."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError, match=r"did you mean flux-dev\?.*allow_unknown_models"):
            await call(flux)
        assert sim.world.summary(0)["posts"] == 0


@pytest.mark.asyncio
async def test_a_misspelt_model_among_twenty_others_is_seen():
    """Every unknown name of a list is checked, also after twenty names that are known."""
    takes_a_prompt = [
        model.name
        for model in fluxasync.models()
        if "prompt" in model.parameters and {*model.required, *model.needs[:1]} <= {"prompt"}
    ]
    names = [*(f"own-model-{number}" for number in range(10)), *takes_a_prompt, "flux-devv"]
    rows = [{"prompt": "a fox", "model": name} for name in names]
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError, match="flux-devv"):
            await Batch(flux, rows).check()


@pytest.mark.asyncio
async def test_a_misspelt_row_of_a_stream_is_one_failed_image():
    """A stream is checked row by row: the misspelt row fails unsent, the others are made."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        async with Batch(flux, rows_of("flux-dev", "flux-devv", "flux-dev")) as batch:
            async for _ in batch:
                pass
        assert (batch.summary.saved, batch.summary.failed["invalid"]) == (2, 1)
        assert sim.world.summary(0)["posts"] == 2


@pytest.mark.parametrize(
    ("model", "options"),
    [("flux-devv", {"allow_unknown_models": True}), ("brand-new", {})],
    ids=["insisted", "resembles none"],
)
@pytest.mark.asyncio
async def test_an_unknown_model_can_be_sent(model: str, options: dict[str, Any]):
    """The server decides about a name that resembles none, or that a caller insists on."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, **options) as flux:
        with pytest.raises(InvalidRequest):
            await flux.generate("a fox", model=model)
        assert sim.world.summary(0)["posts"] == 1


@pytest.mark.asyncio
async def test_a_model_that_no_row_uses_is_refused():
    """A `model` is an error where each row names another one, at another price."""
    rows = [{"prompt": "a fox", "model": "flux-dev"}]
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError, match="model=flux-2-max: no row uses it"):
            await Batch(flux, Prompts(rows, model="flux-2-max")).check()
        plan = await Batch(flux, Prompts([*rows, "a cat"], model="flux-2-max")).check()
        assert plan.models == ("flux-dev", "flux-2-max")
