"""A template whose columns are filled in for each row: `{colour} {product} on marble, 50mm`.

A column is filled in as the list has it, before anything else is done with the prompt: the filled
prompt is what is checked, multiplied, priced and keyed, as if the list had it in a column of
prompts. `{{` and `}}` are braces. Where prompts have choices (`wildcards`), `{red|grey}` and
`${x}` stay for them; columns inside of choices are filled in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from ..._core.arguments import check_type
from ..._core.errors import ConfigError, cut
from ..._core.models import ImageRequest
from ..cells import NoMetadata, plain
from ..parsing import ROW_KEYS, listed
from .column_names import kind_of, short, target_of

#: whole numbers that a float has exactly: pandas writes those of a column with gaps as 12.0
_EXACT = 2**53

_IS_CHOICE = re.compile(r"[|]|\$\$")
_NAMED = re.compile(r"\\?\{([^{}]+)\}")


@frozen
class ColumnTemplate:
    """Text and columns, one after another; made with `ColumnTemplate.parse`."""

    text: str
    #: a text, or the name of a column: (text, whether it is a name)
    parts: tuple[tuple[str, bool], ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str, *, has_choices: bool = False) -> ColumnTemplate:
        """Read a template. Raises ConfigError with the place of a brace that fits nowhere."""
        check_type("template", text, str, expected='text such as "{colour} {product} on marble"')
        if not text.strip():
            raise ConfigError("template: an empty text, which is no prompt")
        return cls(text, tuple(_joined(_Reader(text, has_choices=has_choices).parts())))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns, each once."""
        return tuple(dict.fromkeys(text for text, is_name in self.parts if is_name))

    def filled(self, cells: Mapping[Any, Any]) -> str:
        """Return the prompt of a row. Raises ConfigError with the column that it lacks."""
        return "".join(
            cell_text(text, cells, "the template") if is_name else text
            for text, is_name in self.parts
        )


class _Reader:
    """Cuts a template into texts and names."""

    def __init__(self, text: str, *, has_choices: bool) -> None:
        self._text = text
        self._has_choices = has_choices
        self._open = 0  #: choices that are open here

    def parts(self) -> Iterator[tuple[str, bool]]:
        text, place = self._text, 0
        while place < len(text):
            pair = text[place : place + 2]
            if self._has_choices and pair[0] == "\\":
                yield pair, False
            elif not self._open and pair in ("{{", "}}"):
                yield (f"\\{pair[0]}" if self._has_choices else pair[0]), False
            elif pair[0] == "{":
                name = self._name(place)
                if name is not None:
                    yield name.strip(), True
                    place += len(name) + 2
                else:
                    self._open += 1
                    yield "{", False
                    place += 1
                continue
            elif pair[0] == "}":
                if not self._open:
                    raise self._fault(place, "} closes nothing; the brace itself is written }}")
                self._open -= 1
                yield "}", False
                place += 1
                continue
            else:
                yield pair[0], False
                place += 1
                continue
            place += 2
        if self._open:
            raise self._fault(len(text), "a { is never closed; the brace itself is written {{")

    def _name(self, place: int) -> str | None:
        """Return the name in the braces that open here; None = they are a choice."""
        text = self._text
        end = text.find("}", place)
        name = text[place + 1 : end] if end >= 0 else text[place + 1 :]
        if self._has_choices:
            before = text[place - 1] if place else ""
            if before in ("$", "%") or _IS_CHOICE.search(name) or "{" in name:
                return None
        if end < 0 or "{" in name:
            raise self._fault(place, "{ is never closed; the brace itself is written {{")
        if not name.strip():
            raise self._fault(place, "{} names no column; braces themselves are written {{ }}")
        return name

    def _fault(self, place: int, reason: str) -> ConfigError:
        return ConfigError(f"template {cut(repr(self._text))}: character {place + 1}: {reason}")


def _joined(parts: Iterable[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    """Yield the parts with neighbouring texts as one."""
    texts: list[str] = []
    for text, is_name in parts:
        if not is_name:
            texts.append(text)
            continue
        if texts:
            yield "".join(texts), False
            texts.clear()
        yield text, True
    if texts:
        yield "".join(texts), False


def cell_text(name: str, cells: Mapping[Any, Any], place: str) -> str:
    """Return a cell as the text that people see in their table.

    Raises ConfigError for a column that the row lacks, an empty cell, bytes, a list or an object.
    """
    if name not in cells:
        raise ConfigError(unknown_column(name, list(cells), place))
    try:
        value = plain(cells[name])
    except NoMetadata:
        raise ConfigError(f"column {short(name)} holds bytes, and {place} needs it") from None
    match value:
        case bool():
            text = "true" if value else "false"
        case float() if value.is_integer() and abs(value) < _EXACT:
            text = str(int(value))
        case None:
            text = ""
        case str() | int() | float():
            text = str(value).strip()
        case _:
            raise ConfigError(f"column {short(name)} holds no text or number, and {place} needs it")
    if not text:
        raise ConfigError(f"column {short(name)} is empty, and {place} needs it")
    return text


def unknown_column(
    name: str, columns: Sequence[Any], place: str, *, with_columns: bool = True
) -> str:
    """Return the error of a name that no column has, with the columns."""
    names = [each for each in map(str, columns) if each]
    same = [each for each in names if _plain(each) == _plain(name)]
    part = [each for each in names if len(name) >= _PART and _plain(name) in _plain(each)]
    near = (same or difflib.get_close_matches(name, names, n=1, cutoff=0.7) or part)[:1]
    meant = f"; did you mean {{{cut(near[0])}}}?" if near else ""
    if "|" in name:
        meant = "; choices need --wildcards DIR"
    shown = f" (columns: {listed(names)})" if with_columns else ""
    return f"no column {short(name)}, which {place} names{shown}{meant}"


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


@frozen(kw_only=True)
class UsedColumns:
    """The columns that every row needs: those of a prompt template, and those of file names.

    They stay in the metadata, whatever their names resemble, unless they are parameters.
    """

    template: ColumnTemplate | None = None
    in_names: tuple[str, ...] = ()  #: of the file names
    of_every_image: tuple[str, ...] = ()  #: the other fields of file names
    is_as_written: bool = False  #: a column's name in doubled braces is sent

    @property
    def names(self) -> tuple[str, ...]:
        return (() if self.template is None else self.template.columns) + self.in_names

    def faults(self, columns: Sequence[str], targets: Sequence[str]) -> list[str]:
        """Return what is wrong with the columns of a table, `targets` being what each gives."""
        faults: list[str] = []
        for names, place in ((self._in_template, _IN_TEMPLATE), (self.in_names, _IN_NAME)):
            for name in names:
                if name not in columns:
                    fault = unknown_column(name, columns, place, with_columns=not faults)
                    faults.append(fault + self._others(place))
        if "prompt" in targets and self._leaves_prompt:
            faults.append(_left_prompt(columns[targets.index("prompt")]))
        return faults

    def applied(self, row: Mapping[str, Any], cells: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the row with its prompt filled in, and the columns that it uses as metadata.

        `cells` is the row under the names of the list. Raises ConfigError.
        """
        made = dict(row)
        extras = {name: made.pop(name) for name in self.names if name in made and _is_own(name)}
        for name in self.in_names:
            text = self._name_text(name, cells)
            if name not in made or name in ROW_KEYS:  # else it is a parameter of the request
                extras.setdefault(name, text)
        if extras:
            made["extras"] = {**extras, **(made.get("extras") or {})}
        if self.template is not None:
            if made.get("prompt") is not None and self._leaves_prompt:
                raise ConfigError(_left_prompt("prompt"))
            made["prompt"] = self.template.filled(cells)
            self._refuse_unfilled(made["prompt"], cells)
        return made

    def checked(self, request: ImageRequest) -> ImageRequest:
        """Return a request of the program, which has its prompt. Raises ConfigError."""
        if self.template is not None:
            raise ConfigError("a template fills rows, not an ImageRequest: give a dict")
        for name in self.in_names:
            self._name_text(name, {**request.given(), **request.extras})
        return request

    def _name_text(self, name: str, cells: Mapping[Any, Any]) -> str:
        if kind_of(target_of(name)) in ("image", "images"):
            raise ConfigError(
                f"column {short(name)} is an image input, and no part of a file name: name the "
                "files by another column"
            )
        if name not in cells:
            raise ConfigError(unknown_column(name, list(cells), _IN_NAME) + self._others(_IN_NAME))
        return cell_text(name, cells, _IN_NAME)

    def _others(self, place: str) -> str:
        known = self.of_every_image if place == _IN_NAME else ()
        return f"; fields of every image: {', '.join(known)}" if known else ""

    @property
    def _in_template(self) -> tuple[str, ...]:
        return () if self.template is None else self.template.columns

    @property
    def _leaves_prompt(self) -> bool:
        """Whether a prompt of the list would be replaced and not used."""
        return self.template is not None and not any(map(_is_prompt, self.template.columns))

    def _refuse_unfilled(self, prompt: str, cells: Mapping[Any, Any]) -> None:
        if self.is_as_written or "{" not in prompt:
            return
        for written in _NAMED.findall(prompt):
            if (name := written.strip().removesuffix("\\").strip()) in cells:
                raise ConfigError(
                    f"the filled prompt still has {{{cut(name)}}}, the name of a column: in a "
                    "template it is written in single braces, and cells are not templates; "
                    "--syntax as-written sends it"
                )


#: letters of a name that is looked for as a part of the columns' names
_PART = 3
_IN_TEMPLATE = "the template"
_IN_NAME = "the file name"


def _is_own(name: str) -> bool:
    return kind_of(name) is None


def _is_prompt(name: str) -> bool:
    return target_of(name) == "prompt" or name.strip().lower() == "prompts"


def _left_prompt(name: str) -> str:
    column = cut(name)
    return (
        f"the list has a column {short(name)}, which the template leaves out: write {{{column}}} "
        f"where it belongs, or keep it as metadata: --map extras.{column}={column}"
    )
