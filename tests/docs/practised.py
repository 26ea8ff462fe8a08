"""Run `fluxasync`, or a script, as the documentation's shell blocks call them, for nothing.

A provider's address is data: here it is that of the practice server in PRACTICE_URL. Nothing else
differs from what a reader runs.
"""

from __future__ import annotations

import os
import runpy
import sys

from fluxasync._providers import PROVIDERS, Provider

URL = "PRACTICE_URL"


def addresses(url: str) -> dict[str, Provider]:
    """The known providers, all of them behind one address."""
    return {name: provider.at(url) for name, provider in PROVIDERS.items()}


def main() -> None:
    PROVIDERS.update(addresses(os.environ[URL]))
    _, what, *arguments = sys.argv
    sys.argv = [what, *arguments]
    if what == "fluxasync":
        runpy.run_module("fluxasync", run_name="__main__", alter_sys=True)
    elif what == "-m":
        sys.argv = arguments
        sys.path.insert(0, "")
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(what)))
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    main()
