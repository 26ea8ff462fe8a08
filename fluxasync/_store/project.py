"""The line of a run, which its folder keeps: the list, the options and the versions.

`.fluxasync/project.json` beside the journal; the newest run replaces it whole. It never has a key.
Paths that were given relative are relative to the folder, so a project may be moved. A line decides
where a key is sent and what is executed, so the file has a proof (HMAC) that this user wrote it on
this machine: the folder may come from another person.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import platform
import secrets
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, field, frozen

from .._core.arguments import is_url
from .._core.errors import ConfigError
from .._core.version import __version__
from .files import HOME, AtomicFile, disk_error, make_folder, open_to_read, sync_folder
from .output_root import cache_folder

FILE = "project.json"
VERSION = 1

#: bytes; the line of a shell has 2 MB at most
_LONGEST = 2**23
_SECRET_BYTES = 32
#: bytes of a list whose content is compared; of a longer one size and time are
_HASHED = 2**30


@frozen(kw_only=True)
class Project:
    """What a folder keeps of its last run."""

    source: tuple[str, ...]  #: words of the line, as "prompts.csv" or "-"
    options: Mapping[str, tuple[str, ...]]  #: "--model" → its texts; none = a flag
    left_out: tuple[str, ...] = ()  #: options whose values are secret
    lists: Mapping[str, str] = field(factory=dict)  #: file of the list → fingerprint
    fluxasync: str = __version__
    python: str = field(factory=platform.python_version)
    at: str = field(factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    is_own: bool = field(default=True, eq=False)  #: written by this user on this machine


def project_file(folder: Path) -> Path:
    return folder / HOME / FILE


def read_project(folder: Path) -> Project | None:
    """Return what a folder keeps; None if it keeps nothing.

    Raises ConfigError for a file that is damaged or newer, SinkError for an error of the disk.
    """
    path = project_file(folder)
    try:
        with open_to_read(path) as file:
            content = file.read(_LONGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise disk_error(path, error) from error
    try:
        found = json.loads(content.decode(errors="surrogateescape"))
        version = found.pop("version")
        if version != VERSION:
            raise ConfigError(f"{path} is of a newer version of fluxasync: update it")
        proof = found.pop("proof", "")
        project = _checked(found)
        return evolve(project, is_own=hmac.compare_digest(proof, _proof(project)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{path} is damaged: remove it, and give the whole line of the run again; no image is "
            "lost or paid again"
        ) from None


def write_project(folder: Path, project: Project) -> None:
    """Keep a line in place of the one before; whole and durable on return. Raises SinkError."""
    home = folder / HOME
    kept = {"version": VERSION, **_values(project), "proof": _proof(project)}
    text = json.dumps(kept, indent=1, ensure_ascii=False)
    part = AtomicFile(home)
    try:
        part.write(text.encode(errors="surrogateescape") + b"\n")
        part.replace(os.path.join(home, FILE))
        sync_folder(home)
    except OSError as error:
        raise disk_error(home / FILE, error) from error
    finally:
        part.discard()


def kept_path(text: str, folder: Path) -> str:
    """Return a path as it is kept: a relative one from the folder."""
    return text if os.path.isabs(text) or is_url(text) else os.path.relpath(text, folder)


def resolved(text: str, folder: Path) -> str:
    """Return a kept path as it is used: from the working folder, if it is below that."""
    if os.path.isabs(text) or is_url(text):
        return text
    path = os.path.abspath(os.path.join(folder, text))
    near = os.path.relpath(path)
    return path if near.startswith(os.pardir) else near


def fingerprint(path: Path) -> str:
    """Return what changes with the content of a file, or of the .txt files of a folder. Blocks."""
    if not path.is_dir():
        return _of_file(path)
    digest = hashlib.sha256()
    with closing(os.scandir(path)) as entries:
        names = sorted(each.name for each in entries if each.name.lower().endswith(".txt"))
    for name in names:
        digest.update(f"{name}\0{_of_file(path / name)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _values(project: Project) -> dict[str, Any]:
    return asdict(project, filter=lambda each, _: each.name != "is_own")


def _proof(project: Project) -> str:
    """Return what only this user on this machine can make of a line."""
    text = json.dumps(_values(project), sort_keys=True)
    return hmac.new(_secret(), text.encode(), "sha256").hexdigest()


def _secret() -> bytes:
    """Return this user's secret of this machine, made at first use. Where it cannot be kept, each
    line has another one, so that none is resumed."""
    path = cache_folder() / "line-secret"
    if (found := _kept_secret(path)) is not None:
        return found
    made = secrets.token_bytes(_SECRET_BYTES)
    with suppress(OSError):
        make_folder(path.parent)
        part = AtomicFile(path.parent)
        try:
            os.fchmod(part.open(), 0o600)
            part.write(made)
            try:
                os.link(part.path, path)
            except FileExistsError:  # another process was first, or a full disk left an empty one
                if _kept_secret(path) is None:
                    part.replace(os.fspath(path))
        finally:
            part.discard()
    return _kept_secret(path) or made


def _kept_secret(path: Path) -> bytes | None:
    with suppress(OSError), open_to_read(path) as file:
        if len(found := file.read(_SECRET_BYTES)) == _SECRET_BYTES:
            return found
    return None


def _of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_size > _HASHED:
                return f"{found.st_size} {found.st_mtime_ns}"
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""  # it is not there any more, or no file


def _checked(found: Mapping[str, Any]) -> Project:
    options = {name: _texts(texts) for name, texts in found["options"].items()}
    if not all(isinstance(name, str) and name.startswith("--") for name in options):
        raise ValueError
    lists = found.get("lists", {})
    if not all(isinstance(text, str) for pair in lists.items() for text in pair):
        raise ValueError
    return Project(
        source=_texts(found["source"]),
        options=options,
        left_out=_texts(found.get("left_out", [])),
        lists=lists,
        fluxasync=str(found.get("fluxasync", "")),
        python=str(found.get("python", "")),
        at=str(found.get("at", "")),
    )


def _texts(given: Sequence[Any]) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise ValueError
    return tuple(given)
