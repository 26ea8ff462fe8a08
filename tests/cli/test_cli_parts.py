"""The command's own small decisions: exit codes, the key file, `--param` values."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, field, frozen

from fluxasync import (
    AuthenticationError,
    BudgetExceeded,
    ConfigError,
    CreditError,
    DownloadError,
    FluxError,
    ImageRequest,
    InvalidRequest,
    Job,
    JournalError,
    Moderated,
    RateLimited,
    Redirected,
    ServerError,
    SinkError,
    TransportError,
)

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync import Estimator, JournalCounts, Plan, Summary
from fluxasync._batch.summary import with_unclaimed
from fluxasync._cli.exit_codes import PRECEDENCE, exit_code
from fluxasync._cli.key_files import read_key
from fluxasync._cli.options import Options
from fluxasync._cli.rendering import announcement, closing
from fluxasync._core.models import NOT_LISTED
from fluxasync._store.journal.journal import Locked
from fluxasync._store.output_root import OutputRoot

JOB = Job(job_id="j")


@frozen(kw_only=True)
class Counts:
    failed: Counter[str] = field(factory=Counter)
    in_doubt: int = 0


CLEAN = Counts()
SOME_FAILED = Counts(failed=Counter(moderated=2))
SOME_IN_DOUBT = Counts(failed=Counter(lost=1), in_doubt=1)


@pytest.mark.parametrize(
    ("expected", "counts", "error", "signal"),
    [
        pytest.param(0, CLEAN, None, None, id="P30 all done"),
        pytest.param(0, None, None, None, id="P30 one image done"),
        pytest.param(1, CLEAN, KeyError("bug"), None, id="P30 unexpected"),
        pytest.param(2, CLEAN, ConfigError("no such file"), None, id="P30 usage"),
        pytest.param(2, CLEAN, Redirected("www", status=301), None, id="P30 redirected"),
        pytest.param(3, SOME_FAILED, None, None, id="P30 some failed"),
        pytest.param(3, None, Moderated("no", job=JOB), None, id="P30 one moderated"),
        pytest.param(3, None, DownloadError("short", job=JOB), None, id="P30 one not downloaded"),
        pytest.param(3, None, InvalidRequest("no", status=422), None, id="P30 one rejected"),
        pytest.param(4, SOME_IN_DOUBT, None, None, id="P30 in doubt before failed"),
        pytest.param(4, None, TransportError("cut", sent=True), None, id="P30 one in doubt"),
        pytest.param(5, SOME_IN_DOUBT, BudgetExceeded("$1"), None, id="P30 budget before doubt"),
        pytest.param(6, SOME_IN_DOUBT, AuthenticationError("key", status=401), None, id="P30 key"),
        pytest.param(6, CLEAN, CreditError("empty", status=402), 2, id="P30 credit before Ctrl-C"),
        pytest.param(7, SOME_FAILED, SinkError("full"), 15, id="P30 disk before TERM"),
        pytest.param(7, CLEAN, JournalError("gone"), None, id="P30 journal"),
        pytest.param(8, None, Locked("in use"), None, id="P30 F118 locked"),
        pytest.param(8, SOME_IN_DOUBT, Locked("in use"), 2, id="P30 locked before Ctrl-C"),
        pytest.param(9, SOME_IN_DOUBT, TransportError("no DNS", sent=False), None, id="P30 outage"),
        pytest.param(9, None, TransportError("no DNS", sent=False), None, id="P30 outage, one"),
        pytest.param(9, SOME_FAILED, RateLimited("429", status=429), None, id="P30 pushed back"),
        pytest.param(9, CLEAN, ServerError("503", status=503), None, id="P30 server down"),
        pytest.param(130, SOME_IN_DOUBT, None, 2, id="P30 Ctrl-C"),
        pytest.param(143, CLEAN, BudgetExceeded("$1"), 15, id="P30 TERM before budget"),
        pytest.param(129, CLEAN, TransportError("cut", sent=False), 1, id="P30 HUP before outage"),
    ],
)
def test_exit_codes_are_a_contract(
    expected: int, counts: Counts | None, error: BaseException | None, signal: int | None
) -> None:
    """Scripts can rely on the meaning of a code, and on which one wins if several apply."""
    assert expected == exit_code(counts, error, signal)


def test_the_most_urgent_exit_code_is_returned() -> None:
    """P30: 7 > 8 > 6 > 130/143/129 > 9 > 5 > 4 > 3 > 0, as the contract has it."""
    ours = [code for code in PRECEDENCE if code not in (1, 2)]
    assert ours == [7, 8, 6, 130, 143, 129, 9, 5, 4, 3, 0]


def test_every_library_error_has_its_own_exit_code() -> None:
    """No error that we raise on purpose ends as "unexpected"."""
    plain = [kind for kind in FluxError.__subclasses__() if kind.__init__ is FluxError.__init__]
    assert 1 not in {exit_code(CLEAN, kind("x"), None) for kind in plain}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("seed=7", {"seed": 7}, id="number"),
        pytest.param("raw=true", {"raw": True}, id="boolean"),
        pytest.param("aspect_ratio=16:9", {"aspect_ratio": "16:9"}, id="text that is not JSON"),
        pytest.param('output_format="png"', {"output_format": "png"}, id="quoted text"),
        pytest.param("webhook_url=http://a/?b=c", {"webhook_url": "http://a/?b=c"}, id="second ="),
        pytest.param("extra_body={}", {"extra_body": {}}, id="object"),
        pytest.param("input_image=${HOME}", {"input_image": "${HOME}"}, id="T20 stays literal"),
        pytest.param("raw=" + "[" * 5000, {"raw": "[" * 5000}, id="nesting without end"),
    ],
)
def test_param_is_json_if_it_parses_else_text(text: str, expected: dict[str, Any]) -> None:
    """Numbers are numbers without quoting, and text needs none either."""
    assert expected == Options(param=(text,)).parameters


@pytest.mark.parametrize(
    "text", ["seed", "=7", "prompt=a fox", "model=flux-dev", "name=x", "sede=7", "colour=red"]
)
def test_an_unknown_param_is_refused(text: str) -> None:
    """A mistake is reported with the name as typed, before anything is spent."""
    with pytest.raises(ConfigError, match=f"--param {text.partition('=')[0]}"):
        _ = Options(param=(text,)).parameters


def test_key_file_gives_its_first_line(tmp_path: Path) -> None:
    """A key file may end in a line break, have Windows line ends or notes below the key."""
    path = tmp_path / "key"
    path.write_bytes(b"\xef\xbb\xbf sk-made-up \r\nmy work account\n")
    path.chmod(0o600)
    assert read_key(path) == ("sk-made-up", None)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        pytest.param(0o600, None, id="its owner's alone"),
        pytest.param(0o400, None, id="not even to be changed"),
        pytest.param(0o640, "read by every user of its group", id="group reads"),
        pytest.param(0o660, "changed by every user of its group", id="group writes"),
        pytest.param(0o644, "read by every user of this machine", id="all read"),
        pytest.param(0o602, "changed by every user of this machine", id="all write"),
        pytest.param(0o666, "changed by every user of this machine", id="all read and write"),
    ],
)
def test_a_key_file_open_to_others_gives_a_warning(
    tmp_path: Path, mode: int, expected: str | None
) -> None:
    """A user who can change the file can redirect payments, and see the images."""
    path = tmp_path / "key"
    path.write_text("sk-made-up\n")
    path.chmod(mode)
    said = None if expected is None else f"{path} can be {expected}; chmod 600 {path}"
    assert read_key(path) == ("sk-made-up", said)


def test_key_file_that_all_can_read_is_named(tmp_path: Path) -> None:
    """Another user of the machine could spend with it: the warning says what to type."""
    path = tmp_path / "key"
    path.write_text("sk-made-up\n")
    path.chmod(0o644)
    _, warning = read_key(path)
    assert f"{path} can be read by every user of this machine; chmod 600 {path}" == warning


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\nsk-made-up\n", id="empty first line"),
        pytest.param(b"sk-\xff\xfe\n", id="not text"),
        pytest.param(b"sk-made-up" * 1000, id="a long file"),
    ],
)
def test_key_file_without_a_key_is_refused_unseen(tmp_path: Path, content: bytes | None) -> None:
    """The message names the file and shows none of its content."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="--key-file") as caught:
        read_key(path)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "file is empty"), ("\nx", "line is empty"), ("x" * 5000, "not an access token")],
)
def test_a_token_file_is_not_called_a_key_file(tmp_path: Path, content: str, said: str) -> None:
    """The message names the option, and says what is wrong with the file."""
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"--access-token-file .*{said}"):
        read_key(path, option="--access-token-file")


# --- what is done again ---------------------------------------------------------------------------


def estimator(*models: str) -> Estimator:
    adds = Estimator()
    for model in models:
        adds.add(ImageRequest(prompt="fox", model=model))
    return adds


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        pytest.param(
            Plan(images=3, rows=3, again=estimator("flux-dev", "flux-dev", "odd")),
            "to make again: 3 (at most $0.05 and 1 of unknown price; what the provider still has "
            "is collected for free unless it was discarded)",
            id="to pay for",
        ),
        pytest.param(
            Plan(images=1, rows=1, known={"to-collect": 1}),
            "to make again: 1 already paid, to collect",
            id="free",
        ),
        pytest.param(
            Plan(images=1, rows=1, known={"failed": 1}),
            "no image has an outcome that --retry names: none is made again",
            id="none of these",
        ),
        pytest.param(
            Plan(images=None),
            "images with an outcome that --retry names are made again when their prompts arrive",
            id="a stream",
        ),
    ],
)  # fmt: skip
def test_images_to_make_again_are_announced_first(plan: Plan, said: str) -> None:
    """By number and price, of the images that these prompts have; without --retry nothing of it."""
    assert said == next(announcement(plan, None, retries={"failed"}, simulated=False))
    assert said not in announcement(plan, None, simulated=False)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        pytest.param({"discarded"}, "; paid again)", id="no poll"),
        pytest.param({"dropped", "rejected"}, "; paid again)", id="no job"),
        pytest.param({"lost"}, "; what the provider still has is collected for free)", id="polled"),
        pytest.param(
            {"lost", "discarded"},
            "; what the provider still has is collected for free unless it was discarded)",
            id="both",
        ),
    ],
)
def test_only_what_is_polled_is_announced_as_perhaps_free(classes: set[str], said: str) -> None:
    """Images without a job, and discarded ones, are bought directly."""
    plan = Plan(images=1, rows=1, again=estimator("flux-dev"))
    assert next(announcement(plan, None, retries=classes, simulated=False)).endswith(said)


def test_what_is_not_listed_is_named_without_others_in_doubt() -> None:
    """P3: a run that was to submit them again counts none as in doubt: "of them" has no "them"."""
    summary = Summary(not_listed=4)
    lines = [*closing(summary, OutputRoot(Path("out")))]
    assert lines[0].startswith("4 in doubt and not listed: ")
    assert "0 failed, 4 in doubt and not listed, " in lines[-1]
    assert ", 5 in doubt, 4 of them not listed, " in evolve(summary, in_doubt=5).line()


def test_money_of_earlier_attempts_is_not_called_in_doubt() -> None:
    """The count of images in doubt is 0 while they are submitted again; their price counts on."""
    counts = JournalCounts(done=1, in_doubt_price=Decimal("0.10"))
    assert "0 in doubt ($0.10 of earlier attempts)" in str(counts)
    assert "4 in doubt ($0.10)" in str(evolve(counts, in_doubt=4))


def test_resubmitting_what_is_not_listed_is_not_called_a_retry() -> None:
    """--resubmit-unlisted where nothing is known as not listed yet: why, and when it may be."""
    plans = Plan(images=1, rows=1, known={"in-doubt": 1}), Plan(images=None)
    none, stream = (
        next(announcement(plan, None, retries={NOT_LISTED}, simulated=False)) for plan in plans
    )
    assert "no image in doubt is known as not listed" in none
    assert "ten minutes after" in none
    assert stream == "images that are not listed are made again when their prompts arrive"


def test_failures_of_other_prompts_are_not_counted_as_made_again() -> None:
    """Of three failures named, these prompts have one: the others stay and are reported."""
    recovered, again = JournalCounts(done=1, again=3), estimator("flux-dev")
    plan = Plan(images=2, rows=2, known={"done": 1}, to_do=1, again=again)
    lines = list(announcement(plan, None, recovered=recovered, retries={"failed"}, simulated=False))
    assert lines[1:3] == [
        "1 done, 0 still running, 0 in doubt, 0 failed, 1 to do",
        "2 images of earlier runs not among these prompts: kept as they are",
    ]


def test_jobs_of_workers_that_were_not_waited_for_are_paid_and_not_fetched():
    """A stopped run on a cluster counts them from the journal, with what they may have cost."""
    stopped = Summary(saved=5, not_started=20, cost=Decimal("0.1"))
    counts = JournalCounts(done=9, running=8, possible_cost=Decimal("0.5"))
    before = JournalCounts(done=4, failed=Counter(lost=1), possible_cost=Decimal("0.3"))
    summary = with_unclaimed(stopped, counts, before=before)
    assert (summary.unclaimed, summary.not_started) == (8, 12)
    assert summary.possible_cost == Decimal("0.2")
    assert "8 paid but not fetched, 12 not started" in summary.line()


EARLIER = Summary(
    saved=3,
    skipped=5,
    failed=Counter(moderated=1),
    failed_earlier=Counter(lost=2, dropped=1),
    in_doubt=1,
    in_doubt_earlier=2,
    damaged=4,
    not_started=7,
    cost=Decimal("0.075"),
    possible_cost=Decimal("0.1"),
    in_doubt_cost=Decimal("0.025"),
    seconds=2.0,
)


def test_the_end_of_a_run_lists_new_and_earlier_counts_with_next_steps() -> None:
    """Each count that asks for something has a line with the option that does it."""
    *steps, totals = closing(EARLIER, OutputRoot(Path("out")), in_doubt=3)
    assert totals == (
        "3 new, 5 already there, 1 failed (1 moderated), 3 failed earlier (2 lost, 1 dropped), "
        "1 in doubt, 2 in doubt earlier, 4 damaged, 7 not started, "
        "spent $0.075, perhaps charged $0.10, in doubt $0.025, 2.0 s → out/"
    )
    options = ("resolve out", "change those prompts", "--retry dropped", "--retry failed",
               "--retry damaged", "run the same command again")  # fmt: skip
    for step, option in zip(steps, options, strict=True):
        assert option in step


def test_at_the_cap_the_next_step_is_a_higher_cap() -> None:
    """P7: the same command would end at the cap again, so a higher cap is suggested."""
    steps = list(closing(Summary(saved=1, not_started=9), OutputRoot(Path("out")), at_cap=True))
    assert steps[0] == "to continue: the same command with a higher --max-cost"
    steps = list(closing(Summary(), OutputRoot(Path("out")), at_cap=True, cap="max_cost"))
    assert steps[0] == "to continue: the same command with a higher max_cost"
    assert not any("run the same command again" in step for step in steps)


def test_after_an_error_its_own_step_comes_first() -> None:
    """Twenty refused requests, or a login page, end every further run of the same line too."""
    summary = Summary(not_started=9, unclaimed=2)
    steps = list(closing(summary, OutputRoot(Path("out")), by_error=True))
    expected = (
        "after that, run the same command again to continue; paid images are collected for free"
    )
    assert steps[0] == expected


def test_causes_that_were_not_looked_up_are_not_made_up() -> None:
    """Of a list that holds only some of the folder's images the number is known."""
    line = str(Summary(failed_earlier=Counter({"": 2})))
    assert line == "0 new, 0 failed, 2 failed earlier, spent $0.00, 0.0 s"
