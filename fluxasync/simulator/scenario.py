"""What the simulator does: durations, limits, fault rates; and its seeded random numbers.

Fault names are part of the command line (`fluxasync simulate --fault NAME:RATE`). A submission
fault is drawn for every attempt, so a rate of 1 never lets a submission pass. The other faults are
drawn once for each job and affect its first `repeats` polls or downloads, so a client that retries
gets the image; account faults named list-… are drawn for every call.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from decimal import Decimal
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from statistics import NormalDist
from typing import Any

from attrs import field, frozen

from .webhook_forms import WebhookForm


@frozen
class Fault:
    """One fault that a scenario can inject."""

    phase: str  #: submit, poll, job, download, webhook or account
    effect: str


#: all faults, in the order in which a job meets them
FAULTS: Mapping[str, Fault] = {
    "429": Fault("submit", "too many active jobs, with Retry-After; not charged"),
    "503": Fault("submit", "overloaded, with Retry-After; not charged"),
    "500": Fault("submit", "internal error; half of them after the charge"),
    "502-html": Fault("submit", "a gateway's HTML page; half of them after the charge"),
    "402": Fault("submit", "out of credit, from the first time on"),
    "401-after": Fault("submit", "the key is revoked after N accepted jobs (401-after:N)"),
    "lost-reply": Fault("submit", "charged, then the connection drops without an answer"),
    "poll-429": Fault("poll", "too many polls, with Retry-After"),
    "poll-500": Fault("poll", "internal error"),
    "poll-502-html": Fault("poll", "a gateway's HTML page"),
    "poll-reset": Fault("poll", "the connection is reset"),
    "not-found-first": Fault("poll", "the first one to three say 'Task not found'"),
    "unknown-status": Fault("poll", "running, with status words that no documentation lists"),
    "pending-forever": Fault("job", "never ends"),
    "moderated-request": Fault("job", "the prompt is refused"),
    "moderated-content": Fault("job", "the finished image is refused"),
    "error": Fault("job", "generation fails; answered with HTTP 200, 422 or 503"),
    "expired": Fault(
        "download", "the URL has expired at its first use; a new poll returns a fresh one"
    ),
    "download-503": Fault("download", "overloaded"),
    "download-reset": Fault("download", "the connection is reset half-way"),
    "truncated": Fault("download", "half the bytes, with or without a Content-Length"),
    "wrong-bytes": Fault("download", "changed bytes; Content-MD5 does not match"),
    "html-as-image": Fault("download", "an HTML page with an image's Content-Type"),
    "slow": Fault("download", "complete, at slow_bytes_per_second"),
    "hook-lost": Fault("webhook", "the provider never calls back"),
    "hook-late": Fault("webhook", "called back 10 to 60 seconds after the end"),
    "hook-early": Fault("webhook", "the job ends and calls back before its POST is answered"),
    "hook-repeats": Fault("webhook", "called back five times"),
    "hook-disorder": Fault("webhook", "a progress event after the last callback"),
    "hook-forged": Fault(
        "webhook", "someone sends the success of an unknown job, its image elsewhere, badly signed"
    ),
    "hook-replay": Fault(
        "webhook", "someone sends the well-signed callback of an earlier job to this job's URL"
    ),
    "task-unlisted": Fault("account", "the list of tasks never has the job"),
    "task-late": Fault("account", "the list of tasks has the job ten minutes later"),
    "task-platform": Fault("account", "listed under another platform than flux"),
    "list-cut": Fault("account", "a page after the first is empty, although the total says more"),
    "list-repeats": Fault("account", "a page begins with the last row of the page before"),
    "list-html": Fault("account", "an HTML page with HTTP 200"),
    "list-401": Fault("account", "the access token is refused"),
    "list-false": Fault("account", '"success": false with HTTP 200'),
}


def _known(name: str) -> str:
    if name not in FAULTS:
        raise ValueError(f"unknown fault {name!r} (faults: {', '.join(FAULTS)})")
    return name


def _rate(name: str, value: Any) -> float:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"fault {name}: rate {value!r} is not a number") from None
    if name == "401-after":
        if not (rate >= 0 and rate.is_integer()):
            raise ValueError(
                f"fault 401-after: {value!r} is not a number of jobs; example: 401-after:30"
            )
    elif not 0 <= rate <= 1:
        raise ValueError(f"fault {name}: rate {value!r} is not between 0 and 1")
    return rate


def _split(text: str) -> tuple[str, str]:
    name, colon, rate = text.strip().partition(":")
    if name == "401-after" and not colon:
        raise ValueError("fault 401-after: the number of jobs is missing; example: 401-after:30")
    return name, rate if colon else "1"


def _faults(given: Mapping[str, float] | Iterable[str]) -> dict[str, float]:
    pairs = given.items() if isinstance(given, Mapping) else map(_split, given)
    return {_known(name): _rate(name, value) for name, value in pairs}


def _latency(given: Any) -> tuple[float, float] | None:
    """Convert None, a number, a pair or text like "0.5..2" to a range of seconds."""
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
        raise ValueError(
            f"latency {given!r} is not a range of seconds A..B; example: 0.5..2"
        ) from None
    if not 0 <= bounds[0] <= bounds[1] < float("inf"):
        raise ValueError(f"latency {given!r}: A..B requires 0 ≤ A ≤ B")
    return bounds


def _repeats(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "always":
        return sys.maxsize
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"repeats {text[:40]!r} is not a number or the word always") from None


def _webhooks(given: Any) -> WebhookForm | None:
    if isinstance(given, str):
        return WebhookForm.parse(given)
    if isinstance(given, WebhookForm | None):
        return given
    raise ValueError(f"webhooks={given!r} is not a WebhookForm or text; example: hmac/id")


def _credits(given: Any) -> Decimal | None:
    return None if given is None else Decimal(str(given))


def _path(given: str | PathLike[str] | None) -> Path | None:
    return None if given is None else Path(given)


def _not_below(minimum: float) -> Any:
    def check(instance: object, attribute: Any, value: Any) -> None:
        if value is not None and not value >= minimum:
            raise ValueError(f"{attribute.name}={value!r}: the minimum is {minimum:g}")

    return check


@frozen(kw_only=True)
class Scenario:
    """How a simulator behaves. The same seed and the same requests give the same history.

    Raises ValueError for an invalid value.
    """

    #: seconds that a job runs, uniform in A..B; None: the model's usual duration
    latency: tuple[float, float] | None = field(default=None, converter=_latency)
    #: log-normal durations instead; the mean is the middle of `latency` (or the model's duration),
    #: this is the standard deviation divided by the mean. None: uniform
    latency_cv: float | None = field(default=None, validator=_not_below(0))
    #: whether polls report progress, and results durations, for models that do so
    reports_progress: bool = True
    #: maximum number of active jobs (BFL docs: 24, of which 6 flux-kontext-max)
    active_limit: int = field(default=24, validator=_not_below(1))
    #: rate (0..1) by fault name, or texts like "429:0.1"; see FAULTS. 401-after takes a count
    faults: Mapping[str, float] = field(factory=dict, converter=_faults)
    #: number of a job's polls or downloads that a fault affects
    repeats: int = field(default=1, validator=_not_below(1))
    seed: int = 0
    #: seconds from the end of the generation until an image's URL expires (BFL docs: 10 minutes)
    url_lifetime: float = field(default=600.0, validator=_not_below(0))
    #: whether a poll after the URL's expiry returns a new one; unknown for the real service
    fresh_urls: bool = True
    #: seconds for which a finished job is kept; later polls answer "Task not found"
    retention: float = field(default=900.0, validator=_not_below(0))
    #: the only valid key; None: any key, or none
    key: str | None = field(default=None, repr=False)
    #: the only valid access token for the lists and the balance of CometAPI's account; None: any
    access_token: str | None = field(default=None, repr=False)
    #: seconds after which an accepted job is in the account's list of tasks
    list_delay: float = field(default=0.0, validator=_not_below(0))
    #: whether failed and moderated jobs are given back when they end; the record of charges keeps
    #: them
    refunds: bool = False
    #: balance in credits (1 credit = 0.01 US dollars); None: unlimited
    credits: Decimal | None = field(default=None, converter=_credits)
    #: signature and payload of callbacks, or text like "hmac/id"; see WebhookForm. None: what each
    #: vendor's text says, for BFL hmac/id and for CometAPI field/id
    webhooks: WebhookForm | None = field(default=None, converter=_webhooks)
    #: maximum number of polls per second; None: unlimited
    poll_rate_limit: int | None = field(default=None, validator=_not_below(1))
    #: Retry-After of 429 and 503: seconds, or text that is sent unchanged; None: no header
    retry_after: float | str | None = 1.0
    #: seconds between the acceptance of a job and its answer
    submit_delay: float = field(default=0.0, validator=_not_below(0))
    slow_bytes_per_second: float = field(default=20_000.0, validator=_not_below(1))
    #: size of every image in bytes, for benchmarks: one image for each width, height and format,
    #: whatever the prompt. A value that is too small gives the smallest possible image
    image_bytes: int | None = field(default=None, validator=_not_below(1))
    #: seconds the server's wall clock is ahead of this machine's
    clock_skew: float = 0.0
    #: file that receives a JSON line for every charge and delivery, flushed before the answer is
    #: sent. Charges are then not kept in memory. For tests that kill processes
    charge_log: Path | None = field(default=None, converter=_path)
    #: file that keeps accepted jobs. A later simulator with the same file continues them, also
    #: after a kill
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
        list_delay: float | None = None,
        refunds: bool | None = None,
        repeats: str | None = None,
        webhooks: str | None = None,
    ) -> Scenario:
        """Return a scenario from command-line values: faults NAME:RATE, latency A..B, repeats a
        number or "always", webhooks SIGNATURE/PAYLOAD."""
        values: dict[str, Any] = {
            "latency": latency, "active_limit": limit, "image_bytes": image_bytes, "seed": seed,
            "job_log": job_log, "list_delay": list_delay, "refunds": refunds,
            "repeats": _repeats(repeats), "webhooks": webhooks,
        }  # fmt: skip
        return cls(faults=faults, **{k: v for k, v in values.items() if v is not None})


_NORMAL = NormalDist()


class SeededRandom:
    """Random numbers that depend only on a seed and a name.

    There is no generator state, so the numbers of one job do not depend on other jobs. A hash is
    used because seeding a `random.Random` for each number costs ten times as much.
    """

    def __init__(self, seed: object) -> None:
        self._seed = str(seed)

    def __repr__(self) -> str:
        return f"<SeededRandom {self._seed}>"

    def uniform(self, *name: object) -> float:
        """Return the number of a name, in [0, 1)."""
        return int.from_bytes(self._digest(name, 8)[:7]) / 2**56

    def integer(self, *name: object, below: int) -> int:
        """Return the integer of a name, in [0, below)."""
        return int.from_bytes(self._digest(name, 8)) % below

    def normal(self, *name: object) -> float:
        """Return the number of a name from the standard normal distribution."""
        return _NORMAL.inv_cdf(max(self.uniform(*name), 2**-56))

    def hex(self, *name: object, digits: int) -> str:
        """Return hexadecimal digits, at most 64."""
        return self._digest(name, (digits + 1) // 2).hex()[:digits]

    def _digest(self, name: tuple[object, ...], size: int) -> bytes:
        text = "\x1f".join((self._seed, *map(str, name)))
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
