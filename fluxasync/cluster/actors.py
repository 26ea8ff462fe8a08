"""The actors of a run.

An actor is a process that Ray starts on some machine of the cluster. Ray calls a method at most
once, so a call without an answer may have run. No Ray task is used, because Ray repeats those.
"""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.errors import ConfigError, FluxError
from .._core.extras import install_command
from .messages import LedgerOrder, WorkerOrder
from .remote_ledger import Unreachable

if TYPE_CHECKING:
    from .run_ledger import RunLedger
    from .worker_run import WorkerRun

# read when ray is imported: it would report to its makers, and listen on all interfaces
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise ConfigError(f"Ray is not installed: {install_command('ray')}") from error

logger = logging.getLogger("fluxasync")

#: what runs in the actors' own processes, by name: the driver does not import it
_LEDGER, _WORKER = "run_ledger:RunLedger", "worker_run:WorkerRun"
#: names of actors are unique in it
_NAMESPACE = "fluxasync"
#: seconds between two looks of the ledger around
_LOOK = 1.0
#: seconds in which callers are told that the record cannot be opened
_TELLING = 5.0
#: seconds for which a ledger that was restarted tries to open the record
_REOPENING = 300.0
#: seconds in which the head of a cluster accepts a connection
_ANSWERING = 10.0
#: calls to the ledger at the same time
_CALLS = 1_000


class LedgerActor:
    """Runs a RunLedger. Every method of it is called through `call`."""

    def __init__(self, order: LedgerOrder) -> None:
        self._order = order
        self._opening: asyncio.Task[RunLedger] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def call(self, method: str, *arguments: Any) -> tuple[Any, FluxError | None]:
        """Return the value of a method, and its error, one of which is None."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        try:
            ledger = await asyncio.shield(self._opening)
            return await getattr(ledger, method)(*arguments), None
        except FluxError as error:
            return None, error

    async def _open(self) -> RunLedger:
        is_restarted = _is_restarted()
        until = asyncio.get_running_loop().time() + (_REOPENING if is_restarted else 0)
        while True:
            ledger: RunLedger = _named(_LEDGER)(self._order, is_restarted=is_restarted)
            try:
                await ledger.__aenter__()
                break
            except FluxError as error:  # workers wait, with paid jobs to record
                if asyncio.get_running_loop().time() >= until:
                    # after the callers were told: a later start looks for an actor of this name
                    asyncio.get_running_loop().call_later(_TELLING, _end_this_actor)
                    raise
                logger.warning("the ledger is not open yet: %s", error)
                await asyncio.sleep(_LOOK)
        self._looking = asyncio.create_task(self._look_around(ledger))
        return ledger

    async def _look_around(self, ledger: RunLedger) -> None:
        is_needed = True
        while is_needed:
            await asyncio.sleep(_LOOK)
            try:
                is_needed = not await ledger.look_around()
            except FluxError as error:  # a broken record; the ledger has to end all the same
                logger.warning("%s", error)
        try:
            await ledger.close()
        finally:
            _end_this_actor()


class WorkerActor:
    """Runs a WorkerRun."""

    def __init__(self, order: WorkerOrder, name: str, ledger: Any) -> None:
        self._run: WorkerRun = _named(_WORKER)(order, name, _Caller(ledger))

    async def run(self) -> None:
        """Work until the run is over for this worker; its process ends shortly after."""
        try:
            await self._run.run()
        finally:  # the driver may be gone
            asyncio.get_running_loop().call_later(_LOOK, _end_this_actor)


def _is_restarted() -> bool:
    """Whether Ray started this actor again. Ray warns of a function that it calls itself here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def _named(name: str) -> Any:
    module, _, value = name.partition(":")
    return getattr(import_module(f".{module}", __package__), value)


def _end_this_actor() -> None:
    ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


class _Caller:
    """Calls the methods of the ledger. Raises Unreachable, and the FluxError of a method."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    async def __call__(self, method: str, *arguments: Any) -> Any:
        try:
            value, error = await self._ledger.call.remote(method, *arguments)
        except RayActorError as lost:
            raise Unreachable(str(lost)) from lost
        if error is not None:
            raise error
        return value


class RayConnection:
    """A connection to Ray; see `connected`. `is_client`: this process is outside the cluster."""

    def __init__(self, *, is_client: bool) -> None:
        self.is_client = is_client
        self._ledger: Any = None
        self._workers: dict[str, Any] = {}  # by name

    def find_ledger(self, name: str) -> _Caller | None:
        """Return the ledger of a run that another driver started; None = there is none."""
        with suppress(ValueError):
            return _Caller(ray.get_actor(name, namespace=_NAMESPACE))
        return None

    def start_ledger(self, order: LedgerOrder, name: str) -> _Caller:
        """Start the ledger of a run."""
        made: Any = ray.remote(LedgerActor).options(
            name=name,
            namespace=_NAMESPACE,
            lifetime="detached",
            max_restarts=-1,
            max_concurrency=_CALLS,
            num_cpus=0,
            **self._placed(is_here=order.output.is_local),
        )
        self._ledger = made.remote(order)
        return _Caller(self._ledger)

    async def work(self, order: WorkerOrder, name: str) -> None:
        """Start a worker and wait for its end. Raises Unreachable if it is lost."""
        made: Any = ray.remote(WorkerActor).options(
            name=name,
            namespace=_NAMESPACE,
            lifetime="detached",
            max_restarts=0,
            num_cpus=1,
            **self._placed(is_here=order.output.folder is not None),
        )
        self._workers[name] = made.remote(order, name, self._ledger)
        try:
            await self._workers[name].run.remote()
        except (RayActorError, RayTaskError) as lost:
            raise Unreachable(_reason(lost)) from lost
        finally:
            self.kill(name)

    def kill(self, name: str) -> None:
        """End a worker at once, if it is there."""
        if (worker := self._workers.pop(name, None)) is not None:
            ray.kill(worker, no_restart=True)

    def end_ledger(self) -> None:
        """End the ledger's process, which is closed."""
        ray.kill(self._ledger, no_restart=True)

    def _placed(self, *, is_here: bool) -> dict[str, Any]:
        if not is_here:
            return {}
        here = ray.get_runtime_context().get_node_id()
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RayTaskError):
        return lines[-1]
    told = dict(line.split(": ", 1) for line in lines if line.startswith(("pid: ", "ip: ")))
    if "pid" not in told:
        return lines[0]
    return f"process {told['pid']} on {told.get('ip', 'its machine')} has ended"


@asynccontextmanager
async def connected(address: str, *, workers: int) -> AsyncIterator[RayConnection]:
    """Connect to the cluster at an address, or start one on this machine ("local"). Raises
    ConfigError if there is none."""
    is_new = not ray.is_initialized()
    if is_new:
        if (server := _server_of(address)) is not None:
            await _check_answers(*server, address)
        await _connect(address, workers)
    try:
        yield RayConnection(is_client=_is_client())
    finally:
        if is_new:
            await asyncio.to_thread(ray.shutdown)


def _server_of(address: str) -> tuple[str, int] | None:
    """Return host and port of a cluster; None = it is to be started, or Ray has to find it."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "") or _latest()
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else None


def _latest() -> str:
    """Return the address that the last `ray start` on this machine left; "" = there is none."""
    path = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # noqa: S108
    with suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""


async def _check_answers(host: str, port: int, address: str) -> None:
    """Raise ConfigError if nothing listens there: Ray would try for ten minutes, in its own
    threads, which Ctrl-C does not end."""
    try:
        async with asyncio.timeout(_ANSWERING):
            _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        raise _no_cluster(address, f"{host}:{port} does not answer") from error
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _no_cluster(address: str, reason: str) -> ConfigError:
    if address == "local":
        return ConfigError(f"Ray does not start on this machine: {reason}")
    known = "RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else "this machine"
    return ConfigError(
        f"no Ray cluster at {known if address == 'auto' else address}: {reason.rstrip('.')}; start "
        "one with `ray start --head`, or say local for one on this machine alone"
    )


def _is_client() -> bool:
    """Whether this process is outside the cluster (ray://), by whoever connected it."""
    client: Any = ray.util.client.ray
    return bool(client.is_connected())


async def _connect(address: str, workers: int) -> None:
    """Connect in a thread, because Ray blocks. A start that is cancelled once is waited for, so
    that Ray ends properly."""
    connecting = asyncio.create_task(asyncio.to_thread(_init, address, workers))
    try:
        await asyncio.shield(connecting)
    except asyncio.CancelledError:
        with suppress(ConfigError):
            await connecting
        await asyncio.to_thread(ray.shutdown)
        raise


def _init(address: str, workers: int) -> None:
    # Ray's warnings are about itself, and the lines of its actors would go through the live view:
    # both stay in the logs of the cluster
    options: dict[str, Any] = {
        "namespace": _NAMESPACE,
        "logging_level": logging.ERROR,
        "log_to_driver": False,
    }
    if address == "local":
        # this variable makes Ray listen on the loopback address (Ray 2.60)
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        options |= {"include_dashboard": False, "num_cpus": workers + 1}
    try:
        ray.init(address, **options)
    except ConnectionError as error:
        # Ray's reason for "auto" names an option that only its own commands have
        reason = "none was started here" if address == "auto" else str(error).splitlines()[0]
        raise _no_cluster(address, reason) from error
    except (RuntimeError, ValueError, GetTimeoutError) as error:
        raise _no_cluster(address, str(error).splitlines()[0]) from error
