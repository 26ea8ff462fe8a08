"""A benchmark measures the provider, and not what earlier runs of the user have learned."""

from __future__ import annotations

import pytest

from fluxasync import FluxSession, Polling
from fluxasync._engine.session import engine_of
from fluxasync.bench.setup import start_cold


@pytest.mark.parametrize(("given", "used"), [(None, False), (False, False), (True, True)])
def test_a_benchmark_starts_cold_unless_it_is_asked_not_to(given: bool | None, used: bool) -> None:
    """Otherwise two reports of the same service would differ."""
    engine = engine_of(FluxSession(api_key="unused", polling=Polling(lag=0.02, remember=given)))
    start_cold([engine])
    assert engine.policies.polling == Polling(lag=0.02, remember=used)
