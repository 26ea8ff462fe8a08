"""Every value that travels, in the order it travels, and the protocols of what they meet.

    ImageRequest → Call → Reply → Job | Refused → Pending … Ready → Stored
                                                  → Saved | Failed | InDoubt

Values do not change, so any task may hold one. Validation of shape happens here, once; what a
model allows is `catalog`'s, what the wire looks like is `_wire`'s.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Literal

from attrs import field, frozen

from .errors import ConfigError, FluxError, JobError, Moderated, TransportError

#: changes when the meaning of a key changes; old journals keep theirs
KEY_VERSION = 1

#: the vendor page's parameters that are sent but are not part of what the image is
WEBHOOK_FIELDS = ("webhook_url", "webhook_secret")

Paid = Literal["yes", "no", "unknown"]


class Secret:
    """Text that no repr, log, pickle or exception shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled")


@frozen(kw_only=True)
class ImageInput:
    """An image given to the model: exactly one of `url`, `path` and `data`.

    Made from what users write by `ImageInput.of`: text starting with http:// or https:// is a URL,
    other text is a path, bytes are the image itself. No file is read here: see `image_inputs`.
    """

    url: str | None = None
    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    sha256: str | None = None  #: of the content, once read
    #: where `path` must be, links resolved, because somebody else named it; None = anywhere
    within: tuple[str, ...] | None = field(default=None, eq=False, repr=False)
    pixels: int | None = field(default=None, eq=False)  #: as above; None where it does not say

    @classmethod
    def of(cls, given: ImageInput | str | bytes | os.PathLike[str]) -> ImageInput:
        """Return the input that a user wrote. Raises ConfigError for what is none of these."""
        if isinstance(given, ImageInput):
            return given
        if isinstance(given, bytes):
            return cls(data=given, sha256=hashlib.sha256(given).hexdigest())
        if isinstance(given, str) and given.startswith(("http://", "https://")):
            return cls(url=given)
        if isinstance(given, str | os.PathLike) and os.fspath(given):
            return cls(path=Path(given))
        raise ConfigError(f"an image input is a path, bytes or a URL, not {type(given).__name__}")

    @property
    def identity(self) -> str:
        """What of it enters a request's key: the URL, or the digest of the content."""
        if self.url is not None:
            return f"url:{self.url}"
        if self.sha256 is None:
            raise ConfigError(f"{self.path}: not read yet, so it has no digest")
        return f"sha256:{self.sha256}"


def _optional_image(given: Any) -> ImageInput | None:
    return None if given is None else ImageInput.of(given)


def _copied(given: Mapping[str, Any]) -> dict[str, Any]:
    return dict(given)


def _optional_secret(given: Any) -> Secret | None:
    return given if given is None or isinstance(given, Secret) else Secret(str(given))


def _prompt(given: Any) -> str:
    if not isinstance(given, str):
        raise ConfigError(f"a prompt is text, not {type(given).__name__}")
    return given


@frozen(kw_only=True)
class ImageRequest:
    """A wish for one image (or `n`), not yet sent.

    The fields up to `webhook_secret` are the vendor page's parameters under its own names; None
    means "not sent", so that the provider's default holds. Parameters of other models
    (`aspect_ratio`, `input_image`, …) go into `parameters`; what the catalogue does not know goes
    into `extra_body`, unchecked. Raises ConfigError for a field of the wrong kind; ranges are
    checked against the model by the session and by prompt sources, before anything is spent.
    """

    prompt: str = field(default="", converter=_prompt)
    model: str = "flux-dev"
    image_prompt: ImageInput | None = field(default=None, converter=_optional_image)
    width: int | None = None  #: pixels
    height: int | None = None  #: pixels
    steps: int | None = None
    prompt_upsampling: bool | None = None
    seed: int | None = None
    guidance: float | None = None
    safety_tolerance: int | None = None  #: 0 strictest
    interval: float | None = None
    output_format: str | None = None  #: jpeg, png, and webp where the model has it
    webhook_url: str | None = None
    webhook_secret: Secret | None = field(default=None, converter=_optional_secret)
    #: parameters of the model that are not on the vendor page, by wire name
    parameters: Mapping[str, Any] = field(factory=dict, converter=_copied)
    #: sent as it is, beside the parameters; the catalogue does not check it
    extra_body: Mapping[str, Any] = field(factory=dict, converter=_copied)

    n: int = 1  #: images wanted of this request; a source turns n into n requests
    name: str | None = None  #: for the file-name template's {name}
    extras: Mapping[str, Any] = field(
        factory=dict, converter=_copied
    )  #: only the metadata carries it
    index: int = 0  #: position in the run, from 0, after n
    occurrence: int = 0  #: how many requests of the same content came before it in the run

    #: the fields above that are wire parameters, in the vendor page's order
    WIRE_FIELDS: ClassVar[tuple[str, ...]] = (
        "prompt", "image_prompt", "width", "height", "steps", "prompt_upsampling", "seed",
        "guidance", "safety_tolerance", "interval", "output_format", *WEBHOOK_FIELDS,
    )  # fmt: skip

    def given(self) -> dict[str, Any]:
        """Return every wire parameter that was given, by wire name; image inputs unread."""
        typed = zip(_WIRE_FIELDS, _wire_values(self), strict=True)
        given = {name: value for name, value in typed if value is not None and value != ""}
        if self.parameters:
            given |= {name: value for name, value in self.parameters.items() if value is not None}
        return given

    @cached_property
    def content_key(self) -> str:
        """Hex sha256 of what the image is: model and parameters as given, inputs by digest.

        Never of the catalogue's defaults, `name`, `extras` or the webhook, so that those may
        change between runs. Raises ConfigError while an image input is an unread path.
        """
        encode = _canonical.encode
        extra_body = encode(self.extra_body) if self.extra_body else "{}"
        # one object with sorted keys, put together here: the encoder takes longer for its frame
        canonical = (
            f'{{"extra_body":{extra_body},"model":{encode(self.model)},'
            f'"parameters":{self._canonical_parameters()},"version":{KEY_VERSION}}}'
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    def _canonical_parameters(self) -> str:
        if self.parameters:
            keyed = {k: v for k, v in self.given().items() if k not in WEBHOOK_FIELDS}
            return _canonical.encode(keyed)
        # the typed fields alone need no dict and no sorting, which halves the time of a key
        typed = zip(_KEY_LABELS, _key_values(self), strict=True)
        texts = [
            label + (str(value) if type(value) is int else _canonical.encode(value))
            for label, value in typed
            if value is not None and value != ""
        ]
        return f"{{{','.join(texts)}}}"

    @property
    def key(self) -> str:
        """Hex fingerprint of this one image: its content and its occurrence in the run."""
        return occurrence_key(self.content_key, self.occurrence)


def occurrence_key(content_key: str, occurrence: int) -> str:
    """Return the key of the image that so many of the same content came before."""
    if not occurrence:
        return content_key
    return hashlib.sha256(f"{content_key}#{occurrence}".encode()).hexdigest()


_WIRE_FIELDS = ImageRequest.WIRE_FIELDS
_wire_values = attrgetter(*_WIRE_FIELDS)

_KEY_FIELDS = sorted(set(_WIRE_FIELDS) - set(WEBHOOK_FIELDS))
_KEY_LABELS = [f'"{name}":' for name in _KEY_FIELDS]
_key_values = attrgetter(*_KEY_FIELDS)


def _jsonable(value: Any) -> Any:
    if isinstance(value, ImageInput):
        return value.identity
    if isinstance(value, Decimal):
        return float(value)
    raise ConfigError(f"a parameter cannot be sent as JSON: {type(value).__name__}")


#: made once, because `json.dumps` makes one a call
_canonical = json.JSONEncoder(
    sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=_jsonable
)


@frozen(kw_only=True)
class Call:
    """One HTTP call, ready to go; `headers` may hold the key and stay out of the repr."""

    method: Literal["GET", "POST"]
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    timeout: float = 20.0  #: seconds for the whole call
    #: called once connected, before the first byte is sent; what it raises ends the call unsent
    before_send: Callable[[], None] | None = field(default=None, repr=False, eq=False)


@frozen(kw_only=True)
class Reply:
    """What came back, whatever it was."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  #: asked for in lower case
    body: bytes = field(repr=False)
    is_cut: bool = False  #: the body is longer than is read
    broken: str = ""  #: why the body ends before its end; "" = it does not
    #: more bytes followed on a connection that had been used before: it may be another call's
    is_followed: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the body can be relied on; the status can be in any case."""
        return not (self.is_cut or self.broken)


@frozen(kw_only=True)
class Job:
    """What the server accepted. Keep it anywhere: `flux.collect(job)` needs no more than `job_id`
    (and `polling_url` where the provider's jobs are regional)."""

    job_id: str
    polling_url: str | None = field(default=None, repr=False)
    request: ImageRequest | None = None  #: None when rebuilt from a bare id
    provider: str | None = None
    submitted_at: datetime = field(factory=lambda: datetime.now(UTC))  #: UTC
    price: Decimal | None = None  #: US dollars by the catalogue; None = unknown
    cost: Decimal | None = None  #: US dollars as the provider echoed it; None = not said
    submit_seconds: float | None = None  #: the POST, from first byte to answer

    @property
    def model(self) -> str | None:
        """The model's name; None for a job rebuilt from a bare id."""
        return None if self.request is None else self.request.model


class Verdict(Enum):
    """What the evidence says about one submission: may it be charged, may it be sent again."""

    NOT_SENT = "not sent"  #: never left; sent again
    REFUSED = "refused"  #: the server certainly did not take it; sent again when told
    REJECTED = "rejected"  #: the server will never take it; not charged
    ACCEPTED = "accepted"  #: there is a job
    AMBIGUOUS = "ambiguous"  #: it may have been charged; never sent again by itself


@frozen(kw_only=True)
class Refused:
    """A submission that did not become a job, with the evidence's verdict and the error it is."""

    verdict: Verdict
    error: FluxError
    retry_after: float | None = None  #: seconds, as the server said it
    status: int | None = None  #: HTTP status; None = no answer came
    is_final: bool = False  #: waiting cannot help, or has taken too long


@frozen(kw_only=True)
class Pending:
    """The job is still running."""

    job: Job
    status: str  #: the provider's word
    progress: float | None = None  #: 0 to 1, where the provider says it


@frozen(kw_only=True)
class Ready:
    """The image can be fetched, until the deadline: ten minutes from its end (BFL docs)."""

    job: Job
    url: str = field(repr=False)  #: signed: whoever has it may fetch the image
    deadline: float  #: loop time at which the URL dies
    seed: int | None = None  #: the one used, as the provider said
    prompt: str | None = None  #: the prompt used; an upsampled one where that is on
    generate_seconds: float | None = None  #: the provider's own duration
    seen: float | None = None  #: loop time at which the provider said so
    asked: float | None = None  #: loop time at which the poll that saw it was sent
    last_running: float | None = None  #: loop time at which it was seen running for the last time
    server_started: float | None = None  #: seconds since 1970, by the provider's clock
    server_ended: float | None = None  #: as above
    server_date: float | None = None  #: what its clock showed with this answer, in whole seconds
    watch_seconds: float | None = None  #: from the submit's answer until this was seen
    polls: int = 0


@frozen(kw_only=True)
class Stored:
    """What a sink kept of one image, measured on the bytes."""

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    size: int  #: bytes
    sha256: str  #: hexadecimal
    format: str  #: jpeg, png or webp, read from the bytes
    width: int  #: pixels
    height: int  #: pixels


@frozen(kw_only=True)
class Saved:
    """An image, whole and verified, where it belongs."""

    request: ImageRequest | None
    job: Job
    stored: Stored
    index: int = 0
    seed: int | None = None
    prompt: str | None = None  #: the prompt the provider used, where it said
    cost: Decimal | None = None  #: US dollars: echoed, else the catalogue's price
    finished_at: datetime = field(factory=lambda: datetime.now(UTC))
    timings: Mapping[str, float] = field(factory=dict)  #: seconds by step; polls is a count

    @property
    def path(self) -> Path | None:
        """The image's file; None when it is in memory."""
        return self.stored.path

    @property
    def data(self) -> bytes | None:
        """The image's bytes; None when they are in a file."""
        return self.stored.data


@frozen(kw_only=True)
class Failed:
    """An image that will not come by itself; the run went on."""

    request: ImageRequest | None  #: None when the row could not be read
    error: FluxError
    index: int = 0
    where: str | None = None  #: "prompts.jsonl line 17"
    job: Job | None = None

    @property
    def cause(self) -> str:
        """The one word under which summaries and failures.jsonl count it, as `--retry` takes it."""
        return self.error.cause

    @property
    def paid(self) -> Paid:
        """Whether it was charged: providers do not say so for moderated and failed jobs."""
        if self.job is None:
            return "unknown" if getattr(self.error, "sent", False) else "no"
        return "unknown" if isinstance(self.error, JobError) else "yes"

    @property
    def moderated(self) -> bool:
        """Whether the provider's filter refused it: another prompt may help, another try not."""
        return isinstance(self.error, Moderated)


@frozen(kw_only=True)
class InDoubt:
    """A submission whose answer never arrived: it may have been charged, and is not repeated."""

    request: ImageRequest
    error: TransportError
    index: int = 0
    price: Decimal | None = None  #: US dollars at stake, by the catalogue


Outcome = Saved | Failed | InDoubt
