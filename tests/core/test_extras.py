"""The hint for a missing extra is a command that works for this installation."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.patience import patient

from fluxasync._core.extras import _requirement, install_command

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        pytest.param({}, "'fluxasync[image]'", id="an index"),
        pytest.param(
            {"url": "file:///src/my%20clone", "dir_info": {"editable": True}},
            "-e '/src/my clone[image]'",
            id="an editable clone",
        ),
        pytest.param(
            {"url": "file:///src/clone", "dir_info": {}}, "'/src/clone[image]'", id="a clone"
        ),
        pytest.param(
            {"url": "https://example.com/f.git", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            "'fluxasync[image] @ git+https://example.com/f.git'",
            id="a repository",
        ),
    ],
)
def test_the_hint_names_where_the_package_came_from(origin: dict[str, Any], expected: str) -> None:
    """An index, a clone and a repository each have their own requirement."""
    assert _requirement(origin, "image") == expected


def test_the_hint_of_this_checkout_names_it() -> None:
    """In a clone the hint installs the clone, with the pip of the running interpreter."""
    words = shlex.split(install_command("image"))
    assert words[-1] == f"{ROOT}[image]"
    if os.path.dirname(sys.executable) not in os.environ.get("PATH", "").split(os.pathsep):
        assert words[:3] == [sys.executable, "-m", "pip"]


def test_an_environment_without_pip_gets_the_line_of_uv(tmp_path: Path) -> None:
    """uv makes environments without pip, so its own command installs into them."""
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "uv").chmod(0o755)
    code = "from fluxasync._core.extras import install_command; print(install_command('cli'))"
    ended = subprocess.run(
        [sys.executable, "-S", "-c", code],  # without pip, as without any package
        capture_output=True, text=True, check=True, timeout=patient(),
        env={"PYTHONPATH": str(ROOT), "PATH": str(tmp_path)},
    )  # fmt: skip
    words = shlex.split(ended.stdout)
    assert words == ["uv", "pip", "install", "--python", sys.executable, f"{ROOT}[cli]"]


def test_a_tree_that_is_not_installed_is_named_by_its_folder() -> None:
    """For a source tree without installed metadata the hint installs its folder."""
    code = "from fluxasync._core.extras import install_command; print(install_command('cli'))"
    ended = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True, text=True, check=True, timeout=patient(),
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert shlex.split(ended.stdout)[-1] == f"{ROOT}[cli]"
