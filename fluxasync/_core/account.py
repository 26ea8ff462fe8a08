"""What a provider says about an account: its balance, its tasks, its usage log.

The vendors say "task" for a job. The tasks are all jobs of the account, from whichever program they
were submitted. What an answer does not say is None.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from attrs import frozen


@frozen(kw_only=True)
class AccountTask:
    """A job as the provider's list of tasks shows it."""

    job_id: str
    submitted_at: datetime | None  #: UTC, by the provider's clock
    model: str | None
    status: str  #: the provider's word, such as SUCCESS; "" = none was given
    cost: Decimal | None  #: US dollars


@frozen(kw_only=True)
class TaskList:
    """The tasks of a time, in the provider's order (newest first), each once."""

    tasks: tuple[AccountTask, ...]
    #: all pages were read; if false, a task that is missing here may exist
    is_complete: bool


@frozen(kw_only=True)
class Candidate:
    """A job of the account that may be a submission in doubt."""

    job_id: str
    status: str  #: what is known of it, such as "still running", "moderated", "another prompt"
    submitted_at: datetime | None = None  #: UTC, by the provider's clock; None = it is not listed
    prompt: str = ""  #: the start of the prompt that the provider reports, if it is another one


@frozen(kw_only=True)
class UsageEntry:
    """One entry of the account's usage log."""

    at: datetime | None  #: UTC, by the provider's clock
    kind: str  #: top-up, consume, manage, system, error or refund; else the provider's own word
    model: str | None
    cost: Decimal | None  #: US dollars; of a refund, what was given back
    request_id: str | None
    #: what the entry may name as its job: the `task_id`, else the words of its text that can be ids
    names: tuple[str, ...] = ()
    #: a difference charged or given back for a job that was charged before
    is_adjustment: bool = False


@frozen(kw_only=True)
class UsageLog:
    """The entries of a time, in the provider's order (newest first)."""

    entries: tuple[UsageEntry, ...]
    is_complete: bool  #: all pages were read, and none changed meanwhile


@frozen(kw_only=True)
class Balance:
    """What is left on an account, and of the key's own limit if it has one: the smaller of both."""

    left: Decimal | None  #: US dollars; None = the provider gives no figure
    used: Decimal | None  #: US dollars since the beginning of the account, or of the key
    is_unlimited: bool = False  #: the key has no limit, and the account's balance is not known
