"""The steps of a journal: each change of a row as a record of plain values.

`transitions` applies a step to a journal. A step says everything, the time included, so the same
steps in the same order give the same rows: in this process, in another one, or from a log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, ClassVar

from attrs import asdict, field, frozen

_BYTES = "hex"


class StepKind(IntEnum):
    """What the writer must know of a step."""

    READ = 0
    WRITE = 1
    INTENT = 2  # the file's name is checked first
    JOB = 3  # records the id of a paid job: goes first, and is saved when the disk is full


def _tuple(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(values)


@frozen(kw_only=True)
class RequestColumns:
    """The columns of a row that its request fills."""

    key: bytes
    index: int
    occurrence: int
    model: str
    text: str  #: the other fields, as JSON


@frozen(kw_only=True)
class Step:
    """A change of one row. `at` is in seconds since 1970.

    `selected` is the effective state of the row where it differed from the recorded one: by the
    run's selection, which may look at files. It is added when the step is recorded in a log.
    """

    kind: ClassVar[StepKind] = StepKind.WRITE
    at: float
    selected: int | None = None


@frozen(kw_only=True)
class OpenedStep(Step):
    """A run opened the journal. Its predecessors have ended, and so have the sessions that made the
    open submissions, except those of the `living` owners."""

    run: str  #: id of the journal
    provider: str  #: of images that are recorded without an intent
    origin: str  #: its origin
    simulated: bool
    template: str | None  #: of file names; None = as before
    output: str | None  #: URL of the images; None = as before, or in the folder
    living: tuple[str, ...] = field(default=(), converter=tuple[str, ...])


# --- the ledger's steps ---------------------------------------------------------------------------


@frozen(kw_only=True)
class IntentStep(Step):
    """A POST is about to start."""

    kind = StepKind.INTENT
    request: RequestColumns
    provider: str
    origin: str
    price: str | None
    token: bytes | None  #: None = of an image that was never submitted
    owner: str | None
    account: str | None
    cap: str | None = None  #: US dollars that the journal's images may cost together


@frozen(kw_only=True)
class AcceptedStep(Step):
    """The answer to a POST is a job, or a job has a new cost."""

    kind = StepKind.JOB
    request: RequestColumns
    token: bytes | None  #: None = of the open attempt, whichever that is
    job_id: str
    polling_url: str | None
    submitted_at: float
    price: str | None
    cost: str | None
    money: str | None  #: the best known cost
    stem: str | None


@frozen(kw_only=True)
class RefusedStep(Step):
    """The answer to a POST is no job."""

    key: bytes
    token: bytes | None
    is_ambiguous: bool  #: it may have been charged
    message: str
    evidence: str | None


@frozen(kw_only=True)
class DoneStep(Step):
    """The image is saved."""

    request: RequestColumns | None  #: None = it cannot be recorded, so it was never sent
    job_id: str
    money: str | None  #: what was counted for the job before
    columns: tuple[Any, ...] = field(converter=_tuple)


@frozen(kw_only=True)
class FailedStep(Step):
    """The image failed."""

    request: RequestColumns | None
    job_id: str | None
    cost: str | None  #: None = not reported
    columns: tuple[Any, ...] = field(converter=_tuple)


@frozen(kw_only=True)
class DoubtStep(Step):
    """The image is in doubt."""

    request: RequestColumns | None
    message: str
    evidence: str | None


@frozen(kw_only=True)
class CollectAgainStep(Step):
    """The image's own job is collected again, whatever was recorded."""

    key: bytes
    job_id: str


@frozen(kw_only=True)
class RetryCollectStep(Step):
    """A failure's own job is collected again, if the run's selection says so."""

    key: bytes


@frozen(kw_only=True)
class AbandonStep(Step):
    """The sessions that made the open submissions have ended, except those named."""

    living: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    owner: str | None = None  #: only this one's


# --- decisions ------------------------------------------------------------------------------------


@frozen(kw_only=True)
class DropStep(Step):
    """An image in doubt is given up."""

    key: bytes


@frozen(kw_only=True)
class GiveJobStep(Step):
    """The job of an image in doubt is found, or a failed image's job is collected again."""

    key: bytes
    job_id: str


@frozen(kw_only=True)
class AdoptStep(Step):
    """The job of an image in doubt is found; its file will have this path without extension."""

    key: bytes
    job_id: str
    stem: str | None


@frozen(kw_only=True)
class DisownStep(Step):
    """The provider does not know the job that was found for an image in doubt."""

    key: bytes
    job_id: str
    message: str


@frozen(kw_only=True)
class RefundStep(Step):
    """The provider gave a failed image's job back."""

    key: bytes
    job_id: str


@frozen(kw_only=True)
class ReleaseStep(Step):
    """Quarantined bytes became the image, or were deleted (None)."""

    key: bytes
    columns: tuple[Any, ...] | None


@frozen(kw_only=True)
class ForgetStep(Step):
    """Images are to be submitted again."""

    keys: tuple[bytes, ...] = field(converter=tuple[bytes, ...])


@frozen(kw_only=True)
class MarkStep(Step):
    """What a look into the account left of a submission in doubt; None = as it was."""

    key: bytes
    is_unlisted: bool | None  #: the provider's list lacks it
    candidates: str | None = None  #: the jobs that it may be, as JSON


@frozen(kw_only=True)
class EditStep(Step):
    """A saved image has other extras."""

    key: bytes
    text: str  #: of its request


@frozen(kw_only=True)
class ListsWrittenStep(Step):
    """The lists show all edited extras."""


@frozen(kw_only=True)
class SampleStep(Step):
    """The provider told the account's balance, in US dollars."""

    event: str
    provider: str
    account: str | None
    left: str | None
    used: str | None


@frozen(kw_only=True)
class ExportStep(Step):
    """A file of an export is whole and durable; it replaces an earlier one of its number."""

    format: str
    place: str
    number: int
    first: int
    last: int
    images: int
    size: int
    sha256: bytes
    is_closed: bool


@frozen(kw_only=True)
class DeleteStep(Step):
    """The files of saved images are about to be deleted, because a recorded export has them."""

    keys: tuple[bytes, ...] = field(converter=tuple[bytes, ...])
    format: str
    place: str
    number: int


_VERBS: dict[str, type[Step]] = {
    "opened": OpenedStep,
    "intent": IntentStep,
    "accepted": AcceptedStep,
    "refused": RefusedStep,
    "done": DoneStep,
    "failed": FailedStep,
    "doubt": DoubtStep,
    "collect-again": CollectAgainStep,
    "retry-collect": RetryCollectStep,
    "abandon": AbandonStep,
    "drop": DropStep,
    "give-job": GiveJobStep,
    "adopt": AdoptStep,
    "disown": DisownStep,
    "refund": RefundStep,
    "release": ReleaseStep,
    "forget": ForgetStep,
    "mark": MarkStep,
    "edit": EditStep,
    "lists-written": ListsWrittenStep,
    "sample": SampleStep,
    "export": ExportStep,
    "delete": DeleteStep,
}
_NAMES = {kind: verb for verb, kind in _VERBS.items()}


def encode_step(step: Step) -> str:
    """Return a step as one line of JSON: its verb and its values."""
    values = {"verb": _NAMES[type(step)], **asdict(step)}
    if step.selected is None:
        del values["selected"]
    return _ENCODER.encode(values)


def decode_step(text: str) -> Step:
    """Return the step of `encode_step`'s text. Raises ValueError, KeyError and TypeError for other
    text."""
    values = _DECODER.decode(text)
    kind = _VERBS[values.pop("verb")]
    if isinstance(values.get("request"), dict):
        values["request"] = RequestColumns(**values["request"])
    if isinstance(values.get("columns"), list):
        values["columns"] = tuple(values["columns"])
    return kind(**values)


def _tagged(value: Any) -> dict[str, str]:
    if isinstance(value, bytes):
        return {_BYTES: value.hex()}
    raise TypeError(f"not a plain value: {type(value).__name__}")


def _untagged(found: dict[str, Any]) -> Any:
    return bytes.fromhex(found[_BYTES]) if found.keys() == {_BYTES} else found


# `json.dumps` and `json.loads` make one of each for every call
_ENCODER = json.JSONEncoder(default=_tagged, separators=(",", ":"))
_DECODER = json.JSONDecoder(object_hook=_untagged)
