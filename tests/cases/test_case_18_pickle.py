"""Case 18: errors, outcomes, values and events come through pickle, copy and processes whole.

Reported of exceptions with keyword arguments of their own, which break a process pool
(googleapis/python-genai#572, lancedb/lancedb#3447, python/cpython#80041). Other members of the
kind: exceptions with several arguments (rackspace/runway#2405, rustedpy/result#200), and causes of
other libraries that cannot be pickled themselves.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import typing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import Any

import attrs
import pytest

import fluxasync
from fluxasync import (
    BadRow,
    Batch,
    Budget,
    ConfigError,
    Estimate,
    Failed,
    FluxError,
    FluxSession,
    ImageInput,
    ImageRequest,
    InDoubt,
    Job,
    JobFailed,
    JournalCounts,
    Limits,
    Moderated,
    Pending,
    Plan,
    Polling,
    Prompts,
    Ready,
    Retry,
    Saved,
    Summary,
    Timeouts,
    TransportError,
    events,
    models,
)
from fluxasync.extend import Call, Refused, Reply, Secret, Stored, Verdict

REQUEST = ImageRequest(
    prompt="a kite", seed=2**64 - 1, image_prompt=ImageInput.of(b"x"), extras={"note": [1, None]}
)
AT = datetime(2026, 1, 2, tzinfo=UTC)
JOB = Job(
    job_id="j", request=REQUEST, price=Decimal("0.025"), polling_url="https://x.invalid/p",
    submitted_at=AT,
)  # fmt: skip
READY = Ready(job=JOB, url="https://x.invalid/i", deadline=12.5, seed=7)
STORED = Stored(path=Path("a.jpg"), size=3, sha256="ab", format="jpeg", width=1, height=2)
SAVED = Saved(
    request=REQUEST, job=JOB, stored=STORED, timings={"submit": 0.5}, cost=Decimal("0.03")
)

#: values of the arguments of errors, by name; an argument without one fails the test
ARGUMENTS: dict[str, Any] = {
    "message": "what is wrong", "sent": True, "permanent": True, "local": True,
    "evidence": "candidate job id: j\nbody", "status": 403, "retry_after": 12.5, "of_key": False,
    "of_token": False,
    "job": JOB, "reasons": ("Safety Filter",), "ready": READY,
}  # fmt: skip


#: modules that need an extra which is large; they have no error of their own
_NEED_RAY = ("cluster.actors", "cluster.datasets")


def _modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(fluxasync.__path__, "fluxasync."):
        if not found.name.endswith(("__main__", "thumbnail_worker", *_NEED_RAY)):
            yield found.name


def _errors(root: type[FluxError] = FluxError) -> Iterator[type[FluxError]]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__.startswith("fluxasync."):
            yield from _errors(kind)


for _module in _modules():
    importlib.import_module(_module)
KINDS = sorted(set(_errors()), key=lambda kind: kind.__name__)


def sample(kind: type[FluxError]) -> FluxError:
    """Return an error with a value for every argument, a cause, a note and its traceback."""
    parameters = ["self", "message"]  # of an exception without an __init__ of its own
    if inspect.isfunction(kind.__init__):
        parameters = [*inspect.signature(kind.__init__).parameters]
    named = {name: ARGUMENTS[name] for name in parameters[1:]}
    error = kind(*([named.pop("message")] if "message" in named else []), **named)
    error.add_note("a note")
    try:
        raise error from OSError(28, "No space left on device", "a.jpg")
    except FluxError:
        return error


def described(value: Any) -> Any:
    """Return a value without identities: errors by class, text and attributes."""
    if isinstance(value, BaseException):
        own = {name: described(item) for name, item in sorted(value.__dict__.items())}
        rest = (str(value), described(value.__cause__), value.__suppress_context__)
        return (type(value), described(value.args), own, *rest)
    if attrs.has(type(value)):
        names = [each.name for each in attrs.fields(type(value))]
        return (type(value), {name: described(getattr(value, name)) for name in names})
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    return repr(value) if type(value).__eq__ is object.__eq__ else value


def loaded(packed: bytes) -> Any:
    return pickle.loads(packed)  # noqa: S301 — what this file has dumped


PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": lambda value, n=n: loaded(pickle.dumps(value, n)) for n in PROTOCOLS},
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@every_way
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_with_all_it_says(kind: type[FluxError], way: Callable[[Any], Any]):
    """Case 18: class, text, attributes, notes and cause of every class of the tree."""
    error = sample(kind)
    found = way(error)
    assert found is not error
    assert described(found) == described(error)
    assert "a note" in found.__notes__


@every_way
def test_errors_survive_in_a_group(way: Callable[[Any], Any]):
    """A TaskGroup raises an ExceptionGroup of them."""
    group = ExceptionGroup("two", [sample(Moderated), ExceptionGroup("in", [sample(JobFailed)])])
    assert described(way(group).exceptions[0]) == described(group.exceptions[0])
    assert described(way(group).exceptions[1].exceptions) == described(
        typing.cast(Any, group.exceptions[1]).exceptions
    )


def _failed(error: FluxError) -> Failed:
    return Failed(request=REQUEST, error=error, index=3, where="list line 2", job=JOB)


LOST = TransportError("no answer in time", sent=True)
VALUES: list[Any] = [
    REQUEST, JOB, Pending(job=JOB, status="Pending"), READY, STORED, SAVED,
    _failed(sample(Moderated)), InDoubt(request=REQUEST, error=LOST, price=Decimal("0.025")),
    Refused(verdict=Verdict.AMBIGUOUS, error=LOST), Summary(saved=3), Plan(images=3),
    BadRow(where="list line 2", error=ConfigError("a bad row")),
    Estimate(images=1, cost=Decimal(1), seconds=2.0, unpriced=0, in_flight=24),
    JournalCounts(), Prompts("list.csv", n=2),
    Limits(in_flight="auto"), Retry(), Polling(), Timeouts(), Budget.of("1.00"),
    fluxasync.BFL, fluxasync.COMETAPI, Secret("s3cret"), ImageInput.of("a.png"),
    Call(method="GET", url="https://x.invalid", headers={}, timeout=1.0),
    Reply(status=200, headers={}, body=b"{}"),
    events.JobSubmitted(job=JOB, in_flight=1), events.SubmitFailed(request=REQUEST, error=LOST),
    events.JobReady(job=JOB, polls=1, in_flight=0), events.JobEnded(job=JOB, saved=SAVED),
    events.JobEnded(job=JOB, error=sample(JobFailed)), events.JobUnclaimed(job=JOB),
    events.JobAdopted(job=JOB),
    events.DoubtsSought(count=2, until=AT),
    events.RowsChecked(count=2),
    events.WorkersReported(workers=2, in_flight=3, paid=4),
    events.Paused(seconds=1.0, reason="429", status=429, until=AT),
    events.DownloadsFailing(count=2, reason="HTML, not an image", until=AT),
    events.StoreOutage(url="s3://bucket/run", since=AT),
    events.Resumed(), events.LimitChanged(group="account", limit=6),
    events.LoopLagged(seconds=1.0), events.ClockJumped(seconds=9.0),
    events.DiskLagged(seconds=6.0), events.Settled(outcome=SAVED), events.EventsDropped(count=2),
]  # fmt: skip


@every_way
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_survives(value: Any, way: Callable[[Any], Any]):
    """Case 18: each value that travels comes back equal, also with an error inside."""
    if isinstance(value, Secret):
        assert isinstance(way(value), Secret)
        return
    assert described(way(value)) == described(value)


def test_every_event_is_among_the_values():
    """A new event is added to the values of this file too."""
    tried = {type(value).__name__ for value in VALUES}
    assert {name for name in vars(events) if name[0].isupper() and name != "Event"} <= tried


@every_way
def test_the_catalogue_survives(way: Callable[[Any], Any]):
    """A model is data: its parameters and its price come back."""
    for model in models():
        found = way(model)
        assert (found.name, found.price) == (model.name, model.price)
        assert found.parameters == model.parameters


# --- causes, secrets, sessions -------------------------------------------------------------------


class Awkward(Exception):
    """An exception of another library: it pickles, and cannot be unpickled."""

    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(one)
        self.two = two


class Holding(Exception):
    """An exception of another library that holds what cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = Lock()


@every_way
@pytest.mark.parametrize("cause", [Awkward(1, two=2), Holding("x" * 500)], ids=["loads", "dumps"])
def test_a_cause_that_cannot_travel_is_kept_as_text(cause: Exception, way: Callable[[Any], Any]):
    """The error itself must arrive; of such a cause its class and the start of its text remain."""
    error = sample(Moderated)
    error.__cause__ = cause
    found = way(error)
    assert type(cause).__name__ in str(found.__cause__)
    assert len(str(found.__cause__)) < 200
    assert found.reasons == ("Safety Filter",)


def test_errors_that_cause_each_other_survive():
    """A cycle of causes ends."""
    one, two = FluxError("one"), FluxError("two")
    one.__cause__, two.__cause__ = two, one
    found = loaded(pickle.dumps(one))
    assert str(found.__cause__) == "two"
    assert found.__cause__.__cause__ is found


class OwnError(TransportError):
    """A user's subclass with an argument of its own."""

    def __init__(self, message: str, *, shard: int) -> None:
        super().__init__(message, sent=False)
        self.shard = shard


@every_way
def test_a_subclass_of_a_user_survives(way: Callable[[Any], Any]):
    """One way for the whole tree, so no subclass needs its own."""
    found = way(OwnError("no answer", shard=3))
    assert (type(found), found.shard, found.sent) == (OwnError, 3, False)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_pickle_holds_a_secret(protocol: int):
    """P22: an outcome whose request has a webhook secret travels without the secret, and such a
    request is refused before it is sent."""
    request = attrs.evolve(REQUEST, webhook_secret="s3cret", webhook_url="https://x.invalid/h")
    packed = pickle.dumps(Failed(request=request, error=LOST), protocol)
    assert b"s3cret" not in packed
    (found,) = [loaded(packed).request]
    assert found.key == request.key
    assert copy.deepcopy(request).webhook_secret.reveal() == "s3cret"
    with pytest.raises(ConfigError, match="give it again"):
        found.webhook_secret.reveal()


@pytest.mark.asyncio
async def test_a_request_that_lost_its_secret_is_not_sent():
    """A webhook without its secret would be answered unsigned: the caller is asked for it."""
    request = attrs.evolve(REQUEST, image_prompt=None, webhook_secret="s3cret")
    async with FluxSession(base_url="http://127.0.0.1:9") as flux:
        with pytest.raises(ConfigError, match="give it again"):
            await flux.submit(loaded(pickle.dumps(request)))


@every_way
def test_a_session_is_not_pickled(way: Callable[[Any], Any]):
    """P22: it holds the key and connections; the error says what to do instead."""
    flux = FluxSession(api_key="s3cret-key")
    for held in (flux, Batch(flux, ["a kite"])):
        with pytest.raises(TypeError, match="in each process"):
            way(held)


# --- processes -----------------------------------------------------------------------------------


def _work(name: str) -> Any:
    error = sample(next(kind for kind in KINDS if kind.__name__ == name))
    if name == "Moderated":
        raise error
    return [_failed(error)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_errors_and_outcomes_come_out_of_a_process_pool(method: str):
    """Case 18: a worker raises an error, or returns outcomes; the pool stays whole."""
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        with pytest.raises(Moderated) as caught:
            pool.submit(_work, "Moderated").result()
        assert (caught.value.job, caught.value.reasons) == (JOB, ("Safety Filter",))
        for kind in KINDS:
            if kind is not Moderated:
                (failed,) = pool.submit(_work, kind.__name__).result()
                assert described(failed) == described(_failed(sample(kind)))
