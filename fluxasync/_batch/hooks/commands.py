"""Commands of a user: one for each image (`--then`), and one at the end of a run (`--on-finish`).

No shell reads them. A command line is split once, and each field fills a place inside one word: a
prompt or a file name never becomes an option, a second word or a command. The environment of a
command lacks the provider's keys.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from string import Formatter
from typing import cast

from attrs import frozen

from ..._core.errors import ConfigError, cut
from ..._core.models import Saved
from ..._core.text import display
from ..._wire.providers import PROVIDERS
from .saved_hook import HookError, SavedHook

#: processes at the same time
MOST_PROCESSES = max(1, min(os.cpu_count() or 1, 4))
#: fields of a command
FIELDS = ("path", "stem", "name", "folder", "prompt", "seed", "index")
#: fields whose text is another person's, which could begin with a dash
_UNSURE = ("name", "prompt")
#: letters of the option of a shell before a script; fish has -C as well
_SHELL = "cC"
#: programs that read a script from a word, and the letters of the option before it
_INTERPRETERS = {
    **dict.fromkeys(("sh", "bash", "dash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh"), _SHELL),
    **dict.fromkeys(("ash", "busybox"), _SHELL),
    **dict.fromkeys(("python", "pypy"), "c"),
    **dict.fromkeys(("perl", "ruby", "node", "lua", "osascript", "Rscript"), "eEp"),
    "php": "rBRE",
}
#: the same as long options
_SCRIPT_OPTIONS = ("--command", "--eval", "--print", "--init-command")
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
#: words that only a shell reads
_OPERATORS = frozenset(("|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>>", "2>&1", "&>"))
#: characters of a prompt that a command gets; the system's limit for a word is 131,072 bytes
_LONGEST = 30_000
#: bytes of a command's last words that an error shows
_LAST_WORDS = 2_000
#: seconds in which they arrive after the end
_PATIENCE = 0.5

#: variables that a command does not get
_SECRETS = frozenset(
    name
    for provider in PROVIDERS.values()
    for name in (provider.key_variable, provider.access_token_variable)
    if name is not None
) | {"FLUXASYNC_WEBHOOK_SECRET"}

_Word = tuple[tuple[str, str | None], ...]  #: literal texts, each with the field after it


@frozen
class CommandTemplate:
    """A command line with fields, such as `cwebp {path} -o {stem}.webp`."""

    text: str
    program: str
    words: tuple[_Word, ...]

    @classmethod
    def parse(cls, text: str, *, option: str) -> CommandTemplate:
        """Split a command line. Raises ConfigError for an unknown field, and for a place in which a
        value could become a command or an option."""
        program, *words = split(text, option)
        if "{" in program.replace("{{", ""):
            raise ConfigError(f"{option}: {cut(program)}: the command itself has no field")
        _check_script((program, *words), option)
        return cls(text, program.replace("{{", "{"), tuple(_parsed(each, option) for each in words))

    def filled(self, saved: Saved) -> list[str]:
        """Return the words of the command for an image."""
        values = _values(saved)
        return [
            self.program,
            *("".join(text + values.get(name or "", "") for text, name in word)
              for word in self.words),
        ]  # fmt: skip


def split(text: str, option: str) -> list[str]:
    """Return the words of a command line. Raises ConfigError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {cut(text)}: {error}") from None
    if not words or not words[0]:
        raise ConfigError(f"{option}: the command is empty")
    unquoted = {*_QUOTED.sub("quoted", text).split()}
    if found := sorted(_OPERATORS & unquoted):
        raise ConfigError(
            f"{option}: no shell reads the command, so {found[0]} has no meaning; call one: "
            "sh -c 'SCRIPT' (fields come after the script, and are $1, $2 in it: sh {path})"
        )
    return words


def check_program(program: str, option: str) -> None:
    """Raise ConfigError for a command that this machine lacks."""
    if shutil.which(program) is None:
        raise ConfigError(f"{option}: {cut(program)}: not found; install it, or give its path")


def then_hook(text: str, *, timeout: float = 300.0) -> SavedHook:
    """Return the hook that runs a command for each image. Raises ConfigError."""
    template = CommandTemplate.parse(text, option="--then")
    check_program(template.program, "--then")

    async def call(saved: Saved) -> None:
        if saved.path is None:
            raise HookError("the image is not in a file on this machine")
        await run_command(template.filled(saved))

    return SavedHook("--then", call, most=MOST_PROCESSES, timeout=timeout)


class _Process(asyncio.SubprocessProtocol):
    """A running command. It has ended when its own process has, whatever its children do."""

    def __init__(self) -> None:
        self.has_ended, self.has_said_all = asyncio.Event(), asyncio.Event()
        self.last_words = bytearray()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.last_words += data
        del self.last_words[:-_LAST_WORDS]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 2:
            self.has_said_all.set()

    def process_exited(self) -> None:
        self.has_ended.set()


async def run_command(
    words: Sequence[str],
    *,
    given: bytes | None = None,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its end; it gets `given` on its standard input. Its output is discarded.

    Raises HookError if it cannot be started or reports a failure. A cancelled caller kills it and
    its children.
    """
    own = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    try:
        transport, process = await asyncio.get_running_loop().subprocess_exec(
            _Process,
            *words,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=own | {**(variables or {})},
            start_new_session=True,  # Ctrl-C is the run's
        )
    except (OSError, ValueError) as error:
        raise HookError(f"{cut(words[0])} cannot be started: {error}") from None
    try:
        if given is not None and (pipe := transport.get_pipe_transport(0)) is not None:
            stdin = cast(asyncio.WriteTransport, pipe)
            with suppress(OSError, RuntimeError):  # uvloop's, of a pipe that the command has closed
                stdin.write(given)
                stdin.write_eof()
        await process.has_ended.wait()
        code = transport.get_returncode()
        if code:
            with suppress(TimeoutError):  # a child that it left may keep the pipe open
                async with asyncio.timeout(_PATIENCE):
                    await process.has_said_all.wait()
    finally:
        await _end(transport, process)
    if code:
        said = display(process.last_words.decode(errors="replace").strip(), 300)
        raise HookError(f"{cut(words[0])} ended with {code}{f': {said}' if said else ''}")


async def _end(transport: asyncio.SubprocessTransport, process: _Process) -> None:
    """Kill a process that still runs, and its children; close its pipes."""
    try:
        if transport.get_returncode() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await process.has_ended.wait()
    finally:
        transport.close()


def _check_script(command: Sequence[str], option: str) -> None:
    """Raise ConfigError for a field inside a script: its value would be read as code. The
    interpreter may stand behind another program, as in `env sh -c`."""
    letters = ""
    is_next = False  #: the next word that is no option is a script
    for word in command:
        found = _INTERPRETERS.get(os.path.basename(word).rstrip(".0123456789"), "")
        begins = word.partition("=")[0] in _SCRIPT_OPTIONS or (
            word[:1] == "-" and word[:2] != "--" and any(letter in word for letter in letters)
        )
        is_script = begins or (is_next and word[:1] != "-")
        if is_script and letters and any(name is not None for _, name in _parsed(word, option)):
            raise ConfigError(
                f"{option}: a field inside a script would be read as code: give it after it, "
                "as sh -c 'SCRIPT' sh {path}, where it is $1"
            )
        is_next = begins or (is_next and not is_script)
        if found:
            letters = found
        elif letters != _SHELL and word[:1] != "-" and "." in word:
            letters = ""  # the file of a script: what follows are its own words


def _parsed(word: str, option: str) -> _Word:
    try:
        parts = [*Formatter().parse(word)]
    except ValueError as error:
        raise ConfigError(f"{option}: {cut(word)}: {error}; write a brace twice") from None
    for number, (literal, name, spec, conversion) in enumerate(parts):
        if name is None:
            continue
        if name not in FIELDS or spec or conversion:
            known = ", ".join(f"{{{each}}}" for each in FIELDS)
            raise ConfigError(f"{option}: {cut(word)}: unknown field (fields: {known})")
        if number == 0 and not literal and name in _UNSURE:
            raise ConfigError(
                f"{option}: {cut(word)}: a {name} that begins with a dash would be an option: "
                f"write text before it, such as --{name}={{{name}}} or ./{{{name}}}"
            )
    return tuple((literal, name) for literal, name, _, _ in parts)


def _values(saved: Saved) -> dict[str, str]:
    """Return the fields of an image; its path is absolute, so it begins with a slash."""
    path = os.path.abspath(saved.path or "")
    request = saved.request or saved.job.request
    prompt = "" if request is None else request.prompt.replace("\0", "")[:_LONGEST]
    return {
        "path": path,
        "stem": os.path.splitext(path)[0],
        "name": os.path.basename(path),
        "folder": os.path.dirname(path),
        "prompt": prompt.encode(errors="replace").decode(),
        "seed": "" if saved.seed is None else str(saved.seed),
        "index": str(saved.index),
    }
