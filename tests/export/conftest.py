"""What the tests of exports share."""

from __future__ import annotations

import pytest

from fluxasync._store.journal import journal as journal_module


@pytest.fixture(autouse=True)
def _no_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the reserve, because writing it is slow."""
    monkeypatch.setattr(journal_module, "RESERVE", 0)
