"""Kill tests are slow: `make quick` skips them all."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/crash/"):
            item.add_marker(pytest.mark.slow)
