"""The long form: 1,000 kills over 20 seeds, 200 runs with signals, 12,000 power cuts, as a table.

`make crash`, or `PYTHONPATH=tests python -m crash --kills 1000 --seeds 20`. The table goes to
docs/crash-results.md; the exit code is 1 if a promise was broken. With `--settling` only runs that
look into the account are killed, with `--bucket` only runs into a bucket, with `--cluster` only
runs on a Ray cluster; the page gets their part.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from support.object_servers import seaweedfs

from .children import Children
from .cluster_kills import play_cluster
from .cluster_nodes import nodes
from .crashfs import Loss, losses
from .evidence import recorded
from .harness import Result, play, play_settling
from .interrupts import Interrupted, interrupted
from .report import ACCOUNT, BUCKET, CLUSTER, Part, page, parts_of, with_part
from .trials import CAUGHT, Finding, cut_checkpoint, tried

DOCS = Path(__file__).resolve().parents[2] / "docs" / "crash-results.md"

#: runs side by side
_PLAYERS = 2
#: per seed: more images than that many kills leave time for
_IMAGES, _KILLS = 400, 60
#: the same on a cluster
_CLUSTER_IMAGES, _CLUSTER_KILLS = 400, 12
#: recorded runs, and power cuts in each
_RECORDINGS, _STATES = 4, 3_000
#: runs interrupted by signals: in total, and per seed
_INTERRUPTED, _OF_SEED = 200, 25


def main() -> int:
    """Run everything, write the page, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help="keep folders, logs and charges here")
    parser.add_argument(
        "--settling",
        action="store_true",
        help="only runs with 5 %% lost replies that look into the account; replaces their part",
    )
    parser.add_argument("--to", type=Path, default=DOCS)
    parser.add_argument(
        "--bucket",
        action="store_true",
        help="only runs whose images and record are in a bucket; replaces their part of the page",
    )
    parser.add_argument(
        "--cluster",
        action="store_true",
        help="only runs on a Ray cluster; replaces their part of the page",
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = asked.home or Path(scratch)
        if asked.bucket:
            return _into_bucket(home, asked)
        if asked.cluster:
            return _on_cluster(home, asked)
        if asked.settling:
            return _written(asked, ACCOUNT, _played(home, asked, play_settling))
        result = _played(home, asked)
        signals = _interrupted(home)
        cut = _cut(home)
        trials = _tried(home)
        with Children() as children:
            checkpoint = cut_checkpoint(children, home / "checkpoint")
    command = f"make crash ARGS='--kills {asked.kills} --seeds {asked.seeds}'"
    states = _RECORDINGS * _STATES
    text = page(command, result, signals, checkpoint, cut, states, trials)
    asked.to.write_text(text + parts_of(_old(asked.to)))
    is_caught = all(found.kinds for found in trials.values())
    broken = result.violations or signals.violations or checkpoint.violations or cut
    return int(bool(broken) or not is_caught)


def _old(page: Path) -> str:
    return page.read_text() if page.exists() else ""


def _into_bucket(home: Path, asked: argparse.Namespace) -> int:
    """Kill runs into a bucket, write their part of the page, and return the exit code."""
    home.mkdir(parents=True, exist_ok=True)
    with seaweedfs(home) as store:
        result = _played(home, asked, partial(play, store=store))
    return _written(asked, BUCKET, result)


def _on_cluster(home: Path, asked: argparse.Namespace) -> int:
    """Kill runs on a cluster, one after another, write their part of the page after each, and
    return the exit code."""
    results: list[Result] = []
    code = 0
    with nodes() as cluster, Children() as children:
        for seed in itertools.count(asked.first_seed):
            result = play_cluster(
                children,
                cluster,
                home / f"seed-{seed}",
                seed=seed,
                images=_CLUSTER_IMAGES,
                kills=_CLUSTER_KILLS,
            )
            results.append(result)
            _say(seed, result)
            total = sum(results[1:], start=results[0])
            code = _written(asked, CLUSTER, total)
            if total.kills.total() >= asked.kills and len(results) >= asked.seeds:
                break
    return code


def _written(asked: argparse.Namespace, part: Part, result: Result) -> int:
    """Write a part of the page, and return the exit code."""
    command = f"make crash ARGS='{part.option} --kills {asked.kills} --seeds {asked.seeds}'"
    asked.to.write_text(with_part(_old(asked.to), part, command, result))
    return int(bool(result.violations))


def _played(home: Path, asked: argparse.Namespace, play: Any = play) -> Result:
    """Run one seed after another until there are enough kills and seeds."""
    seeds = itertools.count(asked.first_seed)
    results: list[Result] = []
    lock = threading.Lock()

    def player(_number: int) -> None:
        with Children() as children:
            while seed := _next():
                result = play(
                    children, home / f"seed-{seed}", seed=seed, images=_IMAGES, kills=_KILLS
                )
                with lock:
                    results.append(result)
                    _say(seed, result)

    def _next() -> int | None:
        with lock:
            kills = sum(result.kills.total() for result in results)
            begun = next(seeds) if kills < asked.kills or len(results) < asked.seeds else None
            return begun

    with ThreadPoolExecutor(_PLAYERS) as threads:
        list(threads.map(player, range(_PLAYERS)))
    return sum(results[1:], start=results[0])


def _interrupted(home: Path) -> Interrupted:
    """Interrupt runs of one seed after another, two at a time, until there are enough."""

    def player(seed: int) -> Interrupted:
        with Children() as children:
            found = interrupted(children, home / f"signals-{seed}", seed=seed, runs=_OF_SEED)
        for violation in found.violations[:5]:
            sys.stderr.write(f"  {violation.kind}: {violation.what[-600:]}\n")
        return found

    with ThreadPoolExecutor(_PLAYERS) as threads:
        return sum(threads.map(player, range(_INTERRUPTED // _OF_SEED)), start=Interrupted())


def _cut(home: Path) -> list[Loss]:
    found: list[Loss] = []
    with Children() as children:
        for number in range(_RECORDINGS):
            events = recorded(children, home / f"recorded-{number}", streamed=number % 2 == 1)
            found += losses(events, states=_STATES, seed=number)
    return found


def _tried(home: Path) -> dict[tuple[str, str], Finding]:
    with Children() as children:
        return {
            (mutant, method): tried(method, children, home / f"{mutant} {method}", mutant)
            for mutant, method in CAUGHT
        }


def _say(seed: int, result: Result) -> None:
    sys.stderr.write(
        f"seed {seed}: {result.kills.total()} kills, {result.done} done, "
        f"{result.in_doubt} in doubt, {len(result.violations)} violations\n"
    )
    for violation in result.violations[:5]:
        sys.stderr.write(f"  {violation.kind}: {violation.what[-600:]}\n")


if __name__ == "__main__":
    sys.exit(main())
