"""The files of a folder's quarantine between runs: compared with the journal, copied, removed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._core.errors import SinkError
from ..._core.images import EXTENSIONS, NotAnImage, inspect, measure, sniff
from ..._core.models import Stored
from ..files import AtomicFile, disk_error, make_folder, open_to_read, sync_folder
from ..journal.checked_row import Row
from ..journal.integrity import is_part
from ..journal.quarantined_row import facts_of
from ..journal.serialization import as_stored, storable
from ..quarantine import FOLDER, OTHER, check, measured, name_of, names

if TYPE_CHECKING:
    from .folder_status import QuarantinedEntry

#: the format of accepted bytes that are no JPEG, PNG or WebP
_UNKNOWN = "unknown"


def differences(
    folder: Path, entries: Sequence[QuarantinedEntry], *, running: Collection[str]
) -> Iterator[tuple[str, str, str | None, str]]:
    """Compare the files of the quarantine with the journal's entries; yield kind, path, key and
    details. A killed run may have left bytes of the `running` jobs, which are ids."""
    recorded = set()
    for entry in entries:
        recorded.add(entry.path.name)
        where = f"{FOLDER}/{entry.path.name}"
        try:
            is_same = measured(entry.path).sha256 == entry.sha256
        except OSError as error:
            yield "quarantine missing", where, entry.key, error.strerror or str(error)
        else:
            if not is_same:
                yield "quarantine changed", where, entry.key, "its sha256 differs"
    expected = set(map(name_of, running))
    for name in sorted(names(folder) - recorded):
        if is_part(name):
            yield "unknown file", f"{FOLDER}/{name}", None, "an unfinished image"
        elif name.partition(".")[0] not in expected:
            yield "quarantine stray", f"{FOLDER}/{name}", None, "no image refers to it"


def kept_image(folder: Path, row: Row) -> tuple[str, Stored]:
    """Return a row's bytes in quarantine, and their final name in the output."""
    source = folder / (row.path or "")
    try:
        check(folder)
        with open_to_read(source) as file:
            content = file.read()
    except FileNotFoundError as error:
        raise SinkError(f"{source} is missing: restore it, or give it up with --discard") from error
    except OSError as error:
        raise disk_error(folder, error) from error
    format, width, height = _measured(content)
    name = f"{row.stem or row.key.hex()}.{EXTENSIONS.get(format, OTHER)}"
    return name, Stored(
        data=content,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        format=format,
        width=width,
        height=height,
    )


def published(folder: Path, name: str, image: Stored) -> Path:
    """Write bytes under their final name, beside another file of that name; return the path."""
    try:
        part = _part(folder, name)
        try:
            part.write(image.data or b"")
            path = Path(part.publish(str(folder / name)))
        finally:
            part.discard()
        sync_folder(path.parent)
    except OSError as error:
        raise disk_error(folder, error) from error
    return path


def accepted_columns(row: Row, name: str, image: Stored) -> tuple[Any, ...]:
    """Return the columns of a done row: what its failed try recorded, and what the bytes are."""
    facts = facts_of(row, "")
    digest = bytes.fromhex(image.sha256)
    return (
        facts.cost, facts.cost, time.time(), storable(name), digest, image.size, image.format,
        image.width, image.height, as_stored(facts.result),
    )  # fmt: skip


def is_whole(folder: Path, entry: QuarantinedEntry) -> bool:
    """Whether a file of the quarantine is a whole image, and as it was recorded."""
    try:
        check(folder)
        with open_to_read(entry.path) as file:
            content = file.read()
        inspect(content)
    except NotAnImage:
        return False
    except OSError as error:
        raise disk_error(entry.path, error) from error
    return hashlib.sha256(content).hexdigest() == entry.sha256


def _part(folder: Path, name: str) -> AtomicFile:
    """Return a new file in the folder of a name, which may not lead out of the output folder."""
    parent = (folder / name).parent
    make_folder(parent)
    if not Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(folder)):
        raise SinkError(f"{parent} is a link that leads out of {folder}: remove it")
    return AtomicFile(parent)


def _measured(content: bytes) -> tuple[str, int, int]:
    """Return format, width and height, as far as the bytes show them."""
    with suppress(NotAnImage):
        info = measure(content)
        return info.format, info.width, info.height
    with suppress(NotAnImage):
        return sniff(content[:64]), 0, 0
    return _UNKNOWN, 0, 0


def removed(folder: Path, path: Path) -> None:
    """Remove a file of the quarantine, if it is there."""
    try:
        check(folder)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileNotFoundError:  # the whole quarantine is gone
        return
    except OSError as error:
        raise disk_error(path, error) from error
