"""The command line: turns arguments into the library's values and runs one event loop.

Modules that need aiohttp are imported inside a command, so that `--help` starts at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from .._core.errors import ConfigError
from .._core.version import __version__
from .bench_command import bench
from .event_loop import run_async
from .exit_codes import USAGE
from .options import Lists, LocalPath, Options, usage
from .terminal import Terminal

app = App(
    name="fluxasync",
    help="Batch image generation with Flux models: prompts in, verified images on disk.",
    version=__version__,
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=False),
)

app.command(bench)

_AtLeastOne = Annotated[int, Parameter(validator=Number(gte=1))]


@app.command
def generate(
    prompt: str,
    /,
    *,
    out: Annotated[LocalPath, Parameter(name=["--out", "-o"])],
    options: Options | None = None,
) -> int:
    """Make one image.

    Parameters
    ----------
    prompt
        The prompt. Put `--` before a prompt that starts with a dash.
    out
        File to write. It must not exist yet.
    """
    options = options or Options()

    def story(errand: Any) -> Coroutine[Any, Any, None]:
        from . import run_command

        return run_command.generate(errand, prompt, out=out, options=options)

    return _run_paid_command(story, options)


@app.command
def run(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Annotated[LocalPath | None, Parameter(name=["--out", "-o"])] = None,
    options: Options | None = None,
    in_flight: int | Literal["auto"] | None = None,
    n: _AtLeastOne = 1,
    name: str | None = None,
    max_cost: str | None = None,
    dry_run: bool = False,
    skip_bad: bool = False,
    limit: _AtLeastOne | None = None,
    lists: Lists | None = None,
    confirm_above: Annotated[float, Parameter(validator=Number(gte=0))] = 10.0,
    yes: bool = False,
    retry: str | None = None,
    polling_lag: float | None = None,
    grace: Annotated[float, Parameter(validator=Number(gte=0))] = 10.0,
    watch: bool = False,
) -> int:
    """Make many images. The same command again continues an interrupted run.

    Parameters
    ----------
    source
        Prompt list: a .txt (one prompt per line), .jsonl, .json, .csv, .tsv or .parquet file, text
        also as .gz or .zst; a folder of .txt files; or - for stdin.
    out
        Folder for the images and metadata.jsonl.
    in_flight
        Maximum number of active jobs (default: 24). "auto" adapts to the account's limit.
    n
        Images per prompt (default: 1).
    name
        File-name template (default: {index:06}-{key:.8}.{ext}).
    max_cost
        Most to spend, in US dollars.
    dry_run
        Print the number of images, their cost and the expected time, and send nothing.
    skip_bad
        Skip invalid rows instead of refusing the list.
    limit
        Make only the first N images.
    confirm_above
        Ask before a run that costs more than this, in US dollars (default: 10; terminals only).
    yes
        Start without asking.
    retry
        Retry failures of earlier runs, as CLASS,CLASS: failed (all but moderated and dropped), a
        cause such as expired, lost or moderated, timeout (pays twice for jobs that still run),
        missing (the file was removed), or damaged (missing, or the file was cut short).
    polling_lag
        Mean delay between a job's end and the poll that sees it, as a share of its usual duration.
    grace
        Seconds to wait for paid images after Ctrl-C (default: 10).
    watch
        Serve a page of the images while they arrive, on this machine only, and print its address.
    """
    options = options or Options()

    def story(errand: Any) -> Coroutine[Any, Any, None]:
        from . import run_command

        order = run_command.RunArguments(
            source=source, out=out, name=name, n=n, limit=limit, in_flight=in_flight,
            max_cost=max_cost, polling_lag=polling_lag, grace=grace, skip_bad=skip_bad,
            retry=retry, watch=watch, options=options, lists=lists or Lists(),
            confirm_above=None if yes else confirm_above,
        )  # fmt: skip
        return run_command.dry_run(errand, order) if dry_run else run_command.run(errand, order)

    return _run_paid_command(story, options, folder=out)


@app.command
def status(folder: LocalPath, /, *, json: bool = False) -> int:
    """Show the progress of a run, also while it is active. Needs no key.

    Parameters
    ----------
    folder
        Folder of a run.
    json
        Print one JSON object.
    """
    return _run_folder_command(
        lambda folders, terminal: folders.status(terminal, folder, json=json)
    )


@app.command
def verify(folder: LocalPath, /, *, json: bool = False) -> int:
    """Compare every image of a folder with its record. Needs no key.

    Exit code 0: every image matches. 3: differences were found and printed.

    Parameters
    ----------
    folder
        Folder of a run that is not active.
    json
        Print one JSON object.
    """
    return _run_folder_command(
        lambda folders, terminal: folders.verify(terminal, folder, json=json)
    )


@app.command
def resolve(
    folder: LocalPath,
    /,
    *keys: str,
    drop: bool = False,
    resubmit: bool = False,
    max_cost: str | None = None,
    job_id: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """List or settle submissions in doubt. Needs no key and submits nothing.

    Exit code 0: none is in doubt. 4: the printed ones are.

    Parameters
    ----------
    folder
        Folder of a run that is not active.
    keys
        Submissions to settle, by the first four or more digits of their keys (default: all).
    drop
        Give them up. They may have been charged.
    resubmit
        Submit them again in the next run, which may pay twice, up to --max-cost.
    max_cost
        Most that the resubmissions may cost, in US dollars.
    job_id
        The job id of a submission, as KEY=ID. The next run collects it. Repeatable.
    json
        Print one JSON object.
    """

    def story(folders: Any, terminal: Terminal) -> Coroutine[Any, Any, int]:
        decision = folders.Decision(
            folder=folder, keys=keys, drop=drop, resubmit=resubmit, max_cost=max_cost,
            job_ids=job_id,
        )  # fmt: skip
        found: Coroutine[Any, Any, int] = folders.resolve(terminal, decision, json=json)
        return found

    return _run_folder_command(story)


@app.command
def gallery(
    folder: LocalPath,
    /,
    *,
    watch: bool = False,
    with_parent: Annotated[bool, Parameter(show=False)] = False,
) -> int:
    """Write gallery.html, a page of a run's images, into its folder. Needs no key.

    Parameters
    ----------
    folder
        Folder of a run. The run may be active.
    watch
        Serve the page on this machine only. Images appear as they arrive.
    """
    terminal = Terminal()

    def story() -> Coroutine[Any, Any, int]:
        from . import gallery_command

        if watch:
            return gallery_command.serve(terminal, folder, with_parent=with_parent)
        return gallery_command.write(terminal, folder)

    return run_async(story, terminal)


@app.command
def simulate(
    *,
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 8787,
    latency: str | None = None,
    limit: _AtLeastOne | None = None,
    fault: tuple[str, ...] = (),
    image_bytes: _AtLeastOne | None = None,
    seed: int | None = None,
) -> int:
    """Run the simulator until Ctrl-C.

    Parameters
    ----------
    port
        Port on loopback (default: 8787). 0 takes a free port.
    latency
        Duration of a job in seconds, as A..B (default: each model's usual time).
    limit
        Maximum number of active jobs.
    fault
        Fault and its rate, as NAME:RATE, for example 429:0.1. Repeatable.
    image_bytes
        Size of the one image that all jobs return. For measuring a client.
    seed
        Random seed. The same seed gives the same history.
    """
    terminal = Terminal()

    async def story() -> int:
        from ..simulator import Scenario
        from .simulate_command import serve

        try:
            scenario = Scenario.parse(
                faults=fault, latency=latency, limit=limit, image_bytes=image_bytes, seed=seed,
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(str(error)) from error
        await serve(scenario, port=port, terminal=terminal)
        return 0

    return run_async(story, terminal)


@app.command
def models(*, json: bool = False) -> int:
    """List the models with price, sizes, parameters, limits and usual time.

    Parameters
    ----------
    json
        Print one JSON object a line.
    """
    from .models_command import rows, table

    terminal = Terminal()
    for line in rows() if json else table(terminal.columns):
        terminal.out(line)
    terminal.close()
    return 0


def main(tokens: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a wrong command line is one line on stderr."""
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        terminal = Terminal()
        terminal.say(f"fluxasync: {usage(error)} See fluxasync --help")
        terminal.close()
        return USAGE
    return int(code or 0)


def _run_paid_command(
    story: Callable[[Any], Coroutine[Any, Any, None]],
    options: Options,
    *,
    folder: Path | None = None,
) -> int:
    from .command_run import CommandRun

    terminal = Terminal(quiet=options.quiet)
    errand = CommandRun(terminal, json=options.json, simulated=options.simulate, folder=folder)
    code = run_async(lambda: errand.settled(lambda: story(errand)), terminal)
    if errand.interrupts.is_leaving:
        # a thread that is stuck in a write would be waited for at exit
        os._exit(code)
    return code


def _run_folder_command(story: Callable[[Any, Terminal], Coroutine[Any, Any, int]]) -> int:
    """Tell what a folder holds; `story` takes the room that knows, and the screen."""
    from . import folder_commands

    terminal = Terminal()
    return run_async(lambda: story(folder_commands, terminal), terminal)
