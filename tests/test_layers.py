"""The floors of the house: which room may import which, and who may import what is not ours.

The table is the design, so a new room starts with a row here. A room imports from the floors
below its own and, on its own floor, what its row names. Rooms are `_x.py` or a folder `_x/`, whose
files may import one another. Imports under `if TYPE_CHECKING:` do not count: they never run.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

PACKAGE = Path(__file__).parent.parent / "fluxasync"
FACE = "__init__"
#: stands in the face, but above everything that could make a cycle of it
VERSION = {"fluxasync.__version__"}


@frozen
class Row:
    """One room: its floor, the rooms beside it that it may use, and those below that it may not."""

    floor: int
    beside: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()


def _row(floor: int, beside: str = "", never: str = "") -> Row:
    return Row(floor, frozenset(beside.split()), frozenset(never.split()))


ROOMS = {
    "_errors": _row(0),
    "_arguments": _row(0, "_errors"),
    "_extras": _row(0),
    "_models": _row(0, "_errors"),
    "_events": _row(0, "_models _errors"),
    "_observers": _row(0, "_arguments _events _models _errors"),
    "_config": _row(0, "_errors"),
    "_catalog": _row(0, "_models _errors"),
    "_rows": _row(0, "_models _errors _catalog"),
    "_addresses": _row(0),
    "_providers": _row(0, "_models _errors _addresses"),
    "_protocol": _row(0, "_models _errors _providers"),
    "_schedule": _row(0, "_config"),
    "_discovery": _row(0),
    "_limiter": _row(0, "_config _breakers _discovery"),
    "_amounts": _row(0),
    "_purse": _row(0, "_amounts _errors"),
    "_money": _row(0, "_amounts _models _catalog"),
    "_breakers": _row(0, "_errors"),
    "_trouble": _row(0, "_models _errors _config _breakers _schedule"),
    "_permits": _row(0, "_config"),
    "_child": _row(0),
    "_deadline": _row(0),
    "_gathering": _row(0),
    "_dog": _row(0, "_events _observers"),
    "_ledgers": _row(0, "_arguments _models _errors"),
    "_names": _row(0, "_arguments _models _errors"),
    "_images": _row(0),
    "_display": _row(0),
    "_watch": _row(0, "_models _errors _config _observers _protocol _schedule"),
    "_summary": _row(0, "_models _amounts"),
    "_transport": _row(1),
    "_inputs": _row(1),
    "_journal": _row(1, "_disk _manifest"),
    "_sources": _row(1, "_inputs"),
    "_wire": _row(1),
    "_transfer": _row(1, "_wire"),
    "_disk": _row(1),
    "_sinks": _row(1, "_disk"),
    "_manifest": _row(1, "_disk"),
    "_submits": _row(2, never="_transport"),
    "_fetch": _row(2, never="_transport"),
    # knows one image, and no batches
    "_session": _row(2, "_submits _fetch", never="_journal _sources _manifest"),
    "_earlier": _row(2),
    "_handout": _row(2),
    "_output": _row(2),
    "_settle": _row(2, "_session _earlier _output", never="_transport"),
    # holds no HTTP
    "_batch": _row(2, "_session _earlier _output _settle _handout", never="_transport"),
    "_audit": _row(2),  # a journal and its folder; no network
    "_api": _row(3, "_progress"),
    "_progress": _row(3),
    "otel": _row(3, FACE),  # its version
    "_gallery": _row(3),
    "_practice": _row(3),  # a process of its own: no server code here
    "bench": _row(3, "_api _practice simulator"),
    "_loading": _row(0),
    "_cli": _row(3, f"_api _practice _progress _gallery bench simulator {FACE}"),
    "__main__": _row(3, f"_cli {FACE}"),
    # nothing of ours: it spells the wire a second time, so that the two can disagree
    "simulator": _row(3, never="*"),
    FACE: _row(4),  # rooms by name only, when they are asked for
}

#: who may import a package that is not in the standard library; attrs is for everyone
FOREIGN = {
    "aiohttp": {"_transport", "simulator", "bench", "_gallery"},
    "yarl": {"_transport", "simulator"},
    "aiofiles": {"_disk"},
    "cyclopts": {"_cli"},
    "rich": {"_cli", "_progress"},
    "IPython": {"_progress"},
    "uvloop": {"_cli", "bench"},
    "matplotlib": {"bench"},
    "PIL": {"simulator", "_gallery"},
    "pyarrow": {"_sources"},
    "zstandard": {"_sources"},
    "opentelemetry": {"otel"},
    "compression": {"_sources"},  # the standard library's, from Python 3.14 on
}


def _room_files() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        yield inside.parts[0].removesuffix(".py"), path


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


def _room_of(dotted: str) -> str:
    """The room that a dotted name under `fluxasync` lies in; the package's own names: FACE."""
    name = dotted.split(".")[1] if "." in dotted else FACE
    is_room = (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()
    return name if is_room or name in ROOMS else FACE


def _imports(path: Path) -> tuple[set[str], set[str]]:
    """The rooms and the foreign packages that a file imports."""
    package = ("fluxasync", *path.relative_to(PACKAGE).parent.parts)
    nodes = _running(ast.parse(path.read_text(encoding="utf-8")))
    statements = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {name for statement in statements for name in _absolute(statement, package)}
    ours = {_room_of(n) for n in names - VERSION if n.split(".")[0] == "fluxasync"}
    foreign = {n.split(".")[0] for n in names} - {"fluxasync"} - sys.stdlib_module_names
    return ours, foreign


def _allowed(room: str) -> set[str]:
    row = ROOMS[room]
    if "*" in row.never:
        return {room}
    below = {name for name, other in ROOMS.items() if other.floor < row.floor}
    return (below | row.beside | {room}) - row.never


FILES = [
    pytest.param(room, path, id=path.relative_to(PACKAGE).as_posix())
    for room, path in _room_files()
]


@pytest.mark.parametrize(("room", "path"), FILES)
def test_every_room_has_a_row(room, path):
    """A file that the table does not know has no place in the house yet."""
    assert room in ROOMS, f"{path.name}: add the room to the table, with its floor"


@pytest.mark.parametrize(("room", "path"), FILES)
def test_a_room_imports_from_below_and_what_its_row_names(room, path):
    """No import goes up a floor, or sideways where the table does not say so."""
    ours, _ = _imports(path)
    assert ours - _allowed(room) == set()


@pytest.mark.parametrize(("room", "path"), FILES)
def test_foreign_packages_stay_in_the_rooms_made_for_them(room, path):
    """Only the transport does HTTP, and no extra is needed outside the faces."""
    _, foreign = _imports(path)
    assert {p for p in foreign - {"attr", "attrs"} if room not in FOREIGN.get(p, ())} == set()


def test_only_the_transport_imports_the_http_client():
    """Beside the practice server and the gallery's, one file in the package knows aiohttp."""
    importers = {room for room, path in _room_files() if "aiohttp" in _imports(path)[1]}
    assert importers - {"simulator", "bench", "_gallery"} <= {"_transport"}


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
