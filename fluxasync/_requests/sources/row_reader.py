"""One row → one checked request, with the defaults for all rows.

A row is text (the prompt), an object, or an ImageRequest of the program. Errors carry no place: the
caller, which knows it, adds it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import evolve

from ..._core.addresses import private_host
from ..._core.errors import VALUE_LENGTH, ConfigError
from ..._core.models import DEFAULT_MODEL, ImageInput, ImageRequest
from ..._core.strict_json import parsed_object
from ..catalog import find, models_with, validate
from ..image_inputs import named_inputs, resolve_now, with_inputs
from ..parsing import ROW_KEYS, parse_request
from .column_names import EXTRAS
from .columns import Columns, with_typed_cells
from .layout import Layout
from .lines import decoded
from .nesting import draws, one_by_one, unnested
from .object_cells import given_cells, refuse_bytes, refuse_picture
from .plan import BadRow, ExpandedRow, FirstNames, requests_of
from .prompt_syntax import Syntax, SyntaxCheck
from .sample_prompts import is_comment, row_of
from .structured_prompts import begins_with_choices, is_prompt, structured_prompt

if TYPE_CHECKING:
    from .column_template import UsedColumns
    from .expansion import Expansion

#: what one good row is
ParsedRow = ImageRequest | ExpandedRow

#: the result of reading one row; None = blank
RowResult = ParsedRow | BadRow | None


class RowDialect(Enum):
    """How a line is written."""

    TEXT = "a prompt a line"
    JSON = "an object a line"
    EITHER = "an object if it starts with {, else a prompt"


class RowReader:
    """Reads rows and collects the keys that no model has."""

    def __init__(
        self,
        *,
        defaults: Mapping[str, Any],
        n: int,
        dialect: RowDialect,
        base: Path | None = None,
        columns: Columns | None = None,
        spread: Expansion | None = None,
        allow_files: tuple[str, ...] = (),
        is_local: bool = False,
        layout: Layout | None = None,
        syntax: Syntax = Syntax.CHECKED,
        is_trusted: bool = False,
        used: UsedColumns | None = None,
    ) -> None:
        self.layout = layout or Layout()
        self.columns = columns or Columns()
        self.spread = spread
        self.used = used if used is not None and (used.template or used.in_names) else None
        self.base = base  #: folder of relative image paths; None = the current one
        self.unknown_keys = FirstNames()  #: that only the metadata carries
        self.unchecked_keys = FirstNames()  #: sent to models that the catalogue lacks
        self.notes = FirstNames()  #: remarks about how the source was read, for people
        #: where the files are that rows may name: the list's folder, or the current one, and others
        self.allowed = (os.path.realpath(base or "."), *allow_files)
        self._allow_files = allow_files
        self.is_sharded = False  #: the list has several files
        self._syntax = syntax
        #: None where everything is sent as it is; prompts of a program are only warned of
        self.syntax_check = (
            None
            if syntax is Syntax.AS_WRITTEN
            else SyntaxCheck(
                refuses=not is_trusted,
                templates_are_read=spread is not None and spread.wildcards is not None,
            )
        )
        self._is_local = is_local  #: the provider is on this machine, so rows may name it
        self._unseen = dict(self.columns.sources)  #: mapped columns that no object had so far
        self._objects = 0
        self.defaults = dict(defaults)  #: for all rows
        self._n = n
        #: defaults that no row has used so far; the batch checks the model
        self._unused = {name for name, value in defaults.items() if value is not None} - {"model"}
        if n != 1:
            self._unused.add("n")
        self._is_empty = True  #: no good row so far
        self._dialect = dialect

    @property
    def has_template(self) -> bool:
        """Whether the prompts are filled in from columns."""
        return self.used is not None and self.used.template is not None

    def line(self, raw: bytes) -> ParsedRow | None:
        """Return the line's request, or None if it is blank."""
        text = decoded(raw).strip()
        if not text:
            return None
        if self._dialect is RowDialect.TEXT:
            return self.text(text)
        if self._dialect is RowDialect.EITHER:
            is_object = text.startswith("{") and not begins_with_choices(text)
            row = unnested(parsed_object(text), self.columns.sources) if is_object else None
            if row is None or self._is_prompt(row):
                return self.text(text)
            return self.object(row)
        return self.object(parsed_object(text))

    def text(self, text: str, **more: Any) -> ParsedRow | None:
        """Return the request of a prompt that is a line or a file, or None for a comment."""
        if self._syntax in (Syntax.COMMENTS, Syntax.SAMPLE_PROMPTS):
            kept = [line for line in text.split("\n") if not is_comment(line.lstrip())]
            text = "\n".join(kept).strip()
            if not text:
                return None
        row = row_of(text) if self._syntax is Syntax.SAMPLE_PROMPTS else {"prompt": text}
        row = {**row, **more}
        if self.used is None:
            return self.row(row, is_line=True)
        return self.row(self.used.applied(row, row), is_line=True, line=text)

    def prompt(self, text: str) -> ParsedRow:
        """Return the request of a prompt that is an item of a list."""
        row = {"prompt": text}
        return self.row(row if self.used is None else self.used.applied(row, row))

    def _is_prompt(self, row: Mapping[str, Any]) -> bool:
        """Whether an object on standard input is a prompt of its own, and not a row."""
        if self.columns.sources or self.defaults.get("prompt") is not None or self.has_template:
            return False
        if draws(row, self.columns.sources):
            return False
        return is_prompt(row, as_written=self._syntax is Syntax.AS_WRITTEN)

    def item(self, given: object) -> ParsedRow | None:
        """Return the request of an item of the program."""
        if isinstance(given, ImageRequest):
            self._is_empty = False
            if given.n == 1:
                given = evolve(given, n=self._n)
                self._unused.discard("n")
            if self.used is not None:
                given = self.used.checked(given)
            return validate(given) if self.spread is None else self._variants(_as_row(given), {})
        if isinstance(given, str):
            return self.text(given)
        if isinstance(given, Mapping):
            return self.object(given)
        kind = type(given).__name__
        raise ConfigError(f"a request is text, a dict or an ImageRequest, not {kind}")

    def object(self, row: Mapping[str, Any]) -> ParsedRow:
        """Return the request of an object, its columns renamed."""
        self._objects += 1
        row = unnested(row, self.columns.sources)
        if self._unseen:
            unseen = {name: column for name, column in self._unseen.items() if column not in row}
            self._unseen = unseen
        named = self.columns.renamed(row)
        cells = given_cells(named, partial(self._leave_out, named))
        return self.row(cells if self.used is None else self.used.applied(cells, row))

    def enter(self, base: Path) -> None:
        """Take the rows that follow as those of a file in this folder."""
        if base != self.base:
            self.base = base
            self.allowed = (os.path.realpath(base), *self._allow_files)

    def columns_of(self, names: Sequence[str]) -> Columns:
        """Return the mapping for a table with these columns.

        One of several files may lack a mapped column, but not all of them, and not the prompt's.
        """
        if not self.is_sharded:
            return self.columns
        there = self.columns.among(names).sources
        self._objects += 1
        self._unseen = {to: name for to, name in self._unseen.items() if to not in there}
        prompt = {to: name for to, name in self.columns.sources.items() if to == "prompt"}
        return Columns({**prompt, **there})

    def _leave_out(self, row: Mapping[str, Any], name: str) -> None:
        """Note a cell of bytes that is left out."""
        refuse_bytes(row, name, row.get("model") or self.defaults.get("model"))
        name = name.removeprefix(EXTRAS)[:40]
        self.notes.add(f"left out, because bytes are no metadata: {name}")

    def refuse_unseen(self) -> None:
        """Raise ConfigError for a column named by the caller that no object had."""
        if self._objects and self._unseen:
            lines = [
                f"no row has {column!r}, which {target} was to come from"
                for target, column in self._unseen.items()
            ]
            raise ConfigError(f"columns: {'; '.join(lines)}")

    def refuse_unused(self) -> None:
        """Raise ConfigError for a default that no row used: it was never checked."""
        if self._unused and not self._is_empty:
            name = min(self._unused)
            raise ConfigError(
                f"{name}: given for all rows, but no row takes it: each has its own {name}, or a "
                "model without one. Leave it out, or remove it from the rows"
            )

    def all_notes(self) -> list[str]:
        """Return the remarks for people, once all rows were read."""
        spread = [] if self.spread is None else self.spread.notes()
        return [*spread, *self.notes]

    def row(self, row: Mapping[str, Any], *, is_line: bool = False, line: str = "") -> ParsedRow:
        """Return the requests of a row whose keys are names of parameters.

        A prompt that is an object is sent as its JSON text. `is_line`: the prompt is a line of
        text, which may also be a comment; `line` is what it was before a template took it in.
        """
        if "input_image" in row:
            row = one_by_one(row)
        prompt = row.get("prompt")
        if isinstance(prompt, Mapping | list | tuple):
            row = {**row, "prompt": structured_prompt(prompt)}
        elif self.syntax_check is not None and isinstance(prompt, str):
            self.syntax_check.look(line or prompt, is_line=is_line)
            if line:
                self.syntax_check.look_again(prompt)
            if "{" in prompt and not self.has_template:
                self.syntax_check.look_for_columns(prompt, row)
        if self._n != 1 and row.get("n") is None:
            row = {**row, "n": self._n}
            self._unused.discard("n")
        if self.spread is None:
            return self._request(row, self.defaults, row)
        return self._variants(row, self.defaults)

    def row_of_texts(self, row: Mapping[str, Any]) -> ParsedRow:
        """Return the requests of a row whose cells are text, where no parameter gave them a type:
        for a model that the catalogue lacks, a number is sent as a number."""
        spread = () if self.spread is None else self.spread.models
        models = spread or (row.get("model") or self.defaults.get("model") or DEFAULT_MODEL,)
        if any(isinstance(model, str) and find(model) is None for model in models):
            row = with_typed_cells(row)
        return self.row(row)

    def _request(
        self, row: Mapping[str, Any], defaults: Mapping[str, Any], own: Mapping[str, Any]
    ) -> ImageRequest:
        """Return the request of a row; `own` holds what the list gave."""
        if isinstance(defaults.get("input_image"), list | tuple):
            defaults = _with_own_images(defaults, row)
        try:
            request = parse_request(row, defaults=defaults)
        except ConfigError as error:
            if not str(error).endswith(": not the name of a model") or "model" not in own:
                raise
            raise ConfigError(
                f"{error}; to keep it as metadata: --map extras.model=model"
            ) from None
        self._note_used(row, request)
        if image_inputs(request):
            request = self._confined(request, own)
        for name in request.extras:
            if name in row:  # not from the object that is named "extras" on purpose
                refuse_picture(request, name, self.base)
                self.unknown_keys.add(name if len(name) <= VALUE_LENGTH else f"{name[:80]}…")
        if request.parameters and find(request.model) is None:
            for name in request.parameters:
                if not models_with(name):
                    self.unchecked_keys.add(name)
        return request

    def _note_used(self, row: Mapping[str, Any], request: ImageRequest) -> None:
        self._is_empty = False
        if self._unused:
            given = request.given()
            taken = {name for name in self._unused if name in given or name in ROW_KEYS}
            self._unused -= {name for name in taken if row.get(name) is None}

    def _confined(self, request: ImageRequest, own: Mapping[str, Any]) -> ImageRequest:
        """Return the request with paths from the list limited to the allowed folders.

        Text of a row may come from another person; a Path or an ImageInput comes from the program.
        """

        def confined(name: str, image: ImageInput) -> ImageInput:
            if not isinstance(_written(own, name), str):
                return image
            _refuse_url(name, image, is_local=self._is_local)
            return evolve(image, within=self.allowed)

        return with_inputs(request, confined)

    def _variants(self, row: Mapping[str, Any], defaults: Mapping[str, Any]) -> ExpandedRow:
        assert self.spread is not None  # noqa: S101 — asked before
        made = []
        for variant in self.spread.rows(row, defaults):
            try:
                made.append(self._request(variant, defaults, row))
            except ConfigError as error:
                raise ConfigError(f"{error}{self.spread.described(variant)}") from None
        return ExpandedRow(tuple(made))


def _written(row: Mapping[str, Any], name: str) -> object:
    """Return what a row has for an image input; for `images[1]`, the second of its list."""
    name, _, place = name.partition("[")
    given = row.get(name)
    if place and isinstance(given, list | tuple):
        return given[int(place.removesuffix("]"))]
    return given


def _with_own_images(defaults: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the defaults with the images of a list one by one; a row's own replace them all."""
    if row.get("input_image") is None:
        return one_by_one(defaults)
    return {name: value for name, value in defaults.items() if name != "input_image"}


def _as_row(request: ImageRequest) -> dict[str, Any]:
    """Return a row that describes the request."""
    rest = {"extra_body": request.extra_body, "extras": request.extras, "name": request.name}
    return {**request.given(), "model": request.model, "n": request.n, **rest}


def _refuse_url(name: str, image: ImageInput, *, is_local: bool) -> None:
    """Raise ConfigError for a list's URL that holds a password, or points into a network."""
    if image.url is None:
        return
    parts = urlsplit(image.url)
    if "@" in parts.netloc:
        raise ConfigError(f"{name}: the URL holds a user name or password; give one without")
    if not is_local and private_host(parts.hostname or ""):
        raise ConfigError(
            f"{name}: {str(parts.hostname)[:60]} is not on the public internet, where the provider "
            "fetches images; give a public URL or a path"
        )


def image_inputs(parsed: ParsedRow) -> list[ImageInput]:
    """Return the image inputs of a row."""
    if isinstance(parsed, ExpandedRow):
        return [image for request in requests_of(parsed) for image in image_inputs(request)]
    if parsed.image_prompt is None and not parsed.parameters:
        return []
    return [image for _, image in named_inputs(parsed)]


def with_inputs_read(parsed: ParsedRow | None, *, base: Path | None) -> ParsedRow | None:
    """Return the row with its image inputs read, in the calling thread. Raises ConfigError."""
    if parsed is None or not image_inputs(parsed):
        return parsed
    if isinstance(parsed, ImageRequest):
        return resolve_now(parsed, base=base)
    return ExpandedRow(tuple(resolve_now(request, base=base) for request in parsed.requests))
