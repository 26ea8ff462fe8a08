"""The layers: which package may import which, where foreign packages may be used, where things are.

`PACKAGES` is the design (docs/architecture.md explains it). A package imports from its row only.
Imports under `if TYPE_CHECKING:` do not count, because they never run.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fluxasync"
PAGE = PACKAGE.parent / "docs" / "architecture.md"
FACE = "__init__"

_VALUES = {"_core"}
_BELOW_ENGINE = {"_core", "_wire", "_requests"}
_BELOW_BATCH = {*_BELOW_ENGINE, "_store", "_engine"}
_BELOW_ANNEX = {*_BELOW_BATCH, "_batch", "gallery"}

#: package → the packages that it may import; `_store.sinks` allows one module of `_store`
PACKAGES: dict[str, set[str]] = {
    "_core": set(),
    "_wire": _VALUES,
    "_requests": _VALUES,
    "_store": _VALUES,
    "webhooks": {"_core", "_wire.classification"},
    "_engine": {
        *_BELOW_ENGINE,
        "webhooks",
        "_store.memory_sink",
        "_store.sinks",
        "_store.ledgers",
        "_store.duration_cache",
        "_store.files",
        "_store.quarantine",
    },
    "_batch": {*_BELOW_BATCH, "_export"},
    "gallery": {"_core", "_store"},
    "_export": {"_core", "_store"},
    "_report": {"_core", "_store", "gallery"},
    "bench": {*_BELOW_ANNEX, "_report", "simulator"},
    "otel": _BELOW_ANNEX,
    "cluster": _BELOW_BATCH | {"_batch"},
    "ray": {"cluster"},
    "_cli": {*_BELOW_ANNEX, "_report", "audit", "bench", "cluster", "simulator", "otel", FACE},
    "__main__": {"_cli", "_core", FACE},
    # It spells the wire a second time, so that the two can disagree.
    "simulator": set(),
    "simulator.__main__": {"_core.standard_streams"},  # no wire: what any command does first
    "audit": {"_store"},
    "events": _VALUES,
    "extend": {"_core", "_store.filenames"},
    # names of other packages only as text, resolved on first use
    FACE: {"_core.lazy_exports", "_core.version"},
}

#: their module names repeat others on purpose
_MIRRORS = {"simulator", "events", "extend", "audit", "ray"}

#: foreign package → the modules or packages that may import it; attrs is for all
FOREIGN = {
    "aiohttp": {
        "_wire.transport",
        "_wire.connection_pool",
        "_wire.image_download",
        "_wire.connection_errors",  # names the errors of aiohttp, and does no HTTP
        "bench.setup",
        "simulator",
        "gallery.server",
        "webhooks.aiohttp_adapter",
        "webhooks.listener",
    },
    "yarl": {"_wire.transport", "simulator"},
    "aiofiles": {"_store.disk_threads"},
    "cyclopts": {"_cli"},
    "dotenv": {"_cli.env_file"},
    "rich": {"_cli", "_batch.progress"},
    "IPython": {"_batch.progress"},
    "uvloop": {"_cli", "bench"},
    "matplotlib": {"_report.drawing"},
    "jinja2": {"_report.page_parts"},
    "markupsafe": {"_report.page_parts"},
    "PIL": {
        "simulator",
        "gallery.thumbnail_worker",
        "gallery.sheet_worker",
        "_core.notebook_html",
    },
    "pandas": {"_batch.run_result"},
    "openpyxl": {"_requests.sources", "_export.table_files"},
    "pyarrow": {"_requests.sources", "_export.parquet_shards", "cluster.datasets"},
    "yaml": {"_requests.sources"},
    "opentelemetry": {"otel"},
    "obstore": {"_store.objects"},
    "ray": {"cluster.actors", "cluster.datasets"},
}

MOST_IN_A_CHAIN = 14
MOST_PARAMETERS = 13
MOST_LINES_OF_A_CLASS = 350


def _name(path: Path) -> str:
    """The dotted name below `fluxasync`: `_wire.transport`; a package's own file: `_wire`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1]) or FACE if parts[-1] == "__init__" else ".".join(parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _is_package(module: str) -> bool:
    return MODULES[module].name == "__init__.py"


def _package(module: str) -> str:
    return module.split(".")[0]


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that can run: everything but the body of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from _running(other)
            continue
        yield child
        yield from _running(child)


def _absolute(node: ast.Import | ast.ImportFrom, package: tuple[str, ...]) -> Iterator[str]:
    """The dotted names that an import statement in `package` may load."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = package[: len(package) - node.level + 1] if node.level else ()
    module = (*base, *(node.module.split(".") if node.module else ()))
    yield from (".".join((*module, alias.name)) for alias in node.names)


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def _names(module: str) -> frozenset[str]:
    """The dotted names that a module imports, wherever it does."""
    inside = MODULES[module].relative_to(PACKAGE).parent.parts
    nodes = (n for n in _running(_tree(module)) if isinstance(n, ast.Import | ast.ImportFrom))
    return frozenset(n for node in nodes for n in _absolute(node, ("fluxasync", *inside)))


@cache
def _ours(module: str) -> frozenset[str]:
    """The modules of ours that a module imports. A package's own name stands for its file."""
    found = set()
    for name in _names(module):
        if name.split(".")[0] == "fluxasync":
            parts = name.split(".")[1:]
            while parts and ".".join(parts) not in MODULES:
                parts.pop()
            found.add(".".join(parts) or FACE)
    return frozenset(found - {module})


@cache
def _foreign(module: str) -> frozenset[str]:
    tops = {name.split(".")[0] for name in _names(module)}
    return frozenset(tops - {"fluxasync", "attr", "attrs"} - sys.stdlib_module_names)


def _is_within(module: str, places: set[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:n]) in places for n in range(1, len(parts) + 1))


@cache
def _chain(module: str) -> tuple[str, ...]:
    """The longest chain of imports from a module down, by `_ours`; a cycle has no end."""
    return (module, *max((_chain(other) for other in _ours(module)), key=len, default=()))


def _classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for module in MODULES:
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.ClassDef):
                yield module, node


@pytest.mark.parametrize("module", MODULES)
def test_a_package_imports_only_what_its_row_names(module):
    """No import goes up a layer, or sideways where the table does not say so."""
    package = _package(module)
    assert package in PACKAGES, "add the package to the table"
    allowed = {*PACKAGES.get(module, PACKAGES[package]), package}
    assert {other for other in _ours(module) if not _is_within(other, allowed)} == set()


@pytest.mark.parametrize("module", MODULES)
def test_foreign_packages_stay_where_they_belong(module):
    """Only the transport does HTTP, and no extra is needed outside the parts that name it."""
    strays = {p for p in _foreign(module) if not _is_within(module, FOREIGN.get(p, set()))}
    assert strays == set()


@pytest.mark.parametrize("module", MODULES)
def test_no_private_name_crosses_a_package(module):
    """Another package's module is used by its public names."""
    tops = {"fluxasync", *(f"fluxasync.{p}" for p in PACKAGES)}
    private = {
        name
        for name in _names(module)
        if name.startswith("fluxasync.")
        and name not in tops
        and name.split(".")[1] != _package(module)
        and name.rsplit(".", 1)[1].startswith("_")
        and name.rsplit(".", 1)[1] != "__version__"
    }
    assert private == set()


def test_no_import_goes_in_a_circle():
    """At run time every module can be imported before those that import it."""
    waiting = {module: set(_ours(module)) for module in MODULES}
    while free := {module for module, others in waiting.items() if not others & waiting.keys()}:
        for module in free:
            del waiting[module]
    assert waiting == {}


def test_import_chains_are_short():
    """Chains of imports are short, so a reader soon reaches the end of one."""
    chain = max((_chain(module) for module in MODULES), key=len)
    assert len(chain) <= MOST_IN_A_CHAIN, " > ".join(chain)


def test_no_module_name_stands_twice():
    """A module is found by its name. The simulator mirrors the wire, and files of re-exports bear
    the name of what they export, on purpose."""
    own = [m for m in MODULES if _package(m) not in _MIRRORS and not _is_package(m)]
    names = Counter(module.rsplit(".", 1)[-1] for module in own)
    assert {name for name, times in names.items() if times > 1} == set()


def test_no_class_name_stands_twice():
    """A class is found by its name; the simulator mirrors the wire on purpose."""
    names = Counter(node.name for module, node in _classes() if _package(module) != "simulator")
    assert {name for name, times in names.items() if times > 1} == set()


def test_no_module_bears_a_name_that_its_package_exports():
    """Importing the module `a.b` would hide the function `a.b`."""
    hidden = set()
    for module in MODULES:
        parent, _, leaf = module.rpartition(".")
        package = import_module(f"fluxasync.{parent}" if parent else "fluxasync")
        if leaf in getattr(package, "__all__", ()):
            hidden.add(module)
    assert hidden == set()


def test_classes_are_small():
    """A class fits in a reader's head."""
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for _, node in _classes()}
    assert {n: lines for n, lines in sizes.items() if lines > MOST_LINES_OF_A_CLASS} == {}


def test_constructors_take_few_parameters():
    """What belongs together travels as one value."""
    wide = {}
    for module, node in _classes():
        for made in node.body:
            if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                count = len(made.args.posonlyargs + made.args.args + made.args.kwonlyargs) - 1
                if count > MOST_PARAMETERS:
                    wide[f"{module}.{node.name}"] = count
    assert wide == {}


#: behaviour → the module and the name in it. The question is asked with the tree alone in view.
WHERE = {
    "a pause after 429 is decided": "_engine.pushback:PushbackPolicy.refused",
    "a finished file gets its name": "_store.files:AtomicFile.publish",
    "durations are kept from run to run": "_store.duration_cache:DurationCache.write",
    "the next poll's delay is chosen": "_engine.polling.schedule:PollSchedule.next",
    "resume: skip or collect": "_batch.resume_decision:resume_decision",
    "the delimiter of a CSV is found": "_requests.sources.tables:TableFormat._separator",
    "Ctrl-C": "_cli.signals:Interrupts._on_signal",
    "a callback wakes its job": "_engine.webhook_inbox:WebhookInbox.ring",
    "a callback settles a submission in doubt": "_batch.callback_settlement:CallbackSettler._prove",
    "which account gets an image": "_engine.account_choice:ranked",
    "a submission goes to another account": "_engine.pool_engine:PoolEngine.submit",
    "max-cost is reserved": "_engine.budget:SpendingAccount.reserve",
    "a task is matched with a submission in doubt": "_engine.reconciliation:decide",
    "a charge of the usage log gets its job": "_batch.bill.matching:assign",
    "the key is attached": "_wire.credentials:auth_header",
    "what may be submitted again": "_wire.classification:classify",
    "the delay of a retry": "_core.backoff:retry_delay",
    "when a URL expires": "_wire.url_expiry:url_life",
    "an image is judged whole": "_core.images:inspect",
    "a file name from a template": "_store.filenames:FilenameTemplate.render",
    "an object is created once": "_store.object_sink:landed",
    "of two writers in a bucket, one is stopped": "_store.object_log:ObjectLog._create",
    "a line of metadata.jsonl": "_store.metadata:metadata_row",
    "the lock of a folder": "_store.journal.lock:FolderLock.take",
    "how many downloads at once": "_engine.download_queue:DownloadQueue._next",
    "which error ends the run": "_core.errors:ends_run",
    "what an error means for its image": "_batch.worker:classify_outcome",
    "group commit": "_store.journal.writer:Writer._committed",
    "--grid is multiplied out": "_requests.sources.expansion:Expansion.rows",
    "the ETA": "_batch.progress.counts:ProgressSnapshot.eta",
    "in_flight='auto'": "_engine.adaptive_limit:AdaptiveLimit.accepted",
    "the estimate of a dry run": "_requests.estimate:Estimator.estimate",
    "the exit code": "_cli.exit_codes:exit_code",
    "percentiles of a benchmark": "bench.stats:percentile",
    "an image input becomes base64": "_requests.image_inputs:encode_image_inputs",
    "how long a simulated job takes": "simulator.durations:job_duration",
    "ordered=True": "_batch.outcome_queue:OutcomeQueue._next_in_order",
    "a run is paused from outside": "_batch.run_control:RunControl._pause",
    "workers and feeder": "_batch.worker_pool:WorkerPool._feed",
    "'disk full' as an error": "_store.files:disk_error",
    "terminal escapes are made inert": "_core.text:display",
    "Poisson arrivals": "bench.load_profile:intended",
    "the saturation point": "bench.saturation:find_saturation",
    "equal rows are numbered": "_requests.sources.numbering:Occurrences",
    "prepared requests keep their numbers": "_requests.sources.plan:GivenNumbers",
    "--retry failed": "_store.journal.retry_selection:RetrySelection",
    "verify compares hashes": "_store.audit.verification:verify",
    "a stalled download is noticed": "_engine.resumable_stream:ResumableStream._steady",
    "the fingerprint of a request": "_core.models:ImageRequest.content_key",
    "the key is read from the environment": "_wire.credentials:resolve_provider",
    "a field of --then is filled in": "_batch.hooks.commands:CommandTemplate.filled",
    "a run waits for a slow hook": "_batch.hooks.saved_hook:SavedHook.keep_up",
    "prompt and seed are put into an image": "_store.embedding:embedded",
    "which images are in a shard of an export": "_export.sharding:ShardExport._make",
    "a shard made beside a run is recorded": "_export.run_export:ExportWork._recorded",
    "an image has one worker at a time": "cluster.row_queue:RowQueue.take",
    "a worker's slots": "cluster.shares:Shares.report",
    "a restarted ledger keeps the intents of living workers": (
        "cluster.run_ledger:RunLedger._end_recovery"
    ),
    "the threads for the disk": "_store.disk_threads:ThreadRunner",
    "whether the key may go to a polling URL": "_wire.credentials:may_send_key",
}


@pytest.mark.parametrize("behaviour", WHERE)
def test_a_behaviour_is_where_the_map_says(behaviour):
    """docs/architecture.md answers "where is …" from this table."""
    module, _, name = WHERE[behaviour].partition(":")
    value = import_module(f"fluxasync.{module}")
    for part in name.split("."):
        value = getattr(value, part)


def _on_the_page(name: str) -> list[str]:
    """The lines between `<!-- name -->` and `<!-- end name -->` of docs/architecture.md."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return lines[lines.index(f"<!-- {name} -->") + 1 : lines.index(f"<!-- end {name} -->")]


def _cells(name: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in _on_the_page(name)[2:]]


def test_the_page_answers_where_each_behaviour_is():
    """docs/architecture.md has the same rows as `WHERE`, in the same order."""
    expected = []
    for behaviour, place in WHERE.items():
        module, _, name = place.partition(":")
        path = MODULES[module].relative_to(PACKAGE).as_posix()
        expected.append([behaviour, f"`{path}`", f"`{name}`"])
    assert expected == _cells("where")


def test_the_page_shows_the_same_layers():
    """docs/architecture.md has a row for each package, with the imports that it is allowed."""
    shown = {row[0].strip("`"): set(re.findall(r"`(\S+)`", row[-1])) for row in _cells("layers")}
    assert shown == PACKAGES


def test_the_page_shows_each_module_once():
    """The tree of docs/architecture.md is the tree: no module is missing, none is gone."""
    folders: list[str] = []
    shown = []
    for line in filter(str.strip, _on_the_page("tree")[1:-1]):
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name] if name.endswith("/") else []
        if name.endswith(".py"):
            shown.append("".join((*folders[:depth], name)))
    files = [path.relative_to(PACKAGE).as_posix() for path in MODULES.values()]
    assert sorted(shown) == sorted(f for f in files if f == "__init__.py" or FACE not in f)


@pytest.mark.parametrize(
    ("line", "package", "expected"),
    [
        pytest.param("from ._b import x", ("fluxasync",), "fluxasync._b.x", id="sibling"),
        pytest.param("from . import _b", ("fluxasync",), "fluxasync._b", id="sibling by name"),
        pytest.param("from .._b import x", ("fluxasync", "_a"), "fluxasync._b.x", id="parent"),
        pytest.param("from ._c import x", ("fluxasync", "_a"), "fluxasync._a._c.x", id="inside"),
        pytest.param("import fluxasync._b", ("fluxasync",), "fluxasync._b", id="absolute"),
    ],
)
def test_imports_are_read_as_python_reads_them(line, package, expected):
    """Every spelling of an import of ours comes out as the same dotted name."""
    (statement,) = ast.parse(line).body
    assert [expected] == list(_absolute(statement, package))


def test_imports_for_type_checking_do_not_count():
    """What only a type checker reads is no dependency; the else branch is one."""
    source = "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    import c\n"
    running = [n for n in _running(ast.parse(source)) if isinstance(n, ast.Import)]
    assert [node.names[0].name for node in running] == ["b", "c"]
