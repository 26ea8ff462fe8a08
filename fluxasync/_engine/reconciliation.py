"""Matches submissions in doubt with the tasks that the provider lists: a pure function.

A task is adopted only with proof, the prompt or the seed in the answer to its poll, and only if it
is certain which submission it is. What is less than certain stays in doubt, with its candidates.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import attrgetter

from attrs import define, frozen

from .._core.account import AccountTask, TaskList
from .._core.models import ImageRequest, Ready
from .._wire import PollResult, repeats_prompt, sent_prompt, sent_seed, spaced
from .._wire.account_calls import bare_name
from .charge_evidence import EARLIER, LATER, ChargeEvidence
from .task_proof import Proof, is_open, proof

#: the time of a job that is not listed; such a job is the only one of its group
_UNKNOWN = datetime.min.replace(tzinfo=UTC)
#: "the same minute": a job of this journal that is listed this near shows that the list is ours
_NEAR = timedelta(seconds=60)
#: possible tasks of one submission that are judged as candidates to show
_MOST_JUDGED = 200
#: why a submission may be charged whose model has only tasks of other requests at that time
_OTHERS = "its model has tasks of that time that are not this folder's, with other prompts"


@frozen(kw_only=True)
class Doubt:
    """A submission whose answer was lost."""

    key: str
    request: ImageRequest
    content: str  #: equal for requests whose images may be exchanged
    begun_at: datetime  #: UTC, by this machine's clock
    candidate: str | None = None  #: the job id in what was received instead of an answer
    is_again: bool = False  #: it is to be submitted again: its job is looked for before that


@frozen(kw_only=True)
class KnownJob:
    """A job that a row of the journal has."""

    model: str
    submitted_at: datetime  #: UTC, by this machine's clock
    is_own: bool = True  #: of the account whose tasks are listed


@frozen(kw_only=True)
class Adopt:
    """The job is this submission's, and no other's."""

    key: str
    job_id: str


@frozen(kw_only=True)
class NotListed:
    """The provider lists no task of this submission, and its usage log, if it has one, no charge
    that may be its own."""

    key: str


@frozen(kw_only=True)
class StillInDoubt:
    """Nothing is certain yet about this submission."""

    key: str
    candidates: tuple[str, ...] = ()  #: job ids that it may have, the likeliest first
    is_waiting: bool = False  #: a candidate is not finished: a later poll may decide
    reason: str | None = None  #: why it may be charged although no task is listed


Decision = Adopt | NotListed | StillInDoubt


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
    charges: ChargeEvidence | None = None,
) -> list[Decision]:
    """Return one decision for each submission in doubt.

    `answers` has the polls of `to_poll`, by job id; a missing one decides nothing. `known` has the
    jobs that rows of the journal have, as far as they are listed or candidates. `charges` is what
    the usage log shows; None = the provider has none, so its list decides alone. No task is adopted
    twice, and none that is known.
    """
    tasks = _Tasks(listed, known)
    own = {doubt.key: job_id for doubt in doubts if (job_id := _own(doubt, known)) is not None}
    adopted = _adopted_by_evidence(doubts, own, answers)
    # the id in a submission's own answer is its job's, unless the job is another request's
    held = {
        doubt.key
        for doubt in doubts
        if doubt.key in own and proof(doubt.request, answers.get(own[doubt.key])) is not Proof.OTHER
    }
    free = [doubt for doubt in doubts if doubt.key not in held]
    adopted |= _adopted_from_list(free, tasks, answers, {*adopted.values()})
    taken = {*adopted.values()}
    return [
        Adopt(key=doubt.key, job_id=adopted[doubt.key])
        if doubt.key in adopted
        else _checked(
            _undecided(doubt, own.get(doubt.key), tasks, answers, taken, now), doubt, charges
        )
        for doubt in doubts
    ]


def _checked(
    found: NotListed | StillInDoubt, doubt: Doubt, charges: ChargeEvidence | None
) -> NotListed | StillInDoubt:
    """Leave a submission in doubt that the usage log may have a charge of."""
    if charges is None or isinstance(found, StillInDoubt):
        return found
    first, last = doubt.begun_at - EARLIER, doubt.begun_at + LATER
    reason = charges.against(bare_name(doubt.request.model), first, last)
    return found if reason is None else StillInDoubt(key=doubt.key, reason=reason)


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
    return edges.adopted({}, waiting=set())


def _adopted_from_list(
    doubts: Sequence[Doubt], tasks: _Tasks, answers: Mapping[str, PollResult], taken: set[str]
) -> dict[str, str]:
    """Return the listed tasks that are proved, and certainly one submission's."""
    edges = _Edges()
    signs = _by_sign(tasks, answers, taken)
    for doubt in doubts:
        seed = None if repeats_prompt(doubt.request) else sent_seed(doubt.request)
        for sign in _signs(sent_prompt(doubt.request), seed):
            for job_id in signs.get(sign, ()):
                if tasks.is_near(doubt, job_id):
                    edges.add(doubt, job_id, proof(doubt.request, answers[job_id]))
    return edges.adopted(
        tasks.times, waiting={doubt.key for doubt in doubts if tasks.has_open(doubt, answers)}
    )


def _signs(prompt: str, seed: object) -> list[tuple[str, str]]:
    """Return what a proof is found by, so that not each task is compared with each submission."""
    return [("prompt", spaced(prompt))] + ([] if seed is None else [("seed", repr(seed))])


def _by_sign(
    tasks: _Tasks, answers: Mapping[str, PollResult], taken: set[str]
) -> dict[tuple[str, str], list[str]]:
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for job_id in tasks.times:
        answer = answers.get(job_id)
        if isinstance(answer, Ready) and job_id not in taken:
            for sign in _signs(answer.prompt or "", answer.seed):
                found[sign].append(job_id)
    return found


def _undecided(
    doubt: Doubt,
    own: str | None,
    tasks: _Tasks,
    answers: Mapping[str, PollResult],
    taken: set[str],
    now: datetime,
) -> NotListed | StillInDoubt:
    left = (task.job_id for task in tasks.possible(doubt) if task.job_id not in taken)
    possible = list(islice(left, _MOST_JUDGED))
    is_missing = own is None and tasks.would_list(doubt, now)
    if not possible and is_missing:
        return NotListed(key=doubt.key)
    named = [job_id for job_id in (own, *possible) if job_id is not None and job_id not in taken]
    proofs = {job_id: proof(doubt.request, answers.get(job_id)) for job_id in named}
    order = list(Proof)
    shown = sorted(proofs, key=lambda job_id: (job_id != own, order.index(proofs[job_id])))
    candidates = tuple(job_id for job_id in shown if proofs[job_id] is not Proof.OTHER)
    return StillInDoubt(
        key=doubt.key,
        candidates=candidates,
        is_waiting=Proof.OPEN in proofs.values() or tasks.has_open(doubt, answers),
        # a provider may have changed the prompt of its own task
        reason=_OTHERS if is_missing and not candidates else None,
    )


class _Tasks:
    """The listed tasks that the journal does not know, by time; and whether the list is ours."""

    def __init__(self, listed: TaskList, known: Mapping[str, KnownJob]) -> None:
        unknown = {task.job_id: task for task in listed.tasks if task.job_id not in known}
        timed = [(task.submitted_at, task) for task in unknown.values() if task.submitted_at]
        timed.sort(key=lambda pair: (pair[0], pair[1].job_id))
        self.times: dict[str, datetime] = {task.job_id: at for at, task in timed}
        self._instants = [at for at, _ in timed]
        self._timed = [task for _, task in timed]
        self._untimed = [task for task in unknown.values() if task.submitted_at is None]
        self._models = {job_id: _folded(task.model or "") for job_id, task in unknown.items()}
        self._is_complete = listed.is_complete
        self._witnesses = sorted(
            (task.submitted_at, known[task.job_id].submitted_at)
            for task in listed.tasks
            if task.job_id in known
            and known[task.job_id].is_own
            and task.submitted_at is not None
            and _folded(task.model or "") in ("", _folded(known[task.job_id].model))
        )

    def is_near(self, doubt: Doubt, job_id: str) -> bool:
        """Return whether a task with a time is of the submission's time and model."""
        since = self.times[job_id] - doubt.begun_at
        is_model = self._models[job_id] in ("", _folded(doubt.request.model))
        return is_model and -EARLIER <= since <= LATER

    def near(self, doubt: Doubt) -> Iterator[AccountTask]:
        """Yield the tasks of the submission's time and model, oldest first."""
        first = bisect_left(self._instants, doubt.begun_at - EARLIER)
        last = bisect_right(self._instants, doubt.begun_at + LATER)
        yield from self._of_model(self._timed[first:last], doubt)

    def possible(self, doubt: Doubt) -> Iterator[AccountTask]:
        """Yield what `near` yields, and the tasks of that model whose time is not known."""
        yield from self.near(doubt)
        yield from self._of_model(self._untimed, doubt)

    def has_open(self, doubt: Doubt, answers: Mapping[str, PollResult]) -> bool:
        """Return whether a task near the submission may still be proved by a later poll."""
        return any(is_open(answers.get(task.job_id)) for task in self.near(doubt))

    def would_list(self, doubt: Doubt, now: datetime) -> bool:
        """Return whether a task of the submission would be in the list.

        The list must show a job of this journal which both clocks place in the same minute: so it
        is this account's, reaches that time, names models as we do, and the clocks agree.
        """
        if not self._is_complete or now - doubt.begun_at < LATER:
            return False
        first = bisect_left(self._witnesses, (doubt.begun_at - _NEAR,))
        for listed, own in islice(self._witnesses, first, None):
            if listed > doubt.begun_at + _NEAR:
                return False
            if abs(own - doubt.begun_at) <= _NEAR:
                return True
        return False

    def _of_model(self, tasks: Iterable[AccountTask], doubt: Doubt) -> Iterator[AccountTask]:
        """Yield the tasks that may be of the model; one without a model may be of any."""
        allowed = ("", _folded(doubt.request.model))
        return (task for task in tasks if self._models[task.job_id] in allowed)


def _folded(model: str) -> str:
    return model.strip().casefold()


@define
class _Group:
    """Submissions and tasks which proofs connect, directly or through others."""

    doubts: dict[str, Doubt]
    jobs: dict[str, None]


class _Edges:
    """Which tasks are proved to be which submissions'."""

    def __init__(self) -> None:
        self._edges: dict[tuple[str, str], tuple[Doubt, Proof]] = {}

    def add(self, doubt: Doubt, job_id: str, found: Proof) -> None:
        if found in (Proof.ECHO, Proof.SEED):
            self._edges[doubt.key, job_id] = doubt, found

    def adopted(self, times: Mapping[str, datetime], *, waiting: set[str]) -> dict[str, str]:
        """Return key → job id where it is certain; `times` orders the tasks, and the `waiting`
        submissions may get another match later."""
        echoed = {job_id for (_, job_id), (_, found) in self._edges.items() if found is Proof.ECHO}
        edges = {
            pair: doubt
            for pair, (doubt, found) in self._edges.items()
            if found is Proof.ECHO or pair[1] not in echoed
        }
        adopted: dict[str, str] = {}
        for group in _groups(edges):
            if waiting.isdisjoint(group.doubts):
                adopted |= _one_to_one(group, edges.keys(), times)
        return adopted


def _groups(edges: Mapping[tuple[str, str], Doubt]) -> Iterator[_Group]:
    """Yield the connected parts of the graph of proofs."""
    of_doubt: defaultdict[str, list[str]] = defaultdict(list)
    of_job: defaultdict[str, list[str]] = defaultdict(list)
    for key, job_id in edges:
        of_doubt[key].append(job_id)
        of_job[job_id].append(key)
    by_key = {key: doubt for (key, _), doubt in edges.items()}
    while of_doubt:
        group, reached = _Group({}, {}), [next(iter(of_doubt))]
        while reached:
            key = reached.pop()
            group.doubts[key] = by_key[key]
            for job_id in of_doubt.pop(key, ()):
                group.jobs[job_id] = None
                reached += of_job.pop(job_id, ())
        yield group


def _one_to_one(
    group: _Group, pairs: AbstractSet[tuple[str, str]], times: Mapping[str, datetime]
) -> dict[str, str]:
    """Return key → job id if every task is one of these submissions and it does not matter which.

    Equal requests are interchangeable: the earliest submission gets the earliest task. A task more
    than submissions may be another machine's, then nothing is adopted.
    """
    if len({doubt.content for doubt in group.doubts.values()}) > 1:
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
