"""Axes, lines and legends in one style, and the SVG that they become.

The ground of a chart is light. The page keeps it light in dark mode, so one drawing serves both.
"""

from __future__ import annotations

import io
import warnings
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from .._core.errors import ConfigError
from .._core.extras import install_command
from .formatting import inert

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, GRID, PAPER = "#1f2328", "#59636e", "#dfe3e8", "#ffffff"
SERIES = (
    "#0b63c5", "#c2570c", "#128a4a", "#8d3fb8", "#b8860b", "#c4314b", "#0f7f86", "#6b7480",
)  # fmt: skip
#: pixels; on a phone of 390 the letters are still 10 pixels high
WIDTH, _FONT = 440, 13
#: pixels around a chart
_MARGIN = 6
#: pixels of one row of a legend
_LEGEND_ROW = 20
#: characters of a label
_LABEL = 40
#: least width and height in pixels of what a pointer has to meet
_TARGET = 12
#: an axis is logarithmic where the largest value is this multiple of the median
_FLATTENED = 10


@frozen(kw_only=True)
class Hover:
    """A part of a chart that shows a text under the pointer, in the units of the axes."""

    text: str
    left: float
    right: float
    low: float | None = None  #: None = as high as the axes
    high: float | None = None


@frozen(kw_only=True)
class HoverArea:
    """The same in pixels of the image, from its upper left corner."""

    text: str
    x: float
    y: float
    width: float
    height: float


@frozen(kw_only=True)
class Chart:
    """One chart, with what it shows in words."""

    name: str
    title: str
    caption: str  #: how to read it
    description: str = ""  #: the content in words, for screen readers
    svg: str = ""  #: empty when there are too few images to draw anything
    width: int = 0  #: pixels
    height: int = 0  #: pixels
    areas: tuple[HoverArea, ...] = ()

    @property
    def source(self) -> str:
        """The image as a data URL."""
        return f"data:image/svg+xml;base64,{b64encode(self.svg.encode()).decode()}"


@contextmanager
def matplotlib_settings() -> Iterator[None]:
    """Settings under which the same numbers give the same drawing for every user.

    Raises ConfigError when matplotlib is missing.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise ConfigError(f"charts need matplotlib: {install_command('bench')}") from None

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # characters that its font lacks: the browser has others
        mpl.rcdefaults()
        mpl.rc("svg", fonttype="none", hashsalt="fluxasync")
        mpl.rc("text", parse_math=False)
        mpl.rc("font", size=_FONT)
        mpl.rc("axes", labelsize=_FONT)
        mpl.rc("xtick", labelsize=_FONT)
        mpl.rc("ytick", labelsize=_FONT)
        mpl.rc("legend", fontsize=_FONT)
        yield


def axes_for(across: str, up: str, *, height: int = 310) -> Axes:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=_MARGIN / 72, h_pad=_MARGIN / 72)
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout=layout)
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    axes.set_xlabel(across, color=QUIET)
    axes.set_ylabel(up, color=QUIET)
    axes.tick_params(colors=QUIET, length=0, pad=5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.grid(color=GRID, lw=1)
    axes.set_axisbelow(True)
    return axes


def finish_chart(
    axes: Axes,
    name: str,
    title: str,
    caption: str,
    description: str,
    hovers: Iterable[Hover] = (),
) -> Chart:
    """Return the chart of these axes. The places of the texts are known once it is drawn."""
    figure, file = _figure_of(axes), io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return Chart(
        name=name, title=title, caption=caption, description=description, svg=file.getvalue(),
        width=WIDTH, height=round(72 * figure.get_figheight()),
        areas=tuple(_area(axes, hover) for hover in hovers),
    )  # fmt: skip


def _area(axes: Axes, hover: Hover) -> HoverArea:
    low, high = axes.get_ylim()
    (left, bottom), (right, top) = axes.transData.transform(
        (
            (hover.left, low if hover.low is None else hover.low),
            (hover.right, high if hover.high is None else hover.high),
        )
    )
    width, height = max(right - left, _TARGET), max(top - bottom, _TARGET)
    if hover.low is None:  # one of many columns, which must not cover the others
        width = right - left
    x, y = (left + right - width) / 2, (bottom + top + height) / 2
    upper = 72 * _figure_of(axes).get_figheight()
    return HoverArea(
        text=hover.text, x=round(x, 1), y=round(upper - y, 1), width=round(width, 1),
        height=round(height, 1),
    )  # fmt: skip


def at_point(text: str, x: float, y: float) -> Hover:
    """Return the hover text of one point."""
    return Hover(text=text, left=x, right=x, low=y, high=y)


def stretch(axes: Axes, which: Literal["x", "y"], values: Iterable[float]) -> bool:
    """Make an axis logarithmic where a few large values would flatten the others; return whether
    it is."""
    known = [value for value in values if value > 0]
    if len(known) < 2 or max(known) < _FLATTENED * median(known):
        return False
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    is_wide = max(known) > 200 * min(known)
    axis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())
    return True


def _figure_of(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101 — made by `_axes`; for the type checker
    return figure


def legend(axes: Axes) -> None:
    """Name the lines above the axes. The figure grows with the rows of names."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < 2:
        return
    room = WIDTH - 50
    columns = int(room // (7.5 * max(map(len, labels)) + 36))
    if sum(7 * len(label) + 36 for label in labels) < room:
        columns = len(labels)
    columns = min(max(columns, 1), len(labels))
    figure, rows = _figure_of(axes), -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * (rows - 1) / 72)
    axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns,
        frameon=False, labelcolor=INK, handlelength=1.8, columnspacing=1.2, borderpad=0.2,
    )  # fmt: skip


def line(
    axes: Axes, at: Sequence[float], values: Sequence[float | None], colour: str, dash: str,
    label: str,
) -> None:  # fmt: skip
    gapped = [float("nan") if value is None else value for value in values]
    axes.plot(at, gapped, dash, color=colour, lw=1.9, marker="o", ms=5, label=label)


def whiskers(
    axes: Axes, at: Sequence[float], intervals: Sequence[tuple[float, float] | None], colour: str
) -> None:
    for x, interval in zip(at, intervals, strict=True):
        if interval is not None:
            axes.vlines(x, *interval, color=colour, lw=1.2)


def ring(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], "o", ms=15, mfc="none", mec=INK, mew=1.4)
    axes.annotate("saturation", (x, y), xytext=(6, -12), textcoords="offset points", ha="left",
                  va="top", color=INK, fontweight="bold")  # fmt: skip


def series(number: int) -> str:
    return SERIES[number % len(SERIES)]


def short(text: str) -> str:
    return inert(text, _LABEL)
