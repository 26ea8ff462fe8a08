"""Batch image generation with Flux models, on asyncio.

Names resolve on first use, so that `import fluxasync` and `fluxasync --help` do not pay for
aiohttp.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._core.version import __version__ as __version__

if TYPE_CHECKING:
    from ._batch.api import generate, run
    from ._batch.batch import Batch
    from ._batch.summary import Summary
    from ._core.config import Budget, Limits, Polling, Retry, Timeouts
    from ._core.errors import (
        APIError,
        AuthenticationError,
        BudgetExceeded,
        ConfigError,
        CreditError,
        DeadlineExceeded,
        DownloadError,
        Expired,
        FluxError,
        InvalidRequest,
        JobError,
        JobFailed,
        JobLost,
        JournalError,
        Moderated,
        RateLimited,
        Redirected,
        ServerError,
        SinkError,
        TransportError,
    )
    from ._core.events import (
        ClockJumped,
        DiskLagged,
        Event,
        EventsDropped,
        JobEnded,
        JobReady,
        JobSubmitted,
        JobUnclaimed,
        LimitChanged,
        LoopLagged,
        Paused,
        Resumed,
        Settled,
        SubmitFailed,
    )
    from ._core.models import (
        Call,
        Failed,
        ImageInput,
        ImageRequest,
        InDoubt,
        Job,
        Outcome,
        Pending,
        Ready,
        Refused,
        Reply,
        Saved,
        Stored,
        Verdict,
    )
    from ._core.protocols import Download, Ledger, Observer, Sink, Transport
    from ._engine.session import FluxSession
    from ._requests.catalog import Model, models
    from ._requests.sources.prompts import Prompts
    from ._store.ledgers import MemoryLedger, NullLedger
    from ._store.sinks import FileSink, FolderSink, MemorySink
    from ._wire.providers import BFL, COMETAPI, Provider

#: room → the names it gives to users
_ROOMS = {
    "_batch.api": ("generate", "run"),
    "_batch.batch": ("Batch",),
    "_requests.catalog": ("Model", "models"),
    "_requests.sources.prompts": ("Prompts",),
    "_core.config": ("Budget", "Limits", "Polling", "Retry", "Timeouts"),
    "_core.errors": (
        "APIError", "AuthenticationError", "BudgetExceeded", "ConfigError", "CreditError",
        "DeadlineExceeded", "DownloadError", "Expired", "FluxError", "InvalidRequest", "JobError",
        "JobFailed", "JobLost", "JournalError", "Moderated", "RateLimited", "Redirected",
        "ServerError", "SinkError", "TransportError",
    ),
    "_core.events": (
        "ClockJumped", "DiskLagged", "Event", "EventsDropped", "JobEnded", "JobReady",
        "JobSubmitted", "JobUnclaimed", "LimitChanged", "LoopLagged", "Paused", "Resumed",
        "Settled", "SubmitFailed",
    ),
    "_store.ledgers": ("NullLedger", "MemoryLedger"),
    "_core.models": (
        "Call", "Failed", "ImageInput", "ImageRequest", "InDoubt", "Job", "Outcome", "Pending",
        "Ready", "Refused", "Reply", "Saved", "Stored", "Verdict",
    ),
    "_core.protocols": ("Download", "Ledger", "Observer", "Sink", "Transport"),
    "_wire.providers": ("BFL", "COMETAPI", "Provider"),
    "_engine.session": ("FluxSession",),
    "_store.sinks": ("FileSink", "FolderSink", "MemorySink"),
    "_batch.summary": ("Summary",),
}  # fmt: skip

_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "BFL",
    "COMETAPI",
    "APIError",
    "AuthenticationError",
    "Batch",
    "Budget",
    "BudgetExceeded",
    "Call",
    "ClockJumped",
    "ConfigError",
    "CreditError",
    "DeadlineExceeded",
    "DiskLagged",
    "Download",
    "DownloadError",
    "Event",
    "EventsDropped",
    "Expired",
    "Failed",
    "FileSink",
    "FluxError",
    "FluxSession",
    "FolderSink",
    "ImageInput",
    "ImageRequest",
    "InDoubt",
    "InvalidRequest",
    "Job",
    "JobEnded",
    "JobError",
    "JobFailed",
    "JobLost",
    "JobReady",
    "JobSubmitted",
    "JobUnclaimed",
    "JournalError",
    "Ledger",
    "LimitChanged",
    "Limits",
    "LoopLagged",
    "MemoryLedger",
    "MemorySink",
    "Model",
    "Moderated",
    "NullLedger",
    "Observer",
    "Outcome",
    "Paused",
    "Pending",
    "Polling",
    "Prompts",
    "Provider",
    "RateLimited",
    "Ready",
    "Redirected",
    "Refused",
    "Reply",
    "Resumed",
    "Retry",
    "Saved",
    "ServerError",
    "Settled",
    "Sink",
    "SinkError",
    "Stored",
    "SubmitFailed",
    "Summary",
    "Timeouts",
    "Transport",
    "TransportError",
    "Verdict",
    "generate",
    "models",
    "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{room}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
