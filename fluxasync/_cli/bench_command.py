"""The commands `fluxasync bench` and `fluxasync bench compare`.

They have a family of options of their own. Heavy modules are imported when a command runs.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from .event_loop import run_async
from .options import DEFAULT_MODEL, LocalPath, Options
from .terminal import Terminal

bench = App(
    name="bench",
    help="Measure how fast a model goes on your account, at what latency and price.",
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=False),
)

_AtLeastOne = Annotated[int, Parameter(validator=Number(gte=1))]


@bench.default
def measure(
    *,
    out: Annotated[LocalPath | None, Parameter(name=["--out", "-o"])] = None,
    model: tuple[str, ...] = (DEFAULT_MODEL,),
    prompts: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    prompt_column: str | None = None,
    in_flight: str | None = None,
    rate: str | None = None,
    arrivals: Literal["constant", "poisson"] = "constant",
    ramp: str | None = None,
    sweep: bool = False,
    slots: _AtLeastOne | None = None,
    images: _AtLeastOne | None = None,
    duration: str | None = None,
    warm_up: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    objective: str | None = None,
    seed: int = 0,
    title: str = "",
    max_cost: str | None = None,
    polling_lag: float | None = None,
    param: tuple[str, ...] = (),
    provider: str | None = None,
    base_url: str | None = None,
    key_file: LocalPath | None = None,
    simulate: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Measure: put load on, and leave a folder with report.html.

    Without a key a practice server is measured, for nothing. A live target needs --max-cost.

    Parameters
    ----------
    out
        Folder for the report, new or empty; by default one named by the date.
    model
        flux-dev unless you say otherwise. Repeatable: each is measured on its own.
    prompts
        A prompt file, or - for stdin; by default a varied list of ours.
    prompt_column
        Column of the prompts, where it is not named prompt.
    in_flight
        Closed loops: so many jobs at once, one stage each; 1,4,12,24 unless you say otherwise.
    rate
        Open loops: images wanted a second whatever comes back, such as 0.5/s or 6/min,12/min.
    arrivals
        Of an open loop: constant, or poisson as independent users come.
    ramp
        An open loop from one rate to another, such as 0.1/s..2/s; say --duration too.
    sweep
        More and more jobs at once, until more buys next to nothing.
    slots
        Most jobs at once in an open loop; a sweep ends at four times that. 24 by default.
    images
        Images measured in each stage; by default four for each job at once, 12 at least.
    duration
        Instead of --images the time of each stage, such as 90s or 5min.
    warm_up
        Images before each stage that are not measured; by default one for each job at once.
    objective
        The latency that counts as good, such as 10s; the report then tells goodput.
    seed
        Of our prompts, their images and arrivals: the same again, unless you give another.
    title
        What the report is called.
    max_cost
        Most to spend, in US dollars, over all stages.
    polling_lag
        How late a finished job may be noticed, as a share of its usual duration.
    param
        A parameter of the model, as K=V. Repeatable.
    provider
        cometapi or bfl; by default the one whose key is set.
    base_url
        Another origin of the provider, or a practice server's.
    key_file
        File with the key; else COMETAPI_KEY or BFL_API_KEY is read.
    simulate
        Measure a practice server of our own: costs nothing, needs no key.
    json
        Print the report as one JSON object instead of the page's path.
    quiet
        No progress and no summary, only what went wrong.
    """

    def story(measuring: Any, terminal: Terminal) -> Coroutine[Any, Any, int]:
        options = Options(
            model=model[0], param=param, provider=provider, base_url=base_url, key_file=key_file,
            simulate=simulate, json=json, quiet=quiet,
        )  # fmt: skip
        wanted = measuring.Wanted(
            out=out, models=model, prompts=prompts, prompt_column=prompt_column,
            in_flight=in_flight, rate=rate, arrivals=arrivals, ramp=ramp, sweep=sweep, slots=slots,
            images=images, duration=duration, warm_up=warm_up, objective=objective, seed=seed,
            title=title,
            max_cost=max_cost, polling_lag=polling_lag, options=options,
        )  # fmt: skip
        told: Coroutine[Any, Any, int] = measuring.measure(terminal, wanted)
        return told

    return _run_comparison(story, quiet=quiet)


@bench.command
def compare(before: LocalPath, after: LocalPath, /, *, json: bool = False) -> int:
    """Hold two reports side by side, and say which differences are only chance.

    Parameters
    ----------
    before
        The folder of one report.
    after
        The folder of the other.
    json
        Print one JSON object.
    """
    return _run_comparison(
        lambda measuring, terminal: measuring.compare(terminal, before, after, json=json)
    )


def _run_comparison(story: Any, *, quiet: bool = False) -> int:
    from . import bench_measurement

    terminal = Terminal(quiet=quiet)
    return run_async(lambda: story(bench_measurement, terminal), terminal)
