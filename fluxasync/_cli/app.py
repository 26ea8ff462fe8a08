"""The commands: `generate`, `run` and the others, each of which runs one event loop.

Modules that need aiohttp are imported inside a command, so that `--help` starts at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import (
    App,
    CycloptsError,
    Parameter,
)
from cyclopts.validators import Number

from .._batch.progress.terminal import Terminal
from .._core.errors import ConfigError
from .._core.version import __version__
from .._store.output_root import OutputRoot
from .bill_command import bill
from .event_loop import run_async
from .exit_codes import DISK, USAGE
from .export_command import export
from .given_options import GIVEN
from .help_pages import GROUPS, ORDER, OTHERS, examples, lazy
from .help_text import FlowingHelp
from .key_files import LocalPath, OutPath, RunPlace
from .option_sources import fill
from .options import AccountOptions, AtLeastOne, Options, RunOptions
from .report_command import report
from .usage_errors import usage, with_cut

if TYPE_CHECKING:
    from .resolve_command import Decision

app = App(
    name="fluxasync",
    help="Batch image generation with Flux models: prompts in, verified images on disk.",
    version=__version__,
    help_format="plaintext",
    help_formatter=FlowingHelp(),
    default_parameter=Parameter(negative=(), show_default=False),
    config=fill,
    group_commands=OTHERS,
)

# these are imported when they run; the others' modules are light
app.command("fluxasync._cli.bench_command:bench", **lazy("bench"))
app.command("fluxasync._cli.daily_commands:doctor", **lazy("doctor"))
app.command("fluxasync._cli.daily_commands:credits_", **lazy("credits"))
app.command("fluxasync._cli.ctl_command:ctl", **lazy("ctl"))
app.command(
    "fluxasync._cli.completion_command:install_completion",
    **lazy("--install-completion"),
)
app.command(bill)
app.command(export)
app.command(report)

_SOURCE = (
    "Prompt list: a .txt (one prompt per line), .jsonl, .json, .csv, .tsv, .xlsx or .parquet file, "
    "text also as .gz; several files of one kind; a folder of .txt files or of one kind of list; "
    "or - for stdin."
)


@app.command
def generate(prompt: str, /, *, out: OutPath, options: Options | None = None) -> int:
    """Make one image.

    Parameters
    ----------
    prompt
        The prompt. Put `--` before a prompt that starts with a dash.
    out
        File to write. It must not exist yet.
    """
    from . import run_command

    common = options or Options()
    return _run_paid_command(
        lambda command: run_command.generate(command, prompt, out=out, options=common), common
    )


@app.command
def run(
    source: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=_SOURCE)] = None,
    /,
    *more: Annotated[str, Parameter(help="Further files of the same list.")],
    options: RunOptions | None = None,
) -> int:
    """Make many images. The same command again continues an interrupted run.

    Without a list, continues the run of this folder, or of the only one in it, as resume does.
    """
    return _run_many(options or RunOptions())


@app.command
def resume(folder: RunPlace | None = None, /, *, options: RunOptions | None = None) -> int:
    """Continue the run of a folder with its list and its options. Pays nothing twice.

    The folder keeps the line of its last run, without keys. Options that are given here replace
    those of that line; what differs is said before anything is spent. Not kept are hooks,
    --retry, --resubmit-unlisted, --take-over, --yes and what is only shown.

    Parameters
    ----------
    folder
        Folder of a run, or the URL of a run into a bucket that this machine began (default: this
        folder, or the only run in it).
    """
    return _run_many(options or RunOptions())


def _run_many(options: RunOptions) -> int:
    """Run the line that was parsed, with what was added to it."""
    from . import run_command

    given = GIVEN.get()
    assert given is not None  # noqa: S101 — the parser has filled it
    perform = run_command.dry_run if options.dry_run else run_command.run
    return _run_paid_command(
        lambda command: perform(command, given.source, options), options.common, root=options.root
    )


@app.command
def status(
    folder: RunPlace,
    /,
    *,
    account: bool = False,
    storage_option: tuple[str, ...] = (),
    json: bool = False,
    options: AccountOptions | None = None,
) -> int:
    """Show the progress of a run, also while it is active. Needs no key.

    Parameters
    ----------
    folder
        Folder of a run, or the URL of a run into a bucket.
    account
        Add what is left on the account, and what was used of it. Free; needs the key.
    storage_option
        Option of the bucket, as K=V. May be given more than once.
    json
        Print one JSON object.
    """
    if options is not None and not account:
        return run_async(_without_account, Terminal())
    asked = (options or AccountOptions()) if account else None
    return _run_folder_command(
        lambda folders, terminal: folders.status(
            terminal, folder, storage_options=storage_option, json=json, account=asked
        )
    )


async def _without_account() -> int:
    raise ConfigError("options of the provider need --account")


@app.command
def verify(
    folder: RunPlace,
    /,
    *,
    deep: bool = False,
    storage_option: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Compare every image of a run with its record. Needs no key.

    Exit code 0: every image matches. 3: differences were found and printed.

    Parameters
    ----------
    folder
        Folder of a run that is not active, or the URL of a run into a bucket.
    deep
        Of a run into a bucket, read every image. Otherwise their sizes are compared.
    storage_option
        Option of the bucket, as K=V. May be given more than once.
    json
        Print one JSON object.
    """
    return _run_folder_command(
        lambda folders, terminal: folders.verify(
            terminal, folder, deep=deep, storage_options=storage_option, json=json
        )
    )


@app.command
def resolve(
    folder: RunPlace,
    /,
    *keys: str,
    drop: bool = False,
    resubmit: bool = False,
    resubmit_unlisted: bool = False,
    max_cost: str | None = None,
    job_id: tuple[str, ...] = (),
    accept: bool = False,
    discard: bool = False,
    reconcile: bool = False,
    storage_option: tuple[str, ...] = (),
    account: AccountOptions | None = None,
    json: bool = False,
) -> int:
    """List or settle images in doubt and in quarantine. Submits nothing.

    Needs no key, except with --reconcile. Exit code 0: none is in doubt. 3: with --reconcile, a job
    ended without an image. 4: some of the printed images are in doubt. 9: with --reconcile, the
    account gave no answer.

    Parameters
    ----------
    folder
        Folder of a run that is not active, or the URL of a run into a bucket.
    keys
        Images to settle, by the first four or more digits of their keys (default: all).
    drop
        Give up images in doubt. They may have been charged.
    resubmit
        Submit images in doubt again in the next run, which may pay twice, up to --max-cost.
    resubmit_unlisted
        The same, only for images of which --reconcile found neither a task nor a charge.
    max_cost
        Most that the resubmissions may cost, in US dollars.
    job_id
        Job id that the next run collects, as KEY=ID. May be given more than once.
    accept
        Make the bytes in quarantine the images that they were paid as.
    discard
        Delete the bytes in quarantine. --retry discarded then pays for the images again.
    reconcile
        Find the jobs of images in doubt among the account's tasks and collect their images. Free;
        needs the key and the account's access token (COMETAPI_ACCESS_TOKEN).
    storage_option
        Option of the run's bucket, as K=V. May be given more than once.
    json
        Print one JSON object.
    """

    terminal = Terminal()

    def start() -> Coroutine[Any, Any, int]:
        from . import resolve_command

        decision = resolve_command.Decision(
            run=folder, keys=keys, drop=drop, resubmit=resubmit,
            resubmit_unlisted=resubmit_unlisted, max_cost=max_cost, job_ids=job_id, accept=accept,
            discard=discard, reconcile=reconcile, account=account,
            storage_options=storage_option,
        )  # fmt: skip
        if reconcile:
            decision.checked()
            return _reconcile(terminal, decision, json)
        return resolve_command.resolve(terminal, decision, json=json)

    return run_async(start, terminal)


def _reconcile(terminal: Terminal, decision: Decision, json: bool) -> Coroutine[Any, Any, int]:
    from .reconcile_command import reconcile_folder

    return reconcile_folder(
        terminal,
        decision.run,
        decision.account or AccountOptions(),
        storage_options=decision.options,
        json=json,
    )


@app.command
def gallery(
    folder: RunPlace,
    /,
    *,
    out: OutPath | None = None,
    watch: bool = False,
    open: bool = False,
    sheet: LocalPath | None = None,
    picked: bool = False,
    storage_option: tuple[str, ...] = (),
    with_parent: Annotated[bool, Parameter(show=False)] = False,
) -> int:
    """Write gallery.html, a page of a run's images, into its folder. Needs no key.

    Of a run into a bucket the page in the folder has thumbnails only.

    Parameters
    ----------
    folder
        Folder of a run, or the URL of a run into a bucket. The run may be active.
    out
        New folder that gets the page instead, with copies of the images, so that it can be moved.
        The same command renews it.
    watch
        Serve the page on this machine only. Images appear as they arrive, and picks are kept in
        FOLDER/picks.jsonl.
    open
        Open the page in the browser.
    sheet
        Draw the images on one contact sheet instead, a .png, .jpg or .webp file.
    picked
        With --out or --sheet: only the images that FOLDER/picks.jsonl picks.
    storage_option
        Option of the run's bucket, as K=V. May be given more than once.
    """
    terminal = Terminal()

    def start() -> Coroutine[Any, Any, int]:
        from . import gallery_command

        return gallery_command.show(
            terminal, folder, out=out, watch=watch, opens=open, sheet=sheet, picked=picked,
            storage_options=storage_option, with_parent=with_parent,
        )  # fmt: skip

    return run_async(start, terminal)


@app.command
def simulate(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 8787,
    latency: str | None = None,
    limit: AtLeastOne | None = None,
    fault: tuple[str, ...] = (),
    repeats: str | None = None,
    image_bytes: AtLeastOne | None = None,
    seed: int | None = None,
    list_delay: float | None = None,
    refunds: bool = False,
    webhooks: str | None = None,
) -> int:
    """Run the simulator until Ctrl-C.

    Parameters
    ----------
    host
        Address to listen on (default: 127.0.0.1). 0.0.0.0 serves other machines and containers;
        images and polls then have the two ports after --port.
    port
        Port (default: 8787). 0 takes a free port.
    latency
        Duration of a job in seconds, as A..B (default: each model's usual time).
    limit
        Maximum number of active jobs.
    fault
        Fault and its rate, as NAME:RATE, for example 429:0.1. May be given more than once. NAME is
        429, 503, 500, 502-html, 402, 401-after, lost-reply, poll-429, poll-500, poll-502-html,
        poll-reset, not-found-first, unknown-status, pending-forever, moderated-request,
        moderated-content, error, expired, download-503, download-reset, truncated, wrong-bytes,
        html-as-image, slow, hook-lost, hook-late, hook-early, hook-repeats, hook-disorder,
        hook-forged, hook-replay, task-unlisted, task-late, task-platform, list-cut, list-repeats,
        list-html, list-401 or list-false. 401-after takes a number of jobs: 401-after:30.
    repeats
        Number of a job's polls or downloads that a fault affects, or always (default: 1, so that
        the next try gets the image). With --fault wrong-bytes --repeats always, each image ends in
        quarantine, after ten minutes of tries.
    image_bytes
        Size of the one image that all jobs return. For measuring a client.
    seed
        Random seed. The same seed gives the same history.
    list_delay
        Seconds after which a job is in the account's list of tasks (default: 0).
    refunds
        Give failed and moderated jobs back, in the balance and in CometAPI's usage log.
    webhooks
        Signature and payload of callbacks, as SIGNATURE/PAYLOAD or one of the two. SIGNATURE is
        hmac, header, field or none; PAYLOAD is id, task_id or progress (default: hmac/id for BFL,
        field/id for CometAPI). BFL jobs with a webhook belong to the regional_url that
        /simulator/ledger names.
    """
    terminal = Terminal()

    async def start() -> int:
        from ..simulator import Scenario
        from ..simulator.images import painter_of
        from .simulate_command import serve

        try:
            painter_of(os.environ)  # raises ValueError for an unknown name
            scenario = Scenario.parse(
                faults=fault, latency=latency, limit=limit, image_bytes=image_bytes, seed=seed,
                list_delay=list_delay, refunds=refunds, repeats=repeats, webhooks=webhooks,
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(str(error)) from error
        await serve(scenario, host=host, port=port, terminal=terminal)
        return 0

    return run_async(start, terminal)


@app.command
def models(
    file: LocalPath | None = None,
    /,
    *,
    check: bool = False,
    provider: str | None = None,
    base_url: str | None = None,
    json: bool = False,
) -> int:
    """List the models with price, sizes, parameters, limits and usual time.

    Exit code of --check, 0: the same. 3: differences were found and printed.

    Parameters
    ----------
    file
        With --check: the OpenAPI document, instead of the provider's.
    check
        Compare the list with the provider's own OpenAPI document. Needs no key.
    provider
        With --check: cometapi or bfl (default: bfl).
    base_url
        With --check: base URL of the API, if it is not the provider's own.
    json
        Print one JSON object a line.
    """
    terminal = Terminal()
    if check:
        return run_async(lambda: _check_models(terminal, file, provider, base_url, json), terminal)
    if file is not None or provider is not None or base_url is not None:
        step = "" if file is None else f"; to find a model: fluxasync models | grep {file.name}"
        terminal.say(f"fluxasync: a file, --provider and --base-url need --check{step}")
        terminal.close()
        return USAGE
    from .models_command import rows, table

    for line in rows() if json else table(terminal.columns):
        terminal.out(line)
    terminal.close()
    return DISK if terminal.is_data_lost else 0


def _check_models(
    terminal: Terminal, file: Path | None, provider: str | None, base_url: str | None, json: bool
) -> Coroutine[Any, Any, int]:
    from .catalog_check import check

    return check(terminal, file, provider=provider, base_url=base_url, json=json)


for _name in ("bill", "export", "report", "generate", "run", "resume", "status", "verify",
              "resolve", "gallery", "simulate", "models"):  # fmt: skip
    app[_name].group, app[_name].help_epilogue = (GROUPS[_name],), examples(_name)
    app[_name].sort_key = ORDER[_name]


def main(tokens: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a wrong command line becomes one line on stderr."""
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        terminal = Terminal()
        command = " ".join(["fluxasync", *(error.command_chain or ())])
        given = sys.argv[1:] if tokens is None else tokens
        terminal.say(f"fluxasync: {with_cut(given, usage(error))} See {command} --help")
        terminal.close()
        return USAGE
    except ConfigError as error:  # of the run that a line continues
        terminal = Terminal()
        terminal.say(f"fluxasync: {error}")
        terminal.close()
        return USAGE
    return int(code or 0)


def _run_paid_command(
    start: Callable[[Any], Coroutine[Any, Any, None]],
    options: Options,
    *,
    root: OutputRoot | None = None,
) -> int:
    from .command_run import CommandRun

    terminal = Terminal(quiet=options.quiet)
    command = CommandRun(terminal, json=options.json, simulated=options.simulate, root=root)
    given = GIVEN.get()
    for line in () if given is None else given.lines:
        terminal.note(line)
    code = run_async(lambda: command.run(lambda: start(command)), terminal)
    if command.interrupts.is_leaving:
        # a thread that is stuck in a write would be waited for at exit
        os._exit(code)
    return code


def _run_folder_command(start: Callable[[Any, Terminal], Coroutine[Any, Any, int]]) -> int:
    """Run a folder command; `start` gets the module `folder_commands` and the terminal."""
    from . import folder_commands

    terminal = Terminal()
    return run_async(lambda: start(folder_commands, terminal), terminal)
