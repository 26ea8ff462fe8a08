"""ObjectSink: images as objects under a URL: S3, Google Cloud Storage, Azure, or a local stand-in.

An image is one conditional PUT ("create, if there is none of this name"): whole or absent, and
durable when it is answered, so it needs no temporary name. Where the answer is lost, a second PUT
finds the object of the first one and adopts it. A store that ignores the condition could overwrite
images, so entering the sink tries it out.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Self

from attrs import evolve

from .._core.errors import DownloadError, SinkError, TransportError
from .._core.images import EXTENSIONS
from .._core.loop_owner import LoopOwner
from .._core.models import ImageRequest, Job, Quarantined, Stored
from .embedding import ImageFacts
from .filenames import DEFAULT, FilenameTemplate
from .files import HOME, candidates
from .incoming import MAX_BYTES, Incoming, whole_image
from .object_quarantine import ObjectQuarantine
from .objects import Objects, overwrites
from .quarantine import HeldQuarantine, QuarantiningSink, not_open

#: times that an object is created again after it vanished between two calls
_TRIES = 3


class ObjectSink(QuarantiningSink):
    """Keep images as objects under a URL: s3://, gs://, az://, file:// or memory://.

    Entering the sink creates a small object twice and removes it: the store must be writable, and
    must refuse to create what exists. An existing object of the same name and content is kept;
    beside one with other content the name gets "-2", "-3", … before its extension. Each object of a
    cloud has its content type and its SHA-256 as metadata. An image is in memory until it is
    stored, up to `max_bytes`.

    `options` are obstore's, such as {"region": "eu-central-1", "endpoint": "https://…"}; without
    them credentials come from the environment or the machine's role. They are in no log or repr.
    `state` is a folder whose quarantine gets the bytes of failed tries (default: memory). A Batch
    that is given a sink which is not open sets it, and opens the sink. `take_over` lets that batch
    continue a run that another process may still use; that process stops. `embed` puts prompt, seed
    and model into each image. Needs the extra `store`.

    Raises ConfigError for a URL or options that no store has, SinkError if the store cannot be
    used.
    """

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, str] | None = None,
        template: FilenameTemplate | str = DEFAULT,
        max_bytes: int = MAX_BYTES,
        state: str | os.PathLike[str] | None = None,
        take_over: bool = False,
        embed: bool = False,
    ) -> None:
        self.take_over = take_over
        self._embed, self._run = embed, ""
        self._objects = Objects(url, options)
        self.url = self._objects.url
        self.template = (
            template if isinstance(template, FilenameTemplate) else FilenameTemplate.parse(template)
        )
        self._max_bytes = max_bytes
        self._quarantine = HeldQuarantine(None if state is None else Path(state))
        self._owner = LoopOwner("the sink", "ObjectSink")
        self.is_open = False

    def __repr__(self) -> str:
        return f"<ObjectSink {self.url!r} {self.template.text!r}>"

    def within(
        self, state: Path, *, template: FilenameTemplate | None, max_bytes: int, is_copy: bool
    ) -> ObjectSink:
        """Return a sink of the same store for one batch, with its quarantine in `state`, and in the
        bucket too if `state` has a copy of a record there."""
        sink = copy(self)
        sink.template, sink._max_bytes = template or self.template, max_bytes
        sink._quarantine, sink._owner = HeldQuarantine(state), LoopOwner("the sink", "ObjectSink")
        if is_copy:
            sink._quarantine = ObjectQuarantine(state, self._objects)
        return sink

    def check_open(self, name: str) -> None:
        """Raise ConfigError unless the sink was entered in this loop."""
        if not self.is_open:
            raise not_open(name, self)
        self._owner.check()

    async def __aenter__(self) -> Self:
        await self._owner.claim()
        await self._probe()
        await self._quarantine.__aenter__()
        self.is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.is_open = False
        await self._quarantine.__aexit__()

    async def _probe(self) -> None:
        """Raise SinkError unless the store creates objects, and no object twice."""
        name = f"{HOME}/probe-{secrets.token_hex(8)}"
        # one try: a wrong address is found out at once. False = its first answer was lost
        await self._objects.create(name, b"fluxasync", {}, is_patient=False)
        is_twice = await self._objects.create(name, b"fluxasync", {})
        with suppress(SinkError):  # credentials that may not delete: a few bytes are left
            await self._objects.remove(name)
        if is_twice:
            raise overwrites(self.url)

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Store the image under its final name, whole or not at all.

        Raises DownloadError for bytes that are not one whole image or exceed `max_bytes`, SinkError
        for an error of the store; the bytes of a paid image are then kept in quarantine.
        """
        incoming = Incoming(chunks)
        try:
            facts = None
            if self._embed:
                facts = ImageFacts.of(request, seed=incoming.seed, run=self._run)
            image = await whole_image(job, incoming, self._max_bytes, facts)
            name = await self._landed(request, job, image)
        except (DownloadError, TransportError, SinkError):
            if incoming.is_paid:  # a later try may find its URL expired
                await self._quarantine.keep(job, incoming.unwritten)
            raise
        await self._quarantine.forget(job)
        return evolve(image, data=None, place=f"{self.url}/{name}")

    async def _landed(self, request: ImageRequest | None, job: Job, image: Stored) -> str:
        """Create the object, or adopt one of the same content; return its name."""
        extension = EXTENSIONS[image.format]
        wanted = self.template.render(request, job_id=job.job_id, ext=extension)
        return await landed(self._objects, wanted, image)

    async def store_suspect(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Keep a whole image in quarantine, because it may be another request's."""
        incoming = Incoming(chunks)
        try:
            image = await whole_image(job, incoming, self._max_bytes)
        except (DownloadError, TransportError):
            if incoming.is_paid:
                await self._quarantine.keep(job, incoming.unwritten)
            raise
        await self._quarantine.forget(job)
        await self._quarantine.keep(job, image.data or b"")
        return image

    async def set_aside(self, job: Job, chunks: AsyncIterator[bytes], *, limit: int) -> None:
        """Keep up to about `limit` bytes of a refused answer in quarantine."""
        incoming = Incoming(chunks)
        with suppress(TransportError):
            await incoming.take(min(limit, self._max_bytes))
        await self._quarantine.keep(job, incoming.unwritten)

    async def quarantined(self, job: Job) -> Quarantined | None:
        """Return what is in quarantine of a job; None = nothing."""
        return await self._quarantine.found(job)

    def quarantine_problem(self, job: Job) -> str:
        """Return why a job's bytes could not be kept; "" = they could, or none came."""
        return self._quarantine.problem(job)


def is_behind(sink: ObjectSink) -> bool:
    """Whether quarantined bytes are only in the folder of a sink's quarantine."""
    return isinstance(sink._quarantine, ObjectQuarantine) and sink._quarantine.is_behind


def objects_of(sink: ObjectSink) -> Objects:
    """Return the objects under a sink's URL."""
    return sink._objects


def embeds_objects(sink: ObjectSink, run: str | None = None) -> bool:
    """Return whether a sink embeds; a given id of the run is embedded from now on."""
    sink._run = run or sink._run
    return sink._embed


async def landed(objects: Objects, wanted: str, image: Stored) -> str:
    """Create an image's object, or adopt one of the same content; return its name."""
    content = image.data or b""
    kind = f"image/{image.format}" if image.format in EXTENSIONS else "application/octet-stream"
    attributes = {"Content-Type": kind, "sha256": image.sha256}
    for name in candidates(wanted):
        for _ in range(_TRIES):
            if await objects.create(name, content, attributes):
                return name
            is_same = await objects.holds(name, size=image.size, sha256=image.sha256)
            if is_same:
                return name
            if is_same is not None:
                break  # of another image
        else:
            raise SinkError(f"{objects.url}/{name} comes and goes: nothing else may write there")
    raise AssertionError("unreachable: candidates never end")  # pragma: no cover
