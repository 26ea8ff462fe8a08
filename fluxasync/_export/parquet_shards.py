"""Parquet shards that `datasets` reads as images: `image: struct<bytes, path>` and the metadata.

`parameters`, `timings` and `extras` are JSON text, so every shard of every run has the same
columns: `datasets` refuses files whose columns differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._store.column_types import ColumnTypes
from .._store.files import AtomicFile
from .run_images import SavedImage
from .shard_files import Prepared

#: images and bytes of a row group, which a reader loads at once; pyarrow takes about four times
#: as much to write one
_GROUP, _GROUP_BYTES = 100, 2**24

_TEXT, _INTEGER, _REAL = "string", "int64", "float64"
_OBJECTS = ("parameters", "timings", "extras")
#: the columns after the image, with their types in Arrow and in `datasets`
_COLUMNS = {
    "file_name": _TEXT, "prompt": _TEXT, "model": _TEXT, "seed": _INTEGER, "parameters": _TEXT,
    "job_id": _TEXT, "width": _INTEGER, "height": _INTEGER, "format": _TEXT, "bytes": _INTEGER,
    "sha256": _TEXT, "cost": _REAL, "timings": _TEXT, "index": _INTEGER, "key": _TEXT,
    "finished_at": _TEXT, "provider": _TEXT, "prompt_used": _TEXT, "extras": _TEXT,
}  # fmt: skip
#: columns with few different values; a dictionary of the others would take memory for nothing
_REPEATED = ["model", "format", "provider", "parameters"]

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class ParquetShard:
    """Writes one Parquet file. See ShardWriter."""

    def __init__(self, file: AtomicFile, _types: ColumnTypes) -> None:
        import pyarrow
        import pyarrow.parquet

        self._arrow = pyarrow
        self._schema = _schema(pyarrow)
        self._stream = _Stream(file)
        sink = pyarrow.PythonFile(self._stream, mode="w")
        self._writer = pyarrow.parquet.ParquetWriter(
            sink, self._schema, compression="none", use_dictionary=_REPEATED,
            write_statistics=["index"],
        )  # fmt: skip
        self.size = self.count = 0
        self._rows: list[dict[str, Any]] = []
        self._pending = 0

    def prepare(self, image: SavedImage, content: bytes) -> Prepared:
        row: dict[str, Any] = {name: _cell(image.line[name], _COLUMNS[name]) for name in _COLUMNS}
        row |= {name: _encode(image.line[name] or {}) for name in _OBJECTS}
        row["image"] = {"bytes": content, "path": f"{image.stem}.{image.extension}"}
        texts = sum(len(value) for value in row.values() if isinstance(value, str))
        return Prepared(len(content) + texts, row)

    def add(self, prepared: Prepared) -> None:
        self._rows.append(prepared.value)
        self._pending += prepared.size
        self.size += prepared.size
        self.count += 1
        if len(self._rows) >= _GROUP or self._pending >= _GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self._writer.close()

    def close(self) -> None:
        self._stream.is_over = True

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
        self._rows, self._pending = [], 0


def _cell(value: Any, kind: str) -> Any:
    """Return a value of the column's type; None for one that has another."""
    if kind == _INTEGER:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return value if is_whole and -(2**63) <= value < 2**63 else None
    return value


def _schema(arrow: Any) -> Any:
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    types = {_TEXT: arrow.string(), _INTEGER: arrow.int64(), _REAL: arrow.float64()}
    fields = [("image", image), *((name, types[kind]) for name, kind in _COLUMNS.items())]
    columns = {name: {"dtype": kind, "_type": "Value"} for name, kind in _COLUMNS.items()}
    features = {"image": {"_type": "Image"}, **columns}
    facts = {"huggingface": json.dumps({"info": {"features": features}})}
    return arrow.schema(fields, metadata=facts)


class _Stream:
    """An AtomicFile as pyarrow writes to it."""

    closed = False

    def __init__(self, file: AtomicFile) -> None:
        self._file = file
        self.is_over = False  #: a writer that is not closed writes when Python removes it

    def write(self, piece: bytes) -> int:
        if not self.is_over:
            self._file.write(piece)
        return len(piece)

    def tell(self) -> int:
        return self._file.size

    def flush(self) -> None:
        """Do nothing: each piece is written at once."""

    def close(self) -> None:
        """Do nothing: the file belongs to its creator."""


def read_back(path: Path) -> Iterator[tuple[str, str]]:
    """Yield key and SHA-256 of each image in a shard. Raises OSError and ValueError."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=16, columns=["key", "image.bytes"]):
            for row in batch.to_pylist():
                yield row["key"], hashlib.sha256(row["image"]["bytes"]).hexdigest()
