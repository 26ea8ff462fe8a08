"""Where a run's images are: in the folder of its journal, or under the URL of an object store."""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from attrs import field, frozen

from .._core.arguments import described, is_url
from .._core.errors import ConfigError, JournalError, cut
from .._core.models import Stored

#: schemes of the object stores that a run can write to
SCHEMES = ("s3", "gs", "az", "file", "memory")

#: characters of a URL that a folder's name shows, and digits of its hash
_SHOWN, _DIGITS = 60, 12


@frozen
class OutputRoot:
    """Where the images of one journal are."""

    folder: Path  #: of the journal, the lists and the quarantine
    url: str = ""  #: of the images; "" = they are in the folder
    is_copy: bool = False  #: the record is under the URL, and the folder has a copy of it
    _start: str = field(init=False, repr=False, eq=False)

    @_start.default
    def _(self) -> str:
        return f"{self.url}/" if self.url else os.path.join(self.folder, "")

    @property
    def record(self) -> str:
        """Where the record is, as commands take it: a folder, or a URL."""
        return self.url if self.is_copy else str(self.folder)

    def located(self, name: str | None) -> tuple[Path | None, str]:
        """Return path and place of an image, by its name in the output."""
        if name is None:
            return None, ""
        if self.url:
            return None, self._start + name
        path = self.folder / name
        return path, str(path)

    def name_of(self, stored: Stored) -> str | None:
        """Return an image's name in the output; None for an image in memory."""
        place = stored.place
        if place.startswith(self._start):
            return place[len(self._start) :]
        if self.url and place:
            raise JournalError(f"{cut(place)} is outside of {self.url}, where this run's images go")
        return None if stored.path is None else os.path.relpath(stored.path, self.folder)


def object_url(name: str, given: object) -> str:
    """Return the URL of an object store, without a slash at its end.

    Raises ConfigError for another kind of URL, and for one that holds a password or a query.
    """
    if not isinstance(given, str) or not is_url(given):
        raise ConfigError(f"{name}: a URL such as s3://bucket/run, not {described(given)}")
    scheme, host, path, query, fragment = urlsplit(given)
    shown = cut(f"{scheme}://{host.rpartition('@')[2]}{path}")
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise ConfigError(f"{name}: {shown} is none of {known}")
    if "@" in host:
        raise ConfigError(f"{name}: {shown} was given with a password: give it by the environment")
    if query or fragment:
        raise ConfigError(f"{name}: {shown} was given with a ? or #, which no object name has here")
    if scheme == "file" and (host or path.strip("/") == ""):
        raise ConfigError(f"{name}: {shown}: write file:///FOLDER, from the root")
    if scheme != "file" and not host:
        raise ConfigError(f"{name}: {shown} names no bucket: write {scheme}://BUCKET/RUN")
    parts = [part for part in path.split("/") if part]
    if not {".", ".."}.isdisjoint(parts) or not path.isprintable():
        raise ConfigError(f"{name}: {shown}: leave out . and .. and unprintable characters")
    return "/".join((f"{scheme}://{host}", *parts))


def state_folder(url: str) -> Path:
    """Return the folder for this machine's copy of the record of the run at a URL.

    It is in the `cache_folder`. Raises ConfigError for a URL of no store.
    """
    url = object_url("url", url)
    shown = re.sub(r"[^0-9A-Za-z]+", "-", url).strip("-")[-_SHOWN:].strip("-")
    name = f"{shown}-{hashlib.sha256(url.encode()).hexdigest()[:_DIGITS]}"
    if url.startswith("memory:"):  # it ends with this process, and its copy with it
        return Path(_in_memory(), name)
    return cache_folder() / "runs" / name


def cache_folder() -> Path:
    """Return the folder for what can be made again, in $XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return home / "fluxasync"


@cache
def _in_memory() -> str:
    folder = tempfile.mkdtemp(prefix="fluxasync-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
