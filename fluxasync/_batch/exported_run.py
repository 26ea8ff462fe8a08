"""A batch as the export beside it sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

from .._core.errors import ConfigError

if TYPE_CHECKING:
    from .._store.journal.journal import Journal
    from .worker_pool import WorkerPool


@frozen
class OpenRun:
    """See ExportedRun."""

    _journal: Callable[[], Journal | None]  #: of the open batch
    _pool: WorkerPool

    def open_journal(self) -> Journal:
        journal = self._journal()
        if journal is None:
            raise ConfigError("the batch is not open: `async with batch, batch.exporting(…): …`")
        return journal

    async def files_checked(self) -> None:
        await self._pool.files_checked()
