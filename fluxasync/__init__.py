"""Batch image generation with Flux models, on asyncio.

`__init__.pyi` is the list of the public names. A name is imported at its first use, so
`import fluxasync` and `fluxasync --help` do not wait for aiohttp.
"""

from ._core.version import __version__ as __version__

_modules: dict[str, str] = {}  # public name → its module, as __init__.pyi imports it


def __getattr__(name: str) -> object:
    if name == "__all__":
        return sorted(_public())
    if name.startswith("_") or name not in _public():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_modules[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_public()})


def _public() -> dict[str, str]:
    if not _modules:
        import ast

        stub = __spec__.loader.get_data(f"{__path__[0]}/__init__.pyi")  # in a zip file too
        imports = (node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom))
        found = {alias.name: f".{node.module}" for node in imports for alias in node.names}
        del found["__version__"]
        _modules.update(found)  # in one step: other threads see all names or none
    return _modules
