"""Finds the rows of a list that is one JSON object.

| object | rows |
|---|---|
| it has a prompt, or a request body that has one | the object |
| one list of objects or texts, under any key: `{"data": […]}` | the list's elements |
| objects only, each a row: `{"0001": {"prompt": …}}` | its values; the key is `id` |
| texts only, under keys that are no fields of one row: `{"0001": "a fox"}` | the same |
| a column a key, lists or objects of the same keys (pandas: orient="columns") | its columns |
| `columns` and `data` (pandas: orient="split") | `data` |

What is none of these is refused: `--rows KEY` says where the rows are.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from ..._core.errors import ConfigError
from ..._core.models import DEFAULT_MODEL
from ..._core.strict_json import parsed_object
from ..catalog import find
from ..foreign_names import foreign_name
from ..parsing import listed, prompt_candidates
from .column_names import kind_of, target_of
from .json_text import Part, cut, elements_of, parts_of
from .nesting import draws, unnested

if TYPE_CHECKING:
    from .row_reader import RowReader

FORM = (
    'a .json file is one list: [{"prompt": "…"}, …] (from pandas: orient="records"); '
    "an object a line is .jsonl"
)

#: characters of an object that is read whole, because it has a column a key
_COLUMNS_CAP = 16 * 2**20


#: row keys and parameters that in a file are rather about the file
_OF_FILES = ("name", "version", "prompt")


#: keys of one row, of an answer, of a file's head, and of FLUX.2's structured prompts (docs.bfl.ai,
#: "Prompting guide FLUX.2", 2025-11-25)
_FIELDS = frozenset(
    """
    id key name title version license licence author url uri link source date created language lang
    type category tag tags label error message detail status code reason comment note negative
    negative_prompt system user role content scene subject subjects style mood lighting light camera
    lens composition background foreground setting environment color colors color_palette palette
    medium action pose position location time atmosphere details quality angle perspective
    """.split()  # noqa: SIM905 — a line a word is no table
)


def _is_field(name: str) -> bool:
    """Whether a key rather is a field of one row than the id of a prompt."""
    target = target_of(name)
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    model = find(DEFAULT_MODEL)
    return (
        kind_of(target) is not None
        or plain in _FIELDS
        or bool(prompt_candidates([name]))
        or (model is not None and foreign_name(name, model, ()) is not None)
    )


@frozen
class Record:
    """The text of a row, and what stands beside it."""

    text: str
    key: str | None = None  #: under which the row stands in its object
    columns: Sequence[str] | None = None  #: the row is a list of their values

    def row(self) -> Mapping[str, Any]:
        """Return the row. Raises ConfigError for text that is none."""
        if self.columns is not None:
            values = parsed_object(f'{{"row": {self.text}}}')["row"]
            if not isinstance(values, list) or len(values) != len(self.columns):
                raise ConfigError(f"not a list of {len(self.columns)} values, one for each column")
            return dict(zip(self.columns, values, strict=True))
        row = parsed_object(self.text)
        if self.key is None or row.get("id") == self.key:
            return row
        free = next((name for name in ("id", "key") if name not in row), None)
        if free is None:
            raise ConfigError(f"{self.key[:40]!r} has no place: the row has an id and a key")
        return {free: self.key, **row}


class Records:
    """The rows of one object."""

    def __init__(self, text: str, reading: RowReader, *, name: str) -> None:
        self._text = text
        self._reading = reading
        self._name = name
        self._mapped = reading.columns.sources

    def found(self, place: int) -> Iterator[str | Record]:
        """Yield the rows of the object or list at `place`. Raises ConfigError where it is not
        certain what they are."""
        rows = self._reading.layout.rows
        if rows is not None:
            place = self._at(place, rows)
        if self._text[place] == "[":
            yield from self._elements(place)
            return
        parts = {part[0]: part for part in self._parts(place)}
        kinds = {key: self._text[start] for key, start, _ in parts.values()}
        if rows is not None and set(kinds.values()) <= {"{"}:
            yield from self._keyed(parts)
        elif self._is_row(parts, kinds):
            yield cut(self._text, place, self._end(parts, place), where=self._name)
        elif {"columns", "data"} <= kinds.keys() and kinds["columns"] == kinds["data"] == "[":
            yield from self._split(parts)
        elif self._has_columns(parts, kinds):
            yield from self._columns(parts)
        elif lists := self._lists(parts, kinds):
            yield from self._of_list(parts, lists)
        elif kinds and set(kinds.values()) == {"{"}:
            yield from self._keyed(parts)
        elif kinds and set(kinds.values()) == {'"'}:
            yield from self._texts(parts)
        else:
            raise self._unclear(parts)

    def _end(self, parts: Mapping[str, Part], place: int) -> int:
        last = max((end for _, _, end in parts.values()), default=place + 1)
        return self._text.index("}", last) + 1

    def _at(self, place: int, path: str) -> int:
        """Return the place of the value that `--rows` names."""
        for key in path.split("."):
            if self._text[place] != "{":
                raise ConfigError(f"{self._name}: --rows {path[:60]}: {key[:40]!r} is in no object")
            parts = {name: start for name, start, _ in self._parts(place)}
            if key not in parts:
                names = listed(list(parts))
                raise ConfigError(
                    f"{self._name}: --rows {path[:60]}: no {key[:40]!r} (keys: {names})"
                )
            place = parts[key]
        if self._text[place] not in "[{":
            raise ConfigError(f"{self._name}: --rows {path[:60]}: no list and no object")
        return place

    def _parts(self, place: int) -> Iterator[Part]:
        return parts_of(self._text, place, where=self._name)

    def _elements(self, place: int) -> Iterator[str]:
        for text, _ in elements_of(self._text, place, where=self._name):
            yield text

    def _value(self, part: Part) -> Any:
        key, start, end = part
        where = f"{self._name} key {key[:40]!r}"
        try:
            return parsed_object(f'{{"value": {self._text[start:end]}}}')["value"]
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def _first(self, part: Part) -> Any:
        """Return the first element of a list, None of an empty one."""
        first = next(self._elements(part[1]), None)
        try:
            return None if first is None else json.loads(first)
        except (ValueError, RecursionError):
            return None

    def _is_row(self, parts: Mapping[str, Part], kinds: Mapping[str, str]) -> bool:
        if self._is_frame(parts, kinds):
            return False
        flat = {key: kind for key, kind in kinds.items() if kind != "["}
        if draws(flat, self._mapped):
            return True
        objects = {key: self._value(part) for key, part in parts.items() if kinds[key] == "{"
                   and part[2] - part[1] < _COLUMNS_CAP}  # fmt: skip
        return draws(unnested(objects, self._mapped), self._mapped)

    def _is_frame(self, parts: Mapping[str, Part], kinds: Mapping[str, str]) -> bool:
        """Whether each key is a column of objects that have the same keys."""
        if set(kinds.values()) != {"{"} or not draws(kinds, self._mapped):
            return False
        keys = [tuple(key for key, *_ in self._parts(start)) for _, start, _ in parts.values()]
        is_numbered = all(key.isdecimal() for key in keys[0])
        return len(set(keys)) == 1 and (len(keys) > 1 or is_numbered)

    def _has_columns(self, parts: Mapping[str, Part], kinds: Mapping[str, str]) -> bool:
        if self._is_frame(parts, kinds):
            return True
        return len(kinds) > 1 and set(kinds.values()) == {"["} and draws(kinds, self._mapped)

    def _columns(self, parts: Mapping[str, Part]) -> Iterator[Record]:
        if sum(end - start for _, start, end in parts.values()) > _COLUMNS_CAP:
            raise ConfigError(
                f"{self._name}: larger than {_COLUMNS_CAP // 2**20} MB with a column a key; save "
                'it as a list of rows (from pandas: orient="records")'
            )
        values = {key: self._value(part) for key, part in parts.items()}
        lengths = {len(column) for column in values.values()}
        if len(lengths) > 1:
            raise ConfigError(f"{self._name}: its columns have different lengths; {FORM}")
        for number, label in enumerate(next(iter(values.values()))):
            at = number if isinstance(next(iter(values.values())), list) else label
            row = {name: column[at] for name, column in values.items()}
            key = label if isinstance(at, str) and not at.isdecimal() else None
            yield Record(json.dumps(row, ensure_ascii=False), key)

    def _split(self, parts: Mapping[str, Part]) -> Iterator[Record]:
        columns = self._value(parts["columns"])
        if not all(isinstance(column, str) for column in columns):
            raise ConfigError(f"{self._name}: columns: the names of columns are texts")
        for text in self._elements(parts["data"][1]):
            yield Record(text, None, tuple(columns))

    def _lists(self, parts: Mapping[str, Part], kinds: Mapping[str, str]) -> list[str]:
        """Return the keys of the lists that may be the rows: those with prompts, or else all."""
        firsts = {key: self._first(part) for key, part in parts.items() if kinds[key] == "["}
        rows = {key for key, first in firsts.items() if isinstance(first, dict | str)}
        drawing = [
            key
            for key in rows
            if isinstance(firsts[key], dict)
            and draws(unnested(firsts[key], self._mapped), self._mapped)
        ]
        return drawing or sorted(rows)

    def _of_list(self, parts: Mapping[str, Part], lists: Sequence[str]) -> Iterator[str]:
        if len(lists) > 1:
            raise self._unclear(parts, lists)
        [key] = lists
        beside = [name for name in parts if name != key]
        if given := [name for name in beside if self._is_for_all(parts[name])]:
            raise ConfigError(
                f"{self._name}: {listed(given)} beside the list {key[:40]!r} would not be used: "
                "give it for all rows (--param, --model), and remove it there"
            )
        if beside:
            self._reading.notes.add(
                f"not read in {self._name}, beside {key[:40]!r}: {listed(beside)}"
            )
        yield from self._elements(parts[key][1])

    def _is_for_all(self, part: Part) -> bool:
        """Whether a value beside the rows is a parameter, and no list or object of other things."""
        kind = self._text[part[1]]
        if kind == "{" or (kind == "[" and isinstance(self._first(part), dict)):
            return False
        return _is_parameter(part[0])

    def _keyed(self, parts: Mapping[str, Part]) -> Iterator[Record]:
        for key, start, end in parts.values():
            yield Record(cut(self._text, start, end, where=f"{self._name} key {key[:40]!r}"), key)

    def _texts(self, parts: Mapping[str, Part]) -> Iterator[Record]:
        """Yield a row for each text. Raises ConfigError for the fields of one row or prompt."""
        names = list(parts)
        if fields := [name for name in names if _is_field(name)]:
            options = [f"--prompt-column {shlex.quote(name)}" for name in prompt_candidates(names)]
            raise ConfigError(
                f"{self._name}: {FORM}. Here it is one object without rows, and "
                f"{listed(fields)} may be of one prompt: "
                + " or ".join([*options[:2], 'write [{"id": "…", "prompt": "…"}, …]'])
            )
        for key, start, end in parts.values():
            text = cut(self._text, start, end, where=f"{self._name} key {key[:40]!r}")
            yield Record(f'{{"prompt": {text}}}', key)

    def _unclear(self, parts: Mapping[str, Part], lists: Sequence[str] = ()) -> ConfigError:
        held = [key for key, start, _ in parts.values() if self._text[start] in "[{"]
        lead = f"{self._name}: {FORM}. Here it is one object (keys: {listed(lists or list(parts))})"
        if not held:
            return ConfigError(f"{lead} without rows")
        key = (lists or held)[0][:40]
        return ConfigError(
            f"{lead}; if its rows are under a key: --rows {key}, or a path such as data.items"
        )


def _is_parameter(name: str) -> bool:
    target = target_of(name)
    return target not in _OF_FILES and kind_of(target) is not None
