"""`--install-completion`: the shell completes commands, options and their values."""

from __future__ import annotations

import os
from typing import Literal

from .._batch.progress.terminal import Terminal
from .._core.errors import ConfigError
from .event_loop import run_async
from .exit_codes import DONE
from .key_files import OutPath

Shell = Literal["bash", "zsh", "fish"]


def install_completion(*, shell: Shell | None = None, out: OutPath | None = None) -> int:
    """Install completion of commands and options for your shell.

    Parameters
    ----------
    shell
        bash, zsh or fish (default: the one of this terminal).
    out
        File for the script instead; the shell's own files stay as they are.
    """
    terminal = Terminal()

    async def install() -> int:
        from .app import app  # which names this command

        chosen = shell or _shell(os.environ.get("SHELL", ""))
        try:
            place = app.install_completion(shell=chosen, output=out, add_to_startup=out is None)
        except OSError as error:
            reason = f"the script cannot be written: {error}; say where: -o FILE"
            raise ConfigError(reason) from None
        terminal.out(str(place))
        if out is None:
            terminal.say(f"start a new {chosen} to use it")
        return DONE

    return run_async(install, terminal)


def _shell(path: str) -> Shell:
    name = os.path.basename(path)
    for shell in ("bash", "zsh", "fish"):
        if name == shell:
            return shell
    raise ConfigError("which shell? --shell bash, --shell zsh or --shell fish")
