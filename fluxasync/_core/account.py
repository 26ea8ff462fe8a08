"""What a provider says about an account: the tasks that it lists.

The vendors say "task" for a job. A task of the list is a job of the account, from whichever program
it was submitted.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from attrs import frozen


@frozen(kw_only=True)
class AccountTask:
    """A job as the provider's list of tasks shows it; what the list does not say is None."""

    job_id: str
    submitted_at: datetime | None  #: UTC, by the provider's clock
    model: str | None
    status: str  #: the provider's word, such as SUCCESS; "" = none was given
    cost: Decimal | None  #: US dollars


@frozen(kw_only=True)
class TaskList:
    """The tasks of a time, newest first, each once."""

    tasks: tuple[AccountTask, ...]
    #: all pages were read; if false, a task that is missing here may exist
    is_complete: bool
