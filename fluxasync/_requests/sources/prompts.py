"""`Prompts`: what to generate, and how its rows become requests."""

from __future__ import annotations

import os
import reprlib
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import Any

from attrs import Attribute, field, fields, frozen

from ..._core.arguments import check_type, local_path
from ..._core.errors import ConfigError
from ..._core.models import DEFAULT_MODEL, ImageRequest
from ..catalog.table import find, models_with
from ..image_inputs import Folders, allowed_folders
from ..parsing import ROW_KEYS
from .column_template import ColumnTemplate, UsedColumns
from .columns import Columns
from .expansion import Expansion, axis_values, no_axis_message
from .layout import Layout
from .prompt_syntax import Syntax
from .spool import Sample


def _check_source(_: object, __: Attribute[Any], given: Any) -> None:
    if isinstance(given, str | os.PathLike):
        local_path("source", given)
        return
    if isinstance(given, list | tuple) and any(isinstance(each, os.PathLike) for each in given):
        for each in given:
            if not isinstance(each, os.PathLike):
                kind = type(each).__name__
                raise ConfigError(f"a list of files has paths only (pathlib.Path), not {kind}")
            local_path("source", each)
        return
    if isinstance(given, Mapping | ImageRequest):
        raise ConfigError("a source is a file or many requests; put this one into a list")
    if type(given).__name__ == "DataFrame":  # iterating one yields the names of its columns
        raise ConfigError('a DataFrame is given as its rows: df.to_dict("records")')
    if isinstance(given, bytes | bytearray) or not isinstance(given, Iterable | AsyncIterable):
        kind = type(given).__name__
        raise ConfigError(f"a source is a path or an iterable of prompts, not {kind}")


def _parameters(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if given is None:
        return {}
    check_type("parameters", given, Mapping, expected='as {"width": 512}')
    for name in given:
        check_type("parameters", name, str, expected="names are text")
    return dict(given)


def _grid(given: Mapping[str, Iterable[Any]] | None) -> Mapping[str, Sequence[Any]] | None:
    check_type("grid", given, Mapping, type(None), expected='as {"guidance": [2, 3.5]}')
    if given is None:
        return None
    return {name: axis_values(name, values) for name, values in given.items()}


def _seeds(given: Iterable[int] | None) -> Sequence[int] | None:
    return None if given is None else axis_values("seed", given, argument="seeds")


def _models(given: Iterable[str] | None) -> Sequence[str] | None:
    return None if given is None else axis_values("model", given, argument="models")


def _columns(given: Mapping[str, str] | None) -> Mapping[str, str]:
    return Columns.of(given).sources


def _check_syntax(_: object, __: Attribute[Any], given: Any) -> None:
    known = [each.value for each in Syntax]
    if given not in known:
        raise ConfigError.about("syntax", f"one of {', '.join(known)}", value=given)


@frozen
class Prompts:
    """What to generate, and how its rows become requests: `Prompts("prompts.csv", n=4)`.

    A bare path or iterable means `Prompts(it)`. The value can be used for several runs, except with
    an iterator as source.

    Args:
        source: a prompt file (.txt, .jsonl, .json, .csv, .tsv, .xlsx, .parquet; text formats also
            as .gz), a folder of .txt files or of one kind of list, a list of paths (`pathlib.Path`)
            of one kind, "-" for standard input, or an iterable or async iterable of text, dicts and
            ImageRequests. Text in a list is a prompt, never a path. Files and lists are checked
            whole before anything is spent; other iterables and standard input are checked row by
            row.
        template: makes each prompt from the columns of its row: "{colour} {product} on marble".
            Braces themselves are doubled. A column that the list lacks, and an empty cell, are
            errors before anything is spent. Columns that are no parameters stay in the metadata.
        model: model of rows that name none (default: flux-dev).
        parameters: parameters of rows that lack them, as {"width": 512}. They take precedence over
            the model's defaults. One that no row uses is an error.
        n: images per row, where the row does not say; 1 to 10,000 (default: 1).
        seeds, models: values by which every row is multiplied.
        grid: parameters whose values multiply every row, as {"guidance": [2, 3.5]}.
        wildcards: True multiplies prompts by their {red|grey} choices; a folder also by the lines
            of its lists: `__animals__` is a line of animals.txt.
        sample: number of rows to take from a file or list (default: all). The choice depends only
            on the rows and `sample_seed`, so every run takes the same ones.
        sample_seed: chooses another sample (default: 0).
        columns: names of columns that differ from the parameters' names, as
            {"prompt": "caption", "width": "w"}; "extras.NAME" keeps a column as metadata.
        header: False says that a .csv, .tsv or .xlsx has no row of names. Its columns are then
            given by their place, counted from 1, as {"prompt": "1"}; others are column_2 and so on
            in the metadata.
        sheet: name of the sheet in an .xlsx (default: the first visible one).
        rows: the key of the rows in a .json object, or the path of keys, as "data.items".
        allow_files: further folders whose files rows may name as image inputs. Rows may always name
            files below the list's own folder (rows of the program: the current folder). Path and
            ImageInput objects may be anywhere.
        skip_bad: continue past rows that are not requests; each becomes a Failed outcome
            (default: False, a bad row of a file or list is an error before anything is spent).
        syntax: what marks of other tools in prompts mean, such as `# comment`, `--ar 16:9` or
            `{a|b}` without `wildcards`. "checked": a file or standard input is refused if half of
            its prompts or more have them, else there is a warning (default). "as-written": they are
            sent. "comments": lines that start with # or // are left out. "sample-prompts": kohya's
            options in lines of text, as --w 768 --d 7, are read.
        limit: stop after this number of images (default: no limit).
        prepared: True says that the source is ImageRequests that `fluxasync.prepare` numbered:
            index, occurrence and so `key` are kept, and nothing is added from here, so of the
            other arguments only `skip_bad` and `limit` may be given. Use it for a part of a list,
            in any order and with gaps. Two requests with the same key are the same image, so the
            second one is a bad row: in a list before anything is spent, in a stream a Failed
            outcome that costs nothing.

    Raises ConfigError for a value that cannot be used. Files are opened later, by the run.
    """

    source: Any = field(validator=_check_source)
    template: str | None = field(default=None, kw_only=True)
    model: str | None = field(default=None, kw_only=True)
    parameters: Mapping[str, Any] = field(default=None, converter=_parameters, kw_only=True)
    n: int = field(default=1, kw_only=True)
    seeds: Sequence[int] | None = field(default=None, converter=_seeds, kw_only=True)
    models: Sequence[str] | None = field(default=None, converter=_models, kw_only=True)
    grid: Mapping[str, Sequence[Any]] | None = field(default=None, converter=_grid, kw_only=True)
    wildcards: bool | str | os.PathLike[str] = field(default=False, kw_only=True)
    sample: int | None = field(default=None, kw_only=True)
    sample_seed: int = field(default=0, kw_only=True)
    columns: Mapping[str, str] = field(default=None, converter=_columns, kw_only=True)
    header: bool = field(default=True, kw_only=True)
    rows: str | None = field(default=None, kw_only=True)
    sheet: str | None = field(default=None, kw_only=True)
    allow_files: Folders = field(default=(), converter=allowed_folders, kw_only=True)
    skip_bad: bool = field(default=False, kw_only=True)
    syntax: str = field(default="checked", validator=_check_syntax, kw_only=True)
    limit: int | None = field(default=None, kw_only=True)
    prepared: bool = field(default=False, kw_only=True)

    def __repr__(self) -> str:
        is_place = isinstance(self.source, str | os.PathLike)
        given = [repr(self.source) if is_place else reprlib.repr(self.source)]
        for each in fields(Prompts)[1:]:
            value = getattr(self, each.name)
            if value != each.default and (value or value is False):
                given.append(f"{each.name}={value!r}")
        return f"Prompts({', '.join(given)})"

    def __attrs_post_init__(self) -> None:
        check_type("model", self.model, str, type(None), expected="a model's name")
        self._check_names()
        self._check_counts()
        self._check_given_once()
        self._check_prepared()
        expansion_of(self)
        self._check_template()
        layout = layout_of(self)
        if not layout.header and not self.paths:
            raise ConfigError("header=False is for a .csv, .tsv or .xlsx file")
        if layout.rows is not None and not self.paths:
            raise ConfigError("rows is for a .json file")
        if layout.sheet is not None and not self.paths:
            raise ConfigError("sheet is for an .xlsx file")
        if sample_of(self) is not None and not self._can_be_sampled:
            raise ConfigError(
                "a sample needs a file or a list: of a stream the end is not known ahead"
            )

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters of rows that lack them, the model among them."""
        return {**self.parameters, **({"model": self.model} if self.model else {})}

    @property
    def paths(self) -> tuple[os.PathLike[str], ...]:
        """The files and folders to read; none for standard input and objects of the program."""
        if isinstance(self.source, list | tuple):
            return tuple(each for each in self.source if isinstance(each, os.PathLike))
        if not isinstance(self.source, str | os.PathLike) or os.fspath(self.source) == "-":
            return ()
        return (local_path("source", self.source),)

    @property
    def _can_be_sampled(self) -> bool:
        return bool(self.paths) or isinstance(self.source, list | tuple)

    def _check_names(self) -> None:
        """Refuse names that no model has, unless they may be those of a model that the catalogue
        lacks; in a row they would be metadata."""
        models = [*(self.models or ()), self.model or DEFAULT_MODEL]
        if any(isinstance(model, str) and find(model) is None for model in models):
            return
        for name in self.parameters:
            if name not in ROW_KEYS and not models_with(name):
                raise ConfigError(
                    f"{name[:60]!r}: no model of the catalogue has such a parameter; to send it "
                    f'all the same: extra_body={{"{name[:60]}": …}}'
                )
        for name in self.grid or ():
            if not models_with(name):
                raise ConfigError(no_axis_message(name))

    def _check_counts(self) -> None:
        check_type("n", self.n, int, expected="a whole number, 1 to 10,000")
        check_type(
            "limit", self.limit, int, type(None), expected="a whole number, or None for no limit"
        )
        if not 1 <= self.n <= 10_000:
            raise ConfigError.about("n", "1 to 10,000 images of a prompt", value=self.n)
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit={self.limit}: 1 or more images, or none for no limit")

    def _check_prepared(self) -> None:
        check_type("prepared", self.prepared, bool, expected="True or False")
        if not self.prepared:
            return
        if self.paths or isinstance(self.source, str | os.PathLike):
            raise ConfigError(
                "prepared=True takes ImageRequests, not a file; fluxasync.prepare() makes them"
            )
        for each in fields(Prompts):
            if each.name in ("source", "prepared", "skip_bad", "limit"):
                continue
            if getattr(self, each.name) not in (each.default, {}):
                raise ConfigError(
                    f"{each.name}: prepared requests are taken as they are; give it to "
                    f"fluxasync.prepare(Prompts(…, {each.name}=…))"
                )

    def _check_template(self) -> None:
        used_by(self)
        if self.template is not None and "prompt" in self.columns:
            raise ConfigError(
                "a template (--prompt) and a column of the prompts (--prompt-column): write "
                "{COLUMN} in the template, and leave the other out"
            )
        if self.template is not None and self.parameters.get("prompt") is not None:
            raise ConfigError("a template and a prompt for all rows: leave one out")

    def _check_given_once(self) -> None:
        varied = [*(self.grid or ()), *(("seed",) if self.seeds is not None else ())]
        if self.models is not None:
            varied.append("model")
        for name in varied:
            if self.defaults.get(name) is not None:
                raise ConfigError(
                    f"{name}: given once for all rows and as values to vary; remove one"
                )


def expansion_of(prompts: Prompts) -> Expansion | None:
    """Return what multiplies each row, with no wildcard list read yet."""
    return Expansion.of(
        seeds=prompts.seeds,
        models=prompts.models,
        grid=prompts.grid,
        wildcards=prompts.wildcards,
        allow_files=allowed_folders(prompts.allow_files),
        foreign_marks=prompts.syntax == Syntax.AS_WRITTEN.value,
    )


def layout_of(prompts: Prompts) -> Layout:
    """Return what the caller says about the form of the list."""
    return Layout(header=prompts.header, rows=prompts.rows, sheet=prompts.sheet)


def used_by(prompts: Prompts) -> UsedColumns:
    """Return the columns that every row needs."""
    template = prompts.template
    return UsedColumns(
        template=None
        if template is None
        else ColumnTemplate.parse(template, has_choices=bool(prompts.wildcards)),
        is_as_written=prompts.syntax == Syntax.AS_WRITTEN.value,
    )


def sample_of(prompts: Prompts) -> Sample | None:
    """Return the size and the seed of the sample, None for all rows."""
    return None if prompts.sample is None else Sample(prompts.sample, prompts.sample_seed)
