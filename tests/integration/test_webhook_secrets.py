"""Neither the webhook's secret nor a token is in anything that a run leaves, but the journal."""

from __future__ import annotations

import logging
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.simulator_sessions import FAST, fast_session, small_requests

from fluxasync import Batch, FluxError, ImageRequest, Outcome, Polling
from fluxasync._core.config import Policies
from fluxasync._core.models import Secret
from fluxasync._wire.client import ApiClient
from fluxasync._wire.providers import COMETAPI
from fluxasync.events import Event
from fluxasync.extend import Call, Reply
from fluxasync.simulator import Scenario, Simulator
from fluxasync.webhooks import Webhook

SECRET = "canary-of-a-webhook-5f1c"
FAULTS = (
    "lost-reply:0.2", "500:0.1", "503:0.1", "poll-500:0.1", "error:0.1", "moderated-content:0.1",
    "truncated:0.1", "hook-repeats:0.3", "hook-forged:0.3", "hook-replay:0.3", "hook-lost:0.1",
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def tokens_of(folder: Path) -> list[str]:
    """The tokens in a folder's journal."""
    with closing(sqlite3.connect(folder / ".fluxasync" / "journal.db")) as journal:
        found = journal.execute("SELECT token FROM image WHERE token IS NOT NULL").fetchall()
    return [token.hex() for (token,) in found]


def left_in(folder: Path) -> str:
    """The content of every file but the journal."""
    files = (path for path in folder.rglob("*") if path.is_file())
    others = (path for path in files if not path.name.startswith("journal.db"))
    return "".join(path.read_bytes().decode("latin-1") for path in others)


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_run_with_faults_shows_neither_secret_nor_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """P22: logs at DEBUG, events, outcomes, errors, reprs and every file but the journal."""
    caplog.set_level(logging.DEBUG)
    port, seen, outcomes = free_port(), list[Event](), list[Outcome]()
    scenario = Scenario(latency=(0, 0.02), faults=FAULTS, image_bytes=1, seed=4)
    hook = Webhook(url=f"http://127.0.0.1:{port}/hook", listen=f"127.0.0.1:{port}", secret=SECRET)
    polling = Polling(interval=0.01, webhook=hook, webhook_wait=1)
    shown = []
    async with Simulator(scenario) as simulator:
        async with fast_session(
            simulator.url, **(FAST | {"polling": polling, "on_event": seen.append})
        ) as flux:
            batch = Batch(flux, small_requests(60), out=tmp_path)
            try:
                async with batch:
                    async for outcome in batch:
                        outcomes.append(outcome)
                        shown += [repr(flux), repr(batch), repr(flux._engine.inbox)]
            except FluxError as error:
                shown.append(repr(error))
            shown.append(repr(flux.receiver))
        assert simulator.world.callback_counts["delivered"] > 20
    shown += [repr(each) for each in (*seen, *outcomes)] + [str(each) for each in outcomes]
    text = "\n".join([caplog.text, *shown]) + left_in(tmp_path)
    tokens = tokens_of(tmp_path)
    assert len(tokens) > 20
    assert [each for each in (SECRET, *tokens) if each in text] == []


class Echo:
    """Answers with what was sent, in JSON with escaped slashes, as a careless gateway may."""

    def __init__(self, *, status: int) -> None:
        self._status = status

    async def send(self, call: Call) -> Reply:
        body = (call.body or b"").replace(b"/", b"\\/")
        answer = b'{"detail": "cannot use ' + body.replace(b'"', b"'") + b'"}'
        return Reply(status=self._status, headers={}, body=answer)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [200, 400, 422, 500])
async def test_an_answer_that_repeats_the_webhook_shows_neither(status: int) -> None:
    """P22: the message and the evidence that the journal and the lists keep."""
    token = "0123456789abcdef" * 2
    hook = Webhook(url="https://app.example/hook/flux", secret=SECRET)
    client = ApiClient(
        Echo(status=status),  # type: ignore[arg-type]
        COMETAPI,
        Secret("k" * 20),
        Policies(polling=Polling(webhook=hook)),
    )
    fields = {"webhook_url": hook.address(token), "webhook_secret": SECRET}
    answer = await client.submit(ImageRequest(prompt="a fox"), {}, None, webhook=fields)
    text = repr(answer) + repr(vars(answer.error))  # type: ignore[union-attr]
    assert "cannot use" in text
    assert token not in text
    assert SECRET not in text
