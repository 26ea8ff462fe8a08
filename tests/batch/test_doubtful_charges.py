"""Which submissions without a job may have a charge of the usage log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from fluxasync._batch.bill.doubtful_charges import accepted, charge_evidence, time_of_charges
from fluxasync._core.account import UsageEntry, UsageLog
from fluxasync._engine.charge_evidence import LACKING, UNMATCHED
from fluxasync._store.journal.spending_groups import Fate, SpendingGroup

BEGUN = datetime(2026, 11, 29, 12, tzinfo=UTC)
PRICE = Decimal("0.025")
#: within which a charge may be before and after its submission
EARLIER, LATER = 60, 600


def at(seconds: float) -> datetime:
    return BEGUN + timedelta(seconds=seconds)


def job(seconds: float, model: str = "flux-dev", *, price: Decimal | None = PRICE) -> SpendingGroup:
    minute = at(seconds).replace(second=0, microsecond=0)
    return SpendingGroup(model=model, fate="saved", at=minute, money=price, price=price, count=1)


def charge(
    seconds: float | None, model: str | None = "flux-dev", cost: Decimal = PRICE
) -> UsageEntry:
    when = None if seconds is None else at(seconds)
    return UsageEntry(at=when, kind="consume", model=model, cost=cost, request_id=None)


def against(
    jobs: list[SpendingGroup],
    *charges: UsageEntry,
    doubt: float = 0,
    is_complete: bool = True,
) -> str | None:
    """Return what the log has against "not charged" of a flux-dev submission."""
    time = time_of_charges(jobs, [at(doubt)])
    entries = [each for each in charges if each.at is None or time[0] <= each.at <= time[1]]
    log = UsageLog(entries=tuple(entries), is_complete=is_complete)
    shown = charge_evidence(jobs, log, {}, time=time)
    return shown.against("flux-dev", at(doubt - EARLIER), at(doubt + LATER))


def test_a_log_in_which_each_charge_has_its_job_shows_that_nothing_else_was_charged() -> None:
    """Three jobs and three charges; those of another model and those of refunds do not matter."""
    jobs = [job(0), job(5), job(61), job(3, "flux-pro")]
    charges = [charge(1), charge(6), charge(62), charge(4, "flux-pro")]
    assert against(jobs, *charges) is None


def test_a_charge_more_than_jobs_may_be_the_submissions_own() -> None:
    """Whatever it cost, and whether or not the log tells its model and its time."""
    for more in (charge(2), charge(2, cost=Decimal(9)), charge(2, None), charge(None)):
        assert against([job(0)], charge(1), more) == UNMATCHED


def test_a_charge_more_of_another_model_is_anothers() -> None:
    """Gateways put prefixes before names."""
    assert against([job(0)], charge(1), charge(2, "flux-pro")) is None
    assert against([job(0)], charge(1), charge(2, "bfl/flux-dev")) == UNMATCHED


def test_a_job_without_a_charge_shows_that_the_log_lacks_something() -> None:
    """A gateway may keep no log of charges; the list's witness has one, or nothing is shown."""
    assert against([job(0)]) == LACKING
    assert against([job(0, "flux-pro")]) == LACKING


def test_a_part_of_a_log_shows_nothing() -> None:
    """The charge may be on the page that is missing."""
    assert against([job(0)], charge(1), is_complete=False) is not None


def test_a_charge_that_is_left_over_at_the_end_of_a_long_run_may_stand_for_an_earlier_one() -> None:
    """In a run of an hour each charge may be of the job before: the one that is left over is the
    last, and the submission without a job was near the beginning."""
    seconds = range(0, 3_600, 20)
    charges = [charge(each + 1) for each in seconds]
    assert against([job(each) for each in seconds], *charges, doubt=90) is None
    assert against([job(each) for each in seconds], *charges, charge(91), doubt=90) == UNMATCHED


def test_charges_of_another_hour_decide_nothing() -> None:
    """No job could have exchanged its charge with that one."""
    jobs = [job(0), job(7_200)]
    assert against(jobs, charge(1), charge(7_201), charge(7_202)) is None


def test_a_job_that_was_found_in_the_same_look_has_its_charge() -> None:
    """It is not in the journal yet."""
    jobs = accepted([job(0)], [("flux-dev", at(30))])
    assert against(jobs, charge(1), charge(31)) is None


def test_submissions_without_a_job_take_no_charge_away() -> None:
    """Neither those in doubt nor those that were given up."""
    fates: tuple[Fate, ...] = ("in doubt", "given up")
    groups = [job(0), *(evolve(job(0), fate=fate, count=3) for fate in fates)]
    assert against(accepted(groups, []), charge(1), charge(2)) == UNMATCHED


DELAYS = st.integers(-EARLIER, LATER)
JOBS = st.lists(
    st.tuples(
        st.integers(0, 4_000), DELAYS, st.sampled_from([PRICE, Decimal("0.04"), Decimal("0.05")])
    ),
    max_size=12,
)


@given(jobs=JOBS, doubt=st.integers(0, 4_000), delay=DELAYS)
def test_a_submission_that_was_charged_is_never_shown_as_not_charged(
    jobs: list[tuple[int, int, Decimal]], doubt: int, delay: int
) -> None:
    """Whenever the charges came, in whatever order and at whatever price: its own is in the log."""
    charges = [charge(when + late, cost=cost) for when, late, cost in jobs]
    submissions = [job(when) for when, _, _ in jobs]
    assert against(submissions, *charges, charge(doubt + delay), doubt=doubt) is not None
