"""The immutable values of an image's way, in their order.

    ImageRequest → Job | Refused → Pending … Ready → Stored → Saved | Failed | InDoubt

The type of each field is checked here; what a model allows is checked by `_requests.catalog`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import cached_property
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Self

from attrs import evolve, field, fields, frozen

from .errors import ConfigError, FluxError, JobError, Moderated, TransportError, cut
from .inline_image import inline_image
from .text import display

#: the cheapest model of the vendor's page, and the example of its quick start
DEFAULT_MODEL = "flux-dev"

#: part of every key: a new version makes new keys, and the keys in old journals stay valid
KEY_VERSION = 1

#: the only key of a JSON object that stands for an image input
IMAGE = "$image"

#: parameters of the vendor page that do not change the image; no key depends on them
WEBHOOK_FIELDS = ("webhook_url", "webhook_secret")

#: the fields of a request that are sent, in the vendor page's order
WIRE_FIELDS = (
    "prompt", "image_prompt", "width", "height", "steps", "prompt_upsampling", "seed",
    "guidance", "safety_tolerance", "interval", "output_format", *WEBHOOK_FIELDS,
)  # fmt: skip

Paid = Literal["yes", "no", "unknown"]


class Secret:
    """Text that no repr, log, pickle or exception shows.

    A pickle has no text, so outcomes whose request has a secret can leave the process; sending
    such a request raises ConfigError.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text: str | None = text

    def reveal(self) -> str:
        """Return the text. Raises ConfigError after a pickle."""
        if self._text is None:
            raise ConfigError("a secret is not pickled, so its text is lost: give it again")
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _lost_secret, ()


def _lost_secret() -> Secret:
    secret = Secret("")
    secret._text = None
    return secret


@frozen(kw_only=True)
class ImageInput:
    """An image given to the model: exactly one of `url`, `path` and `data`.

    `ImageInput.of` makes one from a URL (text that starts with http:// or https://), a path, the
    bytes of an image, or their base64 text, also as a data URI. The file is read when the request
    is submitted.
    """

    url: str | None = None
    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    sha256: str | None = None  #: hexadecimal digest of the content; None before it is read
    #: folders in which `path` must be, links resolved (rows of a prompt list); None = anywhere
    within: tuple[str, ...] | None = field(default=None, eq=False, repr=False)
    pixels: int | None = field(default=None, eq=False)  #: width × height; None = not known

    @classmethod
    def of(cls, given: ImageInput | str | bytes | os.PathLike[str]) -> ImageInput:
        """Return the input for a URL, a path, bytes, base64 or a data URI. Raises ConfigError for
        other types, and for a data URI that holds no image."""
        if isinstance(given, ImageInput):
            return given
        if isinstance(given, str) and given.startswith(("http://", "https://")):
            return cls(url=given)
        if isinstance(given, str):
            try:
                given = inline_image(given) or given
            except ValueError as error:
                raise ConfigError(str(error)) from None
        if isinstance(given, bytes):
            return cls(data=given, sha256=hashlib.sha256(given).hexdigest())
        if isinstance(given, str | os.PathLike) and os.fspath(given):
            return cls(path=Path(given))
        raise ConfigError(f"an image input is a path, bytes or a URL, not {type(given).__name__}")

    @property
    def identity(self) -> str:
        """The input's part of a request's key: the URL, or the digest of the content."""
        if self.url is not None:
            return f"url:{self.url}"
        if self.sha256 is None:
            raise ConfigError(f"image input {self.path}: not read yet, so it has no digest")
        return f"sha256:{self.sha256}"


def _optional_image(given: Any) -> ImageInput | None:
    return None if given is None else ImageInput.of(given)


def _copied(given: Mapping[str, Any]) -> dict[str, Any]:
    return dict(given)


def _optional_secret(given: Any) -> Secret | None:
    return given if given is None or isinstance(given, Secret) else Secret(str(given))


def _decimal(given: float | None) -> float | None:
    """Return 3 as 3.0: a spreadsheet writes one as the other, and the image is the same."""
    return float(given) if type(given) is int and given.bit_length() <= 1023 else given


def _prompt(given: Any) -> str:
    if not isinstance(given, str):
        raise ConfigError(f"a prompt is text, not {type(given).__name__}")
    return given


@frozen(kw_only=True)
class ImageRequest:
    """A request for one image (or `n` images), not yet sent.

    The fields up to `webhook_secret` are the parameters of the vendor page under its own names (BFL
    docs, "FLUX.1 [dev]"). None is not sent: the provider's default applies. Parameters of other
    models (`aspect_ratio`, `input_image`, …) go into `parameters`. `extra_body` is sent unchecked,
    for parameters that the catalogue does not know.

    Raises ConfigError for a prompt or an image input of the wrong type. Ranges are checked against
    the model before anything is submitted.
    """

    prompt: str = field(default="", converter=_prompt)
    model: str = DEFAULT_MODEL
    image_prompt: ImageInput | None = field(default=None, converter=_optional_image)
    width: int | None = None  #: pixels
    height: int | None = None  #: pixels
    steps: int | None = None
    prompt_upsampling: bool | None = None
    seed: int | None = None
    guidance: float | None = field(default=None, converter=_decimal)
    safety_tolerance: int | None = None  #: 0 is the strictest
    interval: float | None = field(default=None, converter=_decimal)
    output_format: str | None = None  #: jpeg, png, or webp (some models)
    webhook_url: str | None = None
    webhook_secret: Secret | None = field(default=None, converter=_optional_secret)
    #: parameters that only some models have, by the vendor's name
    parameters: Mapping[str, Any] = field(factory=dict, converter=_copied)
    #: added to the body of the submission unchecked
    extra_body: Mapping[str, Any] = field(factory=dict, converter=_copied)

    n: int = 1  #: number of images; a batch makes n requests of it
    name: str | None = None  #: {name} in the file-name template
    #: copied to metadata.jsonl; not sent
    extras: Mapping[str, Any] = field(factory=dict, converter=_copied)
    index: int = 0  #: position in the run, from 0, counted after `n` is applied
    occurrence: int = 0  #: number of earlier requests in the run with the same content

    def __repr__(self) -> str:
        given = {**self.given(), "model": self.model, "index": self.index}
        shown = (f"{name}={cut(repr(value))}" for name, value in given.items())
        return f"ImageRequest({', '.join(shown)})"

    def given(self) -> dict[str, Any]:
        """Return the parameters that are not None, by the vendor's name; image inputs unread."""
        typed = zip(WIRE_FIELDS, _wire_values(self), strict=True)
        given = {name: value for name, value in typed if value is not None and value != ""}
        if self.parameters:
            given |= {name: value for name, value in self.parameters.items() if value is not None}
        return given

    @cached_property
    def content_key(self) -> str:
        """Hexadecimal SHA-256 over model, parameters as given, and digests of image inputs.

        Defaults of the catalogue, `name`, `extras` and the webhook are left out: they may change
        between runs. Raises ConfigError while an image input is an unread path.
        """
        encode = _canonical.encode
        extra_body = encode(self.extra_body) if self.extra_body else "{}"
        # the outer object is written by hand, keys sorted, because the encoder is slower
        canonical = (
            f'{{"extra_body":{extra_body},"model":{encode(self.model)},'
            f'"parameters":{self._canonical_parameters()},"version":{KEY_VERSION}}}'
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    def _canonical_parameters(self) -> str:
        if self.parameters:
            keyed = {k: v for k, v in self.given().items() if k not in WEBHOOK_FIELDS}
            return _canonical.encode(keyed)
        # without a dict and sorting a key takes half the time
        typed = zip(_KEY_LABELS, _key_values(self), strict=True)
        texts = [
            label + (str(value) if type(value) is int else _canonical.encode(value))
            for label, value in typed
            if value is not None and value != ""
        ]
        return f"{{{','.join(texts)}}}"

    @property
    def key(self) -> str:
        """Hexadecimal fingerprint of this image: its content and its occurrence in the run."""
        return occurrence_key(self.content_key, self.occurrence)

    def to_dict(self) -> dict[str, Any]:
        """Return the request as JSON values; `from_dict` makes it again, with the same key.

        An image input keeps what it has: path, digest, URL, or bytes as base64. Raises ConfigError
        for a webhook secret, and for a value that JSON cannot hold.
        """
        if self.webhook_secret is not None:
            raise ConfigError(
                "webhook_secret is not kept as JSON: leave it out, and set it where the request is "
                "sent: attrs.evolve(request, webhook_secret=…)"
            )
        webhook = {} if self.webhook_url is None else {"webhook_url": self.webhook_url}
        return _request_to_dict(self, keeps_bytes=True) | webhook

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Self:
        """Return the request from the result of `to_dict`. Raises ConfigError for other content."""
        try:
            return cls(**_from_json(dict(kept)))
        except (TypeError, ValueError) as exc:
            text = f"not a request that ImageRequest.to_dict() wrote: {exc}"
            raise ConfigError(text) from exc


def placed(request: ImageRequest, *, index: int, occurrence: int) -> ImageRequest:
    """Return the request with its place in the run; its content key is not computed again."""
    if (index, occurrence) == (request.index, request.occurrence):
        return request
    changed = evolve(request, index=index, occurrence=occurrence)
    object.__setattr__(changed, "content_key", request.content_key)
    return changed


def occurrence_key(content_key: str, occurrence: int) -> str:
    """Return the key of an image with `occurrence` earlier images of the same content."""
    if not occurrence:
        return content_key
    return hashlib.sha256(f"{content_key}#{occurrence}".encode()).hexdigest()


_wire_values = attrgetter(*WIRE_FIELDS)

_KEY_FIELDS = sorted(set(WIRE_FIELDS) - set(WEBHOOK_FIELDS))
_KEY_LABELS = [f'"{name}":' for name in _KEY_FIELDS]
_key_values = attrgetter(*_KEY_FIELDS)


def _jsonable(value: Any) -> Any:
    if isinstance(value, ImageInput):
        return value.identity
    if isinstance(value, Decimal):
        return float(value)
    raise ConfigError(f"a parameter cannot be sent as JSON: {type(value).__name__}")


#: made once, because `json.dumps` makes an encoder for each call
_canonical = json.JSONEncoder(
    sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=_jsonable
)


@frozen(kw_only=True)
class Job:
    """A job that the server accepted.

    Keep it anywhere: `to_dict` makes JSON values of it, and `FluxSession.collect(job)` fetches its
    image later. For that, `job_id` is enough; where jobs are regional (BFL), `polling_url` too.
    """

    job_id: str
    polling_url: str | None = field(default=None, repr=False)
    request: ImageRequest | None = None  #: None for a job made from an id
    provider: str | None = None  #: name of the provider
    account: str | None = None  #: name of the account of a FluxPool; None = of a session
    submitted_at: datetime = field(factory=lambda: datetime.now(UTC))  #: UTC
    price: Decimal | None = None  #: US dollars by the catalogue; None = unknown
    #: US dollars as the provider reported it last: at the job's end, else with the submission; None
    #: = not reported
    cost: Decimal | None = None
    submit_seconds: float | None = None  #: from the POST's first byte to its answer

    def __repr__(self) -> str:
        of = "" if self.model is None else f" of {cut(self.model)}"
        return f"<Job {cut(repr(self.job_id))}{of}>"

    @property
    def model(self) -> str | None:
        """The model's name; None for a job made from an id."""
        return None if self.request is None else self.request.model

    @property
    def charge(self) -> Decimal | None:
        """US dollars if it was charged: as the provider said last, else by the catalogue."""
        return self.price if self.cost is None else self.cost

    def to_dict(self) -> dict[str, Any]:
        """Return the job as JSON values; `from_dict` reads them.

        The webhook and the bytes of image inputs are left out; digests stay. Raises ConfigError for
        a parameter or an extra that JSON cannot hold.
        """
        kept = {name: getattr(self, name) for name in ("job_id", "polling_url", "provider")}
        if self.account is not None:
            kept["account"] = self.account
        return kept | {
            "submitted_at": self.submitted_at.isoformat(),
            "price": None if self.price is None else str(self.price),
            "cost": None if self.cost is None else str(self.cost),
            "submit_seconds": self.submit_seconds,
            "request": None if self.request is None else _request_to_dict(self.request),
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Self:
        """Return the job from the result of `to_dict`. Raises ConfigError for other content."""
        try:
            read = {
                name: value if value is None or name not in _READERS else _READERS[name](value)
                for name, value in kept.items()
            }
            job = cls(**read)
        except (ArithmeticError, AttributeError, TypeError, ValueError) as exc:
            raise ConfigError(f"not a job that Job.to_dict() wrote: {exc}") from exc
        if not isinstance(job.job_id, str):
            raise ConfigError("not a job that Job.to_dict() wrote: job_id is not text")
        return job


def _request_to_dict(request: ImageRequest, *, keeps_bytes: bool = False) -> dict[str, Any]:
    names = (each.name for each in fields(ImageRequest) if each.name not in WEBHOOK_FIELDS)
    values = ((name, getattr(request, name)) for name in names)
    return {
        name: _to_json(value, keeps_bytes=keeps_bytes)
        for name, value in values
        if value not in (None, {})
    }


def _to_json(value: Any, *, keeps_bytes: bool) -> Any:
    match value:
        case ImageInput(data=data, path=path):
            named: dict[str, Any] = {
                "url": value.url,
                "path": path and str(path),
                "data": base64.b64encode(data).decode() if data and keeps_bytes else None,
                "sha256": value.sha256,
                "within": value.within and [*value.within],
                "pixels": value.pixels,
            }
            return {IMAGE: {name: given for name, given in named.items() if given is not None}}
        case Decimal():
            return float(value)
        case Mapping():
            return {
                str(name): _to_json(inner, keeps_bytes=keeps_bytes) for name, inner in value.items()
            }
        case list() | tuple():
            return [_to_json(inner, keeps_bytes=keeps_bytes) for inner in value]
        case None | bool() | int() | float() | str():
            return value
    raise ConfigError(f"the request cannot be kept as JSON: {type(value).__name__}")


def _from_json(value: Any) -> Any:
    match value:
        case {"$image": dict(named)} if len(value) == 1:
            return ImageInput(
                **{name: _INPUT_READERS.get(name, _same)(given) for name, given in named.items()}
            )
        case dict():
            return {name: _from_json(inner) for name, inner in value.items()}
        case list():
            return [_from_json(inner) for inner in value]
    return value


def _same(value: Any) -> Any:
    return value


#: field of an ImageInput → what makes its value of the JSON value
_INPUT_READERS: dict[str, Callable[[Any], Any]] = {
    "path": Path,
    "data": lambda text: base64.b64decode(text, validate=True),
    "within": tuple,
}

#: field of a Job → what makes its value of the JSON value
_READERS: dict[str, Callable[[Any], Any]] = {
    "request": lambda kept: ImageRequest(**_from_json(kept)),
    "submitted_at": datetime.fromisoformat,
    "price": Decimal,
    "cost": Decimal,
}


class Verdict(Enum):
    """Whether a submission may have been charged, and whether it may be sent again."""

    NOT_SENT = "not sent"  #: no byte was sent; it is sent again
    REFUSED = "refused"  #: the server did not accept it; it is sent again after the pause
    REJECTED = "rejected"  #: the server will never accept it; not charged
    ACCEPTED = "accepted"  #: there is a job
    AMBIGUOUS = "ambiguous"  #: it may have been charged; it is not sent again


@frozen(kw_only=True)
class Refused:
    """A submission that did not become a job."""

    verdict: Verdict
    error: FluxError
    retry_after: float | None = None  #: seconds that the server asked to wait
    status: int | None = None  #: HTTP status; None = no answer
    is_final: bool = False  #: not to be tried again: waiting cannot help, or has taken too long


@frozen(kw_only=True)
class Pending:
    """The job is queued or running."""

    job: Job
    status: str  #: the provider's word
    progress: float | None = None  #: 0 to 1; None = the provider reports none


@frozen(kw_only=True)
class Ready:
    """The image can be downloaded until the deadline: ten minutes after generation (BFL docs).

    Loop times are those of this machine's monotonic clock since it started: other processes on it
    share them, other machines do not. There a wrong deadline costs a poll, because `download` asks
    for a fresh URL where this one has expired.
    """

    job: Job
    url: str = field(repr=False)  #: signed: it gives access to the image
    deadline: float  #: loop time at which the URL expires
    seed: int | None = None  #: the seed that the provider used
    prompt: str | None = None  #: the prompt that the provider used; upsampling rewrites it
    generate_seconds: float | None = None  #: the provider's own measure of the generation
    seen: float | None = None  #: loop time of the answer
    asked: float | None = None  #: loop time at which the poll was sent
    last_running: float | None = None  #: loop time of the last poll that found the job running
    server_started: float | None = None  #: Unix time by the provider's clock, seconds
    server_ended: float | None = None  #: Unix time by the provider's clock, seconds
    server_date: float | None = None  #: Unix time of the answer by the provider's clock, seconds
    watch_seconds: float | None = None  #: from the submission's answer to this one
    polls: int = 0


@frozen(kw_only=True)
class Stored:
    """An image as a sink stored it; every value is measured on the bytes."""

    path: Path | None = None  #: None for an object in a bucket, and in memory
    place: str = field()  #: path or URL; "" = in memory
    data: bytes | None = field(default=None, repr=False)
    size: int  #: bytes
    sha256: str  #: hexadecimal
    format: str  #: jpeg, png or webp
    width: int  #: pixels
    height: int  #: pixels

    @place.default
    def _(self) -> str:
        return "" if self.path is None else str(self.path)


@frozen(kw_only=True)
class Quarantined:
    """The bytes of a paid image that failed a check, kept aside until a person decides.

    They are in a file, or in memory where the image was to be in memory.
    """

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    size: int  #: bytes; the image may be incomplete
    sha256: str  #: hexadecimal
    reason: str = ""  #: what is wrong with the bytes; "" = the error says it
    seed: int | None = None  #: the seed that the provider reported
    prompt: str | None = None  #: the prompt that the provider reported


@frozen(kw_only=True)
class Saved:
    """Outcome: the image is complete and stored."""

    request: ImageRequest | None
    job: Job
    stored: Stored
    index: int = 0
    seed: int | None = None
    prompt: str | None = None  #: the prompt that the provider used; None = not reported
    cost: Decimal | None = None  #: US dollars as the provider reported it, else by the catalogue
    finished_at: datetime = field(factory=lambda: datetime.now(UTC))  #: UTC
    timings: Mapping[str, float] = field(factory=dict)  #: seconds of each step; `polls` is a count

    def __repr__(self) -> str:
        stored = self.stored
        where = repr(self.place) if self.place else f"{stored.size:,} bytes in memory"
        return f"<Saved {where}, {stored.width}×{stored.height} {stored.format}>"

    def _repr_html_(self) -> str:
        return _page("picture", self)

    @property
    def prompt_used(self) -> str | None:
        """The reported prompt where it differs from the request's; None = it does not."""
        own = self.request or self.job.request
        return None if own is not None and self.prompt == own.prompt else self.prompt

    @property
    def path(self) -> Path | None:
        """The image's file; None when it is in memory or in a bucket."""
        return self.stored.path

    @property
    def place(self) -> str:
        """Where the image is: the path of its file or its URL; "" when it is in memory."""
        return self.stored.place

    @property
    def data(self) -> bytes | None:
        """The image's bytes; None when they are in a file or in a bucket."""
        return self.stored.data


@frozen(kw_only=True)
class Failed:
    """Outcome: there is no image; the run went on."""

    request: ImageRequest | None  #: None for a row that is not a valid request
    error: FluxError
    index: int = 0
    where: str | None = None  #: the row, such as "prompts.jsonl line 17"
    job: Job | None = None

    def __repr__(self) -> str:
        return f"<Failed {self.cause}: {display(cut(str(self.error)))}>"

    def _repr_html_(self) -> str:
        return _page("problem", self)

    @property
    def cause(self) -> str:
        """The word for the error in summaries, in failures.jsonl and in `--retry`."""
        return self.error.cause

    @property
    def paid(self) -> Paid:
        """Whether it was charged: yes where an image came. For moderated and failed jobs providers
        say so only where they report a cost of 0."""
        if self.job is None:
            return "unknown" if getattr(self.error, "sent", False) else "no"
        if self.job.cost == 0:
            return "no"
        no_image = isinstance(self.error, JobError) and self.quarantined is None
        return "unknown" if no_image else "yes"

    @property
    def quarantined(self) -> Quarantined | None:
        """The bytes that were paid and failed a check; None = there are none."""
        return getattr(self.error, "quarantined", None)

    @property
    def moderated(self) -> bool:
        """Whether the provider's filter refused it. Another prompt may help; a retry does not."""
        return isinstance(self.error, Moderated)


def _page(function: str, outcome: Saved | Failed | InDoubt) -> str:
    """Return what a notebook shows, by a module that is loaded when one asks."""
    module = import_module("fluxasync._core.notebook_html")
    return str(getattr(module, function)(outcome))


#: cause of an image in doubt of which the account shows no task and no charge
NOT_LISTED = "not-listed"


@frozen(kw_only=True)
class InDoubt:
    """Outcome: the submission has no usable answer. It may be charged, so it is not sent again."""

    request: ImageRequest
    error: TransportError
    index: int = 0
    price: Decimal | None = None  #: US dollars by the catalogue; None = unknown
    #: the account showed no task and no charge of it, when it was last looked into
    is_unlisted: bool = False

    def __repr__(self) -> str:
        return f"<InDoubt {self.cause}: {display(cut(str(self.error)))}>"

    def _repr_html_(self) -> str:
        return _page("problem", self)

    @property
    def cause(self) -> str:
        """The word in failures.jsonl: in-doubt, or not-listed."""
        return NOT_LISTED if self.is_unlisted else "in-doubt"


Outcome = Saved | Failed | InDoubt
