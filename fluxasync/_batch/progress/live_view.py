"""A View drawn for people, with rich: a bar, counts by stage, pace and money, the latest images.

The only room that loads rich. Prompts, names and servers' words pass `display` and become rich's
`Text`, which knows no markup: whatever they contain is read and never obeyed. A part is never torn
over two lines, and what does not fit is left out from below.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator

from attrs import frozen

from ..._core.amounts import dollars
from ..._core.errors import ConfigError
from ..._core.extras import install_command
from ..._core.text import columns, display
from .counts import ProgressSnapshot

try:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.terminal_theme import TerminalTheme
    from rich.text import Text
except ImportError:
    raise ConfigError(f"the live view needs rich: {install_command('cli')}") from None

_BETWEEN = " · "
#: columns; a bar is a bar from here on
_SHORTEST_BAR = 10
#: columns; on narrower screens names of files would be all there is room for
_ROOM_FOR_PROMPTS = 50
_PAGE = (80, 24)
#: a notebook's own colours, whether it is light or dark
_HTML = '<pre style="margin:0;line-height:1.35;font-family:monospace">{code}</pre>'
#: black, red, green, yellow, …: of a brightness that is read on white and on black
_PAGE_THEME = TerminalTheme(
    background=(255, 255, 255),
    foreground=(0, 0, 0),  # dimmed half way to white it is the grey between both
    normal=[
        (128, 128, 128), (221, 68, 68), (42, 150, 64), (176, 125, 0),
        (64, 112, 208), (160, 80, 180), (0, 140, 150), (128, 128, 128),
    ],
)  # fmt: skip


@frozen
class LiveView:
    """A View as something that rich draws, and that a notebook shows."""

    view: ProgressSnapshot
    rows: int = _PAGE[1]  #: the most that it takes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        lines: list[Text | Table] = [*_bar(self.view, width), *_lines(self.view, width)]
        yield from lines[: max(1, self.rows)]

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        console = _console(_PAGE[0], record=True)
        console.print(self)
        html = console.export_html(
            theme=_PAGE_THEME, inline_styles=True, code_format=_HTML, clear=False
        )
        return {"text/plain": console.export_text(), "text/html": html}


def drawn(view: ProgressSnapshot, *, columns: int, rows: int) -> list[str]:
    """Return the picture as lines for a terminal, with colours, none wider than `columns`."""
    console = _console(columns)
    with console.capture() as capture:
        console.print(LiveView(view, rows))
    return capture.get().splitlines()


def live(view: Callable[[], ProgressSnapshot], *, every: float) -> Live:
    """Return rich's Live on stderr, drawing what `view` returns, every so many seconds."""
    console = Console(stderr=True, force_jupyter=False)
    return Live(
        get_renderable=lambda: LiveView(view(), console.height - 1),
        console=console,
        refresh_per_second=1 / every,
        transient=True,
    )


def _console(width: int, *, record: bool = False) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        record=record,
        color_system="256" if record else "auto",
        force_terminal=True,
        force_jupyter=False,
        legacy_windows=False,
    )


def _bar(view: ProgressSnapshot, width: int) -> Iterator[Text | Table]:
    if not view.total:
        return
    share = view.ended / view.total
    words = f"{view.ended:,}/{view.total:,}  {int(100 * share)} %"
    length = width - len(words) - 2
    if length < _SHORTEST_BAR:
        yield _line(words, width, "")
        return
    bar = ProgressBar(total=view.total, completed=view.ended, width=length, complete_style="green")
    line = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    line.add_row(bar, Text(words, no_wrap=True))
    yield line


def _lines(view: ProgressSnapshot, width: int) -> Iterator[Text]:
    yield from _flow(_outcomes(view), width)
    yield from _flow(_stages(view), width)
    yield from _flow(_pace(view), width)
    if view.pause is not None:
        yield _line(view.pause, width, "yellow")
    for name, prompt in view.latest:
        yield _latest(name, prompt, width)


def _outcomes(view: ProgressSnapshot) -> Iterator[Text]:
    yield Text(f"{view.saved:,} saved", "green" if view.saved else "")
    if view.already:
        yield Text(f"{view.already:,} already there")
    if view.failed:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in view.failed.most_common())
        yield Text(f"{view.failed.total():,} failed: {display(causes)}", "red")
    if view.in_doubt:
        yield Text(f"{view.in_doubt:,} in doubt", "yellow")


def _stages(view: ProgressSnapshot) -> Iterator[Text]:
    if view.waiting:
        yield Text(f"{view.waiting:,} waiting")
    slots = "" if view.slots is None else f" of {view.slots:,} slots"
    yield Text(f"{view.running:,} running{slots}")
    if view.downloading:
        yield Text(f"{view.downloading:,} downloading")


def _pace(view: ProgressSnapshot) -> Iterator[Text]:
    if view.rate:
        yield Text(f"{60 * view.rate:,.1f} images/min")
    if view.eta is not None:
        yield Text(f"ETA {view.eta}")
    if view.cost is not None and (view.cost or view.projected):
        whole = "" if view.projected is None else f" of about {dollars(view.projected)}"
        yield Text(f"{dollars(view.cost)}{whole}")
    if view.push_backs:
        yield Text(f"{view.push_backs:,} × 429", "yellow")


def _latest(name: str, prompt: str, width: int) -> Text:
    if width < _ROOM_FOR_PROMPTS:
        return _line(name, width, "dim")
    shown = display(name, width // 2)
    prompt = display(prompt, width - columns(shown) - 2)
    return Text.assemble((shown, "dim"), "  ", prompt, no_wrap=True, overflow="crop")


def _flow(parts: Iterable[Text], width: int) -> Iterator[Text]:
    """Join the parts to as few lines as they fit on."""
    line: Text | None = None
    for part in parts:
        if line is None:
            line = part
        elif line.cell_len + len(_BETWEEN) + part.cell_len <= width:
            line = Text.assemble(line, (_BETWEEN, "dim"), part)
        else:
            yield _fitted(line, width)
            line = part
    if line is not None:
        yield _fitted(line, width)


def _fitted(line: Text, width: int) -> Text:
    line.no_wrap, line.overflow = True, "ellipsis"
    line.truncate(width, overflow="ellipsis")
    return line


def _line(text: str, width: int, style: str) -> Text:
    return Text(display(text, width), style, no_wrap=True, overflow="crop")
