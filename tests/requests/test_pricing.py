"""What a run costs, and that a cap is a cap (P7, F160)."""

from __future__ import annotations

import math
from decimal import Decimal as D
from typing import Any

import pytest

from fluxasync import Budget, ConfigError, Estimator, ImageInput, ImageRequest, Price
from fluxasync._core.amounts import amount_of, amount_text, dollars, spending, sum_of
from fluxasync._requests.pricing import price

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
        pytest.param("flux-3-image", {}, "0.048", id="FLUX 3 without a resolution"),
        pytest.param("flux-3-image", {"parameters": {"resolution": "768sq"}}, "0.041", id="768sq"),
        pytest.param("flux-3-image", {"parameters": {"resolution": "2k"}}, "0.1", id="2k"),
        pytest.param("flux-3-image", {"parameters": {"resolution": "4k"}}, "0.607", id="4k"),
        pytest.param("flux-3-image", {"extra_body": {"resolution": "8k"}}, "0.607", id="dearest"),
        pytest.param("flux-3-image-klein", {}, "0.009", id="klein"),
        pytest.param(
            "flux-3-image-klein", {"width": 2048, "height": 2048}, "0.014", id="klein by its size"
        ),
        pytest.param("flux-3-image-klein", {"width": 512}, "0.036", id="klein, one side alone"),
        pytest.param(
            "flux-3-image-klein", {"width": 512, "height": 512, "parameters": {"resolution": "4k"}},
            "0.036", id="klein, size and resolution",
        ),
        pytest.param("flux-tools/outpainting-v1", {}, "0.2", id="outpainting"),
        pytest.param(
            "flux-tools/outpainting-v1", {"parameters": {"mode": "fast"}}, "0.045", id="fast"
        ),
    ],
)  # fmt: skip
def test_prices_follow_the_list(model: str, given: dict[str, Any], expected: str) -> None:
    """One image costs what the price list says, whole megapixels rounded up."""
    assert price(ImageRequest(prompt="a fox", model=model, **given)) == D(expected)


def test_an_unknown_model_has_no_price() -> None:
    """What the catalogue does not know is not guessed."""
    assert price(ImageRequest(prompt="a fox", model="flux-9")) is None


def test_given_prices_take_precedence() -> None:
    """A price by model, then the one for every model, then the list's."""
    fox = ImageRequest(prompt="a fox", model="flux-9")
    own = Budget(prices={"flux-9": "0.07", "*": D("0.02")}).prices
    assert price(fox, own) == D("0.07")
    assert price(ImageRequest(prompt="a fox", model="flux-2-max", width=2048), own) == D("0.02")
    assert price(fox, Budget(prices={"flux-8": 1}).prices) is None
    assert price(ImageRequest(prompt="a"), Budget(prices={"flux-8": 1}).prices) == D("0.025")
    assert price(fox, Budget(prices="$0.04").prices) == D("0.04")
    assert price(fox, Budget(prices=0).prices) == 0


def test_a_given_price_may_have_tiers_and_megapixels() -> None:
    """A Price of the program is one as the catalogue has it, in credits."""
    tiers = Price(first=D(5), by="quality", tiers={"low": D(5), "high": D(9)})
    own = Budget(prices={"flux-9": tiers, "flux-8": Price(first=D(2), following=D(1))}).prices
    high = ImageRequest(prompt="a", model="flux-9", parameters={"quality": "high"})
    assert price(high, own) == D("0.09")
    assert price(ImageRequest(prompt="a", model="flux-9"), own) == D("0.05")
    large = ImageRequest(prompt="a", model="flux-8", width=2048, height=1024)
    assert price(large, own) == D("0.03")


@pytest.mark.parametrize(
    "given",
    ["-1", -0.01, "nan", math.inf, "cheap", "", True, "4 cents", 101, {"flux-9": None}, {"": 1},
     {3: 1}, Price(first=D(-1)), Price(first=D("NaN")), Price(first=D(10**6)), [0.04]],
)  # fmt: skip
def test_prices_that_cannot_be_reserved_are_refused(given: Any) -> None:
    """A negative, infinite or absurd price would make a cap meaningless."""
    with pytest.raises(ConfigError, match="price"):
        Budget(prices=given)


def test_an_estimate_says_whose_prices_it_has() -> None:
    """An estimate with the user's own prices is not "at list price"."""
    adds = Estimator({"flux-9": "0.04"})
    adds.add(ImageRequest(prompt="a", model="flux-9", n=3))
    assert str(adds.estimate(24)).startswith("3 images, $0.12 at the given price, about ")
    adds.add(ImageRequest(prompt="a"))
    assert "4 images, $0.145 at list and given prices" in str(adds.estimate(24))


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
    line = "40 images, $1.00 at list price, about 7 s with 24 jobs at once"
    assert str(estimator(("flux-dev", 40)).estimate(24)) == line


def test_an_estimate_of_nothing_is_nothing() -> None:
    """No requests take no money and no time."""
    line = "0 images, $0.00 at list price"
    assert str(Estimator().estimate(24)) == line


def test_unknown_prices_are_counted_apart() -> None:
    """The known part is summed; images of unknown price are counted."""
    mixed = estimator(("flux-dev", 1), ("flux-9", 2), ("flux-10", 1)).estimate(24)
    assert (4, D("0.025"), 3) == (mixed.images, mixed.cost, mixed.unpriced)
    assert "$0.025 at list price and 3 of unknown price" in str(mixed)
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
    [
        (1, "about 4 s with 1 job at once"),
        (1000, "about 58 min with 1 job at once"),
        (2000, "about 1 h 57 min with 1 job at once"),
    ],
)
def test_durations_use_a_fitting_unit(count: int, text: str) -> None:
    """Seconds, minutes or hours, whichever a person would say."""
    assert text in str(estimator(("flux-dev", count)).estimate(1))


@pytest.mark.parametrize(
    ("left", "images"),
    [(None, 2000), ("50", 2000), ("49.999", 1999), ("2", 80), ("0.0249", 0), ("0", 0), ("-1", 0)],
)
def test_a_budget_pays_for_so_many_images(left: str | None, images: int) -> None:
    """Only whole images within the budget are counted, and their time."""
    whole = estimator(("flux-dev", 2000)).estimate(24)
    part = whole.within(None if left is None else D(left))
    assert part.images == images
    assert part.cost == images * D("0.025")
    assert part.seconds == pytest.approx(whole.seconds * images / 2000)


def test_free_images_need_no_budget() -> None:
    """Known and unpriced images cost nothing under a cap."""
    nothing = Estimator().estimate(24)
    assert nothing.within(D(0)) == nothing


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
def test_any_amount_is_written_as_one_that_can_be_read(amount, text):
    """An invalid amount is unknown; an absurd one still uses up the cap."""
    written = amount_text(None if amount is None else D(amount))
    assert written == text
    assert written is None or amount_of(written) >= 0
