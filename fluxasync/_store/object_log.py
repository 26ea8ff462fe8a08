"""ObjectLog: the records of a run in an object store, as numbered objects that are created once.

An object holds the records of one group. A writer creates the number after the last group that it
knows, so of two writers only one goes on: the other finds its number taken, and is fenced. Every
thousand groups are also kept as one sealed object, from which a start reads them with one call. The
small objects stay, because a fenced writer could create a removed number again.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from gzip import BadGzipFile, GzipFile
from io import BytesIO, StringIO, TextIOWrapper
from itertools import islice
from typing import Any, TextIO

from attrs import frozen

from .._core.errors import JournalError, SinkError
from .._core.text import display
from .files import HOME
from .objects import Objects, overwrites, pauses

#: the folders of the log under the URL of a run
LOG, SEALED = f"{HOME}/log", f"{HOME}/log/sealed"

#: groups in a sealed object
SEAL = 1_000

#: of the compression of sealed objects
_GZIP_LEVEL = 4

#: small objects that are read at once, and that are in memory
_READERS, _AHEAD = 16, 64

_NAME = re.compile(rf"{LOG}/(\d{{12}})\.jsonl")
_SEAL_NAME = re.compile(rf"{SEALED}/(\d{{12}})-(\d{{12}})\.jsonl\.gz")

#: errors of reading what is no group
_NO_GROUP = (ValueError, TypeError)

_RESTORE = (
    "restore it from a copy of the bucket or an earlier version of the object; without it a run "
    "could pay for images again"
)


class Fenced(JournalError):
    """Another run has appended to the log, so this one cannot go on."""


@frozen
class Group:
    """The records that were appended together."""

    number: int  #: from 1, without a gap
    writer: str  #: random, of the ObjectLog that appended it
    lines: tuple[str, ...]


class ObjectLog:
    """The log under a run's URL. All methods block; errors of the store are JournalErrors.

    Read `groups` to its end, then `append`: a log stands at the last group that it read or
    appended. One thread reads and appends; another one may `seal`.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.url = objects.url
        self.writer = secrets.token_hex(8)
        self._last = 0
        self._sealed_to: int | None = None  #: None = not looked up yet
        self._is_proven = False  #: the store creates no object twice
        self._fault: JournalError | None = None

    def __repr__(self) -> str:
        return f"<ObjectLog {self.url!r} at group {self._last:,}>"

    def again(self) -> ObjectLog:
        """Return the log for a writer that was fenced, and reads and appends from the start."""
        return ObjectLog(self.objects)

    def groups(self, after: int = 0) -> Iterator[Group]:
        """Yield the groups after a number, in order.

        Raises JournalError if one is missing or damaged, or if the log ends before `after`.
        """
        self._last = after
        for group in self._groups(after):
            self._last = group.number
            yield group

    def group(self, number: int) -> Group | None:
        """Return one group, None if there is none. Raises JournalError.

        Another writer than the one that was seen at this number: it is another log.
        """
        content = self._read(_name(number))
        return None if content is None else self._decoded(number, content)

    def append(self, lines: Sequence[str]) -> int:
        """Append a group of lines; return its number. It is durable on return.

        Raises Fenced if the number is another writer's, JournalError if the store cannot be reached
        for a minute: the group may be in the log then. Later calls raise the same error.
        """
        if any("\n" in line for line in lines):
            raise ValueError("a record is one line")
        if self._fault is not None:
            raise self._fault
        number = self._last + 1
        try:
            with _journal_errors():
                self._create(_name(number), self._encoded(number, lines))
        except JournalError as error:
            self._fault = error
            raise
        self._last = number
        return number

    def fence(self, error: Fenced) -> None:
        """Let each later append raise an error; from any thread."""
        self._fault = error

    def seal(self) -> None:
        """Keep each thousand groups also as one object, as far as that is not done.

        A seal follows from its groups, so it does not matter who makes it, or how often. Raises
        JournalError; nothing depends on a seal, and the next call continues.
        """
        if self._sealed_to is None:
            self._sealed_to = _end_of_chain(self._seals())
        while self._sealed_to + SEAL <= self._last:
            first, last = self._sealed_to + 1, self._sealed_to + SEAL
            packer = zlib.compressobj(_GZIP_LEVEL, wbits=31)  # gzip, without a time in it
            contents = self._contents(range(first, last + 1))
            parts = [packer.compress(content) for _, content in contents]
            sealed = b"".join((*parts, packer.flush()))
            with _journal_errors():
                self.objects.create_blocking(_seal_name(first, last), sealed)
            self._sealed_to = last

    # --- writing --------------------------------------------------------------------------------

    def _encoded(self, number: int, lines: Sequence[str]) -> bytes:
        head = {
            "number": number,
            "writer": self.writer,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "lines": len(lines),
        }
        return "\n".join((json.dumps(head, separators=(",", ":")), *lines, "")).encode()

    def _create(self, name: str, content: bytes) -> None:
        """Create an object of the log, or find the one of an earlier try.

        Raises SinkError, and Fenced for another's object.
        """
        for pause in pauses():
            if self.objects.create_blocking(name, content):
                break
            found = self.objects.read(name)
            if found == content:
                break  # its answer was lost
            if found is not None:
                raise fenced(self.url, read_head(found.partition(b"\n")[0]))
            # S3 also answers so (409) when two calls for one name collide, and neither succeeds
            if pause is None:
                raise SinkError(f"{self.url}/{name} comes and goes: nothing else may write there")
            time.sleep(pause)
        if not self._is_proven:
            if self.objects.create_blocking(name, content):
                raise overwrites(self.url)
            self._is_proven = True

    # --- reading --------------------------------------------------------------------------------

    def _groups(self, after: int) -> Iterator[Group]:
        last = after
        for first, end in self._seals():
            if first <= last + 1 <= end:
                yield from (each for each in self._sealed(first, end) if each.number > last)
                last = end
        # the group `after` must be there too: else the log was removed, or is another one
        is_there = last > after or after == 0
        end = self._end(last + 1 if is_there else last)
        if end < last:
            raise self._missing(last)
        for number, content in self._contents(range(last + 1, end + 1)):
            yield self._decoded(number, content)

    def _seals(self) -> list[tuple[int, int]]:
        """Return first and last number of the sealed objects, in order."""
        found = (_SEAL_NAME.fullmatch(name) for name in self._names(SEALED))
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def _end(self, first: int) -> int:
        """Return the last number of the log, `first` - 1 if there is none from `first` on."""
        found = (_NAME.fullmatch(name) for name in self._names(LOG, after=_name(first - 1)))
        return max((int(match[1]) for match in found if match), default=first - 1)

    def _names(self, folder: str, *, after: str = "") -> list[str]:
        with _journal_errors():
            return list(self.objects.names(folder, after=after))

    def _contents(self, numbers: range) -> Iterator[tuple[int, bytes]]:
        """Yield small objects in order; several are read at once."""
        with ThreadPoolExecutor(_READERS, "fluxasync-log") as threads:
            for start in range(0, len(numbers), _AHEAD):
                part = numbers[start : start + _AHEAD]
                read = threads.map(self._read, map(_name, part))
                for number, content in zip(part, read, strict=True):
                    if content is None:
                        raise self._missing(number)
                    yield number, content

    def _read(self, name: str) -> bytes | None:
        with _journal_errors():
            return self.objects.read(name)

    def _sealed(self, first: int, last: int) -> Iterator[Group]:
        name = _seal_name(first, last)
        content = self._read(name)
        if content is None:
            raise self._missing(first)
        try:
            with TextIOWrapper(GzipFile(fileobj=BytesIO(content)), "utf-8", newline="\n") as file:
                for number in range(first, last + 1):
                    yield _next_group(file, number)
        except (*_NO_GROUP, BadGzipFile, EOFError, zlib.error) as error:
            raise self._damaged(name) from error

    def _decoded(self, number: int, content: bytes) -> Group:
        try:
            file = StringIO(content.decode(), newline="\n")
            group = _next_group(file, number)
            if file.read(1):
                raise ValueError
        except _NO_GROUP as error:
            raise self._damaged(_name(number)) from error
        return group

    def _damaged(self, name: str) -> JournalError:
        return JournalError(f"{self.url}/{name}: this object of the log is damaged: {_RESTORE}")

    def _missing(self, number: int) -> JournalError:
        return JournalError(
            f"{self.url}: objects of the log are missing, such as {_name(number)}: {_RESTORE}"
        )


@contextmanager
def _journal_errors() -> Iterator[None]:
    try:
        yield
    except SinkError as error:
        raise JournalError(str(error)) from error


def _name(number: int) -> str:
    return f"{LOG}/{number:012}.jsonl"


def _seal_name(first: int, last: int) -> str:
    return f"{SEALED}/{first:012}-{last:012}.jsonl.gz"


def _end_of_chain(seals: list[tuple[int, int]]) -> int:
    """Return the number up to which all groups are sealed."""
    end = 0
    for first, last in seals:
        if first == end + 1:
            end = last
    return end


def read_head(text: str | bytes) -> dict[str, Any]:
    """Return what a line of JSON says of its writer; {} = it says nothing."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def fenced(url: str, head: dict[str, Any]) -> Fenced:
    """Return the error of a writer that was overtaken by another one."""
    by = f"process {head.get('pid')} on {head.get('host')}" if head else "another process"
    return Fenced(
        f"{url}: another run has taken over ({display(by, 80)}), so this one stops; what it "
        "recorded is kept: let the other run end, then run the same command again"
    )


def _next_group(file: TextIO, number: int) -> Group:
    """Read the next group, which must have this number and be whole. Raises ValueError."""
    head = read_head(file.readline())
    read = list(islice(file, head.get("lines", 0)))
    lines = tuple(line[:-1] for line in read if line.endswith("\n"))
    if (head.get("number"), head.get("lines")) != (number, len(lines)):
        raise ValueError
    return Group(number, str(head.get("writer")), lines)
