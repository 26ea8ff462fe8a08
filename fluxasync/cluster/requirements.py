"""What a run on a cluster needs, and what only one process does."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from .._batch.settlement import Reconcile
from .._core.errors import ConfigError
from .._core.extras import install_command
from .._engine.engine import Engine
from .._engine.job_slots import model_group


def check_installed() -> None:
    """Raise ConfigError if Ray is not installed. Does not import it, which takes a second."""
    if find_spec("ray") is None:
        raise ConfigError(f"Ray is not installed: {install_command('ray')}")


def check_options(engine: Engine, *, retry: str | Iterable[str], reconcile: Reconcile) -> None:
    """Raise ConfigError for what only a Batch does."""
    policies = engine.policies
    if policies.limits.in_flight == "auto":
        raise ConfigError("cluster: in_flight is a number, the slots of all workers together")
    if policies.polling.webhook is not None:
        raise ConfigError("cluster: callbacks reach one process only: leave the webhook out")
    if engine.network.is_given:
        raise ConfigError(
            "cluster: proxy and ssl are each machine's own: set HTTPS_PROXY and SSL_CERT_FILE there"
        )
    if retry:
        raise ConfigError("retry: repeat failures without the cluster: the same call without it")
    if reconcile == "always":
        raise ConfigError(
            "reconcile: images in doubt are looked for after the run: fluxasync resolve --reconcile"
        )


def check_models(models: Iterable[str]) -> None:
    """Raise ConfigError for a model with a limit of its own, which no share divides."""
    for model in models:
        if (cap := model_group(model)[1]) is not None:
            raise ConfigError(
                f"{model}: at most {cap} of its jobs are active, which one process serves: leave "
                "the cluster out"
            )
