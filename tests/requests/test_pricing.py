"""What a run costs, and that a cap is a cap (P7, F160)."""

from __future__ import annotations

from decimal import Decimal as D
from typing import Any

import pytest

from fluxasync._core.amounts import amount_of, amount_text, dollars, spending, sum_of
from fluxasync._core.errors import BudgetExceeded, ConfigError
from fluxasync._core.models import ImageInput, ImageRequest
from fluxasync._engine.budget import SpendingAccount
from fluxasync._requests.pricing import Estimator, price

SMALL = {"width": 512, "height": 512}


def photographs(*megapixels: float) -> dict[str, Any]:
    """Image inputs that were read, of these sizes."""
    names = ("input_image", "input_image_2")
    images = [ImageInput(data=b"", pixels=round(size * 2**20)) for size in megapixels]
    return {"parameters": dict(zip(names, images, strict=False))}


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        pytest.param("flux-dev", {}, "0.025", id="flux-dev"),
        pytest.param("flux-dev", {"width": 256, "height": 256}, "0.025", id="size costs nothing"),
        pytest.param("flux-pro-1.1", {}, "0.04", id="flux-pro-1.1"),
        pytest.param("flux-pro-1.1-ultra", {}, "0.06", id="ultra"),
        pytest.param("flux-kontext-max", {}, "0.08", id="kontext-max"),
        pytest.param("flux-2-pro", {}, "0.03", id="FLUX.2 without a size"),
        pytest.param("flux-2-pro", {"width": 256, "height": 256}, "0.03", id="at least 1 MP"),
        pytest.param("flux-2-pro", {"width": 1024, "height": 1024}, "0.03", id="1 MP"),
        pytest.param("flux-2-pro", {"width": 1920, "height": 1080}, "0.045", id="1.98 MP is 2"),
        pytest.param("flux-2-pro", {"width": 2048}, "0.045", id="one side alone"),
        pytest.param("flux-2-max", {"width": 2048, "height": 2048}, "0.16", id="4 MP"),
        pytest.param(
            "flux-2-flex", {"parameters": {"input_image": "a", "input_image_2": "b"}}, "0.15",
            id="reference images",
        ),
        pytest.param("flux-2-pro", photographs(2), "0.075", id="as large as the reference"),
        pytest.param("flux-2-pro", photographs(2) | SMALL, "0.06", id="a reference's megapixels"),
        pytest.param("flux-2-pro", photographs(1, 1.5), "0.075", id="references are rounded up"),
        pytest.param("flux-2-pro", photographs(12) | SMALL, "0.09", id="made smaller first"),
        pytest.param("flux-2-klein-4b", {}, "0.014", id="a fraction of a credit"),
        pytest.param("flux-2-pro", {"extra_body": {"width": 2048}}, "0.045", id="by extra_body"),
    ],
)  # fmt: skip
def test_prices_follow_the_list(model: str, given: dict[str, Any], expected: str) -> None:
    """One image costs what the price list says, whole megapixels rounded up."""
    assert price(ImageRequest(prompt="a fox", model=model, **given)) == D(expected)


def test_an_unknown_model_has_no_price() -> None:
    """What the catalogue does not know is not guessed."""
    assert price(ImageRequest(prompt="a fox", model="flux-9")) is None


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "$0.00"), ("1", "$1.00"), ("0.025", "$0.025"), ("0.0144", "$0.0144"),
     ("1234.5", "$1,234.50"), ("0.07000000000000001", "$0.07")],
)  # fmt: skip
def test_amounts_are_written_for_people(amount: str, text: str) -> None:
    """Cents always, more digits only where they say something."""
    assert dollars(D(amount)) == text


def estimator(*counts: tuple[str, int]) -> Estimator:
    made = Estimator()
    for model, count in counts:
        made.add(ImageRequest(prompt="a fox", model=model, n=count))
    return made


def test_an_estimate_reads_as_one_line() -> None:
    """The price line says how many, how much and how long."""
    line = "40 images, $1.00 by the catalogue, about 7 s at 24 in flight"
    assert str(estimator(("flux-dev", 40)).estimate(24)) == line


def test_an_estimate_of_nothing_is_nothing() -> None:
    """No requests take no money and no time."""
    line = "0 images, $0.00 by the catalogue, about 0 s at 24 in flight"
    assert str(Estimator().estimate(24)) == line


def test_unknown_prices_are_counted_apart() -> None:
    """The known part is summed; images of unknown price are counted."""
    mixed = estimator(("flux-dev", 1), ("flux-9", 2), ("flux-10", 1)).estimate(24)
    assert (4, D("0.025"), 3) == (mixed.images, mixed.cost, mixed.unpriced)
    assert "$0.025 by the catalogue and 3 of unknown price" in str(mixed)
    assert "1 image, price unknown" in str(estimator(("flux-9", 1)).estimate(24))


def test_a_model_with_a_lower_limit_takes_longer() -> None:
    """Sixty images at six at once take ten rounds, however many slots the account has."""
    assert estimator(("flux-kontext-max", 60)).estimate(24).seconds == pytest.approx(10 * 7.0)


def test_more_in_flight_is_faster() -> None:
    """The estimate follows the limit, down to the duration of one image."""
    many = estimator(("flux-dev", 100))
    seconds = [many.estimate(limit).seconds for limit in (1, 10, 100, 1000)]
    assert seconds == pytest.approx([350.0, 35.0, 3.5, 3.5])


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "about 4 s at 1 in"), (1000, "about 58 min at 1 in"), (2000, "about 1 h 57 min at 1 in")],
)
def test_durations_use_a_fitting_unit(count: int, text: str) -> None:
    """Seconds, minutes or hours, whichever a person would say."""
    assert text in str(estimator(("flux-dev", count)).estimate(1))


def test_a_reservation_ends_in_one_of_three_ways() -> None:
    """Refused: back; accepted: spent, as echoed; unanswered: in doubt."""
    purse = SpendingAccount(D("1.00"))
    for _ in range(3):
        purse.reserve(D("0.10"))
    purse.release(D("0.10"))
    purse.charge(D("0.10"), D("0.07000000000000001"))
    purse.mark_in_doubt(D("0.10"))
    assert (D("0.07"), D(0), D("0.10")) == (purse.spent, purse.reserved, purse.in_doubt)


def test_a_charge_without_an_echo_costs_the_price() -> None:
    """Providers that echo no cost, or a senseless one, are taken at the catalogue's price."""
    purse = SpendingAccount()
    for cost in (None, D("NaN"), D("-1"), D("Infinity")):
        purse.reserve(D("0.10"))
        purse.charge(D("0.10"), cost)
    assert purse.spent == D("0.40")


def test_the_cap_is_reached_exactly() -> None:
    """P7: the last image that fits is allowed, the next is not, and nothing changes then."""
    purse = SpendingAccount(D("0.05"))
    purse.reserve(D("0.025"))
    purse.reserve(D("0.025"))
    with pytest.raises(BudgetExceeded, match=r"\$0.025 more would pass the cap of \$0.05"):
        purse.reserve(D("0.025"))
    assert purse.reserved == D("0.05")


def test_waiting_helps_only_while_reservations_are_open() -> None:
    """F160: an image fits later if reservations may come back, never past what is spent."""
    purse = SpendingAccount(D("0.05"))
    purse.reserve(D("0.05"))
    assert (purse.can_reserve(D("0.05")), purse.may_fit_later(D("0.05"))) == (False, True)
    purse.mark_in_doubt(D("0.05"))
    assert (purse.can_reserve(D("0.05")), purse.may_fit_later(D("0.05"))) == (False, False)


def test_an_unknown_price_cannot_be_capped() -> None:
    """F160: with a cap, an unknown price is refused before anything is spent."""
    for ask in (
        SpendingAccount(D(1)).can_reserve,
        SpendingAccount(D(1)).may_fit_later,
        SpendingAccount(D(1)).reserve,
    ):
        with pytest.raises(ConfigError, match="unknown price"):
            ask(None)


def test_without_a_cap_everything_fits() -> None:
    """Without a cap the purse only counts, and an unknown price counts as nothing."""
    purse = SpendingAccount()
    purse.reserve(None)
    purse.charge(None, D("0.50"))
    assert purse.can_reserve(D(10**9))
    assert repr(purse) == "<SpendingAccount $0.50 spent, $0.00 reserved, $0.00 in doubt, no cap>"


def test_a_reservation_is_given_back_once() -> None:
    """Giving back what was not taken would open the cap, so it is a loud error."""
    with pytest.raises(RuntimeError, match="twice"):
        SpendingAccount(D(1)).release(D("0.10"))


@pytest.mark.parametrize(
    ("left", "images"),
    [(None, 2000), ("50", 2000), ("49.999", 1999), ("2", 80), ("0.0249", 0), ("0", 0), ("-1", 0)],
)
def test_a_budget_pays_for_so_many_images(left: str | None, images: int) -> None:
    """Whole images only, none beyond the budget, and the time is that of those."""
    whole = estimator(("flux-dev", 2000)).estimate(24)
    part = whole.within(None if left is None else D(left))
    assert part.images == images
    assert part.cost == images * D("0.025")
    assert part.seconds == pytest.approx(whole.seconds * images / 2000)


def test_free_images_need_no_budget() -> None:
    """What is known, or unpriced, costs nothing that a cap could refuse here."""
    nothing = Estimator().estimate(24)
    assert nothing.within(D(0)) == nothing


def test_what_is_left_of_a_budget_counts_everything_that_may_be_charged() -> None:
    """Spent, reserved and in doubt together; never less than nothing; None without a cap."""
    assert SpendingAccount().left is None
    purse = SpendingAccount(D("0.10"))
    purse.restore(spent=D("0.02"), in_doubt=D("0.03"))
    purse.reserve(D("0.04"))
    assert purse.left == D("0.01")
    purse.restore(spent=D(1), in_doubt=D(0))
    assert purse.left == 0


@pytest.mark.parametrize(
    ("amounts", "text"),
    [
        pytest.param({}, "spent $1.00", id="all here"),
        pytest.param({"unpriced": 2}, "spent $1.00 + 2 of unknown price", id="unpriced"),
        pytest.param(
            {"perhaps": D("0.2"), "in_doubt": D("0.05")},
            "spent $1.00, perhaps charged $0.20, in doubt $0.05",
            id="three figures",
        ),
        pytest.param({"perhaps": D(1), "simulated": True}, "spent $0.00 (simulated)", id="free"),
    ],
)
def test_money_has_the_same_words_everywhere(amounts: dict[str, Any], text: str) -> None:
    """One figure each for what was spent, may have been charged, and is in doubt."""
    assert spending(D(1), **amounts) == text


@pytest.mark.parametrize(
    ("cost", "spent"),
    [
        pytest.param("0.01", "0.01", id="less than its price"),
        pytest.param("0.09", "0.09", id="more than its price"),
        pytest.param("0", "0", id="nothing"),
        pytest.param("-1", "0.025", id="below nothing is no cost"),
        pytest.param("NaN", "0.025", id="no number is no cost"),
        pytest.param("Infinity", "0.025", id="no end is no cost"),
    ],
)
def test_a_cost_that_comes_with_the_jobs_end_takes_the_place_of_its_price(cost: str, spent: str):
    """P7: what was charged by the catalogue is what the provider says it was."""
    purse, price = SpendingAccount(D(1)), D("0.025")
    purse.reserve(price)
    purse.charge(price)
    purse.correct(price, D(cost))
    assert purse.spent == D(spent)
    assert purse.reserved == 0


@pytest.mark.parametrize("amount", ["-0.01", "NaN", "-Infinity"])
@pytest.mark.parametrize("which", ["spent", "in_doubt"])
def test_what_earlier_runs_spent_never_makes_the_cap_larger(amount, which):
    """P12: an amount that would is refused, and nothing is counted."""
    purse = SpendingAccount(D(1))
    with pytest.raises(ConfigError, match="0 or more"):
        purse.restore(**{"spent": D(0), "in_doubt": D(0), which: D(amount)})
    assert (purse.spent, purse.in_doubt) == (0, 0)


@pytest.mark.parametrize("text", ["0", "0.025", "999999999.999999999999", "0.000001"])
def test_an_amount_is_read_as_it_was_written(text):
    """Nine digits before the point and twelve after it keep a sum of millions exact."""
    assert text == str(amount_of(text)) == amount_text(amount_of(text))


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e5", "1E+99999999", "NaN", "Infinity", "1_0", " 1", "1.", ".5", "٣",
             "1234567890", "0.1234567890123", "1\n"]
)  # fmt: skip
def test_other_text_is_no_amount(text):
    """T17: a journal's amounts are untrusted text."""
    with pytest.raises(ValueError, match="not an amount"):
        amount_of(text)
    if text != "1234567890":
        with pytest.raises(ValueError, match="not an amount"):
            sum_of(text)


def test_a_sum_may_have_sixteen_digits_before_the_point():
    """Ten million of the largest amounts."""
    assert sum_of("9" * 16 + ".5") == D("9999999999999999.5")
    with pytest.raises(ValueError, match="not an amount"):
        sum_of("1" * 17)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, None), ("-1", None), ("NaN", None), ("Infinity", None), ("0", "0"),
        ("1E+2", "100.000000"), ("1E-9", "0.000000"), ("1E+30", "9" * 9 + "." + "9" * 12),
        ("0.12345678901234", "0.123457"), ("7.000000000000001", "7.000000"),
    ],
)  # fmt: skip
def test_what_is_written_can_be_read_again(amount, text):
    """What is no amount is unknown; an absurd one still uses the cap up."""
    written = amount_text(None if amount is None else D(amount))
    assert written == text
    assert written is None or amount_of(written) >= 0
