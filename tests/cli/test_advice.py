"""The next step after an error, as the command says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fluxasync
from fluxasync import (
    Budget,
    ConfigError,
    FluxError,
    Job,
    JobError,
    Limits,
    Polling,
)
from fluxasync._cli.advice import about_failures, next_step, with_advice
from fluxasync._wire.providers import provider_by_name
from fluxasync.webhooks import Webhook

#: errors whose own messages end with what to do
OUTSPOKEN = {
    "FluxError", "ConfigError", "APIError", "CreditError", "Redirected", "JobError", "Moderated",
    "JournalError", "SinkError", "BudgetExceeded",
}  # fmt: skip
JOB = Job(job_id="job-7")


def _every_error() -> Iterator[FluxError]:
    """One of each class that users can import."""
    for name in fluxasync.__all__:
        kind = getattr(fluxasync, name)
        if isinstance(kind, type) and issubclass(kind, FluxError):
            if issubclass(kind, JobError | fluxasync.DownloadError):
                yield kind("so it was", job=JOB)
            elif issubclass(kind, fluxasync.APIError):
                yield kind("so it was", status=400)
            elif issubclass(kind, fluxasync.TransportError):
                yield from (kind("so it was", sent=True), kind("so it was", sent=False))
            else:
                yield kind("so it was")


@pytest.mark.parametrize("error", [*_every_error()], ids=lambda error: type(error).__name__)
def test_every_error_names_the_next_step(error: FluxError) -> None:
    """Each error class has its next step in its own messages or here, never both."""
    assert (type(error).__name__ in OUTSPOKEN) == (next_step(error) == "")
    assert with_advice(error).startswith("so it was")


@pytest.mark.parametrize(
    ("error", "step"),
    [
        pytest.param(fluxasync.AuthenticationError("no", status=401), "--key-file", id="key"),
        pytest.param(fluxasync.TransportError("no", sent=False), "--base-url", id="network"),
        pytest.param(
            fluxasync.TransportError("no", sent=True), "before resubmitting", id="in doubt"
        ),
        pytest.param(fluxasync.DeadlineExceeded("no", job=JOB), "job-7", id="deadline"),
        pytest.param(fluxasync.DownloadError("no", job=JOB), "is free", id="F71 paid already"),
        pytest.param(
            fluxasync.RateLimited("no", status=429, retry_after=7200.0),
            "asks to wait 2 h 00 min: run the same command again after that",
            id="F7 a long wait",
        ),
        pytest.param(
            fluxasync.ServerError("no", status=503, retry_after=40.0), "wait 40 s", id="F10 503"
        ),
        pytest.param(fluxasync.RateLimited("no", status=429), "later", id="no time given"),
    ],
)
def test_the_step_fits_the_error(error: FluxError, step: str) -> None:
    """What a reader needs to act is in the line: the option, the job, the danger."""
    assert step in with_advice(error)


@pytest.mark.parametrize(
    ("failed", "lines"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({"moderated": 2}, ["2 moderated"], id="moderated"),
        pytest.param({"invalid": 1, "rejected": 2}, ["1 wrong", "2 refused"], id="wrong"),
        pytest.param({"dropped": 2}, ["2 dropped: to make them, paid again"], id="dropped"),
        pytest.param({"lost": 1, "moderated": 1}, ["1 moderated", "to try"], id="both"),
        pytest.param(
            {"timeout": 2}, ["2 past the deadline and paid: run the same command again"], id="late"
        ),
        pytest.param(
            {"download": 1, "expired": 2, "failed": 1},
            ["3 paid and not fetched", "to try"],
            id="F71 not fetched",
        ),
    ],
)
def test_failures_are_grouped_by_remedy(failed: dict[str, int], lines: list[str]) -> None:
    """Those that trying again may help, and those that only another prompt or line does."""
    told_lines = list(about_failures(Counter(failed), Path("out")))
    pairs = zip(told_lines, lines, strict=True)
    assert all(line.startswith(start) for line, start in pairs)


def test_no_general_retry_is_advised_for_images_in_quarantine() -> None:
    """Another request's image is in quarantine: --retry failed would leave it as it is."""
    assert list(about_failures(Counter(failed=2), Path("out"), quarantined=2)) == []
    (line,) = about_failures(Counter(failed=3), Path("out"), quarantined=2)
    assert "--retry failed" in line


def _refused(make: Callable[[], object]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        make()
    return caught.value


@pytest.mark.parametrize(
    ("make", "in_python", "at_command_line"),
    [
        pytest.param(
            lambda: Budget(max_cost="abc"),
            "Budget(max_cost='abc'): give an amount",
            "--max-cost abc: give an amount in US dollars, such as 5.00",
            id="an amount",
        ),
        pytest.param(
            lambda: Limits(in_flight=0),
            "Limits(in_flight=0): must be 1",
            "--in-flight 0: must be 1 or more, or 'auto'",
            id="a count of zero",
        ),
        pytest.param(
            lambda: Polling(lag=3.0),
            "Polling(lag=3.0): must be 0.001",
            "--polling-lag 3: must be 0.001 to 0.5: a share of the usual duration (0.04 is 4 %)",
            id="another name at the command line",
        ),
        pytest.param(
            lambda: Webhook(url="https://host.example", listen="8090"),
            "Webhook(listen): not HOST:PORT",
            "--webhook-listen: not HOST:PORT but '8090'; give 127.0.0.1:8090",
            id="a part of a webhook",
        ),
        pytest.param(
            lambda: provider_by_name("bfl").at("foo"),
            "base_url: not an",
            "--base-url: not an http(s) URL; give https://api.example.com/prefix",
            id="a value that is not shown",
        ),
        pytest.param(
            lambda: provider_by_name("bfl").at("http://a.example"),
            "base_url: http would",
            "--base-url: http would send the key unencrypted; use https://a.example",
            id="another fault of it",
        ),
    ],
)
def test_the_command_line_names_the_option_and_python_the_argument(
    make: Callable[[], object], in_python: str, at_command_line: str
) -> None:
    """The same error names what the user wrote."""
    error = _refused(make)
    assert str(error).startswith(in_python)
    assert with_advice(error) == at_command_line


def test_recommended_arguments_are_options_at_the_command_line() -> None:
    """A remedy is shown as the user would write it; other text keeps its words."""
    error = ConfigError("raw=True: use max_cost=2.00, or simulate=True; max_cost.txt stays")
    expected = "raw=True: use --max-cost 2.00, or --simulate; max_cost.txt stays"
    assert with_advice(error) == expected
    both = "none is needed with --simulate, or simulate=True in Python"
    assert with_advice(ConfigError(both)) == both
