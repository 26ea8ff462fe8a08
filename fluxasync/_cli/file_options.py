"""The options that name files with options and keys."""

from __future__ import annotations

from attrs import frozen
from cyclopts import Group, Parameter

from .key_files import LocalPath


@Parameter(name="*", group=Group("Files of options", sort_key=9))
@frozen(kw_only=True)
class FileOptions:
    """Where options and keys are read from. An option of the line wins over a file.

    Parameters
    ----------
    config
        TOML file with options that you repeat (default: fluxasync.toml in the working folder or one
        above it, up to the project's root or your home). See docs/config-file.md.
    no_config
        Read no fluxasync.toml.
    env_file
        File with keys, such as .env. A variable that the environment has already is not read.
    """

    config: LocalPath | None = None
    no_config: bool = False
    env_file: LocalPath | None = None
