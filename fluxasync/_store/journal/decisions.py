"""The causes that a user's decisions record."""

from __future__ import annotations

from ..._core.errors import FluxError

#: of a saved image whose file was deleted; its message is the id of the shard that has it
EXPORTED = "exported"


class Dropped(FluxError):
    """The user gave up an image in doubt: it may have been charged."""

    cause = "dropped"
    sent = True


class Discarded(FluxError):
    """The user deleted the quarantined bytes of an image that was paid."""

    cause = "discarded"
