"""`fluxasync.toml`: the options that a user repeats, under their own names.

The command line wins, then this file, then the defaults. It never has a key, because it is copied,
shared and committed; and never a decision about one run, or a command to execute.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from attrs import field, frozen

from .._core.errors import ConfigError, cut
from .toml_file import read_toml

NAME = "fluxasync.toml"

#: options of the file, and whether a value is a path
OPTIONS = {
    "model": False, "param": False, "provider": False, "base-url": False, "key-file": True,
    "access-token-file": True, "proxy": False, "allow-private-network": False,
    "allow-unknown-models": False, "accounts": True, "in-flight": False, "polling-lag": False,
    "grace": False, "max-cost": False, "price": False, "confirm-above": False,
    "reconcile": False, "storage-option": False, "name": False, "allow-files": True,
    "webhook-url": False, "webhook-listen": False, "webhook-secret-file": True,
    "webhook-signature": False, "webhook-wait": False, "env-file": True,
}  # fmt: skip

#: options whose value is a table
_TABLES = ("param", "price", "storage-option")
#: what people write, and the name here
_MEANT = {
    "parameters": "param", "params": "param", "limits": "in-flight", "limit": "in-flight",
    "cap": "max-cost", "budget": "max-cost", "storage": "storage-option", "prices": "price",
    "account": "accounts", "url": "base-url",
}  # fmt: skip
_INLINE = re.compile(r"(api[-_]?)?key|(access[-_]?)?token|secret|password", re.IGNORECASE)
_SECRET = re.compile(r"key|secret|token|passw|credential|signature|\bsas\b", re.IGNORECASE)

#: given on the line → what the file says of the same thing, and is not used then
_INSTEAD = {
    "--accounts": ("provider", "base-url", "key-file", "access-token-file", "in-flight", "price",
                   "webhook-url", "webhook-listen", "webhook-secret-file", "webhook-signature",
                   "webhook-wait"),
    "--provider": ("base-url", "key-file", "access-token-file", "accounts"),
    "--base-url": ("provider", "key-file", "access-token-file", "accounts"),
    "--key-file": ("accounts",),
    "--access-token-file": ("accounts",),
    "--simulate": ("base-url", "proxy", "key-file", "access-token-file", "webhook-url",
                   "webhook-listen", "webhook-secret-file", "webhook-signature", "webhook-wait"),
    "--models": ("model",),
}  # fmt: skip


@frozen
class ConfigFile:
    """A file of options, read and checked."""

    path: Path
    options: Mapping[str, tuple[str, ...]] = field(factory=dict)  #: "--model" → texts; none = flag

    def beside(self, given: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Return the options that apply beside those of the line."""
        unused = {f"--{name}" for line in given for name in _INSTEAD.get(line, ())}
        used = {}
        for name, texts in self.options.items():
            if name in unused:
                continue
            if name[2:] in _TABLES:
                keys = {text.partition("=")[0].strip() for text in given.get(name, ())}
                if name == "--param":
                    keys |= {text.partition("=")[0].strip() for text in given.get("--grid", ())}
                    keys |= {"seed"} if "--seeds" in given else set()
                elif name == "--price" and any("=" not in text for text in given.get(name, ())):
                    continue
                texts = tuple(text for text in texts if text.partition("=")[0] not in keys)
                if texts:
                    used[name] = (*given.get(name, ()), *texts)
            elif name not in given:
                used[name] = texts
        return used

    @property
    def shown(self) -> str:
        """The path, from the working folder if it is below that."""
        near = os.path.relpath(self.path)
        return str(self.path) if near.startswith(os.path.join("..", "..")) else near


def find_config() -> Path | None:
    """Return the fluxasync.toml of the working folder, or of one above it up to the root of the
    project (the folder that has .git) or the home. Raises ConfigError for another user's file."""
    try:
        here, home = Path.cwd(), Path.home()
    except (OSError, RuntimeError):  # the working folder was removed; a user without a home
        return None
    for folder in (here, *here.parents):
        path = folder / NAME
        try:
            found = path.stat()
        except OSError:
            found = None
        if found is not None and stat.S_ISREG(found.st_mode):
            if found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
                raise ConfigError(
                    f"{path} may have been written by another user: --config {NAME} reads it all "
                    "the same, --no-config ignores it"
                )
            return path
        if folder == home or (folder / ".git").exists():
            return None
    return None


def read_config(path: Path) -> ConfigFile:
    """Read a file of options. Raises ConfigError, with the nearest name for one that is unknown."""
    found = read_toml(path, shown=cut(str(path)))
    options = {}
    for key, value in found.items():
        name = key.replace("_", "-")
        if name not in OPTIONS:
            _refuse(path, _unknown(key))
        if f"--{name}" in options:
            _refuse(path, f"{cut(key)} is given twice, with - and with _")
        texts = tuple(_texts(path, name, value))
        if value is not False:
            options[f"--{name}"] = texts
    return ConfigFile(path, options)


def _texts(path: Path, name: str, value: Any) -> Iterator[str]:
    """Yield the texts of an option as the line would have them."""
    if isinstance(value, Mapping):
        if name not in _TABLES:
            _refuse(path, f"{name} is no table")
        for key, inner in value.items():
            if _SECRET.search(key) and name != "price":
                _refuse(path, f"{name}.{cut(key)} is a secret: put it into the environment")
            text = _json(path, name, inner) if name == "param" else _text(path, name, inner)
            yield f"{key}={text}"
        return
    if name in _TABLES and not (name == "price" and isinstance(value, int | str | Decimal)):
        _refuse(path, f"{name} is a table: [{name}]")
    if isinstance(value, bool):
        return
    for each in value if isinstance(value, list) else [value]:
        text = _text(path, name, each)
        if re.search(r"://[^/\s]*@", text):
            _refuse(path, f"{name} has a password: put it into the environment")
        yield os.path.join(path.parent, text) if OPTIONS[name] else text


def _text(path: Path, name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        _refuse(path, f"{name} cannot be a {type(value).__name__}")
    return str(value)


def _json(path: Path, name: str, value: Any) -> str:
    try:
        return json.dumps(value, default=_number, ensure_ascii=False)
    except TypeError:
        _refuse(path, f"{name} cannot hold a date")


def _number(value: Any) -> int | float:
    if not isinstance(value, Decimal):
        raise TypeError
    return float(value)


def _unknown(key: str) -> str:
    if _INLINE.fullmatch(key):
        return (
            f"{cut(key)} is a secret, and this file is copied, shared and committed: put it into a "
            "variable, or into a file: key-file, env-file"
        )
    name = key.replace("_", "-").lower()
    near = [_MEANT[name]] if name in _MEANT else difflib.get_close_matches(name, OPTIONS, n=1)
    meant = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(OPTIONS)}"
    return f"unknown key {cut(key)}{meant}"


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ConfigError(f"{cut(str(path))}: {reason}")
