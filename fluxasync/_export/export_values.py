"""What to export, checked before anything is written; what an export made."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from attrs import define, field, frozen

from .._core.arguments import check_type
from .._core.errors import ConfigError, cut
from .._core.extras import install_command
from .._store.journal.exports import SHARDS, ExportedFile
from .._store.journal.schema import FILE, HOME

#: shards with the images; their images may be deleted afterwards
SHARDED = tuple(SHARDS)
#: one file without the images
TABLES = ("csv", "xlsx")
FORMATS = (*SHARDED, *TABLES, "hf-folder")

DEFAULT_SHARD = "1GB"
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?) ?([KMGT]?)(i?)B", re.IGNORECASE)
_POWERS = "KMGT"
_NEEDS = {"parquet": "pyarrow", "xlsx": "openpyxl"}


class NothingToExport(ConfigError):
    """The run has no saved image."""


@frozen(kw_only=True)
class ExportOptions:
    """What `export` was asked for."""

    folder: Path  #: of the run
    to: str
    out: Path  #: the folder of the shards or images, or the file of a table
    shard: int  #: bytes
    deletes: bool  #: the images, once their shard is recorded
    picked: bool  #: only the images that were picked
    url: str = ""  #: of the record, if the folder only has a copy of it

    @property
    def kind(self) -> str:
        """The export's format as the journal records it. An export of picks has its own, so it
        never replaces the files of a whole one."""
        return f"picked-{self.to}" if self.picked else self.to

    @property
    def place(self) -> str:
        """The export's place as the journal records it: from the folder of the run, if that is
        where it is on every machine."""
        if self.url:
            return os.path.realpath(self.out)
        return os.path.relpath(os.path.realpath(self.out), os.path.realpath(self.folder))


def options_of(
    folder: str | os.PathLike[str],
    to: str,
    *,
    out: str | os.PathLike[str] | None,
    shard: int | str | None,
    delete_images: bool,
    picked: bool = False,
    url: str = "",
) -> ExportOptions:
    """Return the checked options; `url` is where the record is, if the folder only has a copy of
    it. Raises ConfigError."""
    check_type("folder", folder, str, os.PathLike, expected="the folder of a run")
    if to not in FORMATS:
        raise ConfigError(f"to: {cut(repr(to))} is no format (formats: {', '.join(FORMATS)})")
    if to not in SHARDED and shard is not None:
        raise ConfigError(f"shard: {to} has no shards: leave it out, or use {' or '.join(SHARDED)}")
    if to not in SHARDED and delete_images:
        raise ConfigError(
            f"delete_images: {to} does not hold the images: use {' or '.join(SHARDED)}"
        )
    if picked and delete_images:
        raise ConfigError("delete_images: an export of picks can change, so it deletes no images")
    run = Path(folder)
    if out is not None:
        check_type("out", out, str, os.PathLike, expected="a path")
    # of a URL in the working folder, else beside the folder
    named = Path(url.rpartition("/")[2]) if url else run
    chosen = _default(named, to, picked) if out is None else Path(out)
    _check_out(run, chosen, to)
    size = size_of(DEFAULT_SHARD if shard is None else shard)
    options = ExportOptions(
        folder=run, to=to, out=chosen, shard=size, deletes=delete_images, picked=picked,
        url=url,
    )  # fmt: skip
    try:
        options.place.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{options.place!a} is not UTF-8: choose another place") from None
    return options


def check_extra(to: str) -> None:
    """Raise ConfigError, with the command that installs it, if a format's package is missing."""
    needed = _NEEDS.get(to)
    if needed is not None and find_spec(needed) is None:
        raise ConfigError(f"{to} needs {needed}: {install_command('data')}")


def _default(run: Path, to: str, picked: bool) -> Path:
    """Return a path beside the folder of the run."""
    named = run if run.name not in ("", "..") else run.resolve()
    name = (named.name or "run") + ("-picked" if picked else "")
    return named.parent / (f"{name}.{to}" if to in TABLES else f"{name}-{to}")


def _check_out(run: Path, out: Path, to: str) -> None:
    inside = Path(os.path.realpath(out)).is_relative_to(os.path.realpath(run))
    if inside:
        raise ConfigError(f"{out} is inside the folder of the run: choose a place outside")
    if to in TABLES and out.is_dir():
        raise ConfigError(f"{out} is a folder: name the file, such as {out / f'run.{to}'}")
    if to not in TABLES and out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: name a folder")
    if to not in TABLES and (out / HOME / FILE).exists():
        raise ConfigError(f"{out} is the folder of another run: choose a place of its own")


def size_of(given: int | str) -> int:
    """Return bytes: a number, or a text such as "1GB", "500 MB" or "1.5GiB". Raises ConfigError."""
    check_type("shard", given, int, str, expected="a size such as 1GB")
    size = given if isinstance(given, int) else _parsed(given)
    if size < 1:
        raise ConfigError(f"shard: {given} is not a size: write 1GB, 500MB or 1GiB")
    return size


def _parsed(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"shard: {cut(repr(text))} is not a size: write 1GB, 500MB or 1GiB")
    number, unit, binary = found.groups()
    power = _POWERS.index(unit.upper()) + 1 if unit else 0
    base = 1024.0 if binary else 1000.0
    return math.floor(float(number) * math.pow(base, power))


@frozen(kw_only=True)
class ExportResult:
    """What an export holds, and what this call did."""

    folder: Path  #: of the run
    to: str  #: the format
    out: Path  #: the folder of the shards or images, or the file of a table
    paths: tuple[Path, ...]  #: all shards in order; the table; the `metadata.jsonl` of an hf-folder
    made: int  #: how many of `paths` this call wrote
    images: int  #: images in the export
    size: int  #: bytes of the files in `paths`, with an hf-folder's images
    #: images that are not in the export, by reason: "missing", "truncated", "changed", "outside"
    #: (of the run's folder), "unreadable", "no image", "deleted" (after an earlier export),
    #: "earlier" (they were left out of a shard that is kept)
    left_out: Mapping[str, int]
    deleted: int  #: images that this call deleted from the run's folder or bucket
    unknown: tuple[str, ...]  #: keys that are picked and name no saved image of the run
    output: str = ""  #: URL of the run's images; "" = they are in its folder


@define(kw_only=True)
class ExportTally:
    """An ExportResult in progress."""

    options: ExportOptions
    output: str = ""
    total: int = 0  #: saved images of the run
    seen: int = 0
    paths: list[Path] = field(factory=list)
    made: set[Path] = field(factory=set)
    images: int = 0
    size: int = 0
    left_out: Counter[str] = field(factory=Counter)
    deleted: int = 0
    unknown: tuple[str, ...] = ()

    def add(self, path: Path, file: ExportedFile, *, is_made: bool) -> None:
        self.paths.append(path)
        self.made |= {path} if is_made else set()
        self.images += file.images
        self.size += file.size

    def result(self) -> ExportResult:
        return ExportResult(
            folder=self.options.folder,
            to=self.options.to,
            out=self.options.out,
            paths=tuple(self.paths),
            made=len(self.made),
            images=self.images,
            size=self.size,
            left_out=dict(sorted((+self.left_out).items())),
            deleted=self.deleted,
            unknown=self.unknown,
            output=self.output,
        )
