"""Checks the invariants after every kill from outside: journal, files and the server's charges.

The package is not used: a copy of the journal is read as an SQLite file, and the server makes the
images again. `observe` collects, `violations` compares two observations in a row, `losses` checks
what is left when a run has ended.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import frozen

from fluxasync.simulator.images import PictureSpec, plain_png

from .children import Place

#: states as numbers in the files: see the journal's schema
INTENT, SUBMITTED, DONE, FAILED, IN_DOUBT, AGAIN = range(6)
#: states that account for a charge without a known job id
_DOUBTFUL = {INTENT, IN_DOUBT}
#: state → states that may follow
_NEXT = {
    INTENT: {INTENT, SUBMITTED, DONE, FAILED, IN_DOUBT},
    SUBMITTED: {SUBMITTED, DONE, FAILED},
    DONE: {DONE},
    FAILED: {FAILED},
    IN_DOUBT: {IN_DOUBT},
}

#: the same where lost answers are found in the account, or submitted again once they are not listed
_NEXT_SETTLED = _NEXT | {IN_DOUBT: {INTENT, SUBMITTED, DONE, FAILED, IN_DOUBT, AGAIN}}
_NEXT_SETTLED |= {INTENT: _NEXT[INTENT] | {AGAIN}, AGAIN: {*_NEXT_SETTLED[IN_DOUBT]}}

PromptRow = Mapping[str, Any]  #: one line of the prompt file


@frozen(kw_only=True)
class Row:
    """One image in the journal."""

    key: str
    state: int
    prompt: str
    job_id: str | None
    path: str | None
    sha256: str | None
    size: int | None


@frozen(kw_only=True)
class Observation:
    """One observation of journal, files and charges."""

    rows: Mapping[str, Row]  #: by key
    charges: Mapping[str, str]  #: prompts by job id
    files: Mapping[str, bytes]  #: under final names
    parts: int  #: files under temporary names

    @property
    def in_doubt(self) -> int:
        return sum(row.state in _DOUBTFUL for row in self.rows.values())

    @property
    def done(self) -> int:
        return sum(row.state == DONE for row in self.rows.values())


@frozen(kw_only=True)
class Violation:
    """A broken promise."""

    kind: str  #: one of KINDS
    what: str


#: kinds in the table; "other" is every other violation
KINDS = (
    "double charge",
    "unaccounted charge",
    "partial file",
    "lost image",
    "refused run",
    "other",
)


# --- looking --------------------------------------------------------------------------------------


def observe(place: Place, folder: Path | None = None) -> Observation:
    """Observe the images of a run whose process is dead, its journal in `folder` (default: its
    own), and the charges of its server."""
    files, parts = (_files if place.store is None else _objects)(place)
    return Observation(
        rows=_rows((folder or place.folder) / ".fluxasync"),
        charges=charges(place.charges),
        files=files,
        parts=parts,
    )


def _files(place: Place) -> tuple[dict[str, bytes], int]:
    """Return the images, and the number of files under temporary names."""
    files, parts = {}, 0
    if place.folder.exists():
        for path in place.folder.iterdir():
            if path.name.endswith(".part"):
                parts += 1
            elif path.is_file() and path.suffix != ".jsonl":
                files[path.name] = path.read_bytes()
    return files, parts


def _objects(place: Place) -> tuple[dict[str, bytes], int]:
    """Return the images in a bucket; an object has no temporary name."""
    import obstore

    store = _opened(place)
    names = [found["path"] for page in obstore.list(store) for found in page]
    names = [name for name in names if not name.startswith(".fluxasync/")]
    names = [name for name in names if not name.endswith(".jsonl")]
    with ThreadPoolExecutor(8) as threads:
        contents = threads.map(lambda name: bytes(obstore.get(store, name).bytes()), names)
        return dict(zip(names, contents, strict=True)), 0


def _opened(place: Place) -> Any:
    assert place.store is not None
    return place.store.opened(place.home.name)


def _rows(home: Path) -> dict[str, Row]:
    if not (home / "journal.db").exists():
        return {}
    with tempfile.TemporaryDirectory() as copy:
        for name in ("journal.db", "journal.db-wal"):
            if (home / name).exists():
                shutil.copyfile(home / name, Path(copy) / name)
        with closing(sqlite3.connect(Path(copy) / "journal.db")) as connection:
            found = connection.execute(
                "SELECT hex(key), state, request, job_id, path, hex(sha256), size FROM image"
            )
            rows = [_row(*values) for values in found]
    return {row.key: row for row in rows}


def _row(
    key: str,
    state: int,
    request: str,
    job_id: str | None,
    path: str | None,
    sha256: str,
    size: int | None,
) -> Row:
    return Row(
        key=key.lower(),
        state=state,
        prompt=json.loads(request)["prompt"],
        job_id=job_id,
        path=path,
        sha256=sha256.lower() or None,
        size=size,
    )


def charges(log: Path) -> dict[str, str]:
    """Read the charge log; the server may be writing its last line."""
    if not log.exists():
        return {}
    lines = log.read_text().split("\n")[:-1]
    made = [json.loads(line) for line in lines if '"charged"' in line]
    return {charge["charged"]: charge["prompt"] for charge in made}


# --- judging --------------------------------------------------------------------------------------


def violations(
    before: Observation,
    after: Observation,
    prompt_rows: Sequence[PromptRow],
    *,
    slots: int,
    settles: bool = False,
) -> Iterator[Violation]:
    """Yield what a kill broke (P1 to P5); `settles` lets images leave doubt."""
    yield from _doubles(after, prompt_rows)
    yield from unaccounted(after)
    yield from _bad_files(after, prompt_rows)
    yield from _bad_rows(after)
    yield from _turned_back(before, after, _NEXT_SETTLED if settles else _NEXT)
    if after.in_doubt - before.in_doubt > slots:
        yield _other(f"{after.in_doubt - before.in_doubt} in doubt by one kill")


def _doubles(after: Observation, prompt_rows: Sequence[PromptRow]) -> Iterator[Violation]:
    """No prompt is charged more often than it occurs in the file."""
    wanted = Counter(prompt_row["prompt"] for prompt_row in prompt_rows)
    for prompt, times in Counter(after.charges.values()).items():
        if times > wanted[prompt]:
            yield Violation(kind="double charge", what=f"{prompt!r}: {times} charges")


def unaccounted(after: Observation) -> Iterator[Violation]:
    """Every charge has a row: with its job's id, or one that says it may have been charged."""
    recorded = {row.job_id for row in after.rows.values()}
    unrecorded = Counter(
        prompt for job_id, prompt in after.charges.items() if job_id not in recorded
    )
    doubts = Counter(row.prompt for row in after.rows.values() if row.state in _DOUBTFUL)
    for prompt, times in (unrecorded - doubts).items():
        yield Violation(kind="unaccounted charge", what=f"{prompt!r}: {times} not in the journal")
    for job_id in recorded - after.charges.keys() - {None}:
        yield _other(f"job {job_id} was never charged")


def _bad_files(after: Observation, prompt_rows: Sequence[PromptRow]) -> Iterator[Violation]:
    """A file under a final name is the whole image of its prompt."""
    for name, content in after.files.items():
        prompt_row = prompt_rows[int(name[:6])]
        if content != picture(prompt_row["prompt"], prompt_row["seed"], prompt_row["width"]):
            yield Violation(kind="partial file", what=f"{name}: {len(content)} bytes")


def _bad_rows(after: Observation) -> Iterator[Violation]:
    """A done row has its file, and a file has a row that is done or will be."""
    owners: dict[str, list[Row]] = defaultdict(list)
    for row in after.rows.values():
        if row.state == DONE:
            owners[str(row.path)].append(row)
    for name, rows in owners.items():
        content = after.files.get(name)
        digest = None if content is None else hashlib.sha256(content).hexdigest()
        if len(rows) > 1:
            yield _other(f"{name} belongs to {len(rows)} rows")
        elif content is None:
            yield Violation(kind="lost image", what=f"{name} is done and not there")
        elif (rows[0].sha256, rows[0].size) != (digest, len(content)):
            yield _other(f"{name} is not what was recorded")
    running = {row.key[:8] for row in after.rows.values() if row.state == SUBMITTED}
    for name in after.files.keys() - owners.keys():
        if name[7:15] not in running:
            yield _other(f"{name} belongs to no row")


def _turned_back(
    before: Observation, after: Observation, following: Mapping[int, Container[int]]
) -> Iterator[Violation]:
    """A record is never forgotten or taken back."""
    for key, old in before.rows.items():
        new = after.rows.get(key)
        if new is None or new.state not in following[old.state]:
            yield _other(f"{old} became {new}")
        elif old.job_id not in (None, new.job_id):
            yield _other(f"{old} became job {new.job_id}")


def losses(
    place: Place, after: Observation, prompt_rows: Sequence[PromptRow]
) -> Iterator[Violation]:
    """Yield what a finished run left undone: images, part files, lines of its list."""
    states = Counter(row.state for row in after.rows.values())
    missing = len(prompt_rows) - states[DONE] - states[IN_DOUBT]
    if missing or len(after.files) != states[DONE]:
        yield Violation(
            kind="lost image", what=f"{missing} of {len(prompt_rows)} missing: {states}"
        )
    if after.parts:
        yield _other(f"{after.parts} unfinished files left")
    done = {(row.path, row.key, row.job_id) for row in after.rows.values() if row.state == DONE}
    if Counter(done) != Counter(_listed(place, "metadata.jsonl", "file_name")):
        yield _other("metadata.jsonl does not list the done rows")
    doubts = [row.key for row in after.rows.values() if row.state == IN_DOUBT]
    if Counter(doubts) != Counter(key for _, key, _ in _listed(place, "failures.jsonl")):
        yield _other("failures.jsonl does not list what is in doubt")


def _listed(place: Place, name: str, first: str = "index") -> Iterable[tuple[Any, str, str]]:
    rows = [json.loads(line) for line in _list(place, name).splitlines()]
    return [(row[first], row["key"], row["job_id"]) for row in rows]


def _list(place: Place, name: str) -> str:
    if place.store is None:
        path = place.folder / name
        return path.read_text() if path.exists() else ""
    import obstore

    try:
        return bytes(obstore.get(_opened(place), name).bytes()).decode()
    except FileNotFoundError:
        return ""


def _other(what: str) -> Violation:
    return Violation(kind="other", what=what)


@lru_cache(maxsize=4_096)
def picture(prompt: str, seed: int, side: int) -> bytes:
    """Return the image that the server makes."""
    spec = PictureSpec(prompt=prompt, seed=seed, width=side, height=side, format="png")
    return plain_png(spec)(88)
