"""Help as cyclopts draws it, with the lines of each paragraph joined.

The lines of a docstring are as long as those of the code. Kept as they are, they would be broken
twice, by us and by the terminal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cyclopts.help import DefaultFormatter

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

_INNER_BREAK = re.compile(r"(?<!\n)\n(?!\n)")


class FlowingHelp(DefaultFormatter):
    """Draws help in lines as long as the terminal's."""

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        super().render_description(console, options, _flowing(description))

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        for entry in panel.entries:
            _flowing(entry.description)
        super().__call__(console, options, panel)


def _flowing(description: Any) -> Any:
    """Join the lines of each paragraph of a text; return what it is in."""
    text: Any = getattr(description, "primary_renderable", None)
    if (plain := getattr(text, "plain", None)) is not None:
        text.plain = _INNER_BREAK.sub(" ", plain.strip("\n"))
    return description
