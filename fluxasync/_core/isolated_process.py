"""Starts the package's child processes, without code from the working folder and without keys.

`python -m` puts the working folder first on the module path, so a `json.py` beside a prompt list
would run in the child. A child starts with `-P` and an explicit module path. Its environment has
only the variables that Python and the machine need, and those that its work needs.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

#: the folder that this package was imported from
_HOME = str(Path(__file__).resolve().parents[2])

#: variables that a child gets: paths, language, time zone, and how the simulator draws
_KEPT = frozenset(
    {"HOME", "PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "FLUXASYNC_PICTURES"}
)
#: prefixes of variables for Python, the dynamic linker, malloc and coverage
_KEPT_PREFIXES = ("LC_", "PYTHON", "VIRTUAL_ENV", "LD_", "DYLD_", "MALLOC_", "COVERAGE_", "COV_")

#: prefixes of the variables from which obstore takes credentials, endpoints and the network's
#: settings: for a child that reads a bucket
STORE_VARIABLES = (
    "AWS_", "GOOGLE_", "AZURE_", "MSI_", "IDENTITY_",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_",
)  # fmt: skip


async def start(
    module: str, *arguments: str, quiet: bool = False, keeps: tuple[str, ...] = ()
) -> asyncio.subprocess.Process:
    """Start a module of the package in a process, with pipes for its input and output.

    The process has its own session, so the terminal's Ctrl-C does not reach it. `quiet` discards
    its standard error; `keeps` has prefixes of further variables that it gets. Raises OSError when
    the process cannot be started.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", module, *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL if quiet else None,
        env=_environment(os.environ, keeps),
        start_new_session=True,
    )  # fmt: skip


def _environment(own: Mapping[str, str], keeps: tuple[str, ...]) -> dict[str, str]:
    """Return a child's environment: the listed variables and the module path."""
    kept = {
        name: value
        for name, value in own.items()
        if name in _KEPT or name.startswith((*_KEPT_PREFIXES, *keeps))
    }
    return kept | {"PYTHONPATH": os.pathsep.join(_module_path())}


def _module_path() -> Iterator[str]:
    """Yield this process's module path without the working folder and the script's folder.

    The folder of this package always stays, because a child must run the same copy.
    """
    working = _working_folder()
    unwanted = {os.path.realpath(folder) for folder in (working, _script_folder()) if folder}
    absolute = (os.path.normpath(os.path.join(working, path)) for path in sys.path)
    paths = dict.fromkeys(filter(os.path.isabs, absolute))
    for path in paths:
        if path == _HOME or os.path.realpath(path) not in unwanted:
            yield path
    if _HOME not in paths:
        yield _HOME


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return ""


def _script_folder() -> str:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.dirname(script or "")
