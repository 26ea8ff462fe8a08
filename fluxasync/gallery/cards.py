"""Reads a folder into cards, one for each image, from the journal or from the two lists.

The journal also knows the jobs that are running or in doubt. During a run, and without a journal,
`metadata.jsonl` and `failures.jsonl` are read; `CardLists` follows them as they grow. A list is
untrusted: an unknown line is skipped, a value of a wrong type is dropped, a file name that leads
out of the folder is not linked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote

from attrs import define, field, frozen

from .._core.errors import ConfigError, FluxError
from .._core.images import EXTENSIONS
from .._core.models import Failed, ImageRequest, InDoubt, Job, Saved
from .._core.strict_json import read_object
from .._store.files import disk_error, open_to_read
from .._store.journal.reader import JournalEntry, has_journal, output_of, read_only
from .._store.metadata import FAILURES, METADATA, failure_row, metadata_row, parameters_of
from .._store.output_root import OutputRoot
from .._store.quarantine import is_quarantine_path

Status = Literal["saved", "moderated", "failed", "quarantined", "in doubt", "running"]

_ENDINGS = frozenset(EXTENSIONS.values()) | {"jpeg"}
#: bytes of one read of a list, and maximum bytes of a line
_BLOCK, _LONGEST_LINE = 2**20, 2**24

_TEXTS = (
    "prompt", "prompt_used", "model", "job_id", "provider", "account", "finished_at", "cause",
    "message", "where", "file_name", "url",
)  # fmt: skip
_NUMBERS = ("seed", "width", "height", "bytes", "cost", "price")
_OBJECTS = ("parameters", "extras", "timings")
_SHA256 = re.compile("[0-9a-f]{64}")


@frozen(kw_only=True)
class Card:
    """One image on the page."""

    key: str  #: unique in the folder
    status: Status
    index: int  #: position in the run
    #: checked name in the run's output, of bytes in quarantine in the folder; None = no image
    file: str | None = None
    sha256: str = ""  #: of the image, as recorded; "" = unknown
    facts: Mapping[str, Any] = field(factory=dict)  #: JSON values; unknown ones are left out

    @property
    def is_saved(self) -> bool:
        """Whether the image is in the run's output; other files are always in the folder."""
        return self.status == "saved"

    def as_json(self, *, file: str | None, thumb: str | None) -> dict[str, Any]:
        """Return the card for the page; `file` and `thumb` are paths from the page."""
        paths = {"file": file, "thumb": thumb}
        given = {"key": self.key, "status": self.status, "index": self.index, **self.facts}
        return given | {name: address(path) for name, path in paths.items() if path is not None}


@frozen(kw_only=True)
class Cards:
    """All cards of a folder."""

    cards: tuple[Card, ...]
    root: OutputRoot  #: where the saved images are
    simulated: bool = False
    is_running: bool = False  #: a run is active in the folder


def address(path: str) -> str:
    """Return a path beside the page as a relative URL."""
    return "./" + quote(path)


def read(folder: Path) -> Cards:
    """Read a folder, from its journal unless a run is active there.

    Raises ConfigError for a folder without a run and JournalError for a journal that cannot be
    trusted.
    """
    if folder.is_file():
        raise ConfigError(f"{folder} is a file: give the folder of a run")
    lists = CardLists(folder)
    if not has_journal(folder):
        cards = lists.changed()
        if not cards:
            raise ConfigError(f"{folder} has no images of a run: give the folder of a run")
        return Cards(cards=tuple(cards), root=OutputRoot(folder))
    with read_only(folder) as view:
        if not view.is_running:
            found = [_of_entry(entry, view.root) for entry in view.entries()]
            # an invalid row of the prompt file is only in the list
            bad = [card for card in lists.changed() if card.key.startswith(_BAD)]
            cards = [card for card in found if card is not None] + bad
            return Cards(cards=_sorted(cards), root=view.root, simulated=bool(view.simulated))
    return Cards(
        cards=_sorted(lists.changed()),
        root=OutputRoot(folder, output_of(folder)),
        is_running=True,
    )


def is_simulated(folder: Path) -> bool:
    """Whether a run in the folder costs nothing; False also where that cannot be read (yet)."""
    with suppress(FluxError), read_only(folder) as view:
        return bool(view.simulated)
    return False


def _sorted(cards: list[Card]) -> tuple[Card, ...]:
    return tuple(sorted(cards, key=lambda card: (card.index, card.key)))


#: for jobs that a run left; entries are read only while no run is active
_TO_COLLECT = {
    "message": "accepted and maybe paid: the next run in this folder collects it for free"
}
_EXPORTED = "its file was deleted after an export, which has it"
_BAD = "line "  #: start of the key of an invalid row


def _of_entry(entry: JournalEntry, root: OutputRoot) -> Card | None:
    key, known = entry.key, entry.known
    match known:
        case Saved(path=path):
            row = metadata_row(known, root) | {"key": key}
            # an object is not looked for: it was deleted right after the record said so
            if entry.export is not None and (path is None or not path.exists()):
                row |= {"file_name": None, "message": _EXPORTED}
            return _of_line(row)
        case Failed() | InDoubt():
            return _of_line(
                failure_row(known, root.folder) | _parameters(known.request) | {"key": key}
            )
        case Job(request=request) if request is not None:
            line: dict[str, Any] = {"prompt": request.prompt, "model": request.model}
            line |= {"index": request.index, "job_id": known.job_id, "key": key}
            line |= {"account": known.account}
            return _of_line(line | _parameters(request) | _TO_COLLECT, status="running")
    return None  # to be submitted again: nothing to show


def _parameters(request: ImageRequest | None) -> dict[str, Any]:
    """Return the columns of a request that failures.jsonl does not have."""
    seed = None if request is None else request.seed
    return {"parameters": parameters_of(request), "seed": seed}


def _of_line(line: Mapping[str, Any], *, status: Status | None = None) -> Card | None:
    """Return the card of a line of either list; None for a line without key or index."""
    texts = {name: line[name] for name in _TEXTS if isinstance(line.get(name), str)}
    numbers = {name: _exact(line[name]) for name in _NUMBERS if _is_number(line.get(name))}
    objects = {name: line[name] for name in _OBJECTS if _is_object(line.get(name))}
    paid = {"paid": line["paid"]} if line.get("paid") in ("yes", "no", "unknown") else {}
    key, index = line.get("key"), line.get("index")
    if key is None and "where" in texts:
        key = f"{_BAD}{texts['where']}"
    if not isinstance(key, str) or not isinstance(index, int):
        return None
    return Card(
        key=key,
        index=index,
        status=status or _status_of(line),
        file=_inside(texts.get("file_name")) or _quarantined(line),
        sha256=_digest(line.get("sha256")),
        facts=texts | numbers | objects | paid,
    )


def _quarantined(line: Mapping[str, Any]) -> str | None:
    """Return the path of a failure's bytes, if they may be an image."""
    kept = line.get("quarantine")
    path = kept.get("path") if isinstance(kept, dict) else None
    return _inside(path) if isinstance(path, str) and is_quarantine_path(path) else None


def _status_of(line: Mapping[str, Any]) -> Status:
    if isinstance(line.get("quarantine"), dict):
        return "quarantined"
    match line.get("cause"):
        case None:
            return "saved"
        case "moderated":
            return "moderated"
        case "in-doubt" | "not-listed":
            return "in doubt"
    return "failed"


def _digest(value: Any) -> str:
    is_digest = isinstance(value, str) and _SHA256.fullmatch(value)
    return str(value) if is_digest else ""


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number that a browser can show."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 2**64


def _exact(number: float) -> float | str:
    """Return a number as a browser shows all its digits: JavaScript rounds whole ones from 2^53."""
    return str(number) if isinstance(number, int) and abs(number) >= 2**53 else number


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no address can have
        return False
    return True


def _inside(name: str | None) -> str | None:
    """Return the path if it stays in the folder and has an image's suffix, else None."""
    if not name or "\0" in name or "\\" in name or not _is_utf8(name):
        return None
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.suffix[1:].lower() not in _ENDINGS:
        return None
    return str(path)


class CardLists:
    """Follows the two lists of a folder as they grow; for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._saved, self._failed = _Tail(folder / METADATA), _Tail(folder / FAILURES)
        self._known: dict[str, Card] = {}

    def changed(self) -> list[Card]:
        """Return the cards that are new or changed since the last call.

        Raises SinkError if a list cannot be read. A saved image replaces its earlier failure.
        """
        found: dict[str, Card] = {}
        for tail in (self._failed, self._saved):
            for line in tail.lines():
                card = _parsed(line)
                if card is not None:
                    found[card.key] = card
        changed = [card for card in found.values() if self._is_changed(card)]
        self._known |= {card.key: card for card in changed}
        return changed

    def _is_changed(self, card: Card) -> bool:
        known = self._known.get(card.key)
        if known is None or known.status != "saved":
            return known != card
        return card.status == "saved" and known != card


def _parsed(line: bytes) -> Card | None:
    found = read_object(line)
    return None if found is None else _of_line(found)


@define
class _Tail:
    """Reads a list that grows; starts again when it is replaced."""

    path: Path
    _file: int = 0  #: inode; a rewritten list is another file
    _offset: int = 0
    _rest: bytes = b""

    def lines(self) -> Iterator[bytes]:
        """Yield the complete lines that were not yielded before."""
        try:
            with open_to_read(self.path) as file:
                facts = os.fstat(file.fileno())
                if facts.st_ino != self._file or facts.st_size < self._offset:
                    self._file, self._offset, self._rest = facts.st_ino, 0, b""
                file.seek(self._offset)
                while block := file.read(_BLOCK):
                    self._offset += len(block)
                    *whole, self._rest = (self._rest + block).split(b"\n")
                    if len(self._rest) > _LONGEST_LINE:
                        self._rest = b""
                    yield from whole
        except FileNotFoundError:
            return
        except OSError as exc:
            raise disk_error(self.path, exc) from exc
