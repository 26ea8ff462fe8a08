"""The failures that a user's decisions record."""

from __future__ import annotations

from ..._core.errors import FluxError


class Dropped(FluxError):
    """The user gave up an image in doubt: it may have been charged."""

    cause = "dropped"
    sent = True


class Discarded(FluxError):
    """The user deleted the quarantined bytes of an image that was paid."""

    cause = "discarded"
