"""`--env-file .env`: keys as variables, as python-dotenv reads them. No value is ever shown."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from .._core.errors import ConfigError, cut
from .._core.extras import install_command
from .key_files import exposed

#: bytes; a longer file is not a file of variables
_LONGEST = 2**20


def read_env_file(path: Path) -> Iterator[str]:
    """Set the file's variables that are not set yet, and yield what people should know.

    Raises ConfigError, which never shows a value, for a file that cannot be read.
    """
    try:
        from dotenv import dotenv_values
        from dotenv.parser import parse_stream
    except ImportError:
        raise ConfigError(f"--env-file needs python-dotenv: {install_command('cli')}") from None
    shown = cut(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise ConfigError(f"--env-file {shown}: {error.strerror}") from None
    try:
        if len(content) > _LONGEST or b"\0" in content:
            raise ValueError
        text = content.decode("utf-8-sig")
    except ValueError:
        raise ConfigError(f"--env-file {shown}: not a file of variables in UTF-8") from None
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            line = binding.original.line
            raise ConfigError(f"--env-file {shown}: line {line} is not NAME=VALUE")
    if stat.S_ISREG(mode) and (others := exposed(mode)) is not None:
        yield f"warning: {shown} can be {others}; chmod 600 {shown}"
    for name, value in dotenv_values(stream=io.StringIO(text)).items():
        if not value:
            continue
        if os.environ.get(name):
            if os.environ[name] != value:
                yield f"{cut(name)} is set in the environment, which wins over {shown}"
            continue
        try:
            os.environ[name] = value
        except ValueError:
            raise ConfigError(f"--env-file {shown}: {cut(name)} cannot be set") from None
