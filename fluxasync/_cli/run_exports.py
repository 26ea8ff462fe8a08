"""`run --export`: what the command says of the export beside its run."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import TYPE_CHECKING, Any

from .._core.errors import ConfigError, FluxError
from .export_options import ExportChoice
from .export_rendering import counting, files_of, row_of

if TYPE_CHECKING:  # heavy
    from .._batch.batch import Batch
    from .._batch.progress.terminal import Terminal
    from .._export.run_export import RunExport
    from .options import RunOptions


def export_beside(batch: Batch, options: RunOptions, terminal: Terminal) -> ShownExport | None:
    """Return the export of a batch, None without `--export`. Raises ConfigError for what does not
    fit."""
    choice = options.export
    if choice.export is None:
        if choice != ExportChoice():
            raise ConfigError(
                "--export-to, --shard and --delete-images are of an export beside the run: "
                "add --export webdataset or --export parquet"
            )
        return None
    export = batch.exporting(
        choice.export,
        out=choice.export_to,
        shard=choice.shard,
        delete_images=choice.delete_images,
    )
    return ShownExport(export, choice, options.root.record, terminal)


class ShownExport:
    """The export of a run, with what it says on the terminal; used in an `async with` block."""

    def __init__(
        self, export: RunExport, choice: ExportChoice, record: str, terminal: Terminal
    ) -> None:
        self._export, self._choice, self._record = export, choice, record
        self._terminal = terminal
        export.on_error = self._warn

    async def __aenter__(self) -> None:
        await self._export.__aenter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        self._export.on_progress = counting(self._terminal)
        await self._export.__aexit__(*exc_info)

    def stop(self) -> None:
        self._export.stop()

    @property
    def clause(self) -> str:
        """What the last line of the run says of its export."""
        made = self._export.result
        if made is not None:
            counts = {"left out": sum(made.left_out.values()), "deleted": made.deleted}
            about = [f"{count:,} {what}" for what, count in counts.items() if count]
            return ", ".join([files_of(made), *about])
        if self._export.error is None:
            return "export not finished: the same command continues it"
        return f"export not finished; to make it: {' '.join(self._command())}"

    @property
    def row(self) -> dict[str, object] | None:
        """The object that `--json` prints; None without a result."""
        made = self._export.result
        return None if made is None else {"event": "exported", **row_of(made, self._record)}

    def _warn(self, error: FluxError) -> None:
        self._terminal.say(f"warning: the export stopped: {error}; the run is not affected")

    def _command(self) -> Iterator[str]:
        choice = self._choice
        given = {"-o": choice.export_to, "--shard": choice.shard}
        yield f"fluxasync export {quote(self._record)} --to {choice.export}"
        yield from (f"{name} {quote(str(value))}" for name, value in given.items() if value)
        if choice.delete_images:
            yield "--delete-images"
