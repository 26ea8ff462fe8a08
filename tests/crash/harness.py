"""Kills a run, checks it and resumes it, until nothing is left to do; one seed after another.

Kill points are forced in turn by count, because random timers seldom hit the short ones; some kills
are by the clock nevertheless. The oracle checks after every kill, so that a later step cannot
repair what an earlier one broke.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import evolve, field, frozen
from support.object_servers import ObjectServer
from support.patience import patient

from .children import SLOTS, Broken, Children, Place, Plan
from .oracle import KINDS, Observation, PromptRow, Violation, losses, observe, violations
from .points import BUCKET_POINTS, POINTS, SETTLING

#: pixels; the smallest size
SIDE = 256

#: range of seconds of a kill by the clock, on an idle machine
_TIMER = (0.05, 0.6)
#: kills by the clock for each kill at a point
_TIMERS = 0.1

#: faults that are certainly neither accepted nor charged
_PUSH_BACK = ("429:0.05", "503:0.05")

_NOTHING = Observation(rows={}, charges={}, files={}, parts=0)


@frozen(kw_only=True)
class Result:
    """The result of one or more seeds."""

    seeds: int = 1
    kills: Counter[str] = field(factory=Counter)  #: by place
    images: int = 0  #: asked for
    done: int = 0
    charges: int = 0
    in_doubt: int = 0
    in_doubt_charged: int = 0  #: of those, how many the server had really charged
    most_doubts: int = 0  #: by one kill
    uncharged: int = 0  #: in doubt before they were submitted again, none of them charged
    violations: tuple[Violation, ...] = ()

    def __add__(self, other: Result) -> Result:
        return Result(
            seeds=self.seeds + other.seeds,
            kills=self.kills + other.kills,
            images=self.images + other.images,
            done=self.done + other.done,
            charges=self.charges + other.charges,
            in_doubt=self.in_doubt + other.in_doubt,
            in_doubt_charged=self.in_doubt_charged + other.in_doubt_charged,
            uncharged=self.uncharged + other.uncharged,
            most_doubts=max(self.most_doubts, other.most_doubts),
            violations=self.violations + other.violations,
        )

    def broken(self) -> dict[str, int]:
        """Return the number of violations of each kind."""
        found = Counter(violation.kind for violation in self.violations)
        return {kind: found[kind] for kind in KINDS}


def prompt_rows(count: int, *, seed: int, side: int = SIDE) -> list[PromptRow]:
    """Return prompts that no other seed has; one in ten occurs twice in the file."""
    rows: list[PromptRow] = [
        {"prompt": f"picture {number} of {seed}", "seed": number, "width": side, "height": side}
        for number in range(count - count // 10)
    ]
    return rows + rows[: count // 10]


def plans(seed: int, points: Mapping[str, int] = POINTS) -> Iterator[Plan]:
    """Yield kill plans without end: every kill point in turn, in an order that depends on the
    seed."""
    rng = random.Random(seed)
    # matter while the journal has no rows
    first = [point for point in ("during creation", "during write probe") if point in points]
    for point in first:
        yield Plan(point=point)
    while True:
        turn = [point for point in points if point not in first]
        rng.shuffle(turn)
        for point in turn:
            if rng.random() < _TIMERS:
                yield Plan(kill_after=patient(rng.uniform(*_TIMER)))
            # a timer too, because not every run reaches every point
            passes = rng.randint(1, points[point])
            yield Plan(point=point, passes=passes, kill_after=patient(_TIMER[1]))


def prepared(
    children: Children,
    home: Path,
    rows: Sequence[PromptRow],
    *,
    seed: int,
    latency: tuple[float, float] = (0.01, 0.08),
    faults: Sequence[str] = (),
    access_token: str | None = None,
    store: ObjectServer | None = None,
) -> Place:
    """Start a seed's server and write its prompts; with a store images and record go there."""
    home.mkdir(parents=True, exist_ok=True)
    place = children.serve(
        home, seed=seed, latency=latency, faults=faults, access_token=access_token
    )
    place = evolve(place, store=store)
    place.source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def play(
    children: Children,
    home: Path,
    *,
    seed: int,
    images: int,
    kills: int,
    mutant: str | None = None,
    ends: Iterator[Plan] | None = None,
    store: ObjectServer | None = None,
) -> Result:
    """Kill one seed's run up to `kills` times, looking each time, and then let it end.

    Every second seed stores its images piece by piece, as large ones are; every third one's server
    pushes back now and then, so that intents are taken back too. With a store images and record go
    there; runs are on several machines, and each look is on one that knows only the bucket. Stops
    at the first violation: what a broken run does next proves nothing.
    """
    rows = prompt_rows(images, seed=seed)
    faults = () if seed % 3 else _PUSH_BACK
    place = prepared(children, home, rows, seed=seed, faults=faults, store=store)
    result, before = Result(images=images), _NOTHING
    points = POINTS if store is None else BUCKET_POINTS
    for plan in plans(seed, points) if ends is None else ends:
        if sum(result.kills.values()) >= kills or _is_over(before, images):
            break
        try:
            killed_at = children.run(place, plan, streamed=seed % 2 == 0, mutant=mutant)
            if killed_at is None:
                continue
            after = observe(place, children.look(place))
        except Broken as broken:
            return _stopped(result, before, [_refused(broken)])
        result.kills[killed_at] += 1
        found = list(violations(before, after, rows, slots=SLOTS))
        doubts = max(result.most_doubts, after.in_doubt - before.in_doubt)
        result, before = evolve(result, most_doubts=doubts), after
        if found:
            return _stopped(result, after, found)
    return _ended(children, place, rows, result, mutant)


def _is_over(last: Observation, images: int) -> bool:
    return last.done + last.in_doubt >= images


def _ended(
    children: Children,
    place: Place,
    rows: Sequence[PromptRow],
    result: Result,
    mutant: str | None,
) -> Result:
    before = _NOTHING
    try:
        before = observe(place, children.look(place))
        children.run(place, mutant=mutant)
        after = observe(place, children.look(place))
    except Broken as broken:
        return _stopped(result, before, [_refused(broken)])
    found = [*violations(before, after, rows, slots=SLOTS), *losses(place, after, rows)]
    return _stopped(result, after, found)


def _refused(broken: Broken) -> Violation:
    """Return the violation of a run that did not resume: its paid images are out of reach."""
    return Violation(kind="refused run", what=str(broken))


def _stopped(result: Result, after: Observation, found: Sequence[Violation]) -> Result:
    """Return the result with the last observation included."""
    recorded = {row.job_id for row in after.rows.values()}
    return evolve(
        result,
        done=after.done,
        charges=len(after.charges),
        in_doubt=after.in_doubt,
        in_doubt_charged=len(after.charges.keys() - recorded),
        violations=tuple(found),
    )


# --- with the account's list of tasks -------------------------------------------------------------

#: lost answers, so that there are doubts besides those of the kills
_LOST = ("lost-reply:0.05",)
_TOKEN = "an-access-token"
#: seconds after which a task that is not listed counts as not charged, instead of ten minutes
_UNLISTED_AFTER = 3.0
#: runs at the end: submissions that are made again may lose their answers too
_LAST_RUNS = 6


def play_settling(children: Children, home: Path, *, seed: int, images: int, kills: int) -> Result:
    """Kill one seed's run that looks into the account, and let it end: what was charged is found,
    and what was not is submitted again at last."""
    rows = prompt_rows(images, seed=seed)
    place = prepared(children, home, rows, seed=seed, faults=_LOST, access_token=_TOKEN)
    result, before = Result(images=images), _NOTHING
    for plan in _settling_plans(seed):
        if sum(result.kills.values()) >= kills or _is_over(before, images):
            break
        try:
            killed_at = children.run(place, plan, streamed=seed % 2 == 0, access_token=_TOKEN)
        except Broken as broken:
            return _stopped(result, before, [_refused(broken)])
        if killed_at is None:
            continue
        after = observe(place)
        result.kills[killed_at] += 1
        found = list(violations(before, after, rows, slots=2 * SLOTS, settles=True))
        doubts = max(result.most_doubts, after.in_doubt - before.in_doubt)
        result, before = evolve(result, most_doubts=doubts), after
        if found:
            return _stopped(result, after, found)
    return _settled(children, place, rows, result, before)


def _settling_plans(seed: int) -> Iterator[Plan]:
    """Yield the plans of `plans`, and after each three of them one in the settling itself."""
    rng = random.Random(seed)
    for number, plan in enumerate(plans(seed)):
        yield plan
        if number % 3 == 2:
            point = rng.choice([*SETTLING])
            passes = rng.randint(1, SETTLING[point])
            yield Plan(point=point, passes=passes, kill_after=patient(_TIMER[1]))


def _settled(
    children: Children,
    place: Place,
    rows: Sequence[PromptRow],
    result: Result,
    before: Observation,
) -> Result:
    """Run to the end; then again, until nothing is in doubt: first what was charged must be found,
    then what was not is submitted again."""
    found: list[Violation] = []
    try:
        children.run(place, access_token=_TOKEN)
        after = observe(place)
        found += [*violations(before, after, rows, slots=2 * SLOTS, settles=True)]
        found += losses(place, after, rows)
        if missed := after.charges.keys() - {row.job_id for row in after.rows.values()}:
            found.append(Violation(kind="other", what=f"charged and not found: {missed}"))
        result = evolve(result, uncharged=after.in_doubt)
        for _ in range(_LAST_RUNS):
            if not after.in_doubt or found:
                break
            time.sleep(_UNLISTED_AFTER)
            children.run(place, access_token=_TOKEN, resubmits_after=_UNLISTED_AFTER)
            before, after = after, observe(place)
            found += [*violations(before, after, rows, slots=2 * SLOTS, settles=True)]
            found += losses(place, after, rows)
    except Broken as broken:
        return _stopped(result, before, [_refused(broken)])
    if after.in_doubt and not found:
        found.append(Violation(kind="other", what=f"{after.in_doubt} in doubt at the end"))
    return _stopped(result, after, found)
