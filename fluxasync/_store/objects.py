"""The objects under one URL of an object store; the only importer of obstore.

Images are created in an event loop, so their methods are coroutines. What the log and the audits
use blocks, because they run in threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .._core.arguments import check_type, described
from .._core.backoff import retry_delay
from .._core.errors import ConfigError, SinkError
from .._core.extras import install_command
from .files import HOME, sync, sync_folder
from .output_root import object_url
from .store_answers import StoreAnswers
from .store_errors import lacks_credentials, next_step

if TYPE_CHECKING:
    from obstore.store import ObjectStore

#: obstore's own retries of one call: number, and seconds for all of them
_RETRIES, _RETRY_SECONDS = 8, 60

#: seconds between our own tries, for as long: obstore does not repeat a creation whose answer is
#: lost or late
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

#: seconds of one call, and of connecting
_CLIENT = {"timeout": "30s", "connect_timeout": "5s"}

#: options of the HTTP client; all others are the store's own
_CLIENT_OPTIONS = frozenset(
    {
        "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type",
        "http1_only", "http2_keep_alive_interval", "http2_keep_alive_timeout",
        "http2_keep_alive_while_idle", "http2_max_frame_size", "http2_only", "pool_idle_timeout",
        "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url",
        "randomize_addresses", "read_timeout", "timeout", "user_agent",
    }
)  # fmt: skip

#: variables that allow plain http, as the option does: obstore drops them beside other options of
#: the HTTP client
_ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}

#: what the errors of a store are replaced by where they repeat an option's value
_HIDDEN, _SHORTEST_SECRET = "…", 4

#: how an object is created
_ONLY_NEW: dict[str, Any] = {"mode": "create", "use_multipart": False}

#: objects in a page of a list
_PAGE = 1_000

#: characters shown of what a store says
_LONGEST_TEXT = 300


@cache
def _in_memory(bucket: str) -> ObjectStore:
    """Return the store of `memory://bucket`, which lives as long as the process."""
    from obstore.store import MemoryStore

    return MemoryStore()


#: the store's own names of one version of an object
Tag = Mapping[str, str]


@frozen
class ObjectVersion:
    """An object as it was read."""

    content: bytes
    tag: Tag
    modified_at: datetime  #: by the store's clock


class Objects:
    """The objects under one URL. `options` go to obstore and are in no message.

    Raises ConfigError for a URL or options that no store has, and without the extra `store`.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        self.url = object_url("url", url)
        given = {} if options is None else options
        check_type("options", given, Mapping, expected="a mapping of names to texts")
        for name, value in given.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise ConfigError(f"options: a text for each name, not {described(type(value))}")
        self.options = {name.lower(): value for name, value in given.items()}
        try:
            import obstore
        except ImportError:
            command = install_command("store")
            raise ConfigError(f"{self.url} needs the extra `store`: {command}") from None
        self._api = obstore
        errors = obstore.exceptions
        self._refusals = (errors.AlreadyExistsError, errors.PreconditionError)
        self.answers = StoreAnswers()
        self._prefix = ""
        self._folder = self.url.removeprefix("file://") if self.url.startswith("file:") else None
        self._store = self._opened()

    def __repr__(self) -> str:
        return f"<Objects {self.url!r}>"

    def _opened(self) -> ObjectStore:
        from obstore.store import LocalStore, from_url

        scheme, _, rest = self.url.partition("://")
        if scheme in ("memory", "file") and self.options:
            raise ConfigError(f"{self.url} takes no options: leave them out")
        if scheme == "memory":
            bucket, _, folder = rest.partition("/")
            self._prefix = f"{folder}/" if folder else ""
            return _in_memory(bucket)
        client = {k: v for k, v in self.options.items() if k in _CLIENT_OPTIONS}
        if allowed := os.environ.get(_ALLOW_HTTP.get(scheme, "")):
            client = {"allow_http": allowed} | client
        config = {k: v for k, v in self.options.items() if k not in _CLIENT_OPTIONS}
        if scheme == "s3":
            config = {"checksum_algorithm": "sha256"} | config
        retries: Any = {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
        }
        try:
            if scheme == "file":
                return LocalStore(rest, mkdir=True)
            store: Any = from_url
            made: ObjectStore = store(
                self.url, config=config, client_options=_CLIENT | client, retry_config=retries
            )
        except (self._api.exceptions.BaseError, OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{self.url}: {self._shown(error)}") from None
        return made

    # --- in an event loop -----------------------------------------------------------------------

    async def create(
        self, name: str, content: bytes, attributes: Mapping[str, str], *, is_patient: bool = True
    ) -> bool:
        """Create an object; False = there is one of this name, perhaps of a try without answer.

        `is_patient` = a try without an answer is repeated for a minute. Raises SinkError.
        """
        given = None if self._folder else dict(attributes)  # a file keeps none
        is_new = True
        with self._errors():
            for pause in pauses(is_patient and not self._folder):
                try:
                    await self._api.put_async(
                        self._store, self._prefix + name, content, attributes=given, **_ONLY_NEW
                    )
                except self._refusals:
                    is_new = False
                    break
                except self._api.exceptions.GenericError as error:
                    if pause is None or lacks_credentials(error):
                        raise
                    await asyncio.sleep(pause)
                else:
                    break
            if self._folder:  # also an earlier try's, which may have been killed before this
                await asyncio.to_thread(self._sync, name)
        return is_new

    async def holds(self, name: str, *, size: int, sha256: str) -> bool | None:
        """Whether an object has this content; None = there is no such object. Raises SinkError."""
        with self._errors():
            try:
                found = await self._api.head_async(self._store, self._prefix + name)
                if found["size"] != size:
                    return False
                result = await self._api.get_async(self._store, self._prefix + name)
                content = await result.bytes_async()
            except FileNotFoundError:
                return None
        return hashlib.sha256(content).hexdigest() == sha256

    async def fetch(self, name: str, *, limit: int) -> bytes | None:
        """Return an object's content; None = there is none, or one of more than `limit` bytes.
        Raises SinkError."""
        with self._errors():
            try:
                found = await self._api.get_async(self._store, self._prefix + name)
                if found.meta["size"] > limit:
                    return None
                return bytes(await found.bytes_async())
            except FileNotFoundError:
                return None

    async def remove(self, name: str) -> None:
        """Remove an object. Raises SinkError."""
        with self._errors():
            await self._api.delete_async(self._store, self._prefix + name)

    # --- in a thread ----------------------------------------------------------------------------

    def create_blocking(self, name: str, content: bytes) -> bool:
        """Create an object as `create` does; a file is also synced to its disk."""
        with self._errors():
            for pause in pauses(not self._folder):
                try:
                    self._api.put(self._store, self._prefix + name, content, **_ONLY_NEW)
                except self._refusals:
                    return False
                except self._api.exceptions.GenericError as error:
                    if pause is None or lacks_credentials(error):
                        raise
                    time.sleep(pause)
                else:
                    break
            self._sync(name)
        return True

    def replace_if(self, name: str, content: bytes, tag: Tag) -> Tag | None:
        """Replace the version `tag` of an object; None = there is another one, perhaps of a try
        without answer.

        A folder has no such condition: another process can come between. Raises SinkError.
        """
        if self._folder is not None:
            found = self.version(name)
            if found is None or found.tag != tag:
                return None
        mode: Any = "overwrite" if self._folder else dict(tag)
        with self._errors():
            try:
                made = self._api.put(
                    self._store, self._prefix + name, content, mode=mode, use_multipart=False
                )
            except (*self._refusals, FileNotFoundError):
                return None
        return _tag(made)

    def write(self, name: str, content: bytes | Path) -> None:
        """Create or replace an object, from a file in parts. Raises SinkError."""
        with self._errors():
            self._api.put(self._store, self._prefix + name, content)
            self._sync(name)

    def delete(self, name: str) -> None:
        """Remove an object, if there is one. Raises SinkError."""
        with self._errors(), suppress(FileNotFoundError):
            self._api.delete(self._store, self._prefix + name)

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name. Raises SinkError."""
        with self._errors():
            try:
                self._api.head(self._store, self._prefix + name)
            except FileNotFoundError:
                return False
        return True

    def read(self, name: str) -> bytes | None:
        """Return an object's content; None = there is no such object. Raises SinkError."""
        found = self.version(name)
        return None if found is None else found.content

    def version(self, name: str) -> ObjectVersion | None:
        """Return an object as it is now; None = there is no such object. Raises SinkError."""
        with self._errors():
            try:
                found = self._api.get(self._store, self._prefix + name)
                content = bytes(found.bytes())
            except FileNotFoundError:
                return None
        return ObjectVersion(content, _tag(found.meta), found.meta["last_modified"])

    def delete_all(self, names: Sequence[str]) -> None:
        """Remove objects; those that are gone already are no error. Raises SinkError."""
        with self._errors(), suppress(FileNotFoundError):
            self._api.delete(self._store, [self._prefix + name for name in names])

    def names(self, folder: str, *, after: str = "") -> Iterator[str]:
        """Yield the names of the objects in a folder and below, those after a name only.

        In any order. Raises SinkError.
        """
        offset = self._prefix + after if after else None
        with self._errors():
            pages = self._api.list(
                self._store, prefix=self._prefix + folder, offset=offset, chunk_size=_PAGE
            )
            for page in pages:
                for found in page:
                    name = found["path"].removeprefix(self._prefix)
                    if name > after:  # Azure's list may begin earlier
                        yield name

    def now(self) -> datetime:
        """Return the store's time, of a small object that is created for it. Raises SinkError."""
        name = f"{HOME}/clock-{secrets.token_hex(8)}"
        self.create_blocking(name, b"fluxasync")
        found = self.version(name)
        with suppress(SinkError), self._errors():  # credentials that may not delete
            self._api.delete(self._store, self._prefix + name)
        return datetime.now(UTC) if found is None else found.modified_at

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield name and size of every object. Raises SinkError."""
        with self._errors():
            prefix = self._prefix or None
            for page in self._api.list(self._store, prefix=prefix, chunk_size=_PAGE):
                for found in page:
                    yield found["path"].removeprefix(self._prefix), found["size"]

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 of an object, read whole; None = there is none. Raises SinkError."""
        content = self.read(name)
        return None if content is None else hashlib.sha256(content).hexdigest()

    def _sync(self, name: str) -> None:
        """Make a new file of file:// durable, which obstore does not."""
        if self._folder is None:
            return
        path = Path(self._folder, name)
        with path.open("rb") as file:
            sync(file.fileno())
        sync_folder(path.parent)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self.answers.awaited(self._api.exceptions.GenericError):
                yield
        except (self._api.exceptions.BaseError, OSError, NotImplementedError) as error:
            text = self._shown(error)
            raise SinkError(f"{self.url}: {next_step(error, text)} ({text})") from None

    def _shown(self, error: Exception) -> str:
        """Return what a store says, in one line and without the values of options."""
        text = " ".join(str(error).partition("\n\nDebug")[0].split())
        for value in self.options.values():
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, _HIDDEN)
        return text[:_LONGEST_TEXT]


def overwrites(url: str) -> SinkError:
    """Return the error of a store that creates an object twice."""
    return SinkError(
        f"{url}: the store overwrites an object that was to be created only if there is none "
        "(If-None-Match: *), so images and records could replace each other: choose a store or a "
        "version of it that honours that condition"
    )


def pauses(is_patient: bool = True) -> Iterator[float | None]:
    """Yield the seconds to wait after each failed try, for a minute; None = it was the last."""
    until = time.monotonic() + _RETRY_SECONDS
    for attempt in count(1):
        if not is_patient or time.monotonic() >= until:
            yield None
        yield retry_delay(attempt, initial=_FIRST_PAUSE, maximum=_LONGEST_PAUSE)


def _tag(found: Any) -> Tag:
    return {key: found[key] for key in ("e_tag", "version") if found[key] is not None}
