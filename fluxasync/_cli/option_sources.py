"""The options of a command and where each comes from: the line, the record of a run, a file.

The parser calls `fill` between reading the line and converting its texts. What the line has wins.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from cyclopts import ArgumentCollection, Token

from .._batch.progress.terminal import Terminal
from .._core.arguments import is_url
from .._core.errors import ConfigError, cut
from .._core.text import display
from .._store.files import HOME
from .._store.output_root import state_folder
from .._store.project import Project, project_file, read_project, resolved
from .config_file import find_config, read_config
from .given_options import GIVEN, HOOKS, GivenOptions

#: commands that read fluxasync.toml → the flag without which they ask no account
_CONFIGURED = {
    "run": "", "generate": "", "doctor": "", "credits": "", "bill": "", "status": "--account",
    "resolve": "--reconcile",
}  # fmt: skip

#: folders in which a bare `run` looks for a run
_MOST_FOLDERS = 1_000


def fill(_app: object, commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """Take note of the options of a command, and add those of the run that it continues.

    Raises ConfigError for a run that cannot be continued by itself.
    """
    given = GivenOptions()
    GIVEN.set(given)
    command = commands[-1] if commands else ""
    named = {each.name: each for each in arguments if each.name.startswith("--")}
    given.paths = frozenset(name for name, each in named.items() if Path in _types(each.hint))
    _refuse_empty(named, given.paths)
    if "--env-file" not in named:
        return
    words = {each.field_info.name: each.tokens for each in arguments if each.name[:1] != "-"}
    given.source = tuple(
        token.value for name in ("source", "more") for token in words.get(name, ())
    )
    given.line = _texts_of(named)
    is_resumed = command == "resume" or (
        command == "run" and not given.source and not named["--from-picks"].tokens
    )
    flag = _CONFIGURED.get("run" if is_resumed else command)
    if flag is not None and (not flag or named[flag].tokens):
        _configure(given, named, is_resumed=is_resumed)
    if is_resumed:
        places = words.get("folder") or named["--out"].tokens
        place = places[0].value if places else None
        _refuse_other_folder(place, given.line.get("--out"))
        _continue(given, place, named)
    given.options = _texts_of(named)
    if env_file := given.options.get("--env-file"):
        from .env_file import read_env_file  # few commands need it

        _say(read_env_file(Path(env_file[0])))
    if command not in ("run", "resume", "generate"):  # which say them themselves
        _say(given.lines)


def _refuse_empty(named: Mapping[str, Any], paths: Container[str]) -> None:
    """Raise ConfigError for a path without a text, which would be the folder one is in."""
    for name, each in named.items():
        if (name == "--out" or name in paths) and any(not token.value for token in each.tokens):
            raise ConfigError(f"{name}: the path is empty; is a variable of the shell not set?")


def _refuse_other_folder(place: str | None, out: Sequence[str] | None) -> None:
    """Raise ConfigError for a run that is continued into another folder: it would be a new one."""
    if place is not None and out is not None and out[0].rstrip("/") != place.rstrip("/"):
        raise ConfigError(
            f"{cut(place)} cannot be continued in {cut(out[0])}, where all images would be paid "
            "again: leave out -o. A new run there is: fluxasync run LIST -o DIR"
        )


def _texts_of(named: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(token.value for token in each.tokens if token.implicit_value is not True)
        for name, each in named.items()
        if each.tokens
    }


def _configure(given: GivenOptions, named: Mapping[str, Any], *, is_resumed: bool) -> None:
    """Add the options of fluxasync.toml that the line lacks. A run that is continued has its own:
    then only a file that the line names is read."""
    line = given.line
    if "--no-config" in line:
        if "--config" in line:
            raise ConfigError("--config and --no-config: give one of them")
        return
    path = Path(line["--config"][0]) if "--config" in line else find_config()
    if path is None:
        return
    config = read_config(path)
    if is_resumed and "--config" not in line:
        given.lines.append(
            f"{config.shown} is not read: the options of the last run apply, unless --config is "
            "given"
        )
        return
    used = {name: texts for name, texts in config.beside(line).items() if name in named}
    for name, texts in used.items():
        named[name].tokens.clear()
        add(named[name], texts, config.shown)
    shown = ", ".join(" ".join((name[2:], *texts)) for name, texts in used.items())
    if shown:
        given.lines.append(f"from {config.shown}: {shown}")


def _say(lines: Iterable[str]) -> None:
    terminal = Terminal()
    for line in lines:
        terminal.say(line)
    terminal.close()


def _continue(given: GivenOptions, place: str | None, named: Mapping[str, Any]) -> None:
    if place is None:
        place = _found_here()
    folder = state_folder(place) if is_url(place) else Path(place)
    project = read_project(folder)
    if project is None:
        raise ConfigError(_no_project(place, folder))
    if "-" in project.source:
        raise ConfigError(
            f"the list of {cut(place)} came from standard input: pipe it in again: "
            f"… | {line_of(project, place, folder, given.paths)}"
        )
    if not project.is_own:
        raise ConfigError(
            f"the line of {cut(place)} was not written by you on this machine; check it, then give "
            f"it whole: {display(line_of(project, place, folder, given.paths), 2000)}"
        )
    given.source = tuple(resolved(word, folder) for word in project.source)
    given.lines.append(f"continuing: {line_of(project, place, folder, given.paths)}")
    for name in project.left_out:
        if name in named and not named[name].tokens:
            reason = "it is a hook" if name in HOOKS else "it has a secret"
            given.lines.append(f"{name} is not kept, because {reason}: give it again")
    options = {**project.options}
    options.setdefault("--out", (place,))
    for name, texts in options.items():
        if name not in named:
            raise ConfigError(
                f"{project_file(folder)}: {cut(name)} is an option of another version of "
                f"fluxasync ({cut(project.fluxasync)}): give the whole line of the run again"
            )
        if not named[name].tokens:
            is_path = name in given.paths and name in project.options
            add(named[name], (resolved(t, folder) if is_path else t for t in texts), place)


def add(argument: Any, texts: Iterable[str], place: str) -> None:
    """Give an option the texts that its line lacks; none = a flag."""
    texts = tuple(texts)
    if not texts:
        argument.append(Token(keyword=argument.name, implicit_value=True, source=place))
    for text in texts:
        keyword = f"{place}: {argument.name}"  # named in an error about the value
        argument.append(Token(keyword=keyword, value=text, source=place))


def line_of(project: Project, place: str, folder: Path, paths: Container[str]) -> str:
    """Return the whole line that a project stands for; `paths` are the options that are paths."""
    words = [resolved(word, folder) if word != "-" else word for word in project.source]
    parts = ["fluxasync", "run", *words]
    if "--out" not in project.options:
        parts += ["-o", place]
    for name, texts in project.options.items():
        shown = [resolved(text, folder) if name in paths else text for text in texts]
        parts += [part for text in shown for part in (name, text)] or [name]
    return shlex.join(parts)


def _found_here() -> str:
    """Return the folder of the only run here: this folder, or one in it. Raises ConfigError."""
    if project_file(Path()).exists():
        return "."
    found = []
    with os.scandir() as entries:
        for number, each in enumerate(entries):
            if number == _MOST_FOLDERS:
                break
            if os.path.isfile(os.path.join(each.path, HOME, project_file(Path()).name)):
                found.append(each.name)
    if not found:
        raise ConfigError(
            "no prompt list: fluxasync run LIST -o DIR; there is no run here that could be "
            "continued without one"
        )
    if len(found) > 1:
        shown = ", ".join(cut(name) for name in sorted(found)[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise ConfigError(
            f"several runs here ({shown}{more}): fluxasync resume DIR continues one of them"
        )
    return found[0]


def _no_project(place: str, folder: Path) -> str:
    step = f"fluxasync run LIST -o {shlex.quote(place)}"
    if is_url(place):
        return (
            f"this machine has no record of the line of {cut(place)}; the whole line continues it "
            f"from any machine: {step}"
        )
    if (folder / HOME).is_dir():
        return (
            f"{cut(place)} has no record of the line of its run, which was made in Python or by "
            f"an earlier version; the whole line continues it: {step}"
        )
    return f"{cut(place)} is not the folder of a run; one begins with {step}"


def _types(hint: Any) -> set[Any]:
    inner = get_args(hint)
    return {kind for each in inner for kind in _types(each)} if inner else {hint}
