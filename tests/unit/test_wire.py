"""One exchange: whatever the transport does, a value comes back, and the key stays inside."""

from __future__ import annotations

import json
from typing import Any

import pytest
import virtual_time

from fluxasync._config import Timeouts
from fluxasync._errors import TransportError
from fluxasync._models import Call, ImageRequest, Job, Ready, Refused, Reply, Secret, Verdict
from fluxasync._protocol import Unclear
from fluxasync._providers import BFL, COMETAPI
from fluxasync._wire import Wire

REQUEST = ImageRequest(prompt="a red fox")
KEY = "sk-canary-4711"


class OneAnswer:
    """A transport with one thing to say."""

    def __init__(self, end: Reply | TransportError) -> None:
        self._end = end
        self.calls: list[Call] = []

    async def send(self, call: Call) -> Reply:
        self.calls.append(call)
        if isinstance(self._end, TransportError):
            raise self._end
        return self._end

    def stream(self, url: str, *, timeout: float) -> Any:
        raise AssertionError("nothing is downloaded here")

    async def aclose(self) -> None:
        pass


def reply(body: Any, status: int = 200) -> Reply:
    return Reply(status=status, headers={}, body=json.dumps(body).encode())


def submitted(end: Reply | TransportError, key: str = KEY) -> Job | Refused:
    wire = Wire(OneAnswer(end), COMETAPI, Secret(key), Timeouts)
    return virtual_time.run(wire.submit(REQUEST, {}, None))


def asked(end: Reply | TransportError, key: str = KEY) -> Any:
    wire = Wire(OneAnswer(end), BFL, Secret(key), Timeouts)
    return virtual_time.run(wire.ask(Job(job_id="a-1")))


def test_an_accepted_submission_is_a_job_with_its_time() -> None:
    """The POST's duration is measured on the loop's clock."""
    job = submitted(reply({"id": "a-1"}))
    assert isinstance(job, Job)
    assert (job.job_id, job.submit_seconds) == ("a-1", 0.0)


@pytest.mark.parametrize(
    ("sent", "verdict"),
    [
        pytest.param(True, Verdict.AMBIGUOUS, id="F36 sent"),
        pytest.param(False, Verdict.NOT_SENT, id="F31 not sent"),
    ],
)
def test_a_submission_without_an_answer_is_judged_by_what_went_out(
    sent: bool, verdict: Verdict
) -> None:
    """F31 F36 The same error is harmless before the bytes left, and worth money after."""
    error = TransportError("cut", sent=sent)
    answer = submitted(error)
    assert isinstance(answer, Refused)
    assert (verdict, error) == (answer.verdict, answer.error)


@pytest.mark.parametrize("sent", [True, False], ids=["F50 sent", "F50 not sent"])
def test_a_poll_without_an_answer_is_unclear(sent: bool) -> None:
    """F50 A poll costs nothing, so its failure is only "ask again"."""
    assert isinstance(asked(TransportError("cut", sent=sent)), Unclear)


def test_an_echoed_key_is_in_no_message() -> None:
    """P22 A gateway that quotes the key in its error does not put it into ours."""
    refused = submitted(reply({"error": {"message": f"bad key {KEY}!"}}, 401))
    assert isinstance(refused, Refused)
    assert "bad key (key)!" in str(refused.error)
    assert KEY not in asked(reply({"detail": f"who is {KEY}"}, 500)).reason


@pytest.mark.parametrize("key", ["e", "id", "ready", "sample"])
def test_a_made_up_key_changes_no_answer(key: str) -> None:
    """A dummy key for a local gateway may be part of any word: answers stay what they are."""
    answer = reply({"id": "a-1", "status": "Ready", "result": {"sample": "https://e.example/id"}})
    assert isinstance(submitted(answer, key), Job)
    ready = asked(answer, key)
    assert isinstance(ready, Ready)
    assert ready.url == "https://e.example/id"
