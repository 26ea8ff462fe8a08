"""The interfaces to replaceable parts: Ledger, Sink, Transport (with Call, Reply), Observer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any, Literal, Protocol, TypedDict

from attrs import field, frozen

from .attempts import Attempt
from .models import Failed, ImageRequest, InDoubt, Job, Outcome, Refused, Saved, Stored


class Ledger(Protocol):
    """Remembers what was paid, by `request.key`.

    The order of the calls is `known`, `intent`, `answered`, `settle`. What a method records is
    durable when the method returns. An exception ends the run (raise JournalError); an exception of
    `intent` keeps the request from being sent.
    """

    async def known(self, request: ImageRequest) -> Saved | Failed | InDoubt | Job | None:
        """Return the outcome of an earlier run, or the job to collect; None = not submitted yet."""

    async def intent(
        self, request: ImageRequest, *, price: Decimal | None, attempt: Attempt
    ) -> None:
        """Record that the request is about to be sent; `price` is in US dollars."""

    async def answered(
        self, request: ImageRequest, answer: Job | Refused, *, attempt: Attempt | None = None
    ) -> None:
        """Record the answer to an attempt. A refusal that was not charged removes the intent.
        Called again, without the attempt, with the same job if the provider reports another cost
        when its image is ready."""

    async def settle(self, outcome: Outcome) -> None:
        """Record the outcome."""


class Chunks:
    """An image's bytes in order, compared with the server's MD5 (if it sent one) at the end."""

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        take_md5: Callable[[], str | None] = lambda: None,
        read_whole: Callable[[int, list[bytes]], Awaitable[bool]] | None = None,
        is_paid: bool = False,
        seed: int | None = None,
    ) -> None:
        self._chunks = chunks
        self._take_md5 = take_md5
        self._read_whole = read_whole
        self.seed = seed  #: that the provider reported
        self.is_paid = is_paid  #: if the try fails, our sinks keep its bytes in quarantine

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._chunks.__anext__()

    def take_md5(self) -> str | None:
        """Take over the comparison, before the first chunk: return the server's MD5 in base64, or
        None. For sinks that read the bytes in a thread anyway."""
        return self._take_md5()

    async def read_whole(self, limit: int, into: list[bytes]) -> bool:
        """Add an image of at most `limit` bytes to the list, all at once, instead of the chunks.

        Returns false, and has read nothing, for an image that is read by chunks. Of an image that
        breaks off, the list has what has arrived.
        """
        return self._read_whole is not None and await self._read_whole(limit, into)


class Sink(Protocol):
    """Stores images. `store` is called once for each image, for several images at the same time."""

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Store the whole image or nothing, also when cancelled.

        `chunks` yields the bytes in order, in pieces of any size. Raises DownloadError for bytes
        that are not a whole image (they are fetched again) and SinkError when the image cannot be
        stored (the run ends).
        """


@frozen(kw_only=True)
class Call:
    """One HTTP call. `headers` may contain the key, so the repr leaves them out."""

    method: Literal["GET", "POST"]
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    timeout: float = 20.0  #: seconds for the whole call
    #: called when connected, before the first byte is sent; an exception ends the call unsent
    before_send: Callable[[], None] | None = field(default=None, repr=False, eq=False)


@frozen(kw_only=True)
class Reply:
    """The answer to a Call."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  #: looked up in lower case
    body: bytes = field(repr=False)
    is_cut: bool = False  #: the body was longer than the transport reads
    broken: str = ""  #: why the body is incomplete; "" = it is complete
    #: more bytes followed on a connection that had been used before, so the answer may belong to
    #: an earlier call
    is_followed: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the body is complete. The status is reliable in any case."""
        return not (self.is_cut or self.broken)


class Download(Protocol):
    """An open answer to a download. Read `chunks` to the end inside the `async with`."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; looked up in lower case."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body in order. Raises TransportError when it is shorter than announced."""


class Transport(Protocol):
    """Does the HTTP. Errors of other libraries leave it as TransportError."""

    async def send(self, call: Call) -> Reply:
        """Send the call once and return its answer; redirects are not followed.

        Raises TransportError, whose `sent` says whether the request may have reached the server.
        """

    def stream(
        self, url: str, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[Download]:
        """Fetch a URL without credentials or cookies; the bytes are not decoded.

        `timeout` is in seconds and ends with the answer's headers. `headers` ask for the rest of an
        image whose transfer broke (Range).
        """

    async def aclose(self) -> None:
        """Close all connections."""


class TransportOption(TypedDict, total=False):
    """The keyword of FluxSession for tests."""

    transport: Transport | None


class Observer(Protocol):
    """Receives events synchronously. An exception is logged once and dropped."""

    def __call__(self, event: Any, /) -> None: ...
