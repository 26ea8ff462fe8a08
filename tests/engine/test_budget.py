"""The budget of a session: reservations, spending, and a cap that holds at every instant."""

from __future__ import annotations

from decimal import Decimal as D

import pytest

from fluxasync import BudgetExceeded, ConfigError
from fluxasync._engine.budget import SpendingAccount


def test_a_reservation_ends_in_one_of_three_ways() -> None:
    """Refused: released; accepted: spent, at the reported cost; unanswered: in doubt."""
    account = SpendingAccount(D("1.00"))
    for _ in range(3):
        account.reserve(D("0.10"))
    account.release(D("0.10"))
    account.charge(D("0.10"), D("0.07000000000000001"))
    account.mark_in_doubt(D("0.10"))
    assert (D("0.07"), D(0), D("0.10")) == (account.spent, account.reserved, account.in_doubt)


def test_a_charge_without_a_reported_cost_is_the_price() -> None:
    """Without a reported cost, or with a senseless one, the catalogue's price counts."""
    account = SpendingAccount()
    for cost in (None, D("NaN"), D("-1"), D("Infinity")):
        account.reserve(D("0.10"))
        account.charge(D("0.10"), cost)
    assert account.spent == D("0.40")


def test_the_cap_is_reached_exactly() -> None:
    """P7: the last image within the cap is allowed; the next is refused and changes nothing."""
    account = SpendingAccount(D("0.05"))
    account.reserve(D("0.025"))
    account.reserve(D("0.025"))
    with pytest.raises(BudgetExceeded, match=r"\$0.025 more would pass the cap of \$0.05"):
        account.reserve(D("0.025"))
    assert account.reserved == D("0.05")


def test_waiting_helps_only_while_reservations_are_open() -> None:
    """F160: an image may fit later if reservations are released, never above the spending."""
    account = SpendingAccount(D("0.05"))
    account.reserve(D("0.05"))
    assert (account.can_reserve(D("0.05")), account.may_fit_later(D("0.05"))) == (False, True)
    account.mark_in_doubt(D("0.05"))
    assert (account.can_reserve(D("0.05")), account.may_fit_later(D("0.05"))) == (False, False)


def test_an_unknown_price_cannot_be_capped() -> None:
    """F160: with a cap, an unknown price is refused before anything is spent."""
    for call in (
        SpendingAccount(D(1)).can_reserve,
        SpendingAccount(D(1)).may_fit_later,
        SpendingAccount(D(1)).reserve,
    ):
        with pytest.raises(ConfigError, match="unknown price"):
            call(None)


def test_without_a_cap_everything_fits() -> None:
    """Without a cap the account only counts, and an unknown price counts as 0."""
    account = SpendingAccount()
    account.reserve(None)
    account.charge(None, D("0.50"))
    assert account.can_reserve(D(10**9))
    assert repr(account) == "<SpendingAccount $0.50 spent, $0.00 reserved, $0.00 in doubt, no cap>"


def test_a_reservation_ends_once() -> None:
    """Ending a reservation twice would raise the cap, so it is an error."""
    with pytest.raises(RuntimeError, match="twice"):
        SpendingAccount(D(1)).release(D("0.10"))


def test_budget_left_excludes_everything_that_may_be_charged() -> None:
    """Spent, reserved and in doubt are subtracted; never below 0; None without a cap."""
    assert SpendingAccount().left is None
    account = SpendingAccount(D("0.10"))
    account.restore(spent=D("0.02"), in_doubt=D("0.03"))
    account.reserve(D("0.04"))
    assert account.left == D("0.01")
    account.restore(spent=D(1), in_doubt=D(0))
    assert account.left == 0


@pytest.mark.parametrize(
    ("cost", "spent"),
    [
        pytest.param("0.01", "0.01", id="less than its price"),
        pytest.param("0.09", "0.09", id="more than its price"),
        pytest.param("0", "0", id="zero"),
        pytest.param("-1", "0.025", id="negative"),
        pytest.param("NaN", "0.025", id="NaN"),
        pytest.param("Infinity", "0.025", id="infinite"),
    ],
)
def test_a_cost_reported_at_the_jobs_end_replaces_its_price(cost: str, spent: str):
    """P7: the catalogue's price counts until the provider reports the cost."""
    account, price = SpendingAccount(D(1)), D("0.025")
    account.reserve(price)
    account.charge(price, job_id="a")
    for _ in range(2):
        account.settle("a", D(cost))
        assert account.spent == D(spent)
    assert account.reserved == 0


@pytest.mark.parametrize("amount", ["-0.01", "NaN", "-Infinity"])
@pytest.mark.parametrize("which", ["spent", "in_doubt"])
def test_the_spending_of_earlier_runs_never_raises_the_cap(amount, which):
    """P12: an amount that would raise it is refused, and nothing is counted."""
    account = SpendingAccount(D(1))
    with pytest.raises(ConfigError, match="0 or more"):
        account.restore(**{"spent": D(0), "in_doubt": D(0), which: D(amount)})
    assert (account.spent, account.in_doubt) == (0, 0)


def test_a_job_found_for_a_submission_in_doubt_keeps_the_cap_exact() -> None:
    """P7: its money moves from in doubt to spent; the cap has the same room, and the cost that is
    reported later replaces the price."""
    account = SpendingAccount(D("0.05"))
    account.reserve(D("0.025"))
    account.mark_in_doubt(D("0.025"))
    account.adopt("job", D("0.025"))
    assert (account.spent, account.in_doubt) == (D("0.025"), 0)
    assert account.left == D("0.025")
    account.settle("job", D("0.010"))
    assert account.left == D("0.040")


def test_accounts_share_a_cap_and_keep_their_own() -> None:
    """P7: what one account spends counts for the other under the shared cap, and only there."""
    run = SpendingAccount(D("0.10"))
    one, other = SpendingAccount(D("0.06"), run), SpendingAccount(None, run)
    one.reserve(D("0.06"))
    assert not one.can_reserve(D("0.01"))
    assert (one.left, other.left, other.cap) == (D(0), D("0.04"), D("0.10"))
    with pytest.raises(BudgetExceeded, match=r"the cap of \$0.10"):
        other.reserve(D("0.05"))
    one.mark_in_doubt(D("0.06"))
    other.reserve(D("0.04"))
    assert not other.may_fit_later(D("0.05"))
    other.charge(D("0.04"), job_id="a")
    other.settle("a", D("0.01"))
    one.adopt("b", D("0.06"))
    assert (run.spent, run.reserved, run.in_doubt) == (D("0.07"), D(0), D(0))
    assert (one.spent, other.spent) == (D("0.06"), D("0.01"))


def test_earlier_spending_counts_once_under_a_shared_cap() -> None:
    """The run's total includes the accounts' parts, so restoring a part adds nothing to it."""
    run = SpendingAccount(D("1.00"))
    one = SpendingAccount(None, run)
    run.restore(spent=D("0.50"), in_doubt=D(0))
    one.restore(spent=D("0.30"), in_doubt=D(0))
    assert (run.left, one.left) == (D("0.50"), D("0.50"))
