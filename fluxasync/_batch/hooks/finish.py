"""The end of a run, told to others: a command gets the summary, and a URL gets it by POST.

Both happen at the same time, each within its own seconds. What fails is logged and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from ..._core.config import Timeouts
from ..._core.errors import ConfigError, FluxError, cut
from ..._core.protocols import Call
from ..._core.text import display
from ..._wire import tls
from ..._wire.proxies import ProxySettings
from ..._wire.transport import AiohttpTransport
from ..summary import Summary
from .commands import check_program, run_command, split
from .saved_hook import SAID_AFTER, HookError

logger = logging.getLogger("fluxasync")

#: environment variable with the summary
VARIABLE = "FLUXASYNC_SUMMARY"
#: seconds for the command, and for the POST
COMMAND_TIMEOUT, POST_TIMEOUT = 60.0, 10.0


@frozen
class Finish:
    """Who is told the end of a run. Raises ConfigError for what cannot be."""

    command: tuple[str, ...] = ()
    url: str | None = None

    @classmethod
    def of(cls, command: str | None, url: str | None) -> Finish:
        """Return what `--on-finish` and `--notify-url` name. Raises ConfigError."""
        if url is not None:
            _check_url(url)
        words = () if command is None else tuple(split(command, "--on-finish"))
        if words:
            check_program(words[0], "--on-finish")
        return cls(words, url)

    async def tell(self, summary: dict[str, Any]) -> None:
        """Tell everybody the summary; never raises but when cancelled."""
        told = [self._run(summary)] if self.command else []
        if self.url is not None:
            told.append(self._post(self.url, summary))
        saying = asyncio.get_running_loop().call_later(SAID_AFTER, self._say_waiting)
        try:
            answers = await asyncio.gather(*told, return_exceptions=True)
        finally:
            saying.cancel()
        for error in answers:
            if isinstance(error, Exception):  # a defect of ours must not end the run
                logger.warning("the end of the run could not be told", exc_info=error)

    def _say_waiting(self) -> None:
        if self.command:
            logger.warning("waiting for --on-finish, at most %g s", COMMAND_TIMEOUT)
        else:
            logger.warning("waiting for --notify-url, at most %g s", POST_TIMEOUT)

    async def _run(self, summary: dict[str, Any]) -> None:
        text = json.dumps(summary)
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                await run_command(self.command, given=text.encode(), variables={VARIABLE: text})
        except TimeoutError:
            logger.warning("--on-finish did not end within %g s and was killed", COMMAND_TIMEOUT)
        except HookError as error:
            logger.warning("--on-finish: %s", error)

    async def _post(self, url: str, summary: dict[str, Any]) -> None:
        host = display(urlsplit(url).hostname or "", 80)  # the rest may be a secret
        call = Call(
            method="POST",
            url=url,
            headers={"Content-Type": "application/json"},
            body=json.dumps(summary).encode(),
            timeout=POST_TIMEOUT,
        )
        try:
            async with asyncio.timeout(POST_TIMEOUT):
                transport = AiohttpTransport(
                    timeouts=Timeouts(),
                    proxies=ProxySettings(None, dict(os.environ)),
                    ssl=tls.trusted(os.environ),
                )
                async with transport:
                    reply = await transport.send(call)
        except TimeoutError:
            logger.warning("--notify-url: %s did not answer within %g s", host, POST_TIMEOUT)
        except (FluxError, OSError, ValueError) as error:
            path = urlsplit(url).path
            reason = str(error) if len(path) < 2 or path not in str(error) else "no connection"
            logger.warning("--notify-url: %s was not reached: %s", host, display(reason, 200))
        else:
            if not 200 <= reply.status < 300:
                logger.warning("--notify-url: %s answered HTTP %d", host, reply.status)


def summary_row(
    summary: Summary, *, place: str, error: BaseException | None = None, simulated: bool = False
) -> dict[str, Any]:
    """Return the end of a run as JSON values. `text` and `content` have its line, which chat
    services show."""
    line = f"fluxasync: {summary.line(simulated=simulated)} → {place}"
    line += "" if error is None else f"; ended by: {error}"
    cost = Decimal(0) if simulated else summary.cost
    return {
        "text": line,
        "content": line,
        "place": place,
        "saved": summary.saved,
        "skipped": summary.skipped,
        "failed": dict(summary.failed),
        "in_doubt": summary.in_doubt,
        "in_doubt_earlier": summary.in_doubt_earlier,
        "damaged": summary.damaged,
        "quarantined": summary.quarantined,
        "unclaimed": summary.unclaimed,
        "not_started": summary.not_started,
        "cost": float(cost),
        "in_doubt_cost": float(summary.in_doubt_cost),
        "seconds": round(summary.seconds, 3),
        "simulated": simulated,
        "error": None if error is None else str(error),
    }


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
    except ValueError:
        is_usable = False
    if not is_usable or " " in url:
        raise ConfigError(f"--notify-url: an http or https URL, not {cut(url.split('?')[0])}")
