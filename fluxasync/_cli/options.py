"""The options of the commands: what users write, as the library's own values.

Ranges and names are checked by the values that the options become, not here. There is no
`--api-key`: every user of the machine can read arguments (`ps`), so a key comes from the
environment or a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from attrs import evolve, field, frozen
from cyclopts import Group, Parameter
from cyclopts.validators import Number

from .._core.arguments import local_path
from .._core.config import Budget
from .._core.errors import ConfigError, cut
from .._core.models import DEFAULT_MODEL as DEFAULT_MODEL
from .._core.models import NOT_LISTED
from .._core.prices import ALL, Prices, prices_of
from .._requests.catalog import find, models_with, unknown_parameter_message
from .._store.output_root import OutputRoot, state_folder
from .._wire.providers import Provider, provider_by_name, provider_of
from .cluster_options import ClusterOptions
from .export_options import ExportChoice
from .file_options import FileOptions
from .given_options import GIVEN
from .hook_options import HookOptions
from .key_files import LocalPath, Place, RunPlace
from .webhook_options import WebhookOptions

AtLeastOne = Annotated[int, Parameter(validator=Number(gte=1))]
AtLeastZero = Annotated[float, Parameter(validator=Number(gte=0))]

_OF_LIST = Group("Prompt list", sort_key=1)
_OF_IMAGES = Parameter(group=Group("Images", sort_key=2))
_OF_OUTPUT = Parameter(group=Group("Output", sort_key=3))
_OF_MONEY = Parameter(group=Group("Money", sort_key=4))
_OF_PACE = Parameter(group=Group("Pace", sort_key=5))
_OF_PROVIDER = Parameter(group=Group("Provider", sort_key=6))


@Parameter(name="*")
@frozen(kw_only=True)
class Options:
    """Options of `generate` and `run`.

    Parameters
    ----------
    model
        Model (default: flux-dev). See fluxasync models.
    param
        Model parameter of rows that lack it, as K=V (V: JSON or text); extra_body.K=V is sent
        unchecked. May be given more than once.
    provider
        cometapi or bfl (default: the provider whose key is set).
    base_url
        Base URL of the API, if not the provider's own.
    key_file
        File that holds the key (default: COMETAPI_KEY or BFL_API_KEY).
    proxy
        HTTP proxy, as http://host:port (default: HTTPS_PROXY, then ALL_PROXY; NO_PROXY exempts
        hosts). Put one with a password into HTTPS_PROXY, because other users see options.
    allow_private_network
        Trust a gateway in a private network: http to a LAN address, a name without a dot or a
        local name (.local, .internal), and the private addresses that it gives for images.
    simulate
        Use the built-in simulator. Costs nothing and needs no key.
    allow_unknown_models
        Send a model name that is not in the catalogue but resembles one that is.
    embed
        Put prompt, seed, model and the run's id into each image, as XMP.
    json
        Print one JSON object per line (images and events) instead of paths.
    quiet
        Print no progress and no summary. Paths and problems are still printed.
    """

    model: Annotated[str | None, _OF_IMAGES] = None
    param: Annotated[tuple[str, ...], _OF_IMAGES] = ()
    provider: Annotated[str | None, _OF_PROVIDER] = None
    base_url: Annotated[str | None, _OF_PROVIDER] = None
    key_file: Annotated[LocalPath | None, _OF_PROVIDER] = None
    proxy: Annotated[str | None, _OF_PROVIDER] = None
    allow_private_network: Annotated[bool, _OF_PROVIDER] = False
    simulate: Annotated[bool, _OF_PROVIDER] = False
    allow_unknown_models: Annotated[bool, _OF_PROVIDER] = False
    embed: Annotated[bool, _OF_OUTPUT] = False
    json: Annotated[bool, _OF_OUTPUT] = False
    quiet: Annotated[bool, _OF_OUTPUT] = False
    files: FileOptions = field(factory=FileOptions)

    @property
    def parameters(self) -> dict[str, Any]:
        """The `--param` options as values.

        Raises ConfigError for one without `=` and for a name that no Flux model has: in a prompt
        list such a key is the user's metadata, on the command line it is a mistake.
        """
        return read_parameters(self.param, self.model or DEFAULT_MODEL)

    @property
    def provider_named(self) -> Provider | str | None:
        """The `--provider`. Raises ConfigError for an unknown one."""
        return read_provider(self.provider, allow_private_network=self.allow_private_network)


@Parameter(name="*", group=Group("Provider", sort_key=6))
@frozen(kw_only=True)
class AccountOptions:
    """Options of a command that asks about an account and makes no image.

    Parameters
    ----------
    provider
        cometapi or bfl (default: the provider whose key is set).
    base_url
        Base URL of the API, if not the provider's own.
    key_file
        File that holds the key (default: COMETAPI_KEY or BFL_API_KEY).
    access_token_file
        File that holds the account's access token (default: COMETAPI_ACCESS_TOKEN).
    proxy
        HTTP proxy, as http://host:port (default: HTTPS_PROXY, then ALL_PROXY).
    allow_private_network
        Trust a gateway in a private network.
    accounts
        TOML file with the accounts of a run with several, instead of the provider and its key.
    """

    provider: str | None = None
    base_url: str | None = None
    key_file: LocalPath | None = None
    access_token_file: LocalPath | None = None
    proxy: str | None = None
    allow_private_network: bool = False
    accounts: LocalPath | None = None
    files: FileOptions = field(factory=FileOptions)

    @property
    def provider_named(self) -> Provider | str | None:
        """The `--provider`. Raises ConfigError for an unknown one."""
        return read_provider(self.provider, allow_private_network=self.allow_private_network)


@Parameter(name="*", group=_OF_LIST)
@frozen(kw_only=True)
class ListOptions:
    """How `run` reads its prompt list.

    Parameters
    ----------
    prompt
        Template of the prompts, with the list's columns: '{colour} {product} on marble'. Braces
        themselves are doubled. Columns are looked up by their names in the list; an empty cell is
        an error.
    n
        Images per row of the list (default: 1).
    skip_bad
        Skip invalid rows instead of refusing the list.
    limit
        Stop after so many images (default: no limit).
    prompt_column
        Column that holds the prompts (default: prompt).
    map
        PARAMETER=COLUMN, extras.NAME=COLUMN for metadata, or extra_body.NAME=COLUMN to send a
        column that the catalogue lacks. May be given more than once.
    no_header
        The first row of a .csv, .tsv or .xlsx is a prompt, not names. Columns are given by their
        place: --prompt-column 1.
    sheet
        Sheet of an .xlsx file (default: the first one).
    rows
        Key of the rows in a .json object, or the path of keys, as data.items.
    seeds
        Make every prompt with each of these seeds, e.g. 1..4 or 1,7,20..30.
    models
        Make every prompt with each of these models, as A,B.
    grid
        Make every prompt with each value of a parameter: NAME=V,V. May be given more than once.
    wildcards
        Expand {red|grey} in prompts, and __animals__ from the lines of animals.txt in this folder.
    syntax
        What marks of other tools in prompts mean: checked, as-written, comments or sample-prompts
        (default: checked).
    sample
        Use a random sample of this many rows. The sample is the same every time.
    sample_seed
        Random seed of the sample (default: 0).
    allow_files
        Folder of image inputs, besides the list's own folder. May be given more than once.
    from_picks
        Instead of a list, the picked images of this run: more of them (--seeds, --grid, --n), or
        the same from another model (--model, --models) or with other parameters (--param).
    """

    prompt: str | None = None
    n: AtLeastOne = 1
    skip_bad: bool = False
    limit: AtLeastOne | None = None
    prompt_column: str | None = None
    map: tuple[str, ...] = ()
    no_header: bool = False
    sheet: str | None = None
    rows: str | None = None
    seeds: str | None = None
    models: str | None = None
    grid: tuple[str, ...] = ()
    wildcards: LocalPath | None = None
    syntax: Literal["checked", "as-written", "comments", "sample-prompts"] = "checked"
    sample: int | None = None
    sample_seed: int = 0
    allow_files: tuple[Path, ...] = ()
    from_picks: RunPlace | None = None

    def keywords(self) -> dict[str, Any]:
        """Return the arguments of Prompts. Raises ConfigError for text that cannot be read."""
        return {
            "template": self.prompt,
            "n": self.n,
            "skip_bad": self.skip_bad,
            "limit": self.limit,
            "columns": read_columns(self.prompt_column, self.map),
            "header": not self.no_header,
            "sheet": self.sheet,
            "rows": self.rows,
            "seeds": None if self.seeds is None else seeds_of(self.seeds),
            "models": None if self.models is None else _parts(self.models),
            "grid": self._grid(),
            "wildcards": self.wildcards or False,
            "syntax": self.syntax,
            "sample": self.sample,
            "sample_seed": self.sample_seed,
            "allow_files": self.allow_files,
        }

    def _grid(self) -> dict[str, list[Any]]:
        grid: dict[str, list[Any]] = {}
        for text in self.grid:
            name, values = _pair(text, "--grid", "NAME=V,V")
            if name in grid:
                raise ConfigError(f"--grid {cut(name)} is given twice: write {cut(name)}=V,V")
            grid[name] = [_value(part) for part in _parts(values)]
        return grid


_RETRY = (
    "Retry failures of earlier runs, as CLASS,CLASS: failed (all but moderated and dropped), a "
    "cause such as expired, lost or moderated, timeout (pays twice for jobs that still run), "
    "missing (the file was removed), damaged (missing, or the file was cut short), exported (the "
    "file was deleted after an export: restore the export instead if you can), or quarantined "
    "(pays again for images whose bytes are in quarantine, which no other class does)."
)


@Parameter(name="*")
@frozen(kw_only=True)
class RunOptions:
    """Options of `run`.

    Parameters
    ----------
    out
        Folder for the images and metadata.jsonl, or the URL of a bucket, as s3://BUCKET/RUN (also
        gs://, az:// and file://). The same one continues the run, a bucket from any machine.
        Required, except with --dry-run.
    state
        Folder on this machine for the record of a run into a bucket, instead of the bucket itself.
        The same one continues the run, from this machine only.
    storage_option
        Option of the bucket, as K=V, for example region=eu-central-1. May be given more than once.
        Put secrets into the environment, because other users see options.
    take_over
        Continue a run in a bucket at once that another process may still use; that process stops.
    in_flight
        Maximum number of active jobs (default: 24). "auto" adapts to the account's limit.
    name
        File-name template (default: {index:06}-{key:.8}.{ext}). Fields: index, occurrence, seed,
        key, model, name, slug, ext, and each column of the list: '{sku}.{ext}'.
    max_cost
        Most to spend, in US dollars (default: no limit).
    price
        Price of an image in US dollars, as 0.04 or MODEL=0.04 (default: list price). May be given
        more than once.
    dry_run
        Print the number of images, their cost and the expected time, and send nothing.
    confirm_above
        Ask before a run that costs more than this, in US dollars (default: 10; terminals only).
    yes
        Start without asking.
    reconcile
        Look in the account for images in doubt, which is free: never, auto (where the access token
        is set) or always (an error without it). The end of the run may wait two minutes for them
        (default: auto).
    resubmit_unlisted
        Submit images in doubt of earlier runs again of which the account shows no task and no
        charge. Looks into the account first. Needs --max-cost.
    access_token_file
        File that holds the account's access token (default: COMETAPI_ACCESS_TOKEN).
    accounts
        TOML file with several accounts that make the images together, each with its own slots and
        budget. See docs/accounts.md. With --simulate it needs no keys.
    polling_lag
        Mean delay until a job's end is seen: 0.001 to 0.5 of its duration (default: 0.04).
    grace
        Seconds to wait for paid images after Ctrl-C (default: 10).
    watch
        Serve a page of the images while they arrive, on this machine only, and print its address.
    """

    out: Annotated[Place | None, Parameter(name=["--out", "-o"]), _OF_OUTPUT] = None
    state: Annotated[LocalPath | None, _OF_OUTPUT] = None
    storage_option: Annotated[tuple[str, ...], _OF_OUTPUT] = ()
    take_over: Annotated[bool, _OF_OUTPUT] = False
    common: Options = field(factory=Options)
    in_flight: Annotated[int | Literal["auto"] | None, _OF_PACE] = None
    name: Annotated[str | None, _OF_OUTPUT] = None
    max_cost: Annotated[str | None, _OF_MONEY] = None
    price: Annotated[tuple[str, ...], _OF_MONEY] = ()
    dry_run: Annotated[bool, _OF_MONEY] = False
    rows: ListOptions = field(factory=ListOptions)
    confirm_above: Annotated[AtLeastZero, _OF_MONEY] = 10.0
    yes: Annotated[bool, _OF_MONEY] = False
    retry: Annotated[str | None, _OF_MONEY, Parameter(help=_RETRY)] = None
    resubmit_unlisted: Annotated[bool, _OF_MONEY] = False
    reconcile: Annotated[Literal["never", "auto", "always"], _OF_MONEY] = "auto"
    access_token_file: Annotated[LocalPath | None, _OF_PROVIDER] = None
    accounts: Annotated[LocalPath | None, _OF_PROVIDER] = None
    polling_lag: Annotated[float | None, _OF_PACE] = None
    grace: Annotated[AtLeastZero, _OF_PACE] = 10.0
    watch: Annotated[bool, _OF_OUTPUT] = False
    webhook: WebhookOptions = field(factory=WebhookOptions)
    export: ExportChoice = field(factory=ExportChoice)
    hooks: HookOptions = field(factory=HookOptions)
    cluster: ClusterOptions = field(factory=ClusterOptions)

    @property
    def folder(self) -> Path | None:
        """The folder of the journal and the lists; None without one."""
        if isinstance(self.out, str):
            return state_folder(self.out) if self.state is None else self.state
        return self.out

    @property
    def root(self) -> OutputRoot:
        """Where the run's images are."""
        url = self.out.rstrip("/") if isinstance(self.out, str) else ""
        return OutputRoot(self.folder or Path(), url, is_copy=bool(url) and self.state is None)

    def output(self) -> dict[str, Any]:
        """Return the batch's `out` and `state`. Raises ConfigError for what does not fit."""
        if self.take_over and (self.state is not None or not isinstance(self.out, str)):
            raise ConfigError("--take-over is for a bucket: write -o s3://BUCKET/RUN")
        if not isinstance(self.out, str):
            if self.state is not None:
                raise ConfigError("--state is for a bucket: write -o s3://BUCKET/RUN --state DIR")
            if self.storage_option:
                raise ConfigError("--storage-option is for a bucket: write -o s3://BUCKET/RUN")
            if not self.common.embed or self.out is None:
                return {"out": self.out}
            from .._store.sinks import FolderSink  # not needed by --help

            return {"out": FolderSink(self.out, embed=True)}
        if self.out.startswith("memory:"):
            raise ConfigError("memory:// ends with this command: write -o s3://BUCKET/RUN")
        from .._store.object_sink import ObjectSink  # not needed by --help

        options = read_storage_options(self.storage_option)
        out = ObjectSink(
            self.out, options=options, take_over=self.take_over, embed=self.common.embed
        )
        return {"out": out, "state": self.state}

    @property
    def retried(self) -> str | tuple[()]:
        """The failures to make again; without a folder there are none."""
        if self.out is None:
            return ()
        if not self.resubmit_unlisted:
            return self.retry or ()
        if self.max_cost is None:
            raise ConfigError("--resubmit-unlisted pays: say up to how much with --max-cost X")
        return ",".join(filter(None, (self.retry, NOT_LISTED)))

    def policies(self, warn: Callable[[str], None]) -> dict[str, Any]:
        """Return the session's policies, in their shorthands; passes warnings to `warn`."""
        return {
            "limits": self.in_flight,
            "polling": self.webhook.polling(self.polling_lag, warn),
            "budget": Budget(max_cost=self.max_cost, prices=read_prices(self.price)),
        }


def read_parameters(texts: tuple[str, ...], model: str) -> dict[str, Any]:
    """Return the values of K=V texts; extra_body.K=V is sent under K whatever the model takes.

    Raises ConfigError for a name that no model has, unless the catalogue lacks the model.
    """
    given = dict(_parameter(text) for text in texts)
    sent = {name: given.pop(name) for name in [*given] if name.startswith(_SENT)}
    known = find(model)
    for name in given:
        if known is not None and name != "extra_body" and not models_with(name):
            reason = unknown_parameter_message(name[:60], known, ())
            send = f"to send it all the same: --param {_SENT}{name[:60]}=…"
            raise ConfigError(f"--param {reason}; {send}")
    if sent:
        inner = {name.removeprefix(_SENT): value for name, value in sent.items()}
        given["extra_body"] = inner | dict(given.get("extra_body") or {})
    return given


def read_storage_options(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the options of K=V texts. Raises ConfigError, which shows no value."""
    options: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value:
            raise ConfigError(f"--storage-option {cut(name)}: write K=V")
        options[name.strip()] = value
    return options


def read_prices(texts: tuple[str, ...]) -> Prices:
    """Return the prices of texts such as 0.04 and MODEL=0.04. Raises ConfigError."""
    prices: dict[str, str] = {}
    standing: set[str] = set()
    given = GIVEN.get()
    for text in texts:
        model, equals, amount = text.rpartition("=")
        name = model.strip() if equals else ALL
        if name in prices:
            raise ConfigError(f"--price {cut(text)}: given twice for the same model")
        prices[name] = amount
        if given is not None and given.is_standing("--price", text):
            standing.add(name)
    return evolve(prices_of(prices), standing=frozenset(standing))


#: the start of the name of a parameter that is sent unchecked
_SENT = "extra_body."


def source_of(words: Sequence[str]) -> str | list[Path]:
    """Return the source that the words of a command line name: a path, "-", or several files."""
    if len(words) == 1:
        return words[0]
    if "-" in words:
        raise ConfigError("- is standard input, which is the whole list: leave the files out")
    return [local_path("source", word) for word in words]


def read_columns(prompt_column: str | None, mappings: tuple[str, ...]) -> dict[str, str]:
    """Return the column of each target. Raises ConfigError for two of one target."""
    columns: dict[str, str] = {}
    for text in mappings:
        target, column = _pair(text, "--map", "PARAMETER=COLUMN")
        if target in columns:
            raise ConfigError(f"--map names two columns for {cut(target)}: leave one out")
        columns[target] = column
    if prompt_column is not None:
        if "prompt" in columns:
            raise ConfigError("--prompt-column and --map both name a column for the prompt")
        columns["prompt"] = prompt_column
    return columns


def read_provider(
    name: str | None, *, allow_private_network: bool = False
) -> Provider | str | None:
    """Return the provider, or its name. Raises ConfigError for an unknown one."""
    if name is not None:
        provider_by_name(name, as_written=f"--provider {name[:40]}")
    if not allow_private_network:
        return name
    found = provider_of(name, base_url=None, environ=os.environ)
    return evolve(found, allow_private_network=True)


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--param {cut(text)}: write NAME=VALUE, for example --param seed=7")
    if name.strip() in ("prompt", "model"):
        raise ConfigError(
            f"--param {cut(text)}: {name.strip()} has its own place on the command line"
        )
    return name.strip(), _value(value)


#: seeds of one range; Prompts refuses fewer images of one prompt than this
_MOST_SEEDS = 100_000


def seeds_of(text: str) -> list[int]:
    """Return the seeds of a text such as "1..4,9". Raises ConfigError that shows the form."""
    seeds: list[int] = []
    for part in _parts(text):
        first, dots, last = part.partition("..")
        try:
            low, high = int(first), int(last if dots else first)
        except ValueError:
            raise ConfigError(f"--seeds {cut(text)}: write 1..4 or 1,7,20..30") from None
        if high < low:
            raise ConfigError(
                f"--seeds {cut(text)}: {cut(part)} is a falling range: write {high}..{low}"
            )
        if high - low >= _MOST_SEEDS:
            raise ConfigError(
                f"--seeds {cut(text)}: {cut(part)} is {high - low + 1:,} seeds of each prompt"
            )
        seeds += range(low, high + 1)
    return seeds


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value:
        raise ConfigError(f"{option} {cut(text)}: write {form}")
    return name.strip(), value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
