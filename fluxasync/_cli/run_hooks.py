"""What a run calls by its options: `--then`, `--on-finish` and `--notify-url`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .._batch.hooks.commands import then_hook
from .._batch.hooks.finish import Finish, summary_row
from .._core.errors import ConfigError

if TYPE_CHECKING:
    from .._batch.hooks.saved_hook import SavedHook
    from .command_run import CommandRun
    from .options import RunOptions


def hook_of(options: RunOptions) -> SavedHook | None:
    """Return the hook of `--then`. Raises ConfigError."""
    if options.hooks.then is None:
        return None
    if options.root.url:
        raise ConfigError("--then is for images in a folder, and these go to a bucket")
    return then_hook(options.hooks.then)


@asynccontextmanager
async def told_at_end(command: CommandRun, options: RunOptions) -> AsyncIterator[None]:
    """Tell the end of the run in the block, also if an error ends it; not if nothing began, and not
    if the run was left by a second Ctrl-C. Raises ConfigError on entry."""
    finish = Finish.of(options.hooks.on_finish, options.hooks.notify_url)
    try:
        yield
    except Exception as error:
        await _tell(finish, command, options, error)
        raise
    await _tell(finish, command, options, None)


async def _tell(
    finish: Finish, command: CommandRun, options: RunOptions, error: Exception | None
) -> None:
    if command.batch is None:
        return
    row = summary_row(
        command.batch.summary,
        place=options.root.url or options.root.record,
        error=error,
        simulated=command.is_simulated,
    )
    await finish.tell(row)
