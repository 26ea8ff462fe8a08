"""Opens the standard descriptors that a caller closed (`0<&-`, `>&-`), on /dev/null.

Otherwise the next file, socket or event loop gets the number 0, 1 or 2: messages are written into
it, and libuv aborts the process when it closes one (libuv/libuv#4558).
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

#: no room for data: its reader has not gone away, but will miss it
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_missing() -> None:
    """Open what is closed; call it before anything else is opened."""
    for number, (name, mode) in enumerate(_STREAMS):
        if not _is_open(number):
            opened = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:  # as Python leaves the stream of a closed descriptor
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 — kept
            setattr(sys, name, stream)


class ForgivingStream:
    """Standard output for code that is not ours, such as the writer of help texts: what cannot be
    written is dropped, as `Terminal` does, where Python would end with a traceback or code 120."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.is_full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self.is_full = error.errno in FULL
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.is_full = getattr(error, "errno", None) in FULL


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
