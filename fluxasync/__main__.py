"""The `fluxasync` command, also as `python -m fluxasync`.

Apart from `app`, so that an install without the extra `cli` gets one line that says what to install
instead of a traceback.
"""

from __future__ import annotations

import gc
import sys

from ._cli import startup_signals
from ._core import standard_streams
from ._core.extras import install_command

#: packages of the extra `cli`
_EXTRA = ("cyclopts", "rich")
#: exit code of a full disk; `_cli.exit_codes` takes long to import
_DISK = 7


def main() -> int:
    """Run the command on this process's arguments and return its exit code.

    Ctrl-C while the command is loaded, or after it, causes no traceback.
    """
    gc.disable()  # all objects of the start are kept, so a collection finds nothing
    standard_streams.open_missing()
    sys.stdout = output = standard_streams.ForgivingStream(sys.stdout)
    startup_signals.begin()
    try:
        code = _command()
    except KeyboardInterrupt:
        code = startup_signals.INTERRUPTED
    startup_signals.over()
    output.flush()
    return _DISK if output.is_full and not code else code


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
