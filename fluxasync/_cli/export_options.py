"""The options of the export beside a run."""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from cyclopts import Group, Parameter

from .key_files import LocalPath


@Parameter(name="*", group=Group("Export", sort_key=8))
@frozen(kw_only=True)
class ExportChoice:
    """How `run` exports its images while they arrive.

    Parameters
    ----------
    export
        Export the images while they arrive: shards (webdataset, parquet) as soon as the saved
        images fill them, other formats at the end. If it fails, the run goes on, and fluxasync
        export makes the same files.
    export_to
        Folder of the export, or the file of a table (default: beside DIR, such as DIR-parquet; of
        a URL in the working folder).
    shard
        Size of a shard, such as 500MB (default: 1GB).
    delete_images
        Delete the images of each shard from DIR or the bucket, after the shard was recorded and
        read back.
    """

    export: Literal["webdataset", "parquet", "csv", "xlsx", "hf-folder"] | None = None
    export_to: LocalPath | None = None
    shard: str | None = None
    delete_images: bool = False
