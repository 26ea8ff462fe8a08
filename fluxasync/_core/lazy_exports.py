"""Imports a package's public names at their first use, from the list in its `__init__.pyi`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


def lazy_exports(package: dict[str, Any]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for the package with these globals."""

    @cache
    def modules() -> dict[str, str]:
        """Return public name → the module that the stub imports it from; "." = it is a module."""
        import ast

        spec, folder = package["__spec__"], package["__path__"][0]
        stub = spec.loader.get_data(f"{folder}/__init__.pyi")  # works in a zip file too
        imports = (node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom))
        found = {
            alias.name: f"{'.' * node.level}{node.module or ''}"
            for node in imports
            for alias in node.names
        }
        return {name: module for name, module in found.items() if not name.startswith("_")}

    def load(name: str) -> Any:
        if name == "__all__":
            return sorted(name for name, module in modules().items() if module != ".")
        if name.startswith("_") or name not in modules():
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        from importlib import import_module

        module = modules()[name]
        if module == ".":
            return import_module(f".{name}", package["__name__"])  # sets the attribute
        value = getattr(import_module(module, package["__name__"]), name)
        package[name] = value
        return value

    def names() -> list[str]:
        return sorted({*package, *modules()})

    return load, names
