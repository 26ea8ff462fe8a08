"""`ctl DIR top` in a terminal: a run's slots, pace, money and jobs, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from attrs import frozen

from .._core.amounts import dollars
from .._core.text import columns as width_of
from .._core.text import display

_BETWEEN = " · "
_BOLD, _YELLOW, _DIM, _PLAIN = "\x1b[1m", "\x1b[33m", "\x1b[2m", "\x1b[0m"
#: columns of a job's id, model, seconds and state
_ID, _MODEL, _SECONDS, _STATE = 10, 20, 7, 11


@frozen
class TopView:
    """The state of a run, drawn for so many columns and rows."""

    top: Mapping[str, Any]

    def __call__(self, columns: int, rows: int) -> list[str]:
        head = [*self._head(columns)]
        jobs = self.top["jobs"]
        room = max(0, rows - len(head) - 2)
        shown = jobs if len(jobs) <= room else jobs[: max(0, room - 1)]
        lines = [*head]
        if jobs and room > 1:
            title = f"{'job':{_ID}} {'model':{_MODEL}} {'s':>{_SECONDS}} {'state':{_STATE}} prompt"
            lines += ["", f"{_DIM}{display(title, columns)}{_PLAIN}"]
            lines += [display(_job(job), columns) for job in shown]
            if more := len(jobs) - len(shown) + self.top["more_jobs"]:
                lines.append(f"{_DIM}{display(f'and {more:,} more', columns)}{_PLAIN}")
        return lines[: max(1, rows)]

    def _head(self, columns: int) -> Iterator[str]:
        rows = {
            "images": _images(self.top["images"]),
            "slots": _slots(self.top["slots"]),
            "pace": _pace(self.top["pace"]),
            "spend": _spend(self.top["spend"]),
        }
        for account in self.top["accounts"]:
            rows[account["name"]] = _account(account)
        if self.top["state"] == "paused":
            yield f"{_YELLOW}{display('paused: fluxasync ctl DIR resume goes on', columns)}{_PLAIN}"
        for text in filter(None, (self.top["waits_for"], self.top["trouble"])):
            yield f"{_YELLOW}{display(text, columns)}{_PLAIN}"
        names = {name: display(name, columns // 3) for name in rows}
        column = max(map(width_of, names.values()))
        for name, parts in rows.items():
            padding = " " * (column - width_of(names[name]) + 2)
            text = display(_BETWEEN.join(filter(None, parts)), columns - column - 2)
            yield f"{_BOLD}{names[name]}{_PLAIN}{padding}{text}"


def _images(images: Mapping[str, Any]) -> Iterator[str]:
    total = images["total"]
    yield f"{images['saved']:,}{'' if total is None else f'/{total:,}'} saved"
    yield _counted(images["already_there"], "already there")
    if failed := images["failed"]:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in failed.items())
        yield f"{sum(failed.values()):,} failed: {causes}"
    yield _counted(images["in_doubt"], "in doubt")
    yield _counted(images["running"], "running")
    yield _counted(images["downloading"], "downloading")
    yield _counted(images["waiting"], "waiting")


def _slots(slots: Mapping[str, Any]) -> Iterator[str]:
    limit = "" if slots["limit"] is None else f" of {slots['limit']:,}"
    yield f"{slots['used']:,}{limit} in use"
    yield _counted(slots["waiting"], "in the queue")
    yield _counted(slots["workers"], "workers")


def _pace(pace: Mapping[str, Any]) -> Iterator[str]:
    rate = pace["images_per_minute"]
    yield "not known yet" if rate is None else f"{rate:,.1f} images/min"
    yield "" if pace["eta"] is None else f"ETA {pace['eta']}"
    yield _counted(pace["push_backs"], "× 429")


def _spend(spend: Mapping[str, Any]) -> Iterator[str]:
    if spend["images"] is None:
        yield f"simulated: nothing is charged, {_dollars(spend['spent'])} at list price"
    else:
        yield f"{_dollars(spend['spent'])} spent"
    for name, words in (("reserved", "reserved"), ("in_doubt", "in doubt")):
        yield f"{_dollars(spend[name])} {words}" if spend[name] else ""
    if spend["cap"] is not None:
        yield f"{_dollars(spend['left'])} of {_dollars(spend['cap'])} left"


def _account(account: Mapping[str, Any]) -> Iterator[str]:
    yield f"{account['used']:,} of {account['limit']:,} slots"
    cap = "" if account["cap"] is None else f" of {_dollars(account['cap'])}"
    yield f"{_dollars(account['spent'])}{cap}"
    yield "waits" if account["waits"] else ""


def _job(job: Mapping[str, Any]) -> str:
    model, seconds = display(job["model"] or "", _MODEL), f"{job['seconds']:.1f}"
    job_id = display(job["job_id"], _ID)
    return (
        f"{job_id:{_ID}} {model:{_MODEL}} {seconds:>{_SECONDS}} {job['state']:{_STATE}} "
        f"{job['prompt']}"
    )


def _counted(count: int | None, words: str) -> str:
    return f"{count:,} {words}" if count else ""


def _dollars(amount: float) -> str:
    return dollars(Decimal(str(amount)))
