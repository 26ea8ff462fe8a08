"""What every test shares: which event loop it runs on, and that no test can spend money.

`FLUXASYNC_TEST_LOOP=uvloop` runs the asyncio tests on uvloop; unset or `default` means asyncio's
own loop. The loop comes from a factory, because event loop policies are deprecated from
Python 3.14 on.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import signal
from collections.abc import Callable, Generator, Iterator

import pytest
from hypothesis import settings

LOOP = os.environ.get("FLUXASYNC_TEST_LOOP") or "default"

# Deadlines measure the machine, not the code: on a busy one they fail good tests.
settings.register_profile("fluxasync", deadline=None)
settings.load_profile("fluxasync")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    match LOOP:
        case "default":
            return asyncio.new_event_loop
        case "uvloop":
            import uvloop  # only where asked for: it is an extra

            return uvloop.new_event_loop
        case unknown:
            raise pytest.UsageError(f"FLUXASYNC_TEST_LOOP={unknown}: say default or uvloop")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {LOOP: _loop_factory()}


#: the files that take longest, then the directories; they come first, so that none is left alone at
#: the end
LONGEST = (
    "integration/test_settlement.py", "integration/test_cli_journal.py", "requests/test_bombs.py",
    "simulation/test_storms.py", "docs/test_blocks.py", "integration/test_disk_faults.py",
    "integration/test_run_export.py", "docs/test_pages.py", "cases/test_case_02_flux3.py",
    "cases/test_case_21_descriptors.py", "integration/test_bench.py",
    "integration/test_bucket_faults.py", "integration/test_live_terminal.py",
    "property", "simulation", "cluster", "crash", "docs", "export", "integration", "cases",
    "requests", "store",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"tests/{name}": place for place, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        return places.get(file, places.get(folder, len(LONGEST)))

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the thousands of tests and their modules to no garbage collection: all of them stay to
    the end, and each full collection would take half a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_report_header() -> str:
    factory = _loop_factory()
    loop = factory()
    loop.close()
    return f"event loop: {type(loop).__module__}.{type(loop).__name__} on {platform.platform()}"


# under `nohup` a hang-up is ignored, and so it would be by every process that a test starts
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _no_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds a real key, so none can spend money or pass only where a key is set; nor does
    a proxy or a certificate file of this machine decide what a test reaches. No test writes into
    this user's cache. The simulator draws what is quickly drawn."""
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COMETAPI_KEY", "BFL_API_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
            patch.delenv(name, raising=False)
        for name in proxies:
            patch.delenv(name, raising=False)
            patch.delenv(name.lower(), raising=False)
        patch.setenv("FLUXASYNC_PICTURES", "plain")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
