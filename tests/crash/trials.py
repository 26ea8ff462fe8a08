"""One method tried on one mutant, or on the package itself."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen
from support.object_servers import ObjectServer, seaweedfs

from .children import Children, Plan
from .crashfs import losses
from .evidence import recorded
from .harness import Result, play
from .mutants import MUTANTS
from .points import BUCKET_POINTS, MID_CHECKPOINT, POINTS
from .recorder import misordered

#: mutants by the method that must detect them
CAUGHT = (
    ("no intent record", "kills"),
    ("no intent record", "order"),
    ("recovery resubmits intents", "kills"),
    ("late log", "bucket"),
    ("done before publish", "kills"),
    ("done before publish", "order"),
    ("done before publish", "power cuts"),
    ("in-place write", "kills"),
    ("in-place write", "order"),
    ("in-place write", "power cuts"),
    ("no file fsync", "order"),
    ("no file fsync", "power cuts"),
    ("no folder fsync", "order"),
    ("no folder fsync", "power cuts"),
    ("synchronous=NORMAL", "order"),
)

METHODS = ("kills", "bucket", "order", "power cuts")

#: power cuts of one trial
STATES = 500


@frozen(kw_only=True)
class Finding:
    """The violations by kind, and the number of kills."""

    kinds: frozenset[str]
    kills: int = 0


def tried(method: str, children: Children, home: Path, mutant: str | None = None) -> Finding:
    """Examine a mutant, or the package itself, with one method."""
    if method == "kills":
        return _killed(children, home, mutant)
    if method == "bucket":
        home.mkdir(exist_ok=True)
        with seaweedfs(home) as store:
            return _killed(children, home, mutant, store)
    events = recorded(children, home, mutant=mutant)
    if method == "order":
        return Finding(
            kinds=frozenset(what for wrong in misordered(events).values() for what in wrong)
        )
    return Finding(kinds=frozenset(loss.what for loss in losses(events, states=STATES, seed=1)))


def _killed(
    children: Children, home: Path, mutant: str | None, store: ObjectServer | None = None
) -> Finding:
    """Kill where the mutant shows, and let the next run end; the package itself where any does."""
    if mutant is None:
        known = POINTS if store is None else BUCKET_POINTS
        points = tuple(p for other in MUTANTS.values() for p in other.points if p in known)
    else:
        points = MUTANTS[mutant].points
    result = play(
        children,
        home,
        seed=7,
        images=60,
        kills=len(points),
        mutant=mutant,
        store=store,
        ends=(Plan(point=point, passes=2) for point in points),
    )
    kinds = frozenset(violation.kind for violation in result.violations)
    return Finding(kinds=kinds, kills=result.kills.total())


def cut_checkpoint(children: Children, home: Path) -> Result:
    """Kill while a checkpoint extends the journal's file, and resume."""
    ends = iter([Plan(point=MID_CHECKPOINT)])
    return play(children, home, seed=11, images=60, kills=1, ends=ends)
