r"""Parses one template. Everything that looks like a mark is either read, escaped, or an error.

`\` before one of `{|}_$~@!#:%<>[]()/` and `\` is the character itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NoReturn

from ..._core.errors import ConfigError
from .prompt_syntax import WEBUI_MARKS
from .templates import (
    ALTERNATIVES_CAP,
    Choice,
    Part,
    PromptTemplate,
    Selection,
    Variable,
    WithVariables,
)

#: levels of braces and of lists that name lists
DEPTH_CAP = 20
#: a row makes 10,000 images at most. A text may have twice as many alternatives
_MOST = 2 * ALTERNATIVES_CAP

_ESCAPED = frozenset("{|}_\\$~@!#:%<>[]()/*")

#: __name__, __~name__, __name(x=1)__; a name neither begins nor ends with a space
_LIST = re.compile(
    r"__(?P<sampler>[~@!]?)(?P<name>(?:(?!__)[^\s_{}|$#()\\])(?:(?:(?!__)[^\n{}|$#()\\])*?"
    r"[^\s{}|$#()\\])??)(?P<values>\([^()\n]*\))?__"
)
#: {~…}, and {2$$…}, {1-3$$ and $$…}, {-2$$…}, {2-$$…}
_OPENING = re.compile(
    r"(?P<sampler>\s*[~@!])?"
    r"(?:\s*(?=-?\d)(?P<least>\d{0,9})(?P<range>-?)(?P<most>\d{0,9})\$\$(?:(?P<separator>[^${}\n]*)\$\$)?)?"
)
_WEIGHT = re.compile(r"\s*(?P<weight>\d+(?:\.\d*)?|\.\d+)::")
#: ${x}, ${x:default}, ${x=…}, ${x=!…}, ${x?=…}
_VARIABLE = re.compile(r"\$\{\s*(?P<name>[A-Za-z_-][\w-]*)\s*(?P<sign>\?=!?|=!?|:)?\s*")

#: {{name}}, {{ name }}, {{ random(…) }} and {% for … %}, but not nested choices {{a|b}|c}
_JINJA = re.compile(
    r"\{%|\{\{[\w.]+\}\}|\{\{\s[^{}|]*\}\}|\{\{[^{}|]{0,200}\([^{}]{0,200}\)\s*\}\}"
)

_RANDOM = "chooses at random in other tools, and here all are made; remove it, or write \\"

#: marks that are read nowhere at their place, and what to do
_STRAY: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\$\{"), r"a variable is ${name} or ${name=value}; write \$ for the character"),
    (re.compile(r"%\{"), r"%{…} wraps text in other tools; remove it, or write \% before the {"),
    (
        re.compile(r"\d-?\$\$"),
        r"N$$ is read at the start of braces, as {2$$a|b|c}; write \$ for the character",
    ),
    (
        re.compile(r"(?<![\w.])(?:\d+(?:\.\d*)?|\.\d+)::(?!:)|::-?\d"),
        r"N:: is a weight at the start of an alternative, as {2::a|b}; write \: for the character",
    ),
    (
        re.compile(r"(?<!\S)(?:#|//)(?=\s)|/\*"),
        r"a comment in other tools; give it a line of its own (in a .txt: with --syntax comments), "
        r"or write \# or \/ before it",
    ),
    (
        re.compile(r"__[^\s_][^_\n]*__"),
        r"not the name of a list; write \_ for the character",
    ),
)
#: characters with which no mark begins
_HARMLESS = re.compile(r"[^{|}\\_$%#/:.(\[<BA\d]+")
_WHOLE_COMMENT = (
    r"a comment line of other tools; --syntax comments leaves such lines of a .txt out; write \# "
    r"or \/ for the character"
)
_COMMENT_LINE = re.compile(r"^[ \t]*(?:#|//)(?:[ \t].*)?(?:\r?\n|$)", re.MULTILINE)

Lists = Callable[[str, Mapping[str, Part]], Choice]


class TemplateReader:
    """Parses a text; `lists` returns the choice of a list, `variables` are those of its caller."""

    def __init__(
        self, text: str, lists: Lists, variables: Mapping[str, Part], *, foreign_marks: bool
    ) -> None:
        self.alternatives = 0  #: so far, the text itself among them
        self._text = _without_comment_lines(text)
        self._place = 0
        self._lists = lists
        self._variables = dict(variables)
        self._immediate: list[Variable] = []
        self._foreign_marks = foreign_marks

    def template(self) -> Part:
        """Return the template of the whole text."""
        template = self._sequence(0)
        if not self._at_end:
            self._fail(r"a } without its {; write \} for the character")
        if self._immediate:
            return WithVariables(tuple(self._immediate), template)
        return template

    def _sequence(self, depth: int) -> PromptTemplate:
        """Read up to the end of an alternative, or of the text outside of braces."""
        self.alternatives += 1
        if self.alternatives > _MOST:
            self._fail(f"more than {_MOST:,} alternatives in one text")
        parts: list[str | Part] = []
        while not self._at_end:
            if self._looks_at("}" if not depth else "|}"):
                break
            if match := _VARIABLE.match(self._text, self._place):
                parts += self._variable(match, depth)
            elif self._looks_at("{"):
                parts.append(self._braces(depth + 1))
            elif match := _LIST.match(self._text, self._place):
                parts.append(self._list(match))
            else:
                parts.append(self._plain(in_braces=bool(depth)))
        return PromptTemplate(tuple(parts))

    def _braces(self, depth: int) -> Part:
        begun = self._place
        if depth > DEPTH_CAP:
            self._fail(f"braces nested deeper than {DEPTH_CAP} levels")
        if _JINJA.match(self._text, begun):
            self._fail(r"placeholders and Jinja templates are not read; write \{ for the character")
        opening = _OPENING.match(self._text, begun + 1)
        assert opening is not None  # noqa: S101 — every group is optional
        self._refuse_random(opening, "sampler")
        self._place = opening.end() - 1  # the place before the first alternative, as after a bar
        alternatives: list[PromptTemplate] = []
        dropped = 0
        first = True
        while first or self._looks_at("|"):
            first = False
            self._place += 1
            weight = _WEIGHT.match(self._text, self._place)
            if weight is not None:
                self._place = weight.end()
            alternative = self._sequence(depth)
            if weight is not None and float(weight["weight"]) == 0:
                dropped += 1
            else:
                alternatives.append(alternative)
        if not self._looks_at("}"):
            self._place = begun
            self._fail(r"a { without its }; write \{ for the character")
        if not alternatives:
            self._place = begun
            self._fail("every alternative has the weight 0")
        self._place += 1
        return _chosen(alternatives, opening)

    def _list(self, match: re.Match[str]) -> Choice:
        self._refuse_random(match, "sampler")
        known = self._variables
        if match["values"]:
            known = {**known, **self._values(match)}
        self._place = match.end()
        return self._lists(match["name"], known)

    def _values(self, match: re.Match[str]) -> dict[str, Part]:
        """Return the variables of `__name(x=1, y=2)__`."""
        values: dict[str, Part] = {}
        for pair in match["values"][1:-1].split(","):
            name, equals, value = pair.partition("=")
            if not equals or not name.strip():
                self._fail("values of a list are written __name(x=red)__")
            values[name.strip()] = PromptTemplate((value.strip(),))
        return values

    def _variable(self, match: re.Match[str], depth: int) -> list[Part]:
        """Read `${…}`; return what stands in its place."""
        begun, name, sign = self._place, match["name"], match["sign"]
        if depth > DEPTH_CAP:
            self._fail(f"braces nested deeper than {DEPTH_CAP} levels")
        self._place = match.end()
        value = self._sequence(depth + 1) if sign else PromptTemplate(())
        if not self._looks_at("}"):
            self._place = begun
            self._fail(r"${ without its }; write \$ for the character")
        self._place += 1
        if sign not in (None, ":"):
            self._assign(name, value, sign)
            return []
        known = self._variables.get(name)
        if known is None and sign is None:
            self._place = begun
            self._fail(rf"${{{name}}} has no value; set it before, as ${{{name}=red}}, or write \$")
        return [value if known is None else known]

    def _assign(self, name: str, value: PromptTemplate, sign: str) -> None:
        if sign.startswith("?") and name in self._variables:
            return
        if sign.endswith("!"):
            variable = Variable(value)
            self._immediate.append(variable)
            self._variables[name] = variable
        else:
            self._variables[name] = value

    def _plain(self, *, in_braces: bool) -> str:
        """Return the characters up to what means something; at least one."""
        made: list[str] = []
        stops = "{|}" if in_braces else "{}"
        while not self._at_end and not self._looks_at(stops):
            if run := _HARMLESS.match(self._text, self._place):
                made.append(run[0])
                self._place = run.end()
                continue
            if self._looks_at("\\") and self._text[self._place + 1 : self._place + 2] in _ESCAPED:
                self._place += 1
            else:
                if made and (
                    _LIST.match(self._text, self._place) or _VARIABLE.match(self._text, self._place)
                ):
                    break
                self._refuse_marks(in_braces)
            made.append(self._text[self._place : self._place + 1])
            self._place += 1
        return "".join(made)

    def _refuse_marks(self, in_braces: bool) -> None:
        """Raise ConfigError for a mark that has no meaning at this place."""
        character = self._text[self._place]
        if not (character.isdigit() or character in "$%#/_:.([<BA"):
            return
        if not self._text[: self._place].strip() and _COMMENT_LINE.match(self._text):
            self._fail(_WHOLE_COMMENT)
        for pattern, advice in _STRAY:
            if pattern.match(self._text, self._place):
                self._fail(advice)
        if in_braces and self._text.startswith("$$", self._place):
            self._fail(r"$$ without its number, as {2$$a|b|c}; write \$ for the character")
        for mark in () if self._foreign_marks else WEBUI_MARKS:
            if mark.pattern.match(self._text, self._place):
                self._fail(
                    rf"{mark.what} of AUTOMATIC1111, which Flux reads as text; remove it, write \( "
                    r"\[ \< for the character, or send it: --syntax as-written"
                )

    def _refuse_random(self, match: re.Match[str], group: str) -> None:
        sampler = (match[group] or "").strip()
        if sampler in ("~", "@"):
            self._place = match.start(group) + len(match[group]) - 1
            self._fail(f"{sampler} {_RANDOM}{sampler}")

    @property
    def _at_end(self) -> bool:
        return self._place >= len(self._text)

    def _looks_at(self, characters: str) -> bool:
        return not self._at_end and self._text[self._place] in characters

    def _fail(self, reason: str) -> NoReturn:
        raise ConfigError(f"wildcards: character {self._place + 1}: {reason}")


def _chosen(alternatives: list[PromptTemplate], opening: re.Match[str]) -> Part:
    if opening["separator"] is None and "$$" not in opening[0]:
        return Choice(tuple(alternatives))
    among: tuple[Part, ...] = tuple(alternatives)
    if len(among) == 1 and (inner := _only_list(alternatives[0])) is not None:
        among = inner.alternatives  # {2$$__animals__}: two of its lines
    least, most = _bounds(opening, len(among))
    separator = "," if opening["separator"] is None else opening["separator"]
    return Selection(among, least, most, separator)


def _bounds(opening: re.Match[str], count: int) -> tuple[int, int]:
    """Return how many are chosen; as many as there are, if more are asked for."""
    least = int(opening["least"]) if opening["least"] else 1
    most = int(opening["most"]) if opening["most"] else count if opening["range"] else least
    low, high = sorted((least, most))
    return min(low, count), min(high, count)


def _only_list(template: PromptTemplate) -> Choice | None:
    parts = [part for part in template.parts if not isinstance(part, str) or part.strip()]
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Choice) else None


def _without_comment_lines(text: str) -> str:
    """Leave out comment lines of a prompt of several lines; a prompt of one line has none."""
    return _COMMENT_LINE.sub("", text) if "\n" in text else text
