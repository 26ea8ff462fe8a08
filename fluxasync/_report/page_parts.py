"""What every page of figures is made of: template, style, script, its policy, its file.

Texts from outside (titles, prompts, model names, errors) are made inert and escaped in one place,
the template's environment. The content policy allows the page's own style and script by their
hashes, images inside the page, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from .._core.errors import ConfigError
from .._core.extras import install_command
from .._store.files import create_own
from .formatting import (
    DASH,
    amount,
    data_size,
    dollars,
    inert,
    percent,
    seconds,
    unit_of,
)

HERE = "fluxasync._report"


def rendered(package: str, template: str, values: Mapping[str, Any]) -> str:
    """Return a page from a template of a package.

    Raises ConfigError when jinja2 is missing.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise ConfigError(f"the page needs jinja2: {install_command('bench')}") from None

    def finalize(value: object) -> object:
        return value if isinstance(value, Markup) else inert(value)

    def part(name: str) -> str:
        """Return the file of a template: those that all pages share are here."""
        return _file(package if name == template else HERE, name)

    environment = Environment(
        autoescape=True, finalize=finalize, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, loader=FunctionLoader(part),
    )  # fmt: skip
    environment.filters |= {
        "amount": amount, "seconds": seconds, "percent": percent, "dollars": dollars,
        "data_size": data_size, "cut": inert, "lines": _lines,
    }  # fmt: skip
    style, script = _file(HERE, "style.css"), _file(HERE, "copy.js")
    environment.globals |= {
        "dash": DASH,
        "nbsp": Markup("&nbsp;"),
        "unit_of": unit_of,
        "style": Markup(style),  # noqa: S704 — our own file
        "script": Markup(script),  # noqa: S704 — our own file
        "policy": _policy(style, script),
    }
    return environment.get_template(template).render(**values)


def _lines(lines: Sequence[str]) -> object:
    """Return lines that are one text, each inert."""
    from markupsafe import Markup, escape

    return Markup("\n").join(escape(inert(line)) for line in lines)


def write_page(path: Path, text: str) -> None:
    """Write a page whole or not at all. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with create_own(part, mode=0o666) as file:
            file.write(text.encode(errors="replace"))  # a prompt may not be valid Unicode
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _file(package: str, name: str) -> str:
    return (files(package) / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
