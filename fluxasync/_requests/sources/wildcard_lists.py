r"""The lists of `--wildcards DIR`: `animals.txt`, a line an alternative; lists in .json and .yaml.

The names follow dynamic-prompts: `animals/cats` is DIR/animals/cats.txt, or the list under the
keys `animals`, `cats` of any .json or .yaml file of DIR. `*` stands for a part of a name, `**`
also for folders.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import frozen

from ..._core.errors import ConfigError, cut
from ..._core.extras import install_command
from ..image_inputs import open_within
from .file_kinds import refuse_other_kinds
from .lines import decoded, reject_utf16
from .templates import ALTERNATIVES_CAP

#: bytes of a list; alternatives are held in memory
_LIST_CAP = 10_000_000
#: lines of a list, with blank ones and comments
_LINES_CAP = 100_000
#: files of the folder, whose names are held for `*`, and names inside one .json or .yaml file
_NAMES_CAP = 100_000

_COLLECTIONS = (".json", ".yaml", ".yml")
_LITERAL = r"write \_ for the character"

#: a line that is left out; #FF5733 is a colour, which FLUX.2 reads in prompts
_COMMENT = re.compile(r"#(?!(?=[A-Fa-f]*\d)[0-9A-Fa-f]{6}\b)|//\s")

#: a name or a pattern that could lead out of the folder
_OUTSIDE = re.compile(r"^/|(^|/)\.\.(/|$)")


@frozen
class Line:
    """One alternative of a list, and its place for errors."""

    text: str
    where: str  #: "the list lists/animals.txt line 3"
    weight: float | None = None  #: of an object {"weight": 2, "text": "…"}


class WildcardLists:
    """Finds and reads the lists of a folder; None = no folder was given."""

    def __init__(self, folder: Path | None, allow_files: tuple[str, ...]) -> None:
        self._folder = folder
        self._allowed = () if folder is None else (os.path.realpath(folder), *allow_files)
        self._found: dict[str, list[str]] | None = None  #: list → the files that have it
        if folder is not None and not os.path.isdir(folder):
            raise ConfigError.about(
                "wildcards", f"{folder} is no folder; it holds the lists as .txt files"
            )

    def names(self, pattern: str) -> list[str]:
        """Return the lists that a name or a pattern stands for, in alphabetical order.

        Raises ConfigError for a name outside the folder and for a pattern without a list.
        """
        if self._folder is None:
            raise ConfigError(
                f"__{cut(pattern)}__ names a list, and no folder of lists was given; {_LITERAL}"
            )
        if _OUTSIDE.search(pattern):
            raise ConfigError(
                f"__{pattern[:60]}__ is outside the folder of lists ({self._folder}); name a list "
                f"in it, or {_LITERAL}"
            )
        if not set(pattern) & set("*?"):
            return [pattern]
        fitting = _fitting(pattern)
        names = sorted(name for name in self._all() if fitting.fullmatch(name))
        if not names:
            raise ConfigError(
                f"__{cut(pattern)}__ fits no list of {self._folder}{self._like(pattern)}; "
                f"{_LITERAL}"
            )
        return names

    def lines(self, name: str) -> list[Line]:
        """Return the alternatives of one list. Raises ConfigError that names file and line."""
        assert self._folder is not None  # noqa: S101 — names() was asked first
        path = self._folder / f"{name}.txt"
        if not os.path.lexists(path) and len(files := self._all().get(name, [])) == 1:
            return _checked(f"the list {name} of {files[0]}", self._collected(files[0], name))
        if not os.path.lexists(path) and len(files) > 1:
            raise ConfigError(f"__{name}__ is in {files[0]} and in {files[1]}; remove one")
        shown = f"the list {path}"
        lines = self._content(path, name).splitlines()
        return _checked(shown, list(_text_lines(lines, shown)))

    def _content(self, path: Path, name: str) -> bytes:
        shown = f"the list {path}"
        try:
            with open(open_within(path, self._allowed), "rb") as file:
                regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                content = file.read(_LIST_CAP + 1) if regular else b""
        except OSError as exc:
            missing = f"{shown} cannot be read: {exc.strerror}{self._like(name)}; {_LITERAL}"
            raise ConfigError(missing) from None
        except ConfigError as exc:
            raise ConfigError(f"{shown}: {exc}") from None
        if not regular:
            raise ConfigError(f"{shown} is not a file")
        if len(content) > _LIST_CAP:
            raise ConfigError(f"{shown} is larger than {_LIST_CAP // 10**6} MB")
        reject_utf16(content, name=shown)
        refuse_other_kinds(content, name=shown)
        if content.count(b"\n") + content.count(b"\r") > _LINES_CAP:
            raise ConfigError(f"{shown} has more than {_LINES_CAP:,} lines")
        return content

    def _collected(self, file: str, name: str) -> list[Line]:
        where = f"the list {name} of {file}"
        return [
            Line(text, f"{where} item {number}", weight)
            for number, (text, weight) in enumerate(_items(self._collections(file)[name], where), 1)
        ]

    def _collections(self, file: str) -> dict[str, Any]:
        """Return the lists inside a .json or .yaml file of the folder, by their names."""
        assert self._folder is not None  # noqa: S101 — names() was asked first
        path = self._folder / file
        value = _parsed(self._content(path, path.stem), path)
        parent = os.path.dirname(file)
        if isinstance(value, list):
            return {os.path.splitext(file)[0]: value}
        named = list(islice(_named(value, parent, f"the list {path}"), _NAMES_CAP + 1))
        if len(named) > _NAMES_CAP:
            raise ConfigError(f"the list {path} holds more than {_NAMES_CAP:,} lists")
        return dict(named)

    def _all(self) -> dict[str, list[str]]:
        """Return the names of all lists of the folder, read once when a name needs them."""
        if self._found is None:
            assert self._folder is not None  # noqa: S101 — names() was asked first
            found: dict[str, list[str]] = {}
            for file in _files(self._folder):
                stem, suffix = os.path.splitext(file)
                names = [stem] if suffix == ".txt" else self._collections(file)
                for name in names:
                    found.setdefault(name, []).append(file)
            self._found = found
        return self._found

    def _like(self, name: str) -> str:
        """Return which list may have been meant: the same name in another folder, or alike."""
        names = list(self._all())
        same = [each for each in names if each.rpartition("/")[2] == name.rpartition("/")[2]]
        near = same or difflib.get_close_matches(name, names, n=1)
        return f"; did you mean __{near[0]}__?" if near and near[0] != name else ""


def _files(folder: Path) -> Iterator[str]:
    """Yield the paths of the folder's lists below it, in alphabetical order; no hidden ones."""
    seen = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for file in sorted(files):
            seen += 1
            if seen > _NAMES_CAP:
                raise ConfigError(f"{folder} holds more than {_NAMES_CAP:,} files")
            if not file.startswith(".") and file.endswith((".txt", *_COLLECTIONS)):
                yield os.path.relpath(os.path.join(parent, file), folder).replace(os.sep, "/")


#: stars in a pattern
_STARS_CAP = 4


def _fitting(pattern: str) -> re.Pattern[str]:
    """Return the expression of a pattern: `*` and `?` within a folder, `**` across folders."""
    marks = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    pattern = re.sub(r"\*{3,}", "**", pattern)
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    if sum(part in ("*", "**") for part in parts) > _STARS_CAP:  # each multiplies the time
        raise ConfigError(f"__{cut(pattern)}__: a pattern has at most {_STARS_CAP} stars")
    return re.compile("".join(marks.get(part) or re.escape(part) for part in parts))


def _text_lines(lines: list[bytes], shown: str) -> Iterator[Line]:
    for number, line in enumerate(lines, 1):
        where = f"{shown} line {number}"
        try:
            text = decoded(line).strip()
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if text and not _COMMENT.match(text):
            yield Line(text, where)


def _checked(shown: str, lines: list[Line]) -> list[Line]:
    if not lines:
        raise ConfigError(f"{shown} is empty; write an alternative a line")
    if len(lines) > ALTERNATIVES_CAP:
        most = f"a row makes at most {ALTERNATIVES_CAP:,} images"
        raise ConfigError(f"{shown} has {len(lines):,} alternatives; {most}")
    return lines


def _parsed(content: bytes, path: Path) -> Any:
    try:
        if path.suffix == ".json":
            return json.loads(content.decode("utf-8-sig"))
        return _yaml(content.decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"the list {path} line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save "
            "it as UTF-8"
        ) from None
    except RecursionError:
        raise ConfigError(f"the list {path} is nested too deeply") from None
    except ValueError as error:
        reason = str(error).splitlines()[0][:120]
        raise ConfigError(f"the list {path}: not JSON: {reason}") from None


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigError(
            f"the list {path} needs PyYAML: {install_command('data')}; or save it as .json"
        ) from None
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"the list {path}: not YAML: {reason}") from None


def _named(value: Any, prefix: str, shown: str, *, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the lists below an object, named by their keys. Text is a list of one."""
    if not isinstance(value, dict):
        raise ConfigError(f"{shown}: it holds a list, or an object of lists")
    if depth > 20:  # YAML's aliases can also make a value that contains itself
        raise ConfigError(f"{shown} is nested deeper than 20 levels")
    for key, inner in value.items():
        name = f"{prefix}/{key}".removeprefix("/")
        if isinstance(inner, dict):
            yield from _named(inner, name, shown, depth=depth + 1)
        elif isinstance(inner, str | list) and inner:
            yield name, [inner] if isinstance(inner, str) else inner


def _items(given: list[Any], where: str) -> Iterator[tuple[str, float | None]]:
    """Yield text and weight of each item of a collection's list."""
    for number, item in enumerate(given, 1):
        weight, text = None, item
        if isinstance(item, dict):
            weight, text = item.get("weight"), item.get("text", item.get("content"))
        if isinstance(text, int | float) and not isinstance(text, bool):
            text = str(text)
        if not isinstance(text, str) or isinstance(weight, str | bool | list | dict):
            raise ConfigError(
                f'{where} item {number}: an alternative is text, or {{"weight": 2, "text": "…"}}'
            )
        if text.strip():
            yield " ".join(_without_comments(text)), weight


def _without_comments(text: str) -> Iterator[str]:
    """Yield the lines of a block of text, as YAML lists have them."""
    for line in text.strip().splitlines():
        if (kept := line.strip()) and not kept.startswith(("# ", "//")):
            yield kept
