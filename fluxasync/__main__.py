"""The `fluxasync` command, also as `python -m fluxasync`.

Stands apart from `_cli` so that a core install, which has no command-line library, gets one line
saying what to install instead of a traceback.
"""

from __future__ import annotations

import sys

#: what the extra `cli` brings
_EXTRA = ("cyclopts", "rich")
#: what a shell calls a process that SIGINT ended
_INTERRUPTED = 130


def main() -> int:
    """Run the command on this process's arguments and return its exit code.

    Ctrl-C while it is still being loaded, or while it closes, is no reason for a traceback.
    """
    try:
        return _command()
    except KeyboardInterrupt:
        return _INTERRUPTED


def _command() -> int:
    try:
        from ._cli import main as command
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            "fluxasync: the command is not installed; pip install 'fluxasync[cli]'"
            " (the library works without it)\n"
        )
        return 2
    return command()


if __name__ == "__main__":
    sys.exit(main())
