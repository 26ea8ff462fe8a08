"""The bill as a pure function: a journal's spending beside a usage log or balance samples."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxasync._batch.bill.bill_comparison import bill_of
from fluxasync._batch.bill.bill_values import VISIBLE, Bill, Cause
from fluxasync._core.account import UsageEntry, UsageLog
from fluxasync._store.journal.samples import BalanceSample
from fluxasync._store.journal.spending import JournalSpending
from fluxasync._store.journal.spending_groups import JournalJob, SpendingGroup

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
DEV, PRO = "flux-dev", "flux-pro-1.1"


def group(
    fate: Any = "saved",
    count: int = 1,
    price: str | None = "0.04",
    *,
    model: str = PRO,
    minute: int = 0,
    money: str | None = "price",
) -> SpendingGroup:
    amount = price if money == "price" else money
    return SpendingGroup(
        model=model,
        fate=fate,
        at=NOON + timedelta(minutes=minute),
        money=None if amount is None else Decimal(amount),
        price=None if price is None else Decimal(price),
        count=count,
        place=("bfl", "https://api.bfl.ai"),
    )


def entry(
    cost: str | None = "0.04",
    *,
    kind: str = "consume",
    model: str | None = PRO,
    seconds: float | None = 5,
    **more: Any,
) -> UsageEntry:
    return UsageEntry(
        at=None if seconds is None else NOON + timedelta(seconds=seconds),
        kind=kind,
        model=model,
        cost=None if cost is None else Decimal(cost),
        request_id=None,
        **more,
    )


def job(job_id: str = "job-1", fate: Any = "failed", price: str | None = "0.04") -> JournalJob:
    amount = None if price is None else Decimal(price)
    money = None if fate == "refunded" else amount
    return JournalJob(
        job_id=job_id, key="00", model=PRO, fate=fate, at=NOON, money=money, price=amount
    )


def compared(
    groups: Iterable[SpendingGroup],
    entries: Iterable[UsageEntry],
    *jobs: JournalJob,
    is_complete: bool = True,
    **more: Any,
) -> Bill:
    log = UsageLog(entries=tuple(entries), is_complete=is_complete)
    spending = JournalSpending(groups=tuple(groups), **more)
    return bill_of(spending, log, {each.job_id: each for each in jobs})


def by_kind(bill: Bill) -> dict[str, Cause]:
    assert len({cause.kind for cause in bill.causes}) == len(bill.causes)
    return {cause.kind: cause for cause in bill.causes}


def test_an_agreeing_log_has_no_cause() -> None:
    """Each image has its charge: no difference and nothing to say."""
    bill = compared([group(count=3), group(count=2, model=DEV, price="0.025")],
                    [entry()] * 3 + [entry("0.025", model=DEV)] * 2)  # fmt: skip
    assert (bill.images, bill.journal, bill.charged) == (5, Decimal("0.17"), Decimal("0.17"))
    assert (bill.difference, bill.causes, bill.source) == (0, (), "usage log")
    assert [line.model for line in bill.lines] == [PRO, DEV]


NAMED = {"names": ("job-1",)}


@pytest.mark.parametrize(
    ("groups", "entries", "jobs", "kind", "count", "explains"),
    [
        pytest.param(
            [group(count=2)], [entry("0.05")] * 2, [], "price list outdated", 2, "0.02", id="dearer"
        ),
        pytest.param(
            [group(count=2)], [entry("0.03")] * 2, [], "price list outdated", 2, "-0.02",
            id="cheaper",
        ),
        pytest.param(
            [group(count=2), group(price="0.06")], [entry("0.032")] * 2 + [entry("0.048")], [],
            "price list outdated", 3, "-0.028", id="one factor for several prices",
        ),
        pytest.param(
            [group(price=None, count=2)], [entry("0.03")] * 2, [], "price unknown", 2, "0.06",
            id="no price",
        ),
        pytest.param([group(count=2)], [entry()], [], "not in the log", 1, "-0.04", id="missing"),
        pytest.param(
            [group(), group("failed")], [entry()] * 2 + [entry(kind="refund", **NAMED)], [job()],
            "refunds not recorded", 1, "-0.04", id="refund of a failed job",
        ),
        pytest.param(
            [group(), group("failed")],
            [entry("0.05")] * 2 + [entry("0.05", kind="refund", **NAMED)], [job()],
            "refunds not recorded", 1, "-0.05", id="refund at another price",
        ),
        pytest.param(
            [group()], [entry(), entry("0.01", kind="refund", is_adjustment=True, **NAMED)],
            [job(fate="saved")], "adjusted", 1, "-0.01", id="given back in part",
        ),
        pytest.param(
            [group()], [entry(), entry("0.01", is_adjustment=True, **NAMED)], [job(fate="saved")],
            "adjusted", 1, "0.01", id="charged in addition",
        ),
        pytest.param(
            [group("failed")], [entry(), entry("0.01", kind="refund", **NAMED)], [job()],
            "adjusted", 1, "-0.01", id="a part of a failed job",
        ),
        pytest.param(
            [group("failed", price=None)], [entry(), entry("0.01", kind="refund", **NAMED)],
            [job(price=None)], "adjusted", 1, "-0.01", id="a part of a job of unknown price",
        ),
        pytest.param(
            [group("failed", price=None)], [entry(), entry(kind="refund", **NAMED)],
            [job(price=None)], "refunds not recorded", 1, "-0.04", id="a job of unknown price",
        ),
        pytest.param(
            [group(count=3)], [entry()] * 2 + [entry("0.06")], [], "unexplained", 0, "0.02",
            id="one image was dearer",
        ),
    ],
)  # fmt: skip
def test_a_difference_has_its_cause(
    groups: Any, entries: Any, jobs: Any, kind: str, count: int, explains: str
) -> None:
    """Each cause is named, with its count and its part of the difference."""
    bill = compared(groups, entries, *jobs)
    found = by_kind(bill)
    assert (found[kind].count, found[kind].explains) == (count, Decimal(explains))
    assert bill.difference == sum(cause.explains for cause in bill.causes)
    assert (bill.unexplained != 0) == (kind == "unexplained")


@pytest.mark.parametrize("price", ["0.04", "0.03", None])
def test_a_recorded_refund_leaves_no_difference(price: str | None) -> None:
    """A failed job that is recorded as not charged: its charge and its refund cancel out."""
    refund = entry(kind="refund", **NAMED)
    settled = group("refunded", price=price, money=None)
    bill = compared([settled], [entry(), refund], job(fate="refunded", price=price))
    assert (bill.charged, bill.refunded, bill.journal) == (Decimal("0.04"), Decimal("0.04"), 0)
    assert (bill.difference, bill.causes) == (0, ())


def test_an_outdated_price_says_both_prices() -> None:
    """The price of the journal and the charge of the log, where each image has the same."""
    [cause] = compared([group(count=2)], [entry("0.05")] * 2).causes
    assert (cause.price, cause.charged_price) == (Decimal("0.04"), Decimal("0.05"))


@pytest.mark.parametrize(
    ("foreign", "model"),
    [
        pytest.param(entry(), PRO, id="more entries of the model"),
        pytest.param(entry(model="gpt-9"), None, id="another model"),
        pytest.param(entry(model=None), None, id="without a model"),
        pytest.param(entry(seconds=-3600), PRO, id="before the run"),
        pytest.param(entry(seconds=3600), PRO, id="after the run"),
        pytest.param(entry("0.9"), PRO, id="another amount"),
    ],
)
def test_another_user_is_left_out(foreign: UsageEntry, model: str | None) -> None:
    """Charges of the key that are no job's of this folder are counted, and change no difference."""
    bill = compared([group(count=2)], [foreign, entry(), entry(seconds=None)])
    [cause] = bill.causes
    assert (cause.kind, cause.model, cause.count) == ("other users", model, 1)
    assert (cause.amount, bill.difference) == (foreign.cost, 0)


def test_a_charge_in_doubt_is_no_other_users() -> None:
    """A submission without an answer gets a charge of its time, after the accepted ones. It is a
    row of the bill, and so is one that was given up."""
    bill = compared([group(), group("in doubt", 2), group("given up")], [entry()] * 2)
    found = by_kind(bill)
    assert found.keys() == {"in doubt", "given up"}
    assert (found["in doubt"].count, found["given up"].count) == (2, 1)
    assert sum(cause.entries for cause in bill.causes) == 1
    assert [row.model for row in bill.rows] == [PRO, "in doubt", "given up"]
    assert (bill.journal, bill.charged) == (Decimal("0.16"), Decimal("0.08"))
    assert bill.difference == sum(cause.explains for cause in bill.causes) == Decimal("-0.08")


def test_earlier_attempts_are_no_other_users() -> None:
    """An image that was submitted again was charged twice: both are in the total."""
    bill = compared(
        [group()], [entry(seconds=-900), entry()], earlier={PRO: 1}, earlier_cost=Decimal("0.04")
    )
    [cause] = bill.causes
    assert (cause.kind, cause.amount, cause.charged) == (
        "earlier attempts", Decimal("0.04"), Decimal("0.04"),
    )  # fmt: skip
    assert (bill.journal, bill.charged, bill.difference) == (Decimal("0.08"), Decimal("0.08"), 0)


def test_the_price_is_what_was_counted() -> None:
    """A reported cost instead of the price; the price where nothing was counted."""
    [line] = bill_of(
        JournalSpending(groups=(group(money="0.025"), group("failed", price="0.03")))
    ).lines
    assert line.prices == (Decimal("0.025"), Decimal("0.03"))
    [line] = bill_of(JournalSpending(groups=(group("refunded", money=None),))).lines
    assert line.prices == (Decimal("0.04"),)


@pytest.mark.parametrize(
    "refund",
    [
        pytest.param(entry(kind="refund"), id="no name"),
        pytest.param(entry(kind="refund", names=("job-9",)), id="an unknown job"),
        pytest.param(entry(kind="refund", names=("job-1", "job-2")), id="two jobs"),
    ],
)
def test_a_refund_without_evidence_is_only_shown(refund: UsageEntry) -> None:
    """A refund that names no job, or two, settles nothing and changes no difference."""
    jobs = [job("job-1"), job("job-2")]
    bill = compared([group("failed", 2)], [entry()] * 2 + [refund], *jobs)
    [cause] = bill.causes
    assert (cause.kind, cause.count, cause.amount) == (
        "refunds without a job", 1, Decimal("0.04"),
    )  # fmt: skip
    assert bill.difference == 0


def test_an_incomplete_log_is_said() -> None:
    """Jobs without an entry may be on the pages that were not read."""
    found = by_kind(compared([group()], [], is_complete=False))
    assert found.keys() == {"not in the log", "log incomplete"}


def test_a_gateways_prefix_is_the_same_model() -> None:
    """The log may have the vendor before the name."""
    bill = compared([group()], [entry(model="black-forest-labs/Flux-Pro-1.1")])
    assert (bill.difference, bill.causes) == (0, ())


def test_without_a_log_only_the_journal_speaks() -> None:
    """The lines have no figures of the provider, and the reason is kept."""
    spending = JournalSpending(groups=(group(), group("running")))
    bill = bill_of(spending, missing="set COMETAPI_ACCESS_TOKEN")
    assert (bill.charged, bill.difference, bill.source) == (None, None, None)
    assert (bill.missing, bill.journal) == ("set COMETAPI_ACCESS_TOKEN", Decimal("0.08"))
    assert [cause.kind for cause in bill.causes] == ["running"]


# ------------------------------------------------------------------------------------------ balance


def sample(
    event: Any, seconds: float, left: str | None = None, used: str | None = None, **more: Any
) -> BalanceSample:
    return BalanceSample(
        at=NOON + timedelta(seconds=seconds),
        event=event,
        provider=more.get("provider", "bfl"),
        account=more.get("account", ""),
        left=None if left is None else Decimal(left),
        used=None if used is None else Decimal(used),
    )


@pytest.mark.parametrize(
    ("samples", "charged"),
    [
        pytest.param([sample("start", 0, "5"), sample("end", 9, "4.9")], "0.1", id="one run"),
        pytest.param(
            [sample("start", 0, "5", "1"), sample("end", 9, "8", "1.1")], "0.1", id="topped up"
        ),
        pytest.param([sample("start", 0, "5"), sample("end", 9, "8")], None, id="more than before"),
        pytest.param([sample("start", 0, "5"), sample("start", 9, "4.9")], "0.1", id="killed"),
        pytest.param([sample("start", 0, "5")], None, id="no end"),
        pytest.param([sample("end", 9, "5")], None, id="no start"),
        pytest.param([sample("start", 0), sample("end", 9)], None, id="no figures"),
        pytest.param(
            [sample("start", 0, "5"), sample("end", 9, "4", account="b")], None, id="two accounts"
        ),
        pytest.param(
            [sample("start", 0, "5"), sample("end", 9, "4.9"), sample("start", 20, "3"),
             sample("end", 30, "2.9")], "0.2", id="two runs, and others between them",
        ),
    ],
)  # fmt: skip
def test_balances_say_what_whole_runs_cost(samples: Any, charged: str | None) -> None:
    """From each start to the next sample of the same account."""
    bill = bill_of(JournalSpending(groups=(group(),), samples=tuple(samples)))
    assert bill.charged == (None if charged is None else Decimal(charged))
    assert bill.source == (None if charged is None else "balance")


def test_a_balance_is_compared_with_the_runs_that_it_covers() -> None:
    """An image of a run without samples is no difference."""
    samples = (sample("start", 0, "5"), sample("end", 30, "4.96"))
    bill = bill_of(JournalSpending(groups=(group(), group(minute=-99, count=7)), samples=samples))
    assert (bill.covered, bill.difference, bill.causes) == (Decimal("0.04"), 0, ())


@pytest.mark.parametrize(
    ("left", "kind", "explains"),
    [
        ("4.92", "in doubt", "-0.04"),
        ("4.96", "perhaps charged", "-0.04"),
        ("4.80", "unexplained", "0.08"),
    ],
)
def test_a_difference_of_balances_has_its_cause(left: str, kind: str, explains: str) -> None:
    """Submissions in doubt and failed images were perhaps not charged; the rest is said."""
    groups = (group(), group("failed"), group("in doubt"))
    samples = (sample("start", 0, "5"), sample("end", 30, left))
    bill = bill_of(JournalSpending(groups=groups, samples=samples))
    assert by_kind(bill)[kind].explains == Decimal(explains)
    assert bill.difference == sum(cause.explains for cause in bill.causes)


def test_a_balance_has_the_earlier_attempts() -> None:
    """Images that were submitted again are in the balance twice, and in the total."""
    samples = (sample("start", 0, "5"), sample("end", 30, "4.92"))
    spending = JournalSpending(
        groups=(group(),), samples=samples, earlier={PRO: 1}, earlier_cost=Decimal("0.04")
    )
    bill = bill_of(spending)
    assert (bill.journal, bill.charged, bill.difference) == (Decimal("0.08"), Decimal("0.08"), 0)


@pytest.mark.parametrize(
    ("charged", "price", "perhaps", "rest"),
    [
        pytest.param("0.50", "-0.02", 0, 0, id="all were charged, at the reported cost"),
        pytest.param("0.40", "-0.02", "-0.10", 0, id="only the saved ones were charged"),
        pytest.param("0.52", 0, 0, 0, id="no difference"),
        pytest.param("0.51", 0, "-0.01", 0, id="less than the price explains"),
        pytest.param("0.60", 0, 0, "0.08", id="others"),
    ],
)
def test_a_reported_cost_shows_that_a_price_is_outdated(
    charged: str, price: str, perhaps: str, rest: str
) -> None:
    """Jobs that reported no cost cost what the others of their model cost, before they count as
    not charged."""
    groups = (group(count=16, price="0.03", money="0.025"), group("failed", 4, price="0.03"))
    samples = (sample("start", 0, "5"), sample("end", 30, str(5 - Decimal(charged))))
    bill = bill_of(JournalSpending(groups=groups, samples=samples))
    found = {cause.kind: cause.explains for cause in bill.causes}
    assert found.get("price list outdated", 0) == Decimal(price)
    assert found.get("perhaps charged", 0) == Decimal(perhaps)
    assert bill.unexplained == Decimal(rest)
    assert bill.difference == sum(found.values())


# ----------------------------------------------------------------------------------------- property

COSTS = st.sampled_from([None, "0.025", "0.03", "0.04", "0.05", "0.0333333"])
FATES = st.sampled_from(["saved", "failed", "refunded", "running", "in doubt", "given up"])
MODELS = st.sampled_from([DEV, PRO])
NAMES = st.lists(st.sampled_from(["job-1", "job-2", "job-3", "stranger"]), max_size=2)


@st.composite
def groups_of(draw: st.DrawFn) -> SpendingGroup:
    fate = draw(FATES)
    return group(
        fate,
        draw(st.integers(1, 4)),
        draw(COSTS),
        model=draw(MODELS),
        minute=draw(st.integers(0, 30)),
        money=None if fate == "refunded" else "price",
    )


@st.composite
def entries_of(draw: st.DrawFn) -> UsageEntry:
    return entry(
        draw(COSTS),
        kind=draw(st.sampled_from(["consume", "consume", "refund", "top-up", "99"])),
        model=draw(st.sampled_from([DEV, PRO, f"x/{PRO}", "gpt-9", None])),
        seconds=draw(st.none() | st.integers(-4000, 4000)),
        names=tuple(draw(NAMES)),
        is_adjustment=draw(st.booleans()),
    )


@settings(max_examples=400, deadline=None)
@given(
    groups=st.lists(groups_of(), max_size=8),
    entries=st.lists(entries_of(), max_size=25),
    earlier=st.dictionaries(MODELS, st.integers(1, 3)),
    fates=st.lists(FATES, min_size=3, max_size=3),
    is_complete=st.booleans(),
)
def test_the_parts_of_a_bill_are_its_total(
    groups: list[SpendingGroup],
    entries: list[UsageEntry],
    earlier: dict[str, int],
    fates: list[Any],
    is_complete: bool,
) -> None:
    """Each charge and each refund of the log is in one place, amounts are not negative, and the
    causes add up to the difference."""
    jobs = [job(f"job-{number}", fate) for number, fate in enumerate(fates, start=1)]
    bill = compared(groups, entries, *jobs, is_complete=is_complete, earlier=earlier)
    consumed = [each for each in entries if each.kind == "consume"]
    placed = sum(c.charged for c in bill.causes) + sum(
        c.amount for c in bill.causes if c.kind == "other users"
    )
    assert placed + sum(line.charged or 0 for line in bill.lines) == sum(
        each.cost or 0 for each in consumed
    )
    given_back = sum(c.amount for c in bill.causes if c.kind == "refunds without a job")
    refunds = sum(each.cost or 0 for each in entries if each.kind == "refund")
    assert given_back + (bill.refunded or 0) == refunds
    for cause in bill.causes:
        assert min(cause.amount, cause.charged, cause.count, cause.entries) >= 0
    for line in bill.lines:
        assert min(line.journal, line.charged or 0, line.refunded or 0) >= 0
    explained = sum(cause.explains for cause in bill.causes)
    difference = bill.difference or Decimal(0)
    assert abs(difference - explained) < VISIBLE * max(len(bill.lines), 1)
    assert difference == sum(row.difference or 0 for row in bill.rows)
    assert bill.journal == sum((each.money or 0) * each.count for each in groups)
