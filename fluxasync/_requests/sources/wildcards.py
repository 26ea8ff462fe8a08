r"""Prompts with choices: `a {red|grey} fox, __weather__` → every combination, in written order.

`__weather__` is a choice among the lines of weather.txt. `\{`, `\|`, `\}`, `\_` and `\\` are the
characters themselves.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from attrs import field, frozen

from ..._core.errors import ConfigError
from ..catalog import COPIES_MAXIMUM
from ..image_inputs import open_within
from .lines import decoded, reject_utf16

#: levels of braces and of lists that name lists
_DEPTH_CAP = 20
#: bytes of a list; alternatives are held in memory
_LIST_CAP = 10_000_000

#: lines of a list; a row makes 10,000 images at most. A text may have twice as many alternatives
_MOST = COPIES_MAXIMUM
#: alternatives of all lists, which are held in memory
_ALL_MOST = 200_000
#: lines of a list, with blank ones and comments
_LINES_CAP = 100_000
#: texts are counted up to here; lists that name lists make numbers of any length
COUNT_CAP = 10**15

#: letters and digits at both ends; no dots, so that no list is outside of its folder
_LIST = re.compile(r"__([^\W_](?:(?:[^\W_]|[-/ ]|_(?!_))*[^\W_])?)__")
_ESCAPED = frozenset("{|}_\\")


@frozen(eq=False)
class Choice:
    """Alternatives at one place of a template."""

    alternatives: tuple[PromptTemplate, ...]
    count: int = field(init=False)  #: of its texts, counted once, up to COUNT_CAP

    @count.default
    def _counted(self) -> int:
        return min(sum(alternative.count for alternative in self.alternatives), COUNT_CAP)

    def texts(self) -> Iterator[str]:
        for alternative in self.alternatives:
            yield from alternative.texts()


@frozen(eq=False)
class PromptTemplate:
    """Text and choices, one after another."""

    parts: tuple[str | Choice, ...]
    count: int = field(init=False)  #: of its texts, as above

    @count.default
    def _counted(self) -> int:
        count = 1
        for part in self.parts:
            if isinstance(part, Choice):
                count = min(count * part.count, COUNT_CAP)
        return count

    def texts(self) -> Iterator[str]:
        """Yield each text, the last choice changing fastest."""
        ways = [(part,) if isinstance(part, str) else list(part.texts()) for part in self.parts]
        return map("".join, product(*ways))


class Wildcards:
    """Parses templates; `folder` is where lists are, None if there are none.

    Lists are read when a template first names them, and not again.
    """

    def __init__(self, folder: Path | None = None, allow_files: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._allowed = () if folder is None else (os.path.realpath(folder), *allow_files)
        self._lists: dict[str, Choice] = {}
        self._held = 0  #: alternatives of all lists
        if folder is not None and not folder.is_dir():
            raise ConfigError.about(
                "wildcards", f"{folder} is no folder; it holds the lists as .txt files"
            )

    def template(self, text: str) -> PromptTemplate:
        """Return the parsed template. Raises ConfigError with the column of what is wrong."""
        return self._parsed(text, ())

    def _parsed(self, text: str, within: tuple[str, ...]) -> PromptTemplate:
        reader = _Reader(text)
        template = self._sequence(reader, 0, within)
        if not reader.at_end:
            reader.fail(r"a } without its {; write \} for the character")
        self._held += reader.alternatives if within else 0
        if self._held > _ALL_MOST:
            raise ConfigError(f"the lists hold more than {_ALL_MOST:,} alternatives")
        return template

    def _sequence(self, reader: _Reader, depth: int, within: tuple[str, ...]) -> PromptTemplate:
        """Read up to the end of an alternative, or of the text outside of braces."""
        reader.alternatives += 1
        if reader.alternatives > 2 * _MOST:
            reader.fail(f"more than {2 * _MOST:,} alternatives in one text")
        parts: list[str | Choice] = []
        while not reader.at_end:
            if reader.looks_at("}" if not depth else "|}"):
                break
            if reader.looks_at("{"):
                parts.append(self._braces(reader, depth + 1, within))
            elif name := reader.list_name():
                parts.append(self._list(name, within))
            else:
                parts.append(reader.text(stops_at_bar=bool(depth)))
        return PromptTemplate(tuple(parts))

    def _braces(self, reader: _Reader, depth: int, within: tuple[str, ...]) -> Choice:
        begun = reader.place
        if depth > _DEPTH_CAP:
            reader.fail(f"braces nested deeper than {_DEPTH_CAP} levels")
        alternatives: list[PromptTemplate] = []
        while reader.looks_at("{" if not alternatives else "|"):
            reader.place += 1
            alternatives.append(self._sequence(reader, depth, within))
        if not reader.looks_at("}"):
            reader.place = begun
            reader.fail(r"a { without its }; write \{ for the character")
        reader.place += 1
        return Choice(tuple(alternatives))

    def _list(self, name: str, within: tuple[str, ...]) -> Choice:
        if name in within or len(within) >= _DEPTH_CAP:
            raise ConfigError(f"the list __{name}__ names itself, by way of {within[-1]}")
        if name not in self._lists:
            lines = self._lines(name)
            here = (*within, name)
            self._lists[name] = Choice(tuple(self._parsed(line, here) for line in lines))
        return self._lists[name]

    def _lines(self, name: str) -> list[str]:
        if self._folder is None:
            raise ConfigError(
                rf"__{name}__ names a list, and no folder of lists was given; "
                r"write \_ for the character"
            )
        path = self._folder / f"{name}.txt"
        shown = f"the list {path}"
        try:
            with open(open_within(path, self._allowed), "rb") as file:
                regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                content = file.read(_LIST_CAP + 1) if regular else b""
        except OSError as exc:
            missing = rf"{shown} cannot be read: {exc.strerror}; write \_ for the character"
            raise ConfigError(missing) from None
        except ConfigError as exc:
            raise ConfigError(f"{shown}: {exc}") from None
        if not regular:
            raise ConfigError(f"{shown} is not a file")
        if len(content) > _LIST_CAP:
            raise ConfigError(f"{shown} is larger than {_LIST_CAP // 10**6} MB")
        reject_utf16(content, name=shown)
        if content.count(b"\n") + content.count(b"\r") > _LINES_CAP:
            raise ConfigError(f"{shown} has more than {_LINES_CAP:,} lines")
        lines = [decoded(line).strip() for line in content.splitlines()]
        kept = [line for line in lines if line and not line.startswith("#")]
        if not kept:
            raise ConfigError(f"{shown} is empty")
        if len(kept) > _MOST:
            most = f"a row makes at most {_MOST:,} images"
            raise ConfigError(f"{shown} has {len(kept):,} alternatives; {most}")
        return kept


class _Reader:
    """A text and a place in it."""

    def __init__(self, text: str) -> None:
        self.place = 0
        self.alternatives = 0  #: so far, the text itself among them
        self._text = text

    @property
    def at_end(self) -> bool:
        return self.place >= len(self._text)

    def looks_at(self, characters: str) -> bool:
        return not self.at_end and self._text[self.place] in characters

    def list_name(self) -> str | None:
        match = _LIST.match(self._text, self.place)
        if match is None:
            return None
        self.place = match.end()
        return match[1]

    def text(self, *, stops_at_bar: bool) -> str:
        """Return the characters up to what means something; at least one."""
        made: list[str] = []
        stops = "{|}" if stops_at_bar else "{}"
        while not self.at_end and not self.looks_at(stops):
            if made and _LIST.match(self._text, self.place):
                break
            if self.looks_at("\\") and self._text[self.place + 1 : self.place + 2] in _ESCAPED:
                self.place += 1
            made.append(self._text[self.place])
            self.place += 1
        return "".join(made)

    def fail(self, reason: str) -> None:
        raise ConfigError(f"wildcards: character {self.place + 1}: {reason}")
