"""The commands `bench` and `bench compare`, and their options."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from attrs import frozen
from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

from .._batch.progress.terminal import Terminal
from .event_loop import run_async
from .help_pages import examples
from .key_files import LocalPath, OutPath
from .options import DEFAULT_MODEL, AtLeastOne

bench = App(
    name="bench",
    help="Measure how fast a model goes on your account, at what latency and price.",
    help_format="plaintext",
    help_epilogue=examples("bench"),
    default_parameter=Parameter(negative=(), show_default=False),
)

_OF_LOAD = Parameter(group=Group("Load", sort_key=1))
_OF_PROMPTS = Parameter(group=Group("Prompt list", sort_key=2))
_OF_IMAGES = Parameter(group=Group("Images", sort_key=3))
_OF_OUTPUT = Parameter(group=Group("Output", sort_key=4))
_OF_MONEY = Parameter(group=Group("Money", sort_key=5))
_OF_PACE = Parameter(group=Group("Pace", sort_key=6))
_OF_PROVIDER = Parameter(group=Group("Provider", sort_key=7))


@Parameter(name="*")
@frozen(kw_only=True)
class BenchOptions:
    """Options of `bench`.

    Parameters
    ----------
    out
        Folder for the report, new or empty (default: named by the date).
    model
        Model (default: flux-dev). May be given more than once: each model is measured separately.
    prompts
        Prompt list, or - for stdin (default: built-in prompts).
    prompt_column
        Column that holds the prompts (default: prompt).
    map
        PARAMETER=COLUMN of --prompts, or extras.NAME=COLUMN. May be given more than once.
    no_header
        The first row of a --prompts table is a prompt, not names.
    sheet
        Sheet of a --prompts .xlsx file (default: the first one).
    rows
        Key of the rows in a .json object of --prompts, or the path of keys.
    syntax
        What marks of other tools in --prompts mean: checked, as-written, comments or
        sample-prompts (default: checked).
    in_flight
        Closed-loop load: active jobs, one stage for each number (default: 1,4,12,24).
    rate
        Open-loop load: arrival rate, e.g. 0.5/s or 6/min,12/min.
    arrivals
        Arrivals of an open loop: constant, or poisson (independent users; default: constant).
    ramp
        Open-loop load that rises from one rate to another, e.g. 0.1/s..2/s. Needs --duration.
    sweep
        Raise the number of active jobs until throughput stops growing.
    slots
        Maximum active jobs of an open loop (default: 24). A sweep ends at four times that.
    images
        Images measured per stage (default: four per active job, at least 12).
    duration
        Duration of each stage, e.g. 90s or 5min, instead of --images.
    warm_up
        Unmeasured images before each stage (default: one per active job).
    objective
        Latency objective, e.g. 10s. The report then shows goodput.
    seed
        Random seed for built-in prompts, image seeds and arrival times (default: 0).
    title
        Title of the report.
    max_cost
        Most to spend, in US dollars, over all stages.
    price
        Price of an image in US dollars, as 0.04 or MODEL=0.04 (default: list price). May be given
        more than once.
    polling_lag
        Mean delay until a job's end is seen: 0.001 to 0.5 of its duration (default: 0.04).
    param
        Model parameter, as K=V. May be given more than once.
    provider
        cometapi or bfl (default: the provider whose key is set).
    base_url
        Base URL of the API, if it is not the provider's own, or of a simulator.
    key_file
        File that holds the key (default: COMETAPI_KEY or BFL_API_KEY).
    proxy
        HTTP proxy, as http://host:port (default: HTTPS_PROXY, then ALL_PROXY; NO_PROXY exempts
        hosts). Put one with a password into HTTPS_PROXY, because other users see options.
    allow_private_network
        Trust a gateway in a private network: http to it, and the private addresses that it gives.
    accounts
        TOML file with several accounts, which are measured in turn with the same loads, at most up
        to their slots. See docs/accounts.md.
    simulate
        Measure the built-in simulator. Costs nothing and needs no key.
    json
        Print the report as one JSON object instead of the page's path.
    quiet
        Print no progress and no summary. Paths and problems are still printed.
    """

    out: Annotated[OutPath | None, _OF_OUTPUT] = None
    model: Annotated[tuple[str, ...], _OF_IMAGES] = (DEFAULT_MODEL,)
    prompts: Annotated[str | None, Parameter(allow_leading_hyphen=True), _OF_PROMPTS] = None
    prompt_column: Annotated[str | None, _OF_PROMPTS] = None
    map: Annotated[tuple[str, ...], _OF_PROMPTS] = ()
    no_header: Annotated[bool, _OF_PROMPTS] = False
    sheet: Annotated[str | None, _OF_PROMPTS] = None
    rows: Annotated[str | None, _OF_PROMPTS] = None
    syntax: Annotated[
        Literal["checked", "as-written", "comments", "sample-prompts"], _OF_PROMPTS
    ] = "checked"
    in_flight: Annotated[str | None, _OF_LOAD] = None
    rate: Annotated[str | None, _OF_LOAD] = None
    arrivals: Annotated[Literal["constant", "poisson"], _OF_LOAD] = "constant"
    ramp: Annotated[str | None, _OF_LOAD] = None
    sweep: Annotated[bool, _OF_LOAD] = False
    slots: Annotated[AtLeastOne | None, _OF_LOAD] = None
    images: Annotated[AtLeastOne | None, _OF_LOAD] = None
    duration: Annotated[str | None, _OF_LOAD] = None
    warm_up: Annotated[int | None, Parameter(validator=Number(gte=0)), _OF_LOAD] = None
    objective: Annotated[str | None, _OF_LOAD] = None
    seed: Annotated[int, _OF_IMAGES] = 0
    title: Annotated[str, _OF_OUTPUT] = ""
    max_cost: Annotated[str | None, _OF_MONEY] = None
    price: Annotated[tuple[str, ...], _OF_MONEY] = ()
    polling_lag: Annotated[float | None, _OF_PACE] = None
    param: Annotated[tuple[str, ...], _OF_IMAGES] = ()
    provider: Annotated[str | None, _OF_PROVIDER] = None
    base_url: Annotated[str | None, _OF_PROVIDER] = None
    key_file: Annotated[LocalPath | None, _OF_PROVIDER] = None
    proxy: Annotated[str | None, _OF_PROVIDER] = None
    allow_private_network: Annotated[bool, _OF_PROVIDER] = False
    accounts: Annotated[LocalPath | None, _OF_PROVIDER] = None
    simulate: Annotated[bool, _OF_PROVIDER] = False
    json: Annotated[bool, _OF_OUTPUT] = False
    quiet: Annotated[bool, _OF_OUTPUT] = False


@bench.default
def measure(*, options: BenchOptions | None = None) -> int:
    """Put load on a provider and write a folder with report.html.

    Without a key, the built-in simulator is measured, at no cost. A live API needs --max-cost.
    """
    given = options or BenchOptions()
    return _run_bench_command(
        lambda measurement, terminal: measurement.measure(terminal, given), quiet=given.quiet
    )


@bench.command
def compare(before: LocalPath, after: LocalPath, /, *, json: bool = False) -> int:
    """Compare two reports and test the differences for statistical significance.

    Parameters
    ----------
    before
        Folder of the first report.
    after
        Folder of the second report.
    json
        Print one JSON object.
    """
    return _run_bench_command(
        lambda measurement, terminal: measurement.compare(terminal, before, after, json=json)
    )


def _run_bench_command(start: Any, *, quiet: bool = False) -> int:
    from . import bench_measurement

    terminal = Terminal(quiet=quiet)
    return run_async(lambda: start(bench_measurement, terminal), terminal)
