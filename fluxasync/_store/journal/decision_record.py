"""What is decided about single images of an open journal: by a user, or by the provider's lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import doubts, spending_groups, steps
from .account_counts import AccountCounts, by_account
from .candidates import candidates_of, encoded
from .reader import count_quarantined
from .serialization import job_of, request_of, storable
from .writer import StepKind

if TYPE_CHECKING:
    from ..._core.account import Candidate
    from ..._core.models import ImageRequest, Job
    from .checked_row import Row
    from .doubts import LostSubmission, RecordedAttempt
    from .spending_groups import JournalJob, SpendingGroup
    from .writer import Writer


class DecisionRecord:
    """Reads what is undecided and records decisions; each is durable when its call returns."""

    def __init__(self, writer: Writer, *, stem_of: Callable[[ImageRequest], str] | None) -> None:
        self._writer = writer
        self.stem_of = stem_of  #: the path of an image's file without its extension

    # --- images in doubt ------------------------------------------------------------------------

    async def lost_submissions(
        self, provider: str, origin: str, account: str = ""
    ) -> list[LostSubmission]:
        """Return the submissions in doubt that an account made at this provider, oldest first;
        those that are to be submitted again are among them."""
        return await self._writer.run(
            doubts.lost_submissions, provider, origin, account, kind=StepKind.READ
        )

    async def jobs_among(self, job_ids: Collection[str]) -> dict[str, tuple[str, datetime, str]]:
        """Return model, time of submission and account of those jobs that rows of the journal
        have."""
        return await self._writer.run(doubts.jobs_among, job_ids, kind=StepKind.READ)

    async def submissions(self) -> list[SpendingGroup]:
        """Return all submissions in groups of a minute, oldest first."""
        return await self._writer.run(spending_groups.spending_groups, kind=StepKind.READ)

    async def jobs_named(self, job_ids: Collection[str]) -> dict[str, JournalJob]:
        """Return those of the jobs that rows of the journal have, with their money."""
        return await self._writer.run(spending_groups.jobs_named, job_ids, kind=StepKind.READ)

    async def attempt(self, token: str) -> RecordedAttempt | None:
        """Return the attempt with this token while its image is being submitted, runs or is in
        doubt; None = no such attempt."""
        return await self._writer.run(doubts.attempt_of, token, kind=StepKind.READ)

    async def has_jobs(
        self, place: tuple[str, str], account: str, since: datetime, until: datetime
    ) -> bool:
        """Return whether a job that an account submitted there in this time is recorded."""
        span = since.timestamp(), until.timestamp()
        return await self._writer.run(doubts.has_jobs, *place, account, *span, kind=StepKind.READ)

    async def mark(
        self, key: str, *, is_unlisted: bool | None, candidates: Sequence[Candidate] = ()
    ) -> None:
        """Record whether the provider's list lacks a submission in doubt (None = as before), and
        the jobs that it may be."""
        await self._writer.apply(
            steps.MarkStep(
                at=time.time(),
                key=bytes.fromhex(key),
                is_unlisted=is_unlisted,
                candidates=encoded(candidates),
            )
        )

    async def candidates(self) -> dict[str, tuple[Candidate, ...]]:
        """Return the jobs that submissions in doubt may be, by key."""
        return await self._writer.run(candidates_of, kind=StepKind.READ)

    async def count_unlisted(self) -> int:
        """Count the submissions in doubt that the provider's list lacks."""
        return await self._writer.run(doubts.count_unlisted, kind=StepKind.READ)

    async def is_unlisted(self, key: str) -> bool:
        """Return whether a submission is in doubt, and the provider's list lacks it."""
        return await self._writer.run(doubts.is_unlisted, key, kind=StepKind.READ)

    async def count_again(self) -> int:
        """Count the images that are to be submitted again after a doubt."""
        return await self._writer.run(doubts.count_again, kind=StepKind.READ)

    async def is_again(self, key: str) -> bool:
        """Return whether an image is to be submitted again after a doubt."""
        return await self._writer.run(doubts.is_again, key, kind=StepKind.READ)

    async def drop(self, key: str) -> None:
        """Give up an image in doubt: it becomes a failure. Raises JournalError for other images."""
        await self._writer.apply(steps.DropStep(at=time.time(), key=bytes.fromhex(key)))

    async def give_job(self, key: str, job_id: str) -> None:
        """Record which job an image in doubt became, or collect a failed image's own job again.
        Raises ConfigError for the id of another image's job."""
        await self._writer.apply(
            steps.GiveJobStep(at=time.time(), key=bytes.fromhex(key), job_id=job_id)
        )

    async def adopt(self, key: str, job_id: str) -> Job:
        """Record which job an image became that is in doubt, or is to be submitted again after a
        doubt; return the job, to be collected. Raises ConfigError for the id of another image's
        job, and JournalError for an image that is not in doubt any more."""
        found = await self._writer.run(doubts.request_in_doubt, key, kind=StepKind.READ)
        stem = None if self.stem_of is None else storable(self.stem_of(found))
        step = steps.AdoptStep(at=time.time(), key=bytes.fromhex(key), job_id=job_id, stem=stem)
        row: Row = await self._writer.apply(step)
        return job_of(row, request_of(row))

    async def disown(self, key: str, job_id: str, message: str) -> bool:
        """Leave an image in doubt again, because the provider does not know the job that was found
        for it. False, and nothing changes, for a job that was the answer to its submission."""
        step = steps.DisownStep(
            at=time.time(), key=bytes.fromhex(key), job_id=job_id, message=storable(message)
        )
        is_recorded: bool = await self._writer.apply(step)
        return is_recorded

    async def forget(self, keys: Sequence[str]) -> int:
        """Let images be submitted, and paid, again; return their number. What they may have cost
        stays counted."""
        count: int = await self._writer.apply(
            steps.ForgetStep(at=time.time(), keys=map(bytes.fromhex, keys))
        )
        return count

    async def open_owners(self) -> list[str]:
        """Return the owners of submissions that wait for their answer."""
        return await self._writer.run(doubts.open_owners, kind=StepKind.READ)

    async def abandon(self, owner: str) -> int:
        """Mark the open submissions of a session that ended in doubt; return their number."""
        count: int = await self._writer.apply(steps.AbandonStep(at=time.time(), owner=owner))
        return count

    # --- money ----------------------------------------------------------------------------------

    async def by_account(self) -> Mapping[str, AccountCounts]:
        """Return what each of several accounts has of the images."""
        return await self._writer.run(by_account, kind=StepKind.READ)

    async def refunded(self, key: str, job_id: str) -> bool:
        """Count a failed image as not charged: the provider gave its job back. False = the image
        is not failed any more, or has another job."""
        step = steps.RefundStep(at=time.time(), key=bytes.fromhex(key), job_id=job_id)
        is_recorded: bool = await self._writer.apply(step)
        return is_recorded

    # --- quarantine and lists -------------------------------------------------------------------

    async def count_quarantined(self) -> int:
        """Count the images whose bytes are in quarantine."""
        return await self._writer.run(count_quarantined, kind=StepKind.READ)

    async def release(self, key: str, image: tuple[Any, ...] | None) -> None:
        """Record what became of quarantined bytes: the columns of a done row, or None."""
        await self._writer.apply(
            steps.ReleaseStep(at=time.time(), key=bytes.fromhex(key), columns=image)
        )

    async def template(self) -> str | None:
        """Return the template of file names of the last run; None = not recorded."""
        return await self._writer.run(doubts.recorded_template, kind=StepKind.READ)
