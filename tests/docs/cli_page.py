"""docs/cli.md: every command with its options, as `--help` shows them.

`python -m tests.docs.cli_page`, in the repository's folder, rewrites it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from attrs import define, field
from rich.console import Console

from fluxasync._cli.app import app
from fluxasync._cli.help_pages import PAGES, examples

PAGE = Path(__file__).parent.parent.parent / "docs" / "cli.md"

_HEAD = """\
# The command line

<!-- written by python -m tests.docs.cli_page -->

Every command and option, as `fluxasync COMMAND --help` shows them. A list of values is given by
repeating the option. [Exit codes](errors.md#exit-codes) are the same for all commands, except
where a command names its own.

Keys and tokens are no options, because every user of a machine can read arguments: they come from
the environment or a file.
"""
#: commands that take the options of run
LIKE_RUN = ("resume", "doctor")
#: characters that Markdown would obey in a text
_MARKUP = re.compile(r"([\\*_<>|])")


@define
class Collector:
    """Stands for the formatter of a help page, and keeps what it is given."""

    usage: str = ""
    description: str = ""
    panels: list[Any] = field(factory=list)

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        self.usage = _text(usage)

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        self.description = _text(description)

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        self.panels.append(panel)


@cache
def collected(*words: str) -> Collector:
    """Return the help page of a command."""
    found = Collector()
    *_, executing = app.parse_commands(list(words))[1]
    before = executing.help_formatter
    executing.help_formatter = found
    try:
        app.help_print(list(words), console=Console(file=io.StringIO(), width=1000))
    finally:
        executing.help_formatter = before
    return found


def page() -> str:
    """Return the whole page."""
    return "\n".join((_HEAD, *_contents(), *(line for name in PAGES for line in _command([name]))))


def _contents() -> Iterator[str]:
    group = None
    for name, (of, _) in PAGES.items():
        if of is not group:
            group = of
            yield from (f"**{of.name}**", "")
        text = collected(name).description.split("\n\n")[0]
        yield f"- [`{name}`](#fluxasync-{name}): {_inert(text)}"
        following = [each for each, (other, _) in PAGES.items() if other is of]
        if name == following[-1]:
            yield ""


def _command(words: list[str]) -> Iterator[str]:
    found = collected(*words)
    yield from (f"## fluxasync {' '.join(words)}", "")
    for paragraph in found.description.split("\n\n"):
        yield from (_inert(" ".join(paragraph.split())), "")
    usage = " ".join(found.usage.removeprefix("Usage:").split())
    yield from ("```text", usage, "```", "")
    shared = set(_all_rows(["run"])) if words[0] in LIKE_RUN else set()
    for panel in found.panels:
        if own := [row for row in _rows(panel) if row not in shared]:
            yield from (f"| {_text(panel.title)} | |", "|---|---|", *own, "")
    if shared:
        yield from ("And the options of [run](#fluxasync-run).", "")
    if words[0] in PAGES and len(words) == 1:
        lines = examples(words[0]).splitlines()[2:]
        yield from ("```text", *(line.removeprefix("  ") for line in lines), "```", "")
    (*_, executing) = app.parse_commands(words)[1]
    for name in executing:
        if not name.startswith("-"):
            yield from _command([*words, name])


def _all_rows(words: list[str]) -> Iterator[str]:
    for panel in collected(*words).panels:
        yield from _rows(panel)


def _rows(panel: Any) -> Iterator[str]:
    for entry in panel.entries if panel.format == "parameter" else ():
        names = [*filter(None, [entry.positional_label]), *entry.positive_names]
        value = "" if entry.metavar is None or entry.positional_label else f" {entry.metavar}"
        labels = [f"`{name}{value}`" for name in [*names, *entry.positive_shorts]]
        text = _inert(_text(entry.description))
        if not all(choice in text for choice in entry.choices or ()):
            text += f" One of {', '.join(entry.choices)}."
        needed = " Required." if entry.required and "Required" not in text else ""
        yield f"| {', '.join(labels).replace('|', chr(92) + '|')} | {text}{needed} |"


def _text(shown: Any) -> str:
    """Return the plain text of what cyclopts would print."""
    inner = getattr(shown, "primary_renderable", shown)
    plain = getattr(inner, "plain", None)
    return (plain if plain is not None else str(inner or "")).strip("\n")


def _inert(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
