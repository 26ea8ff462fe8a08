"""The command that installs an extra of this copy of the package.

For a clone the command names its folder, because the clone is not on a package index.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def install_command(extra: str) -> str:
    """Return the command, such as `pip install 'fluxasync[image]'`."""
    return f"{_installer()} {_requirement(_origin(), extra)}"


def _requirement(origin: dict[str, Any], extra: str) -> str:
    """Return pip's arguments for an installation from `origin` (direct_url.json, PEP 610)."""
    url = str(origin.get("url", ""))
    if vcs := origin.get("vcs_info"):
        return shlex.quote(f"fluxasync[{extra}] @ {vcs.get('vcs', 'git')}+{url}")
    if url.startswith("file:"):
        editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
        return editable + shlex.quote(f"{unquote(urlsplit(url).path)}[{extra}]")
    return shlex.quote(f"fluxasync[{extra}]")


def _origin() -> dict[str, Any]:
    """Return the installer's record (PEP 610), or the folder of a source tree without one."""
    from importlib.metadata import PackageNotFoundError, distribution  # 10 ms

    root = Path(__file__).resolve().parents[2]
    try:
        text = distribution("fluxasync").read_text("direct_url.json")
        found = json.loads(text or "{}")
    except (PackageNotFoundError, ValueError):
        found = {"url": root.as_uri()} if (root / "pyproject.toml").is_file() else {}
    return found if isinstance(found, dict) else {}


def _installer() -> str:
    """Return "pip install" if the first pip on the path is this interpreter's, else
    `python -m pip install`. uv makes environments without pip, and installs into them itself."""
    if find_spec("pip") is None and shutil.which("uv") is not None:
        return f"uv pip install --python {shlex.quote(sys.executable)}"
    on_path = shutil.which("pip")
    if on_path is not None and os.path.dirname(on_path) == os.path.dirname(sys.executable):
        return "pip install"
    return f"{shlex.quote(sys.executable)} -m pip install"
