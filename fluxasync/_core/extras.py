"""The command that installs an extra, for the way this copy of the package was installed.

A clone is not on a package index: there the command names the folder of the clone.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def install_command(extra: str) -> str:
    """Return what to type, such as `pip install 'fluxasync[image]'`, or with a clone's folder."""
    return f"{_pip()} install {_requirement(_origin(), extra)}"


def _requirement(origin: dict[str, Any], extra: str) -> str:
    """Return pip's arguments for an installation that came from `origin` (PEP 610)."""
    url = str(origin.get("url", ""))
    if vcs := origin.get("vcs_info"):
        return shlex.quote(f"fluxasync[{extra}] @ {vcs.get('vcs', 'git')}+{url}")
    if url.startswith("file:"):
        editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
        return editable + shlex.quote(f"{unquote(urlsplit(url).path)}[{extra}]")
    return shlex.quote(f"fluxasync[{extra}]")


def _origin() -> dict[str, Any]:
    """Return what the installer recorded; for a source tree that is not installed, its folder."""
    from importlib.metadata import PackageNotFoundError, distribution  # 10 ms

    root = Path(__file__).resolve().parents[2]
    try:
        text = distribution("fluxasync").read_text("direct_url.json")
        found = json.loads(text or "{}")
    except (PackageNotFoundError, ValueError):
        found = {"url": root.as_uri()} if (root / "pyproject.toml").is_file() else {}
    return found if isinstance(found, dict) else {}


def _pip() -> str:
    """Return "pip" if the first one on the path is this interpreter's, else the way to its own."""
    on_path = shutil.which("pip")
    if on_path is not None and os.path.dirname(on_path) == os.path.dirname(sys.executable):
        return "pip"
    return f"{shlex.quote(sys.executable)} -m pip"
