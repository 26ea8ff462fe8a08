"""The submit desk: refuse, or take a job and charge for it.

Pure, over the shared state. The order of checks is the gateway's: key, credit, load, and only then
the request itself. A job's whole fate is decided here, when it is accepted; polls only reveal it.
Odd fact: half of the 500s and 502s come after the charge, which nobody outside can tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from math import exp, log, sqrt
from typing import Any
from uuid import UUID

from attrs import evolve, frozen

from .answers import Answer, html_answer
from .charges import Charge, body_digest, key_digest
from .dialects import DIALECTS, Accepted, DialectName
from .download import image_path
from .images import PictureSpec
from .jobs import Job
from .models import MODELS, Model
from .seeded_random import SeededRandom
from .state import State, key_of
from .validation import complaints, read_body

_CENT = Decimal("0.01")  # US dollars a credit
_SPREAD, _OUTLIERS = 0.35, 0.015  # of durations: log-normal, and a few 3 to 10 times as long
_SOON = 0.1  # a prompt is refused after this share of the time its image would have taken


@frozen(kw_only=True)
class _Order:
    """One POST that passed the door."""

    now: float
    dialect: DialectName
    model: Model
    wish: Mapping[str, Any]  #: the body's JSON
    body: bytes
    key: str | None

    @property
    def prompt(self) -> str:
        return str(self.wish.get("prompt") or "")

    @property
    def price(self) -> Decimal:
        """In credits."""
        return self.model.price(self.wish)


class Submits:
    """Answers POST …/{model}."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.posts = 0
        self.accepted = 0
        self.seconds = 0.0  #: that all accepted jobs take together
        self.began: float | None = None  #: when the first one was accepted
        self.max_active = 0  #: most jobs that were ever active at once
        self.refused: Counter[int] = Counter()  #: by status

    def answer(
        self, now: float, dialect: DialectName, model: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        self.posts += 1
        key = key_of(dialect, headers)
        answer = (
            self._key_refusal(now, dialect, key)
            or self._credit_refusal(now, dialect)
            or self._push_back(now, dialect)
            or self._ordered(now, dialect, model, body, key)
        )
        if answer.status != 200:
            self.refused[answer.status] += 1
        return answer

    # ------------------------------------------------------------------------------ at the door

    def _key_refusal(self, now: float, dialect: DialectName, key: str | None) -> Answer | None:
        scenario = self._state.scenario
        revoked = self.accepted >= scenario.faults.get("401-after", float("inf"))
        if revoked:
            self._state.struck["401-after"] += 1
        if not revoked and scenario.key in (None, key):
            return None
        return DIALECTS[dialect].bad_key(key is not None, self._state.moment(now))

    def _credit_refusal(self, now: float, dialect: DialectName) -> Answer | None:
        state = self._state
        state.out_of_credit = state.out_of_credit or state.strikes("402", self.posts)
        if not state.out_of_credit:
            return None
        state.struck["402"] += 1
        return DIALECTS[dialect].no_credit(state.moment(now))

    def _push_back(self, now: float, dialect: DialectName) -> Answer | None:
        """Faults before anything is charged."""
        state, words = self._state, DIALECTS[dialect]
        if state.happens("429", self.posts):
            return words.too_many("requests", state.moment(now), state.retry_after)
        if state.happens("503", self.posts):
            return words.overloaded(state.moment(now), state.retry_after)
        return None if self._is_spoiled_late() else self._spoiled(now, dialect)

    def _is_spoiled_late(self) -> bool:
        """Whether this attempt's 500 or 502, if it has one, comes after the charge."""
        return self._state.dice.roll("charged", self.posts) < 0.5

    def _spoiled(self, now: float, dialect: DialectName) -> Answer | None:
        if self._state.happens("500", self.posts):
            return DIALECTS[dialect].broken(self._state.moment(now))
        if self._state.happens("502-html", self.posts):
            return html_answer(502, "502 Bad Gateway")
        return None

    # ------------------------------------------------------------------------------- the request

    def _ordered(
        self, now: float, dialect: DialectName, name: str, body: bytes, key: str | None
    ) -> Answer:
        state, words = self._state, DIALECTS[dialect]
        model = MODELS.get(name)
        if model is None:
            return words.unknown_model(name, state.moment(now))
        wish, wrong = read_body(body)
        wrong = wrong or complaints(model, wish)
        if wrong:
            as_500 = state.dice.roll("invalid as 500", self.posts) < 0.5
            return words.invalid(wrong, state.moment(now), as_500=as_500)
        order = _Order(now=now, dialect=dialect, model=model, wish=wish, body=body, key=key)
        return self._no_room(order) or self._taken(order)

    def _no_room(self, order: _Order) -> Answer | None:
        state, words, model = self._state, DIALECTS[order.dialect], order.model
        own = state.scenario.active_limit if model.active_limit is None else model.active_limit
        if (
            state.jobs.active(order.now) >= state.scenario.active_limit
            or state.jobs.active(order.now, model.name) >= own
        ):
            return words.too_many("active tasks", state.moment(order.now), state.retry_after)
        balance = state.scenario.credits
        if balance is not None and state.books.spent_usd + order.price * _CENT > balance * _CENT:
            return words.no_credit(state.moment(order.now))
        return None

    def _taken(self, order: _Order) -> Answer:
        job = self._accept(order)
        answer = self._late_fault(job) or DIALECTS[job.dialect].accepted(self._told(job, order))
        return evolve(answer, delay=self._state.scenario.submit_delay)

    def _accept(self, order: _Order) -> Job:
        state = self._state
        self.accepted += 1
        number = self.accepted
        charge = self._charged(number, order)
        fate, ends_at = self._fate(number, order)
        self.seconds += ends_at - order.now
        self.began = order.now if self.began is None else self.began
        picture = self._picture(number, order)
        job = Job(
            number=number, id=charge.job_id, dialect=order.dialect, model=order.model,
            charge=charge, picture=picture, fate=fate, started_at=order.now, ends_at=ends_at,
            # no polling_url is told beside a webhook, so such a job is polled at the origin
            region=None if order.wish.get("webhook_url") else state.region,
            told_prompt=_told_prompt(order),
            path=image_path(
                state.names, number, state.gallery.format_of(picture),
                is_flux2=order.model.is_flux2, wall=state.epoch + order.now,
            ),
        )  # fmt: skip
        state.jobs.add(job)
        state.log.accepted(job, epoch=state.epoch, port=state.region_port)
        self.max_active = max(self.max_active, state.jobs.active(order.now))
        return job

    def _charged(self, number: int, order: _Order) -> Charge:
        charge = Charge(
            job_id=str(UUID(self._state.names.hex("job", number, digits=32), version=4)),
            dialect=order.dialect,
            model=order.model.name,
            prompt=order.prompt,
            seed=order.wish.get("seed"),
            body_digest=body_digest(order.body),
            key_digest=key_digest(order.key),
            price_usd=order.price * _CENT,
            at=order.now,
        )
        self._state.books.charge(charge)
        return charge

    def _picture(self, number: int, order: _Order) -> PictureSpec:
        seed = order.wish.get("seed")
        width, height = order.model.size_of(order.wish)
        return PictureSpec(
            prompt=order.prompt,
            seed=self._state.dice.whole("seed", number, below=2**32) if seed is None else seed,
            width=width,
            height=height,
            format=order.wish.get("output_format") or order.model.output_format,
        )

    def _fate(self, number: int, order: _Order) -> tuple[str, float]:
        """How the job will end, and when."""
        state, now = self._state, order.now
        seconds = self._duration(number, order.model)
        if state.happens("pending-forever", number):
            return "Pending", now + max(state.scenario.retention, seconds)
        if state.happens("moderated-request", number):
            return "Request Moderated", now + seconds * _SOON
        if state.happens("moderated-content", number):
            return "Content Moderated", now + seconds
        return "Error" if state.happens("error", number) else "Ready", now + seconds

    def _duration(self, number: int, model: Model) -> float:
        scenario = self._state.scenario
        dice, latency = self._state.dice, scenario.latency
        if scenario.latency_cv is not None:
            mean = model.seconds if latency is None else sum(latency) / 2
            return lognormal(dice, number, mean=mean, cv=scenario.latency_cv)
        if latency is not None:
            return latency[0] + (latency[1] - latency[0]) * dice.roll("latency", number)
        seconds = model.seconds * exp(_SPREAD * dice.normal("latency", number))
        if dice.roll("outlier", number) < _OUTLIERS:
            seconds *= 3 + 7 * dice.roll("outlier by", number)
        return seconds

    def _late_fault(self, job: Job) -> Answer | None:
        """Faults after the charge."""
        state = self._state
        if state.happens("lost-reply", self.posts):
            rude = state.dice.roll("lost rudely", self.posts) < 0.5
            return Answer(drop="reset" if rude else "close")
        return self._spoiled(job.started_at, job.dialect) if self._is_spoiled_late() else None

    def _told(self, job: Job, order: _Order) -> Accepted:
        return Accepted(
            job_id=job.id,
            polling_url=f"{self._state.region_origin}/v1/get_result?id={job.id}",
            webhook_url=order.wish.get("webhook_url"),
            cost=order.price if job.model.is_flux2 else None,
            output_pixels=job.picture.width * job.picture.height,
            input_images=sum(1 for name in order.wish if name.startswith("input_image")),
        )


def lognormal(dice: SeededRandom, number: int, *, mean: float, cv: float) -> float:
    """The seconds that a scenario's job of this number takes, under `latency_cv`."""
    variance = log(1 + cv * cv)
    return mean * exp(sqrt(variance) * dice.normal("latency", number) - variance / 2)


def _told_prompt(order: _Order) -> str:
    upsampled = order.wish.get("prompt_upsampling")
    if order.model.upsamples if upsampled is None else upsampled:
        return f"{order.prompt}, in rich detail, soft natural light, fine texture"
    return order.prompt
