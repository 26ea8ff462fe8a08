"""`images()`: a dataset of prompts becomes a dataset of images, for users of ray.data.

No task of Ray submits anything, because Ray repeats tasks: the rows become the prompt list of a run
on the cluster, and the answer is read from the record of the run.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .._batch.api import run
from .._core.arguments import is_url
from .._core.errors import ConfigError
from .._core.extras import install_command
from .._core.models import Failed, InDoubt, Saved
from .._requests.preparation import prepare
from .._requests.sources.prompts import Prompts
from .._store.bucket_state import located
from .._store.journal.reader import JournalEntry, JournalView, read_only
from .cluster_batch import Ray

if TYPE_CHECKING:
    from pyarrow import Table
    from ray.data import Dataset

#: rows of a block of the answer, and rows that are in memory at once
_ROWS = 1_000

#: the columns that an image adds, with their types in Arrow
_COLUMNS = {
    "image_status": "string",
    "image_file": "string",
    "image_width": "int64",
    "image_height": "int64",
    "image_seed": "int64",
    "image_cost": "float64",
    "image_message": "string",
    "image_key": "string",
    "image_index": "int64",
}


def images(
    dataset: Dataset,
    *,
    out: str | os.PathLike[str],
    state: str | os.PathLike[str] | None = None,
    prompt_column: str = "prompt",
    model: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    workers: int | None = None,
    key: Callable[[], str] | None = None,
    **options: Any,
) -> Dataset:
    """Make one image of each row of a dataset, on the cluster that Ray is connected to.

    Blocks until the run is over. The same call again continues the run in `out`: it pays only for
    images that were never submitted, and returns the others as they are recorded. Columns are read
    as those of a .parquet list: parameters by their names, all others are metadata.

    Args:
        dataset: one image a row. Its rows are read once, into a temporary Parquet file on this
            machine. Ray may give them in another order each time, unless its
            `DataContext.execution_options.preserve_order` is True; images are found all the same.
        out: URL of a bucket. A folder on this machine has the workers run on this machine only.
        state: folder for the record, if that is not to be in the bucket.
        prompt_column: the column of the prompts.
        model, parameters: of rows that name none, as for Prompts.
        workers, key: as for Ray.
        options: further options of `fluxasync.run`, such as `limits` and `budget`.

    Returns the rows as they were read, with these columns more: image_status ("saved", "failed",
    "in doubt" or "open" for an image without an outcome), image_file (path or URL), image_width and
    image_height (pixels), image_seed, image_cost (US dollars; of an image in doubt the price that
    may be charged), image_message (why there is no image), image_key, and image_index (from 0).
    What does not apply or is not known is null.

    Raises ConfigError for rows that are no requests, before anything is paid; and what
    `fluxasync.run` raises. Failed images and images in doubt raise nothing. In a notebook, which
    has an event loop: `await asyncio.to_thread(fluxasync.ray.images, dataset, out=…)`.
    """
    _check_loop()
    with TemporaryDirectory(prefix="fluxasync-") as scratch:
        path = Path(scratch, "prompts.parquet")
        count = _write(dataset, path, prompt_column)
        columns = {} if prompt_column == "prompt" else {"prompt": prompt_column}
        prompts = Prompts(path, model=model, parameters=parameters, columns=columns)
        cluster = Ray(workers=workers, key=key)
        keys = asyncio.run(_made(prompts, count, out=out, state=state, cluster=cluster, **options))
        return _answer(path, keys, asyncio.run(_folder(out, state)))


def _check_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigError(
        "images() blocks, and an event loop is running here: "
        "await asyncio.to_thread(fluxasync.ray.images, dataset, out=…)"
    )


def _write(dataset: Dataset, path: Path, prompt_column: str) -> int:
    """Write the rows to a file and return their number. The driver writes it, because other
    machines have other disks."""
    try:
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise ConfigError(f"pyarrow is not installed: {install_command('data')}") from error

    writer: Any = None
    table: Any
    count = 0
    try:
        for table in dataset.iter_batches(batch_size=_ROWS, batch_format="pyarrow"):
            if writer is None:
                _check_columns(table.column_names, prompt_column)
                writer = ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema))
            count += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    if not count:
        raise ConfigError("the dataset has no rows")
    return count


def _check_columns(names: Sequence[str], prompt_column: str) -> None:
    if prompt_column not in names:
        raise ConfigError.about("prompt_column", f"one of {', '.join(names)}", value=prompt_column)
    if taken := [name for name in names if name in _COLUMNS]:
        raise ConfigError(
            f"the dataset has the column {taken[0]} already, which the answer adds: rename it, or "
            f"leave it out with dataset.drop_columns({taken!r})"
        )


async def _made(prompts: Prompts, count: int, **options: Any) -> list[str]:
    """Make the images, and return the key of each row."""
    keys = [request.key async for request in prepare(prompts)]
    if len(keys) != count:
        raise ConfigError(
            f"the dataset has {count:,} rows and asks for {len(keys):,} images: the answer has one "
            "row an image, so repeat rows instead of a column n"
        )
    await run(prompts, **options)
    return keys


async def _folder(
    out: str | os.PathLike[str], state: str | os.PathLike[str] | None
) -> os.PathLike[str]:
    """Return the folder of the record, or of this machine's copy of it."""
    if state is not None:
        return Path(state)
    return (await located(out)).folder if is_url(out) else Path(out)


def _answer(path: Path, keys: list[str], folder: os.PathLike[str]) -> Dataset:
    from pyarrow.parquet import ParquetFile
    from ray.data import from_arrow

    rest = iter(keys)
    with ParquetFile(path) as file, read_only(folder) as record:
        return from_arrow(
            [
                _with_images(rows, list(islice(rest, rows.num_rows)), start, record)
                for start, rows in _blocks(file)
            ]
        )


def _blocks(file: Any) -> Any:
    from pyarrow import Table

    start = 0
    for batch in file.iter_batches(batch_size=_ROWS):
        yield start, Table.from_batches([batch])
        start += batch.num_rows


def _with_images(rows: Table, keys: list[str], start: int, record: JournalView) -> Table:
    """Return a block of rows with the columns of their images."""
    import pyarrow

    entries = record.by_key(keys)
    made = [
        {**_values(entries.get(key)), "image_key": key, "image_index": index}
        for index, key in enumerate(keys, start)
    ]
    for name, kind in _COLUMNS.items():
        column = pyarrow.array([row.get(name) for row in made], pyarrow.type_for_alias(kind))
        rows = rows.append_column(name, column)
    return rows


def _values(entry: JournalEntry | None) -> dict[str, Any]:
    match None if entry is None else entry.known:
        case Saved(stored=stored, seed=seed, request=request) as saved:
            if seed is None and request is not None:
                seed = request.seed
            return {
                "image_status": "saved",
                "image_file": stored.place,
                "image_width": stored.width,
                "image_height": stored.height,
                "image_seed": seed if seed is None or 0 <= seed < 2**63 else None,
                "image_cost": _dollars(saved.cost),
            }
        case Failed(job=job, error=error):
            cost = None if job is None else _dollars(job.charge)
            return {"image_status": "failed", "image_cost": cost, "image_message": str(error)}
        case InDoubt(price=price, error=error):
            cost = _dollars(price)
            return {"image_status": "in doubt", "image_cost": cost, "image_message": str(error)}
    return {"image_status": "open"}


def _dollars(amount: Any) -> float | None:
    return None if amount is None else float(amount)
