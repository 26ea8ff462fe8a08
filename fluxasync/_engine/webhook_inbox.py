"""Webhook inbox: which submission a callback is about, and whom it wakes.

Each submission has an address of its own, with its token. A callback is a bell and never a fact: it
wakes the watch of its job, whose next poll asks the provider. What a callback says is not used,
except its job id where the answer of the submission was lost; then the batch proves it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Literal

from attrs import Factory, define

from .._core.attempts import TOKEN_BYTES
from .._core.errors import ConfigError
from .._core.models import WEBHOOK_FIELDS, ImageRequest, Job, Refused, Verdict
from .._core.text import counted
from .._wire.client import now
from .job_slots import longest_seconds
from .polling import CallbackRecord, EndedJob

if TYPE_CHECKING:
    from .._core.attempts import Attempt
    from .._core.loop_owner import LoopOwner
    from .._core.webhook import Webhook
    from .._wire.providers import Provider
    from ..webhooks import Receiver

logger = logging.getLogger("fluxasync")

#: attempts that are remembered; older ones are found in the journal
REMEMBERED = 10_000
#: seconds between polls that callbacks cause, after the first one of a job that still runs; each
#: further one doubles it, up to the longest
QUIET, LONGEST_QUIET = 0.1, 30.0

_TOKEN = re.compile(rf"[0-9a-f]{{{2 * TOKEN_BYTES}}}")

#: seconds in which a sender tries again (1, 5 and 30 seconds later), and those that a call takes
SENT_AGAIN, TRAVEL = 40.0, 10.0

#: different job ids for one submission that are kept: at most one is right
MOST_NAMED = 4

#: called with a token and a job id, which a callback names for a submission in doubt
Claim = Callable[[str, str], None]


@define(eq=False)
class Bell:
    """Rings when a callback of one submission has come."""

    state: Literal["sent", "running", "ended", "refused", "lost"] = "sent"
    job_id: str | None = None  #: of the answer
    #: what callbacks named, without an answer
    named: list[str] = Factory(list)
    is_expected: bool = True  #: False for a job of an earlier run, whose webhook is not known
    rung_at: float | None = None  #: loop time of the first callback since the last poll
    in_vain: int = 0  #: callbacks after which the job still ran
    ended: EndedJob | None = None
    _sleepers: list[asyncio.Future[bool]] = Factory(list)

    def ring(self) -> None:
        """Wake the watch of the job, or let its next sleep be none."""
        if self.rung_at is None:
            self.rung_at = now()
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(False)

    def take(self) -> float | None:
        """Return when the bell rang since the last poll, if it did; further callbacks ring again.
        Called before a poll."""
        rung_at, self.rung_at = self.rung_at, None
        return rung_at

    @property
    def quiet(self) -> float:
        """Seconds of a sleep that callbacks do not cut short, so that many cause few polls."""
        return min(QUIET * 2.0 ** (self.in_vain - 1), LONGEST_QUIET) if self.in_vain else 0.0

    def wakes(self, sleeper: asyncio.Future[bool]) -> None:
        """Wake this sleeper from now on."""
        self._sleepers.append(sleeper)

    def forgets(self, sleeper: asyncio.Future[bool]) -> None:
        """Wake this sleeper no more."""
        self._sleepers.remove(sleeper)


class WebhookInbox:
    """The submissions of one session by their tokens. Without a webhook, and so without a receiver,
    it does nothing."""

    def __init__(self, receiver: Receiver | None, *, owner: LoopOwner, wait: float) -> None:
        self.webhook: Webhook | None = None
        self._receiver, self._owner = receiver, owner
        if receiver is not None:
            self.webhook, receiver.on_call = receiver.webhook, self.ring
        self.record = CallbackRecord()
        self.claims: list[Claim] = []  #: who knows submissions in doubt
        self.lost_until = -inf  #: loop time after which no callback of a lost submission comes
        self._wait = wait  #: seconds
        self._bells: OrderedDict[str, Bell] = OrderedDict()  #: by token
        self._jobs: OrderedDict[str, Bell] = OrderedDict()  #: by job id
        self._first_job: float | None = None  #: loop time
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"<WebhookInbox {len(self._bells)} submissions, {self.record!r}>"

    def check(self, provider: Provider) -> None:
        """Raise ConfigError where jobs with this webhook could not be polled."""
        if self.webhook is not None:
            check_pollable(provider)

    # --- submissions ----------------------------------------------------------------------------

    def fields(self, request: ImageRequest, attempt: Attempt) -> Mapping[str, str]:
        """Return the webhook's fields of a submission that is about to be sent; none for a request
        that has its own."""
        if self.webhook is None or has_webhook(request):
            return {}
        self._bells[attempt.token] = Bell()
        if len(self._bells) > REMEMBERED:
            self._bells.popitem(last=False)
        fields = {"webhook_url": self.webhook.address(attempt.token)}
        if self.webhook.secret is not None:
            fields["webhook_secret"] = self.webhook.secret.reveal()
        return fields

    def answered(self, token: str, answer: Job | Refused, *, model: str) -> None:
        """Note the answer of a submission; `model` is its request's."""
        bell = self._bells.get(token)
        if bell is None:
            return
        match answer:
            case Job(job_id=job_id):
                bell.state, bell.job_id = "running", job_id
                self._add_job(job_id, bell)
                if self._first_job is None:
                    self._first_job = now()
                if any(named != job_id for named in bell.named):
                    self._warn_of_another()
            case Refused(verdict=Verdict.AMBIGUOUS):
                self.lost(token, model)
            case _:
                bell.state = "refused"
                if bell.rung_at is not None:
                    self._warn_of_refused()

    def lost(self, token: str, model: str | None = None) -> None:
        """Note a submission whose answer was lost: a callback may name its job."""
        bell = self._bells.get(token)
        if bell is None:
            return
        bell.state = "lost"
        seconds = max(SENT_AGAIN, longest_seconds(model) + TRAVEL)
        self.lost_until = max(self.lost_until, now() + min(seconds, self._wait))
        for job_id in bell.named:
            self._claim(token, job_id)

    def may_call(self) -> bool:
        """Return whether a callback may come: not where jobs have ended and none has come."""
        self.record.arrive(now())
        return not self.record.is_silent

    def found(self, token: str, job_id: str) -> None:
        """Note the job of a submission whose answer was lost."""
        bell = self._bells.get(token)
        if bell is not None:
            bell.state, bell.job_id = "ended", job_id

    # --- jobs -----------------------------------------------------------------------------------

    def bell_of(self, job: Job) -> Bell | None:
        """Return the bell of a job that is about to be watched; None without a webhook."""
        if self.webhook is None:
            return None
        bell = self._jobs.get(job.job_id)
        if bell is None:  # of an earlier run, or with a webhook of its own
            bell = Bell(state="running", job_id=job.job_id, is_expected=False)
            self._add_job(job.job_id, bell)
        return bell

    def is_awaited(self, bell: Bell | None) -> bool:
        """Return whether the job's callback can be expected to tell its end."""
        if bell is None or not bell.is_expected or bell.in_vain:
            return False
        return self.record.arrive(now())

    def ended(self, bell: Bell | None, *, is_heard: bool) -> None:
        """Note that a poll has seen the end of a job; `is_heard` = a callback caused the poll, or
        came during it."""
        if bell is None:
            return
        bell.state = "ended"
        self._jobs.pop(bell.job_id or "", None)
        if bell.is_expected:
            bell.ended = self.record.ended(now(), is_heard=is_heard)
            self._warn_of_silence()

    # --- callbacks ------------------------------------------------------------------------------

    def ring(self, token: str, job_id: str | None) -> bool:
        """Note a callback; return whether its token is one of this session's. Raises ConfigError in
        another event loop, thread or process than the session's, whose watchers it cannot wake."""
        self._owner.check()
        bell = self._bells.get(token)
        if bell is None:
            if self.webhook is not None and _TOKEN.fullmatch(token):
                self._claim(token, job_id)
            return False
        if bell.state == "refused":
            self._warn_of_refused()
            return True
        if job_id is not None and bell.job_id not in (None, job_id):
            self._warn_of_another()
            return True
        self.record.heard(now())
        if bell.state in ("sent", "lost"):
            self._name(bell, token, job_id)
        if bell.state == "ended":
            if bell.ended is not None:
                bell.ended.is_heard = True
            return True
        bell.ring()
        return True

    def ring_job(self, job_id: str) -> None:
        """Wake the watch of a job of an earlier run, whose token the journal knows."""
        if (bell := self._jobs.get(job_id)) is not None:
            bell.ring()

    def _name(self, bell: Bell, token: str, job_id: str | None) -> None:
        """Keep a job id that a callback named; the batch proves it if no answer comes."""
        if job_id is None or job_id in bell.named:
            return
        if bell.named:
            self._warn_of_another()
        if len(bell.named) < MOST_NAMED:
            bell.named.append(job_id)
            if bell.state == "lost":
                self._claim(token, job_id)

    def _claim(self, token: str, job_id: str | None) -> None:
        if job_id is not None:
            for claim in self.claims:
                claim(token, job_id)

    def _add_job(self, job_id: str, bell: Bell) -> None:
        self._jobs[job_id] = bell
        if len(self._jobs) > REMEMBERED:
            self._jobs.popitem(last=False)

    # --- what a user must see -------------------------------------------------------------------

    def _warn_of_another(self) -> None:
        self._warn_once(
            "callbacks name two jobs for one submission: the one that the provider confirms counts"
        )

    def _warn_of_refused(self) -> None:
        self._warn_once(
            "a callback came for a submission that the provider had refused: it may have been "
            "charged all the same; compare with the provider's usage list"
        )

    def _warn_of_silence(self) -> None:
        """Warn when jobs have ended for a while and no callback has come."""
        if self._receiver is None or self._first_job is None:
            return
        if now() >= self._first_job + self._wait and not self.may_call():
            self._warn_once("%s: polling as usual", silence(self._receiver))

    def _warn_once(self, message: str, *values: object) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message, *values)


def silence(receiver: Receiver) -> str:
    """Return why no callback has been taken, by what the receiver has answered."""
    url, counts = receiver.webhook.url, receiver.counts
    if counts.refused:
        came = counted(counts.refused, "callback")
        return (
            f"{came} arrived at {url} and none had the proof; check the webhook's secret and its "
            "signature (--webhook-signature)"
        )
    if counts.unknown:
        came = counted(counts.unknown, "callback")
        return (
            f"{came} arrived at {url} and none had a token of this session; check that your proxy "
            "keeps the last part of the path, and that no other session has this URL"
        )
    if counts.invalid:
        came = counted(counts.invalid, "call")
        return f"{came} arrived at {url} and none was a complete POST of up to 64 KB"
    return f"callbacks do not arrive at {url}"


def check_pollable(provider: Provider) -> None:
    """Raise ConfigError for a provider at a host where jobs with a webhook cannot be polled."""
    if provider.needs_polling_url:
        raise ConfigError(
            f"webhook: {provider.name} answers a submission with a webhook without a polling URL, "
            f"and jobs of {provider.origin[1]} can be polled only there: give a regional base URL, "
            f"{regions_of(provider)}"
        )


def regions_of(provider: Provider) -> str:
    """Return the base URLs of the main regions, as text."""
    named = " or ".join(f"https://{host}" for host in provider.regional_hosts[:2])
    if provider.is_loopback:
        return f"{named} (the simulator's: regional_url in its /simulator/ledger)"
    return named or "as the provider names it"


def has_webhook(request: ImageRequest) -> bool:
    """Return whether a request has a webhook of its own, which is left alone."""
    if request.webhook_url is not None or request.webhook_secret is not None:
        return True
    return any(name in request.parameters or name in request.extra_body for name in WEBHOOK_FIELDS)
