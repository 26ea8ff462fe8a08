"""`doctor` and `credits`: their arguments. What they do is imported when they run."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from .._batch.progress.terminal import Terminal
from .event_loop import run_async
from .options import AccountOptions, RunOptions

Seconds = Annotated[float, Parameter(validator=Number(gte=0.1, lte=3600))]


def doctor(
    *sources: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="Prompt list of the run, if there is one.")
    ],
    patience: Seconds = 15.0,
    options: RunOptions | None = None,
) -> int:
    """Check key, balance, network, clock, list and disk before a run. Free; makes no image.

    Parameters
    ----------
    patience
        Seconds that a check may take, a list five times as long (default: 15).
    """
    terminal = Terminal()

    async def start() -> int:
        from . import doctor_command

        given = options or RunOptions()
        code, is_held = await doctor_command.doctor(terminal, sources, given, patience=patience)
        if is_held:  # at its end the loop would wait for the thread that is held
            terminal.close(timeout=1)
            os._exit(code)
        return code

    return run_async(start, terminal)


def credits_(
    *, simulate: bool = False, json: bool = False, options: AccountOptions | None = None
) -> int:
    """Show what is left on the account, in US dollars. Free.

    Parameters
    ----------
    simulate
        Ask the built-in simulator, which needs no key.
    json
        Print one JSON object.
    """
    terminal = Terminal()

    def start() -> Coroutine[Any, Any, int]:
        from . import credits_command

        return credits_command.show_credits(
            terminal, options or AccountOptions(), simulate=simulate, json=json
        )

    return run_async(start, terminal)
