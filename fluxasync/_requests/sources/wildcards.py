r"""Prompts with choices: `a {red|grey} fox, __weather__` → every combination, in written order.

The syntax is that of dynamic-prompts in its combinatorial mode (docs/prompt-lists.md has the
table). The library of that name does not serve: it paints `__name__` where a list is missing, cuts
a prompt at `#`, drops bytes that are not UTF-8, has no escapes, and counts only by making all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._core.errors import ConfigError, cut
from .lines import LINE_CAP
from .prompt_syntax import SyntaxCheck
from .template_reader import DEPTH_CAP, TemplateReader
from .templates import Choice, JsonText, Part, PromptTemplate, json_text, structured
from .wildcard_lists import Line, WildcardLists

#: alternatives of all lists, which are held in memory
_ALL_MOST = 200_000

_WEIGHT = re.compile(r"\s*((?:\d+(?:\.\d*)?|\.\d+))::")

Variables = Mapping[str, Part]


class Wildcards:
    """Parses templates; `folder` is where lists are, None if there are none.

    Lists are read when a template first names them, and not again. With `foreign_marks`, emphasis
    and other marks of AUTOMATIC1111 are text; else they are errors.
    """

    def __init__(
        self,
        folder: Path | None = None,
        allow_files: tuple[str, ...] = (),
        *,
        foreign_marks: bool = False,
    ) -> None:
        self._lists = WildcardLists(folder, allow_files)
        self._foreign_marks = foreign_marks
        self._read: dict[str, Choice] = {}
        self._held = 0  #: alternatives of all lists

    def template(self, text: str) -> Part:
        """Return the parsed template. Raises ConfigError with the column of what is wrong.

        A prompt that is JSON keeps its braces; the strings in it are templates.
        """
        structure = structured(text)
        if structure is None:
            return _short(self._parsed(text, (), {}))
        parts: list[str | Part] = []
        self._structure(structure, parts)
        made = _short(PromptTemplate(tuple(parts)))
        has_choices = made.count > 1 or next(made.texts()) != json_text(structure)
        return made if has_choices else PromptTemplate((text,))  # as it was written

    def choice(self, pattern: str, within: tuple[str, ...], variables: Variables) -> Choice:
        """Return the choice among the lines of the lists that a name or a pattern stands for."""
        names = self._lists.names(pattern)
        alternatives: list[Part] = []
        for name in names:
            alternatives += self._one_list(name, within, variables).alternatives
        return Choice(tuple(alternatives))

    def _one_list(self, name: str, within: tuple[str, ...], variables: Variables) -> Choice:
        if name in within or len(within) >= DEPTH_CAP:
            raise ConfigError(f"the list __{cut(name)}__ names itself, by way of {within[-1]}")
        if name in self._read and not variables:
            return self._read[name]
        here = (*within, name)
        lines = self._lists.lines(name)
        self._check(lines)
        parsed = [self._line(line, here, variables) for line in lines]
        kept = tuple(each for each in parsed if each is not None)
        if not kept:
            raise ConfigError(f"every alternative of the list __{cut(name)}__ has the weight 0")
        choice = Choice(kept)
        if not variables:
            self._read[name] = choice
        return choice

    def _check(self, lines: Sequence[Line]) -> None:
        """Raise ConfigError for a list whose lines are options or markup of other tools."""
        if self._foreign_marks:
            return
        check = SyntaxCheck(refuses=True, templates_are_read=True)
        for line in lines:
            check.look(line.text, is_line=True)
            check.at(line.where)
        check.settle()

    def _line(self, line: Line, within: tuple[str, ...], variables: Variables) -> Part | None:
        """Return a line's template without its weight; None for the weight 0."""
        text, weight = line.text, line.weight
        if match := _WEIGHT.match(text):
            text, weight = text[match.end() :].strip(), float(match[1])
        if weight == 0:
            return None
        try:
            return self._parsed(text, within, variables)
        except ConfigError as error:
            if str(error).startswith("the list"):  # of a list that this one names
                raise
            raise ConfigError(f"{line.where}: {error}") from None

    def _parsed(self, text: str, within: tuple[str, ...], variables: Variables) -> Part:
        def lists(pattern: str, known: Variables) -> Choice:
            return self.choice(pattern, within, known)

        reader = TemplateReader(text, lists, variables, foreign_marks=self._foreign_marks)
        template = reader.template()
        self._held += reader.alternatives if within else 0
        if self._held > _ALL_MOST:
            raise ConfigError(f"the lists hold more than {_ALL_MOST:,} alternatives")
        return template

    def _structure(self, value: Any, parts: list[str | Part]) -> None:
        """Append the JSON text of a structure, the strings in it as templates."""
        if isinstance(value, str):
            parts.append(JsonText(self._parsed(value, (), {})))
        elif isinstance(value, dict):
            for place, (key, inner) in enumerate(value.items()):
                parts.append(f"{', ' if place else '{'}{json_text(key)}: ")
                self._structure(inner, parts)
            parts.append("}" if value else "{}")
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                parts.append(", " if place else "[")
                self._structure(inner, parts)
            parts.append("]" if value else "[]")
        else:
            parts.append(json_text(value))


def _short(template: Part) -> Part:
    """Raise ConfigError for texts that variables or lists multiply to megabytes."""
    if template.length > LINE_CAP:
        raise ConfigError(f"wildcards: makes a prompt of more than {LINE_CAP:,} characters")
    return template
