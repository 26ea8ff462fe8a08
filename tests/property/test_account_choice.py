"""Which account gets the next image: the choice as a pure function."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from fluxasync._engine.account_choice import AccountLoad, ranked, within

PRICES = st.none() | st.integers(0, 20).map(lambda cents: Decimal(cents) / 100)
LOADS = st.lists(
    st.builds(
        AccountLoad,
        name=st.text(min_size=1, max_size=3),
        in_flight=st.integers(0, 50),
        waiting=st.integers(0, 9),
        slots=st.integers(0, 50),
        weight=st.sampled_from([0.5, 1, 2, 3]),
        price=PRICES,
    ),
    max_size=6,
)


@given(LOADS, st.sampled_from(["least-busy", "cheapest"]))
def test_every_account_is_asked_once(loads: list[AccountLoad], route: str) -> None:
    """No account is left out or asked twice, so a full one spills over to all others."""
    assert Counter(map(id, ranked(loads, route))) == Counter(map(id, loads))  # type: ignore[arg-type]


@given(LOADS)
def test_the_least_busy_comes_first(loads: list[AccountLoad]) -> None:
    """Nobody has less work for its weighted slots than the one before; equal ones keep their
    order."""
    order = ranked(loads, "least-busy")
    shares = [load.share for load in order]
    assert shares == sorted(shares)
    for share in set(shares):
        alike = [id(load) for load in loads if load.share == share]
        assert [id(load) for load in order if load.share == share] == alike


@given(LOADS)
def test_the_cheapest_comes_first_and_an_unknown_price_last(loads: list[AccountLoad]) -> None:
    """A price that nobody knows is not taken for a low one."""
    prices = [load.price for load in ranked(loads, "cheapest")]
    known = [price for price in prices if price is not None]
    assert prices[: len(known)] == known == sorted(known)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4]), st.integers(1, 60))
def test_images_are_shared_by_weighted_slots(
    one: int, other: int, weight: int, images: int
) -> None:
    """One image after the other to the least busy gives each its part, to within one image."""
    loads = {
        "one": AccountLoad(name="one", in_flight=0, waiting=0, slots=one, weight=weight),
        "other": AccountLoad(name="other", in_flight=0, waiting=0, slots=other, weight=1),
    }
    for _ in range(images):
        first = ranked(list(loads.values()), "least-busy")[0]
        loads[first.name] = evolve(first, in_flight=first.in_flight + 1)
    part = images * one * weight / (one * weight + other)
    assert abs(loads["one"].in_flight - part) <= 1


@given(
    st.dictionaries(
        st.sampled_from("abcdef"), st.tuples(st.floats(0.01, 10), st.floats(0, 1)), min_size=1
    )
)
def test_a_capped_share_goes_to_the_others(accounts: dict[str, tuple[float, float]]) -> None:
    """No account gets more than its budget pays for; the whole list is shared where that is
    possible."""
    total = sum(weight for weight, _ in accounts.values())
    shares = {name: weight / total for name, (weight, _) in accounts.items()}
    most = {name: cap for name, (_, cap) in accounts.items()}
    found = within(shares, most)
    assert found.keys() == shares.keys()
    assert all(0 <= found[name] <= most[name] + 1e-9 for name in found)
    assert abs(sum(found.values()) - min(1, sum(most.values()))) < 1e-9
