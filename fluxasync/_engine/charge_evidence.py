"""What a usage log shows about submissions that the list of tasks lacks: a value, and its question.

A submission was not charged only if each charge near it is another job's, and each job near it has
its charge. Else one of those charges may be its own.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from attrs import frozen

#: by how much the time of a task or of a charge may be before and after the intent of its
#: submission: clocks differ, and a submission may wait for its connection
EARLIER, LATER = timedelta(seconds=60), timedelta(minutes=10)
#: the reasons that `ChargeEvidence.against` gives
UNMATCHED = "a charge of the usage log may be its own"
LACKING = "the usage log lacks charges of other jobs of that time"


@frozen(kw_only=True)
class UncertainTime:
    """A time in which a charge may be of a submission without a job."""

    model: str | None  #: as `bare_name` gives it; None = any model
    first: datetime
    last: datetime
    reason: str


@frozen(kw_only=True)
class ChargeEvidence:
    """What the usage log shows beside the jobs of a journal."""

    uncertain: tuple[UncertainTime, ...] = ()
    missing: str | None = None  #: why the log shows nothing; None = it was read whole

    def against(self, model: str, first: datetime, last: datetime) -> str | None:
        """Return why a submission of this model (a bare name), with its charge in this time, may be
        charged; None = the log shows that it is not."""
        if self.missing is not None:
            return self.missing
        for time in self.uncertain:
            if time.model in (None, model) and time.first <= last and first <= time.last:
                return time.reason
        return None
