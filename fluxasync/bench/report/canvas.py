"""What every picture of a report is made on: drawn twice, for a wide place and for a narrow one.

Lettering in a scaled picture would be too small on a phone, so a page holds both and shows one.
Colours are those of the palette, which the page turns into its own by day and by night. The only
importer of matplotlib (extra `bench`), which is loaded when something is drawn.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from ..._core.errors import ConfigError
from ..._core.extras import install_command
from ..records import Interval
from .svg import PALETTE, inline, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = tuple(PALETTE[f"c{number}"] for number in range(8))
INK, QUIET, GRID, PAPER = (PALETTE[name] for name in ("ink", "quiet", "grid", "paper"))
#: pixels, as the page shows them: half of a wide page, and a phone's 390 without its margins
_WIDTHS = {"wide": 576, "narrow": 342}
#: pixels of a line of the legend
_ROW = 18
#: characters of a label in a picture
_LABEL = 40

Paint = Callable[["Figure", int], None]  #: paints on an empty figure of so many pixels' width


@frozen(kw_only=True)
class Plot:
    """One picture and what to know about it."""

    name: str  #: an id
    title: str
    caption: str  #: how to read it
    svg: str  #: for inside a page: a wide and a narrow drawing; empty where the caption is all


def demand_matplotlib() -> None:
    """Raise ConfigError where there is none."""
    try:
        import matplotlib  # noqa: F401 — only to see whether it is there
    except ImportError:
        raise ConfigError(f"plots need matplotlib: {install_command('bench')}") from None


def plot(name: str, title: str, caption: str, said: str, paint: Paint, *, height: int) -> Plot:
    """Draw a picture in both widths; `said` is what it shows, in words."""
    drawings = [
        inline(
            _drawn(paint, width, height),
            prefix=f"{name}-{kind}",
            title=title,
            description=plain(said),
            kind=kind,
        )
        for kind, width in _WIDTHS.items()
    ]
    return Plot(name=name, title=title, caption=caption, svg="\n".join(drawings))


def _drawn(paint: Paint, width: int, height: int) -> str:
    """One drawing as matplotlib writes it: the same from the same numbers in anyone's settings."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    page = io.StringIO()
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # characters its font lacks: the page's font has them
        mpl.rcdefaults()
        mpl.rc("svg", fonttype="none", hashsalt="fluxasync")
        mpl.rc("text", parse_math=False)
        mpl.rc("font", size=12)
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        figure.patch.set_visible(False)
        paint(figure, width)
        figure.savefig(page, format="svg", metadata={"Date": None})
    return page.getvalue()


def axes_on(figure: Figure, across: str, up: str) -> Axes:
    axes = figure.subplots()
    axes.patch.set_visible(False)
    axes.set_xlabel(across, color=QUIET)
    axes.set_ylabel(up, color=QUIET)
    axes.tick_params(colors=QUIET, length=0, pad=5)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    for spine in ("left", "bottom"):
        axes.spines[spine].set_color(GRID)
    axes.grid(color=GRID, lw=1)
    axes.set_axisbelow(True)
    return axes


def legend(axes: Axes, width: int) -> None:
    """Name the lines above the axes, in as many columns as go side by side.

    The figure grows by the rows, so that many names leave the picture its height.
    """
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        room = width - 50
        columns = int(room // (7 * max(map(len, labels)) + 34))
        if sum(6.5 * len(label) + 34 for label in labels) < room:
            columns = len(labels)
        columns = min(max(columns, 1), len(labels))
        rows = -(-len(labels) // columns)
        if (figure := axes.get_figure(root=True)) is not None:
            figure.set_figheight(figure.get_figheight() + _ROW * (rows - 1) / 72)
        axes.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns,
            frameon=False, labelcolor=INK, handlelength=1.8, columnspacing=1.2, borderpad=0.2,
        )  # fmt: skip


def line(
    axes: Axes, at: Sequence[float], values: Sequence[float | None], colour: str, dash: str,
    label: str,
) -> None:  # fmt: skip
    gapped: list[Any] = [float("nan") if value is None else value for value in values]
    axes.plot(at, gapped, dash, color=colour, lw=1.9, marker="o", ms=5, label=label)


def whiskers(
    axes: Axes, at: Sequence[float], intervals: Sequence[Interval | None], colour: str
) -> None:
    known = [(x, one.low, one.high) for x, one in zip(at, intervals, strict=True) if one]
    for x, low, high in known:
        axes.vlines(x, low, high, color=colour, lw=1.2)


def ring(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], "o", ms=15, mfc="none", mec=INK, mew=1.4)
    axes.annotate("knee", (x, y), xytext=(0, -14), textcoords="offset points", ha="center",
                  va="top", color=INK, fontsize=12, fontweight="bold")  # fmt: skip


def short(text: str) -> str:
    """Return a label that matplotlib and XML can take, whatever it was."""
    return plain(text, _LABEL)


def series(number: int) -> str:
    return SERIES[number % len(SERIES)]
