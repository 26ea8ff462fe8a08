"""Answers submissions: refuse, or accept a job and charge for it.

Checks come in the gateway's order: key, credit, load, then the request itself. Duration and
terminal status of a job are decided when it is accepted. Half of the 500 and 502 answers come
after the charge, which a client cannot know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from attrs import evolve, frozen

from .account import AccountEndpoint
from .charges import Charge, body_digest, key_digest
from .dialects import DIALECTS, Accepted, Answer, DialectName, html_answer
from .download import image_path
from .durations import job_duration
from .images import PictureSpec, variant_of
from .jobs import Job, Webhook
from .models import MODELS, Model
from .state import State, key_of
from .validation import problems_in, read_body

if TYPE_CHECKING:
    from .webhooks import WebhookQueue

_CENT = Decimal("0.01")  # US dollars a credit
# of durations: sigma of the log-normal; share of jobs that take 3 to 10 times as long
_EARLY = 0.5  # seconds from the callback to the answer with hook-early
_SOON = 0.1  # a refused prompt ends after this share of its image's duration


@frozen(kw_only=True)
class _Submission:
    """One valid POST."""

    now: float
    dialect: DialectName
    model: Model
    parameters: Mapping[str, Any]  #: the body
    body: bytes
    key: str | None

    @property
    def prompt(self) -> str:
        return str(self.parameters.get("prompt") or "")

    @property
    def webhook(self) -> Webhook | None:
        url = self.parameters.get("webhook_url")
        secret = self.parameters.get("webhook_secret")
        return Webhook(url=url, secret=secret or None) if url else None

    @property
    def price(self) -> Decimal:
        """In credits."""
        return self.model.price(self.parameters)


class SubmitEndpoint:
    """Answers POST …/{model}."""

    def __init__(self, state: State, account: AccountEndpoint, webhooks: WebhookQueue) -> None:
        self._state = state
        self._account = account
        self._webhooks = webhooks
        self.posts = 0
        self.accepted = 0
        self.seconds = 0.0  #: total duration of all accepted jobs
        self.first_accepted_at: float | None = None
        self.max_active = 0  #: maximum number of active jobs
        self.refused: Counter[int] = Counter()  #: number of refusals by HTTP status

    def answer(
        self, now: float, dialect: DialectName, model: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        self.posts += 1
        key = key_of(dialect, headers)
        answer = (
            self._key_refusal(now, dialect, key)
            or self._credit_refusal(now, dialect)
            or self._push_back(now, dialect)
            or self._validated(now, dialect, model, body, key)
        )
        if answer.status != 200:
            self.refused[answer.status] += 1
        return answer

    # ------------------------------------------------------- refusals before the request is read

    def _key_refusal(self, now: float, dialect: DialectName, key: str | None) -> Answer | None:
        scenario = self._state.scenario
        revoked = self.accepted >= scenario.faults.get("401-after", float("inf"))
        if revoked:
            self._state.fault_counts["401-after"] += 1
        if not revoked and scenario.key in (None, key):
            return None
        return DIALECTS[dialect].bad_key(key is not None, self._state.request_id(now))

    def _credit_refusal(self, now: float, dialect: DialectName) -> Answer | None:
        state = self._state
        state.out_of_credit = state.out_of_credit or state.has_fault("402", self.posts)
        if not state.out_of_credit:
            return None
        state.fault_counts["402"] += 1
        return DIALECTS[dialect].no_credit(state.request_id(now))

    def _push_back(self, now: float, dialect: DialectName) -> Answer | None:
        """Return a fault before the charge."""
        state, words = self._state, DIALECTS[dialect]
        if state.takes_fault("429", self.posts):
            return words.too_many("requests", state.request_id(now), state.retry_after)
        if state.takes_fault("503", self.posts):
            return words.overloaded(state.request_id(now), state.retry_after)
        return None if self._fails_after_charge() else self._server_error(now, dialect)

    def _fails_after_charge(self) -> bool:
        """Whether this submission's 500 or 502, if any, comes after the charge."""
        return self._state.rng.uniform("charged", self.posts) < 0.5

    def _server_error(self, now: float, dialect: DialectName) -> Answer | None:
        if self._state.takes_fault("500", self.posts):
            return DIALECTS[dialect].broken(self._state.request_id(now))
        if self._state.takes_fault("502-html", self.posts):
            return html_answer(502, "502 Bad Gateway")
        return None

    # ------------------------------------------------------------------------------- the request

    def _validated(
        self, now: float, dialect: DialectName, name: str, body: bytes, key: str | None
    ) -> Answer:
        state, words = self._state, DIALECTS[dialect]
        model = MODELS.get(name)
        if model is None:
            return words.unknown_model(name, state.request_id(now))
        parameters, wrong = read_body(body)
        wrong = wrong or problems_in(model, parameters)
        if wrong:
            as_500 = state.rng.uniform("invalid as 500", self.posts) < 0.5
            return words.invalid(wrong, state.request_id(now), as_500=as_500)
        post = _Submission(
            now=now, dialect=dialect, model=model, parameters=parameters, body=body, key=key
        )
        return self._limit_refusal(post) or self._accepted(post)

    def _limit_refusal(self, post: _Submission) -> Answer | None:
        state, words, model = self._state, DIALECTS[post.dialect], post.model
        own = state.scenario.active_limit if model.active_limit is None else model.active_limit
        if (
            state.jobs.active(post.now) >= state.scenario.active_limit
            or state.jobs.active(post.now, model.name) >= own
        ):
            return words.too_many("active tasks", state.request_id(post.now), state.retry_after)
        balance = state.scenario.credits
        if (
            balance is not None
            and state.charge_log.spent_usd + post.price * _CENT > balance * _CENT
        ):
            return words.no_credit(state.request_id(post.now))
        return None

    def _accepted(self, post: _Submission) -> Answer:
        job = self._accept(post)
        answer = self._fault_after_charge(job) or DIALECTS[job.dialect].accepted(
            self._acceptance(job, post)
        )
        delay = self._state.scenario.submit_delay
        if self._is_early(job.number, post):
            delay = max(delay, _EARLY)
        return evolve(answer, delay=delay)

    def _is_early(self, number: int, post: _Submission) -> bool:
        """Whether a job ends, and its callback is sent, before its submission is answered."""
        return post.webhook is not None and self._state.has_fault("hook-early", number)

    def _accept(self, post: _Submission) -> Job:
        state = self._state
        self.accepted += 1
        number = self.accepted
        charge = self._charged(number, post)
        final_status, ends_at = self._final_status(number, post)
        self.seconds += ends_at - post.now
        self.first_accepted_at = (
            post.now if self.first_accepted_at is None else self.first_accepted_at
        )
        picture = self._picture(number, post)
        job = Job(
            number=number, id=charge.job_id, dialect=post.dialect, model=post.model,
            charge=charge, picture=picture, final_status=final_status,
            started_at=post.now, ends_at=ends_at,
            region=state.region, webhook=post.webhook,
            result_prompt=_result_prompt(post),
            path=image_path(
                state.id_rng, number, state.gallery.format_of(picture),
                is_flux2=post.model.is_flux2, wall=state.epoch + post.now,
            ),
        )  # fmt: skip
        state.jobs.add(job)
        self._account.add(job)
        self._webhooks.accepted(job)
        state.log.accepted(job, epoch=state.epoch, port=state.region_port)
        self.max_active = max(self.max_active, state.jobs.active(post.now))
        return job

    def _charged(self, number: int, post: _Submission) -> Charge:
        charge = Charge(
            job_id=str(UUID(self._state.id_rng.hex("job", number, digits=32), version=4)),
            dialect=post.dialect,
            model=post.model.name,
            prompt=post.prompt,
            seed=post.parameters.get("seed"),
            body_digest=body_digest(post.body),
            key_digest=key_digest(post.key),
            price_usd=post.price * _CENT,
            at=post.now,
        )
        self._state.charge_log.charge(charge)
        return charge

    def _picture(self, number: int, post: _Submission) -> PictureSpec:
        seed = post.parameters.get("seed")
        width, height = post.model.size_of(post.parameters)
        return PictureSpec(
            prompt=post.prompt,
            seed=self._state.rng.integer("seed", number, below=2**32) if seed is None else seed,
            width=width,
            height=height,
            format=post.parameters.get("output_format") or post.model.output_format,
            variant=variant_of(post.model.name, post.parameters),
        )

    def _final_status(self, number: int, post: _Submission) -> tuple[str, float]:
        """Return the terminal status and the end time."""
        state, now = self._state, post.now
        seconds = job_duration(self._state, number, post.model)
        if self._is_early(number, post):
            state.fault_counts["hook-early"] += 1
            seconds = 0.0
        if state.takes_fault("pending-forever", number):
            return "Pending", now + max(state.scenario.retention, seconds)
        if state.takes_fault("moderated-request", number):
            return "Request Moderated", now + seconds * _SOON
        if state.takes_fault("moderated-content", number):
            return "Content Moderated", now + seconds
        return "Error" if state.takes_fault("error", number) else "Ready", now + seconds

    def _fault_after_charge(self, job: Job) -> Answer | None:
        """Return a fault after the charge."""
        state = self._state
        if state.takes_fault("lost-reply", self.posts):
            has_reset = state.rng.uniform("lost rudely", self.posts) < 0.5
            return Answer(drop="reset" if has_reset else "close")
        return (
            self._server_error(job.started_at, job.dialect) if self._fails_after_charge() else None
        )

    def _acceptance(self, job: Job, post: _Submission) -> Accepted:
        return Accepted(
            job_id=job.id,
            polling_url=f"{self._state.region_origin}/v1/get_result?id={job.id}",
            webhook_url=None if job.webhook is None else job.webhook.url,
            cost=post.price if job.model.is_flux2 else None,
            output_pixels=job.picture.width * job.picture.height,
            input_images=sum(1 for name in post.parameters if name.startswith("input_image")),
        )


def _result_prompt(post: _Submission) -> str:
    upsampled = post.parameters.get("prompt_upsampling")
    if post.model.upsamples if upsampled is None else upsampled:
        return f"{post.prompt}, in rich detail, soft natural light, fine texture"
    return post.prompt
