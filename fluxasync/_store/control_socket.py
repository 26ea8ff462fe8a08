"""The Unix socket in a run's folder at which other programs of the same user control the run.

A socket's path has at most 104 bytes on macOS and 108 on Linux. A longer one is reached through a
link in a temporary folder, which exists only while a socket is bound or connected.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: in the run's own folder; a socket, or a text that says why there is none
NAME = "control"
#: bytes of a path that every system takes
_LONGEST = 100


class ControlSocket:
    """The listening side of a run, which has the lock of its folder: an earlier socket is stale.

    Raises OSError where the file system has no sockets; the text in its place says so.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / NAME
        with suppress(FileNotFoundError):
            self._path.unlink()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(self._path) as address:
                self.socket.bind(address)
            # nobody can connect before the socket listens
            os.chmod(self._path, 0o600)
            self._identity = self._found()
        except OSError as error:
            self.socket.close()
            self._explain(error)
            raise

    def close(self) -> None:
        """Close the socket and remove its name, unless it is another one's by now."""
        self.socket.close()
        with suppress(OSError):
            if self._found() == self._identity:
                self._path.unlink()

    def _found(self) -> tuple[int, int]:
        found = self._path.lstat()
        return found.st_dev, found.st_ino

    def _explain(self, error: OSError) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(OSError), os.fdopen(os.open(self._path, flags, 0o600), "w") as file:
            file.write(f"its file system has no sockets ({error.strerror or error})")


def connected(home: Path, *, timeout: float) -> socket.socket:
    """Return a connection to the run in a folder. Raises OSError: FileNotFoundError without a
    socket, ConnectionRefusedError where its run was killed."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with _short(home / NAME) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def explanation(home: Path) -> str:
    """Return why a run has no socket, as it left it; "" if it left nothing."""
    path = home / NAME
    with suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            with path.open("rb") as file:
                return file.read(300).decode(errors="replace")
    return ""


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield a path of the same file that is short enough for a socket."""
    whole = os.path.abspath(path)
    if len(os.fsencode(whole)) <= _LONGEST:
        yield whole
        return
    with tempfile.TemporaryDirectory(prefix="flux-", dir=_short_folder()) as folder:
        os.symlink(os.path.dirname(whole), f"{folder}/d")
        yield f"{folder}/d/{path.name}"


def _short_folder() -> str:
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) < _LONGEST // 2 else "/tmp"  # noqa: S108 — a private folder is made in it
