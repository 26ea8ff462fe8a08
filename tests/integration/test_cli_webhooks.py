"""A run of the command with a webhook, against a simulator that calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from integration.test_cli import FAST, SimulatorCommand
from integration.test_webhook_secrets import free_port, tokens_of

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._cli.app import main

SECRET = "canary-of-a-command-77ab"


def test_a_run_receives_callbacks_with_the_secret_of_a_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P22: it says that the webhook is on; neither secret nor token is printed."""
    monkeypatch.setenv("FLUXASYNC_WEBHOOK_SECRET", "not-this-one")
    (tmp_path / "prompts.txt").write_text("a fox\na pond\na red house\n")
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    listen = f"127.0.0.1:{free_port()}"
    simulator = SimulatorCommand("--latency", "0.2..0.3", "--webhooks", "hmac")
    code = main(
        [
            "run", str(tmp_path / "prompts.txt"), "-o", str(tmp_path / "out"), *FAST,
            "--base-url", simulator.url,
            "--webhook-url", f"http://{listen}/flux", "--webhook-listen", listen,
            "--webhook-secret-file", str(tmp_path / "secret"), "--webhook-signature", "hmac",
        ]
    )  # fmt: skip
    ledger = simulator.ledger()
    simulator.end()
    out, err = capfd.readouterr()
    assert code == 0, err
    assert ledger["callbacks"]["delivered"] == 3
    assert f"webhook on: called at http://{listen}/flux, received at {listen}" in err
    assert len(out.splitlines()) == 3
    for hidden in (SECRET, "not-this-one", *tokens_of(tmp_path / "out")):
        assert hidden not in out + err
        assert hidden not in json.dumps(ledger)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--webhook-url", "https://host.example/flux"], "needs --webhook-url"),
        (["--webhook-listen", "127.0.0.1:8090"], "needs --webhook-url"),
        (["--webhook-wait", "3"], "needs --webhook-url"),
        (
            ["--webhook-url", "http://host.example/x", "--webhook-listen", "127.0.0.1:8090"],
            "--webhook-url: http would show the tokens",
        ),
        (
            [
                *("--webhook-url", "https://host.example/x", "--webhook-listen", "127.0.0.1:8090"),
                *("--webhook-signature", "hmac"),
            ],
            "--webhook-signature hmac: needs a secret; give --webhook-secret-file or FLUXASYNC_",
        ),
        (
            ["--webhook-url", "https://host.example/x", "--webhook-listen", "8090"],
            "--webhook-listen: not HOST:PORT",
        ),
    ],
)
def test_unusable_options_are_refused_before_anything_is_sent(
    given: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with the option's name."""
    (tmp_path / "prompts.txt").write_text("a fox\n")
    list_and_folder = [str(tmp_path / "prompts.txt"), "-o", str(tmp_path / "out")]
    assert main(["run", *list_and_folder, "--base-url", "http://127.0.0.1:9", *given]) == 2
    assert said in capfd.readouterr().err
