"""What happens before and after the load: target, price check, environment, folder."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import evolve

from .._core.amounts import dollars
from .._core.errors import ConfigError
from .._core.extras import install_command
from .._core.prices import NO_PRICES, Prices
from .._core.simulator_process import simulator_process
from .._core.text import display
from .._core.version import __version__
from .._requests.catalog import closest_model
from .._requests.estimate import Estimator
from .._store.files import disk_error, make_folder
from .._wire.providers import PROVIDERS, Provider, provider_by_name
from .bench_config import BenchConfig
from .prompt_pool import MOST_KEPT, PromptPool
from .records import IMAGES_NAME, RECORDS_NAME, REPORT_NAME, Report, write_report
from .workload import USUAL_IN_FLIGHT, Workload, stages_of

if TYPE_CHECKING:
    from .._engine.engine import Engine
    from .._engine.pool_account import Account

#: size of the simulator's one image: drawing one for each prompt takes 70 ms of a core, which would
#: be measured instead of the client
_IMAGE_BYTES = 256 * 1024
#: seconds that a simulator has to identify itself
_IDENTIFY_TIMEOUT = 5.0
_PACKAGES = ("aiohttp", "aiofiles", "attrs", "uvloop", "orjson")


# --- the target -----------------------------------------------------------------------------------


@asynccontextmanager
async def resolve_target(
    config: BenchConfig, *, warn: Callable[[str], None]
) -> AsyncIterator[BenchConfig]:
    """Yield the config with its target: a simulator where it asks for one, or no key is set.

    In the second case `warn` is called first. The simulator ends with the block.
    """
    if config.accounts:
        async with _accounts(config) as accounts:
            yield evolve(config, accounts=accounts)
        return
    missing = "" if config.simulate else _missing_key_variables(config)
    if config.base_url is not None or not (config.simulate or missing):
        yield config
        return
    if missing:
        warn(f"NO KEY IS SET: the simulator is measured, not the API; to measure it, set {missing}")
    async with simulator_process(image_bytes=_IMAGE_BYTES) as url:
        # a made-up key: the real one is never sent, not even to the local simulator
        yield evolve(config, base_url=url, api_key="simulated", simulate=True)


@asynccontextmanager
async def _accounts(config: BenchConfig) -> AsyncIterator[tuple[Account, ...]]:
    """Yield the accounts; with `simulate` each is at a simulator of its own, with its slots."""
    if not config.simulate:
        yield config.accounts
        return
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(
                simulator_process(image_bytes=_IMAGE_BYTES, limit=account.slots)
            )
            for account in config.accounts
        ]
        pairs = zip(config.accounts, urls, strict=True)
        yield tuple(account.simulated(url) for account, url in pairs)


def _missing_key_variables(config: BenchConfig) -> str:
    """Return the variables that could hold a key when none is given, else "".

    A Provider object is a target chosen by the caller; the session checks its key.
    """
    if config.api_key or isinstance(config.provider, Provider):
        return ""
    candidates = (
        PROVIDERS.values() if config.provider is None else [provider_by_name(config.provider)]
    )
    variables = [each.key_variable for each in candidates if each.key_variable is not None]
    is_set = any(os.environ.get(variable, "").strip() for variable in variables)
    return "" if is_set else " or ".join(variables)


async def is_simulator(provider: Provider) -> bool:
    """Whether the provider is a simulator of this package on this machine; sends no key."""
    if not provider.is_loopback:
        return False
    import aiohttp

    parts = urlsplit(provider.base_url)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_IDENTIFY_TIMEOUT)) as client,
            client.get(f"{parts.scheme}://{parts.netloc}/simulator/ledger") as reply,
        ):
            ledger = await reply.json() if reply.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    return isinstance(ledger, dict) and "charges" in ledger and "spent_usd" in ledger


# --- the price ------------------------------------------------------------------------------------


def start_cold(engines: Iterable[Engine]) -> None:
    """Learn durations anew, so that earlier runs do not change what is measured; unless the user
    has `Polling(remember=True)`."""
    for engine in engines:
        polling = engine.policies.polling
        if polling.remember is None:
            engine.set_polling(evolve(polling, remember=False))


def check_cap(config: BenchConfig, engine: Engine, prompts: PromptPool, *, simulated: bool) -> None:
    """Refuse a run whose cost would not be limited. Raises ConfigError."""
    host = engine.provider.origin[1]
    if config.simulate and not simulated:
        raise ConfigError(
            f"simulate=True needs a simulator on this machine; {host} is not one: "
            "leave out the base URL, or set a spending limit instead"
        )
    if not simulated and config.max_cost is None:
        raise ConfigError(
            f"a benchmark of {host} spends money: set the most to spend, e.g. max_cost=2.00, "
            "or measure the simulator with simulate=True"
        )
    if config.max_cost is not None:
        for model in config.models:
            if engine.price_of(prompts.request(model, 0)) is None:
                near = closest_model(model)
                step = f"did you mean {near}?" if near else "fluxasync models lists the known ones"
                step += f"; to give it: --price {display(model, 60)}=0.04 (in Python: prices=…)"
                raise ConfigError(
                    f"the price of {display(model, 60)} is not known, so the limit cannot be "
                    f"enforced: {step}"
                )


def announce_cost(
    config: BenchConfig,
    engines: Sequence[Engine],
    prompts: PromptPool,
    *,
    simulated: bool,
    note: Callable[[str], None],
) -> None:
    """Note the expected cost; for a run that ends by time, the cap."""
    cost, is_complete = _estimate(config, engines, prompts)
    cap = config.max_cost
    if simulated:
        note("measuring the simulator: it costs nothing and is not the real API")
    elif cap is not None:
        basis = "at each account's price" if config.accounts else "at list price"
        about = f"about {dollars(cost)} {basis}"
        estimate = about if is_complete else "the number of images is not known in advance"
        note(f"{estimate}; at most {dollars(cap)} is spent")
    if cap is not None and cost > cap:
        note(f"{dollars(cost)} is more than the cap: the run will end early")


def _estimate(
    config: BenchConfig, engines: Sequence[Engine], prompts: PromptPool
) -> tuple[Decimal, bool]:
    """Return the catalogue price of the stages, and whether it covers all of them."""
    cost, is_complete = Decimal(0), not config.load.sweep
    for engine in engines:
        factor = engine.submitter.share.factor or Decimal(1)
        for model in measured_models(engine, config.models):
            for load in stages_of(workload_of(engine, config.load), model):
                count = load.most_images
                is_complete = is_complete and count is not None
                cost += factor * cost_of(prompts, model, count or 0, engine.prices)
    return cost, is_complete


def measured_models(engine: Engine, models: Sequence[str]) -> list[str]:
    """Return the models that are measured in an account: of several accounts, those it has."""
    return [model for model in models if not engine.name or engine.has_model(model)]


def workload_of(engine: Engine, load: Workload) -> Workload:
    """Return the load of one account: of several accounts, none has more jobs than its slots."""
    slots = engine.assigned_slots
    if not engine.name or slots is None:
        return load
    counts = load.in_flight or (() if load.is_open or load.sweep else USUAL_IN_FLIGHT)
    return evolve(
        load,
        in_flight=tuple(dict.fromkeys(min(count, slots) for count in counts)),
        slots=min(load.most_slots, slots) if load.is_open or load.sweep else load.slots,
    )


def cost_of(prompts: PromptPool, model: str, count: int, prices: Prices = NO_PRICES) -> Decimal:
    """Return the price of `count` images, extrapolated from the first MOST_KEPT."""
    priced = min(count, MOST_KEPT)
    if not priced:
        return Decimal(0)
    estimator = Estimator(prices)
    for index in range(priced):
        estimator.add(prompts.request(model, index))
    return estimator.estimate(1).cost * count / priced


# --- the environment ------------------------------------------------------------------------------


def environment(
    engines: Sequence[Engine], *, simulated: bool, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return versions, machine, target and options as JSON values; never a key or a password."""
    loop, first = type(asyncio.get_running_loop()), engines[0]
    proxy = first.network.proxy_of(first.provider)
    places = [
        (each.provider.name, "simulated" if simulated else each.provider.origin[1])
        for each in engines
    ]
    names = [each.name for each in engines if each.name]
    return {
        "fluxasync": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "loop": f"{loop.__module__.partition('.')[0]}.{loop.__name__}",
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "provider": ", ".join(dict.fromkeys(provider for provider, _ in places)),
        "origin": ", ".join(dict.fromkeys(origin for _, origin in places)),
        **({"accounts": _named(names, places)} if names else {}),
        "proxy": None if proxy is None else proxy.url,
        "options": dict(options),
    }


def _named(names: Sequence[str], places: Sequence[tuple[str, str]]) -> dict[str, str]:
    pairs = zip(names, places, strict=True)
    return {name: f"{provider}, {origin}" for name, (provider, origin) in pairs}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# --- the folder -----------------------------------------------------------------------------------


def check_unused(folder: Path) -> None:
    """Refuse a folder that is not empty. Raises ConfigError."""
    if (folder / REPORT_NAME).exists():
        raise ConfigError(f"{folder} holds a report already: choose another folder with -o")
    if os.path.isdir(folder) and any(islice(folder.iterdir(), 1)):
        raise ConfigError(f"{folder} is not empty: choose another folder with -o")


def create_folder(folder: Path) -> None:
    """Create the folder. A failure is the caller's mistake, so it raises ConfigError."""
    try:
        make_folder(folder)
    except OSError as error:
        raise ConfigError(str(disk_error(folder, error))) from error


def note_missing_extras(note: Callable[[str], None]) -> None:
    """Note what report.html will lack, before anything is paid."""
    if find_spec("jinja2") is None:
        note(f"report.html will not be written, only {REPORT_NAME}: {install_command('bench')}")
    elif find_spec("matplotlib") is None:
        note(f"the report will have no charts: {install_command('bench')}")
    elif find_spec("PIL") is None:
        note(f"the report will show no images: {install_command('image')}")


async def write_folder(report: Report) -> None:
    """Write the numbers first, then the page, so that a page that fails loses no numbers."""
    from .report.html_report import read_records, write_page
    from .report.shown_images import shown_images

    folder = report.folder
    assert folder is not None  # noqa: S101 — set by the runner; for the type checker
    await asyncio.to_thread(write_report, folder, report)
    if find_spec("jinja2") is None:
        return
    try:
        records = await asyncio.to_thread(read_records, report)
        shown = await shown_images(folder, records)
        await asyncio.to_thread(write_page, report, records, shown)
    except OSError as error:
        raise disk_error(folder, error) from error


def remove_folder(folder: Path) -> None:
    """Remove the files of a run that sent nothing."""
    shutil.rmtree(folder / IMAGES_NAME, ignore_errors=True)
    (folder / RECORDS_NAME).unlink(missing_ok=True)
    with suppress(OSError):  # the folder holds something else by now
        folder.rmdir()
