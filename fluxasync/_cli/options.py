"""What users write, made into the library's own values.

No option is checked twice: ranges and names belong to the catalogue, the template and the policies,
which raise ConfigError with the allowed values. Odd fact: there is no `--api-key`. Arguments are
seen by everybody on the machine (`ps`), so a key comes from the environment or a file.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from attrs import frozen
from cyclopts import (
    CoercionError,
    CycloptsError,
    Parameter,
    Token,
    UnusedCliTokensError,
    ValidationError,
)

from .._core.arguments import local_path
from .._core.config import Polling
from .._core.errors import ConfigError
from .._core.models import DEFAULT_MODEL as DEFAULT_MODEL
from .._requests.catalog import find, models_with, unknown_parameter_message
from .._wire.providers import provider_by_name

#: bytes; a file longer than this is not a key
_LONGEST_KEY = 4096


def _check_local(_type: Any, path: Path | None) -> None:
    if path is not None:
        local_path("", path)


#: a path on this machine: a URL such as s3://bucket/run is refused
LocalPath = Annotated[Path, Parameter(validator=_check_local)]

_KINDS = {int: "a whole number", float: "a number"}


def usage(error: CycloptsError) -> str:
    """Return what is wrong with a command line, and what to do about it."""
    match error:
        case UnusedCliTokensError(unused_tokens=list(unused)):
            return _unused(unused, error.command_chain or ())
        case CoercionError(token=Token() as token):
            kinds = [_KINDS[kind] for kind in _KINDS if kind in _kinds(error.target_type)]
            kinds += [text for text in _kinds(error.target_type) if isinstance(text, str)]
            if kinds:
                return f"{_option(error)} {token.value}: must be {' or '.join(kinds)}."
        case ValidationError() if isinstance(error.__cause__, ConfigError):
            return f"{_option(error)}{error.__cause__!s}."
    return str(error)


def _unused(unused: Sequence[str], command: Sequence[str]) -> str:
    words = " ".join(unused)
    if tuple(command) == ("generate",):
        return f'unexpected {words}: put a prompt of several words in quotes, as in "a red fox".'
    return f"unexpected {words}: put an argument that has spaces in quotes."


def _kinds(target: Any) -> tuple[Any, ...]:
    """Return the types that a hint such as `int | Literal["auto"] | None` consists of."""
    inner = get_args(target)
    return tuple(kind for each in inner for kind in _kinds(each)) if inner else (target,)


def _option(error: CycloptsError) -> str:
    token = getattr(error, "token", None)
    if token is not None and token.keyword:
        return str(token.keyword)
    return "" if error.argument is None else error.argument.name


@Parameter(name="*")
@frozen(kw_only=True)
class Options:
    """What `generate` and `run` have in common."""

    model: Annotated[
        str, Parameter(help=f"Model (default: {DEFAULT_MODEL}). See fluxasync models.")
    ] = DEFAULT_MODEL
    param: Annotated[
        tuple[str, ...],
        Parameter(
            help="Model parameter, as K=V, for rows that do not set it. V is JSON, else text. "
            "A column takes precedence. Repeatable.",
        ),
    ] = ()
    provider: Annotated[
        str | None,
        Parameter(help="cometapi or bfl (default: the provider whose key is set)."),
    ] = None
    base_url: Annotated[
        str | None, Parameter(help="Base URL of the API, if not the provider's own.")
    ] = None
    key_file: Annotated[
        LocalPath | None,
        Parameter(help="File that holds the key (default: COMETAPI_KEY or BFL_API_KEY)."),
    ] = None
    simulate: Annotated[
        bool, Parameter(help="Use the built-in simulator. Costs nothing and needs no key.")
    ] = False
    allow_unknown_models: Annotated[
        bool,
        Parameter(help="Send a model name that is not in the catalogue but resembles one that is."),
    ] = False
    json: Annotated[
        bool, Parameter(help="Print one JSON object per line (images and events) instead of paths.")
    ] = False
    quiet: Annotated[bool, Parameter(help="Print no progress and no summary, only problems.")] = (
        False
    )

    @property
    def parameters(self) -> dict[str, Any]:
        """The `--param` options as values.

        Raises ConfigError for one without `=` and for a name that no Flux model knows: in a prompt
        file such a key is the user's own, on the command line it can only be a slip.
        """
        given = dict(_parameter(text) for text in self.param)
        model = find(self.model)
        for name in given:
            if model is not None and name != "extra_body" and not models_with(name):
                reason = unknown_parameter_message(name, model, ())
                step = "" if "; " in reason else "; fluxasync models lists what it takes"
                raise ConfigError(f"--param {reason}{step}")
        return given

    @property
    def provider_named(self) -> str | None:
        """The `--provider`. Raises ConfigError for one that is not known."""
        if self.provider is not None:
            provider_by_name(self.provider, as_written=f"--provider {self.provider[:40]}")
        return self.provider


def read_lag(lag: float | None) -> Polling:
    """Return what `--polling-lag` says. Raises ConfigError."""
    try:
        return Polling.of(lag)
    except ConfigError as error:
        reason = str(error).partition("): ")[2]  # after the name that it has in Python
        raise ConfigError(f"--polling-lag {lag:g}: {reason}") from None


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--param {text}: say NAME=VALUE, for example --param seed=7")
    if name.strip() in ("prompt", "model"):
        raise ConfigError(f"--param {text}: {name.strip()} has its own place on the command line")
    return name.strip(), _value(value)


@Parameter(name="*")
@frozen(kw_only=True)
class Lists:
    """How `run` reads its prompts, and what each of them is multiplied by."""

    prompt_column: Annotated[
        str | None, Parameter(help="Column that holds the prompts (default: prompt).")
    ] = None
    map: Annotated[
        tuple[str, ...],
        Parameter(
            help="Column of a parameter, as PARAMETER=COLUMN. extras.NAME=COLUMN keeps a column "
            "as metadata. Repeatable."
        ),
    ] = ()
    seeds: Annotated[
        str | None,
        Parameter(help="Make every prompt with each of these seeds, e.g. 1..4 or 1,7,20..30."),
    ] = None
    models: Annotated[
        str | None, Parameter(help="Make every prompt with each of these models, as A,B.")
    ] = None
    grid: Annotated[
        tuple[str, ...],
        Parameter(
            help="Make every prompt with each value of a parameter, as NAME=V,V. Repeatable."
        ),
    ] = ()
    wildcards: Annotated[
        LocalPath | None,
        Parameter(
            help="Expand {red|grey} in prompts, and __animals__ from the lines of "
            "animals.txt in this folder."
        ),
    ] = None
    sample: Annotated[
        int | None,
        Parameter(help="Use a random sample of this many rows. The sample is the same every time."),
    ] = None
    sample_seed: Annotated[int, Parameter(help="Random seed of the sample (default: 0).")] = 0
    allow_files: Annotated[
        tuple[Path, ...],
        Parameter(
            help="Folder whose files the list may name as image inputs (default: only the list's "
            "own folder). Repeatable."
        ),
    ] = ()

    def keywords(self) -> dict[str, Any]:
        """The arguments of Prompts. Raises ConfigError for what cannot be read."""
        return {
            "columns": self._columns(),
            "seeds": None if self.seeds is None else seeds_of(self.seeds),
            "models": None if self.models is None else _parts(self.models),
            "grid": self._grid(),
            "wildcards": self.wildcards or False,
            "sample": self.sample,
            "sample_seed": self.sample_seed,
            "allow_files": self.allow_files,
        }

    def _columns(self) -> dict[str, str]:
        columns = dict(_pair(text, "--map", "PARAMETER=COLUMN") for text in self.map)
        if self.prompt_column is not None:
            if "prompt" in columns:
                raise ConfigError("--prompt-column and --map both name a column for the prompt")
            columns["prompt"] = self.prompt_column
        return columns

    def _grid(self) -> dict[str, list[Any]]:
        grid: dict[str, list[Any]] = {}
        for text in self.grid:
            name, values = _pair(text, "--grid", "NAME=V,V")
            if name in grid:
                raise ConfigError(f"--grid {name} stands twice; say {name}=V,V")
            grid[name] = [_value(part) for part in _parts(values)]
        return grid


#: seeds of one range; more images of one prompt are refused anyway, with a better reason
_MOST_SEEDS = 100_000


def seeds_of(text: str) -> list[int]:
    """Return the seeds that "1..4,9" says. Raises ConfigError, with the form to use."""
    seeds: list[int] = []
    for part in _parts(text):
        first, dots, last = part.partition("..")
        try:
            low, high = int(first), int(last if dots else first)
        except ValueError:
            raise ConfigError(f"--seeds {text}: say 1..4 or 1,7,20..30") from None
        if high < low:
            raise ConfigError(f"--seeds {text}: {part} goes backwards; say {high}..{low}")
        if high - low >= _MOST_SEEDS:
            raise ConfigError(f"--seeds {text}: {part} is {high - low + 1:,} seeds of each prompt")
        seeds += range(low, high + 1)
    return seeds


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value:
        raise ConfigError(f"{option} {text}: say {form}")
    return name.strip(), value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def read_key(path: Path) -> tuple[str, str | None]:
    """Return the key in the file's first line, and a warning if others can read or change it.

    Raises ConfigError, never showing the content, when there is no key in it.
    """
    try:
        with path.open("rb") as file:
            first_line = file.readline(_LONGEST_KEY + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise ConfigError(f"--key-file {path}: {error.strerror}") from None
    try:
        key = first_line.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or len(first_line) > _LONGEST_KEY:
        raise ConfigError(f"--key-file {path}: its first line is not a key")
    exposed = _exposed(mode) if stat.S_ISREG(mode) else None
    return key, exposed and f"{path} can be {exposed}; chmod 600 {path}"


def _exposed(mode: int) -> str | None:
    """Return who else may do what to a file with these permissions, None for no one."""
    everyone, group = "every user of this machine", "every user of its group"
    cases = (
        (stat.S_IWOTH, f"changed by {everyone}"),
        (stat.S_IROTH, f"read by {everyone}"),
        (stat.S_IWGRP, f"changed by {group}"),
        (stat.S_IRGRP, f"read by {group}"),
    )
    return next((text for bit, text in cases if mode & bit), None)
