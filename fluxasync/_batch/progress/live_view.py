"""The live view of a run, drawn with rich: a bar, counts by stage, rate, cost, latest images.

Prompts, names and server messages pass `display` and become rich's `Text`, which has no markup, so
a terminal obeys nothing in them. Parts are not broken over lines; what does not fit is left out.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from attrs import frozen

from ..._core.amounts import dollars
from ..._core.errors import ConfigError
from ..._core.extras import install_command
from ..._core.text import columns, counted, display
from .counts import ProgressSnapshot

try:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.terminal_theme import TerminalTheme
    from rich.text import Text
except ImportError:
    raise ConfigError(f"the live view needs rich: {install_command('cli')}") from None

_BETWEEN = " · "
#: columns of the shortest bar that is drawn
_SHORTEST_BAR = 10
#: columns of the narrowest screen that shows prompts
_WIDTH_FOR_PROMPTS = 50
_PAGE = (80, 24)
#: keeps the notebook's own text and background colours
_HTML = '<pre style="margin:0;line-height:1.35;font-family:monospace">{code}</pre>'
#: colours that can be read on white and on black
_PAGE_THEME = TerminalTheme(
    background=(255, 255, 255),
    foreground=(0, 0, 0),  # dimmed towards white it becomes the grey in between
    normal=[
        (128, 128, 128), (221, 68, 68), (42, 150, 64), (176, 125, 0),
        (64, 112, 208), (160, 80, 180), (0, 140, 150), (128, 128, 128),
    ],
)  # fmt: skip


@frozen
class LiveView:
    """A snapshot that rich draws and that a notebook shows."""

    view: ProgressSnapshot
    rows: int = _PAGE[1]  #: at most

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
    """Return the view as coloured lines, none wider than `columns`."""
    console = _console(columns)
    with console.capture() as capture:
        console.print(LiveView(view, rows))
    return capture.get().splitlines()


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
    if view.trouble is not None:
        parts = view.trouble.split("; ")
        yield from _flow((Text(display(part), "yellow") for part in parts), width)
    if view.pause is not None:
        yield _line(view.pause, width, "yellow")
    yield from _accounts(view, width)
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
    workers = "" if view.workers is None else f" on {counted(view.workers, 'worker')}"
    yield Text(f"{view.running:,} running{slots}{workers}")
    if view.downloading:
        yield Text(f"{view.downloading:,} downloading")


def _pace(view: ProgressSnapshot) -> Iterator[Text]:
    if view.rate and not view.only_waits:
        yield Text(f"{60 * view.rate:,.1f} images/min")
    if view.eta is not None:
        yield Text(f"ETA {view.eta}")
    if view.cost is not None and (view.cost or view.projected):
        whole = "" if view.projected is None else f" of about {dollars(view.projected)}"
        yield Text(f"{dollars(view.cost)}{whole}")
    if view.push_backs:
        yield Text(f"{view.push_backs:,} × 429", "yellow")


def _accounts(view: ProgressSnapshot, width: int) -> Iterator[Text]:
    """Yield a line for each of several accounts; their names are one column."""
    names = [display(account.name, width // 3) for account in view.accounts]
    column = max(map(columns, names), default=0)
    for name, account in zip(names, view.accounts, strict=True):
        padding = " " * (column - columns(name) + 2)
        is_held = account.out is not None or account.is_waiting
        yield _line(f"{name}{padding}{account.words()}", width, "yellow" if is_held else "")


def _latest(name: str, prompt: str, width: int) -> Text:
    if width < _WIDTH_FOR_PROMPTS:
        return _line(name, width, "dim")
    shown = display(name, width // 2)
    prompt = display(prompt, width - columns(shown) - 2)
    return Text.assemble((shown, "dim"), "  ", prompt, no_wrap=True, overflow="crop")


def _flow(parts: Iterable[Text], width: int) -> Iterator[Text]:
    """Join the parts into as few lines as possible."""
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
