"""The files of a list: one, several, or those of a folder; all of one kind."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from attrs import evolve, field, frozen

from ..._core.errors import ConfigError, cut
from .columns import Columns
from .compression import PACKED, suffix_of
from .formats import NO_PROMPTS, FolderFormat, Format, LineFormat
from .json_lists import JsonFormat
from .layout import Layout
from .parquet import ParquetFormat
from .row_reader import RowDialect, RowReader
from .shards import Shard, ShardedFormat
from .tables import TableFormat
from .xlsx import XlsxFormat

#: suffix → (name of the kind, how its rows are written, its format)
_FORMATS: dict[str, tuple[str, RowDialect, Callable[[Path, RowReader], Format]]] = {
    ".txt": (".txt", RowDialect.TEXT, LineFormat),
    ".jsonl": (".jsonl", RowDialect.JSON, LineFormat),
    ".ndjson": (".jsonl", RowDialect.JSON, LineFormat),
    ".json": (".json", RowDialect.JSON, JsonFormat),
    ".csv": (".csv", RowDialect.JSON, TableFormat),
    ".tsv": (".csv", RowDialect.JSON, TableFormat),
    ".parquet": (".parquet", RowDialect.JSON, ParquetFormat),
    ".xlsx": (".xlsx", RowDialect.JSON, XlsxFormat),
    ".xlsm": (".xlsx", RowDialect.JSON, XlsxFormat),
}
_FOLDER = "folder of .txt"

_KINDS = (
    ".txt (a prompt a line), .jsonl (an object a line), .json, .csv, .tsv, .xlsx or .parquet, "
    'or a folder of .txt or of one of these; "-" is standard input'
)

_AS_XLSX = "save it as .xlsx, or as CSV in UTF-8 (in Excel: “CSV UTF-8”)"
_REPACK = "unpack it, or pack it as .gz"

#: other suffixes of lists, and what to do
_OTHERS = {
    ".xls": _AS_XLSX, ".xlsb": _AS_XLSX, ".ods": _AS_XLSX, ".numbers": _AS_XLSX,
    ".arrow": "write it as .parquet", ".feather": "write it as .parquet",
    ".zip": _REPACK, ".bz2": _REPACK, ".xz": _REPACK, ".zst": _REPACK,
}  # fmt: skip

_ONE_PROMPT = "for one prompt use generate, or pass a list"

#: in a folder of lists, files of this name are none: what Spark, `datasets` and people add
_NO_LIST = re.compile(
    r"[._].*|~\$.*|(read_?me|licen[cs]e|changelog|notice)([._-].*)?"
    r"|dataset_(infos?|dict)\.json|state\.json|metadata\.json",
    re.IGNORECASE,
)
#: beside captions: what `datasets` keeps of pictures
_METADATA = re.compile(r"metadata\.(jsonl|csv|parquet)")
#: the journal's folder, and the lists of a run beside it
_RUN, _LISTS_OF_A_RUN = ".fluxasync", ("metadata.jsonl", "failures.jsonl", "picks.jsonl")
_SHOWN = 5  #: names in a note


@frozen(kw_only=True)
class ListFile:
    """One file of a list, or a folder of captions."""

    kind: str  #: as people write it: ".csv"
    path: Path
    base: Path  #: folder of the relative paths in its rows
    dialect: RowDialect
    opened: Callable[[Path, RowReader], Format] = field(repr=False)
    notes: tuple[str, ...] = ()  #: about the folder that it was found in


def list_files(paths: Sequence[Path]) -> list[ListFile]:
    """Return the files of a list, in order; folders are replaced by the files in them.

    Raises ConfigError for a path that is no prompt list, for files of different kinds, and for a
    file that is named twice.
    """
    left_out = [path for path in paths if len(paths) > 1 and _is_no_list(path)]
    files = [file for path in paths if path not in left_out for file in _files_at(path)]
    if left_out:
        if not files:
            raise ConfigError(f"{left_out[0].name}: no list of prompts by its name")
        note = f"not read: {_some(path.name for path in left_out)}"
        files[0] = evolve(files[0], notes=(*files[0].notes, note))
    _refuse_mixed(Counter(file.kind for file in files), "the list has")
    if len(files) > 1:
        _refuse_twice(files)
    return files


def format_of(files: Sequence[ListFile], reading: RowReader) -> Format:
    """Return the format that reads all files as one list."""
    for note in dict.fromkeys(note for file in files for note in file.notes):
        reading.notes.add(note)
    if len(files) == 1:
        return files[0].opened(files[0].path, reading)
    names = Counter(file.path.name for file in files)
    reading.is_sharded = True
    shards = [
        Shard(
            form=file.opened(file.path, reading),
            base=file.base,
            prefix=f"{file.path.parent.name}/" if names[file.path.name] > 1 else "",
        )
        for file in files
    ]
    return ShardedFormat(shards, reading)


def refuse_misfits(file: ListFile, columns: Columns, layout: Layout) -> None:
    """Raise ConfigError for arguments that have no meaning for files of this kind."""
    if file.dialect is RowDialect.TEXT and columns.sources:
        raise ConfigError(
            f"{file.path.name} has no columns that could be mapped: a row is a prompt"
        )
    if not layout.header and file.kind not in (".csv", ".xlsx"):
        raise ConfigError(f"{file.path.name}: only tables (.csv, .tsv, .xlsx) have a header")
    if layout.sheet is not None and file.kind != ".xlsx":
        raise ConfigError(f"{file.path.name}: only an .xlsx file has sheets")
    if layout.rows is not None and file.kind != ".json":
        raise ConfigError(f"{file.path.name}: only in a .json file rows are under a key (--rows)")


def _files_at(path: Path) -> list[ListFile]:
    shown = str(path)[:80]
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ConfigError(f"{shown}: no such file; {_missing(path)}") from None
    except (OSError, ValueError):  # too long for a name, or holding a NUL
        raise ConfigError(f"{shown}: not the path of a file; {_ONE_PROMPT}") from None
    if stat.S_ISDIR(mode):
        return _files_in(path)
    if not stat.S_ISREG(mode):
        raise ConfigError(f'{shown} can be read only once; pipe it in and say "-"')
    suffix = suffix_of(path)
    if suffix not in _FORMATS:
        raise ConfigError(f"{shown}: {_OTHERS.get(suffix) or f'a prompt file is {_KINDS}'}")
    if suffix in (".parquet", ".xlsx", ".xlsm") and path.suffix.lower() == PACKED:
        raise ConfigError(f"{shown}: a {suffix} file is packed inside; unpack it")
    return [_file(path)]


def _is_no_list(path: Path) -> bool:
    """Whether a pattern of the shell found what is no list, as _SUCCESS among shards."""
    return _NO_LIST.fullmatch(path.name) is not None and path.is_file()


def _missing(path: Path) -> str:
    if any(mark in path.name for mark in "*?["):
        return "the shell expands a pattern: write it without quotes"
    return _ONE_PROMPT


def _file(path: Path, notes: tuple[str, ...] = ()) -> ListFile:
    kind, dialect, opened = _FORMATS[suffix_of(path)]
    return ListFile(
        kind=kind, path=path, base=path.parent, dialect=dialect, opened=opened, notes=notes
    )


def _files_in(folder: Path) -> list[ListFile]:
    """Return the lists in a folder; captions (.txt) are a list together, a prompt a file."""
    try:
        names = sorted((e.name for e in os.scandir(folder) if e.is_file()), key=_natural)
        is_run = (folder / _RUN).is_dir()
    except OSError as error:
        raise ConfigError(f"{cut(str(folder))} cannot be read: {error.strerror}") from error
    kinds = {name: _FORMATS[suffix][0] for name in names if (suffix := _suffix(name)) in _FORMATS}
    left_out = {name for name in kinds if _NO_LIST.fullmatch(name)}
    left_out |= {name for name in kinds if is_run and name in _LISTS_OF_A_RUN}
    texts = {name for name, kind in kinds.items() if kind == ".txt" and name not in left_out}
    lists = {name: kind for name, kind in kinds.items() if name not in left_out | texts}
    captions = {name for name in texts if not NO_PROMPTS.fullmatch(name)}
    stems = {Path(name).stem for name in captions}
    beside = {name for name in lists if Path(name).stem in stems or _METADATA.fullmatch(name)}
    if not lists or (captions and len(beside) == len(lists)):
        if is_run and not captions:
            raise ConfigError(
                f"{cut(str(folder))} is the folder of a run and has no list: fluxasync resume "
                "continues it, and --from-picks makes more of its picked images"
            )
        note = _left_out_note(folder, sorted(beside))
        return [
            ListFile(
                kind=_FOLDER,
                path=folder,
                base=folder,
                dialect=RowDialect.TEXT,
                opened=FolderFormat,
                notes=note,
            )
        ]
    counts = Counter(lists.values()) + Counter({".txt": len(captions)})
    _refuse_mixed(counts, f"{folder.name or folder}/ holds")
    note = _left_out_note(folder, [name for name in names if name not in lists])
    return [_file(folder / name, note) for name in names if name in lists]


def _suffix(name: str) -> str:
    return suffix_of(Path(name))


def _natural(name: str) -> tuple[list[int | str], str]:
    """Sort part-2 before part-10; digits and texts are at the same places in each key."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _left_out_note(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    return (f"not read in {folder.name or folder}/: {_some(names)}",) if names else ()


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:40] for name in names[:_SHOWN]) + more


def _refuse_mixed(counts: Counter[str], lead: str) -> None:
    if len(counts) > 1:
        kinds = " and ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
        raise ConfigError(
            f"{lead} {kinds}, and one list is of one kind; name the files that are meant, "
            "or move the others away"
        )


def _refuse_twice(files: Sequence[ListFile]) -> None:
    firsts: dict[str, Path] = {}
    for file in files:
        first = firsts.setdefault(os.path.realpath(file.path), file.path)
        if first is not file.path:
            again = "" if first == file.path else f", as {str(first)[-60:]}"
            raise ConfigError(
                f"{str(file.path)[-60:]} is named twice{again}: "
                "each of its rows would be paid twice"
            )
