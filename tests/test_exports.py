"""The public names: listed once, typed, loaded at first use, and enough for every signature."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fluxasync
from fluxasync import audit, bench, events, extend, gallery, otel, ray, simulator, webhooks

PACKAGE = Path(fluxasync.__file__).parent
HEAVY = ("aiofiles", "aiohttp", "cyclopts", "PIL", "rich", "uvloop")

#: the modules that users import from, with their names
MODULES: dict[ModuleType, list[str]] = {
    fluxasync: fluxasync.__all__,
    bench: bench.__all__,
    simulator: simulator.__all__,
    events: [name for name in dir(events) if not name.startswith("_")],
    extend: [name for name in dir(extend) if not name.startswith("_")],
    audit: [name for name in dir(audit) if not name.startswith("_")],
    gallery: gallery.__all__,
    otel: ["Tracing"],
    ray: [name for name in dir(ray) if not name.startswith("_")],
    webhooks: webhooks.__all__,
}


@cache
def _classes() -> set[str]:
    """The classes of the package, public or not; a name stands once (test_architecture.py)."""
    return {
        node.name
        for path in PACKAGE.rglob("*.py")
        if "simulator" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }


PUBLIC = {name: getattr(module, name) for module, names in MODULES.items() for name in names}


def _callables(value: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """A function, or the constructor, public methods and properties of a class."""
    if not inspect.isclass(value):
        if inspect.isroutine(value):
            yield value.__name__, value
        return
    if inspect.isfunction(value.__init__):
        yield "__init__", value.__init__
    for name, member in vars(value).items():
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        if not name.startswith("_") and inspect.isroutine(function):
            yield name, function


def _types(function: Callable[..., Any]) -> set[str]:
    """The classes of ours that a signature names."""
    named = set()
    for annotation in function.__annotations__.values():
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        for node in ast.walk(ast.parse(text, mode="eval")):
            if isinstance(node, ast.Name | ast.Attribute):
                named.add(node.id if isinstance(node, ast.Name) else node.attr)
    return named & _classes()


@pytest.mark.parametrize("package", [fluxasync, bench, webhooks])
def test_the_stub_lists_each_public_name_once_and_in_order(package):
    """`__all__` is what `__init__.pyi` imports, under the same names."""
    stub = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom) and node.module]
    aliases = [alias for node in imports for alias in node.names]
    assert all(alias.name == alias.asname for alias in aliases)
    assert sorted(a.name for a in aliases if a.name != "__version__") == package.__all__


@pytest.mark.parametrize("name", fluxasync.__all__)
def test_every_name_resolves(name):
    """Each public name is there when asked for, and `dir` shows it before."""
    assert name in dir(fluxasync)
    assert getattr(fluxasync, name) is not None


def test_a_star_import_gives_the_public_names():
    """`from fluxasync import *` works, although the names are loaded at first use."""
    given: dict[str, Any] = {}
    exec("from fluxasync import *", given)  # noqa: S102 — the statement is the test
    assert set(fluxasync.__all__) <= given.keys()


@pytest.mark.parametrize("name", ["audit", "events", "extend"])
def test_the_small_modules_need_no_import_of_their_own(name):
    """`import fluxasync` suffices for `fluxasync.audit`; the other modules are imported by name."""
    code = f"import fluxasync; print(dir(fluxasync).count({name!r}), fluxasync.{name}.__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.decode().split() == ["1", f"fluxasync.{name}"]
    assert name not in fluxasync.__all__


@pytest.mark.parametrize("name", ["FluxSesion", "JobReady", "Sink", "_core_errors"])
def test_an_unknown_name_is_an_attribute_error(name):
    """A misspelt name fails as in any module; events and protocols have modules of their own."""
    with pytest.raises(AttributeError, match=name):
        getattr(fluxasync, name)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_signature_names_only_types_that_can_be_imported(name):
    """A user can annotate whatever a public function takes or returns."""
    hidden = {
        f"{name}.{member}: {used}"
        for member, function in _callables(PUBLIC[name])
        for used in _types(function)
        if used not in PUBLIC
    }
    assert hidden == set()


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("import fluxasync", id="the package"),
        pytest.param("from fluxasync import ImageRequest, Limits, Moderated", id="values"),
        pytest.param("import fluxasync.events, fluxasync.extend", id="events and protocols"),
    ],
)
def test_importing_stays_cheap(statement):
    """Neither the package nor its values load aiohttp, or anything else that is slow to import."""
    code = f"{statement}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.strip() == b"[]"


def test_the_package_is_marked_as_typed():
    """Type checkers use our annotations only where `py.typed` is installed."""
    assert (PACKAGE / "py.typed").exists()
