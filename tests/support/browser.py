"""A headless Chromium for tests, with an empty profile, driven by selenium.

`Browser` opens pages in a window of any width and colour scheme, presses keys, and returns what the
console and the network reported: an error in the console is a broken page.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


def skip_without_browser(reason: str) -> NoReturn:
    """Skip the test; with `CI=true` in the environment, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; with CI=true no browser test is skipped", pytrace=False)
    pytest.skip(reason)


class Browser:
    """One window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, *, wide: int = 1400, tall: int = 900, dark: bool = False) -> None:
        """Load a page in a window of this size in CSS pixels; forget earlier reports."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": wide, "height": tall, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.console()
        self.events()
        self.driver.get(url)

    def run(self, script: str, *args: Any) -> Any:
        """Return the value of a JavaScript expression; `arguments` are `args`."""
        return self.driver.execute_script(f"return ({script})", *args)

    def until(self, script: str, *args: Any, within: float = HANGING) -> Any:
        """Wait until an expression is true, checked every 15 ms; return its value."""
        code = (
            "const done = arguments[arguments.length - 1]; const args = arguments;"
            f"const look = () => {{ const found = (function () {{ return ({script}); }})"
            ".apply(null, args); if (found) done(found); else setTimeout(look, 15); }; look();"
        )
        self.driver.set_script_timeout(patient(within))
        return self.driver.execute_async_script(code, *args)

    def press(self, *keys: str) -> None:
        """Press keys in the focused element."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def click(self, selector: str) -> None:
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def allow_clipboard(self) -> None:
        """Let pages read and write the clipboard, as a user at a screen would."""
        permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
        self.driver.execute_cdp_cmd("Browser.grantPermissions", permissions)

    def clipboard(self) -> str:
        """Return the text in the clipboard."""
        code = "navigator.clipboard.readText().then(arguments[arguments.length - 1])"
        return str(self.driver.execute_async_script(code))

    def console(self) -> list[str]:
        """Return the console's messages since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return method and parameters of the DevTools events since the last call.

        The domains are Network and Page.
        """
        entries = [json.loads(entry["message"]) for entry in self.driver.get_log("performance")]
        return [(entry["message"]["method"], entry["message"]["params"]) for entry in entries]

    def screenshot(self, *, whole: bool = True) -> bytes:
        """Return the complete page as a PNG, or the part in the window."""
        options = {"format": "png", "captureBeyondViewport": whole}
        return base64.b64decode(
            self.driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
        )


def _started(selenium: Any, options: Any) -> Any:
    """Start the driver; on a busy machine the first start may time out, so try twice."""
    from selenium.common.exceptions import SessionNotCreatedException

    try:
        return selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    except SessionNotCreatedException:
        return selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser with an empty profile; skip the test if there is none."""
    try:
        from selenium import webdriver as selenium
    except ImportError:
        skip_without_browser("selenium is not installed: make test installs it")
    if CHROMIUM is None or DRIVER is None:
        skip_without_browser("no Chromium or driver: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(prefix="fluxasync-browser-") as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = _started(selenium, options)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
