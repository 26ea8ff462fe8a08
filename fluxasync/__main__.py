"""The `fluxasync` command, also as `python -m fluxasync`.

Stands apart from `app` so that a core install, which has no command-line library, gets one line
saying what to install instead of a traceback.
"""

from __future__ import annotations

import sys

from ._cli import startup_signals
from ._core.extras import install_command

#: what the extra `cli` brings
_EXTRA = ("cyclopts", "rich")


def main() -> int:
    """Run the command on this process's arguments and return its exit code.

    Ctrl-C while it is still being loaded, or when it is over, is no reason for a traceback.
    """
    startup_signals.begin()
    try:
        code = _command()
    except KeyboardInterrupt:
        code = startup_signals.INTERRUPTED
    startup_signals.over()
    return code


def _command() -> int:
    try:
        from ._cli.app import main as command
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"fluxasync: the command is not installed: {install_command('cli')}"
            " (the library works without it)\n"
        )
        return 2
    return command()


if __name__ == "__main__":
    sys.exit(main())
