"""The command `ctl`: pauses, resumes and shows a run of another terminal, through its socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

from .._batch.progress.terminal import Terminal
from .._core.errors import ConfigError, FluxError, cut
from .._core.text import display
from .._store.control_socket import connected, explanation
from .._store.files import HOME
from .._store.journal.lock import holder
from .._store.output_root import state_folder
from .event_loop import run_async
from .exit_codes import DONE, OUTAGE, USAGE
from .findings import in_own_thread
from .key_files import RunPlace
from .rendering import as_json

#: seconds until a run has answered: its loop may be busy
_PATIENCE = 10.0
#: seconds between two views
_EVERY = 1.0
#: bytes of an answer
_LONGEST = 2**20

Action = Literal["pause", "resume", "limit", "budget", "top"]


class NoAnswer(FluxError):
    """The run's process does not answer."""


def ctl(
    folder: RunPlace,
    action: Action,
    value: str | None = None,
    /,
    *,
    account: str | None = None,
    json: bool = False,
) -> int:
    """Control a run of another terminal: pause, resume, limit N, budget X or top.

    Parameters
    ----------
    folder
        Folder of an active run on this machine, or the URL of one into a bucket.
    action
        What to do.
    value
        The number of limit, the amount of budget.
    account
        The account of a run with --accounts: of limit always, of budget for its own budget.
    json
        Print one JSON object.
    """
    terminal = Terminal()

    async def start() -> int:
        request = _request(action, value, account)
        run = _ControlledRun(folder)
        if action == "top" and terminal.shows_view and not json:
            return await _top(terminal, run)
        answer = await run.ask(request)
        if not answer.get("ok"):
            terminal.say(f"fluxasync: {display(str(answer.get('error')))}")
            return USAGE
        if action == "top" or json:
            terminal.out(as_json(answer.get("top", answer)))
        else:
            terminal.out(display(str(answer.get("said"))))
        return DONE

    async def answered() -> int:
        try:
            return await start()
        except NoAnswer as error:
            terminal.say(f"fluxasync: {error}")
            return OUTAGE

    return run_async(answered, terminal)


def _request(action: Action, value: str | None, account: str | None) -> dict[str, Any]:
    """Return the request for the words of a command line. Raises ConfigError."""
    if action not in ("limit", "budget"):
        if value is not None or account is not None:
            raise ConfigError(f"ctl {action} takes no value")
        return {"do": action}
    if value is None:
        form = "N or auto" if action == "limit" else "X or none"
        raise ConfigError(f"ctl {action} needs a value: {form}")
    named = {} if account is None else {"account": account}
    if action == "limit":
        if value != "auto" and not (value.isdecimal() and len(value) < 10):
            raise ConfigError(f"ctl limit {cut(value)}: a number of jobs, or auto")
        return {"do": action, "in_flight": value if value == "auto" else int(value)} | named
    return {"do": action, "max_cost": None if value == "none" else value} | named


class _ControlledRun:
    """The active run of a folder, on this machine."""

    def __init__(self, place: Path | str) -> None:
        self._place = place
        self._home = (state_folder(place) if isinstance(place, str) else place) / HOME

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the run's answer. Raises ConfigError if there is no run, and NoAnswer."""
        return await in_own_thread(partial(self._ask, request))

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if not hasattr(socket, "AF_UNIX"):
            raise ConfigError("this system has no Unix sockets: on Windows, use WSL")
        try:
            connection = connected(self._home, timeout=_PATIENCE)
        except TimeoutError:
            raise self._silent() from None
        except OSError as error:
            raise self._missing(error) from None
        with closing(connection):
            try:
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    line = lines.readline(_LONGEST)
            except TimeoutError:
                raise self._silent() from None
            except OSError:
                line = b""
        answer = json.loads(line) if line.endswith(b"\n") else None
        if not isinstance(answer, dict):
            raise NoAnswer(f"the run in {self._place} has just ended")
        return answer

    def _silent(self) -> NoAnswer:
        text = f"the run in {self._place} does not answer: its process may be stopped (Ctrl-Z)"
        return NoAnswer(text)

    def _missing(self, error: OSError) -> FluxError:
        """Return why there is nobody to ask: the folder's lock tells a run from a killed one."""
        found = holder(self._home)
        if found is None:
            if not self._home.is_dir():
                return ConfigError(f"{self._place} is not the folder of a run: check its name")
            return ConfigError(f"no run is active in {self._place}, so there is nothing to control")
        if isinstance(error, PermissionError):
            return ConfigError(f"the run in {self._place} is another user's")
        host, process = found.get("host"), found.get("pid")
        if host not in (None, socket.gethostname()):
            return ConfigError(f"the run in {self._place} is active on {host}: control it there")
        reason = explanation(self._home) or "only fluxasync run listens"
        return ConfigError(
            f"process {process} uses {self._place} and cannot be controlled: {display(reason)}"
        )


async def _top(terminal: Terminal, run: _ControlledRun) -> int:
    from .top_view import TopView  # brings rich

    was_drawn = False
    while True:
        try:
            answer = await run.ask({"do": "top"})
        except (ConfigError, NoAnswer):
            terminal.clear()
            if not was_drawn:
                raise
            terminal.say("the run has ended")
            return DONE
        terminal.draw(TopView(answer["top"]))
        was_drawn = True
        await asyncio.sleep(_EVERY)
