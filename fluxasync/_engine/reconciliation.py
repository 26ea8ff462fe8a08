"""Matches submissions in doubt with the tasks that the provider lists: a pure function.

A task is adopted only with proof, the prompt or the seed in the answer to its poll, and only if it
is certain which submission it is. What is less than certain stays in doubt, with its candidates.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from operator import attrgetter

from attrs import define, frozen

from .._core.account import AccountTask, TaskList
from .._core.models import ImageRequest, Pending, Ready
from .._wire import (
    Inconclusive,
    PollResult,
    is_echo_of,
    is_whole_echo_of,
    repeats_prompt,
    sent_prompt,
    sent_seed,
)

#: by how much the listed time of a submission may be before and after its intent: clocks differ,
#: and a submission may wait for its connection
EARLIER, LATER = timedelta(seconds=60), timedelta(minutes=10)
#: the time of a job that is not listed; such a job is the only one of its group
_UNKNOWN = datetime.min.replace(tzinfo=UTC)
#: "the same minute": a job of this journal that is listed this near shows that the list is ours
_NEAR = timedelta(seconds=60)


@frozen(kw_only=True)
class Doubt:
    """A submission whose answer was lost."""

    key: str
    request: ImageRequest
    content: str  #: equal for requests whose images may be exchanged
    begun_at: datetime  #: UTC, by this machine's clock
    candidate: str | None = None  #: the job id in what was received instead of an answer


@frozen(kw_only=True)
class KnownJob:
    """A job that a row of the journal has."""

    model: str
    submitted_at: datetime  #: UTC, by this machine's clock


@frozen(kw_only=True)
class Adopt:
    """The job is this submission's, and no other's."""

    key: str
    job_id: str


@frozen(kw_only=True)
class NotListed:
    """The provider has no task of this submission, so it was not charged."""

    key: str


@frozen(kw_only=True)
class StillInDoubt:
    """Nothing is certain yet about this submission."""

    key: str
    candidates: tuple[str, ...] = ()  #: job ids that it may have, the likeliest first
    is_waiting: bool = False  #: a candidate is not finished: a later poll may decide


Decision = Adopt | NotListed | StillInDoubt


class Proof(Enum):
    """What the answer to a poll says about a job and a request."""

    ECHO = "echo"  #: the prompt, and the seed if one was sent, are the request's
    SEED = "seed"  #: the model rewrites prompts, and the seed is the request's
    OPEN = "open"  #: not finished, or no answer: a later poll may prove it
    PLAUSIBLE = "plausible"  #: neither proved nor disproved
    OTHER = "other"  #: it is another request's


def proof(request: ImageRequest, answer: PollResult | None) -> Proof:
    """Return what an answer says about a job; None = it was not polled.

    A prompt that was cut or rewritten proves nothing; an empty one is everybody's.
    """
    if is_open(answer):
        return Proof.OPEN
    if not isinstance(answer, Ready):  # it ended without an image, or is gone
        return Proof.PLAUSIBLE
    seed, echo = sent_seed(request), answer.prompt or ""
    if seed is not None and answer.seed != seed:
        return Proof.PLAUSIBLE if answer.seed is None else Proof.OTHER
    if sent_prompt(request).strip() and is_whole_echo_of(request, echo):
        return Proof.ECHO
    if not repeats_prompt(request):
        return Proof.PLAUSIBLE if seed is None else Proof.SEED
    is_unlike = echo.strip() and not is_echo_of(request, echo)
    return Proof.OTHER if is_unlike else Proof.PLAUSIBLE


def is_open(answer: PollResult | None) -> bool:
    """Return whether a later poll may say more about a job; None = it was not polled."""
    return answer is None or isinstance(answer, Pending | Inconclusive)


def to_poll(doubts: Sequence[Doubt], listed: TaskList, known: Mapping[str, KnownJob]) -> list[str]:
    """Return the job ids whose polls may prove something, each once; those that came with a
    submission's own answer are the first."""
    tasks = _Tasks(listed, known)
    own = [doubt.candidate for doubt in doubts if doubt.candidate is not None]
    near = [task.job_id for doubt in doubts for task in tasks.possible(doubt)]
    return [job_id for job_id in dict.fromkeys(own + near) if job_id not in known]


def decide(
    doubts: Sequence[Doubt],
    listed: TaskList,
    answers: Mapping[str, PollResult],
    known: Mapping[str, KnownJob],
    now: datetime,
) -> list[Decision]:
    """Return one decision for each submission in doubt.

    `answers` has the polls of `to_poll`, by job id; a missing one decides nothing. `known` has the
    jobs that rows of the journal have, as far as they are listed or candidates. No task is adopted
    twice, and none that is known.
    """
    tasks = _Tasks(listed, known)
    own = {doubt.key: job_id for doubt in doubts if (job_id := _own(doubt, known)) is not None}
    adopted = _adopted_by_evidence(doubts, own, answers)
    left = [doubt for doubt in doubts if doubt.key not in adopted]
    # the id in a submission's own answer is its job's, unless the job is another request's
    held = {
        doubt.key
        for doubt in left
        if doubt.key in own and proof(doubt.request, answers.get(own[doubt.key])) is not Proof.OTHER
    }
    free = [doubt for doubt in left if doubt.key not in held]
    adopted |= _adopted_from_list(free, tasks, answers, {*adopted.values()})
    taken = {*adopted.values()}
    return [
        Adopt(key=doubt.key, job_id=adopted[doubt.key])
        if doubt.key in adopted
        else _undecided(doubt, own.get(doubt.key), tasks, answers, taken, now)
        for doubt in doubts
    ]


def _own(doubt: Doubt, known: Mapping[str, KnownJob]) -> str | None:
    return None if doubt.candidate in known else doubt.candidate


def _adopted_by_evidence(
    doubts: Sequence[Doubt], own: Mapping[str, str], answers: Mapping[str, PollResult]
) -> dict[str, str]:
    """Return the jobs whose ids came with the submissions' own answers, and are proved."""
    edges = _Edges()
    for doubt in doubts:
        job_id = own.get(doubt.key)
        if job_id is not None:
            edges.add(doubt, job_id, proof(doubt.request, answers.get(job_id)))
    return edges.adopted({})


def _adopted_from_list(
    doubts: Sequence[Doubt], tasks: _Tasks, answers: Mapping[str, PollResult], taken: set[str]
) -> dict[str, str]:
    edges = _Edges()
    for doubt in doubts:
        for task in tasks.near(doubt):
            if task.job_id not in taken:
                edges.add(doubt, task.job_id, proof(doubt.request, answers.get(task.job_id)))
    return edges.adopted(tasks.times)


def _undecided(
    doubt: Doubt,
    own: str | None,
    tasks: _Tasks,
    answers: Mapping[str, PollResult],
    taken: set[str],
    now: datetime,
) -> NotListed | StillInDoubt:
    possible = [task.job_id for task in tasks.possible(doubt) if task.job_id not in taken]
    if not possible and own is None and tasks.would_list(doubt, now):
        return NotListed(key=doubt.key)
    named = [job_id for job_id in (own, *possible) if job_id is not None and job_id not in taken]
    proofs = {job_id: proof(doubt.request, answers.get(job_id)) for job_id in named}
    order = list(Proof)
    shown = sorted(proofs, key=lambda job_id: (job_id != own, order.index(proofs[job_id])))
    return StillInDoubt(
        key=doubt.key,
        candidates=tuple(job_id for job_id in shown if proofs[job_id] is not Proof.OTHER),
        is_waiting=Proof.OPEN in proofs.values(),
    )


class _Tasks:
    """The listed tasks that the journal does not know, by time; and whether the list is ours."""

    def __init__(self, listed: TaskList, known: Mapping[str, KnownJob]) -> None:
        unknown = {task.job_id: task for task in listed.tasks if task.job_id not in known}
        timed = [(task.submitted_at, task) for task in unknown.values() if task.submitted_at]
        timed.sort(key=lambda pair: pair[0])
        self.times: dict[str, datetime] = {task.job_id: at for at, task in timed}
        self._instants = [at for at, _ in timed]
        self._timed = [task for _, task in timed]
        self._untimed = [task for task in unknown.values() if task.submitted_at is None]
        self._is_complete = listed.is_complete
        self._witnesses = [
            (task.submitted_at, known[task.job_id].submitted_at)
            for task in listed.tasks
            if task.job_id in known
            and task.submitted_at is not None
            and _is_model(task, known[task.job_id].model)
        ]

    def near(self, doubt: Doubt) -> Iterator[AccountTask]:
        """Yield the tasks of the submission's time and model, oldest first."""
        first = bisect_left(self._instants, doubt.begun_at - EARLIER)
        last = bisect_right(self._instants, doubt.begun_at + LATER)
        for task in self._timed[first:last]:
            if _is_model(task, doubt.request.model):
                yield task

    def possible(self, doubt: Doubt) -> Iterator[AccountTask]:
        """Yield what `near` yields, and the tasks of that model whose time is not known."""
        yield from self.near(doubt)
        yield from (task for task in self._untimed if _is_model(task, doubt.request.model))

    def would_list(self, doubt: Doubt, now: datetime) -> bool:
        """Return whether a task of the submission would be in the list.

        The list must show a job of this journal which both clocks place in the same minute: so it
        is this account's, reaches that time, names models as we do, and the clocks agree.
        """
        if not self._is_complete or now - doubt.begun_at < LATER:
            return False
        return any(
            abs(listed - doubt.begun_at) <= _NEAR and abs(own - doubt.begun_at) <= _NEAR
            for listed, own in self._witnesses
        )


def _is_model(task: AccountTask, model: str) -> bool:
    """Return whether the task may be of the model; one without a model may be of any."""
    return not task.model or task.model.strip().casefold() == model.strip().casefold()


@define
class _Group:
    """Submissions and tasks which proofs connect, directly or through others."""

    doubts: dict[str, Doubt]
    jobs: dict[str, None]
    is_open: bool = False  #: a task is not proved and not disproved yet

    def join(self, other: _Group) -> None:
        self.doubts |= other.doubts
        self.jobs |= other.jobs
        self.is_open |= other.is_open


class _Edges:
    """Which tasks may be which submissions', by proof."""

    def __init__(self) -> None:
        self._edges: list[tuple[Doubt, str, Proof]] = []

    def add(self, doubt: Doubt, job_id: str, found: Proof) -> None:
        if found in (Proof.ECHO, Proof.SEED, Proof.OPEN):
            self._edges.append((doubt, job_id, found))

    def adopted(self, times: Mapping[str, datetime]) -> dict[str, str]:
        """Return key → job id where it is certain; `times` orders the tasks."""
        echoed = {job_id for _, job_id, found in self._edges if found is Proof.ECHO}
        edges = [edge for edge in self._edges if edge[2] is not Proof.SEED or edge[1] not in echoed]
        pairs = {(doubt.key, job_id) for doubt, job_id, _ in edges}
        adopted: dict[str, str] = {}
        for group in _groups(edges):
            adopted |= _one_to_one(group, pairs, times)
        return adopted


def _groups(edges: Iterable[tuple[Doubt, str, Proof]]) -> list[_Group]:
    """Return the connected parts of the graph of proofs."""
    of_doubt: dict[str, _Group] = {}
    of_job: dict[str, _Group] = {}
    for doubt, job_id, found in edges:
        group = _Group({doubt.key: doubt}, {job_id: None}, found is Proof.OPEN)
        for other in (of_doubt.get(doubt.key), of_job.get(job_id)):
            if other is not None:
                small, group = sorted((group, other), key=lambda each: len(each.doubts))
                group.join(small)
        of_doubt |= dict.fromkeys(group.doubts, group)
        of_job |= dict.fromkeys(group.jobs, group)
    return list({id(group): group for group in of_doubt.values()}.values())


def _one_to_one(
    group: _Group, pairs: set[tuple[str, str]], times: Mapping[str, datetime]
) -> dict[str, str]:
    """Return key → job id if every task is one of these submissions and it does not matter which.

    Equal requests are interchangeable: the earliest submission gets the earliest task. A task more
    than submissions may be another machine's, then nothing is adopted.
    """
    if group.is_open or len({doubt.content for doubt in group.doubts.values()}) > 1:
        return {}
    left = sorted(group.doubts.values(), key=attrgetter("begun_at"))
    adopted: dict[str, str] = {}
    for job_id in sorted(group.jobs, key=lambda job_id: (times.get(job_id, _UNKNOWN), job_id)):
        match = next((doubt for doubt in left if (doubt.key, job_id) in pairs), None)
        if match is None:
            return {}
        left.remove(match)
        adopted[match.key] = job_id
    return adopted
