"""The options of one command: the texts of its line, and those that were added to them."""

from __future__ import annotations

import re
from contextvars import ContextVar

from attrs import define, field

from .._core.arguments import is_url

#: options of one line, not of its run: how it is shown, and decisions that are made once
NOT_KEPT = frozenset(
    ("--out", "--dry-run", "--yes", "--watch", "--json", "--quiet", "--retry",
     "--resubmit-unlisted", "--take-over", "--config", "--no-config")
)  # fmt: skip

#: options that run a command or call an address: a folder from elsewhere must not name them
HOOKS = ("--then", "--on-finish", "--notify-url")

_SECRET = re.compile(r"key|secret|token|passw|credential|signature|\bsas\b", re.IGNORECASE)
#: options of the form K=V, whose K may name a secret
_PAIRS = ("--storage-option", "--param")


@define
class GivenOptions:
    """The texts of a line, after those of the record and of files were added."""

    source: tuple[str, ...] = ()
    options: dict[str, tuple[str, ...]] = field(factory=dict)  #: none = a flag
    line: dict[str, tuple[str, ...]] = field(factory=dict)  #: those that the line itself has
    paths: frozenset[str] = frozenset()  #: options that are paths
    lines: list[str] = field(factory=list)  #: to be said first

    def is_standing(self, option: str, text: str) -> bool:
        """Whether a text is not of the line itself, so that it may have no effect this time."""
        return text in self.options.get(option, ()) and text not in self.line.get(option, ())

    def kept(self) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
        """Return the options of the run itself, and the names of those that have a secret or are
        hooks."""
        options = {}
        secrets = []
        for name, texts in self.options.items():
            if name in NOT_KEPT and not (name == "--out" and any(map(is_url, texts))):
                continue
            if name in HOOKS or any(_is_secret(name, text) for text in texts):
                secrets.append(name)
            else:
                options[name] = texts
        return options, tuple(secrets)


#: of the command that is parsed now
GIVEN: ContextVar[GivenOptions | None] = ContextVar("GIVEN", default=None)


def _is_secret(name: str, text: str) -> bool:
    if re.search(r"://[^/\s]*@", text):
        return True
    return name in _PAIRS and _SECRET.search(text.partition("=")[0]) is not None
