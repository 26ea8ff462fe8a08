"""What a run says of the one before it in its folder, and keeps for the next one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import evolve, field, frozen

from .._core.arguments import is_url
from .._core.errors import ConfigError, cut
from .._requests.sources.list_files import list_files
from .._store.bucket_state import folder_of
from .._store.files import HOME
from .._store.picks import PICKS
from .._store.project import (
    Project,
    fingerprint,
    kept_path,
    read_project,
    resolved,
    write_project,
)
from .given_options import GIVEN, GivenOptions


@frozen
class RunProject:
    """The line of this run beside the line of the last one in the same folder."""

    folder: Path
    last: Project | None
    now: Project
    paths: frozenset[str] = field(factory=frozenset)  #: options that are paths

    @classmethod
    async def of(cls, sources: Sequence[str], folder: Path | None) -> RunProject | None:
        """Return the lines of a command; None for one that no line started, or without folder."""
        given = GIVEN.get()
        if given is None or folder is None or not given.options:
            return None
        return await asyncio.to_thread(cls._read, sources, folder, given)

    @classmethod
    def _read(cls, sources: Sequence[str], folder: Path, given: GivenOptions) -> RunProject:
        try:
            last = read_project(folder)
        except ConfigError:  # damaged: the whole line was given, and replaces it
            last = None
        options, secrets = given.kept()
        kept = {
            name: tuple(kept_path(text, folder) for text in texts) if name in given.paths else texts
            for name, texts in options.items()
        }
        now = Project(
            source=tuple(word if word == "-" else kept_path(word, folder) for word in sources),
            options=kept,
            left_out=secrets,
            lists={
                kept_path(str(path), folder): fingerprint(path)
                for path in _files(sources, given.options.get("--from-picks", ()))
            },
        )
        return cls(folder, last, now, given.paths)

    def changes(self) -> Iterator[str]:
        """Yield what is different from the last run, as sentences."""
        last, now = self.last, self.now
        if last is None:
            return
        if self._places(last.source) != self._places(now.source):
            yield (
                f"another list than in the last run: {self._list_of(now)}, and not "
                f"{self._list_of(last)}"
            )
        else:
            before, after = self._lists(last), self._lists(now)
            changed = [name for name in after if before.get(name) != after[name]]
            gone = [name for name in before if name not in after]
            if before and (changed or gone):
                names = [os.path.basename(name) for name in changed + gone]
                shown = ", ".join(map(cut, names[:5])) + (" and more" if len(names) > 5 else "")
                yield f"the list changed since the last run: {shown}"
        options = [
            f"{name} {self._value(last, name)} → {self._value(now, name)}"
            for name in sorted({*last.options, *now.options})
            if self._texts(last, name) != self._texts(now, name)
        ]
        if options:
            yield f"options changed since the last run: {', '.join(options)}"
        if last.fluxasync != now.fluxasync:
            yield f"the last run was of fluxasync {cut(last.fluxasync)}, this is {now.fluxasync}"

    async def keep(self) -> None:
        """Keep the line of this run, before it submits anything. Raises SinkError."""
        if (self.folder / HOME).is_dir():
            now = self.now
            if self.last is not None and evolve(self.last, at=now.at, python=now.python) == now:
                return
            await asyncio.to_thread(write_project, self.folder, now)

    def _lists(self, project: Project) -> dict[str, str]:
        names = project.lists
        return dict(zip(self._places([*names]), names.values(), strict=True))

    def _places(self, words: Sequence[str]) -> list[str]:
        return [
            word if is_url(word) else os.path.realpath(resolved(word, self.folder))
            for word in words
        ]

    def _shown(self, words: Sequence[str]) -> str:
        return cut(" ".join(word if word == "-" else resolved(word, self.folder) for word in words))

    def _list_of(self, project: Project) -> str:
        picks = [resolved(text, self.folder) for text in project.options.get("--from-picks", ())]
        return self._shown(project.source) or f"the picks of {cut(' '.join(picks))}"

    def _value(self, project: Project, name: str) -> str:
        texts = project.options.get(name)
        if texts is None:
            return "(not given)"
        if name in self.paths and name != "--out":
            texts = tuple(resolved(text, self.folder) for text in texts)
        return cut(" ".join(texts)) if texts else "(given)"

    def _texts(self, project: Project, name: str) -> list[str] | None:
        texts = project.options.get(name)
        if texts is None or name not in self.paths:
            return None if texts is None else [*texts]
        return self._places(texts)


def _files(sources: Sequence[str], picked: Sequence[str]) -> list[Path]:
    if not sources:
        picks = [folder_of(place if is_url(place) else Path(place)) / PICKS for place in picked]
        return [path for path in picks if path.is_file()]
    if "-" in sources:
        return []
    return [file.path for file in list_files([Path(word) for word in sources])]
