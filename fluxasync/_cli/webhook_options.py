"""The options of a webhook: where callbacks are sent, where they are received, and the secret.

There is no `--webhook-secret`, because every user of the machine can read arguments (`ps`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

from attrs import frozen
from cyclopts import Group, Parameter

from .._core.config import Polling
from .._core.errors import ConfigError
from .._core.webhook import Webhook
from .key_files import LocalPath, key_from

#: environment variable with the secret
SECRET_VARIABLE = "FLUXASYNC_WEBHOOK_SECRET"  # noqa: S105 — its name


@Parameter(name="*", group=Group("Webhook", sort_key=7))
@frozen(kw_only=True)
class WebhookOptions:
    """How a provider calls a run when jobs have ended.

    Parameters
    ----------
    webhook_url
        Public address that the provider calls when a job has ended, as https://host/flux; its jobs
        are then polled less. See docs/webhooks.md.
    webhook_listen
        HOST:PORT to which your proxy or tunnel forwards callbacks, as 127.0.0.1:8090.
    webhook_secret_file
        File that holds the secret of callbacks (default: FLUXASYNC_WEBHOOK_SECRET, or none).
    webhook_signature
        Proof that a callback needs if there is a secret: header, hmac, payload, or auto, which
        accepts each of them (default: auto).
    webhook_wait
        Seconds after which a warning says that no callback arrives, and for which the end of a run
        waits for callbacks about images in doubt (default: 60).
    """

    webhook_url: str | None = None
    webhook_listen: str | None = None
    webhook_secret_file: LocalPath | None = None
    webhook_signature: Literal["auto", "header", "hmac", "payload"] | None = None
    webhook_wait: float | None = None

    def polling(self, lag: float | None, warn: Callable[[str], None]) -> Polling:
        """Return how jobs are polled; passes a warning about the secret's file to `warn`.

        Raises ConfigError for options of a webhook without its two addresses.
        """
        values: dict[str, Any] = {} if lag is None else {"lag": lag}
        if self.webhook_wait is not None:
            values["webhook_wait"] = self.webhook_wait
        if self.webhook_url is not None and self.webhook_listen is not None:
            values["webhook"] = self._webhook(self.webhook_url, self.webhook_listen, warn)
        elif self != WebhookOptions():
            raise ConfigError(
                "a webhook needs --webhook-url, which the provider calls, and --webhook-listen, "
                "where callbacks are received"
            )
        return Polling(**values)

    def lines(self) -> Iterator[str]:
        """Yield what a run says of its webhook before it starts."""
        if self.webhook_url is not None:
            yield f"webhook on: called at {self.webhook_url}, received at {self.webhook_listen}"

    def _webhook(self, url: str, listen: str, warn: Callable[[str], None]) -> Webhook:
        secret = key_from(self.webhook_secret_file, warn, option="--webhook-secret-file")
        secret = secret or os.environ.get(SECRET_VARIABLE, "").strip() or None
        if secret is None and self.webhook_signature not in (None, "auto"):
            raise ConfigError(
                f"--webhook-signature {self.webhook_signature}: needs a secret; give "
                f"--webhook-secret-file or {SECRET_VARIABLE}, or leave the option out"
            )
        try:
            return Webhook(
                url=url,
                listen=listen,
                secret=secret,
                signature=self.webhook_signature or "auto",
            )
        except ConfigError as error:
            error.argument = f"webhook_{error.argument}" if error.argument else ""
            raise
