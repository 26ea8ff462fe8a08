"""The command `export`: a run's images as shards, a table or a folder for other tools."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal

from .._batch.progress.terminal import Terminal
from .event_loop import run_async
from .exit_codes import DONE, FAILED
from .export_rendering import counting, lines_of, row_of
from .key_files import OutPath, RunPlace
from .options import read_storage_options


def export(
    folder: RunPlace,
    /,
    *,
    to: Literal["webdataset", "parquet", "csv", "xlsx", "hf-folder"],
    out: OutPath | None = None,
    shard: str | None = None,
    picked: bool = False,
    delete_images: bool = False,
    storage_option: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Export a run's images as shards, a table, or a folder that `datasets` loads. Needs no key.

    The same command again continues: whole shards are kept, and a run that has grown gets further
    ones. Exit code 3: images were left out, because their files are not as recorded.

    Parameters
    ----------
    folder
        Folder of a run that is not active, or the URL of a run into a bucket.
    to
        webdataset: tar shards. parquet: shards with images and metadata. csv or xlsx: a table of
        the metadata with the images' paths or URLs. hf-folder: the images and metadata.jsonl.
    out
        Folder to write, or the file of a table (default: beside FOLDER, such as FOLDER-parquet; of
        a URL in the working folder).
    shard
        Size of a shard, such as 500MB (default: 1GB).
    picked
        Export only the images that FOLDER/picks.jsonl picks, one {"key": "…", "picked": true} a
        line. All files are made again each time (default place: FOLDER-picked-parquet, …).
    delete_images
        Delete the images of each shard from FOLDER or the run's bucket, after the shard was
        recorded and read back. Only webdataset and parquet hold the images.
    storage_option
        Option of the run's bucket, as K=V. May be given more than once.
    json
        Print one JSON object.
    """
    terminal = Terminal()

    def start() -> Coroutine[None, None, int]:
        chosen = {
            "out": out,
            "shard": shard,
            "delete_images": delete_images,
            "picked": picked,
            "options": read_storage_options(storage_option),
        }
        return _export(terminal, folder, to, json=json, **chosen)

    return run_async(start, terminal)


async def _export(
    terminal: Terminal, run: Path | str, to: str, *, json: bool, **chosen: Any
) -> int:
    """Export; print the paths, or with `json` one object, and a line about the whole."""
    from .. import export as export_run
    from .rendering import as_json

    made = await export_run(run, to, **chosen, progress=counting(terminal))
    for line in [as_json(row_of(made, run))] if json else map(str, made.paths):
        terminal.out(line)
    for line in lines_of(made, run):
        terminal.say(line)
    return FAILED if made.left_out else DONE
