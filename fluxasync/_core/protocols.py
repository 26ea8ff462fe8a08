"""The interfaces between the packages: Ledger, Sink, Transport, Download, Observer; and Chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any, Protocol

from .models import Call, Failed, ImageRequest, InDoubt, Job, Outcome, Refused, Reply, Saved, Stored


class Ledger(Protocol):
    """Remembers what was paid: by `request.key`, in the order known, intent, answered, settle.

    Each method is durable when it returns. What one raises ends the run (JournalError, if it is to
    be told from a bug); an error of `intent` keeps its request from being sent.
    """

    async def known(self, request: ImageRequest) -> Saved | Failed | InDoubt | Job | None:
        """Return what earlier runs left of this request: its end, or the job to collect; None when
        it is still to do."""

    async def intent(self, request: ImageRequest, *, price: Decimal | None) -> None:
        """A POST of this request is about to start."""

    async def answered(self, request: ImageRequest, answer: Job | Refused) -> None:
        """The POST was answered; a refusal that costs nothing takes the intent back."""

    async def settle(self, outcome: Outcome) -> None:
        """The image's story has ended."""


class Chunks:
    """An image's bytes in order, checked on the way against the MD5 that the server told."""

    def __init__(
        self, chunks: AsyncIterator[bytes], *, take_md5: Callable[[], str | None] = lambda: None
    ) -> None:
        self._chunks = chunks
        self._take_md5 = take_md5

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._chunks.__anext__()

    def take_md5(self) -> str | None:
        """Take the check over, before the first chunk: return the MD5 in base64, None where none
        was told. For sinks that look at the bytes in a thread anyway."""
        return self._take_md5()


class Sink(Protocol):
    """Where bytes land: one method, called for one image at a time, several at once."""

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Keep the image whole or not at all, and return what was kept; `chunks` are its bytes in
        order, of any sizes. A cancellation leaves nothing half done. Raises DownloadError for bytes
        that are no whole image (fetched again) and SinkError when they cannot be kept (the run
        ends)."""


class Download(Protocol):
    """An open answer to a download: read `chunks` to the end inside the `async with`."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Asked for in lower case."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in order. Raises TransportError where it ends before its announced length."""


class Transport(Protocol):
    """The one thing that does HTTP. Foreign errors leave it as TransportError."""

    async def send(self, call: Call) -> Reply:
        """Send the call and read its answer, up to a cap; the Reply says whether it is whole."""

    def stream(
        self, url: str, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[Download]:
        """Fetch a URL byte-exact, without credentials, cookies or redirects. `headers` are given
        only to ask for the rest of an image whose transfer broke."""

    async def aclose(self) -> None:
        """Close what it holds; called by whoever opened it."""


class Observer(Protocol):
    """Sees events as they happen, synchronously; what it raises is logged once and dropped."""

    def __call__(self, event: Any, /) -> None: ...
