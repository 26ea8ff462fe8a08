"""What a practice server does: how long jobs take, what is allowed, and what goes wrong how often.

A scenario is data; `world` plays it. Fault names are the simulator's own vocabulary and part of
the command line (`fluxasync simulate --fault NAME:RATE`). Submit faults are rolled for every
attempt, so a rate of 1 never ends; the others are rolled once for each job and then strike its
first `repeats` polls or downloads, so that a client which tries again sees the job through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Any

from attrs import field, frozen


@frozen
class Fault:
    """One misbehaviour that a scenario may order by name."""

    phase: str  #: submit, poll, job or download
    effect: str


#: every fault, in the order a job would meet it
FAULTS: Mapping[str, Fault] = {
    "429": Fault("submit", "too many active jobs, with Retry-After; not charged"),
    "503": Fault("submit", "overloaded, with Retry-After; not charged"),
    "500": Fault("submit", "internal error; half of them after the charge"),
    "502-html": Fault("submit", "a gateway's HTML page; half of them after the charge"),
    "402": Fault("submit", "out of credit, from the first hit on"),
    "401-after": Fault("submit", "the key is revoked after N accepted jobs (401-after:N)"),
    "lost-reply": Fault("submit", "charged, then the connection drops without an answer"),
    "poll-429": Fault("poll", "too many polls, with Retry-After"),
    "poll-500": Fault("poll", "internal error"),
    "poll-502-html": Fault("poll", "a gateway's HTML page"),
    "poll-reset": Fault("poll", "the connection is reset"),
    "not-found-first": Fault("poll", "the first one to three say 'Task not found'"),
    "unknown-status": Fault("poll", "running, under words no document lists"),
    "pending-forever": Fault("job", "never ends"),
    "moderated-request": Fault("job", "the prompt is refused"),
    "moderated-content": Fault("job", "the finished image is refused"),
    "error": Fault("job", "generation fails; told by HTTP 200, 422 or 503"),
    "expired": Fault("download", "the URL is dead at its first use; a new poll gives a fresh one"),
    "download-503": Fault("download", "overloaded"),
    "download-reset": Fault("download", "the connection is reset half way"),
    "truncated": Fault("download", "half the bytes; with and without a Content-Length to tell"),
    "wrong-bytes": Fault("download", "changed bytes, so that Content-MD5 differs"),
    "html-as-image": Fault("download", "an HTML page under an image's Content-Type"),
    "slow": Fault("download", "whole, at slow_bytes_per_second"),
}


def _known(name: str) -> str:
    if name not in FAULTS:
        raise ValueError(f"unknown fault {name!r}; known: {', '.join(FAULTS)}")
    return name


def _rate(name: str, value: Any) -> float:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"fault {name}: {value!r} is not a number") from None
    if name == "401-after":
        if not (rate >= 0 and rate == int(rate)):
            raise ValueError(f"fault 401-after: {value!r} is not a number of jobs (401-after:30)")
    elif not 0 <= rate <= 1:
        raise ValueError(f"fault {name}: the rate {value!r} is not between 0 and 1")
    return rate


def _split(spelled: str) -> tuple[str, str]:
    name, colon, rate = spelled.strip().partition(":")
    if name == "401-after" and not colon:
        raise ValueError("fault 401-after: say after how many jobs (401-after:30)")
    return name, rate if colon else "1"


def _faults(given: Mapping[str, float] | Iterable[str]) -> dict[str, float]:
    pairs = given.items() if isinstance(given, Mapping) else map(_split, given)
    return {_known(name): _rate(name, value) for name, value in pairs}


def _latency(given: Any) -> tuple[float, float] | None:
    """Seconds from..to, out of None, a number, a pair or text like '0.5..2'."""
    if given is None:
        return None
    try:
        if isinstance(given, str):
            low, _, high = given.partition("..")
            bounds = (float(low), float(high or low))
        elif isinstance(given, int | float):
            bounds = (float(given), float(given))
        else:
            bounds = (float(given[0]), float(given[1]))
    except (TypeError, ValueError, IndexError):
        raise ValueError(f"latency {given!r}: say seconds as A..B, like 0.5..2") from None
    if not 0 <= bounds[0] <= bounds[1] < float("inf"):
        raise ValueError(f"latency {given!r}: A..B needs 0 ≤ A ≤ B")
    return bounds


def _credits(given: Any) -> Decimal | None:
    return None if given is None else Decimal(str(given))


def _path(given: str | PathLike[str] | None) -> Path | None:
    return None if given is None else Path(given)


def _not_below(minimum: float) -> Any:
    def check(instance: object, attribute: Any, value: Any) -> None:
        if value is not None and not value >= minimum:
            raise ValueError(f"{attribute.name}={value!r}: must be {minimum:g} or more")

    return check


@frozen(kw_only=True)
class Scenario:
    """A practice server's script. The same seed and the same requests give the same history.

    Raises ValueError for what makes no sense, naming what would.
    """

    #: seconds a job runs, drawn evenly from A..B; (0, 0) = at once, None = as the model usually
    latency: tuple[float, float] | None = field(default=None, converter=_latency)
    #: durations are log-normal instead, with the middle of `latency` (or the model's own) as their
    #: mean and so much of it as their standard deviation; None = as above
    latency_cv: float | None = field(default=None, validator=_not_below(0))
    #: whether polls tell how far a job is and results how long it took, where the model does
    tells_progress: bool = True
    #: active jobs allowed (BFL docs: 24); at most 6 of them flux-kontext-max
    active_limit: int = field(default=24, validator=_not_below(1))
    #: how often (0..1) by fault name, or texts like "429:0.1"; see FAULTS. 401-after takes a count
    faults: Mapping[str, float] = field(factory=dict, converter=_faults)
    #: polls or downloads in a row that a fault spoils for a job it strikes
    repeats: int = field(default=1, validator=_not_below(1))
    seed: int = 0
    #: seconds an image's URL lives, from the end of its generation (BFL docs: 10 minutes)
    url_lifetime: float = field(default=600.0, validator=_not_below(0))
    #: whether a poll after the URL's end mints a new one; unknown for the real service
    fresh_urls: bool = True
    #: seconds a finished job is remembered; later it is "Task not found"
    retention: float = field(default=900.0, validator=_not_below(0))
    #: the one key that is let in; None = any, and none
    key: str | None = field(default=None, repr=False)
    #: balance in credits (1 credit = 0.01 US dollars); None = endless
    credits: Decimal | None = field(default=None, converter=_credits)
    #: polls allowed in a second; None = any number
    poll_rate_limit: int | None = field(default=None, validator=_not_below(1))
    #: Retry-After of 429 and 503: seconds, or text sent as it is; None = no such header
    retry_after: float | str | None = 1.0
    #: seconds between the acceptance of a job and the answer that tells it
    submit_delay: float = field(default=0.0, validator=_not_below(0))
    slow_bytes_per_second: float = field(default=20_000.0, validator=_not_below(1))
    #: every image has exactly so many bytes and is drawn once a size, not once a prompt (for
    #: benchmarks); an image that cannot be so small is as small as it can be
    image_bytes: int | None = field(default=None, validator=_not_below(1))
    #: seconds the server's wall clock is ahead of this machine's
    clock_skew: float = 0.0
    #: append a JSON line for every charge and delivery here, flushed before the answer leaves,
    #: instead of keeping charges in memory: what a test reads after it killed something
    charge_log: Path | None = field(default=None, converter=_path)
    #: keep accepted jobs in this file, and go on with those that an earlier simulator kept there:
    #: what makes the jobs of a folder outlive its simulator, a kill included
    job_log: Path | None = field(default=None, converter=_path)

    @classmethod
    def parse(
        cls,
        *,
        faults: Iterable[str] = (),
        latency: str | None = None,
        limit: int | None = None,
        image_bytes: int | None = None,
        seed: int | None = None,
        job_log: Path | None = None,
    ) -> Scenario:
        """Read a scenario from command-line words: faults 'NAME:RATE', latency 'A..B'."""
        spelled: dict[str, Any] = {
            "latency": latency, "active_limit": limit, "image_bytes": image_bytes, "seed": seed,
            "job_log": job_log,
        }  # fmt: skip
        return cls(faults=faults, **{k: v for k, v in spelled.items() if v is not None})
