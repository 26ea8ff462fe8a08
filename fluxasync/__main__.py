"""The `fluxasync` command, also as `python -m fluxasync`.

Apart from `app`, so that an install without the extra `cli` gets one line that says what to install
instead of a traceback.
"""

from __future__ import annotations

import sys

from ._cli import startup_signals
from ._core.extras import install_command

#: packages of the extra `cli`
_EXTRA = ("cyclopts", "rich")


def main() -> int:
    """Run the command on this process's arguments and return its exit code.

    Ctrl-C while the command is loaded, or after it, causes no traceback.
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
