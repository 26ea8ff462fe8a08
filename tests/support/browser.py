"""A real browser for tests: Debian's Chromium, headless, with nothing of a person's in it.

`Browser` opens pages, presses keys, sets the width of the screen and its colours, and hands out
what the console said: an error there, a violated policy among them, is what a page's visitor would
find broken.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from support.patience import HANGING, patient

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--no-first-run", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--disable-dev-shm-usage",
)  # fmt: skip


def without(what: str) -> NoReturn:
    """Skip a test for what is missing; with `CI=true` in the environment, fail it instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; with CI=true no browser test is skipped", pytrace=False)
    pytest.skip(what)


class Browser:
    """One window; see the module."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, *, wide: int = 1400, tall: int = 900, dark: bool = False) -> None:
        """Open a page anew, in a window of so many CSS pixels."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": wide, "height": tall, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.complaints()
        self.driver.get(url)

    def run(self, script: str, *args: Any) -> Any:
        """Return what an expression of JavaScript gives, with `arguments`."""
        return self.driver.execute_script(f"return ({script})", *args)

    def until(self, script: str, *args: Any, within: float = HANGING) -> Any:
        """Wait until an expression is true, looking at every frame; return what it gave."""
        code = (
            "const done = arguments[arguments.length - 1]; const args = arguments;"
            f"const look = () => {{ const found = (function () {{ return ({script}); }})"
            ".apply(null, args); if (found) done(found); else setTimeout(look, 15); }; look();"
        )
        self.driver.set_script_timeout(patient(within))
        return self.driver.execute_async_script(code, *args)

    def press(self, *keys: str) -> None:
        """Press keys where the focus is, as a person would."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def click(self, selector: str) -> None:
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def complaints(self) -> list[str]:
        """Return what the console has complained of since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def shoot(self, path: Path) -> None:
        """Save what is seen as a PNG."""
        found = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(found["data"]))


def _started(selenium: Any, options: Any) -> Any:
    """Start it, once more where a busy machine let its first start take too long."""
    from selenium.common.exceptions import SessionNotCreatedException

    try:
        return selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    except SessionNotCreatedException:
        return selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser with a profile of its own; skip the test where there is none."""
    try:
        from selenium import webdriver as selenium
    except ImportError:
        without("selenium is not installed: make test installs it")
    if CHROMIUM is None or DRIVER is None:
        without("no Chromium with its driver: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="fluxasync-browser-") as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = _started(selenium, options)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
