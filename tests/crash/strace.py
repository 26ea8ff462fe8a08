"""The output of strace as values: each call with its file, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from attrs import evolve, frozen

CALLS = ("fsync", "fdatasync", "pwrite64", "link", "linkat", "rename", "sendto", "sendmsg")
_SYNCS = ("fsync", "fdatasync")

_BEGUN = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>.*= 0$")
_PATH = re.compile(r"\d+<(?P<path>[^>]*)>")


@frozen(kw_only=True)
class Call:
    """One system call; `path` is the file of its handle."""

    thread: str
    name: str
    path: str
    text: str

    @property
    def is_post(self) -> bool:
        return self.name in ("sendto", "sendmsg") and '"POST ' in self.text

    def is_sync_of(self, ending: str) -> bool:
        return self.name in _SYNCS and self.path.endswith(ending)

    def is_write_to(self, ending: str) -> bool:
        return self.name == "pwrite64" and self.path.endswith(ending)


def parsed(text: str) -> list[Call]:
    """Return the calls in a trace."""
    return list(_calls(text.splitlines()))


def _calls(lines: Sequence[str]) -> Iterator[Call]:
    waiting: dict[str, Call] = {}
    for line in lines:
        if (resumed := _RESUMED.fullmatch(line)) and resumed["thread"] in waiting:
            call = waiting.pop(resumed["thread"])
            if call.name == resumed["name"]:
                yield evolve(call, text=line)
        elif begun := _BEGUN.fullmatch(line):
            path = _PATH.search(begun["rest"])
            call = Call(
                thread=begun["thread"],
                name=begun["name"],
                path="" if path is None else path["path"],
                text=line,
            )
            if "<unfinished" in line and call.name in _SYNCS:
                waiting[call.thread] = call
            elif call.name not in _SYNCS or line.endswith("= 0"):
                yield call


def unsynced(calls: Sequence[Call], ending: str) -> int:
    """Return the number of writes to a file without a later sync."""
    count = 0
    for call in calls:
        if call.is_sync_of(ending):
            count = 0
        count += call.is_write_to(ending)
    return count
